"""What every single call is promised, whatever its providers did; checked when all is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest

from kit.reference import LEAST_SECONDS, ROUNDING_SECONDS
from kit.witness import WitnessedAttempt, WitnessedCall
from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose, FailedOver, FailoverMode
from pointsman_server.domain.errors import (
    AnswerInvalid,
    AttemptsFailed,
    DeadlineExceeded,
    FailedAttempt,
    NobodyHealthy,
    Overloaded,
    StreamInterrupted,
)
from pointsman_server.domain.faults import FAULT_RULES, FaultKind
from pointsman_server.domain.message import OpaquePart, Part, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import CONTENT_DELTAS, ContentDelta, Usage, fold

FIRST, FALLBACK, RETRY = AttemptPurpose.FIRST, AttemptPurpose.FALLBACK, AttemptPurpose.RETRY
HEDGE, CONTINUATION, REPAIR = AttemptPurpose.HEDGE, AttemptPurpose.CONTINUATION, AttemptPurpose.REPAIR
SUCCEEDED, FAILED, CANCELLED = AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.CANCELLED

SLACK_SECONDS = 0.05
"""For hanging up, after the deadline or after the caller left."""

AFTER_END_SECONDS = 1.0
"""How long a connection may stay open after a whole answer."""

NOBODY_ASKED = (Overloaded, NobodyHealthy)


def check(seen: WitnessedCall) -> None:
    """All of them; a broken one is an `AssertionError`."""
    ends_once_and_in_time(seen)
    stays_within_limits(seen)
    asks_in_order(seen)
    never_asks_two_but_for_hedges(seen)
    obeys_faults(seen)
    waits_as_asked(seen)
    waits_no_longer_than_it_may(seen)
    accounts_for_every_attempt(seen)
    adds_costs_up(seen)
    tells_of_failures_as_they_were(seen)
    tells_the_reader_what_is_so(seen)
    tells_no_half_answer_as_a_whole(seen)


def ends_once_and_in_time(seen: WitnessedCall) -> None:
    """An answer, one typed error, or the caller left."""
    assert seen.ended_at is not None, "the call never ended"
    record = seen.record
    if not seen.left:
        assert (record.reply is None) == (record.answered_by is None) == (record.own is None) == bool(seen.error)
        assert seen.ended_at <= max(seen.call.deadline, seen.resumed_at) + SLACK_SECONDS
    if seen.left_at is not None:
        assert seen.ended_at <= seen.left_at + SLACK_SECONDS, "went on without its caller"
    if isinstance(seen.error, DeadlineExceeded):
        assert seen.ended_at >= seen.call.deadline - LEAST_SECONDS - ROUNDING_SECONDS, "gave up before the deadline"


def stays_within_limits(seen: WitnessedCall) -> None:
    """Attempts in all and for each deployment; a policy without retries still has its repair."""
    retries = seen.call.snapshot.resilience.retries
    assert len(seen.attempts) <= retries.attempts_per_call
    for name, count in Counter(one.deployment.id for one in seen.attempts).items():
        repairs = any(one.deployment.id == name and one.purpose is REPAIR for one in seen.attempts)
        assert count <= max(retries.attempts_per_deployment, 1 + repairs), f"{count} attempts at {name}"
    assert second_tries(seen) <= seen.retries_granted


def asks_in_order(seen: WitnessedCall) -> None:
    """The first is the first, each purpose is what it says, and nobody who is not in the plan is asked."""
    ranks = {one.deployment.id: place for place, one in enumerate(seen.plan.candidates)}
    asked: list[str] = []
    for place, attempt in enumerate(seen.attempts):
        name = attempt.deployment.id
        assert name in ranks
        assert (attempt.purpose is FIRST) == (place == 0)
        if attempt.purpose in (FALLBACK, HEDGE):
            assert name not in asked
        if attempt.purpose is RETRY:
            assert name in asked
        if attempt.purpose is REPAIR:
            before = seen.attempts[place - 1].account
            assert place == len(seen.attempts) - 1, "something follows the one repair"
            assert not seen.stream
            assert before is not None
            assert (before.deployment.id, before.fault and before.fault.kind) == (name, FaultKind.ANSWER_INVALID)
        asked.append(name)


def never_asks_two_but_for_hedges(seen: WitnessedCall) -> None:
    """The next begins when the last has ended; a hedge runs beside one other that has not told anything yet."""
    for one, other in pairwise(seen.attempts):
        assert one.ended_at is not None
        if other.purpose is HEDGE:
            assert seen.stream
            assert one.purpose in (FIRST, FALLBACK)
            assert one.began_at < other.began_at < one.ended_at or one.ended_at == other.began_at
        else:
            assert one.ended_at <= other.began_at
    for hedged, hedge, after in zip(seen.attempts, seen.attempts[1:], seen.attempts[2:], strict=False):
        if hedge.purpose is HEDGE:
            assert hedged.ended_at is not None
            assert hedged.ended_at <= after.began_at
    if seen.call.snapshot.resilience.hedging.quantile is None:
        assert not any(attempt.purpose is HEDGE for attempt in seen.attempts)


def obeys_faults(seen: WitnessedCall) -> None:
    """Nothing follows a fault that forbids it; the same again, a smaller window, only where that can help."""
    for place, attempt in enumerate(seen.attempts):
        for former in seen.attempts[:place]:
            _may_follow(attempt, former)
        if attempt.purpose in (RETRY, CONTINUATION):
            same = [one for one in seen.attempts[:place] if one.deployment.id == attempt.deployment.id]
            last = same[-1].account if same else None
            assert last is None or (last.fault is not None and last.fault.rule.retry_here)


def _may_follow(attempt: WitnessedAttempt, former: WitnessedAttempt) -> None:
    assert former.account is not None
    assert former.ended_at is not None
    fault = former.account.fault
    if former.ended_at > attempt.began_at or fault is None:
        return  # it ran beside this one
    rule = FAULT_RULES[fault.kind]
    if fault.kind is not FaultKind.ANSWER_INVALID:
        assert rule.try_next, f"{attempt.purpose} after {fault.kind}"
    if rule.larger_window_only:
        window = attempt.deployment.model.context_window_tokens
        assert window > former.deployment.model.context_window_tokens, "the input is known not to fit"


def waits_as_asked(seen: WitnessedCall) -> None:
    """Before the same deployment is asked again, as long as its provider asked for."""
    for place, attempt in enumerate(seen.attempts):
        if not _is_second_try(seen, place):
            continue
        last = next(one for one in reversed(seen.attempts[:place]) if one.deployment.id == attempt.deployment.id)
        assert last.ended_at is not None
        assert last.account is not None
        asked_for = last.account.fault.retry_after_seconds if last.account.fault else None
        waited = attempt.began_at - last.ended_at
        assert waited >= (asked_for or 0.0) - ROUNDING_SECONDS, f"waited {waited} s, not {asked_for}"


def waits_no_longer_than_it_may(seen: WitnessedCall) -> None:
    """For the first content, the next, the end, and what may come after the end; a reader's own pauses are his."""
    for attempt in seen.attempts:
        exchange, timeouts = attempt.exchange, attempt.deployment.timeouts
        if exchange is None or attempt.ended_at is None or seen.reads_slowly:
            continue
        ends = [attempt.began_at + timeouts.total_seconds]
        if exchange.whole_at is not None:
            ends.append(exchange.whole_at + AFTER_END_SECONDS)
        elif exchange.call.stream and exchange.content_at is not None:
            ends.append(exchange.content_at + timeouts.idle_seconds)
        elif exchange.call.stream:
            ends.append(attempt.began_at + timeouts.first_token_seconds)
        assert attempt.ended_at <= min(ends) + SLACK_SECONDS, f"waited until {attempt.ended_at}, not {min(ends)}"


