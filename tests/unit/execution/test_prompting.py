"""A call that names a template goes on as if its caller had written it out."""

from __future__ import annotations

from typing import Any

import pytest

from kit.catalog import call, deployment, judged, snapshot, user
from kit.templating import GREET, said, templates_of
from pointsman_server.decision.facts import facts_of
from pointsman_server.domain.call import Call
from pointsman_server.domain.errors import InvalidRequest
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.request import CompletionRequest, Document, GenerationConfig, ReasoningEffort, TemplateRef
from pointsman_server.domain.template import MOST_CHARACTERS
from pointsman_server.execution.prompting import with_defaults, with_template

SCHEMA = {"type": "object"}
TEMPLATES = templates_of(
    {
        "greet": GREET,
        "rules": {"versions": {"1": {"messages": [{"system": "Be brief."}]}}},
        "sort": {
            "versions": {
                "1": {
                    "messages": [{"user": "Sort them."}],
                    "needs_documents": True,
                    "response_schema": SCHEMA,
                    "generation": {"max_output_tokens": 7, "temperature": 0, "stop_sequences": ["END"]},
                }
            }
        },
        "shots": {
            "versions": {
                "1": {
                    "variables": {"text": {"type": "string", "default": ""}},
                    "messages": [
                        {"user": "2+2"},
                        {"assistant": "4"},
                        {"system": "Only numbers."},
                        {"user": "{{ text }}"},
                    ],
                }
            }
        },
        "long": {
            "versions": {
                "1": {
                    "variables": {"text": {"type": "string", "max_length": 1_000_000}},
                    "messages": [{"user": "{{ text }}{{ text }}"}],
                }
            }
        },
    }
)


def asking(name: str, version: int = 0, *, messages: tuple[Message, ...] = (), **fields: Any) -> Call:
    variables = fields.pop("variables", {})
    request = CompletionRequest(messages, template=TemplateRef(name, version, variables), **fields)
    return call(snapshot(deployment("one"), templates=TEMPLATES), request=request)


def refused(asked: Call) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        with_template(asked)
    return {problem.field: problem.description for problem in caught.value.problems}


def test_without_a_template_nothing_changes() -> None:
    asked = call(snapshot(deployment("one"), templates=TEMPLATES))
    assert with_template(asked) is asked


def test_its_messages_come_before_the_requests_own() -> None:
    filled = with_template(asking("greet", variables={"name": "Ada", "formal": True}, messages=(user("And now?"),)))
    assert said(filled.request.messages) == [
        ("system", "Be formal."),
        ("user", "Say hello to Ada."),
        ("user", "And now?"),
    ]


def test_a_message_that_became_blank_is_left_out() -> None:
    filled = with_template(asking("greet", variables={"name": "Ada"}))
    assert said(filled.request.messages) == [("user", "Say hello to Ada.")]
    roles = [role for role, _ in said(with_template(asking("shots")).request.messages)]
    assert roles == ["user", "assistant", "system"]


@pytest.mark.parametrize(("version", "used"), [(0, "greet@2"), (1, "greet@1"), (2, "greet@2")])
def test_the_version_that_was_used_is_recorded(version: int, used: str) -> None:
    filled = with_template(asking("greet", version, variables={"name": "Ada"}))
    assert facts_of(filled.request, judged()).template == used


def test_every_variable_has_its_value_afterwards() -> None:
    filled = with_template(asking("greet", variables={"name": "Ada"}))
    assert filled.request.template == TemplateRef("greet", 2, {"name": "Ada", "formal": False})


def test_what_the_template_sets_holds_where_the_request_sets_nothing() -> None:
    documents = (Document("d", "text"),)
    filled = with_template(asking("sort", documents=documents)).request.generation
    assert filled == GenerationConfig(
        max_output_tokens=7, temperature=0, stop_sequences=("END",), response_schema=SCHEMA
    )
    own = GenerationConfig(max_output_tokens=9, top_p=0.5, response_schema={}, seed=1)
    filled = with_template(asking("sort", documents=documents, generation=own)).request.generation
    assert filled == GenerationConfig(
        max_output_tokens=9, top_p=0.5, response_schema={}, seed=1, stop_sequences=("END",)
    )


def test_temperature_and_top_p_are_one_matter() -> None:
    assert with_defaults(GenerationConfig(temperature=1.0), GenerationConfig(top_p=0.1)) == GenerationConfig(
        temperature=1.0
    )
    assert with_defaults(GenerationConfig(top_p=0.1), GenerationConfig(temperature=1.0)) == GenerationConfig(top_p=0.1)
    kept = GenerationConfig(top_p=0.1, reasoning_effort=ReasoningEffort.NONE)
    assert with_defaults(GenerationConfig(), kept) == kept


def test_an_unknown_name_tells_nothing_of_others() -> None:
    problems = refused(asking("gret"))
    assert list(problems) == ["completion.template.name"]
    assert "greet" not in str(problems)
    assert "sort" not in str(problems)


def test_an_unknown_version() -> None:
    problems = refused(asking("greet", 3, variables={"name": "Ada"}))
    assert problems == {"completion.template.version": "is none of the template's versions 1, 2; 0 is the current"}


def test_values_that_do_not_fit_are_all_told() -> None:
    problems = refused(asking("greet", variables={"name": 5, "formal": "yes", "more": 1}))
    assert list(problems) == [f"completion.template.variables.{name}" for name in ("more", "name", "formal")]


def test_variables_of_another_version_are_unknown() -> None:
    problems = refused(asking("greet", 1, variables={"name": "Ada", "formal": True}))
    assert list(problems) == ["completion.template.variables.formal"]


def test_no_flood_of_problems() -> None:
    assert len(refused(asking("greet", variables={f"x{n}": n for n in range(1_000)}))) == 20


def test_a_template_about_documents_needs_some() -> None:
    assert list(refused(asking("sort"))) == ["completion.documents"]


def test_somebody_must_ask_something() -> None:
    assert list(refused(asking("rules"))) == ["completion.messages"]
    instructions = Message(Role.SYSTEM, (TextPart("Be kind."),))
    assert list(refused(asking("rules", messages=(instructions,)))) == ["completion.messages"]
    filled = with_template(asking("rules", messages=(user("Hello?"),)))
    assert said(filled.request.messages) == [("system", "Be brief."), ("user", "Hello?")]


def test_it_cannot_be_filled_without_end() -> None:
    problems = refused(asking("long", variables={"text": "CANARY" * (MOST_CHARACTERS // 10)}))
    assert list(problems) == ["completion.template.variables"]
    assert "CANARY" not in str(problems)


def test_a_value_is_never_read_as_a_template() -> None:
    filled = with_template(asking("greet", variables={"name": "{{7*7}} {% if formal %}"}))
    assert said(filled.request.messages) == [("user", "Say hello to {{7*7}} {% if formal %}.")]
