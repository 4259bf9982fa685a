from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from kit.command_line import Cli


def png(path: Path) -> str:
    """The path of a one-pixel image, written there."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\x00\x00\x00")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b""))
    return str(path)


def test_the_decision_is_shown_whole(cli: Cli, server: str) -> None:
    result = cli("route", "--server", server, "Explain the trade-offs.", "--deny", "sim-long")
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0] == "chosen      sim-fast  sim-fast, standard tier (simulated: no language model answers)"
    assert [line.split()[0] for line in lines[1:7]] == ["input", "policy", "dial", "decided", "decision", "request"]
    ranking = lines.index("Ranked, best first") + 2
    assert [line.split()[0] for line in lines[ranking : ranking + 2]] == ["sim-fast", "sim-cited"]
    assert all(f"{part}=" in lines[ranking] for part in ("quality", "cost", "first_token"))
    assert "$0.00" in lines[ranking]
    assert lines[-1].split() == ["sim-long", "DENIED", "constraints.denied_deployments", "names", "it"]
    assert any(line.startswith("task ") for line in lines)
    bars = {line.split()[0]: line.split()[-1] for line in lines if line.endswith("█")}
    assert {"wording", "need_of_strong_model", "familiar"} <= set(bars)
    assert max(len(bar) for bar in bars.values()) == 24


def test_json_is_the_contracts_own(cli: Cli, server: str) -> None:
    response = json.loads(cli("route", "--server", server, "--json", "Grüße?").stdout)
    assert response["decision"]["chosen"]["deployment"] == "sim-fast"
    assert response["decision"]["ranked"][0]["expected_cost_micro_usd"].isdigit()
    assert response["decision"]["ranked"][0]["score_parts"][0]["name"] == "quality"


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--deployment", "sim-long"], "sim-long"),
        (["--allow", "sim-long", "--allow", "sim-length"], "sim-length"),
        (["--deny", "sim-fast"], "sim-cited"),
        (["--tier", "standard", "--require", "vision", "--require", "tools"], "sim-fast"),
        (["--label", "team=search", "--system", "Be brief.", "--data-class", "public"], "sim-fast"),
        (["--max-cost-micro-usd", "100000"], "sim-fast"),
    ],
)
def test_options_reach_the_server(cli: Cli, server: str, arguments: list[str], chosen: str) -> None:
    result = cli("route", "--server", server, "--json", "Hello", *arguments)
    assert json.loads(result.stdout)["decision"]["chosen"]["deployment"] == chosen


def test_content_and_caps_reach_the_server(cli: Cli, server: str, tmp_path: Path) -> None:
    def decide(*arguments: str) -> dict[str, Any]:
        response = json.loads(cli("route", "--server", server, "--json", "Hi", *arguments).stdout)
        decision: dict[str, Any] = response["decision"]
        return decision

    plain = decide()
    assert (plain["quality_bias"], decide("--quality-bias", "0.75")["quality_bias"]) == (0.0, 0.75)
    assert int(decide("--system", "word " * 400)["input_tokens"]) > int(plain["input_tokens"]) + 300
    assert int(decide("--image", png(tmp_path / "a.png"))["input_tokens"]) > int(plain["input_tokens"]) + 500
    assert (plain["exact"], decide("--max-cost-micro-usd", "100")["exact"]) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tier", "huge"], "'huge' is not one of"),
        (["--label", "nonsense"], "write it as key=value"),
        (["--image", "/no/such.png"], "/no/such.png cannot be read: No such file"),
        (["--max-cost-micro-usd", "9" * 20], "max_cost_micro_usd"),
        (["--server", "http://127.0.0.1:1"], "write host:port"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(cli: Cli, arguments: list[str], words: str) -> None:
    result = cli("route", "Hello", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_file_that_is_no_image_is_refused(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    result = cli("route", "Hello", "--image", str(file))
    assert result.exit_code == 2
    assert "no PNG, JPEG, GIF or WebP" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--deployment", "nope"], ["reason: DEPLOYMENT_NOT_FOUND (NOT_FOUND)", "remedy: leave --deployment out"]),
        (["--quality-bias", "7"], ["completion.quality_bias: must be at most 1", "remedy: correct what is named"]),
        (
            ["--tier", "light"],
            ["NO_ELIGIBLE_DEPLOYMENT (FAILED_PRECONDITION)", "deployments/sim-fast: it is of tier standard", "remedy:"],
        ),
        (["--label", "BAD KEY=x"], ["completion.labels[0].key: must match"]),
    ],
)
def test_refusals_say_where_and_what_to_do(cli: Cli, server: str, arguments: list[str], words: list[str]) -> None:
    result = cli("route", "--server", server, "Hello", *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert all(word in result.stderr for word in words), result.stderr


def test_without_a_server_it_says_how_to_start_one(cli: Cli) -> None:
    result = cli("route", "Hello", POINTSMAN_GRPC_ADDRESS="127.0.0.1:1")
    assert result.exit_code == 1
    assert "no pointsman server answers at 127.0.0.1:1" in result.stderr
    assert "`make run`" in result.stderr