def accounts_for_every_attempt(seen: WitnessedCall) -> None:
    """Once each, in the order of their ends; at most one succeeded, and that is the answer's."""
    accounts = [attempt.account for attempt in seen.attempts]
    assert None not in accounts, "an attempt was never ended"
    assert sorted(map(id, accounts)) == sorted(map(id, seen.record.attempts))
    for attempt in seen.attempts:
        account = attempt.account
        assert account is not None
        assert attempt.ended_at is not None
        assert attempt.exchange is None or attempt.exchange.ended_at is not None, "a connection was left open"
        assert (account.deployment, account.purpose) == (attempt.deployment, attempt.purpose)
        assert (account.outcome is FAILED) == (account.fault is not None)
        assert abs(account.latency_seconds - (attempt.ended_at - attempt.began_at)) < ROUNDING_SECONDS
        assert account.first_token_seconds is None or 0 <= account.first_token_seconds <= account.latency_seconds
    succeeded = [account for account in seen.record.attempts if account.outcome is SUCCEEDED]
    assert len(succeeded) == (seen.record.answered_by is not None)
    if seen.record.answered_by is not None:
        assert seen.record.attempts[-1:] == succeeded
        assert succeeded[0].deployment is seen.record.answered_by.deployment
    if seen.record.reply is None and not seen.left and not isinstance(seen.error, DeadlineExceeded):
        assert not any(map(_is_hung_up_without_a_race, pairwise([*seen.attempts, None]))), "hung up without a reason"


