from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.knowledge import LONGEST_PASSAGE_CHARACTERS, passages_of

MARKDOWN = """---
title: left out
---
Before all headings.

# Shop #

## Hours

Nine to five.

**Q: On Sundays?**

A: Never.

Q: At night?
No.

```
# no heading
```

# Office
"""


def test_sections_stand_under_their_headings() -> None:
    found = [(one.document_id, one.title, one.text) for one in passages_of(MARKDOWN, "a.md", by_line=True)]
    assert found == [
        ("a.md:1", "", "Before all headings."),
        ("a.md:8", "Shop - Hours", "Nine to five."),
        ("a.md:12", "Shop - Hours - On Sundays?", "Never."),
        ("a.md:16", "Shop - Hours - At night?", "No.\n\n```\n# no heading\n```"),
    ]


def test_a_title_stands_above_all() -> None:
    (one,) = passages_of("text", "d1", "Contract")
    assert (one.document_id, one.title, one.also) == ("d1", "Contract", ())
    (two,) = passages_of("# Lease\ntext", "d1", "Contract")
    assert (two.title, two.also) == ("Contract - Lease", ("Lease",))


def test_long_sections_are_cut_between_paragraphs_then_sentences_then_words() -> None:
    sentence = "Ten words and a full stop are all there is. "
    text = f"{'short ' * 100}\n\n{'other ' * 200}\n\n{sentence * 50}\n\n{'x' * 2_000}"
    pieces = [one.text for one in passages_of(text, "d")]
    assert pieces[0] == ("short " * 100).strip()
    assert pieces[1] == ("other " * 200).strip()
    assert pieces[2].endswith("there is.")
    assert "x" * LONGEST_PASSAGE_CHARACTERS in pieces
    assert all(len(piece) <= LONGEST_PASSAGE_CHARACTERS for piece in pieces)


@given(st.text(alphabet=st.sampled_from("ab \n#`~*Q:?.-"), max_size=400))
def test_no_word_is_lost(text: str) -> None:
    passages = passages_of(text, "d")
    assert all(one.text.strip() for one in passages)
    everything = "".join(f"{one.title} {one.text}" for one in passages)
    if "#" not in text and "Q" not in text and "*" not in text and not text.startswith("---"):
        assert [one for one in text if one in "ab"] == [one for one in everything if one in "ab"]
