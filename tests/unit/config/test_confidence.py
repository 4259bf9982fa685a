from __future__ import annotations

from collections.abc import Callable

import pytest

from kit.knowledge import load_with_knowledge
from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.confidence_policy import ConfidencePolicy

Compile = Callable[..., LoadedPolicy]
MODEL = """
version: 1
providers:
  house: {dialect: openai_chat, base_url: "http://127.0.0.1:8000/v1"}
models:
  m:
    tier: standard
    context_window_tokens: 8000
    max_output_tokens: 1000
    capabilities: [streaming]
    quality: 0.5
    price: [{input_usd_per_mtok: "0", output_usd_per_mtok: "0"}]
deployments:
  small: {provider: house, model: m, model_name: m-1}
aliases: {cheap: small}
"""


def compiled(compile_text: Compile, section: str) -> ConfidencePolicy:
    return compile_text(MODEL + f"confidence: {section}\n").snapshot.confidence


def problems(compile_text: Compile, section: str, base: str = MODEL) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        compile_text(base + f"confidence: {section}\n")
    return [f"{one.path_in_file} {one.message}" for one in caught.value.problems]


def test_without_the_section_nothing_is_done(compile_text: Compile) -> None:
    policy = compile_text(MODEL).snapshot.confidence
    assert policy == ConfidencePolicy()
    assert not policy.cross_checks({"importance": "high"})


def test_everything(compile_text: Compile) -> None:
    policy = compiled(
        compile_text,
        "{escalate_below: 0.4, cross_check_with: cheap, cross_check_labels: {importance: high, app: bank}}",
    )
    assert policy.escalate_below == 0.4
    assert policy.cross_check_with == "small", "aliases are followed"
    assert policy.cross_checks({"importance": "high"})
    assert policy.cross_checks({"app": "bank", "importance": "low"})
    assert not policy.cross_checks({"app": "shop"})
    assert not policy.cross_checks({})


def test_without_labels_every_call_is_compared(compile_text: Compile) -> None:
    assert compiled(compile_text, "{cross_check_with: small}").cross_checks({})


@pytest.mark.parametrize("value", ["-0.1", "1.1", "often", "[]"])
def test_thresholds_that_are_none(compile_text: Compile, value: str) -> None:
    (problem,) = problems(compile_text, f"{{escalate_below: {value}}}")
    assert problem.startswith("confidence.escalate_below ")


def test_who_does_not_exist(compile_text: Compile) -> None:
    (problem,) = problems(compile_text, "{cross_check_with: smal}")
    assert "refers to 'smal', but there is no such deployment or alias" in problem


def test_who_only_makes_vectors(compile_text: Compile) -> None:
    vectors = MODEL.replace(
        "deployments:\n",
        '  v: {kind: embedding, dimensions: 8, context_window_tokens: 100, price: [{input_usd_per_mtok: "0"}]}\n'
        "deployments:\n  v1: {provider: house, model: v, model_name: v-1}\n",
    )
    found = problems(compile_text, "{cross_check_with: v1}", vectors)
    assert found == ["confidence.cross_check_with refers to v1, which only makes vectors"]


def test_who_answers_without_a_model() -> None:
    with pytest.raises(PolicyError, match="refers to kb, which answers without a model"):
        load_with_knowledge({"confidence": {"cross_check_with": "kb"}})


def test_unknown_keys(compile_text: Compile) -> None:
    (problem,) = problems(compile_text, "{escalate_above: 0.4}")
    assert "is not a known key" in problem


def test_labels_alone_are_a_mistake(compile_text: Compile) -> None:
    (warning,) = compile_text(MODEL + "confidence: {cross_check_labels: {a: b}}\n").warnings
    assert warning.path_in_file == "confidence.cross_check_labels"


def test_it_is_part_of_the_version(compile_text: Compile) -> None:
    versions = {
        compile_text(MODEL + section).snapshot.version
        for section in ("", "confidence: {escalate_below: 0.4}\n", "confidence: {escalate_below: 0.5}\n")
    }
    assert len(versions) == 3
