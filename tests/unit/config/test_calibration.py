"""A policy's calibration file: what it does to the models, and every mistake in it told where it is named."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from kit.catalog import circumstances, judged
from pointsman_server.config.policy_file import LoadedPolicy, compile_policy, compile_record, load_policy
from pointsman_server.config.preflight import Status, run_preflight
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.settings import Settings
from pointsman_server.config.yaml_tree import MAX_BYTES
from pointsman_server.decision.learned import judge_name
from pointsman_server.decision.replay import decide_again
from pointsman_server.domain.calibration import ANY_TASK, FallingMap
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.record import DecisionRecord, PlanSummary
from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.calibration_file import recalibrate
from pointsman_server.evaluation.outcomes import Outcome

TODAY = date(2026, 11, 21)
ROUTING = "routing: {quality_bias: 0.25, default_max_output_tokens: 512}\n"
LINE = 19
"""Where the key stands in `with_key`."""

MAPS = [
    {"task": "", "tier": "standard", "labels": 50, "points": [[0.1, 0.95], [0.9, 0.4]]},
    {"task": "code", "tier": "standard", "labels": 30, "points": [[0.5, 0.7]]},
    {"task": "", "tier": "advanced", "labels": 30, "points": [[0.5, 0.9]]},
]


def content(**changes: Any) -> dict[str, Any]:
    """A calibration file's content."""
    fixed = {"format": "pointsman-calibration/1", "judge": judge_name(), "maps": MAPS, "gains": [], "more": "ignored"}
    return {**fixed, **changes}


def gain(task: str, advice: str = "one_tier", tier: str = "light") -> dict[str, str]:
    return {"task": task, "advice": advice, "tier": tier}


@pytest.fixture
def with_key(good_policy: str) -> str:
    return good_policy.replace(ROUTING, "routing:\n  quality_bias: 0.25\n  calibration: learned/calibration.json\n")


Load = Callable[..., LoadedPolicy]


@pytest.fixture
def load(with_key: str, tmp_path: Path) -> Load:
    """Loads the policy with this beside it."""

    def load_(calibration: object, policy: str = with_key) -> LoadedPolicy:
        (tmp_path / "learned").mkdir(exist_ok=True)
        data = calibration if isinstance(calibration, bytes) else orjson.dumps(calibration)
        (tmp_path / "learned" / "calibration.json").write_bytes(data)
        (tmp_path / "policy.yaml").write_text(policy)
        return load_policy(tmp_path / "policy.yaml", {}, TODAY)

    return load_


def _with_keys(snapshot: Snapshot) -> Snapshot:
    """The same, every provider having its key."""
    usable = {
        name: replace(one, provider=replace(one.provider, unusable_because=""))
        for name, one in snapshot.deployments.items()
    }
    return replace(snapshot, deployments=usable)


