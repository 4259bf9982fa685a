from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kit.command_line import Cli
from pointsman_server.cli import complete

SIMULATED = "This is a simulated answer: no language model was asked."


def test_the_answer_alone_goes_to_standard_output(cli: Cli, server: str) -> None:
    result = cli("complete", "--server", server, "Hello")
    assert result.exit_code == 0
    assert result.stdout.startswith(SIMULATED)
    assert result.stdout.count("\n") == 1
    footer = result.stderr
    assert footer.startswith("[sim-fast, simulated | ")
    assert footer.count("\n") == 1
    for words in (" tokens | $0.0000", " | 1 attempt | ", "warning: a simulated provider answered"):
        assert words in footer


def test_streamed_and_whole_answers_are_the_same(cli: Cli, server: str) -> None:
    streamed = cli("complete", "--server", server, "--stream", "Hello", "--deployment", "sim-long")
    whole = cli("complete", "--server", server, "--no-stream", "Hello", "--deployment", "sim-long")
    assert streamed.stdout == whole.stdout
    assert len(streamed.stdout.splitlines()) >= 1
    assert "\x1b" not in streamed.output
    assert streamed.stderr.startswith("[sim-long, simulated | ")


def test_the_prompt_comes_from_standard_input(cli: Cli, server: str) -> None:
    piped = cli("complete", "--server", server, "-", stdin="Hello\n")
    typed = cli("complete", "--server", server, "Hello")
    assert piped.stdout == typed.stdout


def test_input_that_is_no_text_is_refused(cli: Cli, server: str) -> None:
    result = cli("complete", "--server", server, "-", stdin=b"a\xffb")
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr


def test_json_is_one_object(cli: Cli, server: str) -> None:
    response = json.loads(cli("complete", "--server", server, "--json", "Hello").stdout)
    assert response["message"]["parts"][0]["text"].startswith(SIMULATED)
    assert response["finish_reason"] == "FINISH_REASON_STOP"


def test_json_of_a_stream_is_one_event_a_line(cli: Cli, server: str) -> None:
    result = cli("complete", "--server", server, "--json", "--stream", "Hello", "--deployment", "sim-long")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [next(iter(event)) for event in (events[0], events[-1])] == ["decision", "completed"]
    assert {name for event in events for name in event} == {"decision", "delta", "warning", "completed"}
    text = "".join(event["delta"]["text"] for event in events if "delta" in event)
    assert text == events[-1]["completed"]["message"]["parts"][0]["text"]


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_a_decision_is_followed(cli: Cli, server: str, how: str) -> None:
    asked = ("--server", server, "Hello", "--deployment", "sim-long")
    decided = json.loads(cli("route", *asked, "--json").stdout)["decision"]["decision_id"]
    followed = cli("complete", *asked, how, "--json", "--decision", decided)
    assert followed.exit_code == 0
    assert f'"{decided}"' in followed.stdout
    another = cli("complete", "--server", server, "Something else", how, "--decision", decided)
    assert another.exit_code == 1
    assert "reason: DECISION_EXPIRED (FAILED_PRECONDITION)" in another.stderr
    assert "ask Route again" in another.stderr


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_a_cut_answer_and_sources_are_told(cli: Cli, server: str, how: str) -> None:
    cut = cli("complete", "--server", server, how, "Hello", "--deployment", "sim-length")
    assert " | finish: length | " in cut.stderr
    cited = cli("complete", "--server", server, how, "Hello", "--deployment", "sim-cited")
    assert " | 2 sources (--json shows them) | " in cited.stderr


def test_generation_options_reach_the_server(cli: Cli, server: str, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"city": {"const": "Paris"}}, "required": ["city"]}))
    result = cli("complete", "--server", server, "Hello", "--schema", str(schema), "--temperature", "0.5")
    assert json.loads(result.stdout) == {"city": "Paris"}
    short = cli("complete", "--server", server, "Hello", "--max-output-tokens", "4")
    assert "finish: length" in short.stderr


@pytest.mark.parametrize(
    ("content", "words"), [("{", "is not JSON"), ("[]", "holds no JSON object"), (None, "cannot be read: No such file")]
)
def test_a_schema_that_cannot_be_used_is_refused(cli: Cli, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "schema.json"
    if content is not None:
        file.write_text(content)
    result = cli("complete", "Hello", "--schema", str(file))
    assert result.exit_code == 2
    assert f"{file} {words}" in result.stderr


def test_failover_needs_a_stream(cli: Cli) -> None:
    result = cli("complete", "Hello", "--failover", "restart")
    assert result.exit_code == 2
    assert "add --stream" in result.stderr


def test_a_broken_stream_keeps_what_came_and_fails(cli: Cli, server: str) -> None:
    result = cli("complete", "--server", server, "--stream", "Hello", "--deployment", "sim-fault-stream-error-mid")
    assert result.exit_code == 1
    assert SIMULATED.startswith(result.stdout.rstrip("\n")[:20])
    assert result.stdout.endswith("\n")
    assert "reason: STREAM_INTERRUPTED (ABORTED)" in result.stderr
    assert "--failover continue" in result.stderr


def test_a_restarted_stream_says_so(cli: Cli, server: str) -> None:
    broken = "sim-fault-stream-error-mid"
    result = cli(
        "complete", "--server", server, "--stream", "Hello", "--failover", "restart",
        "--allow", broken, "--allow", "sim-cached", "--quality-bias", "0",
    )  # fmt: skip
    assert result.exit_code == 0
    cut, whole = result.stdout.splitlines()
    assert whole.startswith(cut)
    assert f"[{broken} failed; the answer starts again with sim-cached]" in result.stderr
    assert " | 2 attempts | " in result.stderr


def test_a_refused_key_is_the_operators_matter(cli: Cli, server: str) -> None:
    result = cli("complete", "--server", server, "Hello", "--deployment", "sim-fault-401")
    assert result.exit_code == 1
    assert "reason: PROVIDER_AUTH (INTERNAL)" in result.stderr
    assert "`pointsman preflight`" in result.stderr


def test_an_answer_steers_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for is_terminal, shown in ((True, "a\\x1b[31mb\n"), (False, "a\x1b[31mb\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        complete._write("a\x1b[31mb\n")
        assert capsys.readouterr().out == shown
