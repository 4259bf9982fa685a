"""The policy's routing section: what it compiles to, and every mistake in it told where it stands."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from pointsman_server.config import routing
from pointsman_server.config.policy_file import LoadedPolicy, compile_record
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.routing import CONDITION_KEYS, MAX_RULES, ROUTING_KEYS, RULE_KEYS
from pointsman_server.decision.dial import LEAST_WEIGHT, MOST_WEIGHT, STEPS, Judged
from pointsman_server.domain.catalog import FreshFacts, RoutingRule, RuleCondition, Snapshot
from pointsman_server.domain.request import Capability, Tier

Compile = Callable[..., LoadedPolicy]
ROUTING = "routing: {quality_bias: 0.25, default_max_output_tokens: 512}\n"
WHOLE = """\
routing:
  quality_bias: 0.5
  fresh_facts: require_search
  first_token_weight: 0.125
  learn_from_feedback: false
  second_look: true
  rules:
    - name: research
      when:
        labels: {agent: [research, analyst], team: ["*"]}
        tasks: [code, mathematics]
        tiers: [standard, advanced]
        needs_fresh_facts: false
        least_input_tokens: 5000
      tier: advanced
      quality_bias: 0.9
      prefer: [best, small-local]
      only: [best, small-local]
      deny: [small-local]
      require: [web_search, tools]
    - {name: always, quality_bias: 0}
