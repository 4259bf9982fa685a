from __future__ import annotations

from pathlib import Path

import pytest

from kit.judges import judge_by_length
from pointsman_server.domain.request import CompletionRequest, Tier
from pointsman_server.evaluation.judging import (
    Verdict,
    judge_text,
    read_predictions,
    tier_named,
    write_predictions,
)
from pointsman_server.evaluation.problems import DataError


def test_a_system_prompt_is_a_turn_of_its_own() -> None:
    turns: list[tuple[str, str]] = []

    def judge(request: CompletionRequest):  # type: ignore[no-untyped-def]
        turns.extend((message.role.value, message.text) for message in request.messages)
        return judge_by_length(request)

    said = judge_text(judge, "Hello", "Be kind.")
    assert (said.score, said.tier, said.task, said.discrimination) == (0.02, Tier.LIGHT, "chat", 1.0)
    assert said.difficulty == pytest.approx(-1.88)
    assert turns == [("system", "Be kind."), ("user", "Hello")]


def test_tiers_have_two_names() -> None:
    assert [tier_named(name) for name in ("Simple", "standard", " complex ")] == list(Tier)
    assert tier_named("hard") is None


def test_predictions_survive_a_file(tmp_path: Path) -> None:
    verdicts = [Verdict(0.25, Tier.LIGHT, "code", -1.25, 0.0), Verdict(0.5, Tier.ADVANCED)]
    write_predictions(tmp_path / "p.csv", ["a", "b"], verdicts)
    assert read_predictions(tmp_path / "p.csv", ["b", "a"]) == verdicts[::-1]


def test_predictions_must_be_whole(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", ["a"], [Verdict(0.25, Tier.LIGHT)])
    with pytest.raises(DataError, match="has no score for 1 of 2 prompts"):
        read_predictions(tmp_path / "p.csv", ["a", "b"])


def test_predictions_need_no_more_than_score_and_tier(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("item_id,score,tier\na,0.5,medium\n")
    assert read_predictions(tmp_path / "p.csv", ["a"]) == [Verdict(0.5, Tier.STANDARD, "", 0.0, 1.0)]


@pytest.mark.parametrize(
    "text",
    [
        "item_id,score\na,0.5\n",
        "item_id,score,tier\na,2,simple\n",
        "item_id,score,tier\na,0,hard\n",
        "item_id,score,tier,difficulty\na,0,simple,nan\n",
        "item_id,score,tier,difficulty\na,0,simple,1000\n",
        "item_id,score,tier,discrimination\na,0,simple,-1\n",
        "item_id,score,tier,discrimination\na,0,simple,steep\n",
    ],
)
def test_predictions_must_be_sound(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DataError, match="needs the columns item_id, score"):
        read_predictions(tmp_path / "p.csv", ["a"])
