"""Reads the knowledge base of a provider: Markdown, JSON Lines and CSV files that the policy names."""

from __future__ import annotations

import csv
import hashlib
import json
import stat
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pointsman_server.config.problems import shown
from pointsman_server.config.scalars import list_of, one_of, share, some
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.config.yaml_tree import Table
from pointsman_server.domain.knowledge import Knowledge, Passage, WhenUnknown, passages_of

KNOWLEDGE_KEYS: Keys = {
    "knowledge": "knowledge: [faq.jsonl, handbook.md]",
    "synonyms": "synonyms: {refund: [money back, reimbursement]}",
    "least_match": "least_match: 0.33",
    "when_unknown": "when_unknown: refuse",
}

DEFAULT_LEAST_MATCH = 0.33
MAX_KNOWLEDGE_BYTES = 8_000_000
MAX_PASSAGES = 20_000
_MAX_SYNONYM_BYTES = 200_000
_MAX_SYNONYMS = 2_000

_PATH_REMEDY = "Give its path from the policy's folder, or remove it."
_NAMES = (("question", "answer"), ("title", "text"))
_EXAMPLE = '`{"question": "…", "answer": "…"}` or `{"title": "…", "text": "…"}`'

NOT_READ = Knowledge("", DEFAULT_LEAST_MATCH, WhenUnknown.REFUSE)
"""Stands for a knowledge base whose files do not matter, as when decisions are made again."""


def read_knowledge(section: Section) -> Knowledge:
    """The knowledge base that these keys of a provider describe; every problem is noted."""
    folder = Path(section.spot.findings.file).parent
    left = [MAX_KNOWLEDGE_BYTES]
    digest = hashlib.sha256()

    def read(spot: Spot) -> tuple[str, tuple[Passage, ...]]:
        name = spot.text()
        data = _content(folder / name, name, left[0])
        left[0] -= len(data)
        digest.update(b"%s\0%d\0%s" % (name.encode(), len(data), data))
        return name, _passages(name, data)

    files = dict(section.required("knowledge", some(list_of(read)), ()))
    passages = tuple(passage for found in files.values() for passage in found)
    if len(passages) > MAX_PASSAGES and (spot := section.at("knowledge")):
        spot.refuse(f"has {len(passages)} passages", f"Leave at most {MAX_PASSAGES}, the most useful ones.")
    synonyms = section.optional("synonyms", lambda spot: _synonyms(spot, folder), ())
    digest.update(json.dumps(synonyms).encode())
    return Knowledge(
        digest=digest.hexdigest()[:16],
        least_match=section.optional("least_match", share, DEFAULT_LEAST_MATCH),
        when_unknown=section.optional(
            "when_unknown", one_of({word.value: word for word in WhenUnknown}), WhenUnknown.REFUSE
        ),
        passages=passages,
        synonyms=synonyms,
        files=tuple(str(folder / name) for name in files),
    )


def _content(path: Path, name: str, most_bytes: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnacceptableError(f"names no regular file: {shown(name)}", _PATH_REMEDY)
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise UnacceptableError(f"names a file that does not exist: {shown(name)}", _PATH_REMEDY) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        message = f"names a file that cannot be read ({reason or type(error).__name__}): {shown(name)}"
        raise UnacceptableError(message, "Check the path and its permissions.") from None
    if len(data) > most_bytes:
        remedy = f"All files of a knowledge base have at most {MAX_KNOWLEDGE_BYTES} bytes, one of synonyms 200000."
        raise UnacceptableError(f"names a file that is too long: {shown(name)}", remedy)
    return data


def _passages(name: str, data: bytes) -> tuple[Passage, ...]:
    readers: Mapping[str, Callable[[str, str], tuple[Passage, ...]]] = {
        ".md": _from_markdown,
        ".markdown": _from_markdown,
        ".jsonl": _from_json_lines,
        ".csv": _from_csv,
    }
    reader = readers.get(Path(name).suffix.lower())
    if reader is None:
        raise UnacceptableError(f"names a file of a kind that is not read: {shown(name)}", "Use .md, .jsonl or .csv.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnacceptableError(f"names a file that is not UTF-8 text: {shown(name)}", "Write it as UTF-8.") from None
    passages = reader(name, text)
    if not passages:
        message = f"names a file without anything to answer from: {shown(name)}"
        raise UnacceptableError(message, "Write questions and answers into it, or remove it.")
    return passages


def _from_markdown(name: str, text: str) -> tuple[Passage, ...]:
    return passages_of(text, Path(name).name, by_line=True)


def _from_json_lines(name: str, text: str) -> tuple[Passage, ...]:
    passages: list[Passage] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise _bad_line(name, number, "is no JSON") from None
        if not isinstance(row, dict):
            raise _bad_line(name, number, "is no object")
        passages.append(_from_row(name, number, row))
    return tuple(passages)


def _from_csv(name: str, text: str) -> tuple[Passage, ...]:
    reader = csv.DictReader(StringIO(text, newline=""), strict=True)
    try:
        columns = [column.strip().lower() for column in reader.fieldnames or ()]
        if not any(set(pair) <= set(columns) for pair in _NAMES):
            raise _bad_line(name, 1, "names no columns `question` and `answer`, or `title` and `text`")
        reader.fieldnames = columns
        return tuple(_from_row(name, reader.line_num, row) for row in reader if any(row.values()))
    except csv.Error:
        raise _bad_line(name, reader.line_num + 1, "is no CSV") from None


def _from_row(name: str, number: int, row: Mapping[str, Any]) -> Passage:
    for asked, told in _NAMES:
        wordings = list(_wordings(row.get(asked)))
        answer = row.get(told)
        if wordings and isinstance(answer, str) and answer.strip():
            given = row.get("id")
            named = str(given) if isinstance(given, (str, int)) and str(given).strip() else ""
            place = named or f"{Path(name).name}:{number}"
            return Passage(place, wordings[0], answer.strip(), tuple(wordings[1:]))
    raise _bad_line(name, number, "lacks a question with its answer, or a title with its text")


def _wordings(value: object) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and one.strip():
            yield one.strip()


def _bad_line(name: str, number: int, what: str) -> UnacceptableError:
    return UnacceptableError(f"names a file of which line {number} {what}: {shown(name)}", f"Write {_EXAMPLE}.")


def _synonyms(spot: Spot, folder: Path) -> tuple[tuple[str, ...], ...]:
    if isinstance(spot.node, Table):
        texts = some(list_of(Spot.text))
        groups = {word: value.read(texts, ()) for word, value in spot.entries()}
    else:
        groups = _synonym_file(spot.text(), folder)
    if len(groups) > _MAX_SYNONYMS:
        raise UnacceptableError(f"has {len(groups)} words", f"Leave at most {_MAX_SYNONYMS}.")
    return tuple((word, *others) for word, others in sorted(groups.items()))


def _synonym_file(name: str, folder: Path) -> dict[str, tuple[str, ...]]:
    try:
        content = json.loads(_content(folder / name, name, _MAX_SYNONYM_BYTES))
    except (ValueError, RecursionError):
        content = None
    lists = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(one, list) and all(isinstance(word, str) for word in one) for one in lists):
        message = f"names a file that holds no synonyms: {shown(name)}"
        raise UnacceptableError(message, 'Write JSON into it: `{"refund": ["money back", "reimbursement"]}`.')
    return {word: tuple(others) for word, others in content.items()}
