"""The wall's own machinery: the same seed gives the same faults, its judge sees what it should, its command works."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from wall.asks import Ask
from wall.catalogue import SCENARIOS
from wall.log import Hit, Outcome, Status, WallLog
from wall.plays import Ending, cut, sound
from wall.policy import make_policy, shareable
from wall.scenario import QUICK, Evidence, Lane, Setting, Stage, Verdict
from wall.scenarios.judging import always, released_in_time
from wall.texts import told_so_far

from kit.running import load_for_test
from pointsman_server.config.policy_file import load_policy

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = {"primary": "http://127.0.0.1:18101", "fallback": "http://127.0.0.1:18102"}
TEXT = QUICK.text("S20", 7)


def hit(role: str = "primary", *, number: int = 7, left_at: float | None = None) -> Hit:
    return Hit(role, "S20", "main", number, 0, 0.1, True, False, {}, left_at=left_at, finished_at=None)


def plays(scenario: str, setting: Setting) -> list[tuple[bytes, Ending]]:
    answer = SCENARIOS[scenario].stage(setting).plans["primary"].answer
    found = [answer(replace(hit(number=number), scenario=scenario)) for number in range(20)]
    return [(play.body, play.ending) for play in found]


async def evidence(outcome: Outcome, *hits: Hit) -> Evidence:
    stage = Stage({}, [outcome.ask], lambda number: TEXT, {"main": Lane()})
    log = WallLog()
    log.outcomes.append(outcome)
    log.hits.extend(hits)
    return Evidence(QUICK, stage, log)


def answered(text: str, **changes: object) -> Outcome:
    outcome = Outcome(Ask(7), 0.0, Status.SERVED, frozenset({"OK"}), text=text, terminals=1, ended_at=1.0)
    return replace(outcome, **changes)  # type: ignore[arg-type]


async def broken(outcome: Outcome, *hits: Hit) -> list[str]:
    return [finding.name for finding in always(await evidence(outcome, *hits)) if not finding.kept]


def test_the_same_seed_gives_the_same_faults() -> None:
    assert plays("S20", QUICK) == plays("S20", QUICK)
    assert plays("S20", QUICK) != plays("S20", replace(QUICK, seed=2))


@pytest.mark.parametrize("after", [0, 1, 50, len(TEXT)])
def test_a_cut_stream_has_no_end(after: int) -> None:
    body = cut(sound(TEXT, [TEXT[at : at + 5] for at in range(0, len(TEXT), 5)]), after, Ending.CLOSE).body.decode()
    assert "[DONE]" not in body
    assert '"finish_reason": "stop"' not in body
    events = [json.loads(line[6:]) for line in body.split("\n\n") if line]
    told = "".join(one["choices"][0]["delta"]["content"] for one in events)
    assert TEXT.startswith(told)
    assert len(told) == min(len(TEXT), -(-after // 5) * 5)


def test_a_model_knows_where_it_was_cut() -> None:
    ask = {"role": "user", "content": "Tell me."}
    assert told_so_far({"messages": [ask]}, TEXT) == 0
    assert told_so_far({"messages": [ask, {"role": "assistant", "content": TEXT[:40]}]}, TEXT) == 40
    line = TEXT[:20] + "\nmore"
    instructed = [ask, {"role": "assistant", "content": TEXT[:20]}, {"role": "user", "content": "Go on."}]
    assert told_so_far({"messages": instructed}, line) == 20
    parts = [{"type": "text", "text": f"Go on after: {TEXT[:17]}"}]
    assert told_so_far({"messages": [{"role": "user", "content": parts}]}, TEXT) == 17


async def test_the_judge_accepts_what_is_right() -> None:
    assert await broken(answered(TEXT), hit(left_at=0.2)) == []


@pytest.mark.parametrize(
    "wrong",
    [TEXT[:-1], TEXT[:10] + TEXT[9:], TEXT[:10] + TEXT[11:], "", TEXT + "x"],
    ids=["cut", "doubled", "lost", "empty", "more"],
)
async def test_the_judge_sees_a_wrong_answer(wrong: str) -> None:
    assert await broken(answered(wrong)) == ["wrong or cut answers handed out as whole"]


async def test_the_judge_sees_pieces_that_are_not_the_whole() -> None:
    assert await broken(answered(TEXT, whole_text=TEXT[:-1])) == ["wrong or cut answers handed out as whole"]


@pytest.mark.parametrize("odd", [{"terminals": 0}, {"terminals": 2}, {"after_terminal": 1}])
async def test_the_judge_counts_ends(odd: dict[str, int]) -> None:
    assert await broken(answered(TEXT, **odd)) == ["calls without exactly one end"]


async def test_the_judge_counts_requests_and_what_stays_open() -> None:
    assert await broken(answered(TEXT), *(hit(left_at=0.2) for _ in range(4))) == [
        "requests for one call (at one upstream, in all)"
    ]
    assert await broken(answered(TEXT), hit()) == ["answers still open at the end"]


async def test_the_judge_measures_the_release() -> None:
    [late] = [released_in_time(await evidence(answered(TEXT), hit(left_at=1.3)))]
    assert not late.kept
    [in_time] = [released_in_time(await evidence(answered(TEXT), hit(left_at=1.1)))]
    assert in_time.kept


@pytest.mark.parametrize("setting", [QUICK, Setting()], ids=["quick", "full"])
def test_every_policy_compiles(setting: Setting) -> None:
    stages = {name: scenario.stage(setting) for name, scenario in SCENARIOS.items()}
    own = {name: stage for name, stage in stages.items() if stage.resilience}
    shared = {name: stage for name, stage in stages.items() if shareable(stage)}
    for chosen in (shared, *({name: stage} for name, stage in own.items())):
        policy = make_policy(chosen, ADDRESSES, setting)
        snapshot = load_for_test({key: value for key, value in policy.items() if key != "version"}).snapshot
        assert len(snapshot.deployments) == 2 * sum(len(stage.lanes) for stage in chosen.values())


def test_policies_of_different_kinds_are_not_mixed() -> None:
    stages = {name: SCENARIOS[name].stage(QUICK) for name in ("S01", "S20")}
    with pytest.raises(ValueError, match="one by one"):
        make_policy(stages, ADDRESSES, QUICK)


def wall(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wall", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_wrong_questions_are_refused() -> None:
    assert wall("--scenario", "S99", "--list").returncode == 2
    assert wall("--quick").returncode == 2
    listed = wall("--list")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in SCENARIOS)


def test_the_command_runs_a_server_and_reports(tmp_path: Path) -> None:
    output = tmp_path / "wall.jsonl"
    done = wall("--start", "--quick", "--scenario", "S12,S53", "--output", str(output), "--log")
    assert done.returncode == 0, done.stdout + done.stderr
    run, *rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert run == {"kind": "run", "target": "pointsman", "seed": 1, "scale": QUICK.scale, "many": QUICK.many}
    assert [(row["id"], row["verdict"]) for row in rows if row["kind"] == "scenario"] == [
        ("S12", Verdict.KEPT.value),
        ("S53", Verdict.KEPT.value),
    ]
    assert {row["kind"] for row in rows} == {"scenario", "hit", "outcome"}


def test_a_policy_is_written_for_a_server_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "wall.yaml"
    done = wall("--quick", "--write-policy", str(file), "--scenario", "S19")
    assert done.returncode == 0
    assert "POINTSMAN_MAX_CONCURRENT_CALLS=" in done.stdout
    assert "s19-main-primary" in load_policy(file, {}).snapshot.deployments


def test_one_policy_serves_many_scenarios(tmp_path: Path) -> None:
    file = tmp_path / "wall.yaml"
    assert wall("--quick", "--write-policy", str(file)).returncode == 0
    deployments = load_policy(file, {}).snapshot.deployments
    assert {"s01-main-primary", "s63-main-fallback"} <= set(deployments)
    assert "s19-main-primary" not in deployments


def test_what_is_asked_wrongly_is_told() -> None:
    done = wall("--target", "grpc://127.0.0.1:1", "--scenario", "S01", "--ports", "1")
    assert done.returncode == 2
    assert "takes 2 numbers" in done.stderr
