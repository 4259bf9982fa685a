"""The examples of the guides run."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

import pointsman_client
from pointsman.v1.answer_pb2 import FINISH_REASON_STOP
from pointsman.v1.completion_pb2 import ROLE_TOOL, CompletionSpec, Message
from pointsman_client import assistant, tool_call
from pointsman_client.testing import FakeAsyncClient, FakeClient, InMemoryRouter

ROOT = Path(__file__).resolve().parents[3]
GUIDES = ["client/README.md", "docs/client.md"]


def examples() -> list[Any]:
    return [
        pytest.param(block, id=f"{guide}-{number}")
        for guide in GUIDES
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", (ROOT / guide).read_text(), re.S | re.M))
    ]


def model(completion: CompletionSpec) -> str | Message:
    """Calls the first tool once, otherwise says something."""
    asked = completion.messages[-1]
    if completion.generation.tools and asked.role != ROLE_TOOL:
        return assistant(tool_call("c1", completion.generation.tools[0].name, {"city": "Paris"}))
    return "Take an umbrella." if asked.role == ROLE_TOOL else "Paris"


@pytest.mark.parametrize("example", examples())
def test_an_example_runs(example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    router = InMemoryRouter()
    router.answer_with(model)
    router.embed_with(lambda text: [float(len(text)), 1.0])
    monkeypatch.setenv("POINTSMAN_API_KEY", "pm_example")
    monkeypatch.setattr(time, "sleep", pytest.fail)
    monkeypatch.setattr(pointsman_client, "Client", lambda target, **options: FakeClient(router, **options))
    monkeypatch.setattr(pointsman_client, "AsyncClient", lambda target, **options: FakeAsyncClient(router, **options))
    exec(compile(example, "example", "exec", dont_inherit=True), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    if "print(answer.text" in example or "complete(" in example.partition("print(")[2]:
        assert "Paris" in printed or "umbrella" in printed
    if "finish_reason" in example:
        assert str(FINISH_REASON_STOP) in printed


def test_there_are_examples() -> None:
    assert len(examples()) >= 9


def test_the_guide_names_every_error_and_option_of_the_package() -> None:
    guide = (ROOT / "docs/client.md").read_text()
    kinds = [kind.__name__ for kind in pointsman_client.PointsmanError.__subclasses__()]
    assert [name for name in kinds if f"`{name}`" not in guide] == []
    options = pointsman_client.ClientOptions.__annotations__
    assert [name for name in options if f"`{name}" not in guide] == []
