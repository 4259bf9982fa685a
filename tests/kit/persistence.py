"""Whether a call that came to nothing had asked everybody who could be asked, as often as was sensible."""

from __future__ import annotations

from kit.promises import NOBODY_ASKED, second_tries, told_parts
from kit.reference import LEAST_SECONDS, PlainWords
from kit.witness import WitnessedCall
from pointsman_server.domain.call import FailoverMode
from pointsman_server.domain.errors import AttemptsFailed, StreamInterrupted
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.message import ReasoningPart, TextPart
from pointsman_server.domain.resilience import RetryPolicy

GAVE_UP = (AttemptsFailed, StreamInterrupted, *NOBODY_ASKED)


class PersistentWords(PlainWords):
    """Looks, at the moment when a call gives up, whether it had to."""

    def call_ended(self, call: WitnessedCall) -> None:
        """Nobody who could be asked was left out, and no second try that the rules allow."""
        super().call_ended(call)
        retries = self.policy.resilience.retries
        if call.left or type(call.error) not in GAVE_UP or len(call.attempts) >= retries.attempts_per_call:
            return
        if _is_over(call):
            return
        could = [name for name in self.untried(call) if self.may_begin(name)]
        assert not could, f"{could} were never asked"
        # Who waited for a second try, and found somebody else in that place, has had his try.
        if self.has_retries_left() and call.retries_granted == second_tries(call):
            worth = [name for name in self.places if self._is_worth_a_retry(call, name, retries)]
            assert not worth, f"gave up although {worth} could be asked once more"

    def _is_worth_a_retry(self, call: WitnessedCall, name: str, retries: RetryPolicy) -> bool:
        """With the longest pause that can be drawn there would still be time for another attempt."""
        now, place = self.clock.monotonic(), self.places[name]
        mine = [one for one in call.attempts if one.deployment.id == name]
        fault = mine[-1].account.fault if mine and mine[-1].account else None
        if fault is None or not fault.rule.retry_here or len(mine) >= retries.attempts_per_deployment:
            return False
        if place.is_full or place.state is not BreakerState.CLOSED or self.too_small(call, place.deployment):
            return False
        pause = min(retries.cap_seconds, retries.base_seconds * 2 ** (len(mine) - 1))
        asked_for = (mine[-1].ended_at or 0.0) + (fault.retry_after_seconds or 0.0) - now
        wait = max(pause, asked_for, place.rest.until - now, place.account.until - now)
        return bool(wait + 2 * LEAST_SECONDS < call.call.deadline - now)


def _is_over(call: WitnessedCall) -> bool:
    """Whether a fault, or the caller's wish, forbids another attempt."""
    faults = [one.account.fault for one in call.attempts if one.account is not None and one.account.fault is not None]
    if any(not fault.rule.try_next for fault in faults):
        return True
    if not call.events or call.call.failover is FailoverMode.RESTART:
        return False
    return call.call.failover is FailoverMode.TERMINATE or not _can_go_on(call)


def _can_go_on(call: WitnessedCall) -> bool:
    """Whether another may take over: from nothing but blanks and thoughts, or from plain prose."""
    parts, generation = told_parts(call), call.call.request.generation
    if not any(isinstance(part, TextPart) and part.text.strip() for part in parts):
        return all(isinstance(part, (TextPart, ReasoningPart)) for part in parts)
    plain = all(isinstance(part, (TextPart, ReasoningPart)) and not part.signature for part in parts)
    return plain and generation.response_schema is None and not generation.tools
