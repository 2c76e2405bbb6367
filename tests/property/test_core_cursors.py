from __future__ import annotations

import re
import string
from datetime import UTC
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from run_log.core import InvalidCursorError
from run_log.stores.listings import Position, decode_cursor, encode_cursor

from .core_strategies import anything, examples, moments

positions = st.builds(
    Position, moments.map(lambda moment: moment.astimezone(UTC)), st.text(anything, max_size=40)
)
scopes = st.text(anything, max_size=12)


@examples(150)
@given(positions, scopes)
def test_a_cursor_gives_its_position_back(position: Position, scope: str) -> None:
    """Any position of any listing comes back from its cursor, which no URL has to escape."""
    cursor = encode_cursor(position, scope=scope)

    assert position == decode_cursor(cursor, scope=scope)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)


@examples(150)
@given(positions, scopes, st.data())
def test_an_altered_cursor_is_refused(position: Position, scope: str, data: st.DataObject) -> None:
    """A cursor with a character changed, with its end left out, or with anything added to it is no cursor."""
    cursor = encode_cursor(position, scope=scope)
    index = data.draw(st.integers(min_value=0, max_value=len(cursor) - 1))
    character = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_=+/ \n.é"))
    more = data.draw(st.text(min_size=1, max_size=4) | st.sampled_from(["A", "=", "==", "\n"]))
    assume(character != cursor[index])

    for damaged in (cursor[:index] + character + cursor[index + 1 :], cursor[:index], cursor + more):
        with pytest.raises(InvalidCursorError):
            decode_cursor(damaged, scope=scope)


@examples(100)
@given(positions, scopes, scopes)
def test_a_cursor_of_another_listing_is_refused(position: Position, scope: str, other: str) -> None:
    """A cursor is good for the listing that gave it out, and for no other."""
    assume(scope != other)
    cursor = encode_cursor(position, scope=scope)

    with pytest.raises(InvalidCursorError):
        decode_cursor(cursor, scope=other)


@examples(150)
@given(
    st.text(anything) | st.binary() | st.integers() | st.none() | st.lists(st.text()) | st.floats(), scopes
)
def test_anything_else_is_refused_as_a_cursor(junk: Any, scope: str) -> None:
    """Whatever is passed as a cursor and is none raises `InvalidCursorError`, nothing else."""
    with pytest.raises(InvalidCursorError):
        decode_cursor(junk, scope=scope)
