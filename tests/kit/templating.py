"""Small prompt templates, and what it takes to fill them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pointsman_server.config.problems import Findings
from pointsman_server.config.section import Spot
from pointsman_server.config.templates import read_templates
from pointsman_server.config.yaml_tree import read_tree
from pointsman_server.domain.message import Message
from pointsman_server.domain.template import Template

GREET: Mapping[str, Any] = {
    "current": 2,
    "versions": {
        "1": {"variables": {"name": {"type": "string"}}, "messages": [{"user": "Greet {{ name }}."}]},
        "2": {
            "variables": {"name": {"type": "string"}, "formal": {"type": "boolean", "default": False}},
            "messages": [
                {"system": "{% if formal %}Be formal.{% endif %}"},
                {"user": "Say hello to {{ name }}."},
            ],
        },
    },
}
"""A template with two versions."""


def policy_section(templates: Mapping[str, Any]) -> str:
    """Templates as a section of a policy file."""
    return f"templates: {json.dumps(templates)}\n"  # JSON is YAML


def templates_of(templates: Mapping[str, Any]) -> dict[str, Template]:
    """The templates, compiled; raises `PolicyError`."""
    findings = Findings("test.yaml")
    root = read_tree(json.dumps(templates).encode(), findings)
    read = Spot(findings, root, "templates", 1).read(read_templates, None)
    findings.raise_if_any()
    assert read is not None
    return read


def said(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    """Who says what."""
    return [(message.role.value, message.text) for message in messages]