class TestRead:
    def test_models_of_a_tier_get_its_maps(self, load: Load) -> None:
        deployments = load(content()).snapshot.deployments
        calibrated = deployments["claude-direct"].model.calibrated
        assert calibrated is not None
        assert calibrated.maps == {
            ANY_TASK: FallingMap(((0.1, 0.95), (0.9, 0.4))),
            "code": FallingMap(((0.5, 0.7),)),
        }
        assert calibrated.above_tier == 0.0
        assert deployments["small-local"].model.calibrated is None

    def test_models_of_one_tier_are_told_apart_by_their_quality(self, load: Load, with_key: str) -> None:
        alike = with_key.replace("small: {tier: light", "small: {tier: standard")
        deployments = load(content(), alike).snapshot.deployments
        found = {name: one.model.calibrated for name, one in deployments.items()}
        half = math.log(0.8 / 0.2) / 2  # the other's quality is 0.5, so their mean ability is half of the better one's
        assert found["claude-direct"] is not None
        assert found["small-local"] is not None
        assert found["claude-direct"].above_tier == pytest.approx(half)
        assert found["small-local"].above_tier == pytest.approx(-half)

    def test_what_recalibration_writes_can_be_read(self, load: Load, tmp_path: Path) -> None:
        dice = random.Random(1)
        outcomes = [
            Outcome(str(place), dice.random(), "code", Tier(1 + place % 3), float(dice.random() < 0.7), "m", 100.0)
            for place in range(300)
        ]
        recalibrate(outcomes, kept=0.95, judge=judge_name()).write(tmp_path / "out.json")
        model = load((tmp_path / "out.json").read_bytes()).snapshot.deployments["claude-direct"].model
        assert model.calibrated is not None
        assert set(model.calibrated.maps) == {ANY_TASK, "code"}

    def test_the_version_follows_the_maps(self, load: Load, good_policy: str) -> None:
        versions = {load(content()).snapshot.version, load(content(maps=MAPS[:1])).snapshot.version}
        assert len(versions | {load(content(maps=[])).snapshot.version}) == 3

    def test_it_moves_the_choice(self, load: Load, with_key: str) -> None:
        """Outcomes say that the light model is of no use here."""
        maps = [
            {"task": "", "tier": "light", "points": [[0.1, 0.05]]},
            {"task": "", "tier": "standard", "points": [[0.1, 0.95]]},
        ]
        policy = with_key.replace("tiers: {light: {chain: [small-local, best]}}\n", "")
        asked = circumstances(complexity=judged(Tier.LIGHT), quality_bias=0.5)
        record = DecisionRecord("d", "r", 1.0, "v", asked, PlanSummary())
        as_judged = decide_again(record, _with_keys(load(content(maps=[]), policy).snapshot))
        as_learned = decide_again(record, _with_keys(load(content(maps=maps), policy).snapshot))
        assert (as_judged.chosen, as_learned.chosen) == ("small-local", "claude-direct")


class TestKept:
    def test_a_kept_policy_needs_no_file(self, load: Load, tmp_path: Path) -> None:
        loaded = load(content())
        (tmp_path / "learned" / "calibration.json").unlink()
        again = compile_record(loaded.record)
        assert again == loaded.snapshot

    def test_decisions_come_out_the_same(self, load: Load) -> None:
        loaded = load(content())
        again = compile_record(loaded.record)
        dice = random.Random(3)
        for _ in range(50):
            complexity = judged(dice.choice(list(Tier)), score=dice.random(), task=dice.choice(list(TaskType)))
            asked = circumstances(complexity=complexity, quality_bias=dice.random())
            record = DecisionRecord("d", "r", 1.0, "v", asked, PlanSummary())
            first = decide_again(record, _with_keys(loaded.snapshot))
            assert len(first.ranked) == 2
            assert decide_again(record, _with_keys(again)) == first

    def test_a_calibration_by_another_judge_is_kept_too(self, load: Load) -> None:
        loaded = load(content(judge="learned:other"))
        assert compile_record(loaded.record).version == loaded.snapshot.version


def problems(compile_: Callable[[], object]) -> list[tuple[int, str, str, str]]:
    with pytest.raises(PolicyError) as caught:
        compile_()
    return [(one.line, one.path_in_file, one.message, one.remedy) for one in caught.value.problems]


