"""What is done about sensitive data and hostile texts: the policy, and what came of it for one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pointsman_server.domain.request import DataClass


class SensitiveMode(Enum):
    """What is done about personal data and credentials in a request, from nothing to refusing it."""

    OFF = "off"
    DETECT = "detect"
    MASK = "mask"
    BLOCK = "block"


class AnswerMode(Enum):
    """What is done about personal data and credentials that a model writes and the request did not hold."""

    OFF = "off"
    DETECT = "detect"
    MASK = "mask"


class InjectionMode(Enum):
    """What is done about a text that looks like a prompt injection: it is told to operators, to callers, or refused."""

    OFF = "off"
    LOG = "log"
    FLAG = "flag"
    BLOCK = "block"


class WhenGuardsFail(Enum):
    """What happens to calls that a guard cannot look at."""

    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class SensitivePolicy:
    """`by_data_class` goes before `mode` where it names the request's class. `ignored` are kinds that nobody minds.

    A request that holds sensitive data is taken to be at least of `raises_to`; None leaves its class alone.
    """

    mode: SensitiveMode = SensitiveMode.DETECT
    by_data_class: Mapping[DataClass, SensitiveMode] = field(default_factory=dict)
    answers: AnswerMode = AnswerMode.OFF
    ignored: frozenset[str] = frozenset()
    raises_to: DataClass | None = None
    when_it_fails: WhenGuardsFail = WhenGuardsFail.REFUSE

    def mode_for(self, data_class: DataClass) -> SensitiveMode:
        """What holds for requests of this class."""
        return self.by_data_class.get(data_class, self.mode)


@dataclass(frozen=True, slots=True)
class InjectionPolicy:
    """`threshold` 0..1 is the score from which a text counts as an injection; None is the detector's own."""

    mode: InjectionMode = InjectionMode.FLAG
    threshold: float | None = None
    when_it_fails: WhenGuardsFail = WhenGuardsFail.REFUSE


@dataclass(frozen=True, slots=True)
class Safety:
    """What holds for one tenant."""

    sensitive: SensitivePolicy = field(default_factory=SensitivePolicy)
    injection: InjectionPolicy = field(default_factory=InjectionPolicy)


@dataclass(frozen=True, slots=True)
class Guarded:
    """What the guards found in a request; it lives as long as the call.

    `redactions` counts findings by kind, `values` are what was found, `originals` what each placeholder stands for.
    `suspects` are the paths of the fields that look like a prompt injection. `answers` and `ignored` are the policy's
    word on what the model writes.
    """

    redactions: Mapping[str, int] = field(default_factory=dict)
    values: frozenset[str] = field(default=frozenset(), repr=False)
    originals: Mapping[str, str] = field(default_factory=dict, repr=False)
    suspects: tuple[str, ...] = ()
    answers: AnswerMode = AnswerMode.OFF
    ignored: frozenset[str] = frozenset()

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that would be wrong to keep."""
        return not self.redactions and not self.suspects

    @property
    def changes_answers(self) -> bool:
        """Whether answers are not passed on as they come."""
        return bool(self.originals) or self.answers is AnswerMode.MASK


UNGUARDED = Guarded()
