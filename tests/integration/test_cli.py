"""The command as processes: serving, asking, ending; on a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.command_line import COMMAND, environment, serving, simulated_policy, started

SIMULATED = "This is a simulated answer: no language model was asked."


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that answers in steps and at length."""
    with serving(tmp_path_factory.mktemp("server"), simulated_policy("sim-fast", "sim-long")) as (_, address):
        yield address


def run(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, env=environment(**environ), check=False,
        timeout=30,
    )  # fmt: skip


def on_terminal(*arguments: str, columns: int = 80) -> str:
    """What a command shows on a terminal of this width, both outputs together."""
    ours, theirs = pty.openpty()
    environ = environment(TERM="xterm-256color", COLUMNS=str(columns))
    with subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        assert process.wait(30) == 0
    os.close(ours)
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody holds the other end any more
        return b""


def test_serve_answers_and_ends_cleanly(tmp_path: Path) -> None:
    with serving(tmp_path, simulated_policy("sim-fast")) as (process, address):
        answer = run("complete", "-", stdin="Hello\n", POINTSMAN_GRPC_ADDRESS=address)
        assert answer.returncode == 0
        assert answer.stdout.startswith(SIMULATED)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events == [
        "control_changed",
        "simulated_providers",
        "serving",
        "insecure_mode",
        "draining",
        "closed",
    ]


def test_a_taken_address_is_told_with_its_remedy(address: str) -> None:
    result = run("serve", "--grpc-address", address)
    assert result.returncode == 1
    assert f"Error: cannot listen on {address}" in result.stderr
    assert "--grpc-address 127.0.0.1:50052" in result.stderr
    assert "Traceback" not in result.stderr


def test_simulate_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text('rules: [{model: "*", behaviour: {reply_text: "As scripted."}}]')
    with started(tmp_path / "log", "simulate", "--port", "0", "--script", str(script)) as (process, line):
        base_url = line.split()[4].rstrip(";")
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()
        request = urllib.request.Request(f"{base_url}/v1/chat/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["choices"][0]["message"]["content"] == "As scripted."
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert (tmp_path / "log").read_text() == ""


def test_simulate_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("rulez: []")
    refused = run("simulate", "--script", str(script))
    assert refused.returncode == 2
    assert "the script cannot be used" in refused.stderr
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = run("simulate", "--port", str(listener.getsockname()[1]))
    assert taken.returncode == 1
    assert "choose another: --port 0" in taken.stderr


def test_a_terminal_gets_colours_and_a_stream(address: str) -> None:
    shown = on_terminal("route", "--server", address, "Prove it.")
    assert "\x1b[1;32msim-fast\x1b[0m" in shown
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()) <= 80
    shown = on_terminal("complete", "--server", address, "--json", "Hello")
    assert json.loads(shown)["message"]["role"] == "ROLE_ASSISTANT"
    shown = on_terminal("complete", "--server", address, "--deployment", "sim-long", "Hello")
    assert shown.startswith(SIMULATED)
    assert "\r\n[sim-long, simulated | " in shown


@pytest.mark.parametrize("command", ["route", "complete", "preflight"])
def test_a_pipe_gets_no_colours(address: str, command: str) -> None:
    arguments = [] if command == "preflight" else ["--server", address, "Prove it."]
    result = run(command, *arguments, FORCE_COLOR="", TERM="xterm-256color", POINTSMAN_GRPC_ADDRESS="127.0.0.1:0")
    assert result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_a_reader_that_leaves_early_gets_no_traceback(address: str) -> None:
    command = [*COMMAND, "complete", "--server", address, "--stream", "--json", "--deployment", "sim-long", "Hello"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
        assert process.wait(30) == 1
    assert b"Traceback" not in complaint


def test_without_a_server_it_says_how_to_start_one() -> None:
    result = run("complete", "--server", "127.0.0.1:1", "Hello")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "no pointsman server answers at 127.0.0.1:1" in result.stderr
    assert "`make run`" in result.stderr