class TestMistakes:
    @pytest.mark.parametrize(
        ("written", "words"),
        [
            (b"", "the whole: Invalid JSON"),
            (b"[1]", "the whole: Input should be an object"),
            (b"\xff\xfe", "the whole: Invalid JSON"),
            (content(format="pointsman-calibration/2"), "format: Input should be 'pointsman-calibration/1'"),
            ({"format": "pointsman-calibration/1"}, "judge: Field required"),
            (content(maps=[{**MAPS[0], "tier": "huge"}]), "maps.0.tier: Input should be 'light', "),
            (content(maps=[{**MAPS[0], "points": []}]), "maps.0.points: Tuple should have at least 1 item"),
            (content(maps=[{**MAPS[0], "points": [[0.5, 1.5]]}]), "maps.0.points.0.1: Input should be less"),
            (content(maps=[{**MAPS[0], "points": [[0.5, 0.5], [0.5, 0.4]]}]), "maps.0.points: Value error, scores"),
            (content(maps=[{**MAPS[0], "points": [[0.5, 0.5], [0.6, 0.6]]}]), "maps.0.points: Value error, scores"),
            (content(gains=[gain("", advice="guess")]), "gains.0.advice: Input should be 'route'"),
        ],
    )
    def test_a_file_of_something_else(self, load: Load, written: object, words: str) -> None:
        ((line, path, message, remedy),) = problems(lambda: load(written))
        assert (line, path) == (LINE, "routing.calibration")
        assert message.startswith(f"names a file that is no calibration ({words}")
        assert "pointsman evaluate recalibrate" in remedy

    def test_a_file_that_is_not_there(self, with_key: str) -> None:
        ((line, path, message, remedy),) = problems(lambda: compile_policy(with_key.encode(), "p.yaml", {}, TODAY))
        assert (line, path) == (LINE, "routing.calibration")
        assert message == "names a file that does not exist: 'learned/calibration.json'"
        assert "from the policy's folder" in remedy

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (".", "names no regular file: '.'"),
            ("[a]", "is a list"),
            ("", "has no value"),
            ("policy.yaml/below", "cannot be read (Not a directory)"),
        ],
    )
    def test_a_value_that_names_no_file(self, load: Load, with_key: str, value: str, words: str) -> None:
        policy = with_key.replace("learned/calibration.json", value)
        ((line, path, message, remedy),) = problems(lambda: load(content(), policy))
        assert (line, path, bool(remedy)) == (LINE, "routing.calibration", True)
        assert words in message

    def test_a_file_without_end(self, load: Load) -> None:
        ((_, _, message, _),) = problems(lambda: load(b" " * (MAX_BYTES + 1)))
        assert message == f"names a file of more than {MAX_BYTES} bytes"


class TestWarned:
    def test_a_sound_file_gives_none(self, load: Load) -> None:
        assert load(content(gains=[gain("", "route"), gain("code", "try_more")])).warnings == ()

    def test_another_judge(self, load: Load) -> None:
        (warning,) = load(content(judge="rules")).warnings
        assert (warning.line, warning.path_in_file) == (LINE, "routing.calibration")
        assert "learned from scores of another judge" in warning.message

    def test_no_maps(self, load: Load) -> None:
        (warning,) = load(content(maps=[])).warnings
        assert "holds no map" in warning.message

    def test_no_gain_is_told_by_preflight_with_the_tier_and_a_rule_that_can_be_used(
        self, load: Load, with_key: str, tmp_path: Path
    ) -> None:
        gains = [gain("", tier="standard"), gain("code"), gain("our own"), gain("chat", "route")]
        load(content(gains=gains))
        settings = replace(Settings.from_environment({}), policy_file=str(tmp_path / "policy.yaml"))
        report = run_preflight(settings, {}, check_endpoints=False, today=TODAY)
        told = [one for one in report.checks if "no gain of routing" in one.message]
        assert [one.status for one in told] == [Status.WARN] * 3
        for one, words in zip(
            told,
            (
                "for all requests together; standard is the cheapest tier",
                "for requests of type 'code'; light is the cheapest tier",
                "for requests of type 'our own'; light is the cheapest tier",
            ),
            strict=True,
        ):
            assert f"policy.yaml:{LINE}: routing.calibration" in one.message
            assert words in one.message
        rules = [one.remedy.split("`")[1] for one in told]
        assert rules[1] == "{name: one-tier-code, when: {tasks: [code]}, tier: light, quality_bias: 0}"
        assert "when: {labels: {work: [its-name]}}" in rules[2]
        for rule in rules:
            (compiled,) = load(content(), f"{with_key}  rules: [{rule}]\n").snapshot.rules
            assert compiled.quality_bias == 0.0