def _is_hung_up_without_a_race(pair: tuple[WitnessedAttempt | None, WitnessedAttempt | None]) -> bool:
    one, following = pair
    raced = (one is not None and one.purpose is HEDGE) or (following is not None and following.purpose is HEDGE)
    return not raced and one is not None and one.account is not None and one.account.outcome is CANCELLED


def adds_costs_up(seen: WitnessedCall) -> None:
    """Who failed costs what he reported; who was hung up on, what was seen of his answer."""
    for attempt in seen.attempts:
        assert attempt.account is not None
        assert attempt.account.cost_micro_usd == _cost(seen, attempt), attempt.account
    total = sum(one.account.cost_micro_usd for one in seen.attempts if one.account is not None)
    assert seen.record.cost_micro_usd == total
    if isinstance(seen.error, (StreamInterrupted, AnswerInvalid)):
        assert seen.error.cost_micro_usd == total


def tells_of_failures_as_they_were(seen: WitnessedCall) -> None:
    """The error fits what happened and names every attempt that failed."""
    error, told = seen.error, told_parts(seen)
    assert error is None or type(error) in (
        AttemptsFailed,
        StreamInterrupted,
        AnswerInvalid,
        DeadlineExceeded,
        *NOBODY_ASKED,
    ), error
    failures = tuple(
        FailedAttempt(one.deployment.id, one.fault.kind, one.fault.detail)
        for one in seen.record.attempts
        if one.fault is not None
    )
    if isinstance(error, NOBODY_ASKED):
        assert not seen.attempts
    elif isinstance(error, (AttemptsFailed, AnswerInvalid, DeadlineExceeded)):
        assert error.attempts == failures
    if type(error) is AttemptsFailed:
        assert told == []
        waits = [one.fault.retry_after_seconds for one in seen.record.attempts if one.fault is not None]
        assert error.retry_after_seconds == min(filter(None, waits), default=None)
    if isinstance(error, StreamInterrupted):
        assert told
        assert error.output_tokens == _length(told), "the tokens told are not the tokens sent"
    if isinstance(error, AnswerInvalid):
        assert seen.call.request.generation.response_schema is not None
        assert error.violations


def tells_the_reader_what_is_so(seen: WitnessedCall) -> None:
    """What a reader makes of the events is the answer; a move is told only where it was asked for, with new content."""
    if not seen.stream:
        assert seen.events == []
    relays = [event for event in seen.events if not isinstance(event, FailedOver)]
    assert all(event.deltas for event in relays)
    assert seen.first_contents == bool(relays)
    if seen.call.failover is FailoverMode.TERMINATE:
        assert len(relays) == len(seen.events), "a move that nobody asked for"
    for event, following in zip_longest(seen.events, seen.events[1:]):
        if isinstance(event, FailedOver):
            assert event.mode is seen.call.failover
            # The last one may have had nothing to say; that it answers is told all the same.
            assert seen.left or not isinstance(following, FailedOver)
            assert following is not None or seen.left or seen.record.reply is not None
    tellers = [event.from_deployment_id for event in seen.events if isinstance(event, FailedOver)]
    heirs = [event.to_deployment_id for event in seen.events if isinstance(event, FailedOver)]
    assert tellers[1:] == heirs[:-1]
    if seen.stream and seen.record.reply is not None and not seen.left:
        assert told_parts(seen) == list(seen.record.reply.parts)


