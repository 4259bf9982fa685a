"""What a template's text can do, and that it can do nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pointsman_server.config.section import UnacceptableError
from pointsman_server.config.template_text import MOST_DEPTH, MOST_STEPS, TextReader
from pointsman_server.domain.template import Value, Variable, VariableType
from pointsman_server.execution.rendering import Filler

VARIABLES = {
    "name": Variable(VariableType.STRING),
    "count": Variable(VariableType.INTEGER),
    "share": Variable(VariableType.NUMBER),
    "polite": Variable(VariableType.BOOLEAN),
    "items": Variable(VariableType.STRINGS),
    "many": Variable(VariableType.STRINGS, max_items=1_000),
    "tone": Variable(VariableType.ENUM, choices=("short", "long")),
}
VALUES: dict[str, Value] = {
    "name": " Ada ",
    "count": 3,
    "share": 0.5,
    "polite": True,
    "items": ("a", "b"),
    "many": (),
    "tone": "short",
}


def filled(text: str, **values: Value) -> str:
    return Filler({**VALUES, **values}).fill(TextReader(VARIABLES).read(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nothing to fill, 100 % { plain } text.", "Nothing to fill, 100 % { plain } text."),
        ("{{ name }}", " Ada "),
        ("{{ name | trim | upper }}", "ADA"),
        ("{{ tone | lower | length }}", "5"),
        ("{{ count }}/{{ share }}/{{ polite }}", "3/0.5/true"),
        ("{{ items | join }} {{ items | join(', ') }} {{ items | length }}", "ab a, b 2"),
        ("{% if polite %}Please{% else %}Now{% endif %}", "Please"),
        ("{% if not polite %}Now{% endif %}", ""),
        ("{% if tone == 'short' %}s{% elif tone == 'long' %}l{% else %}?{% endif %}", "s"),
        ("{% if tone == 'long' %}l{% elif count == 3 %}3{% else %}?{% endif %}", "3"),
        ("{% if tone == 'long' %}l{% elif count != 3 %}3{% else %}?{% endif %}", "?"),
        ("{% if polite and items %}both{% endif %}{% if many or share == 0.5 %} one{% endif %}", "both one"),
        ("{% for item in items %}{% if item != 'a' %}-{{ item }}{% endif %}{% endfor %}", "-b"),
        ("{% for item in items %}\n- {{ item }}\n{% endfor %}\nend", "- a\n- b\nend"),
        ("{# a remark #}{% raw %}{{ name }}{% endraw %}", "{{ name }}"),
        ("{% raw %}{{{% endraw %}", "{{"),
    ],
)
def test_what_it_can_do(text: str, expected: str) -> None:
    assert filled(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{ name.upper() }}",
        "{{ name.__class__ }}",
        "{{ name['x'] }}",
        "{{ items[0] }}",
        "{{ items[:1] | join }}",
        "{{ range(3) }}",
        "{{ lipsum() }}",
        "{{ 7 * 7 }}",
        "{{ 'text' }}",
        "{{ count + 1 }}",
        "{{ -count }}",
        "{{ name ~ name }}",
        "{{ name if polite else tone }}",
        "{{ [name] }}",
        "{{ {'a': name} }}",
        "{{ name is defined }}",
        "{{ items }}",
        "{{ items | length | join }}",
        "{{ name | join }}",
        "{{ count | upper }}",
        "{{ count | length }}",
        "{{ items | join(name) }}",
        "{{ items | join(1) }}",
        "{{ items | join(', ', 'x') }}",
        "{{ items | join(d=', ') }}",
        "{{ items | join(*items) }}",
        "{{ items | join(**items) }}",
        "{{ name | upper('x') }}",
        "{{ name | attr('__class__') }}",
        "{{ name | safe }}",
        "{{ unknown }}",
        "{{ self }}",
        "{{ loop }}",
        "{% set x = 1 %}",
        "{% include 'file' %}",
        "{% import 'file' as f %}",
        "{% from 'file' import f %}",
        "{% extends 'file' %}",
        "{% block b %}{% endblock %}",
        "{% macro m() %}{% endmacro %}",
        "{% call name() %}{% endcall %}",
        "{% filter upper %}x{% endfilter %}",
        "{% with %}{% endwith %}",
        "{% do name %}",
        "{% autoescape true %}{% endautoescape %}",
        "{% for a, b in items %}{% endfor %}",
        "{% for item in items %}{% else %}none{% endfor %}",
        "{% for item in items if item %}{% endfor %}",
        "{% for item in items recursive %}{% endfor %}",
        "{% for item in items %}{{ loop.index }}{% endfor %}",
        "{% for name in items %}{% endfor %}",
        "{% for item in name %}{% endfor %}",
        "{% for item in ['a'] %}{% endfor %}",
        "{% for item in items %}{% endfor %}{{ item }}",
        "{% if name.x %}{% endif %}",
        "{% if true %}{% endif %}",
        "{% if count > 3 %}{% endif %}",
        "{% if 1 < count < 3 %}{% endif %}",
        "{% if count == 'three' %}{% endif %}",
        "{% if count == true %}{% endif %}",
        "{% if polite == true %}{% endif %}",
        "{% if items == 'a' %}{% endif %}",
        "{% if tone == 'loud' %}{% endif %}",
        "{% if name == tone %}{% endif %}",
        "{% if name in items %}{% endif %}",
        "{{ name",
        "{% if name %}",
        "{% nonsense %}",
        "{{ }}",
        "{{ name | upper if polite }}",
    ],
)
def test_what_it_cannot_do_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(UnacceptableError) as caught:
        TextReader(VARIABLES).read(text)
    assert caught.value.message
    assert caught.value.remedy.endswith((".", "?"))


def test_a_mistake_in_the_notation_is_told_by_its_line() -> None:
    with pytest.raises(UnacceptableError, match=r"in its line 2 .*endif"):
        TextReader(VARIABLES).read("first\n{% if name %}second")


def test_a_parsers_word_that_could_be_a_key_stays_unsaid() -> None:
    key = "abcdefgh1234567890abcdefgh"
    with pytest.raises(UnacceptableError) as caught:
        TextReader(VARIABLES).read(f"{{% {key} %}}")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{% if polite %}" * (MOST_DEPTH + 1) + "{% endif %}" * (MOST_DEPTH + 1),
        "{% if " + "not " * (MOST_DEPTH + 1) + "polite %}{% endif %}",
        "{% if count == 0 %}" + "".join(f"{{% elif count == {n} %}}" for n in range(MOST_DEPTH + 1)) + "{% endif %}",
        "{{ " + "(" * 20_000 + "name" + ")" * 20_000 + " }}",
    ],
)
def test_depth_is_limited(text: str) -> None:
    with pytest.raises(UnacceptableError, match=r"nested"):
        TextReader(VARIABLES).read(text)


def test_repetition_is_limited_by_the_longest_lists() -> None:
    inner = "{% for two in items %}{{ two }}{% endfor %}"
    assert TextReader(VARIABLES).read("{% for one in many %}{% endfor %}" * 9 + inner)
    with pytest.raises(UnacceptableError, match=f"at most {MOST_STEPS} are run"):
        TextReader(VARIABLES).read("{% for one in many %}{% if polite %}" + inner + "{% endif %}{% endfor %}")


def test_used_are_the_variables_that_were_met() -> None:
    reader = TextReader(VARIABLES)
    reader.read("{{ name }}{% if polite %}{% for item in items %}{{ item }}{% endfor %}{% endif %}")
    assert reader.used - {"item"} == {"name", "polite", "items"}


# Jinja itself says what these mean; it only writes truth values in another way.
_ORACLE = ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
    finalize=lambda value: str(value).lower() if isinstance(value, bool) else value,
)
_PIECE = st.sampled_from(
    [
        "text ",
        "\n",
        "  ",
        "{{ name }}",
        "{{- name | trim | upper -}}",
        "{{ count }}",
        "{{ share }}",
        "{{ polite }}",
        "{{ items | join('; ') }}",
        "{{ items | length }}",
        "{# remark #}",
    ]
)
_CONDITION = st.sampled_from(
    ["name", "not items", "polite and count", "count == 0 or tone != 'short'", "not (polite or items)", "share == 0.5"]
)


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.builds(
            "{{% if {} %}}{}{{% elif {} %}}{}{{% else %}}{}{{% endif %}}".format,
            _CONDITION,
            inner,
            _CONDITION,
            inner,
            inner,
        ),
        st.builds("{{%- if {} -%}}\n{}\n{{% endif %}}".format, _CONDITION, inner),
    )


_TEXTS = st.recursive(_PIECE, _blocks, max_leaves=8)
_LOOPED = st.one_of(
    _TEXTS, st.builds("{}{{% for it in items %}}\n{}{{{{ it }}}}{{% endfor %}}{}".format, _TEXTS, _TEXTS, _TEXTS)
)
_HOSTILE = st.one_of(st.text(max_size=20), st.sampled_from(["{{7*7}}", "{% raw %}", "{{ name }}", "${7*7}", "\n"]))


@given(
    text=_LOOPED,
    values=st.fixed_dictionaries(
        {
            "name": _HOSTILE,
            "count": st.integers(-3, 3),
            "share": st.sampled_from([0, 0.5, 1.25]),
            "polite": st.booleans(),
            "items": st.lists(_HOSTILE, max_size=3).map(tuple),
            "tone": st.sampled_from(["short", "long"]),
        }
    ),
)
def test_it_means_what_jinja_means(text: str, values: dict[str, Any]) -> None:
    assert filled(text, **values) == _ORACLE.from_string(text).render(values)
