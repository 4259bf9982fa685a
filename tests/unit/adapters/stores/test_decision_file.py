from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import structlog
from hypothesis import given

from kit.catalog import circumstances
from kit.policies import Asked, questions
from kit.properties import examples
from pointsman_server.adapters.stores import decision_file, line_file
from pointsman_server.adapters.stores.decision_file import (
    _DECISION,
    DECISIONS,
    POLICIES,
    VERDICTS,
    StateFolder,
    UnreadableRecordError,
    read_decisions,
    read_policy_record,
)
from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.plan import ExclusionReason, TaskType
from pointsman_server.domain.record import DecisionRecord, PlanSummary, PolicyRecord
from pointsman_server.domain.request import Tier
from pointsman_server.domain.verdict import Verdict

OUTCOME = PlanSummary((("one", 0.1 + 0.2, 10), ("two", -10.5, 20)), (("three", ExclusionReason.RULE),))
POLICY = PolicyRecord("0123456789ab", "version: 1\n", "p.yaml", date(2026, 11, 21), {"anthropic": "no key"})


def record(place: int = 1) -> DecisionRecord:
    return DecisionRecord(f"dec_{place}", "req_1", 1.75e9 + place / 3, "v1", circumstances(), OUTCOME)


def verdict(place: int = 1) -> Verdict:
    return Verdict(f"req_{place}", "t", Lesson("m", TaskType.CODE, Tier.LIGHT), 1 / 3, 1.75e9 + place)


def kept(folder: Path, *records: DecisionRecord, verdicts: tuple[Verdict, ...] = (), worker: int = 0) -> None:
    """What one process keeps from its start to its end."""
    state = StateFolder(folder, worker)
    state.open()
    for one in records:
        state.decisions.append(one)
    for each in verdicts:
        state.verdicts.append(each)
    state.close()


class TestDecisions:
    def test_they_are_read_back_as_they_were(self, tmp_path: Path) -> None:
        kept(tmp_path, record(1), record(2))
        kept(tmp_path, record(3))
        assert list(read_decisions(tmp_path)) == [record(1), record(2), record(3)]
        assert list(read_decisions(tmp_path / DECISIONS)) == [record(1), record(2), record(3)]

    def test_full_files_come_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(line_file, "MOST_FILE_BYTES", 10)
        for place in range(4):
            kept(tmp_path, record(place))
        assert len(list(tmp_path.glob(f"{DECISIONS}.*"))) == 3
        assert list(read_decisions(tmp_path)) == [record(place) for place in range(4)]

    def test_every_line_is_json_for_anybody(self, tmp_path: Path) -> None:
        kept(tmp_path, record())
        (line,) = (tmp_path / DECISIONS).read_text().splitlines()
        told = json.loads(line)
        assert (told["decision_id"], told["policy_version"]) == ("dec_1", "v1")
        assert told["outcome"]["excluded"] == [["three", "rule"]]

    @pytest.mark.parametrize("line", ["", "{}", "nonsense", '{"decision_id": 1'])
    def test_a_line_that_is_none_is_named(self, tmp_path: Path, line: str) -> None:
        kept(tmp_path, record())
        with (tmp_path / DECISIONS).open("a") as file:
            file.write(line + "\n")
        found = read_decisions(tmp_path)
        assert next(found) == record()
        with pytest.raises(UnreadableRecordError, match=rf"{DECISIONS}:2 is not a decision: "):
            next(found)

    @pytest.mark.parametrize("torn", ['{"decision_id": "dec_', "half", " "])
    def test_a_last_line_that_was_cut_off_ends_no_replay(self, tmp_path: Path, torn: str) -> None:
        kept(tmp_path, record(1), record(2))
        with (tmp_path / DECISIONS).open("a") as file:
            file.write(torn)
        assert list(read_decisions(tmp_path)) == [record(1), record(2)]

    def test_nor_does_one_in_a_full_file(self, tmp_path: Path) -> None:
        kept(tmp_path, record(2))
        (tmp_path / f"{DECISIONS}.000001").write_bytes(_DECISION.dump_json(record(1)) + b'\n{"decision_id')
        assert list(read_decisions(tmp_path)) == [record(1), record(2)]

    def test_a_whole_one_counts_without_its_end(self, tmp_path: Path) -> None:
        (tmp_path / "some.jsonl").write_bytes(_DECISION.dump_json(record(1)))
        assert list(read_decisions(tmp_path / "some.jsonl")) == [record(1)]

    def test_what_comes_after_a_crash_is_read_too(self, tmp_path: Path) -> None:
        kept(tmp_path, record(1))
        with (tmp_path / DECISIONS).open("a") as file:
            file.write('{"decision_id": "dec_')
        kept(tmp_path, record(2))
        assert list(read_decisions(tmp_path)) == [record(1), record(2)]

    def test_a_folder_without_any_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=DECISIONS):
            list(read_decisions(tmp_path))

    @examples(60)
    @given(questions)
    def test_no_circumstance_is_lost_in_writing(self, asked: Asked) -> None:
        before = DecisionRecord("d", "r", 0.1, asked.policy.version, asked.under, OUTCOME)
        assert _DECISION.validate_json(_DECISION.dump_json(before)) == before


