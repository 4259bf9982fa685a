"""Templates on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.command_line import Cli, serving, simulated_policy
from kit.templating import GREET


@pytest.fixture(scope="module")
def greeter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a pointsman with the template `greet`."""
    policy = {**json.loads(simulated_policy("sim-fast")), "templates": {"greet": GREET}}
    with serving(tmp_path_factory.mktemp("greeter"), json.dumps(policy)) as (_, address):
        yield address


def test_a_template_needs_no_prompt(cli: Cli, greeter: str) -> None:
    result = cli("complete", "--server", greeter, "--template", "greet", "--variable", "name=Ada")
    assert result.exit_code == 0
    assert result.stdout.strip()


def test_the_decision_names_the_template(cli: Cli, greeter: str) -> None:
    result = cli("route", "--server", greeter, "--template", "greet@1", "--variable", "name=Ada", "And a poem.")
    assert "template    greet@1" in result.stdout.splitlines()
    assert "template" not in cli("route", "--server", greeter, "Hello").stdout


def test_texts_and_json_are_told_apart(cli: Cli, greeter: str) -> None:
    asked = ("route", "--server", greeter, "--json", "--template", "greet", "--variable", "name=a:=b=5")
    assert json.loads(cli(*asked, "--variable", "formal:=true").stdout)["decision"]["template"] == "greet@2"
    refused = cli(*asked, "--variable", "formal=true")
    assert refused.exit_code != 0
    assert "completion.template.variables.formal: must be true or false" in refused.stderr


def test_documents_are_read_from_files(cli: Cli, greeter: str, tmp_path: Path) -> None:
    file = tmp_path / "refunds.txt"
    file.write_text("Refunds are paid within two days. Grüße.")
    asked = ("route", "--server", greeter, "--json", "--template", "semantic_search", "--variable", "query=refund")
    assert "completion.documents" in cli(*asked).stderr
    routed = json.loads(cli(*asked, "--document", str(file)).stdout)
    assert routed["decision"]["template"] == "semantic_search@1"


def test_the_servers_word_on_an_unknown_template(cli: Cli, greeter: str) -> None:
    result = cli("route", "--server", greeter, "--template", "greed")
    assert "completion.template.name: names no template of this service" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Missing argument"),
        (("--variable", "a=b", "x"), "name it with --template"),
        (("--template", "@1"), "write it as name or name@version"),
        (("--template", "greet@"), "write it as name or name@version"),
        (("--template", "greet@two"), "write it as name or name@version"),
        (("--template", "greet", "--variable", "name"), "write it as key=text, or as key:=json"),
        (("--template", "greet", "--variable", "name:=Ada"), "what follows name:= is not JSON"),
    ],
)
@pytest.mark.parametrize("command", ["route", "complete"])
def test_wrong_usage_is_told(cli: Cli, command: str, arguments: tuple[str, ...], told: str) -> None:
    result = cli(command, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_document_that_cannot_be_read(cli: Cli, tmp_path: Path) -> None:
    missing = cli("route", "--template", "greet", "--document", str(tmp_path / "none.txt"))
    assert "cannot be read" in missing.stderr
    file = tmp_path / "latin.txt"
    file.write_bytes(b"\xe9\xff")
    assert "is not UTF-8" in cli("route", "--template", "greet", "--document", str(file)).stderr
