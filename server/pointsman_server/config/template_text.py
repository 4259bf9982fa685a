"""Reads the texts of prompt templates: Jinja's notation for putting in values, choosing and repeating, no more.

Jinja parses; what it parsed is taken over piece by piece, and whatever is not in the list here is refused: looking
inside values, calls, assignments, macros, other templates. Nothing is left of Jinja when a template is filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pointsman_server.config.problems import looks_like_a_key, nearest
from pointsman_server.config.section import UnacceptableError
from pointsman_server.domain.template import (
    Both,
    Choose,
    Condition,
    Either,
    Filter,
    Given,
    Insert,
    Node,
    Opposite,
    Repeat,
    Same,
    Text,
    Variable,
    VariableType,
)

MOST_DEPTH = 20
"""How deep choices, repetitions and conditions may stand in each other."""

MOST_STEPS = 10_000
"""Most repetitions of one text, with the longest lists that its variables take."""

_ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
_ALLOWED = "Use `{{ name }}`, `{% if name %}` and `{% for item in list %}` only."
_MOST_WORDS = 250
_FILTERS = {filter_.value: filter_ for filter_ in Filter}
_ELEMENT = VariableType.STRING
_LISTS, _TEXTS = frozenset([VariableType.STRINGS]), frozenset([VariableType.STRING, VariableType.ENUM])
_TAKEN = {Filter.JOIN: _LISTS, Filter.LENGTH: _LISTS | _TEXTS}
"""What a filter is for; the others are for texts."""

_SCALARS: Mapping[VariableType, tuple[type, ...]] = {
    VariableType.STRING: (str,),
    VariableType.ENUM: (str,),
    VariableType.INTEGER: (int,),
    VariableType.NUMBER: (int, float),
}
"""What values of a type can be compared with."""


class TextReader:
    """Reads the texts of one template, whose variables are these. `used` are the variables that were met."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = variables
        self.used: set[str] = set()

    def read(self, text: str) -> tuple[Node, ...]:
        """The text with gaps; raises `UnacceptableError` for everything a template cannot do."""
        try:
            parsed = _ENVIRONMENT.parse(text)
        except TemplateSyntaxError as error:
            raise UnacceptableError(f"is no template in its line {error.lineno}{_why(error)}", _ALLOWED) from None
        except RecursionError:
            raise UnacceptableError("is nested too deeply", "Make it simpler.") from None
        read = self._body(parsed.body, self._variables, 0)
        if (steps := _most_steps(read, self._variables)) > MOST_STEPS:
            raise UnacceptableError(
                f"may repeat a part {steps} times", f"Lower `max_items` of its lists; at most {MOST_STEPS} are run."
            )
        return read

    def _body(self, body: Sequence[nodes.Node], scope: Mapping[str, Variable], depth: int) -> tuple[Node, ...]:
        _require_flat(depth)
        return tuple(node for statement in body for node in self._statement(statement, scope, depth))

    def _statement(self, statement: nodes.Node, scope: Mapping[str, Variable], depth: int) -> Sequence[Node]:
        match statement:
            case nodes.Output():
                return [self._output(part, scope) for part in statement.nodes]
            case nodes.If():
                return [self._choice(statement, statement.elif_, statement.else_, scope, depth)]
            case nodes.For():
                return [self._repetition(statement, scope, depth)]
            case _:
                raise _refused(statement)

    def _output(self, part: nodes.Node, scope: Mapping[str, Variable]) -> Node:
        if isinstance(part, nodes.TemplateData):
            return Text(part.data)
        filters: list[tuple[Filter, str]] = []
        while isinstance(part, nodes.Filter) and part.node is not None:
            filters.insert(0, _filter(part))
            part = part.node
        name = self._name(part, scope)
        if _type_after(filters, scope[name].type) is VariableType.STRINGS:
            raise UnacceptableError(f"puts in '{name}', a list", f'Write `{{{{ {name} | join(", ") }}}}`, or repeat.')
        return Insert(name, tuple(filters))

    def _choice(
        self,
        branch: nodes.If,
        others: Sequence[nodes.If],
        last: Sequence[nodes.Node],
        scope: Mapping[str, Variable],
        depth: int,
    ) -> Choose:
        _require_flat(depth)
        condition = self._condition(branch.test, scope, depth)
        then = self._body(branch.body, scope, depth + 1)
        if others:
            return Choose(condition, then, (self._choice(others[0], others[1:], last, scope, depth + 1),))
        return Choose(condition, then, self._body(last, scope, depth + 1))

    def _repetition(self, loop: nodes.For, scope: Mapping[str, Variable], depth: int) -> Repeat:
        if loop.else_ or loop.test or loop.recursive or not isinstance(loop.target, nodes.Name):
            raise UnacceptableError("repeats in a way that templates do not have", _ALLOWED)
        over, item = self._name(loop.iter, scope), loop.target.name
        if scope[over].type is not VariableType.STRINGS:
            raise UnacceptableError(f"repeats over '{over}', which is no list", "Make its `type: strings`.")
        if item in scope:
            raise UnacceptableError(f"calls the item of a list '{item}', as something else", "Give it another name.")
        inner = {**scope, item: Variable(_ELEMENT, max_length=scope[over].max_length)}
        return Repeat(item, over, self._body(loop.body, inner, depth + 1))

    def _condition(self, test: nodes.Node, scope: Mapping[str, Variable], depth: int) -> Condition:
        _require_flat(depth)
        match test:
            case nodes.Not():
                return Opposite(self._condition(test.node, scope, depth + 1))
            case nodes.And():
                return Both(*(self._condition(side, scope, depth + 1) for side in (test.left, test.right)))
            case nodes.Or():
                return Either(*(self._condition(side, scope, depth + 1) for side in (test.left, test.right)))
            case nodes.Compare():
                return self._comparison(test, scope)
            case _:
                return Given(self._name(test, scope))

    def _comparison(self, test: nodes.Compare, scope: Mapping[str, Variable]) -> Condition:
        name, operand = self._name(test.expr, scope), test.ops[0]
        if len(test.ops) > 1 or operand.op not in ("eq", "ne") or not isinstance(operand.expr, nodes.Const):
            raise UnacceptableError(
                f"compares '{name}' in a way that templates do not have",
                'Write `name == "value"` or `name != "value"`.',
            )
        same = Same(name, _comparable(name, scope[name], operand.expr.value))
        return same if operand.op == "eq" else Opposite(same)

    def _name(self, node: nodes.Node | None, scope: Mapping[str, Variable]) -> str:
        if not isinstance(node, nodes.Name):
            raise _refused(node)
        if node.name not in scope:
            known = nearest(node.name, scope) or "Add it there."
            raise UnacceptableError("uses a name that `variables` does not define", known)
        self.used.add(node.name)
        return node.name


