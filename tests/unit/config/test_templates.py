"""The policy's prompt templates: what they compile to, and every mistake told where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from kit.templating import GREET, policy_section, said, templates_of
from pointsman_server.config.policy_file import LoadedPolicy, compile_record
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.templates import (
    MAX_MESSAGES,
    MAX_TEMPLATES,
    MAX_VARIABLES,
    MAX_VERSIONS,
    built_in_templates,
)
from pointsman_server.domain.message import Role
from pointsman_server.domain.request import GenerationConfig, ReasoningEffort
from pointsman_server.domain.template import Insert, Template, TemplateMessage, Text, Variable, VariableType
from pointsman_server.execution.prompting import fill
from pointsman_server.execution.variables import read_values

Compile = Callable[..., LoadedPolicy]
FIXTURES = Path(__file__).parents[2] / "fixtures" / "templates"
TASKS = ("intelligent_search", "recommendations", "semantic_search")

WHOLE = """\
templates:
  summary:
    current: 1
    versions:
      1:
        needs_documents: true
        variables:
          text: {type: string, max_length: 20}
          words: {type: integer, default: 50, minimum: 10, maximum: 500}
          share: {type: number, default: 0.5, minimum: 0, maximum: 1}
          polite: {type: boolean, default: true}
          topics: {type: strings, default: [a, b], max_items: 3, max_length: 5}
          tone: {type: enum, choices: [plain, "no"], default: "no"}
        messages:
          - system: Use {{ words }} words.
          - assistant: |
              {% if polite and tone == "no" %}
              Gladly.
              {% endif %}
              {{ share }}
          - user: "{{ text }} {{ topics | join(', ') }}"
        response_schema: {type: object, required: [summary], properties: {summary: {type: string}}}
        generation: {max_output_tokens: 100, temperature: 0.5, seed: -1, stop_sequences: [END], reasoning_effort: low}
        example: {text: short}
      2:
        messages: [{user: Summarise.}]
        generation: {top_p: 0.9}
