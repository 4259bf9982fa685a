"""Reads what a server is told, and says readably what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import click

from pointsman_server.config.policy_file import LoadedPolicy, load_policy
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.settings import Settings, SettingsError

POLICY_VARIABLE = "POINTSMAN_POLICY_FILE"
GRPC_ADDRESS_VARIABLE = "POINTSMAN_GRPC_ADDRESS"


class ConfigurationError(click.ClickException):
    """The environment, the policy or an option is wrong; the exit code is that of any other wrong usage."""

    exit_code = 2


def environment(overrides: Mapping[str, str | None]) -> dict[str, str]:
    """The process's environment with the variables that options override; None overrides nothing."""
    return dict(os.environ) | {name: value for name, value in overrides.items() if value is not None}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings; raises `ConfigurationError` with everything that is wrong."""
    try:
        return Settings.from_environment(environ)
    except SettingsError as error:
        raise ConfigurationError(listed("the settings cannot be used:", error.problems)) from error


def read_policy(file: str, environ: Mapping[str, str]) -> LoadedPolicy:
    """The compiled policy; raises `ConfigurationError` with everything that is wrong."""
    try:
        return load_policy(file, environ)
    except PolicyError as error:
        raise ConfigurationError(listed("the policy cannot be used:", error.problems)) from error


def listed(heading: str, problems: Iterable[object]) -> str:
    """The problems under their heading, one a line."""
    return "\n".join((heading, *(f"  {problem}" for problem in problems)))
