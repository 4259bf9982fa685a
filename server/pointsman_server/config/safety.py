"""Reads what a policy does about sensitive data and hostile texts."""

from __future__ import annotations

import re
from collections.abc import Callable

from pointsman_server.config.deployments import DATA_CLASSES
from pointsman_server.config.problems import shown
from pointsman_server.config.scalars import list_of, one_of, share
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.domain.request import DataClass
from pointsman_server.domain.safety import (
    AnswerMode,
    InjectionMode,
    InjectionPolicy,
    Safety,
    SensitiveMode,
    SensitivePolicy,
    WhenGuardsFail,
)

SAFETY_KEYS: Keys = {
    "sensitive_data": "sensitive_data: {mode: mask}",
    "injection": "injection: {mode: block}",
}
SENSITIVE_KEYS: Keys = {
    "mode": "mode: mask",
    "by_data_class": "by_data_class: {restricted: block}",
    "answers": "answers: detect",
    "ignore": "ignore: [PERSON, URL]",
    "raises_data_class": "raises_data_class: confidential",
    "when_it_fails": "when_it_fails: refuse",
}
INJECTION_KEYS: Keys = {
    "mode": "mode: block",
    "threshold": "threshold: 0.8",
    "when_it_fails": "when_it_fails: refuse",
}

_SENSITIVE_MODES = {mode.value: mode for mode in SensitiveMode}
_ANSWER_MODES = {mode.value: mode for mode in AnswerMode}
_INJECTION_MODES = {mode.value: mode for mode in InjectionMode}
_WHEN_GUARDS_FAIL = {word.value: word for word in WhenGuardsFail}
_KIND = re.compile(r"[A-Z][A-Z0-9_]{0,39}")


def read_safety(spot: Spot, usual: Safety) -> Safety:
    """Compiles the section; what it leaves out is as in `usual`."""
    section = Section(spot, SAFETY_KEYS)
    return Safety(
        sensitive=section.optional("sensitive_data", _sensitive(usual.sensitive), usual.sensitive),
        injection=section.optional("injection", _injection(usual.injection), usual.injection),
    )


def _sensitive(usual: SensitivePolicy) -> Callable[[Spot], SensitivePolicy]:
    def read(spot: Spot) -> SensitivePolicy:
        section = Section(spot, SENSITIVE_KEYS)
        return SensitivePolicy(
            mode=section.optional("mode", one_of(_SENSITIVE_MODES), usual.mode),
            by_data_class=section.optional("by_data_class", _by_data_class, usual.by_data_class),
            answers=section.optional("answers", one_of(_ANSWER_MODES), usual.answers),
            ignored=frozenset(section.optional("ignore", list_of(_kind), tuple(usual.ignored))),
            raises_to=section.optional("raises_data_class", one_of(_RAISED), usual.raises_to),
            when_it_fails=section.optional("when_it_fails", one_of(_WHEN_GUARDS_FAIL), usual.when_it_fails),
        )

    return read


_RAISED: dict[str, DataClass | None] = {"none": None, **DATA_CLASSES}


def _injection(usual: InjectionPolicy) -> Callable[[Spot], InjectionPolicy]:
    def read(spot: Spot) -> InjectionPolicy:
        section = Section(spot, INJECTION_KEYS)
        return InjectionPolicy(
            mode=section.optional("mode", one_of(_INJECTION_MODES), usual.mode),
            threshold=section.optional("threshold", share, usual.threshold),
            when_it_fails=section.optional("when_it_fails", one_of(_WHEN_GUARDS_FAIL), usual.when_it_fails),
        )

    return read


def _by_data_class(spot: Spot) -> dict[DataClass, SensitiveMode]:
    modes: dict[DataClass, SensitiveMode] = {}
    for name, value in spot.entries():
        mode = value.read(one_of(_SENSITIVE_MODES), None)
        if name not in DATA_CLASSES:
            value.refuse(f"is not a data class: {shown(name)}", f"Write one of {', '.join(DATA_CLASSES)}.")
        elif mode is not None:
            modes[DATA_CLASSES[name]] = mode
    return modes


def _kind(spot: Spot) -> str:
    text = spot.text()
    if not _KIND.fullmatch(text):
        raise UnacceptableError(f"is not a kind of sensitive data: {shown(text)}", "Write one as `EMAIL`.")
    return text
