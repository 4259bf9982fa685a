"""Reads what tenants may use and spend: limits, budgets, deployments, data classes, and who a certificate is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from pointsman_server.config.context import read_context
from pointsman_server.config.deployments import DATA_CLASSES
from pointsman_server.config.problems import shown
from pointsman_server.config.routes import named_deployments
from pointsman_server.config.safety import read_safety
from pointsman_server.config.scalars import identifier, list_of, one_of, refuse_bad_id, some, switch, usd, whole_number
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.config.traces import read_traces
from pointsman_server.domain.caller import Role
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.governance import (
    Budget,
    Governance,
    Identity,
    Period,
    RateLimit,
    TenantPolicy,
    WhenCountersFail,
)

T = TypeVar("T")

TENANT_KEYS: Keys = {
    "requests_per_minute": "requests_per_minute: 600",
    "tokens_per_minute": "tokens_per_minute: 500000",
    "end_users": "end_users: {requests_per_minute: 20}",
    "budgets": "budgets: [{name: month, period: month, limit_usd: 250}]",
    "max_cost_per_request_usd": "max_cost_per_request_usd: 0.05",
    "only": "only: [one-deployment, another]",
    "deny": "deny: [one-deployment]",
    "least_data_class": "least_data_class: internal",
    "suspended": "suspended: true",
    "safety": "safety: {sensitive_data: {mode: block}}",
    "context": "context: {trim: all}",
    "traces": "traces: {mode: text}",
}
LIMIT_KEYS: Keys = {
    "requests_per_minute": "requests_per_minute: 20",
    "tokens_per_minute": "tokens_per_minute: 50000",
}
BUDGET_KEYS: Keys = {
    "name": "name: month",
    "period": "period: month",
    "limit_usd": "limit_usd: 250",
    "labels": "labels: {agent: research}",
}
IDENTITY_KEYS: Keys = {
    "tenant": "tenant: shop",
    "roles": "roles: [call]",
}
GOVERNANCE_KEYS: Keys = {
    "tenants": "tenants: {shop: {requests_per_minute: 600}}",
    "tenant_defaults": "tenant_defaults: {end_users: {requests_per_minute: 20}}",
    "unlisted_tenants": "unlisted_tenants: refuse",
    "identities": 'identities: {"spiffe://company/shop": {tenant: shop, roles: [call]}}',
    "peers": "peers: {requests_per_minute: 100}",
    "when_counters_fail": "when_counters_fail: refuse",
    "kill_switch_ends_streams": "kill_switch_ends_streams: true",
    "kill_switch_keeps_local": "kill_switch_keeps_local: true",
}
"""Keys of the whole file that are read here."""

END_USER_REQUESTS_PER_MINUTE = 20
PEER_REQUESTS_PER_MINUTE = 100
"""What holds in a policy that lists tenants, unless it says otherwise; one that lists none limits nobody."""

MAX_BUDGETS = 20
MAX_BUDGET_LABELS = 8

_NONE = "none"
_MOST_PER_MINUTE = 1_000_000_000_000
_LABEL_NAME = re.compile(r"[a-z0-9][a-z0-9_./-]{0,63}")
_MOST_LABEL_CHARACTERS = 256
_CERTIFICATE_NAME = re.compile(r"[!-)+-~]{1,256}")
_PERIODS = {period.value: period for period in Period}
_ROLES = {role.value: role for role in Role}
_REFUSE = {"accept": False, "refuse": True}


def read_governance(section: Section, snapshot: Snapshot) -> Governance:
    """Compiles the keys of the file that are about tenants; `snapshot` has the deployments and aliases to refer to."""
    usual = TenantPolicy(
        end_user_limit=RateLimit(END_USER_REQUESTS_PER_MINUTE) if section.at("tenants") else RateLimit()
    )
    others = section.optional("tenant_defaults", lambda spot: _tenant(spot, usual, snapshot), usual)
    tenants = section.optional("tenants", lambda spot: _tenants(spot, others, snapshot), {})
    only_listed = section.optional("unlisted_tenants", one_of(_REFUSE), False)
    if only_listed and not tenants and (spot := section.at("unlisted_tenants")):
        spot.warn("is `refuse` and no tenant is listed: every call is refused", "List tenants under `tenants`.")
    return Governance(
        tenants=tenants,
        others=others,
        only_listed=only_listed,
        identities=section.optional("identities", lambda spot: _identities(spot, tenants, only_listed), {}),
        peer_limit=_peer_limit(section),
        when_counters_fail=section.optional(
            "when_counters_fail", one_of({word.value: word for word in WhenCountersFail}), WhenCountersFail.REFUSE
        ),
        kill_switch_ends_streams=section.optional("kill_switch_ends_streams", switch, False),
        kill_switch_keeps_local=_keeps_local(section, snapshot),
    )


def _keeps_local(section: Section, snapshot: Snapshot) -> bool:
    keeps = section.optional("kill_switch_keeps_local", switch, False)
    spot = section.at("kill_switch_keeps_local")
    if keeps and spot and not any(one.is_last_resort for one in snapshot.deployments.values()):
        spot.warn(
            "is true, but no deployment answers from a knowledge base",
            "Add a provider of dialect local_knowledge and a deployment of it.",
        )
    return keeps


def _peer_limit(section: Section) -> RateLimit:
    tenants = section.at("tenants")
    if not tenants:
        return section.optional("peers", _limit(RateLimit()), RateLimit())
    if not section.at("peers"):
        tenants.warn(
            f"come without `peers`: each network address may send {PEER_REQUESTS_PER_MINUTE} requests a minute",
            f"Confirm it with `peers: {{requests_per_minute: {PEER_REQUESTS_PER_MINUTE}}}`; behind a proxy, through "
            "which all calls come from one address, write `none` or what that proxy may send.",
        )
    usual = RateLimit(PEER_REQUESTS_PER_MINUTE)
    return section.optional("peers", _limit(usual), usual)


def _tenants(spot: Spot, defaults: TenantPolicy, snapshot: Snapshot) -> dict[str, TenantPolicy]:
    tenants: dict[str, TenantPolicy] = {}
    for name, value in spot.entries():
        refuse_bad_id(value, name)
        tenants[name] = value.read(lambda one: _tenant(one, defaults, snapshot), defaults)
    return dict(sorted(tenants.items()))


def _tenant(spot: Spot, defaults: TenantPolicy, snapshot: Snapshot) -> TenantPolicy:
    section = Section(spot, TENANT_KEYS)
    names = named_deployments(snapshot)
    tenant = TenantPolicy(
        limit=_rates(section, defaults.limit),
        end_user_limit=section.optional("end_users", _limit(defaults.end_user_limit), defaults.end_user_limit),
        budgets=section.optional("budgets", _budgets, defaults.budgets),
        max_cost_per_request_micro_usd=section.optional(
            "max_cost_per_request_usd", _or_none(_amount), defaults.max_cost_per_request_micro_usd
        ),
        allowed_deployments=frozenset(section.optional("only", names, defaults.allowed_deployments)),
        denied_deployments=frozenset(section.optional("deny", names, defaults.denied_deployments)),
        least_data_class=section.optional("least_data_class", one_of(DATA_CLASSES), defaults.least_data_class),
        suspended=section.optional("suspended", switch, defaults.suspended),
        safety=section.optional(
            "safety", lambda one: read_safety(one, defaults.safety or snapshot.safety), defaults.safety
        ),
        context=section.optional(
            "context", lambda one: read_context(one, defaults.context or snapshot.context), defaults.context
        ),
        traces=section.optional(
            "traces", lambda one: read_traces(one, defaults.traces or snapshot.traces), defaults.traces
        ),
    )
    _warn_if_nothing_is_left(spot, tenant, snapshot)
    return tenant


def _warn_if_nothing_is_left(spot: Spot, tenant: TenantPolicy, snapshot: Snapshot) -> None:
    left = [one for one in snapshot.deployments.values() if tenant.may_use(one.id)]
    if snapshot.deployments and not left:
        spot.warn("leaves no deployment: every call is refused", "Correct `only` and `deny`.")
    elif left and not any(_may_carry(one, tenant) for one in left):
        spot.warn(
            "leaves no deployment that is approved for its least data class: every call is refused",
            "Lower `least_data_class`, or raise `data_class` of a deployment that your contracts cover.",
        )


def _may_carry(deployment: Deployment, tenant: TenantPolicy) -> bool:
    return tenant.least_data_class is None or deployment.approved_data_class >= tenant.least_data_class


def _limit(defaults: RateLimit) -> Callable[[Spot], RateLimit]:
    return lambda spot: _rates(Section(spot, LIMIT_KEYS), defaults)


def _rates(section: Section, defaults: RateLimit) -> RateLimit:
    number = _or_none(_refusing_all(whole_number(0, _MOST_PER_MINUTE)))
    return RateLimit(
        requests_per_minute=section.optional("requests_per_minute", number, defaults.requests_per_minute),
        tokens_per_minute=section.optional("tokens_per_minute", number, defaults.tokens_per_minute),
    )


def _budgets(spot: Spot) -> tuple[Budget, ...]:
    budgets: dict[str, Budget] = {}
    for item in spot.items():
        budget = item.read(_budget, None)
        if budget is None:
            continue
        if budget.name in budgets:
            item.refuse("has the name of an earlier budget", "Give every budget of a tenant a name of its own.")
        budgets[budget.name] = budget
    if len(budgets) > MAX_BUDGETS:
        raise UnacceptableError(f"has {len(budgets)} budgets", f"Write at most {MAX_BUDGETS}.")
    return tuple(budgets.values())


def _budget(spot: Spot) -> Budget:
    section = Section(spot, BUDGET_KEYS)
    return Budget(
        name=section.required("name", identifier, ""),
        period=section.required("period", one_of(_PERIODS), Period.MONTH),
        limit_micro_usd=section.required("limit_usd", _amount, 0),
        labels=section.optional("labels", some(_labels), ()),
    )


def _labels(spot: Spot) -> tuple[tuple[str, str], ...]:
    labels = {name: value.read(_label_value, "") for name, value in spot.entries()}
    for name, value in spot.entries():
        if not _LABEL_NAME.fullmatch(name):
            value.refuse(
                f"is not the name of a label: {shown(name)}",
                "Use 1 to 64 lower-case letters, digits, '.', '_', '/' or '-', a letter or digit first.",
            )
    if len(labels) > MAX_BUDGET_LABELS:
        raise UnacceptableError(f"has {len(labels)} labels", f"Write at most {MAX_BUDGET_LABELS}.")
    return tuple(sorted(labels.items()))


def _label_value(spot: Spot) -> str:
    text = spot.text()
    if len(text) > _MOST_LABEL_CHARACTERS:
        raise UnacceptableError("is too long", f"Labels have up to {_MOST_LABEL_CHARACTERS} characters.")
    return text


def _identities(spot: Spot, tenants: dict[str, TenantPolicy], only_listed: bool) -> dict[str, Identity]:
    identities: dict[str, Identity] = {}
    for name, value in spot.entries():
        if not _CERTIFICATE_NAME.fullmatch(name):
            value.refuse(
                "is not a name of a certificate", "Write its URI or DNS name in full; `*` does not stand for others."
            )
        identity = value.read(_identity, None)
        if identity is not None:
            identities[name] = identity
            if only_listed and identity.tenant not in tenants:
                value.refuse(
                    f"belongs to {shown(identity.tenant)}, which `tenants` does not list and is refused therefore",
                    "List that tenant, or name one that is listed.",
                )
    return dict(sorted(identities.items()))


def _identity(spot: Spot) -> Identity:
    section = Section(spot, IDENTITY_KEYS)
    return Identity(
        tenant=section.required("tenant", identifier, ""),
        roles=frozenset(section.required("roles", some(list_of(one_of(_ROLES))), ())),
    )


def _amount(spot: Spot) -> int:
    return _refusing_all(usd)(spot)


def _refusing_all(reader: Callable[[Spot], int]) -> Callable[[Spot], int]:
    def read(spot: Spot) -> int:
        value = reader(spot)
        if value == 0:
            spot.warn("is 0, which refuses every call that it is about", "Raise it, unless nobody shall call.")
        return value

    return read


def _or_none(reader: Callable[[Spot], T]) -> Callable[[Spot], T | None]:
    """A reader that takes the word `none` for no limit, which overrides a default."""
    return lambda spot: None if spot.text() == _NONE else reader(spot)
