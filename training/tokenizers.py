"""Measures how many tokens other vendors' models make of a text, against o200k_base: the figures of docs/tokens.md.

    python -m training.tokenizers ../shared/data/provider_traffic
    python -m training.tokenizers ../shared/data/provider_traffic --vocabularies

The first form reads recorded exchanges: what a provider reported against what we count, for text-only requests
(`input`) and for answers that are nothing but text (`output`). The second adds published vocabularies, counted over
the texts of this repository; it needs the package splintr-rs, which carries them.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointsman_server.adapters.providers.anthropic_messages import AnthropicMessages
from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.adapters.providers.dialect import WireDialect, read_answer
from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.decision.tokens import FRAMING_TOKENS_PER_MESSAGE, FRAMING_TOKENS_PER_REQUEST
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.message import TextPart
from pointsman_server.domain.reply import Reply, ReplyBuilder
from pointsman_server.domain.tokenizer import CORRECTIONS, Tokenizer

ROOT = Path(__file__).resolve().parents[1]
LEAST_TOKENS = 40
"""Shorter texts say more about framing than about the tokenizer."""

NAMES: tuple[tuple[str, Tokenizer], ...] = (
    (r"claude-(opus-4-[789]|(opus|sonnet|haiku)-[5-9])", Tokenizer.CLAUDE),
    (r"claude", Tokenizer.CLAUDE_4),
    (r"gemini|gemma", Tokenizer.GEMINI),
    (r"grok", Tokenizer.GROK),
    (r"command", Tokenizer.COHERE),
    (r"gpt-oss|gpt-4o|gpt-4\.1|gpt-5|^o[134]", Tokenizer.O200K),
    (r"gpt-3\.5|gpt-4|davinci-002", Tokenizer.CL100K),
    (r"llama|sonar", Tokenizer.LLAMA),
    (r"mixtral|mistral-tiny", Tokenizer.SENTENCEPIECE_32K),
    (r"mistral|ministral|magistral", Tokenizer.MISTRAL),
    (r"deepseek", Tokenizer.DEEPSEEK),
    (r"qwen", Tokenizer.QWEN),
    (r"glm", Tokenizer.GLM),
)
"""Which family a model's name tells of; the first match counts."""

VOCABULARIES: Mapping[str, Tokenizer] = {
    "cl100k_base": Tokenizer.CL100K,
    "llama3": Tokenizer.LLAMA,
    "mistral_v3": Tokenizer.MISTRAL,
    "deepseek_v3": Tokenizer.DEEPSEEK,
    "qwen3": Tokenizer.QWEN,
    "gemma3": Tokenizer.GEMINI,
    "glm4": Tokenizer.GLM,
    "kimi_k2": Tokenizer.KIMI,
    "mistral_v1": Tokenizer.SENTENCEPIECE_32K,
    "llama2": Tokenizer.SENTENCEPIECE_32K,
}
"""Published vocabularies by the name that splintr gives them."""

STAND_INS = ("local_openai",)
"""Recordings whose model only goes by the name of another."""

_NOT_ONLY_TEXT = (
    "tools", "functions", "response_format", "previous_response_id", "documents", "thinking", "output_config",
    "cachedContent", "web_search_options", "plugins", "conversation", "mcp_servers", "output_format", "text",
    "reasoning",
)  # fmt: skip
_HOLD_TEXT = ("system", "systemInstruction", "system_instruction", "instructions", "messages", "contents", "input")
_OTHER_SCRIPTS = frozenset(["ar", "bn", "el", "fa", "he", "hi", "ru", "th", "uk"])
_TEXT_KEYS = frozenset(["text", "content", "parts", "role", "type", "name"])
_TEXT_TYPES = frozenset([None, "text", "input_text", "output_text", "message"])


@dataclass(frozen=True)
class Sample:
    """One text: what we count with o200k_base, and what the tokenizer in question makes of it."""

    tokenizer: Tokenizer
    source: str
    counted: int
    reported: int

    @property
    def ratio(self) -> float:
        """How many tokens it makes for one of ours."""
        return self.reported / self.counted


class NotOnlyText(Exception):
    """A request has more in it than its texts."""


def samples_of_traffic(folder: Path, counter: TiktokenCounter) -> Iterator[Sample]:
    """What the recorded exchanges tell, both ways."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        provider = path.name.split(".")[0]
        if provider in STAND_INS:
            continue
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield from _samples_of_exchange(json.loads(line), counter)


def _samples_of_exchange(row: dict[str, Any], counter: TiktokenCounter) -> Iterator[Sample]:
    dialect = _dialect_of(row)
    if dialect is None or row["status"] != 200 or row["request_elided"] or not row["request_json"]:
        return
    try:
        reply = asyncio.run(_read(dialect, row))
    except ProviderFault:
        return
    tokenizer = _tokenizer_of(row, reply)
    if tokenizer is None:
        return
    for source, counted, reported in (_input(row, reply, counter), _output(row, reply, counter)):
        if counted >= LEAST_TOKENS and reported:
            yield Sample(tokenizer, source, counted, reported)


def _dialect_of(row: Mapping[str, Any]) -> WireDialect | None:
    path = row["path"]
    if row["kind"] == "responses":
        return OpenAiResponses()
    if row["kind"] != "chat":
        return None
    for ending, dialect in (
        ("/chat/completions", OpenAiChat),
        ("/messages", AnthropicMessages),
        ("enerateContent", GeminiGenerate),
        ("/v2/chat", CohereChat),
    ):
        if path.endswith(ending):
            return dialect()
    return None


class _Recorded:
    """Stands where a response from the network stands."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.status: int = row["status"]
        self.headers = {name.lower(): value for name, value in (row["response_headers"] or {}).items()}
        self._body: bytes = (row["body"] or "").encode()

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body


