"""The limits of reading: nothing runs, nothing explodes, nothing takes long."""

from __future__ import annotations

import time

import pytest
import yaml

from pointsman_server.config.problems import MAX_PROBLEMS, Findings, PolicyError
from pointsman_server.config.yaml_tree import MAX_BYTES, MAX_NODES, Entry, Items, Scalar, Table, read_tree


def read(data: bytes) -> object:
    findings = Findings("file.yaml")
    tree = read_tree(data, findings)
    findings.raise_if_any()
    return tree


def test_tree_keeps_texts_lines_and_quoting() -> None:
    assert read(b"a: no\nb:\n  - '1'\n  - |\n    x\n") == Table(
        (
            Entry("a", 1, Scalar("no", 1, quoted=False)),
            Entry("b", 2, Items((Scalar("1", 3, quoted=True), Scalar("x\n", 4, quoted=True)), 3)),
        ),
        1,
    )


def filled(unit: str) -> bytes:
    return (unit * (MAX_BYTES // len(unit.encode())))[:MAX_BYTES].encode()


WORST = {
    "2000_brackets": b"a: " + b"[" * 2000,
    "brackets": filled("["),
    "braces": filled("{"),
    "dashes": filled("- "),
    "question_marks": filled("? "),
    "too_large": b"a: 1\n" * 260_000,
    "one_scalar": b"a: " + b"x" * (MAX_BYTES - 3),
    "escapes": b'a: "' + b"\\n" * 499_990 + b'"',
    "comments": filled("# c\n"),
    "colons": filled(":"),
    "keys": filled("a: b\n"),
    "flow_list": b"[" + filled("a,")[:-2] + b"]",
    "tag_directives": filled("%TAG !a! b\n"),
    "anchors": filled("- &a b\n"),
    "aliases": b"- &a b\n" + filled("- *a\n")[:-10],
    "laughs": b"\n".join(b"k%d: &k%d [%s]" % (i, i, b", ".join([b"*k%d" % (i - 1)] * 9)) for i in range(1, 12)),
    "tabs": filled("\t"),
    "quotes": filled('"'),
    "zeros": b"\0" * MAX_BYTES,
    "documents": filled("---\n"),
    "nested_lists": filled("- [a, {b: c}]\n"),
}


@pytest.mark.parametrize("name", sorted(WORST))
def test_worst_inputs_are_refused_in_time(name: str) -> None:
    started = time.perf_counter()
    findings = Findings("file.yaml")
    with pytest.raises(PolicyError):  # noqa: PT012 - some are refused while reading, some after it
        read_tree(WORST[name], findings)
        findings.stop(0, "", "was read", "It is a valid tree; only its time is of interest.")
    assert time.perf_counter() - started < 1


def test_too_large_file_is_refused_before_parsing() -> None:
    with pytest.raises(PolicyError, match=f"larger than {MAX_BYTES} bytes"):
        read(b"a: [" * MAX_BYTES)


def test_too_many_values_are_refused() -> None:
    with pytest.raises(PolicyError, match=f"more than {MAX_NODES} values"):
        read(b"[" + b"a, " * MAX_NODES + b"a]")


def test_reading_stops_when_there_is_too_much_to_tell() -> None:
    with pytest.raises(PolicyError) as caught:
        read(b"a: 1\n" * 5000)
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert "more than 100 problems" in str(caught.value)


def test_nothing_is_executed(tmp_path_factory: pytest.TempPathFactory) -> None:
    mark = tmp_path_factory.mktemp("run") / "mark"
    with pytest.raises(PolicyError, match="has a tag"):
        read(f'a: !!python/object/apply:os.system ["touch {mark}"]'.encode())
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"a: b\n\tc: d\n", 2, "tab"),
        (b"a:\n  b: [1, 2\n", 3, "not valid YAML"),
        (b"a: 'PLANTED\n", 2, "not valid YAML"),
        (b"a: b\nPLANTED\nc: d\n", 3, "could not find expected ':'"),
        (b"a: *PLANTED\n", 1, "alias"),
        (b"a: !PLANTED b\n", 1, "tag"),
        (b"a: b\n\x7f", 2, "control character"),
    ],
)
def test_syntax_errors_name_the_line_and_quote_nothing(data: bytes, line: int, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        read(data)
    assert caught.value.problems[0].line == line
    assert "PLANTED" not in str(caught.value)


def test_works_without_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert read(b"a: [no, 'x']\n") == Table(
        (Entry("a", 1, Items((Scalar("no", 1, quoted=False), Scalar("x", 1, quoted=True)), 1)),), 1
    )
    for data in (
        b"a: " + b"[" * 2000,
        b"a: b: PLANTED",
        b"a: {PLANTED: [}",
        b"a: *PLANTED",
        b"%PLANTED",
        b"a: @PLANTED",
    ):
        with pytest.raises(PolicyError) as caught:
            read(data)
        assert "PLANTED" not in str(caught.value)
