"""The line below an answer or vectors: who gave them, what it took, and what the caller should know."""

from __future__ import annotations

from collections.abc import Sequence

from pointsman.v1.answer_pb2 import CompleteResponse, FinishReason, Usage
from pointsman.v1.embedding_service_pb2 import EmbedResponse
from pointsman_server.cli.console import count, seconds, usd, without_controls

_USUAL_FINISHES = (FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_TOOL_CALLS)


def footer(response: CompleteResponse, elapsed_seconds: float) -> str:
    """One line, without control characters."""
    parts = _account(response, _tokens(response.usage), elapsed_seconds)
    if response.finish_reason not in _USUAL_FINISHES:
        reason = FinishReason.Name(response.finish_reason).removeprefix("FINISH_REASON_").lower()
        parts.append(f"finish: {reason}")
    if response.citations:
        parts.append(f"{count(len(response.citations), 'source')} (--json shows them)")
    parts += [f"warning: {warning.message}" for warning in response.warnings]
    return _line(parts)


def footer_of_vectors(response: EmbedResponse, elapsed_seconds: float) -> str:
    """One line, without control characters."""
    parts = _account(response, _read_tokens(response.usage), elapsed_seconds)
    return _line(parts + [f"found in the texts: {one.count:,} {one.type}" for one in response.redactions])


def _account(response: CompleteResponse | EmbedResponse, tokens: str, elapsed_seconds: float) -> list[str]:
    answered_by = response.attempts[-1]
    return [
        f"{answered_by.deployment}, {answered_by.provider}",
        tokens,
        usd(response.usage.cost_micro_usd),
        count(len(response.attempts), "attempt"),
        seconds(elapsed_seconds),
    ]


def _line(parts: Sequence[str]) -> str:
    return without_controls("[" + " | ".join(parts) + "]")


def _tokens(usage: Usage) -> str:
    cached = f" ({usage.cached_input_tokens:,} cached)" if usage.cached_input_tokens else ""
    return f"{_about(usage)}{usage.input_tokens:,}{cached} + {count(usage.output_tokens, 'token')}"


def _read_tokens(usage: Usage) -> str:
    return _about(usage) + count(usage.input_tokens, "token")


def _about(usage: Usage) -> str:
    return "about " if usage.estimated else ""
