from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import circumstances, deployment, price, snapshot
from pointsman_server.decision.engine import decide
from pointsman_server.domain.call import FailoverMode
from pointsman_server.domain.control import Control
from pointsman_server.domain.errors import InvalidRequest, RouteOnly
from pointsman_server.execution.flags import (
    FLAGS,
    HEDGING,
    MAX_OUTPUT_TOKENS_CAP,
    QUALITY_BIAS_OVERRIDE,
    STREAM_FAILOVER_DEFAULT,
    failover_of,
    require_answering,
    require_flag,
    require_value,
    with_flags,
)

TAKEN: dict[str, list[Any]] = {
    "hedging": [True, False],
    "max_output_tokens_cap": [1, 500, 10_000_000],
    "quality_bias_override": [0, 1, 0.25],
    "record_decisions": [True, False],
    "route_only": [True, False],
    "stream_failover_default": ["terminate", "restart", "continue"],
}
NOT_TAKEN: dict[str, list[Any]] = {
    "hedging": ["on", 1, 0, [], {}],
    "max_output_tokens_cap": [0, -1, 1.5, True, "100", 10_000_001],
    "quality_bias_override": [-0.1, 1.1, True, "0.5", float("nan")],
    "record_decisions": ["true", 1],
    "route_only": ["false", 0],
    "stream_failover_default": ["CONTINUE", "", True, 1, ["restart"]],
}


PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")


def under(**flags: Any) -> Control:
    """Flags for all tenants."""
    return Control(flags={(name, ""): value for name, value in flags.items()})


class TestList:
    def test_every_flag_is_here_by_its_name_with_words_for_operators(self) -> None:
        assert list(FLAGS) == sorted(TAKEN)
        for name, flag in FLAGS.items():
            assert flag.name == name
            assert flag.description.endswith(".")

    @pytest.mark.parametrize("name", FLAGS)
    def test_the_usual_value_can_be_said_in_json_and_is_taken(self, name: str) -> None:
        flag = FLAGS[name]
        said = json.loads(json.dumps(flag.to_json(flag.usual)))
        require_value(flag, said)
        assert flag.of(under(**{name: said}), "acme") == flag.usual

    @pytest.mark.parametrize(("name", "value"), [(name, value) for name in TAKEN for value in TAKEN[name]])
    def test_what_it_takes(self, name: str, value: Any) -> None:
        require_value(require_flag(name), value)

    @pytest.mark.parametrize(("name", "value"), [(name, value) for name in NOT_TAKEN for value in NOT_TAKEN[name]])
    def test_what_it_does_not_take(self, name: str, value: Any) -> None:
        with pytest.raises(InvalidRequest, match=f"value_json: {name} takes ") as caught:
            require_value(require_flag(name), value)
        assert caught.value.problems[0].description.endswith("or null to clear what was set")

    def test_another_name(self) -> None:
        with pytest.raises(InvalidRequest, match="name: there is no such flag; there are hedging, max_output"):
            require_flag("hegding")

    def test_the_page_for_operators_has_every_flag(self) -> None:
        rows = re.findall(r"^\| `(\w+)` \| .* \| (`\w+`|not set) \| ", PAGE, re.MULTILINE)
        usual = {name: flag.to_json(flag.usual) for name, flag in FLAGS.items()}
        words = {None: "not set", True: "`true`", False: "`false`"}
        assert dict(rows) == {name: words.get(value, f"`{value}`") for name, value in usual.items()}


class TestValue:
    def test_nobody_set_it(self) -> None:
        assert HEDGING.of(Control(), "acme") is True
        assert HEDGING.of(under(route_only=True), "acme") is True

    def test_set_for_all(self) -> None:
        assert HEDGING.of(under(hedging=False), "acme") is False

    def test_a_tenants_own_goes_before(self) -> None:
        control = Control(flags={("hedging", ""): False, ("hedging", "acme"): True})
        assert HEDGING.of(control, "acme") is True
        assert HEDGING.of(control, "other") is False

    def test_what_is_set_for_a_tenant_is_nobody_elses(self) -> None:
        control = Control(flags={("hedging", "acme"): False})
        assert [HEDGING.of(control, tenant) for tenant in ("acme", "acm", "")] == [False, True, True]

    @given(
        st.sampled_from(sorted(FLAGS)), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)
    )
    def test_a_value_that_means_nothing_here_changes_nothing(self, name: str, value: Any) -> None:
        flag = FLAGS[name]
        found = flag.of(under(**{name: value}), "acme")
        assert found == (flag.usual if flag.read(value) is None else flag.read(value))


class TestEffects:
    def test_route_only(self) -> None:
        control = Control(flags={("route_only", "acme"): True})
        with pytest.raises(RouteOnly, match="call Route"):
            require_answering(control, "acme")
        require_answering(control, "other")
        require_answering(Control(), "acme")

    def test_what_the_request_says_of_its_failover_goes_before_the_flag(self) -> None:
        control = under(stream_failover_default="continue")
        assert failover_of(None, control, "acme") is FailoverMode.CONTINUE
        assert failover_of(FailoverMode.TERMINATE, control, "acme") is FailoverMode.TERMINATE
        assert failover_of(None, Control(), "acme") is STREAM_FAILOVER_DEFAULT.usual is FailoverMode.TERMINATE

    def test_without_flags_the_facts_stay_what_they_are(self) -> None:
        facts = circumstances().facts
        assert with_flags(facts, snapshot(), Control(), "acme") is facts
        assert with_flags(facts, snapshot(), under(hedging=False), "acme") is facts

    def test_the_dial_goes_before_what_the_request_says(self) -> None:
        best = deployment("best", of={"quality": 0.9, "price": price(50_000_000, 50_000_000)})
        cheap = deployment("cheap", of={"quality": 0.4, "price": price(1_000, 1_000)})
        policy = snapshot(best, cheap)
        asked = circumstances(quality_bias=0.0)
        assert decide(asked, policy).candidates[0].deployment.id == "cheap"
        control = Control(flags={(QUALITY_BIAS_OVERRIDE.name, "acme"): 1})
        facts = with_flags(asked.facts, policy, control, "acme")
        plan = decide(circumstances(quality_bias=facts.quality_bias), policy)
        assert (plan.candidates[0].deployment.id, plan.quality_bias) == ("best", 1.0)
        assert with_flags(asked.facts, policy, control, "other").quality_bias == 0.0

    @pytest.mark.parametrize(
        ("asked", "cap", "left"), [(None, 100, 100), (50, 100, 50), (500, 100, 100), (None, 9_999, 4_096)]
    )
    def test_the_cap_lowers_and_never_raises(self, asked: int | None, cap: int, left: int) -> None:
        policy = snapshot(deployment("one", of={"max_output_tokens": 50_000}), default_max_output_tokens=4_096)
        facts = circumstances(max_output_tokens=asked).facts
        facts = with_flags(facts, policy, under(**{MAX_OUTPUT_TOKENS_CAP.name: cap}), "acme")
        plan = decide(circumstances(max_output_tokens=facts.max_output_tokens), policy)
        assert plan.candidates[0].max_output_tokens == left
