from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from pointsman.v1 import completion_pb2 as pb
from pointsman_server.domain.errors import FieldProblem
from pointsman_server.rpc.checks import (
    check_conflicts,
    check_conversation,
    check_documents,
    check_durations,
    check_generation,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"rows" + b"IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff" + b"rows" + b"\xff\xd9"
GIF = b"GIF89a" + b"rows" + b";"
WEBP = b"RIFF" + (8).to_bytes(4, "little") + b"WEBP" + b"rows"
IMAGES = {"image/png": PNG, "image/jpeg": JPEG, "image/gif": GIF, "image/webp": WEBP}


def told(problems: Any) -> list[str]:
    found: list[FieldProblem] = list(problems)
    assert all(problem.description for problem in found)
    return [problem.field for problem in found]


def struct(content: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(content)
    return made


def text(value: str) -> pb.Part:
    return pb.Part(text=value)


def calls(*ids: str) -> pb.Message:
    return pb.Message(role=pb.ROLE_ASSISTANT, parts=[pb.Part(tool_call=pb.ToolCall(id=name, name="f")) for name in ids])


def results(*ids: str) -> pb.Message:
    return pb.Message(role=pb.ROLE_TOOL, parts=[pb.Part(tool_result=pb.ToolResult(tool_call_id=name)) for name in ids])


def says(role: pb.Role.ValueType, *parts: pb.Part) -> pb.Message:
    return pb.Message(role=role, parts=parts or [text("hello")])


USER, SYSTEM, ASSISTANT, TOOL = pb.ROLE_USER, pb.ROLE_SYSTEM, pb.ROLE_ASSISTANT, pb.ROLE_TOOL
PARTS: dict[str, Callable[[], pb.Part]] = {
    "text": lambda: text("x"),
    "image": lambda: pb.Part(image=pb.Image(data=PNG, media_type="image/png")),
    "tool_call": lambda: pb.Part(tool_call=pb.ToolCall(id="new", name="f")),
    "tool_result": lambda: pb.Part(tool_result=pb.ToolResult(tool_call_id="asked")),
    "reasoning": lambda: pb.Part(reasoning=pb.Reasoning(text="hm")),
    "opaque": lambda: pb.Part(opaque=pb.Opaque(dialect="d", json="{}")),
}
BELONGS = {
    "text": {SYSTEM, USER, ASSISTANT},
    "image": {USER},
    "tool_call": {ASSISTANT},
    "tool_result": {TOOL},
    "reasoning": {ASSISTANT},
    "opaque": {ASSISTANT},
}


class TestConversation:
    def test_the_parts_are_those_of_the_contract(self) -> None:
        assert {field.name for field in pb.Part.DESCRIPTOR.oneofs_by_name["content"].fields} == set(PARTS)

    @pytest.mark.parametrize("role", [SYSTEM, USER, ASSISTANT, TOOL], ids=pb.Role.Name)
    @pytest.mark.parametrize("kind", PARTS)
    def test_each_kind_of_part_belongs_to_certain_roles(self, kind: str, role: pb.Role.ValueType) -> None:
        spec = pb.CompletionSpec(messages=[says(USER), calls("asked"), says(role, PARTS[kind]())])
        found = list(check_conversation(spec))
        if role in BELONGS[kind]:
            assert found == []
        else:
            assert [problem.field for problem in found] == [f"completion.messages[2].parts[0].{kind}"]
            assert pb.Role.Name(role) in found[0].description

    def test_there_must_be_one(self) -> None:
        assert told(check_conversation(pb.CompletionSpec())) == ["completion.messages"]

    def test_instructions_alone_ask_nothing(self) -> None:
        assert told(check_conversation(pb.CompletionSpec(messages=[says(SYSTEM), says(SYSTEM)]))) == [
            "completion.messages"
        ]
        assert told(check_conversation(pb.CompletionSpec(messages=[says(SYSTEM), says(USER)]))) == []

    def test_a_message_says_something(self) -> None:
        blank = says(USER, text(" "), text("\u200b"))
        assert told(check_conversation(pb.CompletionSpec(messages=[blank]))) == ["completion.messages[0].parts"]
        seen = says(USER, text(" "), PARTS["image"]())
        assert told(check_conversation(pb.CompletionSpec(messages=[seen]))) == []

    @pytest.mark.parametrize(
        ("messages", "fields"),
        [
            ([calls("a", "b"), results("b", "a")], []),
            ([calls("a"), results("a"), calls("b"), results("b")], []),
            ([calls("a", "a")], ["completion.messages[0].parts[1].tool_call.id"]),
            ([calls("a"), results("a"), calls("a")], ["completion.messages[2].parts[0].tool_call.id"]),
            ([results("a"), calls("a")], ["completion.messages[0].parts[0].tool_result.tool_call_id"]),
            ([calls("a"), results("a", "a")], ["completion.messages[1].parts[1].tool_result.tool_call_id"]),
        ],
    )
    def test_results_answer_calls_once(self, messages: list[pb.Message], fields: list[str]) -> None:
        assert told(check_conversation(pb.CompletionSpec(messages=[*messages]))) == fields


class TestImages:
    @pytest.mark.parametrize("media_type", IMAGES)
    @pytest.mark.parametrize("content", IMAGES)
    def test_the_bytes_are_what_the_type_says(self, media_type: str, content: str) -> None:
        part = pb.Part(image=pb.Image(data=IMAGES[content], media_type=media_type))
        fields = told(check_conversation(pb.CompletionSpec(messages=[says(USER, part)])))
        assert fields == ([] if content == media_type else ["completion.messages[0].parts[0].image.data"])

    @pytest.mark.parametrize("media_type", IMAGES)
    def test_a_cut_image_is_none(self, media_type: str) -> None:
        part = pb.Part(image=pb.Image(data=IMAGES[media_type][:-8], media_type=media_type))
        assert told(check_conversation(pb.CompletionSpec(messages=[says(USER, part)])))

    def test_an_unknown_type_is_none(self) -> None:
        part = pb.Part(image=pb.Image(data=PNG, media_type="image/tiff"))
        assert told(check_conversation(pb.CompletionSpec(messages=[says(USER, part)])))


SOUND_SCHEMAS: dict[str, dict[str, Any]] = {
    "empty": {},
    "usual": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]},
    "draft 7": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
    "newest draft": {"$schema": "https://json-schema.org/draft/2020-12/schema"},
    "reference": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
    "references twice": {"properties": {n: {"$ref": "#/$defs/a~1b"} for n in "xy"}, "$defs": {"a/b": {"type": "null"}}},
    "chain of references": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {}}},
    "reference into a list": {"anyOf": [{"type": "null"}, {"items": {"$ref": "#/anyOf/0"}}]},
    "property called $ref": {"properties": {"$ref": {"type": "string"}}},
    "huge numbers": {"minimum": -1e30, "maximum": 1e300},
    "lists": {"anyOf": [{"type": "string"}, {"enum": [1, None, "a"]}]},
}
WRONG_SCHEMAS: dict[str, dict[str, Any]] = {
    "no type": {"type": "nonsense"},
    "type of a type": {"type": 5},
    "negative length": {"minLength": -1},
    "to itself": {"properties": {"a": {"$ref": "#/properties/a"}}},
    "to the root": {"properties": {"a": {"$ref": "#"}}},
    "to a parent": {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "in a list": {"allOf": [{"$ref": "#/nowhere"}]},
    "to nowhere": {"$ref": "#/$defs/missing"},
    "past the end of a list": {"anyOf": [{"$ref": "#/anyOf/7"}]},
    "through a text": {"$ref": "#/title/x", "title": "t"},
    "to another document": {"$ref": "other.json"},
    "to another server": {"$ref": "http://127.0.0.1:9/schema"},
    "unknown draft": {"$schema": "zz"},
    "unknown draft elsewhere": {"$schema": "https://example.com/draft"},
    "draft is no text": {"$schema": 7},
    "too long a chain": {
        "$ref": "#/$defs/d0",
        "$defs": {**{f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(40)}, "d40": {}},
    },
}


class TestSchemas:
    @pytest.mark.parametrize("name", SOUND_SCHEMAS)
    def test_sound(self, name: str) -> None:
        schema = struct(SOUND_SCHEMAS[name])
        config = pb.GenerationConfig(tools=[pb.Tool(name="f", parameters=schema)], response_schema=schema)
        assert told(check_generation(config)) == []

    @pytest.mark.parametrize("name", WRONG_SCHEMAS)
    def test_wrong(self, name: str) -> None:
        schema = struct(WRONG_SCHEMAS[name])
        config = pb.GenerationConfig(
            tools=[pb.Tool(name="e"), pb.Tool(name="f", parameters=schema)], response_schema=schema
        )
        assert told(check_generation(config)) == [
            "completion.generation.tools[1].parameters",
            "completion.generation.response_schema",
        ]

    @pytest.mark.parametrize("key", ["$schema", "$ref", "$id", "$dynamicRef"])
    async def test_no_address_in_a_schema_is_ever_called(self, key: str) -> None:
        connections = 0

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            writer.close()

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            schema = struct({key: f"http://127.0.0.1:{port}/schema", "type": "object"})
            await asyncio.to_thread(lambda: list(check_generation(pb.GenerationConfig(response_schema=schema))))
            await asyncio.sleep(0.05)
        assert connections == 0


class TestTools:
    def test_names_differ(self) -> None:
        tools = [pb.Tool(name="f"), pb.Tool(name="g"), pb.Tool(name="f")]
        assert told(check_generation(pb.GenerationConfig(tools=tools))) == ["completion.generation.tools"]

    @pytest.mark.parametrize(
        ("mode", "name", "field"),
        [
            (pb.TOOL_CHOICE_MODE_UNSPECIFIED, "", None),
            (pb.TOOL_CHOICE_MODE_AUTO, "", None),
            (pb.TOOL_CHOICE_MODE_NONE, "", None),
            (pb.TOOL_CHOICE_MODE_REQUIRED, "", None),
            (pb.TOOL_CHOICE_MODE_NAMED, "f", None),
            (pb.TOOL_CHOICE_MODE_NAMED, "g", "name"),
            (pb.TOOL_CHOICE_MODE_NAMED, "", "name"),
            (pb.TOOL_CHOICE_MODE_AUTO, "f", "name"),
            (pb.TOOL_CHOICE_MODE_REQUIRED, "f", "name"),
        ],
    )
    def test_the_choice_fits_the_tools(self, mode: pb.ToolChoiceMode.ValueType, name: str, field: str | None) -> None:
        config = pb.GenerationConfig(tools=[pb.Tool(name="f")], tool_choice=pb.ToolChoice(mode=mode, name=name))
        expected = [] if field is None else [f"completion.generation.tool_choice.{field}"]
        assert told(check_generation(config)) == expected

    def test_a_tool_cannot_be_required_where_there_is_none(self) -> None:
        config = pb.GenerationConfig(tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED))
        assert told(check_generation(config)) == ["completion.generation.tool_choice.mode"]


