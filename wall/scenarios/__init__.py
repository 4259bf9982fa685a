"""All scenarios, by their ids."""
