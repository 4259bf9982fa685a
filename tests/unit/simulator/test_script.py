"""Script files: what is read, and that every mistake is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pointsman_server.simulator.script import (
    Behaviour,
    Dialect,
    Fault,
    Rule,
    Script,
    ScriptedCitation,
    ScriptedToolCall,
    ScriptError,
    UsageOverride,
    load_script,
)

FULL = """
seed: 7
rules:
  - model: "claude-*"
    dialect: anthropic_messages
    calls: "1-2"
    behaviour: {fault: 529}
  - calls: 3
    behaviour: {fault: stream_error_mid}
  - calls: 4-
    behaviour:
      latency_seconds: 0.2
      first_token_seconds: 1
      tokens_per_second: 50
      reply_text: Hello
      usage: {input_tokens: -5, output_tokens: "9", reasoning_tokens: .nan, missing: true}
      finish_reason: length
      tool_calls:
        - {name: plan, arguments: {when: noon, on: 12}}
        - {arguments: '{"broken'}
      reasoning_text: Hm.
      citations: [{url: "https://example.com/", title: T, quoted_text: Hel, start_index: 0, end_index: 3}]
      reported_model: other
      headers: {retry-after: "5"}
      ping_interval_seconds: 0.01
"""


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "script.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    path = written(tmp_path, text)
    with pytest.raises(ScriptError) as raised:
        load_script(path)
    return [line.removeprefix(str(path)) for line in str(raised.value).splitlines()]


def test_full_script(tmp_path: Path) -> None:
    script = load_script(written(tmp_path, FULL))
    assert script.seed == 7
    first, second, third = script.rules
    assert first == Rule(Behaviour(fault=Fault.STATUS_529), "claude-*", Dialect.ANTHROPIC, 1, 2)
    assert second == Rule(Behaviour(fault=Fault.STREAM_ERROR_MID), first_call=3, last_call=3)
    assert (third.first_call, third.last_call) == (4, None)
    behaviour = third.behaviour
    assert behaviour.tool_calls == (
        ScriptedToolCall("plan", {"when": "noon", "on": 12}),
        ScriptedToolCall("", '{"broken'),
    )
    assert behaviour.citations == (ScriptedCitation("https://example.com/", "T", "", "Hel", 0, 3),)
    assert behaviour.usage.has_nan
    assert (behaviour.usage.input_tokens, behaviour.usage.output_tokens) == (-5, "9")
    assert (behaviour.latency_seconds, behaviour.headers) == (0.2, {"retry-after": "5"})


def test_json_is_read_as_well(tmp_path: Path) -> None:
    content = {"rules": [{"model": "a", "behaviour": {"output_tokens": 5, "usage": {"cached_input_tokens": 2}}}]}
    script = load_script(written(tmp_path, json.dumps(content)))
    usage = UsageOverride(cached_input_tokens=2)
    assert script == Script((Rule(Behaviour(output_tokens=5, usage=usage), "a"),))


def test_byte_order_mark_and_no_rules(tmp_path: Path) -> None:
    assert load_script(written(tmp_path, b"\xef\xbb\xbfrules: []")) == Script()


def test_all_problems_at_once_with_their_lines(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """seed: seven
rules:
  - modle: x
    behaviour:
      fault: 599
      latency_seconds: fast
      reply_text: no
      reply_text: "yes"
      headers: {"bad header": x, good: 5}
      tool_calls: plan
      usage: {missing: 1, output_tokens: [1]}
  - behaviour: {output_tokens: 5, reply_text: x}
    calls: 5-2
  - model: y
  - just text
""",
    )
    assert [line.split(": ")[0:2] for line in found] == [
        [":1", "seed"],
        [":3", "rules[0].modle"],
        [":5", "rules[0].behaviour.fault"],
        [":6", "rules[0].behaviour.latency_seconds"],
        [":8", "rules[0].behaviour.reply_text"],
        [":9", "rules[0].behaviour.headers.bad header"],
        [":9", "rules[0].behaviour.headers.good"],
        [":10", "rules[0].behaviour.tool_calls"],
        [":11", "rules[0].behaviour.usage.missing"],
        [":11", "rules[0].behaviour.usage.output_tokens"],
        [":12", "rules[1].behaviour"],
        [":12", "rules[1]"],
        [":14", "rules[2]"],
        [":15", "rules[3]"],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("seed: 1", "has no rules"),
        ("rules: {}", "must be a list"),
        ("rules: [", "not valid YAML"),
        ("rules: []\nrules: []", "is given twice"),
        ("rules: []\nspeed: 1", "not a known field; known are rules, seed"),
        ("a: &x 1\nb: *x", "aliases are not allowed"),
        ("rules: [{behaviour: {fault: !!python/name:os.system ''}}]", "not valid YAML"),
        ("rules: [{behaviour: {latency_seconds: -1}}]", "latency_seconds must be 0 or more"),
        ("rules: [{behaviour: {latency_seconds: .inf}}]", "latency_seconds must be 0 or more"),
        ("rules: [{behaviour: {output_tokens: 0}}]", "output_tokens must be 1 or more"),
        ("rules: [{behaviour: {output_tokens: 5, reply_text: x}}]", "contradict each other"),
        ("rules: [{behaviour: {output_tokens: true}}]", "must be a whole number"),
        ("rules: [{behaviour: {finish_reason: no}}]", "must be text, not False; put it in quotes"),
        ("rules: [{behaviour: {}, calls: 0}]", "counted from 1"),
        ("rules: [{behaviour: {}, calls: 3-1}]", "must not come before"),
        ("rules: [{behaviour: {}, calls: often}]", 'a range like "2-5"'),
        ("rules: [{behaviour: {}, dialect: openai}]", "known are anthropic_messages, gemini_generate"),
        ("rules: [{behaviour: {fault: nope}}]", "stream_error_mid"),
        ("rules: [{behaviour: {tool_calls: [{arguments: 5}]}}]", "rules[0].behaviour.tool_calls[0].arguments"),
        ("rules: [{behaviour: {citations: [{link: x}]}}]", "citations[0].link"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(problems(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="cannot be read"):
        load_script(tmp_path / "absent.yaml")
    assert "larger than" in problems(tmp_path, b"#" * 1_000_001)[0]
    assert "not valid YAML" in problems(tmp_path, b"\xff\xfe\x00")[0]
    assert "not valid YAML" in problems(tmp_path, "[" * 5_000)[0]


def test_rules_count_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        Rule(Behaviour(), first_call=0)
    rule = Rule(Behaviour(), "gpt-?", Dialect.OPENAI_CHAT, 2, 3)
    assert rule.fits(Dialect.OPENAI_CHAT, "gpt-5")
    assert not rule.fits(Dialect.OPENAI_CHAT, "gpt-55")
    assert not rule.fits(Dialect.COHERE, "gpt-5")
    assert [number for number in range(6) if rule.covers(number)] == [2, 3]
