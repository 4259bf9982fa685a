from __future__ import annotations

import hashlib
import math
from importlib.resources import files

from pointsman_server.decision.learned import DATA, calibration_set, judge_name, learned, shipped_judge
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier

MOST_BYTES = 2_000_000


def test_the_data_is_read_once() -> None:
    assert learned() is learned()
    assert shipped_judge() is shipped_judge()


def test_the_data_is_small() -> None:
    assert len((files("pointsman_server") / DATA).read_bytes()) <= MOST_BYTES


def test_the_judge_is_named_after_all_that_it_learned() -> None:
    content = (files("pointsman_server") / DATA).read_bytes()
    assert judge_name() == f"learned:{hashlib.sha256(content).hexdigest()[:16]}"


def test_the_shipped_data_has_all_that_the_judge_needs() -> None:
    judge = shipped_judge()
    assert judge.wording.hear("sort this").logits != judge.wording.hear("unheard of").logits
    assert set(judge.tasks.types) == set(TaskType)
    assert judge.outcomes.forest.names == ("need", "cheap", "strong", "familiar")
    assert list(judge.outcomes.need_knots) == sorted(judge.outcomes.need_knots)


def test_the_network_takes_what_it_is_given() -> None:
    network = learned()["rubric"]
    assert {len(weights) for _, weights in network["hidden"]} == {22}
    assert {len(weights) for _, weights in network["outputs"]} == {len(network["hidden"])}
    assert len(network["outputs"]) == len(Tier)


def test_the_calibration_set_holds_requests_of_every_tier() -> None:
    calibration = calibration_set()
    assert {judged.tier for judged in calibration} == set(Tier)
    assert all(math.isfinite(judged.difficulty) and judged.discrimination > 0 for judged in calibration)


def test_the_record_tells_what_it_was_trained_on() -> None:
    record = learned()["record"]
    assert {"seed", "trained_on", "labelled", "held_out"} <= set(record)
    assert all(len(digest) == 64 for digest in record["trained_on"].values())
