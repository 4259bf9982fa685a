"""From the domain's decisions and answers to the contract's."""

from __future__ import annotations

from functools import lru_cache

from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import answer_pb2, completion_pb2, decision_pb2
from pointsman_server.domain.cache import CacheOutcome
from pointsman_server.domain.call import (
    Attempt,
    AttemptOutcome,
    AttemptPurpose,
    CallEvent,
    Completion,
    Decided,
    Decision,
    FailedOver,
    FailoverMode,
    Relay,
    Warning,
)
from pointsman_server.domain.confidence import Confidence
from pointsman_server.domain.faults import FaultKind
from pointsman_server.domain.message import OpaquePart, Part, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.plan import Candidate, Complexity, ExclusionReason, Factor, Rejection, TaskType
from pointsman_server.domain.reply import (
    Citation,
    ContentDelta,
    FinishReason,
    OpaqueDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from pointsman_server.domain.request import Tier

_EXCLUSIONS = {
    reason: decision_pb2.ExclusionReason.Value(f"EXCLUSION_REASON_{reason.name}") for reason in ExclusionReason
}
_TASKS = {task: decision_pb2.TaskType.Value(f"TASK_TYPE_{task.name}") for task in TaskType}
_TIERS = [completion_pb2.Tier.ValueType(tier.value) for tier in Tier]
_FINISH = {reason: answer_pb2.FinishReason.Value(f"FINISH_REASON_{reason.name}") for reason in FinishReason}
_FAULTS = {kind: answer_pb2.AttemptError.Value(f"ATTEMPT_ERROR_{kind.name}") for kind in FaultKind}
_OUTCOMES = {outcome: answer_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome.name}") for outcome in AttemptOutcome}
_PURPOSES = {purpose: answer_pb2.AttemptPurpose.Value(f"ATTEMPT_PURPOSE_{purpose.name}") for purpose in AttemptPurpose}
_CACHE_OUTCOMES = {one: answer_pb2.CacheOutcome.Value(f"CACHE_OUTCOME_{one.name}") for one in CacheOutcome}
_REMEMBERED_DECISIONS = 512
"""A decision goes into the answer, and half a second later into the call's trace."""

_MOST_INDEX = 2**31 - 1
"""What the contract's indices can hold. A provider that says more has said nothing of the place."""

_MODES = {mode: answer_pb2.StreamFailover.Value(f"STREAM_FAILOVER_{mode.name}") for mode in FailoverMode}


@lru_cache(maxsize=_REMEMBERED_DECISIONS)
def decision_to_proto(decision: Decision) -> decision_pb2.RouteDecision:
    """The whole decision: pick, ranking, exclusions, complexity. It is remembered, so nobody may change it."""
    plan = decision.plan
    chosen = plan.candidates[0].deployment
    proto = decision_pb2.RouteDecision(
        decision_id=decision.id,
        chosen=decision_pb2.ChosenDeployment(
            deployment=chosen.id,
            provider=chosen.provider.label,
            model=chosen.model.id,
            tier=completion_pb2.Tier.ValueType(chosen.model.tier.value),
        ),
        excluded=[_excluded(rejection) for rejection in plan.rejections],
        complexity=_complexity(plan.complexity),
        input_tokens=plan.input_tokens.tokens,
        exact=plan.input_tokens.exact,
        policy_version=plan.policy_version,
        decision_latency=_duration(decision.latency_seconds),
        applied_rules=plan.applied_rules,
        quality_bias=plan.quality_bias,
        template=decision.template,
    )
    for candidate in plan.candidates:
        _add_ranked(proto, candidate)
    return proto


def completion_to_proto(completion: Completion) -> answer_pb2.CompleteResponse:
    """The whole answer with its account."""
    reply = completion.reply
    return answer_pb2.CompleteResponse(
        request_id=completion.request_id,
        message=completion_pb2.Message(
            role=completion_pb2.ROLE_ASSISTANT, parts=[part_to_proto(part) for part in reply.parts]
        ),
        finish_reason=_FINISH[reply.finish_reason],
        usage=usage_to_proto(completion),
        decision=decision_to_proto(completion.decision),
        attempts=[attempt_to_proto(attempt) for attempt in completion.attempts],
        cache=_CACHE_OUTCOMES[completion.cache],
        warnings=[warning_to_proto(warning) for warning in completion.warnings],
        citations=[_citation(citation) for citation in reply.citations],
        confidence=_confidence(completion.confidence),
        redactions=[answer_pb2.Redaction(type=kind, count=count) for kind, count in completion.redactions.items()],
    )


def usage_to_proto(completion: Completion) -> answer_pb2.Usage:
    """Tokens and cost of the whole call."""
    usage = completion.usage
    return answer_pb2.Usage(
        input_tokens=usage.input_tokens or 0,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens or 0,
        reasoning_tokens=usage.reasoning_tokens,
        cost_micro_usd=completion.cost_micro_usd,
        estimated=completion.estimated,
        cache_write_input_tokens=usage.cache_write_input_tokens,
    )


def _confidence(confidence: Confidence | None) -> answer_pb2.Confidence | None:
    if confidence is None:
        return None
    return answer_pb2.Confidence(score=confidence.score, factors=[_factor(factor) for factor in confidence.factors])


def messages_of(event: CallEvent) -> list[answer_pb2.StreamCompleteResponse]:
    """The messages that say this event of a stream."""
    response = answer_pb2.StreamCompleteResponse
    if isinstance(event, Relay):
        return [response(delta=_delta(index, delta)) for index, delta in event.deltas]
    if isinstance(event, Decided):
        return [response(decision=decision_to_proto(event.decision))]
    if isinstance(event, FailedOver):
        return [response(failover=_failover(event))]
    completion = event.completion
    warnings = [response(warning=warning_to_proto(warning)) for warning in completion.warnings]
    return [*warnings, response(completed=completion_to_proto(completion))]


def part_to_proto(part: Part) -> completion_pb2.Part:
    """A part of an answer; models answer with text, reasoning, tool calls and blocks of their own."""
    match part:
        case TextPart(text=text, signature=signature):
            return completion_pb2.Part(text=text, signature=signature)
        case ReasoningPart(text=text, signature=signature, redacted=redacted):
            return completion_pb2.Part(
                reasoning=completion_pb2.Reasoning(text=text, redacted=redacted), signature=signature
            )
        case ToolCallPart(id=call_id, name=name, arguments_json=arguments, signature=signature):
            call = completion_pb2.ToolCall(id=call_id, name=name, arguments_json=arguments)
            return completion_pb2.Part(tool_call=call, signature=signature)
        case OpaquePart(dialect=dialect, kind=kind, json=json):
            return completion_pb2.Part(opaque=completion_pb2.Opaque(dialect=dialect, kind=kind, json=json))
        case _:
            raise TypeError(f"a model does not answer with {type(part).__name__}")


def warning_to_proto(warning: Warning) -> answer_pb2.Warning:
    """A warning."""
    return answer_pb2.Warning(code=warning.code, message=warning.message)


def attempt_to_proto(attempt: Attempt) -> answer_pb2.Attempt:
    """An attempt after its end."""
    first_token = attempt.first_token_seconds
    return answer_pb2.Attempt(
        deployment=attempt.deployment.id,
        provider=attempt.deployment.provider.label,
        model=attempt.deployment.model.id,
        latency=_duration(attempt.latency_seconds),
        outcome=_OUTCOMES[attempt.outcome],
        error=_FAULTS[attempt.fault.kind] if attempt.fault else answer_pb2.ATTEMPT_ERROR_UNSPECIFIED,
        cost_micro_usd=attempt.cost_micro_usd,
        error_detail=attempt.fault.detail if attempt.fault else "",
        first_token_latency=None if first_token is None else _duration(first_token),
        purpose=_PURPOSES[attempt.purpose],
    )


def _delta(index: int, delta: ContentDelta) -> answer_pb2.Delta:
    match delta:
        case TextDelta(text=text, signature=signature):
            return answer_pb2.Delta(text=text, part_index=index, signature=signature)
        case ReasoningDelta(text=text, signature=signature, redacted=redacted):
            reasoning = completion_pb2.Reasoning(text=text, redacted=redacted)
            return answer_pb2.Delta(reasoning=reasoning, part_index=index, signature=signature)
        case ToolCallDelta(id=call_id, name=name, arguments_json=arguments, signature=signature):
            call = answer_pb2.ToolCallDelta(id=call_id, name=name, arguments_json=arguments)
            return answer_pb2.Delta(tool_call=call, part_index=index, signature=signature)
        case OpaqueDelta(dialect=dialect, kind=kind, json=json):
            opaque = completion_pb2.Opaque(dialect=dialect, kind=kind, json=json)
            return answer_pb2.Delta(opaque=opaque, part_index=index)


def _failover(event: FailedOver) -> answer_pb2.Failover:
    return answer_pb2.Failover(
        from_deployment=event.from_deployment_id,
        to_deployment=event.to_deployment_id,
        mode=_MODES[event.mode],
        characters_kept=event.characters_kept,
    )


def _add_ranked(decision: decision_pb2.RouteDecision, candidate: Candidate) -> None:
    # Filled in place: to build the parts first and to copy them into the whole takes half as long again.
    deployment = candidate.deployment
    ranked = decision.ranked.add(
        deployment=deployment.id,
        provider=deployment.provider.label,
        model=deployment.model.id,
        tier=completion_pb2.Tier.ValueType(deployment.model.tier.value),
        score=candidate.score,
        expected_quality=candidate.expected_quality,
        expected_cost_micro_usd=candidate.expected_cost_micro_usd,
        worst_cost_micro_usd=candidate.worst_cost_micro_usd,
    )
    for part in candidate.score_parts:
        ranked.score_parts.add(name=part.name, value=part.value)
    _set_duration(ranked.expected_first_token, candidate.expected_first_token_seconds)


def _excluded(rejection: Rejection) -> decision_pb2.ExcludedDeployment:
    return decision_pb2.ExcludedDeployment(
        deployment=rejection.deployment_id, reason=_EXCLUSIONS[rejection.reason], detail=rejection.detail
    )


def _complexity(complexity: Complexity) -> decision_pb2.Complexity:
    return decision_pb2.Complexity(
        score=complexity.score,
        tier=completion_pb2.Tier.ValueType(complexity.tier.value),
        factors=[_factor(factor) for factor in complexity.factors],
        task=_TASKS[complexity.task],
        tier_probabilities=[
            decision_pb2.TierProbability(tier=tier, probability=probability)
            for tier, probability in zip(_TIERS, complexity.tier_probabilities, strict=True)
        ],
        needs_fresh_facts=complexity.needs_fresh_facts,
    )


def _factor(factor: Factor) -> decision_pb2.Factor:
    return decision_pb2.Factor(name=factor.name, value=factor.value)


def _citation(citation: Citation) -> answer_pb2.Citation:
    known = 0 <= citation.start_index <= citation.end_index <= _MOST_INDEX
    return answer_pb2.Citation(
        url=citation.url,
        title=citation.title,
        document_id=citation.document_id,
        quoted_text=citation.quoted_text,
        start_index=citation.start_index if known else None,
        end_index=citation.end_index if known else None,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    _set_duration(duration, seconds)
    return duration


def _set_duration(duration: Duration, seconds: float) -> None:
    whole, fraction = divmod(max(0.0, seconds), 1.0)
    duration.seconds, duration.nanos = int(whole), int(fraction * 1_000_000_000)