class TestVerdicts:
    def test_they_are_read_back_oldest_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(line_file, "MOST_FILE_BYTES", 10)
        for place in range(3):
            kept(tmp_path, verdicts=(verdict(place),))
        assert list(StateFolder(tmp_path).earlier_verdicts()) == [verdict(0), verdict(1), verdict(2)]

    def test_lines_that_cannot_be_read_are_skipped_and_counted(self, tmp_path: Path) -> None:
        kept(tmp_path, verdicts=(verdict(1),))
        with (tmp_path / VERDICTS).open("a") as file:
            file.write('half a li\n["r"]\n')
        kept(tmp_path, verdicts=(verdict(2),))
        with structlog.testing.capture_logs() as logs:
            assert list(StateFolder(tmp_path).earlier_verdicts()) == [verdict(1), verdict(2)]
        assert [(line["event"], line["count"]) for line in logs] == [("verdicts_skipped", 2)]

    @pytest.mark.parametrize(("most", "last"), [(0, 0), (1, 1), (3, 3), (4, 4), (7, 7), (8, 8), (100, 8)])
    def test_only_the_newest_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, last: int
    ) -> None:
        monkeypatch.setattr(decision_file, "MOST_EARLIER_VERDICTS", most)
        monkeypatch.setattr(decision_file, "_CHUNK_BYTES", 7)
        for place, name in enumerate(("000001", "000002", "000003", "")):
            lines = [decision_file._VERDICT.dump_json(verdict(2 * place + one)) for one in range(2)]
            (tmp_path / f"{VERDICTS}.{name}".rstrip(".")).write_bytes(b"\n".join(lines) + b"\n")
        assert list(StateFolder(tmp_path).earlier_verdicts()) == [verdict(place) for place in range(8 - last, 8)]

    def test_many_are_read_without_holding_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decision_file, "MOST_EARLIER_VERDICTS", 1_000)
        line = b" " * 900 + decision_file._VERDICT.dump_json(verdict()) + b"\n"
        (tmp_path / VERDICTS).write_bytes(line * 20_000)
        tracemalloc.start()
        assert sum(1 for _ in StateFolder(tmp_path).earlier_verdicts()) == 1_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4_000_000 < (tmp_path / VERDICTS).stat().st_size

    def test_a_file_that_cannot_be_read_is_a_warning(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(file: Path) -> int:
            raise PermissionError

        kept(tmp_path, verdicts=(verdict(),))
        monkeypatch.setattr(decision_file, "_count_lines", denied)
        with structlog.testing.capture_logs() as logs:
            assert list(StateFolder(tmp_path).earlier_verdicts()) == []
        assert [(line["event"], line["error"]) for line in logs] == [("verdicts_not_read", "PermissionError")]

    def test_there_are_none_at_first(self, tmp_path: Path) -> None:
        assert list(StateFolder(tmp_path).earlier_verdicts()) == []


class TestWorkers:
    def test_each_writes_files_of_its_own_which_are_read_by_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(line_file, "MOST_FILE_BYTES", 0)
        kept(tmp_path, record(2), worker=1)
        kept(tmp_path, record(3), worker=12)
        kept(tmp_path, record(5), worker=1)
        kept(tmp_path, record(1), record(4))
        (tmp_path / "decisions-x.jsonl").write_text("not one of ours\n")
        names = sorted(file.name for file in tmp_path.glob("decisions*"))
        assert names == [
            "decisions-1.jsonl",
            "decisions-1.jsonl.000001",
            "decisions-12.jsonl",
            "decisions-x.jsonl",
            "decisions.jsonl",
        ]
        assert [one.decision_id for one in read_decisions(tmp_path)] == [f"dec_{place}" for place in (1, 2, 3, 4, 5)]
        assert [one.decision_id for one in read_decisions(tmp_path / "decisions-1.jsonl")] == ["dec_2", "dec_5"]

    def test_one_whose_file_was_just_turned_over_is_read_too(self, tmp_path: Path) -> None:
        kept(tmp_path, record(1), worker=1)
        (tmp_path / "decisions-1.jsonl").rename(tmp_path / "decisions-1.jsonl.000001")
        assert list(read_decisions(tmp_path)) == [record(1)]
        assert list(read_decisions(tmp_path / "decisions-1.jsonl")) == [record(1)]

    def test_everybodys_verdicts_are_read_by_everybody(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kept(tmp_path, verdicts=(verdict(1), verdict(4)))
        kept(tmp_path, verdicts=(verdict(2), verdict(5)), worker=1)
        kept(tmp_path, verdicts=(verdict(3),), worker=2)
        for worker in (0, 1, 3):
            assert list(StateFolder(tmp_path, worker).earlier_verdicts()) == [verdict(n) for n in (1, 2, 3, 4, 5)]
        monkeypatch.setattr(decision_file, "MOST_EARLIER_VERDICTS", 3)
        assert list(StateFolder(tmp_path).earlier_verdicts()) == [verdict(n) for n in (3, 4, 5)]


class TestPolicies:
    def test_they_are_read_back_by_their_version(self, tmp_path: Path) -> None:
        StateFolder(tmp_path).keep_policy(POLICY)
        assert read_policy_record(tmp_path, POLICY.version) == POLICY
        assert read_policy_record(tmp_path, "another") is None

    def test_one_that_could_not_be_written_leaves_the_old_one_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        StateFolder(tmp_path).keep_policy(POLICY)

        def full(file: int) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(os, "fsync", full)
        with structlog.testing.capture_logs() as logs:
            StateFolder(tmp_path).keep_policy(replace(POLICY, text="another"))
        assert [line["event"] for line in logs] == ["policy_not_kept"]
        assert read_policy_record(tmp_path, POLICY.version) == POLICY
        assert [file.name for file in (tmp_path / POLICIES).iterdir()] == [f"{POLICY.version}.json"]

    def test_a_folder_that_cannot_be_written_is_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / POLICIES).write_text("in the way")
        with structlog.testing.capture_logs() as logs:
            StateFolder(tmp_path).keep_policy(POLICY)
        assert [(line["event"], line["log_level"]) for line in logs] == [("policy_not_kept", "warning")]


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = StateFolder(None)
    state.open()
    state.keep_policy(POLICY)
    state.decisions.append(record())
    assert list(state.earlier_verdicts()) == []
    state.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_no_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    state = StateFolder(tmp_path / "file")
    with structlog.testing.capture_logs() as logs:
        state.open()
        state.decisions.append(record())
        state.close()
    (told,) = logs
    assert (told["event"], told["log_level"]) == ("state_not_kept", "warning")
    assert "POINTSMAN_STATE_DIR" in told["remedy"]
