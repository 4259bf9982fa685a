"""The line below an answer: who gave it, what it took, and what the caller should know."""

from __future__ import annotations

from pointsman.v1.answer_pb2 import CompleteResponse, FinishReason, Usage
from pointsman_server.cli.console import count, seconds, usd, without_controls

_USUAL_FINISHES = (FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_TOOL_CALLS)


def footer(response: CompleteResponse, elapsed_seconds: float) -> str:
    """One line, without control characters."""
    answered_by = response.attempts[-1]
    parts = [
        f"{answered_by.deployment}, {answered_by.provider}",
        _tokens(response.usage),
        usd(response.usage.cost_micro_usd),
        count(len(response.attempts), "attempt"),
        seconds(elapsed_seconds),
    ]
    if response.finish_reason not in _USUAL_FINISHES:
        reason = FinishReason.Name(response.finish_reason).removeprefix("FINISH_REASON_").lower()
        parts.append(f"finish: {reason}")
    if response.citations:
        parts.append(f"{count(len(response.citations), 'source')} (--json shows them)")
    parts += [f"warning: {warning.message}" for warning in response.warnings]
    return without_controls("[" + " | ".join(parts) + "]")


def _tokens(usage: Usage) -> str:
    about = "about " if usage.estimated else ""
    cached = f" ({usage.cached_input_tokens:,} cached)" if usage.cached_input_tokens else ""
    return f"{about}{usage.input_tokens:,}{cached} + {count(usage.output_tokens, 'token')}"
