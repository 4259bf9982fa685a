from __future__ import annotations

from collections.abc import Callable

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.tokenizer import Tokenizer

Compile = Callable[..., LoadedPolicy]
KEYS = {"ANTHROPIC_API_KEY": "sk-ant-key-1"}


def with_tokenizer(policy: str, word: str) -> str:
    return policy.replace("small: {tier: light,", f"small: {{tier: light, tokenizer: {word},")


@pytest.mark.parametrize("tokenizer", Tokenizer)
def test_a_model_may_say_how_it_counts(compile_text: Compile, good_policy: str, tokenizer: Tokenizer) -> None:
    policy = compile_text(with_tokenizer(good_policy, tokenizer.value), KEYS).snapshot
    assert policy.deployments["small-local"].model.tokenizer is tokenizer


def test_it_is_left_to_the_dialect_otherwise(compile_text: Compile, good_policy: str) -> None:
    assert compile_text(good_policy, KEYS).snapshot.deployments["small-local"].model.tokenizer is None


def test_an_unknown_tokenizer_is_named_with_the_nearest(compile_text: Compile, good_policy: str) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text(with_tokenizer(good_policy, "claud"), KEYS)
    assert "models.small.tokenizer is not a known word: 'claud'" in str(caught.value)
    assert "'claude'" in str(caught.value)
