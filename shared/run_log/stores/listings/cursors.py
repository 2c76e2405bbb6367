"""Cursors: opaque, URL-safe places in a listing that stay valid for ever."""

from __future__ import annotations

import base64
import hashlib
import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from run_log.core.clock import micros_of, moment_of
from run_log.core.errors import InvalidCursorError

_CHECK_BYTES: Final = 6
_FORMAT: Final = 1
_MAX_NUMBER: Final = 2**63
_MAX_SHOWN: Final = 300


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a run stands in its workflow's listing: a total order, so ties are neither lost nor repeated."""

    started_at: datetime
    """When the run started, in UTC."""
    document_id: str
    """The run's document id; compared by code point, as Firestore compares it."""


def encode_cursor(position: Position, *, scope: str, selection: str = "") -> str:
    """Return the cursor for the page that begins after *position*.

    Args:
        position: The last place of the page before.
        scope: The workflow whose runs are listed.
        selection: What tells this listing of its runs from others; empty for all of them, the newest first.
    """
    micros = micros_of(position.started_at)
    return encode_place((micros, position.document_id), scope=scope, selection=selection)


def decode_cursor(cursor: object, *, scope: str, selection: str = "") -> Position:
    """Return the position that `encode_cursor` put into *cursor*.

    Args:
        cursor: What a caller passes as the cursor.
        scope: The workflow it is used for.
        selection: See `encode_cursor`.

    Raises:
        InvalidCursorError: It is malformed, or was given out for another listing.
    """
    micros, document_id = decode_place(cursor, (int, str), scope=scope, selection=selection)
    try:
        return Position(moment_of(micros), document_id)
    except OverflowError as error:
        raise InvalidCursorError(_malformed(cursor)) from error


def encode_place(place: Sequence[int | str], *, scope: str, selection: str = "") -> str:
    """Return the cursor for the page that begins after *place*.

    Args:
        place: What the listing is sorted by, of the last item of the page before.
        scope: What is listed.
        selection: What tells this listing from others of the same scope.
    """
    content = json.dumps([_FORMAT, *place], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(content, scope, selection) + content).rstrip(b"=").decode()


def decode_place(
    cursor: object, kinds: Sequence[type[int | str]], *, scope: str, selection: str = ""
) -> list[Any]:
    """Return the place that `encode_place` put into *cursor*.

    Args:
        cursor: What a caller passes as the cursor.
        kinds: The type of each part of the place.
        scope: See `encode_place`.
        selection: See `encode_place`.

    Raises:
        InvalidCursorError: It is malformed, or was given out for another listing.
    """
    if not isinstance(cursor, str):
        raise InvalidCursorError(_malformed(cursor))
    text = cursor
    try:
        # Decoding ignores what it does not know, so equality with its own encoding is the check.
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        check, content = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        parts: list[Any] = json.loads(content)
        version, *place = parts
        intact = (
            version == _FORMAT
            and [type(part) for part in place] == list(kinds)
            and all(-_MAX_NUMBER <= part < _MAX_NUMBER for part in place if type(part) is int)
            and base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidCursorError(_malformed(cursor)) from error
    if not intact:
        raise InvalidCursorError(_malformed(cursor))
    if check != _check(content, scope, selection):
        raise InvalidCursorError(
            f"the cursor {reprlib.repr(text)} belongs to another listing than {scope[:_MAX_SHOWN]!r}"
            f"{f' with {selection[:_MAX_SHOWN]}' if selection else ''}, or was altered; "
            "pass a cursor only to the listing that returned it, with the same filters and order"
        )
    return place


def _malformed(cursor: object) -> str:
    # reprlib bounds the text, and bears an object whose own repr raises.
    return (
        f"{reprlib.repr(cursor)} is not a cursor; "
        "pass what the page before returned, or None for the first page"
    )


def _check(content: bytes, scope: str, selection: str) -> bytes:
    listing = f"{scope}\x00{selection}" if selection else scope
    return hashlib.sha256(listing.encode(errors="surrogatepass") + b"\x00" + content).digest()[:_CHECK_BYTES]
