"""Identities: ids of events in the order of time, ids that users give, and document ids for any text."""

from __future__ import annotations

import hashlib
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Final

from pydantic import SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from .nearest import CUT_MARKER, MAX_READ_BYTES, Reading, is_foreign, unwrapped

MAX_DOCUMENT_ID_BYTES: Final = 1_500
"""Firestore's limit for a document id (https://firebase.google.com/docs/firestore/quotas)."""

MAX_ID_BYTES: Final = 1_024
"""The most bytes of UTF-8 of a workflow's id, a run's id, an assignee, and of who answered."""

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,999}")
_NEEDS_ESCAPE: Final = re.compile(r"[%/\x00-\x1f\x7f]")
_NEVER_IN_ID: Final = re.compile(r"[/\x00-\x1f\x7f]")
# No other document id has this: a % of the text itself is escaped.
_LONG_ID_MARK: Final = "%~"
_LONG_ID_PREFIX_BYTES: Final = 1_000
_ESCAPED_ID_MARK: Final = "~sha256-"
_ESCAPED_ID_PREFIX_BYTES: Final = 256

_VERSION_AND_VARIANT: Final = 0x7 << 76 | 0b10 << 62
_LOW_BITS: Final = (1 << 62) - 1


def uuid7(
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    randbits: Callable[[int], int] = random.getrandbits,
) -> str:
    """Return a new UUIDv7 (RFC 9562) as text. It sorts by its millisecond; the rest is random."""
    # Not `secrets`: an id is no secret, and the default generator is faster. Python reseeds it after a fork.
    bits, ms = randbits(74), now_ms() & 0xFFFF_FFFF_FFFF
    value = ms << 80 | bits >> 62 << 64 | bits & _LOW_BITS | _VERSION_AND_VARIANT
    # Not uuid.UUID: it takes three times as long, and every event pays for it.
    digits = value.to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def valid_text(text: str) -> str:
    """Return *text* with lone surrogates, which UTF-8 cannot hold, written with backslashes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def as_text(value: object) -> str:
    """Return *value* as a text that UTF-8 can hold. What is no text becomes what it would be as a key."""
    return valid_text(Reading(MAX_READ_BYTES).key(value))


def id_text(value: object) -> str | None:
    """Return the text that *value* is as an id; None if it has none. It is the same wherever it is made.

    A text is its own id. A number, a UUID, a path, a date, a member of an enum and bytes have the text that
    they have as a key. Lone surrogates are written with backslashes. None, lists, mappings and other objects
    have no text.
    """
    if type(value) is str:
        return valid_text(value)
    try:
        nearest = value if isinstance(value, str) else unwrapped(value)
        if nearest is None or isinstance(nearest, list | Iterator | SecretStr | SecretBytes):
            return None
        if not isinstance(nearest, str | bytes | bytearray | PurePath):
            # Raises for an object of an unknown type. Its repr may have an address, and be another next time.
            nearest = to_jsonable_python(nearest)
        if isinstance(nearest, float) and not math.isfinite(nearest):
            return None
        text = as_text(nearest)
    # The code of a foreign object may raise anything, a BaseException too.
    except BaseException as error:
        if not is_foreign(error):
            raise
        return None
    return None if text.startswith(CUT_MARKER) else text


def is_long_id(text: str) -> bool:
    """Return whether *text* takes more than `MAX_ID_BYTES`."""
    # A character takes at most 4 bytes, so most ids need not be encoded.
    return len(text) > MAX_ID_BYTES // 4 and len(text.encode(errors="surrogatepass")) > MAX_ID_BYTES


def bounded_id(text: str) -> str:
    """Return the id of at most `MAX_ID_BYTES` that stands for *text*.

    A short text stands for itself. The id of a longer one is its beginning and a SHA-256 digest of the whole.
    So the id is the same wherever it is made, an id that is given again stays as it is, and two longer texts
    never share one.
    """
    if not is_long_id(text):
        return text
    encoded = text.encode(errors="surrogatepass")
    prefix = encoded[:_ESCAPED_ID_PREFIX_BYTES].decode(errors="ignore")
    return f"{prefix}{_ESCAPED_ID_MARK}{hashlib.sha256(encoded).hexdigest()}"


def document_id(text: str) -> str:
    """Return the document id that stands for *text*. It is unique to the text, and legal in Firestore.

    Most ids stay as they are. ``%``, ``/`` and control characters are percent-encoded, and so are the whole
    ids that Firestore reserves (``.``, ``..``, ``__x__``). An id that would exceed `MAX_DOCUMENT_ID_BYTES`
    keeps a readable prefix and ends in a SHA-256 digest of the whole text. *text* is not empty.
    """
    # Nearly every id is like this, and every event pays for several.
    if _PLAIN_ID.fullmatch(text):
        return text
    text = valid_text(text)
    escaped = _NEEDS_ESCAPE.sub(lambda match: f"%{ord(match[0]):02X}", text)
    if escaped in {".", ".."}:
        escaped = escaped.replace(".", "%2E")
    elif escaped.startswith("__") and escaped.endswith("__"):
        escaped = "%5F" + escaped[1:]
    encoded = escaped.encode()
    if len(encoded) <= MAX_DOCUMENT_ID_BYTES:
        return escaped
    prefix = encoded[:_LONG_ID_PREFIX_BYTES].decode(errors="ignore")
    return f"{prefix}{_LONG_ID_MARK}{hashlib.sha256(text.encode()).hexdigest()}"


def is_document_id(text: str) -> bool:
    """Return whether *text* has the form of an id that `document_id` returns."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    is_reserved = text in {".", ".."} or (text.startswith("__") and text.endswith("__"))
    return 0 < size <= MAX_DOCUMENT_ID_BYTES and not is_reserved and not _NEVER_IN_ID.search(text)


def original_id(document: str) -> str | None:
    """Return the text that `document_id` made *document* of; None if only its digest is left."""
    if _LONG_ID_MARK in document:
        return None
    return re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), document)
