"""Checks before the start: would a server with this environment and this policy work, and if not, what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from importlib.metadata import PackageNotFoundError, version

from pointsman_server.config.base_url import Reach
from pointsman_server.config.exposure import exposure_problems, needs_callers
from pointsman_server.config.policy_file import LoadedPolicy, load_policy
from pointsman_server.config.probes import port_fault, reach
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.settings import Address, Settings, SettingsError
from pointsman_server.decision.encoder import ENCODER
from pointsman_server.domain.catalog import Deployment, Model, Provider, Snapshot
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.domain.request import Tier

PRICE_OUTLOOK_DAYS = 30
_PROBED_AT_ONCE = 8
_ADDRESS_CHECKS = {"POINTSMAN_GRPC_ADDRESS": "address.grpc", "POINTSMAN_ADMIN_ADDRESS": "address.admin"}


class Status(Enum):
    """What a check found. A server with a WARN works; one with a FAIL does not, or not as its policy promises."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `remedy` is "" when there is nothing to do."""

    id: str
    status: Status
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """All findings, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0 when nothing fails, else 1."""
        return int(any(check.status is Status.FAIL for check in self.checks))

    def to_json(self) -> str:
        """The report as JSON: `ok`, the counts by status, and the checks."""
        counts = {status.value: sum(check.status is status for check in self.checks) for status in Status}
        checks = [{**asdict(check), "status": check.status.value} for check in self.checks]
        return json.dumps({"ok": self.exit_code == 0, "counts": counts, "checks": checks}, indent=2)


def run_preflight(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    check_endpoints: bool,
    load_token_counter: Callable[[], TokenCounter] | None = None,
    today: date | None = None,
) -> PreflightReport:
    """Runs all checks. Nothing leaves this machine unless `check_endpoints`, and then no key and no prompt does.

    `load_token_counter` makes the counter that the server would use; None leaves that check out.
    """
    day = today or datetime.now(UTC).date()
    checks = [*_address_checks(settings)]
    if load_token_counter:
        checks.append(_token_counter_check(load_token_counter))
    try:
        policy = load_policy(settings.policy_file, environ, day)
        ahead = load_policy(settings.policy_file, environ, day + timedelta(days=PRICE_OUTLOOK_DAYS))
    except PolicyError as error:
        checks.extend(Check("policy", Status.FAIL, str(problem), problem.remedy) for problem in error.problems)
        return PreflightReport(tuple(checks))
    checks.extend(_policy_checks(policy))
    checks.extend(_price_changes(policy.snapshot, ahead.snapshot))
    if check_endpoints:
        checks.extend(_endpoint_checks(policy.snapshot))
    return PreflightReport(tuple(checks))


def policy_failures(policy: LoadedPolicy) -> dict[str, str]:
    """What a server with this policy could not do here, by the name of the check; nothing leaves this machine."""
    failed = (check for check in _policy_checks(policy) if check.status is Status.FAIL)
    return {check.id: f"{check.message}. {check.remedy}" for check in failed}


def settings_report(error: SettingsError) -> PreflightReport:
    """The report for an environment that cannot even be read."""
    return PreflightReport(
        tuple(
            Check(f"settings.{problem.variable}", Status.FAIL, f"{problem.variable} {problem.message}", problem.remedy)
            for problem in error.problems
        )
    )


def _address_checks(settings: Settings) -> Iterator[Check]:
    for variable, address in settings.grpc_addresses.items():
        yield _port_check(_ADDRESS_CHECKS[variable], variable, address)
    problems = exposure_problems(settings)
    for problem in problems:
        yield Check(
            f"exposure.{problem.variable}", Status.FAIL, f"{problem.variable} {problem.message}", problem.remedy
        )
    if not problems:
        yield _callers_check(settings)


