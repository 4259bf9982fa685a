"""What the caller should know of an answer although the call succeeded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pointsman_server.decision.fitting import LeftOut
from pointsman_server.domain.call import AttemptPurpose, Call, Warning
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.reply import FinishReason, Usage
from pointsman_server.execution.dispatch_record import DispatchRecord

_MOST_PLACES = 5


MOST_NAMED_DOCUMENTS = 50
"""A warning names so many documents and counts the rest."""


def warnings_about(call: Call, record: DispatchRecord) -> Iterator[Warning]:
    """All warnings, in a fixed order."""
    if record.answered_by is None or record.reply is None or record.own is None:
        raise AssertionError("only an answer is warned about")
    deployment, usage = record.answered_by.deployment, record.own.usage
    if deployment.provider.simulated:
        yield Warning("simulated", "a simulated provider answered; configure a provider key for a real one")
    if deployment.is_last_resort:
        message = "a knowledge base answered, without a language model; the answer quotes its source"
        yield Warning("local_fallback", message)
    if call.guarded.suspects:
        places = ", ".join(call.guarded.suspects[:_MOST_PLACES])
        yield Warning("prompt_suspicious", f"this looks like a prompt injection, do not trust the answer: {places}")
    yield from _about_usage(record, deployment, usage)
    if _is_another_model(deployment, record.own.model):
        yield Warning("model_mismatch", "the provider says that another model than the configured answered")
    yield from _about_limits(call, record.answered_by.max_output_tokens, record.reply.finish_reason)
    packed = record.packed.get(deployment.id)
    if packed is not None and packed.left_out:
        yield Warning("context_trimmed", _about_left_out(packed.left_out, deployment))
    if not record.schema_checked:
        yield Warning("schema_not_checked", "the response_schema or the answer is too large to be checked")
    yield from _about_attempts(record, deployment)


def about_escalation(first: Deployment, answered_by: Deployment) -> Warning:
    """A stronger model's answer is given in place of the first."""
    message = f"there was little confidence in the answer of {first.id}; {answered_by.id} was asked too and answered"
    return Warning("escalated", message)


def _about_usage(record: DispatchRecord, deployment: Deployment, usage: Usage) -> Iterator[Warning]:
    if usage.implausible:
        yield Warning("usage_implausible", "the provider reported impossible token counts")
    if record.cut_at is not None:
        message = (
            f"{deployment.id} went on beyond {record.cut_at.cap.value}; it was cut off after about "
            f"{record.cut_at.tokens} tokens of output, and what it used is estimated unless it said so"
        )
        yield Warning("cut_at_cap", message)
    elif not usage.implausible and (usage.input_tokens is None or usage.output_tokens is None):
        yield Warning("usage_estimated", "the provider reported no token counts; they are estimated")


def _about_limits(call: Call, most_output_tokens: int, finish_reason: FinishReason) -> Iterator[Warning]:
    generation = call.request.generation
    if generation.max_output_tokens is not None and generation.max_output_tokens > most_output_tokens:
        message = f"max_output_tokens was lowered to {most_output_tokens}, the most this call may use"
        yield Warning("max_output_tokens_clamped", message)
    if generation.response_schema is not None and finish_reason is FinishReason.LENGTH:
        yield Warning("schema_not_checked", "the answer was cut at its limit; it does not fit the response_schema")


def _about_left_out(left_out: LeftOut, deployment: Deployment) -> str:
    what: list[str] = []
    if left_out.messages:
        turns = "turn" if left_out.turns == 1 else f"{left_out.turns} turns"
        what.append(f"the oldest {turns} of the conversation ({left_out.messages} messages)")
    if left_out.cut:
        what.append(f"parts of {_named(left_out.cut)}")
    if left_out.documents:
        what.append(f"all of {_named(left_out.documents)}")
    return f"left out, because the context window of {deployment.id} is too small: {'; '.join(what)}"


def _named(ids: Sequence[str]) -> str:
    rest = f" and {len(ids) - MOST_NAMED_DOCUMENTS} more" if len(ids) > MOST_NAMED_DOCUMENTS else ""
    what = "document" if len(ids) == 1 else "documents"
    return f"{what} {', '.join(ids[:MOST_NAMED_DOCUMENTS])}{rest}"


def _about_attempts(record: DispatchRecord, answered_by: Deployment) -> Iterator[Warning]:
    failed = [attempt for attempt in record.attempts if attempt.fault is not None]
    last = record.attempts[-1].purpose
    if last is AttemptPurpose.REPAIR:
        yield Warning("repaired", "the first answer did not fit the response_schema; the model was asked to mend it")
    elif last is AttemptPurpose.CONTINUATION:
        message = f"{record.kept_from[-1].deployment.id} broke off; {answered_by.id} went on from there"
        yield Warning("continued", message)
    elif failed:
        first = failed[0]
        reason = first.fault.kind.value if first.fault else "unknown"
        did = "answered when asked again" if first.deployment is answered_by else f"{answered_by.id} answered instead"
        code = "retried" if first.deployment is answered_by else "fallback"
        yield Warning(code, f"{first.deployment.id} failed ({reason}); {did}")
    elif last is AttemptPurpose.HEDGE:
        slow = record.attempts[0].deployment.id
        yield Warning("hedged", f"{slow} was slow to begin; {answered_by.id} was asked as well and answered first")


def _is_another_model(deployment: Deployment, answered: str) -> bool:
    configured, said = _bare(deployment.model_name), _bare(answered)
    # Vendors answer with a dated version of the name that was asked for, or the other way round.
    return bool(said) and not (said.startswith(configured) or configured.startswith(said))


def _bare(model_name: str) -> str:
    return model_name.lower().rsplit("/", 1)[-1]