"""


def version(**changes: Any) -> dict[str, Any]:
    """The whole section with a version that is sound but for these changes."""
    sound = {"messages": [{"user": "Hello"}], **changes}
    return {"one": {"versions": {"1": {key: value for key, value in sound.items() if value is not None}}}}


def variable(**keys: Any) -> dict[str, Any]:
    return version(variables={"v": keys}, messages=[{"user": "{{ v }}"}])


def problems_of(templates: Mapping[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(PolicyError) as caught:
        templates_of(templates)
    assert all(problem.remedy for problem in caught.value.problems)
    return [(problem.path_in_file, problem.message) for problem in caught.value.problems]


def test_everything_is_taken_over(good_policy: str, compile_text: Compile) -> None:
    template = compile_text(good_policy + WHOLE).snapshot.templates["summary"]
    assert (template.name, template.current, list(template.versions)) == ("summary", 1, [1, 2])
    one = template.versions[1]
    assert one.number == 1
    assert one.variables == {
        "text": Variable(VariableType.STRING, max_length=20),
        "words": Variable(VariableType.INTEGER, 50, minimum=10, maximum=500),
        "share": Variable(VariableType.NUMBER, 0.5, minimum=0, maximum=1),
        "polite": Variable(VariableType.BOOLEAN, True),
        "topics": Variable(VariableType.STRINGS, ("a", "b"), max_items=3, max_length=5),
        "tone": Variable(VariableType.ENUM, "no", choices=("plain", "no")),
    }
    schema = {"type": "object", "required": ["summary"], "properties": {"summary": {"type": "string"}}}
    assert one.response_schema == schema
    assert one.generation == GenerationConfig(
        max_output_tokens=100,
        temperature=0.5,
        seed=-1,
        stop_sequences=("END",),
        reasoning_effort=ReasoningEffort.LOW,
        response_schema=schema,
    )
    assert one.needs_documents
    assert one.messages[0] == TemplateMessage(Role.SYSTEM, (Text("Use "), Insert("words"), Text(" words.")))
    values, problems = read_values(one.variables, {"text": "What?"})
    assert not problems
    assert said(fill(one, values)) == [
        ("system", "Use 50 words."),
        ("assistant", "Gladly.\n0.5"),
        ("user", "What? a, b"),
    ]
    assert template.versions[2].generation == GenerationConfig(top_p=0.9)
    assert not template.versions[2].needs_documents


def test_the_newest_version_is_the_current_one_unless_another_is_named() -> None:
    assert templates_of({"greet": GREET})["greet"].current == 2
    assert templates_of({"greet": {"versions": GREET["versions"]}})["greet"].current == 2
    assert templates_of({"greet": {**GREET, "current": 1}})["greet"].current == 1


def test_every_policy_has_the_tasks_and_can_define_them_anew(good_policy: str, compile_text: Compile) -> None:
    assert tuple(sorted(compile_text(good_policy).snapshot.templates)) == TASKS
    own = {"recommendations": {"versions": {"4": {"messages": [{"user": "Recommend."}]}}}}
    templates = compile_text(good_policy + policy_section(own)).snapshot.templates
    assert tuple(sorted(templates)) == TASKS
    assert list(templates["recommendations"].versions) == [4]


def test_templates_are_part_of_what_a_policy_says(good_policy: str, compile_text: Compile) -> None:
    versions = {
        compile_text(good_policy + policy_section({"one": text})).snapshot.version
        for text in (
            {"versions": {"1": {"messages": [{"user": "a"}]}}},
            {"versions": {"1": {"messages": [{"user": "b"}]}}},
            {"versions": {"2": {"messages": [{"user": "b"}]}}},
            {"versions": {"1": {"messages": [{"system": "b"}]}}},
        )
    }
    assert len(versions | {compile_text(good_policy).snapshot.version}) == 5


def test_a_kept_policy_has_the_same_templates(good_policy: str, compile_text: Compile) -> None:
    loaded = compile_text(good_policy + WHOLE, {"ANTHROPIC_API_KEY": "k"})
    assert compile_record(loaded.record).templates == loaded.snapshot.templates


@pytest.mark.parametrize(
    ("templates", "path", "message"),
    [
        ({"Big": GREET}, "templates.Big", "is not an id"),
        ({"one": {}}, "templates.one.versions", "is missing"),
        ({"one": {"versions": {}}}, "templates.one.versions", "is empty"),
        ({"one": {**GREET, "current": 3}}, "templates.one.current", "is 3, which is no version"),
        ({"one": {"versions": {"0": {}}}}, "templates.one.versions.0", "is not the number of a version"),
        ({"one": {"versions": {"v1": {}}}}, "templates.one.versions.v1", "is not the number of a version"),
        (version(messages=None), "templates.one.versions.1.messages", "is missing"),
        (version(messages=[]), "templates.one.versions.1.messages", "is empty"),
        (version(message="x"), "templates.one.versions.1.message", "not a known key"),
        (version(messages=[{}]), "templates.one.versions.1.messages[0]", "is not one message"),
        (
            version(messages=[{"user": "a", "system": "b"}]),
            "templates.one.versions.1.messages[0]",
            "is not one message",
        ),
        (version(messages=[{"tool": "a"}]), "templates.one.versions.1.messages[0].tool", "not a known key"),
        (version(messages=[{"user": " "}]), "templates.one.versions.1.messages[0].user", "is blank"),
        (version(messages=["text"]), "templates.one.versions.1.messages[0]", "is not a mapping"),
        (version(messages=[{"user": "{{ x }}"}]), "templates.one.versions.1.messages[0].user", "does not define"),
        (version(messages=[{"user": "{{ 7*7 }}"}]), "templates.one.versions.1.messages[0].user", "do not have (mul)"),
        (
            version(messages=[{"user": "{% include '/etc/passwd' %}"}]),
            "templates.one.versions.1.messages[0].user",
            "do not have (include)",
        ),
        (
            version(messages=[{"system": "Use sk-abcdefgh12345678 there."}]),
            "templates.one.versions.1.messages[0].system",
            "looks like a key",
        ),
        (version(variables={"Big": {"type": "string"}}), "templates.one.versions.1.variables.Big", "is not the name"),
        (version(variables={"if": {"type": "string"}}), "templates.one.versions.1.variables.if", "is not the name"),
        (variable(), "templates.one.versions.1.variables.v.type", "is missing"),
        (variable(type="text"), "templates.one.versions.1.variables.v.type", "is not a known word"),
        (variable(type="enum"), "templates.one.versions.1.variables.v", "is an enum without `choices`"),
        (variable(type="enum", choices=[]), "templates.one.versions.1.variables.v.choices", "is empty"),
        (variable(type="enum", choices=[" "]), "templates.one.versions.1.variables.v.choices[0]", "is blank"),
        (variable(type="string", choices=["a"]), "templates.one.versions.1.variables.v.choices", "is not for type"),
        (variable(type="integer", max_length=5), "templates.one.versions.1.variables.v.max_length", "is not for type"),
        (variable(type="string", max_items=5), "templates.one.versions.1.variables.v.max_items", "is not for type"),
        (variable(type="string", minimum=5), "templates.one.versions.1.variables.v.minimum", "is not for type"),
        (
            variable(type="integer", minimum=5, maximum=4),
            "templates.one.versions.1.variables.v",
            "minimum above its maximum",
        ),
        (
            variable(type="integer", default="x"),
            "templates.one.versions.1.variables.v.default",
            "is no value of the variable: it must be a whole number",
        ),
        (variable(type="integer", default=0, minimum=1), "templates.one.versions.1.variables.v.default", "at least 1"),
        (version(response_schema="x"), "templates.one.versions.1.response_schema", "is not a mapping"),
        (version(response_schema={"type": "x"}), "templates.one.versions.1.response_schema", "not a valid JSON Schema"),
        (
            version(response_schema={"$ref": "https://example.com"}),
            "templates.one.versions.1.response_schema",
            "must not hold a $ref",
        ),
        (
            version(response_schema={"description": "x " * 33_000}),
            "templates.one.versions.1.response_schema",
            "is larger than 65536 bytes",
        ),
        (
            version(generation={"temperature": 1, "top_p": 1}),
            "templates.one.versions.1.generation.top_p",
            "conflicts with temperature",
        ),
        (version(generation={"top_p": 0}), "templates.one.versions.1.generation.top_p", "is 0"),
        (
            version(generation={"stop_sequences": [f"s{n}" for n in range(17)]}),
            "templates.one.versions.1.generation.stop_sequences",
            "has 17 texts",
        ),
        (
            version(generation={"stop_sequences": ["s" * 257]}),
            "templates.one.versions.1.generation.stop_sequences[0]",
            "too long",
        ),
        (version(example=["x"]), "templates.one.versions.1.example", "is not a mapping"),
        (
            version(messages=[{"user": "x"}] * (MAX_MESSAGES + 1)),
            "templates.one.versions.1.messages",
            f"has {MAX_MESSAGES + 1} messages",
        ),
        (
            version(variables={f"v{n}": {"type": "string"} for n in range(MAX_VARIABLES + 1)}),
            "templates.one.versions.1.variables",
            f"has {MAX_VARIABLES + 1} variables",
        ),
        (
            {"one": {"versions": {str(n): {"messages": [{"user": "x"}]} for n in range(1, MAX_VERSIONS + 2)}}},
            "templates.one.versions",
            f"has {MAX_VERSIONS + 1} versions",
        ),
        (
            {f"t{n}": {"versions": {"1": {"messages": [{"user": "x"}]}}} for n in range(MAX_TEMPLATES + 1)},
            "templates",
            f"has {MAX_TEMPLATES + 1} templates",
        ),
    ],
)
def test_mistakes_are_told_where_they_stand(templates: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of(templates)
    assert [one for one in problems if one[0] == path and message in one[1]], problems


def test_what_uses_a_wrong_variable_is_not_wrong_for_that() -> None:
    assert [path for path, _ in problems_of(variable(type="strnig"))] == ["templates.one.versions.1.variables.v.type"]


def test_a_secret_is_never_repeated() -> None:
    assert "sk-abcdefgh12345678" not in str(problems_of(version(messages=[{"user": "sk-abcdefgh12345678"}])))
    assert "the bearer of this letter" in str(templates_of(version(messages=[{"user": "the bearer of this letter"}])))


@pytest.mark.parametrize(
    ("templates", "told"),
    [
        (version(variables={"v": {"type": "string"}}), "has variables that no message uses: v"),
        (version(example={"v": "x"}), "does not fill the template: v is no variable of the template"),
        ({**variable(type="string"), "two": GREET}, None),
        (
            version(variables={"v": {"type": "string"}}, messages=[{"user": "{{ v }}"}], example={}),
            "does not fill the template: v is missing",
        ),
        (
            version(
                variables={"v": {"type": "string", "default": ""}}, messages=[{"user": "{{ v }}"}], example={"v": " "}
            ),
            "fills the template with nothing",
        ),
        (
            version(
                variables={"v": {"type": "strings", "max_items": 1000}},
                messages=[{"user": "{% for i in v %}" + "long text " * 50_000 + "{% endfor %}"}],
                example={"v": ["a", "b", "c"]},
            ),
            "fills the template to more than it may have",
        ),
        (
            version(variables={"v": {"type": "string"}}, messages=[{"user": "{{ v }}"}], example={"v": "x"}),
            None,
        ),
    ],
)
def test_probable_mistakes_are_warned_of(
    templates: dict[str, Any], told: str | None, good_policy: str, compile_text: Compile
) -> None:
    loaded = compile_text(good_policy + policy_section(templates))
    words = [warning.message for warning in loaded.warnings if warning.path_in_file.startswith("templates")]
    assert len(words) == (told is not None)
    assert all(told in word for word in words if told)


# Golden: what the tasks say to a model, word for word. A changed text is a new version.


@pytest.fixture(params=TASKS)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FIXTURES / f"{request.param}.json").read_text())
    return {"task": request.param, **read}


def _task(golden: Mapping[str, Any]) -> Template:
    return built_in_templates()[golden["task"]]


def test_a_task_says_what_it_always_said(golden: dict[str, Any]) -> None:
    one = _task(golden).versions[golden["version"]]
    for case in golden["cases"]:
        values, problems = read_values(one.variables, case["variables"])
        assert not problems
        assert [list(turn) for turn in said(fill(one, values))] == case["messages"]


def test_a_task_demands_the_form_that_it_always_demanded(golden: dict[str, Any]) -> None:
    one = _task(golden).versions[golden["version"]]
    assert one.response_schema == golden["response_schema"]
    assert one.needs_documents
    validator = jsonschema_rs.validator_for(golden["response_schema"])
    assert validator.is_valid(golden["answer"])
    results = golden["answer"]["results"]
    for wrong in ([{**results[0], "more": 1}], [{"document_id": "d"}], ["d"], None):
        assert not validator.is_valid({**golden["answer"], "results": wrong})


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_variables_are_limited(task: str) -> None:
    variables = built_in_templates()[task].versions[1].variables
    for limit in (0, 101, 1.5, "5"):
        _, problems = read_values(variables, {"query": "x", "profile": "x", "limit": limit})
        assert "completion.template.variables.limit" in [problem.field for problem in problems]
