"""Upstreams and loads that many scenarios share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wall.asks import Ask
from wall.log import Hit
from wall.plays import Play, error_play, sound
from wall.scenario import FALLBACK, PRIMARY, Setting, Stage
from wall.texts import told_so_far
from wall.upstream import Plan

Answering = Callable[[Hit], Play]

NO_BREAKER: Mapping[str, Mapping[str, object]] = {
    "breaker": {"failures_in_a_row": 1_000, "failure_share": 1, "least_attempts": 100_000}
}
"""For scenarios about single calls, many of which fail: the breaker must not hide them."""


def model(setting: Setting, scenario: str, characters: int = 200, spread_seconds: float = 0.0) -> Answering:
    """A sound model. It goes on from where the request says the text has come to, if it says so."""

    def answer(hit: Hit) -> Play:
        text = setting.text(scenario, hit.number, characters)
        told = told_so_far(hit.body, text)
        rest = text[told:]
        texts = setting.pieces(scenario, hit.number, rest) if hit.stream else None
        play = sound(rest, texts, "goes on" if told else "sound")
        return play.spread(spread_seconds) if hit.stream else play.late(spread_seconds)

    return answer


def always_play(play: Play) -> Answering:
    """The same for everybody."""
    return lambda hit: play


def between(begins_at: float, ends_at: float, during: Answering, otherwise: Answering) -> Answering:
    """One behaviour in these seconds of the scenario, another before and after."""
    return lambda hit: during(hit) if begins_at <= hit.arrived_at < ends_at else otherwise(hit)


def by_lane(behaviours: Mapping[str, Answering], otherwise: Answering) -> Answering:
    """A behaviour for each lane."""
    return lambda hit: behaviours.get(hit.lane, otherwise)(hit)


def failing(status: int = 500) -> Answering:
    """An error for everybody."""
    return always_play(error_play(status))


def steady(
    count: int, per_second: float, *, stream_every: int = 2, begins_at: float = 0.0, first: int = 0, **fields: Any
) -> list[Ask]:
    """Calls at an even pace; every so-many-th is streamed (0: none, 1: all)."""
    return [
        Ask(
            number=first + at,
            at_seconds=begins_at + at / per_second,
            stream=bool(stream_every) and at % stream_every == 0,
            **fields,
        )
        for at in range(count)
    ]


def two_upstreams(
    setting: Setting, scenario: str, primary: Answering | Plan, asks: list[Ask], characters: int = 200, **fields: Any
) -> Stage:
    """A primary that does something, and a fallback that is sound."""
    plan = primary if isinstance(primary, Plan) else Plan(primary)
    return Stage(
        plans={PRIMARY: plan, FALLBACK: Plan(model(setting, scenario, characters))},
        asks=asks,
        answering=lambda number: setting.text(scenario, number, characters),
        **fields,
    )
