"""Prompt templates over the wire: filled, recorded, and never a way to run anything."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import jsonschema_rs
import pytest
import yaml

from kit.command_line import Cli, simulated_policy
from kit.running import RichError, connected, load_for_test, router, running_service, spec, user
from kit.templating import GREET
from kit.upstream import HELLO, Upstream, json_script, running_upstream
from pointsman.v1 import completion_pb2 as pb
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_client import document, system, template
from pointsman_server.adapters.stores.decision_file import DECISIONS
from pointsman_server.config.policy_file import LoadedPolicy, compile_policy
from pointsman_server.config.templates import built_in_templates
from pointsman_server.domain.catalog import Snapshot

SORT: Mapping[str, Any] = {
    "versions": {
        "3": {
            "variables": {"by": {"type": "enum", "choices": ["name", "age"], "default": "name"}},
            "messages": [{"system": "Sort by {{ by }}."}],
            "response_schema": {"type": "object"},
            "generation": {"max_output_tokens": 7},
        }
    }
}
TEMPLATES = {"greet": GREET, "sort": SORT}
RESULTS = {"results": [{"document_id": "d1", "score": 0.9, "reason": "It fits."}]}


def filled(reference: pb.TemplateRef, *messages: pb.Message, **fields: Any) -> pb.CompletionSpec:
    return pb.CompletionSpec(template=reference, messages=messages, **fields)


def says(content: str) -> dict[str, Any]:
    """A provider's answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {**HELLO, "choices": [choice]}


def simulated() -> LoadedPolicy:
    return load_for_test({**json.loads(simulated_policy("sim-fast")), "templates": TEMPLATES})


@asynccontextmanager
async def house(content: str = "Hello world", **settings: Any) -> AsyncGenerator[tuple[Any, Upstream], None]:
    """The router's stub, and the provider behind it."""
    async with running_upstream(json_script(says(content))) as upstream:
        policy = json.loads(simulated_policy("sim-fast"))
        policy["providers"] = {"sim-fast-account": {"dialect": "openai_chat", "base_url": upstream.base_url}}
        loaded = load_for_test({**policy, "templates": TEMPLATES})
        async with running_service(loaded, **settings) as service, connected(service) as channel:
            yield router(channel), upstream


async def refused(stub: Any, asked: pb.CompletionSpec) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Complete(CompleteRequest(completion=asked))
    return RichError(caught.value)


def turns(upstream: Upstream) -> list[tuple[str, str]]:
    """What the provider was sent last."""
    return [(message["role"], message["content"]) for message in upstream.bodies[-1]["messages"]]


async def test_the_simulated_provider_answers_a_template_and_the_decision_names_it() -> None:
    async with running_service(simulated()) as service, connected(service) as channel:
        stub, asked = router(channel), filled(template("greet", {"name": "Ada"}))
        answer = await stub.Complete(CompleteRequest(completion=asked))
        routed = await stub.Route(RouteRequest(completion=filled(template("greet", {"name": "Ada"}, version=1))))
        events = [event async for event in stub.StreamComplete(StreamCompleteRequest(completion=asked))]
        without = await stub.Route(RouteRequest(completion=spec()))
    assert answer.message.parts[0].text
    assert answer.decision.template == "greet@2"
    assert routed.decision.template == "greet@1"
    assert events[0].decision.template == events[-1].completed.decision.template == "greet@2"
    assert without.decision.template == ""


async def test_the_provider_is_sent_the_filled_template_before_the_messages() -> None:
    async with house() as (stub, upstream):
        asked = filled(template("greet", {"name": "Ada", "formal": True}), user("Well?"))
        await stub.Complete(CompleteRequest(completion=asked))
    assert turns(upstream) == [("system", "Be formal."), ("user", "Say hello to Ada."), ("user", "Well?")]


async def test_instructions_alone_may_stand_beside_a_template_that_asks() -> None:
    async with house() as (stub, upstream):
        asked = filled(template("greet", {"name": "Ada"}), system("Be brief."))
        await stub.Complete(CompleteRequest(completion=asked))
        error = await refused(stub, filled(template("sort"), system("Be brief.")))
    assert turns(upstream) == [("user", "Say hello to Ada."), ("system", "Be brief.")]
    assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["completion.messages"])


async def test_the_templates_form_holds_unless_the_request_has_its_own() -> None:
    async with house('{"a": 1}') as (stub, upstream):
        await stub.Complete(CompleteRequest(completion=filled(template("sort"), user("b, a"))))
        assert upstream.bodies[-1]["response_format"]["type"] == "json_schema"
        assert 7 in upstream.bodies[-1].values()
        own = pb.GenerationConfig(max_output_tokens=9)
        await stub.Complete(CompleteRequest(completion=filled(template("sort"), user("b, a"), generation=own)))
        assert upstream.bodies[-1]["response_format"]["type"] == "json_schema"
        assert 9 in upstream.bodies[-1].values()


async def test_a_decision_of_a_template_can_be_followed() -> None:
    async with house() as (stub, upstream):
        asked = filled(template("greet", {"name": "Ada"}))
        routed = await stub.Route(RouteRequest(completion=asked))
        answer = await stub.Complete(CompleteRequest(completion=asked, decision_id=routed.decision.decision_id))
    assert answer.decision.decision_id == routed.decision.decision_id
    assert answer.decision.template == "greet@2"
    assert turns(upstream) == [("user", "Say hello to Ada.")]


