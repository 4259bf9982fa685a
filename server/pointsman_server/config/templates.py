"""Reads the prompt templates of a policy, and those that come with pointsman."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any

import orjson

from pointsman_server.config.problems import Findings, looks_like_a_key, shown
from pointsman_server.config.scalars import (
    decimal_number,
    json_value,
    list_of,
    one_of,
    refuse_bad_id,
    some,
    switch,
    whole_number,
)
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.config.template_text import TextReader
from pointsman_server.config.yaml_tree import read_tree
from pointsman_server.domain.message import Role
from pointsman_server.domain.request import GenerationConfig, ReasoningEffort
from pointsman_server.domain.template import Template, TemplateMessage, TemplateVersion, Value, Variable, VariableType
from pointsman_server.execution.prompting import fill
from pointsman_server.execution.rendering import TooLongError
from pointsman_server.execution.schema_rules import MOST_BYTES, wrong_schema
from pointsman_server.execution.variables import UnfitValueError, fitting, read_values

TEMPLATE_KEYS: Keys = {
    "versions": 'versions: {1: {messages: [{user: "Hello"}]}}',
    "current": "current: 1",
}
VERSION_KEYS: Keys = {
    "messages": 'messages: [{user: "Say hello to {{ name }}."}]',
    "variables": "variables: {name: {type: string}}",
    "response_schema": "response_schema: {type: object}",
    "generation": "generation: {temperature: 0.2}",
    "needs_documents": "needs_documents: true",
    "example": "example: {name: Ada}",
}
VARIABLE_KEYS: Keys = {
    "type": "type: string",
    "default": "default: 5",
    "max_length": "max_length: 10000",
    "max_items": "max_items: 100",
    "choices": "choices: [short, long]",
    "minimum": "minimum: 1",
    "maximum": "maximum: 100",
}
GENERATION_KEYS: Keys = {
    "max_output_tokens": "max_output_tokens: 500",
    "temperature": "temperature: 0.2",
    "top_p": "top_p: 0.9",
    "seed": "seed: 7",
    "stop_sequences": 'stop_sequences: ["END"]',
    "reasoning_effort": "reasoning_effort: low",
}
_MESSAGE_KEYS: Keys = {role.value: f'{role.value}: "Hello"' for role in Role if role is not Role.TOOL}

MAX_TEMPLATES, MAX_VERSIONS, MAX_MESSAGES, MAX_VARIABLES = 200, 50, 50, 50

_BUILT_IN = "data/templates.yaml"
_VARIABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RESERVED = frozenset({"and", "or", "not", "in", "is", "if", "else", "elif", "for", "loop", "true", "false", "none"})
_TYPES = {type_.value: type_ for type_ in VariableType}
_EFFORTS = {effort.value: effort for effort in ReasoningEffort}
_LIMITS = {
    "max_length": (VariableType.STRING, VariableType.STRINGS),
    "max_items": (VariableType.STRINGS,),
    "choices": (VariableType.ENUM,),
    "minimum": (VariableType.INTEGER, VariableType.NUMBER),
    "maximum": (VariableType.INTEGER, VariableType.NUMBER),
}
"""Which types a limit is for."""

_ANY_NUMBER = decimal_number(Decimal(-1_000_000_000), Decimal(1_000_000_000))
_TOP_P = decimal_number(Decimal("0.000001"), Decimal(1))
_MOST_STOP_SEQUENCES, _MOST_STOP_CHARACTERS = 16, 256
_TOKEN_OF_A_KEY = re.compile(r"[^\s\"'`(){}<>\[\],;|]{16,}")
_NOTHING = TemplateVersion(0, ())


def read_templates(spot: Spot) -> dict[str, Template]:
    """The templates by name."""
    templates: dict[str, Template] = {}
    for name, value in spot.entries():
        refuse_bad_id(value, name)
        template = value.read(partial(_template, name), None)
        if template is not None:
            templates[name] = template
    if len(templates) > MAX_TEMPLATES:
        raise UnacceptableError(f"has {len(templates)} templates", f"Write at most {MAX_TEMPLATES}.")
    return templates


@lru_cache(maxsize=1)
def built_in_templates() -> Mapping[str, Template]:
    """The templates that every policy has unless it defines its own of that name."""
    findings = Findings(_BUILT_IN)
    root = read_tree(files("pointsman_server").joinpath(_BUILT_IN).read_bytes(), findings)
    templates = read_templates(Spot(findings, root, "templates", root.line))
    findings.raise_if_any()
    return templates


def _template(name: str, spot: Spot) -> Template:
    section = Section(spot, TEMPLATE_KEYS)
    versions = section.required("versions", some(_versions), {})
    newest = max(versions, default=0)
    current = section.optional("current", whole_number(1, 1_000_000), newest)
    if versions and current not in versions and (at := section.at("current")):
        at.refuse(f"is {current}, which is no version of the template", f"Write {newest}, or add that version.")
    return Template(name, current, versions)


def _versions(spot: Spot) -> dict[int, TemplateVersion]:
    versions: dict[int, TemplateVersion] = {}
    for key, value in spot.entries():
        if not re.fullmatch(r"[1-9][0-9]{0,5}", key):
            value.refuse("is not the number of a version", "Write plain digits, `1` for the first.")
            continue
        versions[int(key)] = replace(value.read(_version, _NOTHING), number=int(key))
    if len(versions) > MAX_VERSIONS:
        raise UnacceptableError(f"has {len(versions)} versions", f"Write at most {MAX_VERSIONS}.")
    return dict(sorted(versions.items()))


def _version(spot: Spot) -> TemplateVersion:
    section = Section(spot, VERSION_KEYS)
    variables = section.optional("variables", _variables, {})
    reader = TextReader(variables)
    problems_before = len(spot.findings.problems)
    messages = section.required("messages", some(lambda at: _messages(at, reader)), ())
    version = TemplateVersion(
        number=0,
        messages=messages,
        variables=variables,
        generation=replace(
            section.optional("generation", _generation, GenerationConfig()),
            response_schema=section.optional("response_schema", _schema, None),
        ),
        needs_documents=section.optional("needs_documents", switch, False),
    )
    if len(spot.findings.problems) == problems_before:
        _warn(section, version, set(variables) - reader.used)
    return version


def _warn(section: Section, version: TemplateVersion, unused: set[str]) -> None:
    if unused and (at := section.at("variables")):
        at.warn(f"has variables that no message uses: {', '.join(sorted(unused))}", "Use them, or remove them.")
    if at := section.at("example"):
        at.read(lambda spot: _try_out(spot, version), None)


def _try_out(spot: Spot, version: TemplateVersion) -> None:
    example = json_value(spot)
    if not isinstance(example, dict):
        raise UnacceptableError("is not a mapping", "Write `name: value` lines, one for each variable.")
    values, problems = read_values(version.variables, example)
    if problems:
        wrong = problems[0]
        spot.warn(f"does not fill the template: {wrong.field.rpartition('.')[2]} {wrong.description}", "Correct it.")
        return
    try:
        if not fill(version, values):
            spot.warn("fills the template with nothing: every message is blank", "Correct it, or the messages.")
    except TooLongError:
        spot.warn("fills the template to more than it may have", "Shorten it.")


def _variables(spot: Spot) -> dict[str, Variable]:
    variables: dict[str, Variable] = {}
    for name, value in spot.entries():
        if not _VARIABLE_NAME.fullmatch(name) or name in _RESERVED:
            rule = "Use lower-case letters, digits and '_', a letter first, and no word of the notation such as `if`."
            value.refuse(f"is not the name of a variable: {shown(name)}", rule)
        variable = value.read(_variable, None)
        # One that is wrong is known all the same: what uses it is not wrong for that.
        variables[name] = variable or Variable(VariableType.STRING)
    if len(variables) > MAX_VARIABLES:
        raise UnacceptableError(f"has {len(variables)} variables", f"Write at most {MAX_VARIABLES}.")
    return variables


def _variable(spot: Spot) -> Variable:
    section = Section(spot, VARIABLE_KEYS)
    type_ = section.required("type", one_of(_TYPES), VariableType.STRING)
    for key, types in _LIMITS.items():
        if type_ not in types and (at := section.at(key)):
            at.refuse(f"is not for type {type_.value}", "Remove it, or change the type.")
    usual = Variable(type_)
    variable = Variable(
        type_,
        max_length=section.optional("max_length", whole_number(1, 1_000_000), usual.max_length),
        max_items=section.optional("max_items", whole_number(1, 1_000), usual.max_items),
        choices=section.optional("choices", some(list_of(_choice)), ()),
        minimum=section.optional("minimum", lambda at: float(_ANY_NUMBER(at)), None),
        maximum=section.optional("maximum", lambda at: float(_ANY_NUMBER(at)), None),
    )
    if type_ is VariableType.ENUM and not section.at("choices"):
        raise UnacceptableError("is an enum without `choices`", "List the words that it takes.")
    if variable.minimum is not None and variable.maximum is not None and variable.minimum > variable.maximum:
        raise UnacceptableError("has a minimum above its maximum", "Exchange the two.")
    return replace(variable, default=section.optional("default", _default(variable), None))


def _choice(spot: Spot) -> str:
    text = spot.text()
    if not text.strip() or len(text) > 256:
        raise UnacceptableError("is blank or too long", "Write a word or a few, up to 256 characters.")
    return text


def _default(variable: Variable) -> Callable[[Spot], Value]:
    def read(spot: Spot) -> Value:
        try:
            return fitting(variable, json_value(spot))
        except UnfitValueError as error:
            raise UnacceptableError(f"is no value of the variable: it {error}", "Correct it.") from None

    return read


def _messages(spot: Spot, reader: TextReader) -> tuple[TemplateMessage, ...]:
    messages = [item.read(lambda one: _message(one, reader), None) for item in spot.items()]
    if len(messages) > MAX_MESSAGES:
        raise UnacceptableError(f"has {len(messages)} messages", f"Write at most {MAX_MESSAGES}.")
    return tuple(message for message in messages if message is not None)


def _message(spot: Spot, reader: TextReader) -> TemplateMessage:
    section = Section(spot, _MESSAGE_KEYS)
    given = [(role, at) for role in Role if role.value in _MESSAGE_KEYS and (at := section.at(role.value))]
    if len(given) != 1:
        raise UnacceptableError("is not one message", 'Write one of them, as `- user: "Hello"`.')
    role, at = given[0]
    return TemplateMessage(role, at.read(lambda text: _text(text, reader), ()))


def _text(spot: Spot, reader: TextReader) -> tuple[Any, ...]:
    text = spot.text()
    if not text.strip():
        raise UnacceptableError("is blank", "Write what the message says, or remove it.")
    if any(map(_could_be_a_key, _TOKEN_OF_A_KEY.findall(text))):
        raise UnacceptableError("holds what looks like a key", "Templates hold no secrets; models must not see them.")
    return reader.read(text)


def _could_be_a_key(word: str) -> bool:
    return looks_like_a_key(word) and any(character.isdigit() for character in word)


def _schema(spot: Spot) -> Mapping[str, Any]:
    schema = json_value(spot)
    if not isinstance(schema, dict):
        raise UnacceptableError("is not a mapping", "Write a JSON Schema, for example `{type: object}`.")
    if wrong := wrong_schema(schema):
        raise UnacceptableError(wrong, "Correct the schema.")
    if len(orjson.dumps(schema)) > MOST_BYTES:
        raise UnacceptableError(f"is larger than {MOST_BYTES} bytes as JSON", "Make it smaller.")
    return schema


def _generation(spot: Spot) -> GenerationConfig:
    section = Section(spot, GENERATION_KEYS)
    if section.at("temperature") and (at := section.at("top_p")):
        at.refuse("conflicts with temperature", "Set one of the two.")
    return GenerationConfig(
        max_output_tokens=section.optional("max_output_tokens", whole_number(1, 2**31 - 1), None),
        temperature=section.optional("temperature", lambda at: float(decimal_number(Decimal(0), Decimal(2))(at)), None),
        top_p=section.optional("top_p", lambda at: float(_TOP_P(at)), None),
        seed=section.optional("seed", whole_number(-(2**31), 2**31 - 1), None),
        stop_sequences=section.optional("stop_sequences", some(_stop_sequences), ()),
        reasoning_effort=section.optional("reasoning_effort", one_of(_EFFORTS), None),
    )


def _stop_sequences(spot: Spot) -> tuple[str, ...]:
    texts = list_of(_stop_sequence)(spot)
    if len(texts) > _MOST_STOP_SEQUENCES:
        raise UnacceptableError(f"has {len(texts)} texts", f"Write at most {_MOST_STOP_SEQUENCES}.")
    return texts


def _stop_sequence(spot: Spot) -> str:
    text = spot.text()
    if not text or len(text) > _MOST_STOP_CHARACTERS:
        raise UnacceptableError("is empty or too long", f"Write up to {_MOST_STOP_CHARACTERS} characters.")
    return text
