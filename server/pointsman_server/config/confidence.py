"""Reads what is done for the sake of confidence: a second opinion, and a stronger model where there is too little."""

from __future__ import annotations

from pointsman_server.config.deployments import one_defined
from pointsman_server.config.scalars import share
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.confidence_policy import ConfidencePolicy

CONFIDENCE_KEYS: Keys = {
    "escalate_below": "escalate_below: 0.4",
    "cross_check_with": "cross_check_with: small-model",
    "cross_check_labels": "cross_check_labels: {importance: high}",
}


def read_confidence(spot: Spot, snapshot: Snapshot) -> ConfidencePolicy:
    """Compiles the section; `snapshot` has the deployments and aliases."""
    section = Section(spot, CONFIDENCE_KEYS)
    policy = ConfidencePolicy(
        escalate_below=section.optional("escalate_below", share, None),
        cross_check_with=section.optional("cross_check_with", lambda name: _answering(name, snapshot), ""),
        cross_check_labels=section.optional("cross_check_labels", _labels, ()),
    )
    labels = section.at("cross_check_labels")
    if labels and not section.at("cross_check_with"):
        labels.warn("has no effect without cross_check_with", "Name a deployment there, or remove this key.")
    return policy


def _answering(spot: Spot, snapshot: Snapshot) -> str:
    known: dict[str, Deployment] = {
        **snapshot.deployments,
        **{alias: snapshot.deployments[name] for alias, name in snapshot.aliases.items()},
    }
    deployment = one_defined("deployment or alias", known)(spot)
    if deployment.model.embedding is not None or deployment.is_last_resort:
        what = "only makes vectors" if deployment.model.embedding is not None else "answers without a model"
        raise UnacceptableError(f"refers to {deployment.id}, which {what}", "Name one whose model answers.")
    return deployment.id


def _labels(spot: Spot) -> tuple[tuple[str, str], ...]:
    return tuple((label, value.read(Spot.text, "")) for label, value in spot.entries())
