"""Notices in the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from run_log.core.clock import micros_of
from run_log.stores.notices import Notice, NoticeKind

from ._schema import transaction

_PUT: Final = "INSERT OR REPLACE INTO notices (kind, key, at, expire_at, text) VALUES (?, ?, ?, ?, ?)"
_EXPIRE: Final = "DELETE FROM notices WHERE expire_at <= ?"
_REMOVE: Final = "DELETE FROM notices WHERE kind = ? AND key = ?"
_READ: Final = (
    "SELECT text FROM notices WHERE kind = ? AND (expire_at IS NULL OR expire_at > ?) "
    "ORDER BY at DESC LIMIT ?"
)
# A file that an earlier version made has none, and who reads makes none.
_HAS_NOTICES: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'notices'"


def put(connection: sqlite3.Connection, kind: NoticeKind, notices: Sequence[Notice], now: datetime) -> None:
    """Keep *notices* in one transaction, and delete those that have expired."""
    rows = [
        (
            kind.value,
            notice.key,
            micros_of(notice.at),
            None if notice.expires_at is None else micros_of(notice.expires_at),
            notice.text,
        )
        for notice in notices
    ]
    with transaction(connection):
        connection.executemany(_PUT, rows)
        connection.execute(_EXPIRE, (micros_of(now),))


def remove(connection: sqlite3.Connection, kind: NoticeKind, keys: Iterable[str]) -> None:
    """Remove the notices with these keys in one transaction."""
    with transaction(connection):
        connection.executemany(_REMOVE, [(kind.value, key) for key in keys])


def read(connection: sqlite3.Connection, kind: NoticeKind, most: int, now: datetime) -> list[Any]:
    """Return the texts of the newest notices that have not expired, at most so many."""
    (has_notices,) = connection.execute(_HAS_NOTICES).fetchone()
    rows = connection.execute(_READ, (kind.value, micros_of(now), most)).fetchall() if has_notices else []
    return [text for (text,) in rows]