@pytest.mark.parametrize(
    ("reference", "fields"),
    [
        (template("greed", {"name": "Ada"}), ["completion.template.name"]),
        (template("greet", {"name": "Ada"}, version=9), ["completion.template.version"]),
        (template("greet"), ["completion.template.variables.name"]),
        (template("greet", {"name": 5}), ["completion.template.variables.name"]),
        (template("greet", {"name": None}), ["completion.template.variables.name"]),
        (template("greet", {"name": "CANARY" * 2_000}), ["completion.template.variables.name"]),
        (template("greet", {"name": "A", "CANARY 1": 1}), ["completion.template.variables"]),
        (template("sort", {"by": "CANARY"}), ["completion.template.variables.by"]),
        (template("semantic_search", {"query": "CANARY", "limit": 1_000}), [
            "completion.template.variables.limit", "completion.documents"
        ]),
    ],
)  # fmt: skip
async def test_what_cannot_be_filled_names_the_field(reference: pb.TemplateRef, fields: list[str]) -> None:
    async with house() as (stub, upstream):
        error = await refused(stub, filled(reference, user("Hello?")))
    assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, fields)
    assert "CANARY" not in error.everything()
    assert "sort" not in error.message
    assert upstream.calls == 0


HOSTILE = (
    "{{7*7}}",
    "{{ name }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{% include '/etc/passwd' %}",
    "${7*7} #{7*7} <%= 7*7 %> {7*7}",
)


@pytest.mark.parametrize("value", HOSTILE)
async def test_ghsa_xqmj_j6mv_4862_a_value_is_text_and_never_a_template(value: str) -> None:
    async with house() as (stub, upstream):
        asked = filled(template("greet", {"name": value}), user(value))
        answer = await stub.Complete(CompleteRequest(completion=asked))
    assert turns(upstream) == [("user", f"Say hello to {value}."), ("user", value)]
    assert answer.decision.template == "greet@2"


async def test_a_task_is_asked_with_its_form() -> None:
    async with house(json.dumps(RESULTS)) as (stub, upstream):
        asked = filled(
            template("semantic_search", {"query": "refund"}), documents=[document("d1", "Refunds are paid.")]
        )
        answer = await stub.Complete(CompleteRequest(completion=asked))
    assert json.loads(answer.message.parts[0].text) == RESULTS
    assert answer.decision.template == "semantic_search@1"
    assert "Query: refund" in json.dumps(upstream.bodies[-1]["messages"])
    assert upstream.bodies[-1]["response_format"]["type"] == "json_schema"


BOOKS = [
    document("lighthouse", "A crime novel: who switched off the lighthouse above the sea?"),
    document("harbour", "A crime novel that is set in a harbour."),
    document("cooking", "A hundred soups."),
]


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        (template("semantic_search", {"query": "crime novel by the sea"}), ["lighthouse", "harbour"]),
        (template("semantic_search", {"query": "crime novel by the sea", "limit": 1}), ["lighthouse"]),
        (template("intelligent_search", {"query": "a crime novel, set in a harbour"}), ["harbour", "lighthouse"]),
        (template("recommendations", {"profile": "crime novels", "items_seen": ["harbour"]}), ["lighthouse"]),
        (template("semantic_search", {"query": "gardening"}), []),
    ],
)
async def test_a_task_is_answered_when_every_provider_is_down(
    reference: pb.TemplateRef, found: list[str], tmp_path: Path
) -> None:
    async with (
        running_upstream(json_script({"error": {"message": "boom"}}, 500)) as upstream,
        running_service(with_last_resort(upstream, tmp_path)) as service,
        connected(service) as channel,
    ):
        asked = CompleteRequest(completion=filled(reference, documents=BOOKS))
        answer = await router(channel).Complete(asked)
    assert upstream.calls > 0
    assert answer.attempts[-1].provider == "local"
    assert answer.decision.template == f"{reference.name}@1"
    told = json.loads(answer.message.parts[0].text)
    schema = built_in_templates()[reference.name].versions[1].response_schema
    jsonschema_rs.validate(dict(schema or {}), told)
    assert [result["document_id"] for result in told["results"]] == found


def with_last_resort(upstream: Upstream, folder: Path) -> Snapshot:
    """A policy with this provider, and a knowledge base for when it does not answer."""
    (folder / "faq.md").write_text("# When are you open?\n\nFrom nine to five.\n")
    policy = json.loads(simulated_policy("sim-fast"))
    policy["providers"] = {
        "sim-fast-account": {"dialect": "openai_chat", "base_url": upstream.base_url},
        "faq": {"dialect": "local_knowledge", "knowledge": ["faq.md"]},
    }
    policy["deployments"]["local"] = {"provider": "faq"}
    policy["resilience"] = {"retries": {"attempts_per_deployment": 1}}
    return compile_policy(json.dumps(policy).encode(), str(folder / "policy.yaml"), {}, date(2026, 11, 21)).snapshot


async def test_the_kept_decision_names_the_template_and_none_of_its_values(tmp_path: Path) -> None:
    async with house(state_dir=str(tmp_path)) as (stub, _):
        await stub.Complete(CompleteRequest(completion=filled(template("greet", {"name": "CANARY"}))))
    kept = (tmp_path / DECISIONS).read_text()
    assert json.loads(kept.splitlines()[0])["circumstances"]["facts"]["template"] == "greet@2"
    assert "CANARY" not in kept


def test_preflight_warns_of_an_example_that_does_not_fill(tmp_path: Path) -> None:
    policy = json.loads(simulated_policy("sim-fast"))
    policy["templates"] = {"one": {"versions": {1: {"messages": [{"user": "Hello"}], "example": {"name": "Ada"}}}}}
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy))
    result = Cli()("preflight", "--json", POINTSMAN_POLICY_FILE=str(file), POINTSMAN_GRPC_ADDRESS="127.0.0.1:0")
    checks = json.loads(result.stdout)["checks"]
    (warned,) = [check for check in checks if "example" in check["message"]]
    assert warned["status"] == "warn"
