from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Key
from pointsman_server.execution.keys import KEY_CHARACTERS, digest_of, find_key, is_tenant_id, is_whole, make_key

LETTERS = string.ascii_letters + string.digits


def stored(*texts: str) -> dict[bytes, Key]:
    return {
        digest_of(text): Key(f"k{place}", "acme", frozenset({Role.CALL}), digest_of(text))
        for place, text in enumerate(texts)
    }


class TestMaking:
    def test_a_key_has_its_form(self) -> None:
        new = make_key()
        prefix, key_id, rest = new.text.split("_")
        assert (prefix, key_id) == ("pm", new.id)
        assert (len(key_id), len(rest), len(new.text)) == (12, 43 + 6, KEY_CHARACTERS)
        assert set(key_id + rest) <= set(LETTERS)
        assert is_whole(new.text)

    def test_the_secret_has_all_its_bits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []

        def largest(bits: int) -> int:
            asked.append(bits)
            return int(2**bits - 1)

        monkeypatch.setattr("secrets.randbits", largest)
        most = make_key().text
        monkeypatch.setattr("secrets.randbits", lambda bits: 2**bits - 2)
        assert asked == [256]
        secret, second = most.split("_")[2][:43], make_key().text.split("_")[2][:43]
        assert (secret[:-1], secret[-1] != second[-1]) == (second[:-1], True)
        assert secret[0] != "0", "the largest number uses every digit"

    def test_no_two_are_alike(self) -> None:
        made = [make_key() for _ in range(200)]
        assert len({new.text for new in made}) == len({new.id for new in made}) == 200

    def test_only_the_hash_is_for_keeping(self) -> None:
        new = make_key()
        assert new.digest == digest_of(new.text)
        assert len(new.digest) == 32
        assert new.text not in repr(new)


class TestTypos:
    @given(place=st.integers(0, KEY_CHARACTERS - 1), letter=st.sampled_from(LETTERS + "_-"))
    def test_a_wrong_letter_is_noticed(self, place: int, letter: str) -> None:
        text = make_key().text
        mistyped = text[:place] + letter + text[place + 1 :]
        assert is_whole(mistyped) is (mistyped == text)

    @given(place=st.integers(0, KEY_CHARACTERS - 2))
    def test_two_letters_in_the_wrong_order_are_noticed(self, place: int) -> None:
        text = make_key().text
        swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        assert is_whole(swapped) is (swapped == text)

    @pytest.mark.parametrize(
        "change", [lambda t: t[:-1], lambda t: t + "x", lambda t: f" {t}"[:-1], str.upper, str.lower]
    )
    def test_so_is_what_was_cut_or_changed(self, change: object) -> None:
        assert callable(change)
        assert not is_whole(change(make_key().text))

    @given(st.text(max_size=100))
    def test_nothing_else_is_taken_for_a_key(self, text: str) -> None:
        assert not is_whole(text)

    @given(st.text(min_size=KEY_CHARACTERS, max_size=KEY_CHARACTERS))
    def test_nor_anything_of_the_right_length(self, text: str) -> None:
        assert not is_whole(text)
        assert not is_whole("pm_" + text[3:15] + "_" + text[16:])


class TestFinding:
    def test_the_key_is_found(self) -> None:
        mine, other = make_key().text, make_key().text
        found = find_key(mine, stored(other, mine))
        assert found is not None
        assert found.id == "k1"

    @given(end=st.integers(0, KEY_CHARACTERS - 1))
    def test_a_beginning_of_it_opens_nothing(self, end: int) -> None:
        text = make_key().text
        assert find_key(text[:end], stored(text)) is None
        assert find_key(text[:end] + "-" * (KEY_CHARACTERS - end), stored(text)) is None

    @given(st.one_of(st.text(), st.text(min_size=KEY_CHARACTERS, max_size=KEY_CHARACTERS), st.just("\ud800" * 65)))
    def test_no_other_text_opens_anything(self, text: str) -> None:
        assert find_key(text, stored(make_key().text)) is None

    def test_what_is_hashed_for_show_opens_nothing_even_where_it_is_stored(self) -> None:
        decoy = "-" * KEY_CHARACTERS
        assert find_key("", stored(decoy)) is None
        assert find_key("x" * 10, stored(decoy)) is None

    def test_the_whole_digest_is_compared(self) -> None:
        text = make_key().text
        digest = digest_of(text)
        wrong = Key("k", "acme", frozenset({Role.CALL}), digest[:-1] + bytes([digest[-1] ^ 1]))
        assert find_key(text, {digest: wrong}) is None


class TestTenantIds:
    @pytest.mark.parametrize("text", ["acme", "a", "0", "a.b_c-d", "a" * 64])
    def test_ids_of_the_policy_are_ids_of_tenants(self, text: str) -> None:
        assert is_tenant_id(text)

    @pytest.mark.parametrize(
        "text",
        ["", "Acme", "\u0430cme", "acme\n", "a" * 65, "-a", ".a", "_a", "a/b", "../a", "a%00", "a'b", "a b", "a\x00"],
    )
    def test_all_else_is_refused(self, text: str) -> None:
        assert not is_tenant_id(text)