async def _read(dialect: WireDialect, row: Mapping[str, Any]) -> Reply:
    builder = ReplyBuilder()
    async for batch in read_answer(_Recorded(row), dialect):  # type: ignore[arg-type]  # the same members are used
        for event in batch:
            builder.add(event)
    return builder.build()


def _tokenizer_of(row: Mapping[str, Any], reply: Reply) -> Tokenizer | None:
    asked = str(row["request_json"].get("model") or row["path"])
    name = f"{reply.model or asked}".lower().rsplit("/", 1)[-1]
    return next((tokenizer for pattern, tokenizer in NAMES if re.search(pattern, name)), None)


def _input(row: Mapping[str, Any], reply: Reply, counter: TiktokenCounter) -> tuple[str, int, int]:
    try:
        texts = list(_request_texts(row["request_json"]))
    except NotOnlyText:
        return "input", 0, 0
    framing = FRAMING_TOKENS_PER_REQUEST + FRAMING_TOKENS_PER_MESSAGE * len(texts)
    return "input", sum(map(counter.count, texts)), max(0, (reply.usage.input_tokens or 0) - framing)


def _output(row: Mapping[str, Any], reply: Reply, counter: TiktokenCounter) -> tuple[str, int, int]:
    only_text = all(isinstance(part, TextPart) for part in reply.parts)
    if not only_text or reply.usage.reasoning_tokens or (row["request_json"].get("n") or 1) > 1:
        return "output", 0, 0
    text = "".join(part.text for part in reply.parts if isinstance(part, TextPart))
    return "output", counter.count(text), reply.usage.output_tokens or 0


def _request_texts(request: Mapping[str, Any]) -> Iterator[str]:
    if any(request.get(key) for key in _NOT_ONLY_TEXT):
        raise NotOnlyText
    for key in _HOLD_TEXT:
        yield from _texts(request.get(key))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        filled = {key for key, item in value.items() if item}
        if value.get("type") not in _TEXT_TYPES or filled - _TEXT_KEYS:
            raise NotOnlyText
        for key in ("text", "content", "parts"):
            yield from _texts(value.get(key))


def samples_of_vocabularies(counter: TiktokenCounter) -> Iterator[Sample]:
    """What the published vocabularies make of the texts of this repository."""
    from splintr import Tokenizer as Vocabulary  # type: ignore[import-not-found]  # only this function needs it

    texts = [(kind, text, counter.count(text)) for kind, text in repository_texts()]
    for name, tokenizer in VOCABULARIES.items():
        vocabulary = Vocabulary.from_pretrained(name)
        for kind, text, counted in texts:
            if counted >= LEAST_TOKENS:
                yield Sample(tokenizer, kind, counted, len(vocabulary.encode_ordinary(text)))


def repository_texts() -> Iterator[tuple[str, str]]:
    """Questions of the tier rubric by kind of language, and code."""
    for path in sorted((ROOT / "training" / "rubric").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if "ask" in row:
                yield _kind_of(row.get("lang", "en")), row["ask"]
    for path in sorted((ROOT / "server").rglob("*.py")):
        yield "code", path.read_text()


def _kind_of(language: str) -> str:
    if language == "en":
        return "English"
    if language in ("zh", "ja", "ko"):
        return "Chinese, Japanese, Korean"
    return "other scripts" if language in _OTHER_SCRIPTS else "other Latin script"


def table(samples: Iterable[Sample]) -> Iterator[str]:
    """Lines of a Markdown table: ratios by tokenizer and source, and how often the product's bound holds."""
    groups: dict[tuple[Tokenizer, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.tokenizer, sample.source), []).append(sample)
        groups.setdefault((sample.tokenizer, "all"), []).append(sample)
    yield "| tokenizer | source | texts | tokens | ratio | 2 % | 98 % | worst | within |"
    yield "| --- | --- | --: | --: | --: | --: | --: | --: | --: |"
    for (tokenizer, source), group in sorted(groups.items(), key=lambda item: (item[0][0].value, item[0][1])):
        yield f"| {tokenizer.value} | {source} | {_figures(tokenizer, group)} |"


def _figures(tokenizer: Tokenizer, group: list[Sample]) -> str:
    ratios = sorted(sample.ratio for sample in group)
    counted = sum(sample.counted for sample in group)
    overall = sum(sample.reported for sample in group) / counted
    low, high = (ratios[round(share * (len(ratios) - 1))] for share in (0.02, 0.98))
    within = sum(ratio <= CORRECTIONS[tokenizer].most + 0.005 for ratio in ratios) / len(ratios)
    figures = " | ".join(f"{figure:.2f}" for figure in (overall, low, high, ratios[-1]))
    return f"{len(group)} | {counted} | {figures} | {within:.1%}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("traffic", type=Path, help="the folder of recorded exchanges")
    parser.add_argument("--vocabularies", action="store_true", help="measure published vocabularies too")
    arguments = parser.parse_args()
    counter = TiktokenCounter()
    samples = list(samples_of_traffic(arguments.traffic, counter))
    if arguments.vocabularies:
        samples += samples_of_vocabularies(counter)
    print("\n".join(table(samples)))


if __name__ == "__main__":
    main()
