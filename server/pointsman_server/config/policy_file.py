"""Compiles a policy file: everything that is wrong with it at once, or one immutable `Snapshot`."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from pointsman_server.config.alerts import read_alerts
from pointsman_server.config.base_url import Reach
from pointsman_server.config.caching import read_caching, warn_about_strangers
from pointsman_server.config.confidence import read_confidence
from pointsman_server.config.context import read_context
from pointsman_server.config.deployments import read_deployment
from pointsman_server.config.fingerprint import fingerprint
from pointsman_server.config.models import read_model
from pointsman_server.config.price_list import PriceList
from pointsman_server.config.problems import Findings, Problem
from pointsman_server.config.providers import ReadProvider, read_provider
from pointsman_server.config.resilience import read_resilience
from pointsman_server.config.routes import read_aliases, read_tier_chains
from pointsman_server.config.routing import with_routing
from pointsman_server.config.safety import read_safety
from pointsman_server.config.scalars import one_of, refuse_bad_id
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.config.templates import built_in_templates, read_templates
from pointsman_server.config.tenants import GOVERNANCE_KEYS, read_governance
from pointsman_server.config.traces import read_traces
from pointsman_server.config.yaml_tree import MAX_BYTES, read_tree
from pointsman_server.domain.cache import Caching
from pointsman_server.domain.catalog import Deployment, Model, Snapshot
from pointsman_server.domain.context import ContextPolicy
from pointsman_server.domain.record import PolicyRecord
from pointsman_server.domain.resilience import Resilience
from pointsman_server.domain.trace_policy import TracePolicy

T = TypeVar("T")

POLICY_KEYS: Keys = {
    "version": "version: 1",
    "providers": "providers: {anthropic: {dialect: anthropic_messages}}",
    "models": "models: {claude-sonnet: {tier: standard}}",
    "deployments": "deployments: {claude-sonnet-direct: {provider: anthropic, model: claude-sonnet}}",
    "aliases": "aliases: {smart: claude-sonnet-direct}",
    "tiers": "tiers: {standard: {chain: [claude-sonnet-direct]}}",
    "routing": "routing: {quality_bias: 0.5}",
    "resilience": "resilience: {retries: {attempts_per_call: 6}}",
    "context": "context: {trim: documents}",
    "safety": "safety: {sensitive_data: {mode: mask}}",
    "cache": "cache: {mode: read_write}",
    "confidence": "confidence: {escalate_below: 0.4}",
    "traces": "traces: {mode: metadata}",
    **GOVERNANCE_KEYS,
    "templates": 'templates: {greet: {versions: {1: {messages: [{user: "Hello"}]}}}}',
    "alerts": 'alerts: {webhook: {url: "https://alerts.example.com/pointsman"}}',
}


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A compiled policy and what is probably a mistake in it.

    `reaches` tells for every provider id whether its host is this machine, a private network or the internet.
    `text`, `priced_on` and `calibration`, the text of the calibration file, are what it was compiled from.
    """

    snapshot: Snapshot
    warnings: tuple[Problem, ...]
    reaches: Mapping[str, Reach]
    text: str
    priced_on: date
    calibration: str = ""

    @property
    def record(self) -> PolicyRecord:
        """What has to be kept to compile it to the same again."""
        providers = self.snapshot.providers.values()
        unusable = {provider.id: provider.unusable_because for provider in providers if provider.unusable_because}
        return PolicyRecord(
            version=self.snapshot.version,
            text=self.text,
            file=self.snapshot.source,
            priced_on=self.priced_on,
            unusable=unusable,
            calibration=self.calibration,
            cost_weights=self.snapshot.cost_weights,
        )


def load_policy(path: str | Path, environ: Mapping[str, str], today: date | None = None) -> LoadedPolicy:
    """Reads and compiles the file at this path; raises `PolicyError` when it is missing or wrong.

    Prices are those in force on `today` (UTC; the current day when None); keys come from `environ`.
    """
    return compile_policy(_content(Path(path)), str(path), environ, today or datetime.now(UTC).date())


def compile_policy(
    data: bytes, file: str, environ: Mapping[str, str], today: date, *, kept_calibration: str | None = None
) -> LoadedPolicy:
    """Compiles the bytes of a policy file; `file` names it in messages. Raises `PolicyError` with every problem.

    A calibration file is looked for beside `file`, unless its text was kept.
    """
    findings = Findings(file)
    root = read_tree(data, findings)
    section = Section(Spot(findings, root, "", root.line), POLICY_KEYS)
    # Who answers a question follows from no word of a knowledge base, so decisions can be made again without it.
    policy = _read_policy(section, environ, today, kept_calibration)
    findings.raise_if_any()
    return replace(policy, warnings=tuple(findings.warnings), text=data.decode())


def compile_record(record: PolicyRecord) -> Snapshot:
    """The snapshot that a kept policy was compiled to, whatever was learned and whichever keys were set since."""
    loaded = compile_policy(
        record.text.encode(), record.file, {}, record.priced_on, kept_calibration=record.calibration
    )
    snapshot = loaded.snapshot
    return replace(
        snapshot,
        version=record.version,
        deployments={name: _as_kept(deployment, record) for name, deployment in snapshot.deployments.items()},
        cost_weights=record.cost_weights or snapshot.cost_weights,
    )


