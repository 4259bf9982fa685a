from __future__ import annotations

import json

import pytest

from kit.command_line import Cli


def answered(cli: Cli, server: str) -> str:
    """The request id of an answer."""
    result = cli("complete", "--server", server, "--json", "Hello")
    assert result.exit_code == 0, result.stderr
    response = json.loads(result.stdout)
    return str(response["request_id"])


def test_a_verdict_is_taken(cli: Cli, server: str) -> None:
    request_id = answered(cli, server)
    for score, told in (("0.25", "0.25"), ("1", "1"), ("0", "0")):
        result = cli("feedback", "--server", server, request_id, score, "--label", "code")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == f"taken: {told} for {request_id}\n"


def test_an_answer_that_nobody_gave_is_told(cli: Cli, server: str) -> None:
    result = cli("feedback", "--server", server, "req_unknown", "1")
    assert result.exit_code == 1
    assert "reason: REQUEST_NOT_FOUND (NOT_FOUND)" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("score", "words"),
    [("2", "score must be between"), ("nan", "score must be between"), ("good", "not a valid float")],
)
def test_a_score_that_is_none_is_wrong_usage(cli: Cli, score: str, words: str) -> None:
    result = cli("feedback", "req_1", score)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_label_that_breaks_the_contract_is_named(cli: Cli, server: str) -> None:
    result = cli("feedback", "--server", server, answered(cli, server), "1", "--label", "Not a label!")
    assert result.exit_code == 1
    assert "\n  label: " in result.stderr
