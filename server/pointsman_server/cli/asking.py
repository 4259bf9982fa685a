"""What `route` and `complete` can be asked: their common arguments and options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import click

from pointsman.v1.completion_pb2 import Capability, DataClass, Message, Part, Tier
from pointsman_client import RouteOptions, image_from_path, user
from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.server_option import Server, server_option
from pointsman_server.cli.templating import TEMPLATE_OPTIONS, documents_of, template_of

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for this server."""

    server: Server
    messages: Sequence[Message]
    options: RouteOptions


def ask_options(command: Command) -> Command:
    """Gives a command the argument PROMPT and all options of a question; `read_ask` reads what they collect."""
    command = server_option(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_ask(asked: dict[str, Any]) -> Ask:
    """The question that the collected options make; raises `ConfigurationError` for what is unreadable."""
    template = template_of(asked)
    if asked["prompt"] is None and template is None:
        raise click.UsageError("Missing argument 'PROMPT|-'; only a template can do without it.")
    with wrong_usage():
        parts = [*_prompt_parts(asked["prompt"]), *(image_from_path(file) for file in asked["image"])]
        documents = documents_of(asked)
    given = {name: asked[option] for option, name in _FIELDS.items() if asked[option] not in (None, ())}
    if asked["label"]:
        given["labels"] = dict(asked["label"])
    if template is not None:
        given["template"] = template
    if documents:
        given["documents"] = documents
    return Ask(asked["server"], [user(*parts)] if parts else [], cast("RouteOptions", given))


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Turns the errors of files that cannot be read and options that cannot be sent into `ConfigurationError`."""
    try:
        yield
    except UnicodeError as error:
        raise ConfigurationError("the prompt or a document is not UTF-8 text") from error
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from error


def _prompt_parts(prompt: str | None) -> Sequence[str | Part]:
    if prompt != "-":
        return [] if prompt is None else [prompt]
    return [sys.stdin.buffer.read().decode().rstrip("\n")]


def names_of(enum: Any, prefix: str) -> click.Choice[str]:
    """The values of one of the contract's enums, as people write them."""
    return click.Choice([name.removeprefix(prefix).lower() for name in enum.keys()[1:]])


def label_pairs(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> list[tuple[str, str]]:
    """A callback of an option that takes KEY=VALUE again and again."""
    pairs = [item.partition("=") for item in value]
    if not all(equals for _, equals, _ in pairs):
        raise click.BadParameter("write it as key=value", ctx, param)
    return [(key, text) for key, _, text in pairs]


_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.argument("prompt", metavar="[PROMPT|-]", required=False),
    click.option("--system", metavar="TEXT", help="Instructions put before the prompt."),
    click.option("--image", metavar="FILE", multiple=True, help="An image that belongs to the prompt; repeatable."),
    click.option("--tier", type=names_of(Tier, "TIER_"), help="The model strength wanted."),
    click.option("--deployment", metavar="NAME", help="Pin a deployment by id or alias."),
    click.option("--quality-bias", type=float, metavar="0…1", help="0: the cheapest acceptable model, 1: the best."),
    click.option("--max-cost-micro-usd", type=int, metavar="N", help="Most the call may cost, in millionths of a $."),
    click.option("--data-class", type=names_of(DataClass, "DATA_CLASS_"), help="How sensitive the data is."),
    click.option(
        "--require", type=names_of(Capability, "CAPABILITY_"), multiple=True, help="A capability needed; repeatable."
    ),
    click.option("--allow", metavar="NAME", multiple=True, help="Only deployments allowed so; repeatable."),
    click.option("--deny", metavar="NAME", multiple=True, help="A deployment not to use; repeatable."),
    click.option("--label", metavar="KEY=VALUE", multiple=True, callback=label_pairs, help="A label; repeatable."),
    *TEMPLATE_OPTIONS,
)  # fmt: skip

_FIELDS = {
    "system": "system",
    "tier": "tier",
    "deployment": "deployment",
    "quality_bias": "quality_bias",
    "max_cost_micro_usd": "max_cost_micro_usd",
    "data_class": "data_class",
    "require": "required_capabilities",
    "allow": "allowed_deployments",
    "deny": "denied_deployments",
}
"""The client's option for each of ours."""
