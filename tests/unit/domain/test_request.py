from __future__ import annotations

from itertools import pairwise

from pointsman_server.domain.request import CompletionRequest, DataClass, Tier


def test_tiers_and_data_classes_are_ordered_by_strength() -> None:
    assert all(weaker < stronger for weaker, stronger in pairwise((Tier.LIGHT, Tier.STANDARD, Tier.ADVANCED)))
    classes = (DataClass.PUBLIC, DataClass.INTERNAL, DataClass.CONFIDENTIAL, DataClass.RESTRICTED)
    assert all(looser < stricter for looser, stricter in pairwise(classes))


def test_a_bare_request_demands_nothing() -> None:
    request = CompletionRequest(())
    assert (request.tier, request.deployment, request.quality_bias) == (None, "", None)
    assert request.constraints.data_class is DataClass.PUBLIC
    assert not request.constraints.allowed_deployments
