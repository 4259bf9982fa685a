from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.adapters.answer_checker import (
    COMPILED_SCHEMAS,
    MOST_VIOLATION_CHARACTERS,
    MOST_VIOLATIONS,
    SchemaAnswerChecker,
    _compile,
)
from pointsman_server.domain.checked import Checked

PERSON: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
ADA = '{"name": "Ada", "age": 36}'
ANYTHING: Mapping[str, Any] = {}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def check(text: str, schema: Mapping[str, Any] = PERSON) -> Checked:
    return SchemaAnswerChecker().check(schema, text)


class TestWhatFits:
    def test_it_stays_as_it_is(self) -> None:
        assert check(ADA) == Checked((), ADA)

    @pytest.mark.parametrize("text", [f"\n {ADA}\t\r\n", f"{ADA}\n"])
    def test_blanks_around_it_are_part_of_json(self, text: str) -> None:
        assert check(text) == Checked((), text)

    @pytest.mark.parametrize(
        "text",
        [
            f"```json\n{ADA}\n```",
            f"```\n{ADA}\n```",
            f"  ```JSON \n\n{ADA}\n\n```  \n",
            f"````json\n{ADA}\n````",
            f"```json\r\n{ADA}\r\n```",
            f"\ufeff{ADA}",
            f"\u00a0{ADA}\u2028",
            f"\ufeff```json\n{ADA}```",
        ],
    )
    def test_what_is_around_it_is_left_out(self, text: str) -> None:
        assert check(text) == Checked((), ADA)

    def test_a_fence_within_a_string_is_the_answers_own(self) -> None:
        text = orjson.dumps("```json\n{}\n```").decode()
        assert check(text, ANYTHING) == Checked((), text)

    @examples(100)
    @given(JSON, st.sampled_from(["", "json", "JSON"]))
    def test_any_json_passes_and_any_fence_comes_off(self, value: object, language: str) -> None:
        text = orjson.dumps(value).decode()
        assert check(text, ANYTHING) == Checked((), text)
        assert check(f"```{language}\n{text}\n```", ANYTHING) == Checked((), text)


class TestWhatIsNoJson:
    @pytest.mark.parametrize(
        "text",
        [
            "The person is Ada.",
            f"Here you are:\n```json\n{ADA}\n```",
            f"```json\n{ADA}\n```\nAnything else?",
            f"```json {ADA} ```",
            f"```json\n{ADA}\n````",
            f"```a b\n{ADA}\n```",
            f"```\n```json\n{ADA}\n```\n```",
            f"{ADA} {ADA}",
            ADA[:-1],
            "{'name': 'Ada'}",
            "NaN",
            "[1, 2,]",
            "[" * 100_000,
            "```",
            "``````",
            '"\ud800"',
            "\x00",
        ],
    )
    def test_it_is_one_violation_that_names_the_place(self, text: str) -> None:
        checked = check(text)
        (violation,) = checked.violations
        assert violation.startswith("(root): the answer is not JSON alone: ")
        assert "line" in violation or "surrogates" in violation
        assert "Ada" not in violation
        assert (checked.normalised_text, checked.schema_checked) == (text, True)

    @pytest.mark.parametrize("text", ["", " \n\t", "\u00a0"])
    def test_an_empty_one_is_called_so(self, text: str) -> None:
        assert check(text) == Checked(("(root): the answer is empty, not JSON",), text)

    @examples(100)
    @given(st.text(max_size=200))
    def test_any_text_is_judged(self, text: str) -> None:
        checked = check(text)
        assert checked.violations
        assert checked.normalised_text in text


class TestWhatDoesNotFit:
    def test_each_is_named_by_its_place(self) -> None:
        checked = check('{"name": "", "age": "old", "tags": ["a", "c"], "x/~y": 1}')
        assert set(checked.violations) == {
            "(root): Additional properties are not allowed ('x/~y' was unexpected)",
            '/name: "" is shorter than 1 character',
            '/age: "old" is not of type "integer" (in one of the allowed forms)',
            '/age: "old" is not of type "null" (in one of the allowed forms)',
            '/tags/1: "c" is not one of "a" or "b"',
        }
        assert checked.schema_checked

    def test_a_place_is_a_json_pointer(self) -> None:
        schema = {"additionalProperties": {"type": "string"}}
        assert check('{"a/b~c": 1}', schema).violations == ('/a~1b~0c: 1 is not of type "string"',)

    def test_inside_of_a_fence_too(self) -> None:
        checked = check('```json\n{"name": "Ada"}\n```')
        assert checked == Checked(('(root): "age" is a required property',), '{"name": "Ada"}')

    def test_where_nothing_more_can_be_said(self) -> None:
        assert check("1", {"oneOf": [{"type": "integer"}, {"minimum": 0}]}).violations
        assert check("1", {"not": {"type": "integer"}}).violations
        assert check("1", {"allOf": [{"minimum": 2}, {"minimum": 3}]}).violations

    def test_their_number_and_length_are_bounded(self) -> None:
        schema = {"items": {"type": "integer"}}
        checked = check(orjson.dumps([f"{number}" + "x" * 2_000 for number in range(40)]).decode(), schema)
        assert len(checked.violations) == MOST_VIOLATIONS
        for number, violation in enumerate(checked.violations):
            assert len(violation) == MOST_VIOLATION_CHARACTERS
            assert violation.startswith(f'/{number}: "{number}xxx')
            assert violation.endswith('xxx" is not of type "integer"')


