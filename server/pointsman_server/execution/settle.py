"""The account of a call: counts without gaps, cost, and what the caller should know."""

from __future__ import annotations

from dataclasses import replace

from pointsman_server.decision.tokens import correction_of, tokens_for
from pointsman_server.domain.call import Attempt, Call, Completion, Decision, Warning
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.plan import Candidate, TokenEstimate
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.domain.reply import Reply, Usage


def settle(
    call: Call,
    decision: Decision,
    answered_by: Candidate,
    reply: Reply,
    attempts: tuple[Attempt, ...],
    counter: TokenCounter,
    counted_input: TokenEstimate | None = None,
) -> Completion:
    """The whole answer. Counts that the provider did not give are counted here, priced, and marked as estimated.

    `counted_input` is what to take for the input where the provider is silent; the decision's own count if None.
    """
    deployment = answered_by.deployment
    usage, estimated = _fill_gaps(reply, deployment, counted_input or decision.plan.input_tokens, counter)
    cost = deployment.model.price.cost_micro_usd(usage)
    attempts = (*attempts[:-1], replace(attempts[-1], usage=usage, cost_micro_usd=cost))
    return Completion(
        request_id=call.request_id,
        decision=decision,
        answered_by=answered_by,
        reply=reply,
        usage=usage,
        estimated=estimated,
        cost_micro_usd=sum(attempt.cost_micro_usd for attempt in attempts),
        attempts=attempts,
        warnings=tuple(_warnings(call, answered_by, reply, attempts)),
    )


def has_gaps(usage: Usage) -> bool:
    """Whether the provider left a count out."""
    return usage.input_tokens is None or usage.output_tokens is None


def count_output_tokens(reply: Reply, counter: TokenCounter) -> int:
    """Tokens of everything the model wrote."""
    total = 0
    for part in reply.parts:
        match part:
            case TextPart(text=text) | ReasoningPart(text=text) | OpaquePart(json=text):
                total += counter.count(text)
            case ToolCallPart(name=name, arguments_json=arguments):
                total += counter.count(name) + counter.count(arguments)
    return total


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


def _warnings(call: Call, answered_by: Candidate, reply: Reply, attempts: tuple[Attempt, ...]) -> list[Warning]:
    deployment = answered_by.deployment
    warnings: list[Warning] = []
    if deployment.provider.simulated:
        warnings.append(Warning("simulated", "a simulated provider answered; configure a provider key for a real one"))
    if reply.usage.implausible:
        warnings.append(Warning("usage_implausible", "the provider reported impossible token counts"))
    elif has_gaps(reply.usage):
        warnings.append(Warning("usage_estimated", "the provider reported no token counts; they are estimated"))
    if _is_another_model(deployment, reply.model):
        warnings.append(Warning("model_mismatch", "the provider says that another model than the configured answered"))
    wanted = call.request.generation.max_output_tokens
    if wanted is not None and wanted > answered_by.max_output_tokens:
        message = f"max_output_tokens was lowered to {answered_by.max_output_tokens}, the most this call may use"
        warnings.append(Warning("max_output_tokens_clamped", message))
    if len(attempts) > 1:
        reason = attempts[0].fault.kind.value if attempts[0].fault else "unknown"
        message = f"{attempts[0].deployment.id} failed ({reason}); {deployment.id} answered instead"
        warnings.append(Warning("fallback", message))
    return warnings


def _is_another_model(deployment: Deployment, answered: str) -> bool:
    configured, said = _bare(deployment.model_name), _bare(answered)
    # Vendors answer with a dated version of the name that was asked for, or the other way round.
    return bool(said) and not (said.startswith(configured) or configured.startswith(said))


def _bare(model_name: str) -> str:
    return model_name.lower().rsplit("/", 1)[-1]