"""


@pytest.fixture
def routed(good_policy: str, compile_text: Compile) -> Callable[[str], Snapshot]:
    """The policy with this routing section."""
    return lambda section: compile_text(good_policy.replace(ROUTING, section)).snapshot


Routed = Callable[[str], Snapshot]


class TestRead:
    def test_everything_is_taken_over(self, routed: Routed) -> None:
        snapshot = routed(WHOLE)
        assert (snapshot.quality_bias, snapshot.first_token_weight) == (0.5, 0.125)
        assert (snapshot.fresh_facts, snapshot.learn_from_feedback) == (FreshFacts.REQUIRE_SEARCH, False)
        assert snapshot.second_look is True
        assert snapshot.rules == (
            RoutingRule(
                name="research",
                when=RuleCondition(
                    labels={"agent": frozenset({"research", "analyst"}), "team": frozenset({"*"})},
                    tasks=frozenset({"code", "mathematics"}),
                    tiers=frozenset({Tier.STANDARD, Tier.ADVANCED}),
                    needs_fresh_facts=False,
                    least_input_tokens=5_000,
                ),
                tier=Tier.ADVANCED,
                quality_bias=0.9,
                prefer=("claude-direct", "small-local"),
                only=frozenset({"claude-direct", "small-local"}),
                deny=frozenset({"small-local"}),
                require=frozenset({Capability.WEB_SEARCH, Capability.TOOLS}),
            ),
            RoutingRule("always", RuleCondition(), quality_bias=0.0),
        )

    def test_nothing_said_is_the_default(self, routed: Routed) -> None:
        bare = Snapshot("", "", {}, {}, {})
        for snapshot in (routed(""), routed("routing: {}\n")):
            for key in ROUTING_KEYS.keys() - {"calibration", "embedding"}:
                assert getattr(snapshot, key) == getattr(bare, key), key
            assert snapshot.embedding_model == bare.embedding_model == ""

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("analyst]", "analyst, other]"),
            ("advanced\n      quality", "standard\n      quality"),
            ("fresh_facts: require_search", "fresh_facts: ignore"),
            ("first_token_weight: 0.125", "first_token_weight: 0.25"),
            ("learn_from_feedback: false", "learn_from_feedback: true"),
            ("second_look: true", "second_look: false"),
            ("deny: [small-local]", "deny: [best]"),
            ("prefer: [best, small-local]", "prefer: [small-local, best]"),
            ("needs_fresh_facts: false", "needs_fresh_facts: true"),
        ],
    )
    def test_the_version_follows_it(self, routed: Routed, old: str, new: str) -> None:
        assert WHOLE.replace(old, new) != WHOLE
        assert routed(WHOLE.replace(old, new)).version != routed(WHOLE).version

    def test_examples_of_keys_are_right(self, routed: Routed) -> None:
        names = {"first-deployment": "small-local", "one-deployment": "small-local", "another": "best"}

        def right(example: str) -> str:
            for old, new in names.items():
                example = example.replace(old, new)
            return example

        # One of these needs a file, the other a model that makes vectors.
        simple = [example for key, example in ROUTING_KEYS.items() if key not in ("calibration", "embedding")]
        routed("routing:\n" + "".join(f"  {right(example)}\n" for example in simple))
        whole = "".join(
            f"      {right(example)}\n" for key, example in RULE_KEYS.items() if key not in ("name", "when")
        )
        condition = "".join(f"        {example}\n" for example in CONDITION_KEYS.values())
        routed(f"routing:\n  rules:\n    - name: a\n      when:\n{condition}{whole}")


@pytest.mark.parametrize(
    ("written", "path", "words"),
    [
        ("{fresh_facts: maybe}", "routing.fresh_facts", "is not a known word: 'maybe'"),
        ("{first_token_weight: 1.5}", "routing.first_token_weight", "is 1.5"),
        ("{first_token_weight: -0.1}", "routing.first_token_weight", "is -0.1"),
        ("{second_look: unsure}", "routing.second_look", "is neither true nor false"),
        ("{learn_from_feedback: yes}", "routing.learn_from_feedback", "is neither true nor false"),
        ("{ruels: []}", "routing.ruels", "is not a known key"),
        ("{rules: {}}", "routing.rules", "is not a list"),
        ("{rules: [x]}", "routing.rules[0]", "is not a mapping"),
        ("{rules: [{tier: light}]}", "routing.rules[0].name", "is missing"),
        ("{rules: [{name: A b, tier: light}]}", "routing.rules[0].name", "is not an id"),
        ("{rules: [{name: a}]}", "routing.rules[0]", "does nothing"),
        ("{rules: [{name: a, when: {tasks: [code]}}]}", "routing.rules[0]", "does nothing"),
        ("{rules: [{name: a, teir: light}]}", "routing.rules[0].teir", "is not a known key"),
        ("{rules: [{name: a, tier: huge}]}", "routing.rules[0].tier", "is not a known word"),
        ("{rules: [{name: a, quality_bias: 2}]}", "routing.rules[0].quality_bias", "is 2"),
        ("{rules: [{name: a, prefer: [nobody]}]}", "routing.rules[0].prefer[0]", "refers to 'nobody'"),
        ("{rules: [{name: a, only: [best, smart]}]}", "routing.rules[0].only[1]", "is listed twice"),
        ("{rules: [{name: a, deny: best}]}", "routing.rules[0].deny", "is not a list"),
        ("{rules: [{name: a, require: [flying]}]}", "routing.rules[0].require[0]", "is not a known word"),
        ("{rules: [{name: a, tier: light, when: x}]}", "routing.rules[0].when", "is not a mapping"),
        ("{rules: [{name: a, tier: light, when: {task: []}}]}", "routing.rules[0].when.task", "is not a known key"),
        ("{rules: [{name: a, tier: light, when: {tasks: [sewing]}}]}", "routing.rules[0].when.tasks[0]", "not a known"),
        ("{rules: [{name: a, tier: light, when: {tiers: [big]}}]}", "routing.rules[0].when.tiers[0]", "not a known"),
        ("{rules: [{name: a, tier: light, when: {labels: [x]}}]}", "routing.rules[0].when.labels", "not a mapping"),
        ("{rules: [{name: a, tier: light, when: {labels: {x: y}}}]}", "routing.rules[0].when.labels.x", "not a list"),
        (
            "{rules: [{name: a, tier: light, when: {least_input_tokens: many}}]}",
            "routing.rules[0].when.least_input_tokens",
            "is not a whole number",
        ),
        *(
            (f"{{rules: [{{name: a, tier: light, {key}: []}}]}}", f"routing.rules[0].{key}", "is empty")
            for key in ("prefer", "only", "deny", "require")
        ),
        *(
            (f"{{rules: [{{name: a, tier: light, when: {{{written}}}}}]}}", f"routing.rules[0].when.{path}", "is empty")
            for written, path in (
                ("tasks: []", "tasks"),
                ("tiers: []", "tiers"),
                ("labels: {}", "labels"),
                ("labels: {x: []}", "labels.x"),
            )
        ),
        (
            "{rules: [{name: a, tier: light}, {name: a, tier: light}]}",
            "routing.rules[1]",
            "the name of an earlier rule",
        ),
    ],
)
def test_a_mistake_is_told_where_it_stands(
    written: str, path: str, words: str, good_policy: str, compile_text: Compile
) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text(good_policy.replace(ROUTING, f"routing: {written}\n"))
    told = [problem for problem in caught.value.problems if problem.path_in_file == path]
    assert any(words in problem.message for problem in told), caught.value
    assert all(problem.remedy for problem in told)


@pytest.mark.parametrize("rules", ["[x, [], 3]", "[null, a, ~]"])
def test_of_a_rule_that_is_no_mapping_nothing_else_is_told(rules: str, good_policy: str, compile_text: Compile) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text(good_policy.replace(ROUTING, f"routing: {{rules: {rules}}}\n"))
    assert [(problem.path_in_file, problem.message) for problem in caught.value.problems] == [
        (f"routing.rules[{place}]", "is not a mapping") for place in range(3)
    ]


def test_too_many_rules_are_refused(good_policy: str, compile_text: Compile) -> None:
    def many(count: int) -> str:
        rules = ", ".join(f"{{name: r{place}, tier: light}}" for place in range(count))
        return good_policy.replace(ROUTING, f"routing: {{rules: [{rules}]}}\n")

    assert len(compile_text(many(MAX_RULES)).snapshot.rules) == MAX_RULES
    with pytest.raises(PolicyError, match=f"has {MAX_RULES + 1} rules"):
        compile_text(many(MAX_RULES + 1))


class TestDial:
    def test_it_is_solved_for_the_policys_own_models(self, routed: Routed) -> None:
        weights = routed(WHOLE).cost_weights
        assert len(weights) == STEPS + 1
        assert (weights[0], weights[-1]) == (MOST_WEIGHT, LEAST_WEIGHT)
        assert all(before >= after for before, after in pairwise(weights))

    def test_other_models_have_another(self, good_policy: str, compile_text: Compile) -> None:
        cheaper = good_policy.replace("quality: 0.5", "quality: 0.79")
        assert compile_text(cheaper).snapshot.cost_weights != compile_text(good_policy).snapshot.cost_weights

    def test_free_models_can_be_weighed(self, good_policy: str, compile_text: Compile) -> None:
        free = good_policy.replace(
            'price: {ref: "anthropic/claude-sonnet-4-5"}', "price: [{input_usd_per_mtok: 0, output_usd_per_mtok: 0}]"
        )
        assert len(compile_text(free).snapshot.cost_weights) == STEPS + 1


class TestKept:
    @pytest.mark.parametrize("environ", [{}, {"ANTHROPIC_API_KEY": "sk-ant-api03-value0123456789"}])
    def test_a_kept_policy_compiles_to_the_same_whatever_the_keys_of_today(
        self, good_policy: str, compile_text: Compile, environ: dict[str, str]
    ) -> None:
        loaded = compile_text(good_policy.replace(ROUTING, WHOLE), environ)
        again = compile_record(loaded.record)
        assert again.version == loaded.snapshot.version == loaded.record.version
        unusable = {name: one.provider.unusable_because for name, one in again.deployments.items()}
        assert unusable == {n: one.provider.unusable_because for n, one in loaded.snapshot.deployments.items()}
        assert (again.rules, again.cost_weights) == (loaded.snapshot.rules, loaded.snapshot.cost_weights)

    def test_what_was_learned_since_changes_nothing(
        self, good_policy: str, compile_text: Compile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaded = compile_text(good_policy)
        monkeypatch.setattr(routing, "calibration_set", lambda: (Judged(4.0, 2.0, Tier.STANDARD),))
        assert compile_text(good_policy).snapshot.version != loaded.snapshot.version
        again = compile_record(loaded.record)
        assert (again.version, again.cost_weights) == (loaded.snapshot.version, loaded.snapshot.cost_weights)

    def test_it_holds_no_key(self, good_policy: str, compile_text: Compile) -> None:
        loaded = compile_text(good_policy, {"ANTHROPIC_API_KEY": "sk-ant-api03-PLANTED0123456789"})
        assert "PLANTED" not in repr(loaded.record)