def _callers_check(settings: Settings) -> Check:
    secrecy = "calls are encrypted" if settings.has_tls else "only this machine can call, and calls are not encrypted"
    match needs_callers(settings):
        case True:
            return Check("exposure", Status.OK, f"{secrecy}; every call needs a key or a client certificate")
        case False:
            return Check(
                "exposure",
                Status.WARN,
                f"{secrecy}; nobody checks who calls",
                "Unset POINTSMAN_AUTHENTICATION, or set it to `required`.",
            )
        case None:
            return Check("exposure", Status.OK, f"{secrecy}; calls need no key as long as there is none")


def _port_check(id_: str, variable: str, address: Address) -> Check:
    if fault := port_fault(address):
        return Check(id_, Status.FAIL, f"cannot listen on {address}: {fault}", f"Free it, or set {variable}.")
    return Check(id_, Status.OK, f"can listen on {address}")


def _token_counter_check(load: Callable[[], TokenCounter]) -> Check:
    try:
        counted = load().count("Are the vocabularies here?")
    except Exception as error:  # whatever a tokenizer raises, the report has to be made
        message = f"the token counter does not work ({type(error).__name__})"
        return Check("tokenizer", Status.FAIL, message, "Install the server again with all its requirements.")
    if counted < 1:
        return Check("tokenizer", Status.FAIL, "the token counter counts nothing", "Install the server again.")
    return Check("tokenizer", Status.OK, "tokens are counted with data on this machine")


def _policy_checks(policy: LoadedPolicy) -> Iterator[Check]:
    snapshot = policy.snapshot
    count = len(snapshot.deployments)
    yield Check("policy", Status.OK, f"{snapshot.source} version {snapshot.version} has {count} deployments")
    for warning in policy.warnings:
        yield Check("policy", Status.WARN, str(warning), warning.remedy)
    for provider in snapshot.providers.values():
        yield _key_check(provider)
    yield _usable_check(snapshot)
    if snapshot.second_look:
        yield _second_look_check()
    for tier in Tier:
        yield _tier_check(snapshot, tier)
    for model in _models(snapshot).values():
        yield _price_check(model, _is_local(policy, model))


def _second_look_check() -> Check:
    try:
        found = version(ENCODER.package)
    except PackageNotFoundError:
        found = ""
    if found == ENCODER.version:
        return Check("second_look", Status.OK, f"requests in doubt are looked at again with {ENCODER.package} {found}")
    have = f"version {found} is installed" if found else "it is not installed"
    message = f"the policy wants a second look, which needs {ENCODER.package} {ENCODER.version}; {have}"
    return Check("second_look", Status.FAIL, message, ENCODER.remedy)


def _models(snapshot: Snapshot) -> dict[str, Model]:
    return {deployment.model.id: deployment.model for deployment in snapshot.deployments.values()}


def _key_check(provider: Provider) -> Check:
    id_ = f"provider.{provider.id}.key"
    if provider.unusable_because:
        message = f"{provider.id} cannot be used: {provider.unusable_because}"
        return Check(id_, Status.WARN, message, "Put the key there, or remove the provider from the policy.")
    if provider.simulated:
        return Check(id_, Status.OK, f"{provider.id} is simulated: no language model answers")
    if provider.knowledge is not None:
        count, files = len(provider.knowledge.passages), len(provider.knowledge.files)
        return Check(id_, Status.OK, f"{provider.id} needs no key: it answers from {count} passages of {files} files")
    if provider.api_key is None:
        return Check(id_, Status.OK, f"{provider.id} needs no key")
    return Check(id_, Status.OK, f"{provider.id} has a key from {provider.api_key.reference}")


def _usable(deployments: list[Deployment]) -> list[Deployment]:
    return [deployment for deployment in deployments if not deployment.provider.unusable_because]


def _usable_check(snapshot: Snapshot) -> Check:
    deployments = list(snapshot.deployments.values())
    usable = _usable(deployments)
    if not usable:
        message = "no deployment can be used: every provider lacks its key"
        return Check("deployments", Status.FAIL, message, "Set at least one of the keys named above.")
    return Check("deployments", Status.OK, f"{len(usable)} of {len(deployments)} deployments can be used")


