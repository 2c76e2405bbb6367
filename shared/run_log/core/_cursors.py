"""Cursors: opaque, URL-safe places in a listing that stay valid for ever."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import reprlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from ._errors import InvalidCursorError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CHECK_BYTES: Final = 6
_FORMAT: Final = 1
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a run stands in its workflow's listing: a total order, so ties are neither lost nor repeated."""

    started_at: datetime
    """When the run started, in UTC."""
    document_id: str
    """The run's document id; compared by code point, as Firestore compares it."""


def encode_cursor(position: Position, *, scope: str) -> str:
    """Return the cursor for the page that begins after *position*.

    Args:
        position: The last place of the page before.
        scope: The listing it belongs to: its workflow, and whatever else selects its runs.
    """
    micros = (position.started_at - _EPOCH) // _MICROSECOND
    content = json.dumps([_FORMAT, micros, position.document_id], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(content, scope) + content).rstrip(b"=").decode()


def decode_cursor(cursor: object, *, scope: str) -> Position:
    """Return the position that `encode_cursor` put into *cursor*.

    Args:
        cursor: What a caller passes as the cursor.
        scope: The listing it is used for.

    Raises:
        InvalidCursorError: It is malformed, or was given out for another listing.
    """
    try:
        text = cast("str", cursor)
        # Decoding ignores what it does not know, so equality with its own encoding is the check.
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        check, content = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        version, micros, document_id = json.loads(content)
        position = Position(_EPOCH + micros * _MICROSECOND, document_id)
        intact = (
            version == _FORMAT
            and isinstance(document_id, str)
            and base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text
        )
    except (TypeError, ValueError, OverflowError, binascii.Error, RecursionError) as error:
        raise InvalidCursorError(_malformed(cursor)) from error
    if not intact:
        raise InvalidCursorError(_malformed(cursor))
    if check != _check(content, scope):
        raise InvalidCursorError(
            f"the cursor {text!r} belongs to another listing than {scope!r}, or was altered; "
            "pass start_after only to the listing that returned it"
        )
    return position


def _malformed(cursor: object) -> str:
    # reprlib bounds the text, and bears an object whose own repr raises.
    return (
        f"{reprlib.repr(cursor)} is not a cursor; "
        "pass what the page before returned, or None for the first page"
    )


def _check(content: bytes, scope: str) -> bytes:
    return hashlib.sha256(scope.encode(errors="surrogatepass") + b"\x00" + content).digest()[:_CHECK_BYTES]
