"""What telemetry is shown of a prompt: the one that models are shown, and none where a guard lets nothing pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kit.catalog import request
from kit.opinions import House
from kit.scripted import answers
from pointsman_server.domain.errors import PromptRejected
from pointsman_server.domain.request import Tier
from pointsman_server.domain.safety import Safety, SensitiveMode, SensitivePolicy

ASKED = request("I am ann@x.org")
Way = Callable[..., Any]


def house(mode: SensitiveMode) -> House:
    return House([(Tier.LIGHT, answers("Hello"))], policy={"safety": Safety(SensitivePolicy(mode))})


@pytest.mark.parametrize("way", [House.complete, House.stream], ids=["whole", "streamed"])
def test_it_is_as_the_guards_left_it(way: Way) -> None:
    one = house(SensitiveMode.MASK)
    way(one, request=ASKED)
    (((asked, guarded),),) = [seen.shown for seen in one.telemetry.calls]
    assert asked.messages[0].text == "I am [EMAIL_1]"
    assert guarded.originals == {"[EMAIL_1]": "ann@x.org"}
    assert one.adapters[0].calls[0].messages == asked.messages


@pytest.mark.parametrize("way", [House.complete, House.stream], ids=["whole", "streamed"])
def test_one_that_is_refused_is_not_shown(way: Way) -> None:
    one = house(SensitiveMode.BLOCK)
    with pytest.raises(PromptRejected):
        way(one, request=ASKED)
    (seen,) = one.telemetry.calls
    assert seen.shown == []
    assert isinstance(seen.error, PromptRejected)
