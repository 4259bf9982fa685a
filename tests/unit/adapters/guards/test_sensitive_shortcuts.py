"""What saves work must not change what is found, and whoever shares the interpreter must get on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn

from kit.properties import examples
from pointsman_server.adapters.guards import identifiers, numbers
from pointsman_server.adapters.guards.cues import speaks_of_phones
from pointsman_server.adapters.guards.injection import shipped_detector
from pointsman_server.adapters.guards.normalise import _PIECE, Normalised
from pointsman_server.adapters.guards.numbers import _Groups, _passes_luhn
from pointsman_server.adapters.guards.rules import _MOST_REMEMBERED, Page
from pointsman_server.adapters.guards.sensitive import PatternScanner
from pointsman_server.domain.injection import Source

SCANNER = PatternScanner()
MEGABYTE = 1_000_000

DIGITS = st.text("0123456789", min_size=1, max_size=19)
PIECES = st.sampled_from(
    ["4111 1111 1111 1111", "4111", "DE89 3704 0044 0532 0130 00", "gb29nwbk60161331926819", "DE12", "12.5.2020",
     "+49 ", "call ", "ssn ", "card no ", "Aadhaar card ", "nhs ", "529.982.247-25", "536-22-1234", "943 476 5919",
     "fe80::1", "0171 2345678", "(555) 123-4567", "password=aB3$xxzz", "1 2 3 4 5 6 7 8 9",
     "2 55 08 14 168 025 38", "   ", "#"]
)  # fmt: skip
NUMBERS = st.lists(PIECES | DIGITS | st.sampled_from(" -./\n"), max_size=14).map("".join)


def _judged_anew(self: Page, judge: Callable[[str], Any], value: str) -> Any:
    return judge(value)


def _may_be_one(page: Page, groups: _Groups, place: int, last: int, *, may_be_phone: bool) -> bool:
    return 6 <= sum(groups.lengths[place:last]) <= 19 and (
        sum(groups.lengths[place:last]) >= 9 or speaks_of_phones(page)
    )


@given(NUMBERS, st.integers(1, 20))
@examples(400)
def test_without_shortcuts_the_same_is_found(text: str, times: int) -> None:
    found = SCANNER.scan(text * times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "judged", _judged_anew)
        patch.setattr(numbers, "_may_be_one", _may_be_one)
        patch.setattr(numbers, "_may_be_proven", lambda written: True)
        assert SCANNER.scan(text * times) == found


@given(DIGITS)
def test_the_check_digit_is_the_library_s(digits: str) -> None:
    assert _passes_luhn(digits) == luhn.is_valid(digits)


@given(st.text("ADE 189.-_é", min_size=1, max_size=40), st.sampled_from(sorted(identifiers._WRITTEN)))
def test_an_iban_ends_with_its_last_letter_or_digit(text: str, length: int) -> None:
    written = [place for place, one in enumerate(text) if one in "ADE189_"]
    foreign = next((place for place, one in enumerate(text) if one not in "ADE189_ .-"), len(text))
    found = identifiers._WRITTEN[length].match(text)
    end = written[length - 1] + 1 if len(written) >= length else None
    if end is None or end > foreign or text[0] not in "ADE189_" or (written[length:] or [-1])[0] == end:
        assert found is None
    else:
        assert found is not None
        assert found.end() == end


def test_a_text_of_many_values_is_remembered_in_part() -> None:
    page = Page(Normalised("x"))
    assert [page.judged(int, str(number)) for number in range(_MOST_REMEMBERED + 10)] == list(
        range(_MOST_REMEMBERED + 10)
    )
    assert len(page._judgements) <= _MOST_REMEMBERED
    assert page.judged(len, "5") == 1  # of another judge


@pytest.mark.parametrize("before", [0, 1, 7, _PIECE - 3, _PIECE - 1, _PIECE, 3 * _PIECE - 10])
def test_pieces_of_a_long_text_hide_nothing(before: int) -> None:
    card = "４１１１\u200b １１１１ １１１１ １１１１"  # noqa: RUF001 - such digits are what is folded
    text = f"{'é' * before} {card} {'x' * 100}"
    (finding,) = SCANNER.scan(text)
    assert text[finding.start : finding.end] == card


HOSTILE = {
    "zero width": "\u200b" * MEGABYTE,
    "every character": "".join(chr(0x80 + number * 7_919 % 0xD700) for number in range(MEGABYTE)),
    "mathematical letters": "".join(chr(0x1D400 + number * 31 % 700) for number in range(MEGABYTE)),
    "e-mail addresses": "ab@cd.ef " * (MEGABYTE // 9),
    "phones": "call 0171 2345678\n" * (MEGABYTE // 18),
    "bank accounts": "DE89 3704 0044 0532 0130 00 " * (MEGABYTE // 28),
    "cards with a wrong digit": "4111 1111 1111 1112 " * (MEGABYTE // 20),
}
MOST_SECONDS_WITHOUT_THE_LOOP = 0.05


@pytest.fixture
def loaded() -> Iterator[None]:
    """What is loaded by now is not looked through for garbage meanwhile, as in a server."""
    SCANNER.scan("ready é")
    shipped_detector()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
async def test_the_event_loop_goes_on_while_a_megabyte_is_looked_at(name: str, loaded: None) -> None:
    assert await least_longest_pause(lambda: SCANNER.scan(HOSTILE[name])) < MOST_SECONDS_WITHOUT_THE_LOOP


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero width", "mathematical letters", "phones"])
async def test_the_event_loop_goes_on_while_a_megabyte_is_judged(name: str, loaded: None) -> None:
    judge = shipped_detector().score
    assert await least_longest_pause(lambda: judge(HOSTILE[name], Source.USER)) < MOST_SECONDS_WITHOUT_THE_LOOP


async def least_longest_pause(look: Callable[[], object]) -> float:
    """Of up to three times: whether a thread that was woken gets a processor at once is not up to us."""
    longest = [await longest_pause(look)]
    while longest[-1] >= MOST_SECONDS_WITHOUT_THE_LOOP and len(longest) < 3:
        longest.append(await longest_pause(look))
    return min(longest)


async def longest_pause(look: Callable[[], object]) -> float:
    """Between two turns of the event loop while a thread looks, in seconds of this process's processor time: other
    processes' work is not held against it."""
    looking = asyncio.create_task(asyncio.to_thread(look))
    longest, last = 0.0, time.process_time()
    while not looking.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, (now := time.process_time()) - last), now
    await looking
    return longest