def tells_no_half_answer_as_a_whole(seen: WitnessedCall) -> None:
    """The answer is what one provider sent from its beginning to its own end, or the text so far and the rest."""
    reply = seen.record.reply
    if reply is None:
        return
    last = next(one for one in seen.attempts if one.account is seen.record.attempts[-1])
    assert last.exchange is not None
    assert last.exchange.whole_at is not None, "half an answer"
    sent = fold(last.exchange.sent)
    assert seen.record.own == sent
    assert (reply.finish_reason, reply.usage) == (sent.finish_reason, sent.usage)
    if last.purpose is not CONTINUATION:
        assert reply == sent
        return
    kept = _text_before(seen, last)
    added = reply.text.removeprefix(kept)
    assert len(added) + len(kept) == len(reply.text), "the text so far was changed"
    assert sent.text.endswith(added), "something was added, or lost at the end"
    repeated = sent.text[: len(sent.text) - len(added)].lstrip(" \n\u2026.").rstrip()
    assert kept.rstrip().endswith(repeated), "something was lost at the seam"


def told_parts(seen: WitnessedCall, most_attempts: int = 1_000) -> list[Part]:
    """What a reader has who takes every event at its word, in the end or when so many attempts had begun."""
    deltas: list[tuple[int, ContentDelta]] = []
    for event, begun in zip(seen.events, seen.begun_by_event, strict=True):
        if begun > most_attempts:
            break
        if not isinstance(event, FailedOver):
            deltas.extend(event.deltas)
        else:
            text = "".join(part.text for part in _folded(deltas) if isinstance(part, TextPart))
            begins_anew = event.mode is FailoverMode.RESTART or not text.strip()
            assert event.characters_kept == (0 if begins_anew else len(text)), "not what the reader has"
            deltas = _cut(deltas, event.characters_kept)
    return _folded(deltas)


def _cut(deltas: list[tuple[int, ContentDelta]], characters_kept: int) -> list[tuple[int, ContentDelta]]:
    """All parts up to the one with the last character that is kept; nothing of it is cut in the middle."""
    ends, seen_characters = -1, 0
    for place, part in enumerate(_folded(deltas)):
        if seen_characters < characters_kept:
            ends = place
        seen_characters += len(part.text) if isinstance(part, TextPart) else 0
    return [(index, delta) for index, delta in deltas if index <= ends]


def _folded(deltas: Sequence[tuple[int, ContentDelta]]) -> list[Part]:
    """The parts by their indices, of which none is left out."""
    pieces: dict[int, list[ContentDelta]] = {}
    for index, delta in deltas:
        pieces.setdefault(index, []).append(replace(delta, key=index))
    assert sorted(pieces) == list(range(len(pieces)))
    whole = [fold(pieces[index]).parts for index in sorted(pieces)]
    return [parts[0] for parts in whole]


def _text_before(seen: WitnessedCall, last: WitnessedAttempt) -> str:
    """The text that was told, and not withdrawn, before this attempt began."""
    return "".join(part.text for part in told_parts(seen, seen.attempts.index(last)) if isinstance(part, TextPart))


def second_tries(seen: WitnessedCall) -> int:
    """How many attempts went to a deployment that was asked before; a repair is none of them."""
    return sum(_is_second_try(seen, place) for place in range(len(seen.attempts)))


def _is_second_try(seen: WitnessedCall, place: int) -> bool:
    attempt = seen.attempts[place]
    before = (one.deployment.id for one in seen.attempts[:place])
    return attempt.purpose is not REPAIR and attempt.deployment.id in before


def _cost(seen: WitnessedCall, attempt: WitnessedAttempt) -> int:
    """What this attempt must cost by what its provider sent."""
    events = attempt.exchange.sent if attempt.exchange is not None else []
    assert attempt.account is not None
    sent = fold(events)
    usage, price = sent.usage, attempt.deployment.model.price
    if attempt.account.outcome is CANCELLED and any(isinstance(event, CONTENT_DELTAS) for event in events):
        counted_input = seen.plan.input_tokens.tokens
        return price.cost_micro_usd(
            Usage(
                input_tokens=counted_input if usage.input_tokens is None else usage.input_tokens,
                output_tokens=_length(sent.parts) if usage.output_tokens is None else usage.output_tokens,
            )
        )
    return 0 if usage.input_tokens is None and usage.output_tokens is None else price.cost_micro_usd(usage)


def _length(parts: Sequence[Part]) -> int:
    """Tokens of these parts, by a counter that takes every character for one."""
    return sum(map(len, _written(parts)))


def _written(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, (TextPart, ReasoningPart)):
            yield part.text
        elif isinstance(part, OpaquePart):
            yield part.json
        elif isinstance(part, ToolCallPart):
            yield part.name + part.arguments_json
