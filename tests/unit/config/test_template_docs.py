"""docs/templates.md does what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs

from kit.templating import said
from pointsman_server.adapters.knowledge.tasks import answer_task
from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.template_text import MOST_DEPTH, MOST_STEPS
from pointsman_server.config.templates import built_in_templates
from pointsman_server.domain.template import MOST_CHARACTERS, Filter, Variable, VariableType
from pointsman_server.execution.prompting import fill
from pointsman_server.execution.variables import read_values

Compile = Callable[..., LoadedPolicy]
DOCS = (Path(__file__).parents[3] / "docs" / "templates.md").read_text()
(POLICY,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
(SENT,) = re.findall(r"```text\n(.*?)```", DOCS, re.DOTALL)
(ANSWER,) = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)


def table(after: str) -> list[list[str]]:
    """The cells of the first table after these words."""
    lines = DOCS.split(after, 1)[1].split("\n\n|", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


def test_the_worked_example_is_sent_as_shown(good_policy: str, compile_text: Compile) -> None:
    loaded = compile_text(good_policy + POLICY)
    assert not [warning for warning in loaded.warnings if "templates" in warning.path_in_file]
    template = loaded.snapshot.templates["support_reply"]
    version = template.versions[template.current]
    values, _ = read_values(
        version.variables, {"question": "Where is my order?", "facts": ["It was shipped on Monday."]}
    )
    shown = [
        f"{role:8}{line}" if place == 0 else f"{'':8}{line}"
        for role, text in said(fill(version, values))
        for place, line in enumerate(text.splitlines())
    ]
    assert shown == SENT.splitlines()


def test_every_type_and_its_limits_are_listed() -> None:
    usual = Variable(VariableType.STRING)
    rows = {row[0].strip("`"): row[2] for row in table("## Variables")}
    assert set(rows) == {type_.value for type_ in VariableType}
    assert f"`{usual.max_length}`" in rows["string"]
    assert f"`{usual.max_items}`" in rows["strings"]


def test_every_filter_is_listed() -> None:
    (filters,) = [row[1] for row in table("## The notation") if "trim" in row[0]]
    assert {filter_.value for filter_ in Filter} == set(re.findall(r"`(\w+)", filters))


def test_the_limits_are_the_true_ones() -> None:
    for said_of, limit in (("at most", MOST_DEPTH), ("at most", MOST_STEPS), ("stops at", MOST_CHARACTERS)):
        assert re.search(rf"{said_of}\s+{limit:,}\b", DOCS), limit


def test_the_tasks_are_listed_with_their_variables() -> None:
    tasks = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in table("## Tasks")}
    templates = built_in_templates()
    assert tasks == {name: list(template.versions[1].variables) for name, template in templates.items()}


def test_the_answer_shown_has_the_form_of_the_search() -> None:
    schema = built_in_templates()["semantic_search"].versions[1].response_schema
    assert schema is not None
    jsonschema_rs.validate(dict(schema), json.loads(ANSWER))
    assert answer_task("semantic_search", {"query": "x"}, [], lambda _, found: []) == '{"results":[]}'