def _tier_check(snapshot: Snapshot, tier: Tier) -> Check:
    id_, word = f"tier.{tier.name.lower()}", tier.name.lower()
    chain = snapshot.tier_chains.get(tier, ())
    offered = [
        deployment
        for deployment in snapshot.answering.values()
        if (deployment.model.tier is tier or deployment.id in chain) and not deployment.is_last_resort
    ]
    if not offered and any(deployment.is_last_resort for deployment in snapshot.deployments.values()):
        message = f"no model is of tier {word}: requests that ask for it are answered from a knowledge base alone"
        return Check(id_, Status.WARN, message, f"Add a {word} model, or list a chain under `tiers.{word}`.")
    if not offered:
        message = f"no deployment is of tier {word}: requests that ask for it are refused"
        return Check(id_, Status.WARN, message, f"Add a {word} model, or list a chain under `tiers.{word}`.")
    usable = _usable(offered)
    if not usable:
        message = f"all {len(offered)} deployments for tier {word} lack their keys"
        return Check(id_, Status.FAIL, message, "Set one of their keys, or let its chain include a usable deployment.")
    return Check(id_, Status.OK, f"{len(usable)} of {len(offered)} deployments for tier {word} can be used")


def _is_local(policy: LoadedPolicy, model: Model) -> bool:
    """Whether the model only runs where no vendor sends bills."""
    providers = [item.provider for item in policy.snapshot.deployments.values() if item.model.id == model.id]
    return all(provider.simulated or policy.reaches[provider.id] is not Reach.PUBLIC for provider in providers)


def _price_check(model: Model, is_local: bool) -> Check:
    id_ = f"price.{model.id}"
    since = f"since {model.price.valid_from.isoformat()}" if model.price.valid_from else "undated"
    free = not model.price.per_request_micro_usd and not any(
        rates.input or rates.output for _, rates in model.price.steps
    )
    if free and not is_local:
        message = f"{model.id} is priced 0 although a provider on the internet serves it"
        return Check(id_, Status.WARN, message, "Budgets and cost reports will not see it; write its true price.")
    return Check(id_, Status.OK, f"{model.id}: {model.price.version}, {since}")


def _price_changes(now: Snapshot, ahead: Snapshot) -> Iterator[Check]:
    """Prices are those of the day on which the policy was read, so a coming change has to be announced."""
    models_ahead = _models(ahead)
    for model in _models(now).values():
        later = models_ahead.get(model.id, model).price
        if later != model.price and later.valid_from:
            yield Check(
                f"price.{model.id}.change",
                Status.WARN,
                f"the price of {model.id} changes on {later.valid_from.isoformat()}",
                "Restart the server on that day, so that it reads the new price.",
            )


def _endpoint_checks(snapshot: Snapshot) -> Iterator[Check]:
    providers = [provider for provider in snapshot.providers.values() if provider.knowledge is None]
    with ThreadPoolExecutor(max_workers=_PROBED_AT_ONCE) as pool:
        yield from pool.map(_endpoint_check, providers)


def _endpoint_check(provider: Provider) -> Check:
    id_ = f"provider.{provider.id}.endpoint"
    found = reach(provider.base_url)
    if found.status:
        return Check(id_, Status.OK, f"{provider.id} answers (HTTP {found.status} in {found.seconds * 1000:.0f} ms)")
    status = Status.WARN if provider.unusable_because or provider.simulated else Status.FAIL
    remedy = "Check the provider's `base_url`, this machine's network and its firewall."
    if provider.simulated:
        remedy = "`pointsman simulate` starts it; `pointsman serve` starts one of its own."
    return Check(id_, status, f"{provider.id} cannot be reached: {found.fault}", remedy)
