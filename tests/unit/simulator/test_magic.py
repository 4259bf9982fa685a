"""Model names that ask for a behaviour."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman_server.simulator import magic
from pointsman_server.simulator.ask import Ask, OfferedTool, Tally
from pointsman_server.simulator.behaviour import Behaviour, Dialect, Fault
from unit.simulator.wire_client import events


def ask_for(model: str, **fields: Any) -> Ask:
    return Ask(Dialect.OPENAI_CHAT, model, False, [], fields.pop("tally", Tally(characters=80)), **fields)


@pytest.mark.parametrize("model", ["gpt-5", "sim-fast", "sim-unheard-of", "x-sim-slow", ""])
def test_sound_names(model: str) -> None:
    assert magic.behaviour_for(ask_for(model)) == Behaviour()


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_has_a_name(fault: Fault) -> None:
    assert magic.behaviour_for(ask_for(f"sim-fault-{fault.value}")).fault is fault
    assert magic.behaviour_for(ask_for(f"sim-fault-{fault.value.replace('_', '-')}")).fault is fault


def test_unknown_faults_are_unknown_models() -> None:
    assert magic.behaviour_for(ask_for("sim-fault-tyop")).fault is Fault.STATUS_404


def test_tools_are_called_once() -> None:
    tools = (OfferedTool("plan", {}),)
    assert magic.behaviour_for(ask_for("sim-tools", tools=tools)).tool_calls
    assert not magic.behaviour_for(ask_for("sim-tools")).tool_calls
    answered = ask_for("sim-tools", tools=tools, tally=Tally(tool_results=1))
    assert not magic.behaviour_for(answered).tool_calls


def test_every_name_of_the_list_is_documented_and_means_something() -> None:
    documented = magic.__doc__ or ""
    for name in magic.MODEL_NAMES:
        if not name.startswith(magic.FAULT_PREFIX):
            assert f"``{name}``" in documented
        if name != "sim-fast":
            asked = ask_for(name, tools=(OfferedTool("plan", {}),))
            assert magic.behaviour_for(asked) != Behaviour()


async def test_names_on_the_wire(raw: Any) -> None:
    async def answer(model: str) -> Any:
        return (await raw.send(Dialect.OPENAI_CHAT, model=model)).json

    assert (await answer("sim-long"))["usage"]["completion_tokens"] == 1000
    assert (await answer("sim-length"))["choices"][0]["finish_reason"] == "length"
    assert (await answer("sim-filtered"))["choices"][0]["finish_reason"] == "content_filter"
    assert len((await answer("sim-cited"))["choices"][0]["message"]["annotations"]) == 2
    assert (await answer("sim-reasoning"))["choices"][0]["message"]["reasoning_content"]
    assert (await answer("sim-cached"))["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert len(events((await raw.send(Dialect.OPENAI_CHAT, model="sim-fast", stream=True)).body)) > 20


async def test_model_lists(raw: Any) -> None:
    async def listed(path: str, **headers: str) -> Any:
        async with raw.session.get(path, headers=headers) as response:
            assert response.status == 200
            return await response.json()

    openai = await listed("/v1/models")
    assert openai["object"] == "list"
    assert {row["id"] for row in openai["data"]} == set(magic.MODEL_NAMES)
    anthropic = await listed("/v1/models", **{"anthropic-version": "2023-06-01"})
    assert (anthropic["has_more"], anthropic["data"][0]["type"]) == (False, "model")
    gemini = await listed("/v1beta/models")
    assert gemini["models"][0]["name"] == "models/sim-fast"
