"""Content of answers: cutting, counting, and depending on nothing but the request."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.simulator.answer import add_counts, make_answer, pieces, subtract_counts
from pointsman_server.simulator.ask import Ask, OfferedTool, Tally, ToolDemand, count_tokens
from pointsman_server.simulator.behaviour import (
    Behaviour,
    Dialect,
    Fault,
    Finish,
    ScriptedCitation,
    ScriptedToolCall,
    UsageOverride,
)

ASK = Ask(
    dialect=Dialect.OPENAI_CHAT,
    model="some-model",
    stream=False,
    turns=[{"role": "user", "content": "Hello"}],
    tally=Tally(messages=1, characters=5),
)
short_texts = st.text(max_size=60)


@given(text=st.text(max_size=300))
def test_pieces_are_the_text_in_tokens(text: str) -> None:
    made = pieces(text)
    assert "".join(made) == text
    assert len(made) == count_tokens(len(text))
    assert all(made)


@given(text=short_texts, limit=st.integers(1, 20), stops=st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_cut_at_the_first_stop_or_the_limit(text: str, limit: int, stops: list[str]) -> None:
    ask = replace(ASK, max_tokens=limit, stop_sequences=tuple(stops))
    answer = make_answer(ask, Behaviour(reply_text=text))
    assert text.startswith(answer.text)
    assert count_tokens(len(answer.text)) <= limit
    assert not any(stop in answer.text for stop in stops)
    match answer.finish:
        case Finish.STOP:
            assert answer.text == text
        case Finish.LENGTH:
            assert len(answer.text) == 4 * limit < len(text)
        case Finish.STOP_SEQUENCE:
            assert answer.stop_sequence in stops
            assert text.startswith(answer.text + str(answer.stop_sequence))
        case other:
            raise AssertionError(other)


@given(tokens=st.integers(1, 2000))
def test_scripted_length_is_exact(tokens: int) -> None:
    answer = make_answer(ASK, Behaviour(output_tokens=tokens))
    assert len(answer.text) == 4 * tokens
    assert answer.counts.output == tokens
    assert answer.generated_tokens == tokens


def test_reasoning_takes_from_the_limit() -> None:
    behaviour = Behaviour(reasoning_text="r" * 40, reply_text="t" * 80)
    answer = make_answer(replace(ASK, max_tokens=15), behaviour)
    assert (len(answer.reasoning), len(answer.text), answer.finish) == (40, 20, Finish.LENGTH)
    assert (answer.counts.output, answer.counts.reasoning) == (15, 10)
    nothing_left = make_answer(replace(ASK, max_tokens=10), behaviour)
    assert (nothing_left.text, nothing_left.finish) == ("", Finish.LENGTH)
    all_reasoning = make_answer(replace(ASK, max_tokens=5), behaviour)
    assert len(all_reasoning.reasoning) == 20


def test_streamed_and_whole_asks_are_answered_equally() -> None:
    tools = (OfferedTool("plan", {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),)
    whole = replace(ASK, tools=tools, tool_demand=ToolDemand.REQUIRED)
    streamed = replace(whole, stream=True)
    first, second = make_answer(whole, Behaviour()), make_answer(streamed, Behaviour())
    assert replace(first, ask=streamed) == second
    other = make_answer(replace(whole, turns=[{"role": "user", "content": "Bye"}]), Behaviour())
    assert other.tool_calls[0].key != first.tool_calls[0].key, "another conversation gets other ids"


def test_tool_calls_of_a_script() -> None:
    calls = (
        ScriptedToolCall("plan", {"when": "noon"}),
        ScriptedToolCall("plan", "not json"),
        ScriptedToolCall("other"),
    )
    answer = make_answer(replace(ASK, tools=(OfferedTool("plan", {}),)), Behaviour(tool_calls=calls))
    assert [call.arguments_json for call in answer.tool_calls] == ['{"when":"noon"}', "not json", "{}"]
    assert len({call.key for call in answer.tool_calls}) == 3
    assert answer.finish is Finish.TOOL_CALLS
    assert answer.tool_calls[1].arguments == "not json"
    without_tools = make_answer(ASK, Behaviour(tool_calls=(ScriptedToolCall(),)))
    assert without_tools.tool_calls[0].name == "simulated_tool"


def test_scripted_text_wins_over_a_demanded_tool() -> None:
    ask = replace(ASK, tools=(OfferedTool("plan", {}),), tool_demand=ToolDemand.REQUIRED)
    answer = make_answer(ask, Behaviour(reply_text="No."))
    assert (answer.text, answer.tool_calls, answer.finish) == ("No.", (), Finish.STOP)


def test_json_without_a_schema() -> None:
    answer = make_answer(replace(ASK, wants_json=True), Behaviour())
    assert answer.text == '{"simulated":true,"messages":1}'


def test_finish_reasons() -> None:
    assert make_answer(ASK, Behaviour(finish_reason="length")).finish is Finish.LENGTH
    assert make_answer(ASK, Behaviour(finish_reason="eos")).finish == "eos"
    refused = make_answer(ASK, Behaviour(reply_text="No.", finish_reason="refusal"))
    assert (refused.text, refused.refusal) == ("", "No.")
    assert make_answer(ASK, Behaviour(fault=Fault.BLOCKED_PROMPT)).finish is Finish.CONTENT_FILTER


def test_places_of_citations() -> None:
    citations = (
        ScriptedCitation("https://example.com/1", quoted_text="two"),
        ScriptedCitation("https://example.com/2", quoted_text="absent"),
        ScriptedCitation("https://example.com/3", start_index=4, end_index=7),
    )
    answer = make_answer(ASK, Behaviour(reply_text="one two three", citations=citations))
    assert [(cited.start_index, cited.end_index) for cited in answer.citations] == [(4, 7), (0, 13), (4, 7)]
    assert [cited.quoted_text for cited in answer.citations] == ["two", "absent", "two"]


def test_input_is_a_quarter_of_the_characters() -> None:
    assert ASK.input_tokens == 2
    assert replace(ASK, tally=Tally(characters=0)).input_tokens == 1
    assert replace(ASK, tally=Tally(characters=400, images=2)).input_tokens == 270


def test_overridden_counts_are_kept_as_they_are() -> None:
    counts = make_answer(ASK, Behaviour(usage=UsageOverride(input_tokens="9", output_tokens=-1))).counts
    assert (counts.input, counts.output, counts.cached) == ("9", -1, 0)


def test_arithmetic_with_counts_that_are_none() -> None:
    assert add_counts(1, 2, 3) == 6
    assert add_counts(1, "2") is None
    assert subtract_counts(10, 3, 4) == 3
    assert subtract_counts(3, 10) == 3
    assert subtract_counts("many", 1) == "many"
