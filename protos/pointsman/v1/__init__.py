"""Stubs of the contract `pointsman.v1`, generated from the `.proto` files beside them."""
