from __future__ import annotations

from pointsman_server.decision.remembered import Remembered


def test_the_oldest_makes_room_for_a_new_one() -> None:
    squares: Remembered[int, int] = Remembered(3)
    for number in range(5):
        squares.keep(number, number * number)
    assert dict(squares) == {2: 4, 3: 9, 4: 16}


def test_what_was_put_in_otherwise_stays() -> None:
    squares: Remembered[int, int] = Remembered(1)
    squares[7] = 49
    for number in range(3):
        squares.keep(number, number * number)
    assert dict(squares) == {7: 49, 2: 4}
    squares.forget()
    assert dict(squares) == {7: 49}


def test_after_forgetting_there_is_room_again() -> None:
    squares: Remembered[int, int] = Remembered(2)
    squares.keep(1, 1)
    squares.forget()
    squares.keep(2, 4)
    squares.keep(3, 9)
    assert dict(squares) == {2: 4, 3: 9}


def test_what_is_kept_twice_does_no_harm() -> None:
    """As when two threads work the same out at the same time."""
    squares: Remembered[int, int] = Remembered(2)
    for number in (1, 1, 2, 3):
        squares.keep(number, number * number)
    assert dict(squares) == {2: 4, 3: 9}
