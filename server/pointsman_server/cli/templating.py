"""The options that name a prompt template, fill its variables and give it documents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pointsman.v1.completion_pb2 import Document, TemplateRef
from pointsman_client import document, template

_MOST_VERSION_DIGITS = 9
_VARIABLE = re.compile(r"([^=:]+)(:?=)(.*)", re.DOTALL)


def _reference(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    name, at, version = value.partition("@")
    if not name or (at and not (version.isdecimal() and len(version) <= _MOST_VERSION_DIGITS)):
        raise click.BadParameter("write it as name or name@version, `greet@2`", ctx, param)
    return name, int(version or 0)


def _variables(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for item in value:
        if not (found := _VARIABLE.fullmatch(item)):
            raise click.BadParameter("write it as key=text, or as key:=json", ctx, param)
        key, how, text = found.groups()
        try:
            variables[key] = text if how == "=" else json.loads(text)
        except ValueError:
            raise click.BadParameter(f"what follows {key}:= is not JSON; a text is written as {key}=text") from None
    return variables


TEMPLATE_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--template", metavar="NAME[@VERSION]", callback=_reference, help="A prompt template to put before the prompt."
    ),
    click.option(
        "--variable",
        metavar="KEY=TEXT|KEY:=JSON",
        multiple=True,
        callback=_variables,
        help="A variable of the template; repeatable.",
    ),
    click.option("--document", metavar="FILE", multiple=True, help="A text that the answer is about; repeatable."),
)  # fmt: skip


def template_of(asked: dict[str, Any]) -> TemplateRef | None:
    """The template that the options name; raises `click.UsageError` for variables without one."""
    if asked["template"] is None:
        if asked["variable"]:
            raise click.UsageError("--variable fills a template; name it with --template.")
        return None
    name, version = asked["template"]
    return template(name, asked["variable"], version=version)


def documents_of(asked: dict[str, Any]) -> list[Document]:
    """The documents that the options name, each by its path; raises `OSError` or `UnicodeError`."""
    return [document(path, Path(path).read_bytes().decode()) for path in asked["document"]]
