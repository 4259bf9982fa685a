"""The account of a call: counts without gaps, cost, and what the caller should know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce

from pointsman_server.decision.tokens import correction_of, tokens_for
from pointsman_server.domain.call import Attempt, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.plan import TokenEstimate
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.domain.reply import Reply, Usage
from pointsman_server.execution.citing import cite
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.warnings import warnings_about

_CHARACTERS_PER_TOKEN = 4


def settle(
    call: Call, decision: Decision, record: DispatchRecord, counter: TokenCounter, counted_input: TokenEstimate
) -> Completion:
    """The whole answer. Counts that the provider did not give are counted here, priced, and marked as estimated.

    `counted_input` is what to take for the input where the provider is silent.
    """
    if record.answered_by is None or record.reply is None or record.own is None:
        raise AssertionError("dispatch ends with an answer or an exception")
    deployment = record.answered_by.deployment
    sent = record.input_of(deployment.id, counted_input)
    usage, estimated = _fill_gaps(record.own, deployment, sent, counter)
    cost = deployment.model.price.cost_micro_usd(usage)
    *before, last = record.attempts
    if usage is not last.usage or cost != last.cost_micro_usd:
        last = replace(last, usage=usage, cost_micro_usd=cost)
    attempts = (*before, last)
    return Completion(
        request_id=call.request_id,
        decision=decision,
        answered_by=record.answered_by,
        reply=cite(record.reply, call.request.documents, _shown(record, deployment)),
        usage=reduce(_added, (kept.usage for kept in record.kept_from), usage),
        estimated=estimated or last.estimated or any(has_gaps(kept.usage) for kept in record.kept_from),
        cost_micro_usd=sum(attempt.cost_micro_usd for attempt in attempts),
        attempts=attempts,
        warnings=tuple(warnings_about(call, record)),
    )


def _shown(record: DispatchRecord, answered_by: Deployment) -> Mapping[str, str]:
    """Ids, by the names that marks use, of the documents that those who wrote the answer saw."""
    authors = (*(kept.deployment.id for kept in record.kept_from), answered_by.id)
    packed = (record.packed[author].shown for author in authors if author in record.packed)
    return {name: document_id for shown in packed for name, document_id in shown.items()}


def estimate_cancelled(attempt: Attempt, seen: Reply, counted_input: TokenEstimate, counter: TokenCounter) -> Attempt:
    """The account of an attempt that we hung up on, with what was `seen` of its answer counted and priced.

    Where the tokenizer is not loaded yet, four characters are taken for a token: nobody waits for it any more.
    """
    usage = attempt.usage
    if not has_gaps(usage):
        return attempt
    deployment = attempt.deployment
    if counter.is_ready:
        usage, _ = _fill_gaps(seen, deployment, counted_input, counter)
    else:
        output_tokens = -(-sum(map(len, _written(seen))) // _CHARACTERS_PER_TOKEN)
        usage = replace(usage, input_tokens=usage.input_tokens or counted_input.tokens, output_tokens=output_tokens)
    return replace(attempt, usage=usage, cost_micro_usd=deployment.model.price.cost_micro_usd(usage))


def has_gaps(usage: Usage) -> bool:
    """Whether the provider left a count out."""
    return usage.input_tokens is None or usage.output_tokens is None


def count_output_tokens(reply: Reply, counter: TokenCounter) -> int:
    """Tokens of everything the model wrote."""
    return sum(map(counter.count, _written(reply)))


def _written(reply: Reply) -> Iterator[str]:
    for part in reply.parts:
        match part:
            case TextPart(text=text) | ReasoningPart(text=text) | OpaquePart(json=text):
                yield text
            case ToolCallPart(name=name, arguments_json=arguments):
                yield from (name, arguments)


def _added(one: Usage, other: Usage) -> Usage:
    return Usage(
        input_tokens=(one.input_tokens or 0) + (other.input_tokens or 0),
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        cache_write_input_tokens=one.cache_write_input_tokens + other.cache_write_input_tokens,
        output_tokens=(one.output_tokens or 0) + (other.output_tokens or 0),
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
    )


def _fill_gaps(
    reply: Reply, deployment: Deployment, counted_input: TokenEstimate, counter: TokenCounter
) -> tuple[Usage, bool]:
    usage = reply.usage
    if not usage.implausible and not has_gaps(usage):
        return usage, False
    input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
    if input_tokens is None:
        input_tokens = tokens_for(deployment, counted_input).tokens
    if output_tokens is None:
        output_tokens = round(count_output_tokens(reply, counter) * correction_of(deployment).factor)
    return replace(usage, input_tokens=input_tokens, output_tokens=output_tokens), True
