"""Identities: time-ordered event ids, and document ids that hold any text."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable
from typing import Final

MAX_DOCUMENT_ID_BYTES: Final = 1_500
"""Firestore's limit for one document id (https://firebase.google.com/docs/firestore/quotas)."""

MAX_ID_BYTES: Final = 1_024
"""Most bytes of UTF-8 of a workflow's id, a run's, and of who is asked or has answered."""

_NEEDS_ESCAPE: Final = re.compile(r"[%/\x00-\x1f\x7f]")
_NEVER_IN_ID: Final = re.compile(r"[/\x00-\x1f\x7f]")
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
    """Return a new UUIDv7 (RFC 9562) as text: sortable by its millisecond, then random.

    Args:
        now_ms: Milliseconds since the epoch.
        randbits: Source of that many random bits. The default is reseeded after a fork, and ids are
            identities, not secrets.
    """
    bits, ms = randbits(74), now_ms() & 0xFFFF_FFFF_FFFF
    value = ms << 80 | bits >> 62 << 64 | bits & _LOW_BITS | _VERSION_AND_VARIANT
    # Formatted by hand: uuid.UUID takes three times as long, and every event pays for it.
    digits = value.to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_long_id(text: str) -> bool:
    """Return whether *text* takes more than `MAX_ID_BYTES`."""
    return len(text) > MAX_ID_BYTES // 4 and len(text.encode(errors="surrogatepass")) > MAX_ID_BYTES


def bounded_id(text: str) -> str:
    """Return the id that stands for *text*, which somebody else may have made: of at most `MAX_ID_BYTES`.

    That is itself; of a longer one it is the beginning and a SHA-256 digest of the whole. So it is the same
    wherever it is made, is not changed if it is made again, and two longer texts never share one.

    Args:
        text: Any text.
    """
    if not is_long_id(text):
        return text
    encoded = text.encode(errors="surrogatepass")
    prefix = encoded[:_ESCAPED_ID_PREFIX_BYTES].decode(errors="ignore")
    return f"{prefix}{_ESCAPED_ID_MARK}{hashlib.sha256(encoded).hexdigest()}"


def valid_text(text: str) -> str:
    """Return *text* with what UTF-8 cannot hold, lone surrogates, written with backslashes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def document_id(text: str) -> str:
    """Return the document id that stands for *text*: one to one, and legal in Firestore.

    Most ids stay as they are. ``%``, ``/`` and control characters are percent-encoded, as are the
    whole-id forms Firestore reserves (``.``, ``..``, ``__x__``). What would not fit into
    `MAX_DOCUMENT_ID_BYTES` keeps a readable prefix and ends in a SHA-256 digest of the whole text.

    Args:
        text: Any non-empty text; what UTF-8 cannot hold stands for what `id_text` makes of it.
    """
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
    """Return whether *text* has the form of what `document_id` returns."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    is_reserved = text in {".", ".."} or (text.startswith("__") and text.endswith("__"))
    return 0 < size <= MAX_DOCUMENT_ID_BYTES and not is_reserved and not _NEVER_IN_ID.search(text)


def original_id(document: str) -> str | None:
    """Return the text that `document_id` was given, or None where only its digest is left.

    Args:
        document: A document id that `document_id` returned.
    """
    if _LONG_ID_MARK in document:
        return None
    return re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), document)
