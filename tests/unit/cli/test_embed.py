from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.command_line import Cli, serving, simulated_policy
from pointsman.v1.answer_pb2 import Attempt, Redaction, Usage
from pointsman.v1.embedding_service_pb2 import EmbedResponse
from pointsman_server.cli.footer import footer_of_vectors

DIMENSIONS = 256
"""Of the simulator's vectors."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    policy: dict[str, Any] = json.loads(simulated_policy("sim-fast"))
    model = {"kind": "embedding", "context_window_tokens": 100, "dimensions": DIMENSIONS, "variable_dimensions": True}
    policy["models"]["vec"] = {**model, "price": [{"input_usd_per_mtok": 1}]}
    policy["deployments"]["vectors"] = {"provider": "sim-fast-account", "model": "vec", "model_name": "sim-fast"}
    with serving(tmp_path_factory.mktemp("vectors"), json.dumps(policy)) as (_, address):
        yield address


def rows(shown: str) -> list[list[str]]:
    """The table without its headings."""
    return [line.split() for line in shown.splitlines()[1:]]


def test_every_text_has_a_row_and_the_account_goes_to_standard_error(cli: Cli, server: str) -> None:
    result = cli("embed", "--server", server, "cats and dogs", "ships")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["text", "dimensions", "first", "values"]
    assert [row[:2] for row in rows(result.stdout)] == [["0", str(DIMENSIONS)], ["1", str(DIMENSIONS)]]
    assert all(len(row) == 2 + 4 + 1 and row[-1] == "…" for row in rows(result.stdout))
    assert result.stderr.startswith("[vectors, simulated | ")
    assert " tokens | $0.0000" in result.stderr
    assert result.stderr.count("\n") == 1


def test_json_holds_the_whole_vectors(cli: Cli, server: str) -> None:
    response = json.loads(cli("embed", "--server", server, "--json", "--dimensions", "3", "cats").stdout)
    assert [len(one["values"]) for one in response["embeddings"]] == [3]
    assert response["attempts"][-1]["deployment"] == "vectors"
    assert response["redactions"] == []


def test_a_short_vector_is_shown_whole(cli: Cli, server: str) -> None:
    (row,) = rows(cli("embed", "--server", server, "cats", "--dimensions", "3").stdout)
    assert row[1] == "3"
    assert len(row) == 2 + 3


def test_texts_come_from_arguments_standard_input_and_a_file_in_this_order(
    cli: Cli, server: str, tmp_path: Path
) -> None:
    file = tmp_path / "texts"
    file.write_bytes("third\r\n\n  \nfourth\u2028still fourth".encode())
    mixed = cli("embed", "--server", server, "first", "-", "--lines", str(file), "--json", stdin="second\n\n")
    typed = cli("embed", "--server", server, "--json", "first", "second", "third", "fourth\u2028still fourth")
    assert json.loads(mixed.stdout)["embeddings"] == json.loads(typed.stdout)["embeddings"]
    assert len(json.loads(typed.stdout)["embeddings"]) == 4


def test_what_is_found_is_told(cli: Cli, server: str) -> None:
    result = cli("embed", "--server", server, "write to ann@example.org", "--label", "feature=search")
    assert result.exit_code == 0
    assert " | found in the texts: 1 EMAIL]" in result.stderr
    assert "ann@example.org" not in result.output


def test_the_account_is_one_line_without_control_characters() -> None:
    attempts = [Attempt(deployment="first", provider="a"), Attempt(deployment="second", provider="b\x1b[31m")]
    usage = Usage(input_tokens=1_000, cost_micro_usd=1_234_567, estimated=True)
    found = [Redaction(type="EMAIL", count=1_200), Redaction(type="IP", count=1)]
    line = footer_of_vectors(EmbedResponse(attempts=attempts, usage=usage, redactions=found), 1.25)
    assert line == (
        "[second, b\\x1b[31m | about 1,000 tokens | $1.234567 | 2 attempts | 1.2 s | found in the texts: 1,200 EMAIL"
        " | found in the texts: 1 IP]"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "only --lines FILE can do without it"),
        (("-",), "every line is empty"),
        (("--lines", "none"), "none cannot be read: No such file"),
        (("x", "--label", "feature"), "write it as key=value"),
        (("x", "--dimensions", "many"), "'many' is not a valid integer"),
    ],
)
def test_what_is_asked_wrongly_is_refused(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    result = cli("embed", *arguments, stdin="\n \n")
    assert result.exit_code == 2
    assert words in result.stderr


def test_input_that_is_no_text_is_refused(cli: Cli) -> None:
    result = cli("embed", "-", stdin=b"a\xffb")
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr


def test_a_deployment_that_makes_no_vectors_is_refused(cli: Cli, server: str) -> None:
    result = cli("embed", "--server", server, "cats", "--deployment", "sim-fast")
    assert result.exit_code == 1
    assert "UNSUPPORTED_CONTENT" in result.stderr
