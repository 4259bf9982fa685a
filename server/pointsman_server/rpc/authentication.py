"""Who calls, and whether he may: an API key or a client certificate, read before anything else of a call.

Whatever goes wrong here ends as `Unauthenticated`, in the same words and after the same work for every reason. What a
method demands is looked up by the name under which this server registered it, never by anything a caller sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import structlog

from pointsman_server.domain.caller import LOCAL_CALLER, Caller, Role
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Control
from pointsman_server.domain.errors import PermissionDenied, Unauthenticated
from pointsman_server.domain.governance import Identity
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.keys import KEY_CHARACTERS, find_key

Entries = Sequence[tuple[str, Any]]
"""A call's metadata as it came: names are in small letters, values texts, or bytes where the name ends in -bin."""

AUTHORIZATION, API_KEY, TENANT = "authorization", "x-api-key", "x-tenant"

ANYBODY = Caller("anybody", "anybody", frozenset())
"""Makes the calls that need no caller, and those whose caller is not known. He may do nothing."""

_SCHEME = "bearer "
_LONGEST_VALUE = len(_SCHEME) + KEY_CHARACTERS
_PEER_NAMES = ("peer_uri", "peer_dns")
"""Kinds of names in a certificate that the policy can tell apart; a common name may hold anything."""

_CALLERS = frozenset({Role.CALL})
_READERS = frozenset({Role.READ, Role.OPERATE, Role.ADMINISTER})
_OPERATORS = frozenset({Role.OPERATE, Role.ADMINISTER})
_ADMINISTRATORS = frozenset({Role.ADMINISTER})

METHOD_ROLES: Mapping[str, frozenset[Role]] = {
    "/pointsman.v1.RouterService/Route": _CALLERS,
    "/pointsman.v1.RouterService/Complete": _CALLERS,
    "/pointsman.v1.RouterService/StreamComplete": _CALLERS,
    "/pointsman.v1.EmbeddingService/Embed": _CALLERS,
    "/pointsman.v1.FeedbackService/RecordFeedback": _CALLERS,
    "/pointsman.v1.AdminService/GetStatus": _READERS,
    "/pointsman.v1.AdminService/ListDeployments": _READERS,
    "/pointsman.v1.AdminService/ListTraces": _READERS,
    "/pointsman.v1.AdminService/GetTrace": _READERS,
    "/pointsman.v1.AdminService/GetUsage": _READERS,
    "/pointsman.v1.AdminService/GetPolicy": _READERS,
    "/pointsman.v1.AdminService/ListPolicyVersions": _READERS,
    "/pointsman.v1.AdminService/ListFlags": _READERS,
    "/pointsman.v1.AdminService/ListAuditEvents": _READERS,
    "/pointsman.v1.AdminService/SetFlag": _OPERATORS,
    "/pointsman.v1.AdminService/SetKillSwitch": _OPERATORS,
    "/pointsman.v1.AdminService/ResetBreaker": _OPERATORS,
    "/pointsman.v1.AdminService/ApplyPolicy": _ADMINISTRATORS,
    "/pointsman.v1.AdminService/RollbackPolicy": _ADMINISTRATORS,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": frozenset(Role),
}
"""Which roles may call a method; one of them is enough. A method that stands neither here nor below is refused."""

OPEN_METHODS = frozenset(f"/grpc.health.v1.Health/{method}" for method in ("Check", "Watch", "List"))
"""For everybody: who asks whether a server is well has no key."""

_LOG = structlog.stdlib.get_logger("pointsman.authentication")


class Mode(Enum):
    """Whether calls need a caller."""

    REQUIRED = "required"
    INSECURE = "insecure"
    """Every call is the local caller's."""
    UNTIL_CALLERS_EXIST = "until_callers_exist"
    """The same until there is a key, or the policy names a certificate; from then on as REQUIRED."""


class Refusal(Enum):
    """Why a caller is not known: for our log, never for him."""

    NO_CREDENTIALS = "no_credentials"
    SEVERAL_CREDENTIALS = "several_credentials"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    EXPIRED_KEY = "expired_key"
    REVOKED_KEY = "revoked_key"
    CERTIFICATE = "certificate"
    """It names nobody, several callers, or another tenant than the key."""
    BROKEN = "broken"
    """An error of ours."""


class Admission(NamedTuple):
    """How callers get to one method.

    `identify` says who makes the call with these entries and this context, or raises `Unauthenticated`. `authorise`
    raises `PermissionDenied` unless he may.
    """

    identify: Callable[[Entries, Any], Caller]
    authorise: Callable[[Caller, Entries], None]