class TestConflicts:
    @pytest.mark.parametrize(
        ("spec", "fields"),
        [
            (pb.CompletionSpec(generation=pb.GenerationConfig(temperature=0.0)), []),
            (pb.CompletionSpec(generation=pb.GenerationConfig(top_p=1.0)), []),
            (
                pb.CompletionSpec(generation=pb.GenerationConfig(temperature=0.0, top_p=1.0)),
                ["completion.generation.top_p"],
            ),
            (
                pb.CompletionSpec(deployment="a", constraints=pb.RoutingConstraints(denied_deployments=["b"])),
                [],
            ),
            (
                pb.CompletionSpec(deployment="a", constraints=pb.RoutingConstraints(denied_deployments=["a"])),
                ["completion.deployment"],
            ),
            (
                pb.CompletionSpec(deployment="a", constraints=pb.RoutingConstraints(allowed_deployments=["a"])),
                [],
            ),
            (
                pb.CompletionSpec(deployment="a", constraints=pb.RoutingConstraints(allowed_deployments=["b"])),
                ["completion.deployment"],
            ),
        ],
    )
    def test_fields_that_contradict_each_other(self, spec: pb.CompletionSpec, fields: list[str]) -> None:
        assert told(check_conflicts(spec)) == fields


class TestDurations:
    @pytest.mark.parametrize(
        ("seconds", "nanos", "right"), [(1, 0, True), (0, 1, True), (0, 0, False), (-1, 0, False), (0, -1, False)]
    )
    def test_they_are_positive(self, seconds: int, nanos: int, right: bool) -> None:
        duration = Duration(seconds=seconds, nanos=nanos)
        limits = pb.RoutingConstraints(max_first_token_latency=duration)
        spec = pb.CompletionSpec(constraints=limits, cache=pb.CacheControl(ttl=duration))
        expected = ["completion.constraints.max_first_token_latency", "completion.cache.ttl"]
        assert told(check_durations(spec)) == ([] if right else expected)

    def test_unset_is_right(self) -> None:
        assert told(check_durations(pb.CompletionSpec())) == []


def test_documents_have_ids_of_their_own() -> None:
    texts = [pb.Document(id=name, text="x") for name in ("a", "b", "a", "a")]
    assert told(check_documents(pb.CompletionSpec(documents=texts))) == [
        "completion.documents[2].id",
        "completion.documents[3].id",
    ]
    assert told(check_documents(pb.CompletionSpec(documents=texts[:2]))) == []


def test_a_template_may_stand_for_messages() -> None:
    assert told(check_conversation(pb.CompletionSpec(template=pb.TemplateRef(name="t")))) == []
    instructions = [says(SYSTEM)]  # the template may be what asks
    assert told(check_conversation(pb.CompletionSpec(template=pb.TemplateRef(name="t"), messages=instructions))) == []