def _require_flat(depth: int) -> None:
    if depth > MOST_DEPTH:
        raise UnacceptableError(f"is nested deeper than {MOST_DEPTH} levels", "Make it simpler.")


def _why(error: TemplateSyntaxError) -> str:
    words = (error.message or "").rstrip(".")
    return "" if not words or len(words) > _MOST_WORDS or looks_like_a_key(words) else f" ({words})"


def _refused(node: nodes.Node | None) -> UnacceptableError:
    kind = type(node).__name__.lower()
    return UnacceptableError(f"holds something that templates do not have ({kind})", _ALLOWED)


def _filter(node: nodes.Filter) -> tuple[Filter, str]:
    filter_ = _FILTERS.get(node.name)
    if filter_ is None:
        raise UnacceptableError("uses a filter that templates do not have", f"There are {', '.join(_FILTERS)}.")
    given = [argument.value if isinstance(argument, nodes.Const) else None for argument in node.args]
    most = 1 if filter_ is Filter.JOIN else 0
    if node.kwargs or node.dyn_args or node.dyn_kwargs or len(given) > most:
        raise UnacceptableError(f"gives the filter {filter_.value} too much", 'Only `join(", ")` takes something.')
    argument = given[0] if given else ""
    if not isinstance(argument, str):
        raise UnacceptableError("joins with something that is no text", 'Write `join(", ")`.')
    return filter_, argument


def _type_after(filters: Sequence[tuple[Filter, str]], type_: VariableType) -> VariableType:
    for filter_, _ in filters:
        if type_ not in _TAKEN.get(filter_, _TEXTS):
            raise UnacceptableError(
                f"uses the filter {filter_.value} on a value of type {type_.value}",
                "`join` is for lists, `length` for lists and texts, the others for texts.",
            )
        type_ = VariableType.INTEGER if filter_ is Filter.LENGTH else VariableType.STRING
    return type_


def _comparable(name: str, variable: Variable, value: object) -> str | int | float:
    types = _SCALARS.get(variable.type, ())
    if isinstance(value, bool) or not isinstance(value, types):
        raise UnacceptableError(
            f"compares '{name}' with a value that it never has",
            f"It is of type {variable.type.value}; of a boolean or a list write `{{% if {name} %}}`.",
        )
    if isinstance(value, str) and variable.choices and value not in variable.choices:
        raise UnacceptableError(
            f"compares '{name}' with a word that it never is", f"It is one of {', '.join(variable.choices)}."
        )
    assert isinstance(value, (str, int, float))  # noqa: S101 - what `_SCALARS` says, for the type checker
    return value


def _most_steps(body: Sequence[Node], variables: Mapping[str, Variable]) -> int:
    steps = 0
    for node in body:
        if isinstance(node, Choose):
            steps += max(_most_steps(node.then, variables), _most_steps(node.otherwise, variables))
        elif isinstance(node, Repeat):
            steps += variables[node.over].max_items * (1 + _most_steps(node.body, variables))
    return steps
