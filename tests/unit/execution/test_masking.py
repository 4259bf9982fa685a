from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kit.guards import PlainScanner
from kit.properties import examples
from pointsman_server.execution.masking import PLACEHOLDER, Masker

SCANNER = PlainScanner()


def masked(*texts: str) -> tuple[list[str], dict[str, str]]:
    masker = Masker(texts)
    return [masker.mask(text, SCANNER.scan(text)) for text in texts], masker.originals


def test_each_value_has_a_placeholder_of_its_kind() -> None:
    texts, originals = masked("write to ann@x.org or bob@x.org, SSN 123-45-6789.")
    assert texts == ["write to [EMAIL_1] or [EMAIL_2], SSN [US_SSN_1]."]
    assert originals == {"[EMAIL_1]": "ann@x.org", "[EMAIL_2]": "bob@x.org", "[US_SSN_1]": "123-45-6789"}


def test_the_same_value_has_the_same_placeholder_in_all_texts() -> None:
    texts, originals = masked("ann@x.org and bob@x.org", "bob@x.org again, then ann@x.org")
    assert texts == ["[EMAIL_1] and [EMAIL_2]", "[EMAIL_2] again, then [EMAIL_1]"]
    assert len(originals) == 2


def test_later_turns_leave_the_placeholders_of_earlier_ones_as_they_were() -> None:
    first, _ = masked("I am ann@x.org")
    both, _ = masked("I am ann@x.org", "and he is bob@x.org")
    assert both == [first[0], "and he is [EMAIL_2]"]


def test_a_text_that_holds_a_placeholder_keeps_it_and_nothing_is_ever_put_there() -> None:
    texts, originals = masked("what does [EMAIL_1] mean? ask ann@x.org")
    assert texts == ["what does [EMAIL_1] mean? ask [EMAIL_2]"]
    assert originals == {"[EMAIL_2]": "ann@x.org"}


_PIECES = st.sampled_from(
    ["ann@x.org", "bob@y.com", "123-45-6789", "[EMAIL_1]", "[EMAIL_2]", "Dr Who", " ", ", x ", "["]
)
_TEXTS = st.lists(st.lists(_PIECES, max_size=8).map(" ".join), max_size=6)


@examples(200)
@given(texts=_TEXTS)
def test_putting_the_originals_back_gives_the_texts(texts: list[str]) -> None:
    hidden, originals = masked(*texts)
    assert not any(SCANNER.scan(text) for text in hidden)
    assert [
        PLACEHOLDER.sub(lambda found: originals.get(found.group(), found.group()), text) for text in hidden
    ] == texts
