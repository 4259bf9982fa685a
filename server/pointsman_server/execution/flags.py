"""Flags: what operators switch at run time without another policy. All there are stand here.

What depends on a request's labels, task or size is no flag: the policy's rules say that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Generic, TypeVar

from pointsman_server.domain.call import FailoverMode
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Control
from pointsman_server.domain.errors import FieldProblem, InvalidRequest, RouteOnly
from pointsman_server.domain.facts import RequestFacts

T = TypeVar("T")

MOST_OUTPUT_TOKENS = 10_000_000

_NOT_SET = object()


@dataclass(frozen=True, slots=True)
class Flag(Generic[T]):
    """A flag with the value it has when nobody set it; None says that it leaves alone what it could change.

    `read` gives what a JSON value stands for, None when it stands for nothing; `takes` says in words what is taken.
    """

    name: str
    usual: T
    takes: str
    description: str
    read: Callable[[Any], T | None]

    @staticmethod
    def to_json(value: T) -> Any:
        """A value as JSON has it."""
        return value.value if isinstance(value, Enum) else value

    def of(self, control: Control, tenant: str) -> T:
        """The value for this tenant: its own, else that for all, else the usual one. Costs no I/O."""
        if not control.flags:
            return self.usual
        found = control.flags.get((self.name, tenant), _NOT_SET)
        if found is _NOT_SET:
            found = control.flags.get((self.name, ""), _NOT_SET)
        # What another version of the service wrote may mean nothing here.
        read = None if found is _NOT_SET else self.read(found)
        return self.usual if read is None else read


def _switch(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _share(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 1 else None


def _tokens(value: Any) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if is_whole and 1 <= value <= MOST_OUTPUT_TOKENS else None


def _failover(value: Any) -> FailoverMode | None:
    return next((mode for mode in FailoverMode if mode.value == value), None)


_TRUE_OR_FALSE = "true or false"

HEDGING: Flag[bool] = Flag(
    "hedging",
    True,
    _TRUE_OR_FALSE,
    "Whether a second deployment may be asked beside a silent one; when, the policy says in resilience.hedging.",
    _switch,
)
STREAM_FAILOVER_DEFAULT: Flag[FailoverMode] = Flag(
    "stream_failover_default",
    FailoverMode.TERMINATE,
    '"terminate", "restart" or "continue"',
    "What happens to a stream whose provider fails in the middle, where the request does not say it.",
    _failover,
)
QUALITY_BIAS_OVERRIDE: Flag[float | None] = Flag(
    "quality_bias_override",
    None,
    "a number from 0 (cost) to 1 (quality)",
    "The dial between cost and quality, before what request, rules and policy say.",
    _share,
)
MAX_OUTPUT_TOKENS_CAP: Flag[int | None] = Flag(
    "max_output_tokens_cap",
    None,
    f"a whole number from 1 to {MOST_OUTPUT_TOKENS}",
    "The most tokens of output of one call, whatever the request asks for.",
    _tokens,
)
ROUTE_ONLY: Flag[bool] = Flag(
    "route_only",
    False,
    _TRUE_OR_FALSE,
    "Whether Route alone is served, for dry runs: Complete and StreamComplete are refused.",
    _switch,
)
RECORD_DECISIONS: Flag[bool] = Flag(
    "record_decisions",
    True,
    _TRUE_OR_FALSE,
    "Whether decisions are kept in decisions.jsonl, from which they can be replayed.",
    _switch,
)

FLAGS: Mapping[str, Flag[Any]] = {
    flag.name: flag
    for flag in (
        HEDGING,
        MAX_OUTPUT_TOKENS_CAP,
        QUALITY_BIAS_OVERRIDE,
        RECORD_DECISIONS,
        ROUTE_ONLY,
        STREAM_FAILOVER_DEFAULT,
    )
}
"""All flags, by name."""


def require_flag(name: str) -> Flag[Any]:
    """The flag of this name; raises `InvalidRequest`."""
    flag = FLAGS.get(name)
    if flag is None:
        raise InvalidRequest((FieldProblem("name", f"there is no such flag; there are {', '.join(FLAGS)}"),))
    return flag


def require_value(flag: Flag[Any], value: Any) -> None:
    """Raises `InvalidRequest` when the flag does not take this JSON value. None, which clears it, is always taken."""
    if value is not None and flag.read(value) is None:
        problem = FieldProblem("value_json", f"{flag.name} takes {flag.takes}, or null to clear what was set")
        raise InvalidRequest((problem,))


def require_answering(control: Control, tenant: str) -> None:
    """Raises `RouteOnly` when this tenant may not ask for answers."""
    if ROUTE_ONLY.of(control, tenant):
        raise RouteOnly(tenant)


def failover_of(wanted: FailoverMode | None, control: Control, tenant: str) -> FailoverMode:
    """What the request wants, else what the flag says."""
    return STREAM_FAILOVER_DEFAULT.of(control, tenant) if wanted is None else wanted


def with_flags(facts: RequestFacts, snapshot: Snapshot, control: Control, tenant: str) -> RequestFacts:
    """The request as the decision is to see it, with the dial and the limit that operators set."""
    if not control.flags:
        return facts
    bias, cap = QUALITY_BIAS_OVERRIDE.of(control, tenant), MAX_OUTPUT_TOKENS_CAP.of(control, tenant)
    if bias is not None:
        facts = replace(facts, quality_bias=bias)
    if cap is not None:
        wanted = facts.max_output_tokens or snapshot.default_max_output_tokens
        facts = replace(facts, max_output_tokens=min(wanted, cap))
    return facts
