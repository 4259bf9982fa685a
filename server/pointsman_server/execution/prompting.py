"""Puts the messages of the prompt template that a request names before its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from pointsman_server.domain.call import Call
from pointsman_server.domain.errors import FieldProblem, InvalidRequest
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.request import GenerationConfig, TemplateRef
from pointsman_server.domain.template import MOST_CHARACTERS, Template, TemplateVersion, Value
from pointsman_server.execution.rendering import Filler, TooLongError
from pointsman_server.execution.variables import PATH, read_values

_UNSET = GenerationConfig()
_MOST_PROBLEMS = 20


def with_template(call: Call) -> Call:
    """The call as if its caller had written the template out.

    The request names the version that was used, with a value for every variable. Raises `InvalidRequest` for an unknown
    template or version, for values that do not fit, and where nothing is asked in the end.
    """
    asked = call.request.template
    if asked is None:
        return call
    version = _version_of(asked, call.snapshot.templates)
    values = _values_of(asked, version, has_documents=bool(call.request.documents))
    messages = (*_filled(version, values), *call.request.messages)
    if all(message.role is Role.SYSTEM for message in messages):
        raise _invalid("completion.messages", "must have a message: this template gives instructions and asks nothing")
    request = replace(
        call.request,
        messages=messages,
        generation=with_defaults(call.request.generation, version.generation),
        template=TemplateRef(asked.name, version.number, values),
    )
    return replace(call, request=request)


def fill(version: TemplateVersion, values: Mapping[str, Value]) -> tuple[Message, ...]:
    """The template's messages with these values, without blanks at their ends; one that is blank is left out.

    Raises `TooLongError`.
    """
    filler = Filler(values)
    filled = [(message.role, filler.fill(message.nodes).strip()) for message in version.messages]
    return tuple(Message(role, (TextPart(text),)) for role, text in filled if text)


def with_defaults(wanted: GenerationConfig, defaults: GenerationConfig) -> GenerationConfig:
    """What the request sets, and the template's word on the rest; temperature and top_p are one matter."""
    if wanted.temperature is not None or wanted.top_p is not None:
        defaults = replace(defaults, temperature=None, top_p=None)
    unset = [one.name for one in fields(wanted) if getattr(wanted, one.name) == getattr(_UNSET, one.name)]
    return replace(wanted, **{name: getattr(defaults, name) for name in unset})


def _version_of(asked: TemplateRef, templates: Mapping[str, Template]) -> TemplateVersion:
    template = templates.get(asked.name)
    if template is None:
        raise _invalid("completion.template.name", "names no template of this service; check its spelling")
    version = template.versions.get(asked.version or template.current)
    if version is None:
        numbers = ", ".join(map(str, sorted(template.versions)))
        raise _invalid("completion.template.version", f"is none of the template's versions {numbers}; 0 is the current")
    return version


def _values_of(asked: TemplateRef, version: TemplateVersion, *, has_documents: bool) -> dict[str, Value]:
    values, problems = read_values(version.variables, asked.variables)
    if version.needs_documents and not has_documents:
        problems.append(FieldProblem("completion.documents", "must not be empty: this template is about documents"))
    if problems:
        raise InvalidRequest(tuple(problems[:_MOST_PROBLEMS]))
    return values


def _filled(version: TemplateVersion, values: Mapping[str, Value]) -> tuple[Message, ...]:
    try:
        return fill(version, values)
    except TooLongError:
        remedy = f"fill the template to more than {MOST_CHARACTERS} characters; send shorter values"
        raise _invalid(PATH, remedy) from None


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest((FieldProblem(field, description),))
