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
from wall.comparing import compare
from wall.log import Hit, Outcome, Status, WallLog
from wall.plays import Ending, cut, sound
from wall.policy import make_policy, shareable
from wall.scenario import QUICK, Evidence, Lane, Setting, Stage, Verdict
from wall.scenarios.judging import always, released_in_time
from wall.texts import told_so_far

from kit.replicas import free_port
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


def report(folder: Path, target: str, *, seed: int = 1, **findings: dict[str, str]) -> Path:
    """A report with these scenarios: verdicts by what was looked at."""
    rows: list[dict[str, object]] = [{"kind": "run", "target": target, "seed": seed, "scale": 0.05, "many": 50}]
    for id, verdicts in findings.items():
        worst = next((one for one in ("BROKEN", "kept") if one in verdicts.values()), "not applicable")
        found = [
            {"name": name, "measured": f"{target}: {verdict}", "expected": "0 | 1", "verdict": verdict}
            for name, verdict in verdicts.items()
        ]
        rows.append({"kind": "scenario", "id": id, "title": f"{id} happens", "verdict": worst, "findings": found})
    file = folder / f"{target}-{seed}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


KEPT, BROKEN, SILENT = "kept", "BROKEN", "not applicable"


class TestSideBySide:
    def test_scenarios_stand_beside_each_other(self, tmp_path: Path) -> None:
        ours = report(tmp_path, "ours", S01={"served": KEPT, "limits": KEPT}, S02={"served": KEPT})
        theirs = report(tmp_path, "theirs", S01={"served": BROKEN, "limits": SILENT}, S03={"limits": SILENT})
        told = compare([ours, theirs])
        assert "| S01 | S01 happens | kept | **broken** 1 of 1 |" in told
        assert "| S02 | S02 happens | kept | not run |" in told
        assert "| S03 | S03 happens | not run | not applicable |" in told
        assert "|  | scenarios kept, of those judged | 2 of 2 | 0 of 1 |" in told

    def test_what_many_scenarios_look_at_is_counted_once_for_each(self, tmp_path: Path) -> None:
        twice = {"served": KEPT, "rare": KEPT}
        ours = report(tmp_path, "ours", S01=twice, S02=twice, S03={"served": BROKEN})
        theirs = report(tmp_path, "theirs", S01={"served": SILENT}, S02={"served": SILENT}, S03={"served": SILENT})
        table = compare([ours, theirs]).split("\n\n")[2]
        assert "| served | 2 of 3 | not applicable |" in table
        assert "rare" not in table

    def test_a_finding_that_comes_twice_in_a_scenario_is_as_good_as_its_worst(self, tmp_path: Path) -> None:
        files = [report(tmp_path, "ours", S01={"served": KEPT}, S02={"served": KEPT}, S03={"served": BROKEN})]
        lines = files[0].read_text().splitlines()
        row = json.loads(lines[3])
        row["findings"].append({**row["findings"][0], "verdict": KEPT})
        files[0].write_text("\n".join([*lines[:3], json.dumps(row)]))
        assert "| served | 2 of 3 |" in compare(files)

    def test_what_is_broken_is_told_with_its_figures(self, tmp_path: Path) -> None:
        told = compare([report(tmp_path, "ours", S01={"served": KEPT}), report(tmp_path, "theirs", S01={"a": BROKEN})])
        assert "Broken by ours: nothing." in told
        assert "Broken by theirs:\n\n- S01, a: theirs: BROKEN; expected 0 | 1\n" in told

    def test_runs_of_different_kinds_are_not_compared(self, tmp_path: Path) -> None:
        files = [report(tmp_path, "ours", S01={}), report(tmp_path, "theirs", seed=2, S01={})]
        with pytest.raises(ValueError, match=r"differ in their options: ours: seed 1, .*; theirs: seed 2"):
            compare(files)

    def test_the_command_prints_it_or_says_what_is_wrong(self, tmp_path: Path) -> None:
        file = report(tmp_path, "ours", S01={"served": KEPT})
        done = wall("--compare", str(file), str(file))
        assert done.returncode == 0
        assert "| S01 | S01 happens | kept | kept |" in done.stdout
        file.write_text("not a report")
        done = wall("--compare", str(file))
        assert done.returncode == 2
        assert "is no report of the wall" in done.stderr


class TestAnotherGateway:
    def test_a_key_that_is_not_there_is_told_before_anything_is_run(self) -> None:
        done = wall("--target", "http://127.0.0.1:1/v1", "--key-env", "NO_SUCH_KEY", "--scenario", "S01")
        assert done.returncode == 2
        assert "NO_SUCH_KEY, which is not in the environment" in done.stderr

    @pytest.mark.parametrize(
        ("content", "said"), [("[1]", "must hold one JSON object"), ("{", "cannot be read as JSON")]
    )
    def test_headers_that_make_no_sense_are_refused(self, tmp_path: Path, content: str, said: str) -> None:
        file = tmp_path / "headers.json"
        file.write_text(content)
        done = wall("--target", "http://127.0.0.1:1/v1", "--headers", str(file), "--scenario", "S01")
        assert done.returncode == 2
        assert said in done.stderr

    def test_one_that_serves_nothing_is_not_judged(self, tmp_path: Path) -> None:
        output = tmp_path / "wall.jsonl"
        target, ports = f"http://127.0.0.1:{free_port()}/v1", f"{free_port()},{free_port()}"
        done = wall("--target", target, "--ports", ports, "--scenario", "S01", "--output", str(output))
        assert done.returncode == 1
        assert "does not serve a whole call with both upstreams well: UNAVAILABLE" in done.stderr
        assert not output.exists()