def _as_kept(deployment: Deployment, record: PolicyRecord) -> Deployment:
    because = record.unusable.get(deployment.provider.id, "")
    return replace(deployment, provider=replace(deployment.provider, unusable_because=because))


def _content(path: Path) -> bytes:
    findings = Findings(str(path))
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            findings.stop(0, "", "is not a regular file", "Name a YAML file.")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        findings.stop(0, "", "does not exist", "Set POINTSMAN_POLICY_FILE to the path of the policy.")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        findings.stop(0, "", f"cannot be read ({reason})", "Check the path and its permissions.")


def _read_policy(
    section: Section, environ: Mapping[str, str], today: date, kept_calibration: str | None
) -> LoadedPolicy:
    section.required("version", one_of({"1": 1}), 1)
    prices = PriceList(today)
    read = partial(read_provider, environ=environ, read_files=kept_calibration is None)
    providers = section.required("providers", _defined(read), {})
    # Where no model is asked, none needs to be described.
    needed = section.required if section.at("models") or not _answers_alone(providers) else section.optional
    models = needed("models", _defined(lambda name, spot: read_model(name, spot, prices, today)), {})
    deployments = section.required("deployments", _defined(_deployment_reader(providers, models)), {})
    aliases = section.optional("aliases", lambda spot: read_aliases(spot, deployments), {})
    chains = section.optional("tiers", lambda spot: read_tier_chains(spot, deployments, aliases), {})
    snapshot = Snapshot(
        version="",
        source=section.spot.findings.file,
        deployments=dict(sorted(deployments.items())),
        aliases=dict(sorted(aliases.items())),
        tier_chains=chains,
        resilience=section.optional("resilience", read_resilience, Resilience()),
        context=section.optional("context", lambda spot: read_context(spot, ContextPolicy()), ContextPolicy()),
        traces=section.optional("traces", lambda spot: read_traces(spot, TracePolicy()), TracePolicy()),
        templates={**built_in_templates(), **section.optional("templates", read_templates, {})},
    )
    safety = section.optional("safety", lambda spot: read_safety(spot, snapshot.safety), snapshot.safety)
    confidence = section.optional("confidence", lambda spot: read_confidence(spot, snapshot), snapshot.confidence)
    snapshot = replace(snapshot, safety=safety, confidence=confidence)
    snapshot, calibration = with_routing(snapshot, section.at("routing"), kept_calibration)
    webhook = section.optional("alerts", lambda spot: read_alerts(spot, environ), None)
    snapshot = replace(snapshot, governance=replace(read_governance(section, snapshot), webhook=webhook))
    snapshot = replace(snapshot, caching=_caching(section, snapshot))
    _warn_about_unused(section, snapshot, providers, models)
    return replace(_versioned(snapshot, providers, today), calibration=calibration)


def _caching(section: Section, snapshot: Snapshot) -> Caching:
    caching = section.optional("cache", lambda spot: read_caching(spot, snapshot.deployments), Caching())
    if spot := section.at("cache"):
        warn_about_strangers(spot, caching, snapshot.governance)
    return caching


def _defined(read: Callable[[str, Spot], T]) -> Callable[[Spot], dict[str, T]]:
    """A reader of things by their id; there must be at least one."""

    def read_all(spot: Spot) -> dict[str, T]:
        things: dict[str, T] = {}
        for name, value in spot.entries():
            refuse_bad_id(value, name)
            things[name] = read(name, value)
        if not things:
            raise UnacceptableError("is empty", "Define at least one.")
        return things

    return read_all


def _answers_alone(providers: Mapping[str, ReadProvider]) -> bool:
    return bool(providers) and all(one.provider.knowledge is not None for one in providers.values())


def _deployment_reader(
    providers: Mapping[str, ReadProvider], models: Mapping[str, Model]
) -> Callable[[str, Spot], Deployment]:
    compiled = {name: read.provider for name, read in providers.items()}
    return lambda name, spot: read_deployment(name, spot, compiled, models)


def _warn_about_unused(
    section: Section, snapshot: Snapshot, providers: Mapping[str, ReadProvider], models: Mapping[str, Model]
) -> None:
    used = {
        "providers": {deployment.provider.id for deployment in snapshot.deployments.values()},
        "models": {deployment.model.id for deployment in snapshot.deployments.values()},
    }
    for key, defined in (("providers", providers), ("models", models)):
        spot = section.at(key)
        for name in sorted(set(defined) - used[key]):
            if spot:
                spot.warn(f"defines '{name}', which no deployment uses", "Remove it, or add a deployment.")


def _versioned(snapshot: Snapshot, providers: Mapping[str, ReadProvider], today: date) -> LoadedPolicy:
    references = {name: read.key_reference for name, read in providers.items()}
    reaches = {name: read.reach for name, read in providers.items()}
    return LoadedPolicy(replace(snapshot, version=fingerprint(snapshot, references)), (), reaches, "", today)
