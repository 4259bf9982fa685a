"""One small file per mistake, in `bad/`: each is refused, at the right line, with the field and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError

Compile = Callable[..., LoadedPolicy]
BAD = Path(__file__).parent / "bad"

# file: what must be found, as (line, path in the file, words of the message)
EXPECTED: dict[str, list[tuple[int, str, str]]] = {
    "empty": [(0, "", "is empty")],
    "only_comments": [(0, "", "is empty")],
    "only_null": [(0, "", "is empty")],
    "byte_order_mark": [(1, "", "byte order mark")],
    "not_utf8": [(9, "", "not UTF-8")],
    "utf16": [(1, "", "not UTF-8")],
    "control_character": [(9, "", "control character")],
    "tab": [(8, "", "tab")],
    "half_written": [(6, "", "not valid YAML")],
    "several_documents": [(9, "", "several documents")],
    "a_list": [(1, "", "is not a mapping")],
    "directive": [(1, "", "directive")],
    "not_yaml": [(1, "", "not valid YAML")],
    "duplicate_key": [(8, "deployments.one.model", "given twice")],
    "duplicate_section": [(9, "version", "given twice")],
    "duplicate_deployment": [(9, "deployments.one", "was already on line 8")],
    "alias": [(5, "models.small", "has an anchor"), (8, "deployments.one.model", "is an alias")],
    "billion_laughs": [
        (1, "a", "has an anchor"),
        (2, "b", "has an anchor"),
        (2, "b[0]", "is an alias"),
        (3, "c[2]", "is an alias"),
    ],
    "python_tag": [(8, "deployments.one.model_name", "has a tag")],
    "own_tag": [(8, "deployments.one.model_name", "has a tag")],
    "merge_key": [(8, "deployments.one.?", "not a known key")],
    "key_is_a_list": [(8, "deployments.one", "key that is not a text")],
    "too_deep": [(9, "", "nested deeper")],
    "unknown_key": [(8, "deployments.one.max_retires", "not a known key: 'max_retires'")],
    "misspelt_key": [
        (5, "models.small.context_windw_tokens", "not a known key"),
        (5, "models.small.context_window_tokens", "is missing"),
    ],
    "unknown_section": [(9, "deployment", "not a known key")],
    "missing_version": [(1, "version", "is missing")],
    "future_version": [(1, "version", "not a known word")],
    "missing_sections": [(1, "providers", "is missing"), (1, "models", "is missing"), (1, "deployments", "is missing")],
    "empty_sections": [(2, "providers", "is empty"), (3, "models", "is empty"), (4, "deployments", "is empty")],
    "no_value": [(8, "deployments.one.model_name", "has no value")],
    "bad_id": [(8, "deployments.?", "is not an id")],
    "id_look_alike": [(8, "deployments.?", "is not an id")],
    "id_is_path": [(8, "deployments.?", "is not an id")],
    "list_for_value": [(8, "deployments.one.model_name", "is a list")],
    "value_for_list": [(5, "models.small.capabilities", "is not a list")],
    "value_for_mapping": [(8, "deployments.one.timeouts", "is not a mapping")],
    "trap_no": [(3, "providers.local.simulated", "neither true nor false: 'no'")],
    "trap_on_key": [(8, "deployments.one.on", "not a known key: 'on'")],
    "trap_octal": [(5, "models.small.max_output_tokens", "not a whole number: '0100'")],
    "trap_sexagesimal": [(8, "deployments.one.timeouts.total_seconds", "not a plain decimal number")],
    "trap_exponent": [(5, "models.small.max_output_tokens", "not a whole number: '1e3'")],
    "trap_date": [(5, "models.small.quality", "not a plain decimal number")],
    "trap_nan": [(5, "models.small.quality", "not a plain decimal number: '.nan'")],
    "trap_infinity": [(8, "deployments.one.timeouts.idle_seconds", "not a plain decimal number: '.inf'")],
    "trap_underscore": [(5, "models.small.context_window_tokens", "not a whole number")],
    "trap_option": [
        (8, "deployments.one.options.store", "read in several ways: 'off'"),
        (8, "deployments.one.options.seed", "'012'"),
        (8, "deployments.one.options.at", "'12:30'"),
        (8, "deployments.one.options.to", "'1e3'"),
    ],
    "unknown_dialect": [(3, "providers.local.dialect", "not a known word: 'openai_chats'")],
    "literal_key": [(3, "providers.local.api_key", "not a reference")],
    "literal_short_key": [(3, "providers.local.api_key", "not a reference")],
    "half_reference": [(3, "providers.local.api_key", "not a reference")],
    "relative_key_file": [(3, "providers.local.api_key", "not a reference")],
    "key_reference_in_text": [(3, "providers.local.api_key", "not a reference")],
    "plain_http": [(3, "providers.local.base_url", "not encrypted")],
    "url_with_user": [(3, "providers.local.base_url", "has a user name")],
    "url_with_query": [(3, "providers.local.base_url", "has a query")],
    "url_with_fragment": [(3, "providers.local.base_url", "has a fragment")],
    "url_metadata": [(3, "providers.local.base_url", "address that no provider has")],
    "url_private": [(3, "providers.local.base_url", "private network")],
    "price_missing": [(5, "models.small.price", "is missing")],
    "price_empty": [(6, "models.small.price", "no entry that is valid")],
    "price_without_output": [(6, "models.small.price[0].output_usd_per_mtok", "is missing")],
    "price_not_a_list": [(6, "models.small.price", "neither a reference nor a list")],
    "price_negative": [(6, "models.small.price[0].input_usd_per_mtok", "is -1")],
    "price_nan": [(6, "models.small.price[0].input_usd_per_mtok", "not a plain decimal number")],
    "price_too_fine": [(6, "models.small.price[0].input_usd_per_mtok", "six decimal places")],
    "price_in_future": [(6, "models.small.price", "no entry that is valid on 2026-11-21")],
    "price_same_day": [(6, "models.small.price[1]", "same day")],
    "price_bad_date": [(6, "models.small.price[0].valid_from", "not a date: '2026-02-30'")],
    "price_steps_fall": [(6, "models.small.price[0].above[1]", "does not rise")],
    "price_ref_unknown_model": [(6, "models.small.price.ref", "no listed model: 'anthropic/claude-sonet-4-5'")],
    "price_ref_unknown_provider": [(6, "models.small.price.ref", "no listed provider")],
    "price_ref_near_miss": [(6, "models.small.price.ref", "no listed model")],
    "price_ref_time_of_day": [(6, "models.small.price.ref", "time of day")],
    "price_ref_images": [(6, "models.small.price.ref", "bills what is not counted")],
    "price_ref_no_output": [(6, "models.small.price.ref", "no price for output")],
    "price_entries_not_mappings": [
        (6, "models.small.price[0]", "is not a mapping"),
        (6, "models.small.price[1]", "is not a mapping"),
    ],
    "price_step_without_start": [(6, "models.small.price[0].above[0].input_tokens", "is missing")],
    "price_over_a_million": [(6, "models.small.price[0].input_usd_per_mtok", "is 1000001")],
    "bad_region": [(8, "deployments.one.regions[0]", "is not an id")],
    "long_unknown_word": [(5, "models.small.tier", "a text of 100 characters (not shown)")],
    "window_zero": [(5, "models.small.context_window_tokens", "is 0")],
    "output_over_window": [(5, "models.small.max_output_tokens", "more than the context window")],
    "quality_over_one": [(5, "models.small.quality", "is 1.5")],
    "unknown_capability": [(5, "models.small.capabilities[1]", "not a known word: 'tool'")],
    "capability_twice": [(5, "models.small.capabilities[1]", "listed twice")],
    "unknown_tier": [(5, "models.small.tier", "not a known word: 'medium'")],
    "unknown_provider": [(8, "deployments.one.provider", "refers to 'locl'")],
    "unknown_model": [(8, "deployments.one.model", "refers to 'smal'")],
    "timeout_negative": [(8, "deployments.one.timeouts.connect_seconds", "is -1")],
    "timeout_zero": [(8, "deployments.one.timeouts.total_seconds", "is 0")],
    "timeout_unit": [(8, "deployments.one.timeouts.total_seconds", "not a plain decimal number: '30s'")],
    "unknown_data_class": [(8, "deployments.one.data_class", "not a known word: 'secret'")],
    "option_model": [(8, "deployments.one.options.model", "cannot be set as an option")],
    "option_base_url": [(8, "deployments.one.options.base_url", "cannot be set as an option")],
    "option_with_key": [(8, "deployments.one.options.token", "looks like a key")],
    "reasoning_over_output": [(8, "deployments.one.reasoning_token_budgets.high", "is 1000")],
    "unknown_effort": [(8, "deployments.one.reasoning_token_budgets.huge", "not a known key")],
    "model_name_blank": [(8, "deployments.one.model_name", "is not a name")],
    "alias_loop": [(9, "aliases.a", "a → b → c → a")],
    "alias_to_itself": [(9, "aliases.a", "a → a")],
    "alias_dangling": [(9, "aliases.smart", "refers to 'on'")],
    "alias_shadows_deployment": [(9, "aliases.one", "name of a deployment"), (9, "aliases.one", "circle")],
    "alias_bad_id": [(9, "aliases.Smart", "is not an id")],
    "chain_dangling": [(9, "tiers.light.chain[1]", "refers to 'two'")],
    "chain_repeats": [(10, "tiers.light.chain[1]", "listed twice")],
    "chain_empty": [(9, "tiers.light.chain", "has 0 deployments")],
    "chain_too_long": [(9, "tiers.light.chain", "has 11 deployments")],
    "chain_missing": [(9, "tiers.light.chain", "is missing")],
    "unknown_tier_chain": [(9, "tiers.medium", "not a known key")],
    "bias_over_one": [(9, "routing.quality_bias", "is 2")],
    "default_output_zero": [(9, "routing.default_max_output_tokens", "is 0")],
    "many_at_once": [
        (3, "providers.local.dialect", ""),
        (3, "providers.local.base_url", "not an https address"),
        (3, "providers.local.api_key", "not a reference"),
        (3, "providers.local.retries", "not a known key"),
        (5, "models.small.tier", ""),
        (5, "models.small.context_window_tokens", ""),
        (5, "models.small.max_output_tokens", ""),
        (5, "models.small.capabilities[0]", ""),
        (5, "models.small.quality", ""),
        (5, "models.small.price", "is missing"),
        (7, "deployments.one.provider", "'remote'"),
        (7, "deployments.one.model", "'large'"),
        (7, "deployments.one.model_name", "is missing"),
        (7, "deployments.one.timeouts.total_seconds", ""),
        (8, "aliases.a", "refers to 'b'"),
    ],
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_mistake_is_told_with_line_field_and_remedy(name: str, compile_text: Compile) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text((BAD / f"{name}.yaml").read_bytes())
    found = [(problem.line, problem.path_in_file, problem.message) for problem in caught.value.problems]
    for line, path, words in EXPECTED[name]:
        assert any((at, where) == (line, path) and words in message for at, where, message in found), (words, found)
    assert all(problem.remedy.strip() for problem in caught.value.problems)


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"billion_laughs"}))
def test_nothing_else_is_blamed(name: str, compile_text: Compile) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text((BAD / f"{name}.yaml").read_bytes())
    assert len(caught.value.problems) == len(EXPECTED[name]), str(caught.value)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_planted_values_are_not_told(name: str, compile_text: Compile) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text((BAD / f"{name}.yaml").read_bytes())
    told = f"{caught.value} {caught.value!r} {caught.value.args} {caught.value.problems}"
    assert "PLANTED" not in told
    assert "planted" not in told


def test_every_bad_file_is_in_the_table() -> None:
    assert {path.stem for path in BAD.iterdir()} == set(EXPECTED)


def test_error_lists_every_problem_with_file_and_line(compile_text: Compile) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text((BAD / "many_at_once.yaml").read_bytes())
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    assert lines[0].startswith("policy.yaml:3: providers.local.")
    assert "policy.yaml:5: models.small.price is missing. Add for example `price: {ref:" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("misspelt_key", "Did you mean 'context_window_tokens'?"),
        ("unknown_section", "Did you mean 'deployments'?"),
        ("unknown_provider", "Did you mean 'local'?"),
        ("unknown_dialect", "Did you mean 'openai_chat'?"),
        ("unknown_tier", "Known: light, standard, advanced."),
        ("price_ref_unknown_model", "Did you mean 'anthropic/claude-sonnet-4-5'?"),
        ("price_ref_unknown_provider", "Did you mean 'anthropic'?"),
        ("alias_dangling", "Did you mean 'one'?"),
    ],
)
def test_nearest_known_name_is_suggested(name: str, suggestion: str, compile_text: Compile) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text((BAD / f"{name}.yaml").read_bytes())
    assert any(suggestion in problem.remedy for problem in caught.value.problems), str(caught.value)
