"""A change of a knowledge base's file is a change of its policy, once it has settled."""

from __future__ import annotations

import json
from pathlib import Path

from kit.knowledge import load_with_knowledge
from pointsman_server.bootstrap.policy_workshop import FileOnDisk, knowledge_files
from pointsman_server.config.policy_file import load_policy

SETTLE_SECONDS = 0.2
POLICY = {
    "version": 1,
    "providers": {"house": {"dialect": "local_knowledge", "knowledge": ["faq.jsonl"]}},
    "deployments": {"kb": {"provider": "house"}},
}


def faq(answer: str) -> str:
    return json.dumps({"question": "Why?", "answer": answer})


async def test_a_changed_file_gives_the_policys_text_again(tmp_path: Path) -> None:
    policy, base = tmp_path / "policy.yaml", tmp_path / "faq.jsonl"
    policy.write_text(json.dumps(POLICY))
    base.write_text(faq("Because."))
    loaded = load_policy(policy, {})
    text = loaded.text

    def beside(known: str) -> tuple[str, ...]:
        return knowledge_files(loaded.snapshot) if known == text else ()

    file = FileOnDisk(str(policy), text, chosen=True, beside=beside, settle_seconds=SETTLE_SECONDS)
    assert [await file.look(now) for now in (0.0, 1.0)] == [None, None]
    base.write_text(faq("For another reason."))
    assert await file.look(2.0) is None, "it may not be whole yet"
    assert await file.look(2.1) is None
    assert await file.look(2.3) == text
    assert await file.look(9.0) is None, "once for each change"
    assert load_policy(policy, {}).snapshot.version != loaded.snapshot.version
    base.unlink()
    assert [await file.look(now) for now in (10.0, 11.0, 12.0)] == [None, text, None]
    base.write_text(faq("Because."))
    assert [await file.look(now) for now in (13.0, 14.0)] == [None, text]
    policy.write_text(text + "\n")
    assert [await file.look(now) for now in (20.0, 21.0)] == [None, text + "\n"]
    base.write_text(faq("In vain."))
    assert [await file.look(now) for now in (30.0, 31.0)] == [None, None], "a policy that is not in force"


def test_the_files_are_those_of_all_knowledge_bases() -> None:
    files = knowledge_files(load_with_knowledge().snapshot)
    assert [Path(one).name for one in files] == ["faq.jsonl", "handbook.md", "shops.csv"]
