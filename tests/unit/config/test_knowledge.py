"""Knowledge bases of a policy: what their files may say, and what is told of those that cannot be used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from kit.knowledge import load_with_knowledge
from pointsman_server.config import knowledge as module
from pointsman_server.config.policy_file import compile_policy, compile_record, load_policy
from pointsman_server.config.preflight import Status, run_preflight
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.settings import Address, Settings
from pointsman_server.domain.catalog import Deployment, Dialect, Provider
from pointsman_server.domain.knowledge import Knowledge, Passage, WhenUnknown
from pointsman_server.domain.request import DataClass

TODAY = date(2026, 11, 21)
ANY_PORT = Address("127.0.0.1", 0)
FAQ = '{"question": "Why?", "answer": "Because."}\n'


def policy_of(provider: Mapping[str, Any], deployment: Mapping[str, Any] | None = None) -> bytes:
    content = {
        "version": 1,
        "providers": {"house": {"dialect": "local_knowledge", **provider}},
        "deployments": {"kb": {"provider": "house", **(deployment or {})}},
    }
    return json.dumps(content).encode()


def knowledge_of(folder: Path, files: Mapping[str, str | bytes], **provider: Any) -> Knowledge:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = policy_of({"knowledge": [name for name in files if not name.startswith("_")], **provider})
    found = compile_policy(data, str(folder / "policy.yaml"), {}, TODAY).snapshot.providers["house"].knowledge
    assert found is not None
    return found


def problems(folder: Path, files: Mapping[str, str | bytes], **provider: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        knowledge_of(folder, files, **provider)
    return str(caught.value)


class TestFiles:
    def test_markdown(self, tmp_path: Path) -> None:
        (passage,) = knowledge_of(tmp_path, {"a.md": "# Shop\n\n## Hours\n\nWe open at nine."}).passages
        assert passage == Passage("a.md:3", "Shop - Hours", "We open at nine.", ("Hours",))

    def test_json_lines(self, tmp_path: Path) -> None:
        lines = [
            {"id": 7, "question": ["Why?", "For what reason?", ""], "answer": " Because. "},
            {"title": "Hours", "text": "Nine to five."},
            {"id": " ", "question": "How?", "answer": "Like this."},
        ]
        text = "\ufeff" + "\n\n".join(map(json.dumps, lines))
        assert knowledge_of(tmp_path, {"a.jsonl": text}).passages == (
            Passage("7", "Why?", "Because.", ("For what reason?",)),
            Passage("a.jsonl:3", "Hours", "Nine to five."),
            Passage("a.jsonl:5", "How?", "Like this."),
        )

    def test_csv(self, tmp_path: Path) -> None:
        text = 'Answer, QUESTION ,id\r\n"Because,\nof that.",Why?,q1\r\n,,\r\nLike this.,How?,\r\n'
        assert knowledge_of(tmp_path, {"a.csv": text}).passages == (
            Passage("q1", "Why?", "Because,\nof that."),
            Passage("a.csv:5", "How?", "Like this."),
        )

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("a.txt", "text", "of a kind that is not read: 'a.txt'. Use .md, .jsonl or .csv"),
            ("a.md", b"\xff\xfe", "not UTF-8 text: 'a.md'"),
            ("a.md", "# Only a heading", "without anything to answer from: 'a.md'"),
            ("a.jsonl", "\n \n", "without anything to answer from: 'a.jsonl'"),
            ("a.jsonl", FAQ + "{", "line 2 is no JSON: 'a.jsonl'"),
            ("a.jsonl", "[" * 100_000, "line 1 is no JSON"),
            ("a.jsonl", "[]", "line 1 is no object"),
            ("a.jsonl", '{"question": "Why?"}', "line 1 lacks a question with its answer"),
            ("a.jsonl", '{"question": "Why?", "answer": 7}', "line 1 lacks"),
            ("a.jsonl", '{"question": [], "answer": "x"}', "line 1 lacks"),
            ("a.csv", "one,two\n1,2\n", "line 1 names no columns"),
            ("a.csv", "", "line 1 names no columns"),
            ("a.csv", "question,answer\nWhy?,\n", "line 2 lacks"),
            ("a.csv", 'question,answer\n"Why?" x,y\n', "line 2 is no CSV"),
        ],
    )
    def test_what_cannot_be_read_is_told(self, tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
        said = problems(tmp_path, {name: content})
        assert told in said
        assert "providers.house.knowledge[0]" in said

    def test_what_is_not_there_is_told_all_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "folder.md").mkdir()
        said = problems(tmp_path, {}, knowledge=["gone.md", "folder.md", "b\0d.md"])
        assert "does not exist: 'gone.md'. Give its path from the policy's folder" in said
        assert "no regular file: 'folder.md'" in said
        assert "cannot be read (ValueError)" in said or "is not" in said
        assert str(tmp_path) not in said.replace(str(tmp_path / "policy.yaml"), "")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_permissions(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(FAQ)
        (tmp_path / "a.jsonl").chmod(0)
        assert "Permission denied" in problems(tmp_path, {}, knowledge=["a.jsonl"])

    def test_there_is_a_limit_to_all_files_together(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_KNOWLEDGE_BYTES", 2 * len(FAQ))
        assert len(knowledge_of(tmp_path, {"a.jsonl": FAQ, "b.jsonl": FAQ}).passages) == 2
        assert "too long: 'c.jsonl'" in problems(tmp_path, {"a.jsonl": FAQ, "b.jsonl": FAQ, "c.jsonl": FAQ})
        monkeypatch.setattr(module, "MAX_PASSAGES", 1)
        assert "has 2 passages" in problems(tmp_path, {"a.jsonl": FAQ, "b.jsonl": FAQ})

    def test_the_version_follows_their_content_and_not_their_folder(self, tmp_path: Path) -> None:
        versions = []
        for name, text in (("one", FAQ), ("two", FAQ), ("three", FAQ.replace("Because", "Thus"))):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "a.jsonl").write_text(text)
            loaded = compile_policy(policy_of({"knowledge": ["a.jsonl"]}), str(folder / "p.yaml"), {}, TODAY)
            versions.append(loaded.snapshot.version)
        assert versions[0] == versions[1] != versions[2]

    def test_a_decision_is_made_again_without_them(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(FAQ)
        loaded = compile_policy(policy_of({"knowledge": ["a.jsonl"]}), str(tmp_path / "p.yaml"), {}, TODAY)
        (tmp_path / "a.jsonl").unlink()
        again = compile_record(loaded.record)
        assert again.version == loaded.snapshot.version
        assert again.deployments["kb"].is_last_resort


class TestKeys:
    def test_defaults(self, tmp_path: Path) -> None:
        found = knowledge_of(tmp_path, {"a.jsonl": FAQ})
        assert (found.least_match, found.when_unknown, found.synonyms) == (0.33, WhenUnknown.REFUSE, ())
        assert found.files == (str(tmp_path / "a.jsonl"),)

    def test_all(self, tmp_path: Path) -> None:
        synonyms = {"refund": ["money back", "reimbursement"], "car": ["auto"]}
        found = knowledge_of(tmp_path, {"a.jsonl": FAQ}, synonyms=synonyms, least_match=0.5, when_unknown="answer")
        assert (found.least_match, found.when_unknown) == (0.5, WhenUnknown.ANSWER)
        assert found.synonyms == (("car", "auto"), ("refund", "money back", "reimbursement"))
        kept = knowledge_of(tmp_path, {"a.jsonl": FAQ, "_s.json": json.dumps(synonyms)}, synonyms="_s.json")
        assert kept.synonyms == found.synonyms

    @pytest.mark.parametrize("content", ["", "[]", '{"a": "b"}', '{"a": [1]}', "[" * 100_000])
    def test_a_file_of_synonyms_is_a_mapping_of_lists(self, tmp_path: Path, content: str) -> None:
        said = problems(tmp_path, {"a.jsonl": FAQ, "_s.json": content}, synonyms="_s.json")
        assert "holds no synonyms: '_s.json'" in said

    def test_too_many_synonyms(self, tmp_path: Path) -> None:
        content = json.dumps({f"w{n}": ["x"] for n in range(2_001)})
        assert "has 2001 words" in problems(tmp_path, {"a.jsonl": FAQ, "_s.json": content}, synonyms="_s.json")

    def test_files_are_required(self) -> None:
        with pytest.raises(PolicyError, match=r"providers\.house\.knowledge is missing"):
            compile_policy(policy_of({}), "policy.yaml", {}, TODAY)

    def test_keys_of_other_providers_mean_nothing_here(self, tmp_path: Path) -> None:
        said = problems(tmp_path, {"a.jsonl": FAQ}, base_url="https://example.com", api_key="${KEY}", simulated=True)
        assert said.count("means nothing here: a knowledge base answers from this process") == 3

    def test_and_its_keys_mean_nothing_there(self, good_policy: str) -> None:
        text = good_policy.replace('"http://127.0.0.1:8089/v1"', '"http://127.0.0.1:8089/v1", least_match: 0.5')
        with pytest.raises(PolicyError, match="least_match is for providers of dialect local_knowledge only"):
            compile_policy(text.encode(), "policy.yaml", {}, TODAY)

    def test_its_deployment_needs_nothing_but_its_provider(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(FAQ)
        data = policy_of({"knowledge": ["a.jsonl"]}, {"model": "m", "regions": ["eu"], "max_concurrent_calls": 3})
        with pytest.raises(PolicyError) as caught:
            compile_policy(data, str(tmp_path / "p.yaml"), {}, TODAY)
        assert str(caught.value).count("a knowledge base answers without a model") == 2
        one: Deployment = load_with_knowledge().snapshot.deployments["kb"]
        assert one.approved_data_class is DataClass.RESTRICTED
        assert one.model.price.tokens_cost_micro_usd(1_000_000, 1_000_000) == 0
        assert one.model.quality < 0.1

    def test_models_are_needed_where_one_is_asked(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(FAQ)
        content = json.loads(policy_of({"knowledge": ["a.jsonl"]}))
        content["providers"]["other"] = {"dialect": "openai_chat", "base_url": "http://127.0.0.1:1/v1"}
        with pytest.raises(PolicyError, match="models is missing"):
            compile_policy(json.dumps(content).encode(), str(tmp_path / "p.yaml"), {}, TODAY)

    def test_keeping_nobody_through_a_kill_switch_is_told(self, good_policy: str) -> None:
        loaded = compile_policy(f"{good_policy}kill_switch_keeps_local: true\n".encode(), "p.yaml", {}, TODAY)
        assert "no deployment answers from a knowledge base" in str(loaded.warnings[-1])
        assert not load_with_knowledge({"kill_switch_keeps_local": True}).warnings


def test_who_answers_without_a_model_says_so() -> None:
    provider = Provider("house", Dialect.LOCAL_KNOWLEDGE, "")
    assert provider.label == "local"
    assert hash(replace(provider, knowledge=module.NOT_READ)) != hash(provider)


def test_models_are_weighed_as_without_it(good_policy: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(FAQ)
    more = good_policy.replace("models:\n", "  house: {dialect: local_knowledge, knowledge: [a.jsonl]}\nmodels:\n", 1)
    more = more.replace("deployments:\n", "deployments:\n  kb: {provider: house}\n")
    without = compile_policy(good_policy.encode(), "p.yaml", {}, TODAY).snapshot
    with_it = compile_policy(more.encode(), str(tmp_path / "p.yaml"), {}, TODAY).snapshot
    assert with_it.cost_weights == without.cost_weights
    assert with_it.strongest == without.strongest


class TestPreflight:
    def report(self, folder: Path, data: bytes) -> dict[str, tuple[Status, str]]:
        (folder / "policy.yaml").write_bytes(data)
        settings = Settings(ANY_PORT, ANY_PORT, policy_file=str(folder / "policy.yaml"))
        report = run_preflight(settings, {}, check_endpoints=True, today=TODAY)
        return {check.id: (check.status, check.message) for check in report.checks}

    def test_it_tells_what_there_is_to_answer_from(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(FAQ * 3)
        checks = self.report(tmp_path, policy_of({"knowledge": ["a.jsonl"]}))
        assert checks["provider.house.key"] == (
            Status.OK,
            "house needs no key: it answers from 3 passages of 1 files",
        )
        assert checks["tier.light"][0] is Status.WARN
        assert "from a knowledge base alone" in checks["tier.light"][1]
        assert checks["price.no-model"][0] is Status.OK
        assert "provider.house.endpoint" not in checks

    def test_a_missing_file_is_a_failure_with_its_name(self, tmp_path: Path) -> None:
        status, message = self.report(tmp_path, policy_of({"knowledge": ["faq.md"]}))["policy"]
        assert status is Status.FAIL
        assert "names a file that does not exist: 'faq.md'" in message


def test_the_delivered_policy_compiles() -> None:
    loaded = load_policy(Path(__file__).parents[3] / "deploy" / "knowledge" / "policy.yaml", {}, TODAY)
    assert loaded.warnings == ()
    assert loaded.snapshot.deployments["knowledge"].is_last_resort
