from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.cache import CachedAnswer, Card, Traits
from pointsman_server.domain.message import TextPart
from pointsman_server.execution.shelves import MOST_SHELVES, UNWRITTEN_SECONDS, Shelf, Shelves

PLAIN = Traits((), (), ())


def vector(*numbers: float) -> bytes:
    return bytes((np.array(numbers) / np.linalg.norm(numbers)).astype("<f4").tobytes())


def card(name: str, of: bytes = b"", *, at: float = 100.0, traits: Traits | None = PLAIN, partition: str = "p") -> Card:
    return Card(name.encode(), partition.encode(), at, at + 10, of, traits)


def answer(text: str = "yes") -> CachedAnswer:
    return CachedAnswer((TextPart(text),), (), "stop", "m", "d", 1)


class TestShelf:
    def test_the_most_similar_comes_first_and_others_not_at_all(self) -> None:
        shelf = Shelf()
        for name, numbers in (("a", (1.0, 1.0)), ("b", (1.0, 0.1)), ("c", (-1.0, 0.0))):
            shelf.add(card(name, vector(*numbers)))
        assert [one.key for one in shelf.like(vector(1.0, 0.0), PLAIN, 0.5)] == [b"b", b"a"]
        assert [one.key for one in shelf.like(vector(1.0, 0.0), PLAIN, 0.99)] == [b"b"]

    def test_the_same_vector_is_similar_by_one(self) -> None:
        shelf = Shelf()
        shelf.add(card("a", vector(0.3, 0.7, 0.1)))
        assert list(shelf.like(vector(0.3, 0.7, 0.1), PLAIN, 1.0))

    def test_traits_have_to_agree(self) -> None:
        shelf = Shelf()
        shelf.add(card("a", vector(1.0), traits=Traits(("n:1",), (), ())))
        shelf.add(card("b", vector(1.0), traits=None))
        assert not list(shelf.like(vector(1.0), PLAIN, 0.5))

    def test_what_has_no_vector_or_one_of_another_size_is_passed_by(self) -> None:
        shelf = Shelf()
        shelf.add(card("a"))
        assert not list(shelf.like(vector(1.0), PLAIN, 0.0))
        shelf.add(card("b", vector(1.0, 0.0)))
        shelf.add(card("c", vector(1.0)))
        assert [one.key for one in shelf.like(vector(1.0), PLAIN, 0.0)] == [b"c"]
        assert [one.key for one in shelf.like(vector(1.0, 0.0), PLAIN, 0.0)] == [b"b"]

    def test_the_stores_cards_take_the_place_of_ours_but_for_the_newest(self) -> None:
        shelf = Shelf()
        shelf.add(card("old", at=100.0))
        shelf.add(card("new", at=100.0 + UNWRITTEN_SECONDS))
        assert shelf.replace([card("theirs")], 101.0 + UNWRITTEN_SECONDS) == {b"old"}
        assert set(shelf.cards) == {b"theirs", b"new"}


class TestShelves:
    def test_a_tenant_keeps_what_it_used_last(self) -> None:
        shelves = Shelves()
        for name in "abc":
            assert shelves.put("t", card(name), answer(), 3) == 0
        assert shelves.get(b"a")
        assert shelves.put("t", card("d"), answer(), 3) == 1
        assert [name for name in "abcd" if shelves.get(name.encode())] == ["a", "c", "d"]
        assert set(shelves.shelf(b"p").cards) == {b"a", b"c", b"d"}

    def test_others_are_not_affected(self) -> None:
        shelves = Shelves()
        shelves.put("other", card("x"), answer(), 1)
        for name in "abc":
            shelves.put("t", card(name), answer(), 1)
        assert shelves.get(b"x")

    def test_answers_have_so_much_room_and_no_more(self) -> None:
        shelves = Shelves(most_answer_bytes=25)
        for name in "abc":
            shelves.put("t", card(name), answer("x" * 10), 100)
        assert shelves.get(b"a") is None
        assert (shelves.answers, shelves.answer_bytes) == (2, 20)
        # It can still be found, and read from the store.
        assert b"a" in shelves.shelf(b"p").cards

    def test_partitions_that_were_not_used_make_room(self) -> None:
        shelves = Shelves(most_cards=2)
        for name in "abc":
            shelves.put("t", card(name, partition=name), answer(), 100)
        assert not shelves.shelf(b"a").cards
        assert shelves.shelf(b"c").cards

    def test_there_are_so_many_shelves_and_no_more(self) -> None:
        shelves = Shelves()
        shelves.put("t", card("a", partition="first"), answer(), 100)
        for number in range(MOST_SHELVES):
            shelves.loaded(str(number).encode(), [], now=1.0, monotonic=1.0)
        assert not shelves.shelf(b"first").cards

    def test_what_is_gone_from_the_store_is_gone_here(self) -> None:
        shelves = Shelves()
        shelves.put("t", card("a"), answer(), 100)
        shelves.loaded(b"p", [card("b")], now=1_000.0, monotonic=5.0)
        assert shelves.get(b"a") is None
        assert shelves.answer_bytes == 0
        assert shelves.shelf(b"p").loaded_at == 5.0

    @given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xy"), st.integers(0, 2)), max_size=60))
    def test_counts_never_go_wrong(self, steps: list[tuple[str, str, int]]) -> None:
        shelves: Any = Shelves(most_answer_bytes=30, most_cards=5)
        for name, partition, kind in steps:
            if kind == 0:
                shelves.put(partition, card(name + partition, partition=partition), answer("z" * 7), 3)
            elif kind == 1:
                shelves.get((name + partition).encode())
            else:
                shelves.loaded(partition.encode(), [card(name + partition, partition=partition)], now=1e6, monotonic=1)
            assert shelves._cards == sum(len(shelf.cards) for shelf in shelves._shelves.values())
            assert shelves.answer_bytes == 7 * shelves.answers <= 30
            assert sum(map(len, shelves._of_tenants.values())) == shelves.answers
            assert all(len(keys) <= 3 for keys in shelves._of_tenants.values())