class Authenticator:
    """Reads callers from metadata and certificates.

    `control` and `snapshot` give the present state, so that a revoked key or a suspended tenant is refused as soon as
    this process knows of it.
    """

    def __init__(
        self, control: Callable[[], Control], snapshot: Callable[[], Snapshot], clock: Clock, mode: Mode
    ) -> None:
        self._control = control
        self._snapshot = snapshot
        self._clock = clock
        self._mode = mode

    @property
    def is_insecure(self) -> bool:
        """Whether calls are taken from anybody."""
        if self._mode is Mode.UNTIL_CALLERS_EXIST and self.knows_callers:
            # For good: the last key's end must not open the door again.
            self._mode = Mode.REQUIRED
            _LOG.warning("authentication_required", message="there are callers now; calls without a key are refused")
        return self._mode is not Mode.REQUIRED

    @property
    def knows_callers(self) -> bool:
        """Whether there is a key, were it an expired one, or the policy names a certificate."""
        return bool(self._control().keys or self._identities())

    def admission_to(self, method: str) -> Admission:
        """How callers get to this method; `method` is the full name under which it is registered."""
        if method in OPEN_METHODS:
            return _FOR_EVERYBODY
        roles = METHOD_ROLES.get(method, frozenset())

        def authorise(caller: Caller, entries: Entries) -> None:
            if roles.isdisjoint(caller.roles):
                raise PermissionDenied(_missing(roles))
            if caller is not LOCAL_CALLER:
                self._check_tenant(caller.tenant, entries)

        return Admission(self._identify, authorise)

    def _identify(self, entries: Entries, context: Any) -> Caller:
        try:
            caller = LOCAL_CALLER if self.is_insecure else self._caller(entries, context)
            if not caller.tenant:
                raise Unauthenticated(Refusal.BROKEN.value)
        except Unauthenticated:
            raise
        except Exception as error:
            # Without its cause: an unforeseen error may quote what the caller sent.
            raise Unauthenticated(f"{Refusal.BROKEN.value} ({type(error).__name__})") from None
        return caller

    def _caller(self, entries: Entries, context: Any) -> Caller:
        values = [(name, value) for name, value in entries if name in (AUTHORIZATION, API_KEY)]
        certified = self._certified(context)
        if not values and certified is not None:
            return certified
        # A key decides alone: where it is no good, a certificate beside it must not open the door instead.
        keyed = self._keyed(*_read_key(values))
        if certified is not None and certified.tenant != keyed.tenant:
            raise Unauthenticated(Refusal.CERTIFICATE.value)
        return keyed

    def _keyed(self, text: str, fault: Refusal | None) -> Caller:
        key, now = find_key(text, self._control().keys), self._clock.now()
        if fault is None and key is not None and key.is_valid(now):
            return Caller(key.id, key.tenant, key.roles)
        if fault is None:
            fault = Refusal.UNKNOWN_KEY
            if key is not None:
                fault = Refusal.EXPIRED_KEY if key.revoked_at is None else Refusal.REVOKED_KEY
        raise Unauthenticated(fault.value)

    def _certified(self, context: Any) -> Caller | None:
        identities = self._identities()
        if not identities:
            return None
        facts = context.auth_context()
        names = [name.decode() for kind in _PEER_NAMES for name in facts.get(kind, ())]
        known = [name for name in names if name in identities]
        if len({identities[name] for name in known}) > 1:
            raise Unauthenticated(Refusal.CERTIFICATE.value)
        if not known:
            return None
        identity = identities[known[0]]
        return Caller(known[0], identity.tenant, identity.roles)

    def _identities(self) -> Mapping[str, Identity]:
        return self._snapshot().governance.identities

    def _check_tenant(self, tenant: str, entries: Entries) -> None:
        governance = self._snapshot().governance
        if governance.of(tenant).suspended:
            raise PermissionDenied("the caller's tenant is suspended; ask whoever runs the service")
        if governance.only_listed and tenant not in governance.tenants:
            raise PermissionDenied("the policy does not list the caller's tenant; ask whoever runs the service")
        if any(name == TENANT and value != tenant for name, value in entries):
            raise PermissionDenied(f"{TENANT} names another tenant than the caller's; leave it out")


_FOR_EVERYBODY = Admission(lambda entries, context: ANYBODY, lambda caller, entries: None)


def _read_key(values: Sequence[tuple[str, Any]]) -> tuple[str, Refusal | None]:
    """The key's text, and what is wrong with how it is presented. Costs the same for a text of any length."""
    if len(values) != 1:
        return "", Refusal.SEVERAL_CREDENTIALS if values else Refusal.NO_CREDENTIALS
    ((name, value),) = values
    if len(value) > _LONGEST_VALUE:
        return "", Refusal.MALFORMED
    if name == API_KEY:
        return value, None
    if value[: len(_SCHEME)].lower() != _SCHEME:
        return "", Refusal.MALFORMED
    return value[len(_SCHEME) :], None


def _missing(roles: frozenset[Role]) -> str:
    if not roles:
        return "nobody may call this method"
    names = " or ".join(f"`{role.value}`" for role in Role if role in roles)
    return f"the caller may not call this method; it needs the role {names}"
