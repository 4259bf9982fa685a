"""How models of other vendors count: what a count with o200k_base has to be multiplied with."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Tokenizer(Enum):
    """A family of vocabularies whose counts of a text are alike.

    CLAUDE is that of Claude Opus 4.7 and all that came after it, CLAUDE_4 that of the Claude models before.
    SENTENCEPIECE_32K are the small vocabularies of Llama 2, the first Mistral models and Mixtral.
    """

    O200K = "o200k"
    CL100K = "cl100k"
    CLAUDE = "claude"
    CLAUDE_4 = "claude_4"
    GEMINI = "gemini"
    GROK = "grok"
    COHERE = "cohere"
    LLAMA = "llama"
    MISTRAL = "mistral"
    DEEPSEEK = "deepseek"
    QWEN = "qwen"
    GLM = "glm"
    KIMI = "kimi"
    SENTENCEPIECE_32K = "sentencepiece_32k"
    OTHER = "other"

    # Members are unique. The hash of `Enum` is a step of Python, and these are looked up for every candidate.
    __hash__ = object.__hash__


class Correction(NamedTuple):
    """A text has about `factor` times the tokens that o200k_base makes of it, and rarely more than `most` times."""

    factor: float
    most: float


CORRECTIONS: Mapping[Tokenizer, Correction] = {
    Tokenizer.O200K: Correction(1.0, 1.0),
    Tokenizer.CL100K: Correction(1.02, 2.5),
    Tokenizer.CLAUDE: Correction(1.45, 2.0),
    Tokenizer.CLAUDE_4: Correction(1.12, 1.6),
    Tokenizer.GEMINI: Correction(1.1, 1.3),
    Tokenizer.GROK: Correction(0.97, 1.5),
    Tokenizer.COHERE: Correction(1.05, 1.5),
    Tokenizer.LLAMA: Correction(1.02, 1.5),
    Tokenizer.MISTRAL: Correction(1.06, 1.3),
    Tokenizer.DEEPSEEK: Correction(1.05, 1.5),
    Tokenizer.QWEN: Correction(1.03, 2.4),
    Tokenizer.GLM: Correction(1.02, 2.4),
    Tokenizer.KIMI: Correction(1.0, 1.8),
    Tokenizer.SENTENCEPIECE_32K: Correction(1.23, 2.8),
    Tokenizer.OTHER: Correction(1.1, 2.8),
}
"""Measured; docs/tokens.md says on what, how often the second figure holds, and how far off the worst text was."""
