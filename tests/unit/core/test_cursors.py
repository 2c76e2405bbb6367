from __future__ import annotations

from datetime import UTC, datetime
from typing import NoReturn

import pytest

from run_log.core import InvalidCursorError
from run_log.stores.listings import Position, decode_cursor, decode_parts, encode_cursor, encode_parts

PLACE = Position(datetime(2026, 3, 4, 12, 0, 0, 123456, tzinfo=UTC), "run/1")


class _Raises:
    def __repr__(self) -> NoReturn:
        raise RuntimeError("no text")


def test_cursors_given_out_stay_valid() -> None:
    """This cursor was given out by the first version: every later version reads it."""
    cursor = "ZATMXU0EWzEsMTc3MjYyNTYwMDEyMzQ1NiwicnVuLzEiXQ"

    assert cursor == encode_cursor(PLACE, scope="w1")
    assert decode_cursor(cursor, scope="w1") == PLACE


@pytest.mark.parametrize(
    "cursor",
    [None, 3, 1.5, True, b"x", "", " ", "é", "A", "AAAA", "====", "x" * 200_000, [], {}, "\ud800", _Raises()],
    ids=lambda cursor: type(cursor).__name__,
)
def test_what_is_no_cursor_is_refused(cursor: object) -> None:
    """Anything but a cursor raises `InvalidCursorError` with a short message that says what to pass."""
    with pytest.raises(InvalidCursorError, match="None for the first page") as caught:
        decode_cursor(cursor, scope="w1")

    assert len(str(caught.value)) < 300


def test_a_cursor_of_another_listing_says_so() -> None:
    """A cursor of another workflow is refused with both named."""
    cursor = encode_cursor(PLACE, scope="w1")

    with pytest.raises(InvalidCursorError, match=r"another listing than 'w2', or was altered"):
        decode_cursor(cursor, scope="w2")


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_no_store_holds_is_no_cursor(number: int) -> None:
    """A forged cursor with a number beyond 64 bits is refused before a store stumbles over it."""
    for held in (2**63 - 1, -(2**63)):
        assert [held] == decode_parts(encode_parts([held], scope="w1"), [int], scope="w1")
    with pytest.raises(InvalidCursorError, match="is not a cursor"):
        decode_parts(encode_parts([number], scope="w1"), [int], scope="w1")


def test_positions_order_by_time_then_id() -> None:
    """Runs that started together still have an order."""
    earlier = Position(datetime(2026, 1, 1, tzinfo=UTC), "z")
    same = datetime(2026, 1, 2, tzinfo=UTC)

    assert [earlier, Position(same, "a"), Position(same, "b")] == sorted(
        [Position(same, "b"), Position(same, "a"), earlier]
    )