class TestBounds:
    def took(self, text: str, schema: Mapping[str, Any]) -> tuple[Checked, float]:
        check("null", schema)
        started_at = time.process_time()
        checked = check(text, schema)
        return checked, time.process_time() - started_at

    def test_a_megabyte_that_fits(self) -> None:
        checked, seconds = self.took(orjson.dumps(list(range(150_000))).decode(), {"items": {"type": "integer"}})
        assert checked.violations == ()
        assert checked.schema_checked
        assert seconds < 2

    @pytest.mark.parametrize("schema", [{"items": {"type": "null"}}, {"type": "null"}, {"maxItems": 3}])
    def test_a_megabyte_that_is_all_wrong(self, schema: Mapping[str, Any]) -> None:
        checked, seconds = self.took(orjson.dumps(list(range(150_000))).decode(), schema)
        assert checked.violations == ("(root): the answer does not fit the schema",)
        assert seconds < 2

    def test_choices_within_choices(self) -> None:
        schema: Mapping[str, Any] = {"type": "integer"}
        for _ in range(8):
            schema = {"anyOf": [schema, schema]}
        checked, seconds = self.took(orjson.dumps(["q"] * 1_000).decode(), {"items": schema})
        assert checked.violations == ("(root): the answer does not fit the schema",)
        assert seconds < 2

    def test_references_that_unfold_without_end(self) -> None:
        definitions: dict[str, Any] = {"d31": {"type": "integer"}}
        for number in range(31):
            both = {"$ref": f"#/$defs/d{number + 1}"}
            definitions[f"d{number}"] = {"anyOf": [both, both]}
        checked, seconds = self.took('"x"', {"$defs": definitions, "$ref": "#/$defs/d0"})
        assert checked == Checked((), '"x"', schema_checked=False)
        assert seconds < 2

    def test_a_reference_back_to_itself(self) -> None:
        schema = {"$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}
        assert check("[[1]]", schema) == Checked((), "[[1]]", schema_checked=False)

    @pytest.mark.parametrize("depth", [200, 300, 1_000])
    def test_deep_answers(self, depth: int) -> None:
        text = "[" * depth + "]" * depth
        assert check(text, {"type": "array"}) == Checked((), text)
        checked = check(text, {"type": "object"})
        assert len(checked.violations) == 1
        assert checked.violations[0].startswith("(root): ")
        pair = f"[{text},{text[1:-1]}]"
        assert check(pair, {"uniqueItems": True}) == Checked((), pair, schema_checked=depth < 255)

    def test_too_deep_answers(self) -> None:
        (violation,) = check("[" * 2_000 + "]" * 2_000, {"type": "array"}).violations
        assert "depth" in violation

    def test_a_pattern_that_would_backtrack_forever(self) -> None:
        text = orjson.dumps(["a" * 2_000 + "!"] * 100).decode()
        checked, seconds = self.took(text, {"items": {"pattern": "^(a+)+$"}})
        assert len(checked.violations) == MOST_VIOLATIONS
        assert seconds < 2

    def test_a_pattern_that_looks_ahead(self) -> None:
        schema = {"pattern": r"^(?=.*[A-Z])(?=.*\d).{8,}$"}
        assert check('"Passw0rd"', schema) == Checked((), '"Passw0rd"')
        assert check('"password"', schema).violations

    def test_a_pattern_that_is_none(self) -> None:
        assert check('"a"', {"pattern": "(?<=a"}) == Checked((), '"a"', schema_checked=False)
        assert check("a", {"pattern": "(?<=a"}).violations


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        for schema in (
            {"$ref": address},
            {"$dynamicRef": address},
            {"$schema": address},
            {"$ref": "file:///etc/hostname"},
            {"items": {"$ref": f"{address}#/$defs/a"}},
        ):
            assert check("[1]", schema) == Checked((), "[1]", schema_checked=False)
        with pytest.raises(BlockingIOError):
            listener.accept()


class TestReferences:
    def test_within_the_schema(self) -> None:
        schema = {"$defs": {"a/b": {"anyOf": [{"type": "integer"}]}}, "items": {"$ref": "#/$defs/a~1b"}}
        assert check("[1]", schema) == Checked((), "[1]")
        assert check('["x"]', schema).violations == ('/0: "x" is not of type "integer" (in one of the allowed forms)',)

    def test_into_a_list(self) -> None:
        schema = {"allOf": [{"type": "integer"}], "items": {"$ref": "#/allOf/0"}}
        assert check("1", schema) == Checked((), "1")

    @pytest.mark.parametrize("reference", ["#/$defs/missing", "#/allOf/7", "#/allOf/x", "#anchor"])
    def test_to_nowhere(self, reference: str) -> None:
        schema = {"allOf": [True], "$ref": reference}
        assert check("1", schema) == Checked((), "1", schema_checked=False)


class TestCompiled:
    def test_once_for_each_content(self) -> None:
        _compile.cache_clear()
        check("1", {"type": "integer", "minimum": 0})
        check("2", {"minimum": 0, "type": "integer"})
        assert (_compile.cache_info().misses, _compile.cache_info().hits) == (1, 1)

    def test_their_number_is_bounded(self) -> None:
        for number in range(COMPILED_SCHEMAS + 10):
            check("1", {"minimum": number})
        assert _compile.cache_info().currsize == COMPILED_SCHEMAS
