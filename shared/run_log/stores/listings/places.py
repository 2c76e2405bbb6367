"""Where a run stands in a listing over workflows, and the cursors made of that."""

from __future__ import annotations

import reprlib
from datetime import datetime
from typing import Any, NamedTuple, Self

from run_log.core import InvalidCursorError, StoreError
from run_log.core.clock import micros_of, moment_of
from run_log.core.ids import document_id, is_document_id
from run_log.core.models import RunKey

from .cursors import decode_place, encode_place


class Place(NamedTuple):
    """Where a run stands among runs of several workflows: a total order."""

    moment: datetime
    """What the listing is sorted by, in UTC."""
    workflow: str
    """The workflow's document id."""
    run: str
    """The run's document id."""

    @classmethod
    def of(cls, moment: datetime, key: RunKey) -> Self:
        """Return the place of the run with this key in a listing sorted by *moment*."""
        return cls(moment, document_id(key[0]), document_id(key[1]))

    def cursor(self, *, scope: str, selection: str) -> str:
        """Return the cursor for the page that begins after this place; see `encode_place`."""
        micros = micros_of(self.moment)
        return encode_place((micros, self.workflow, self.run), scope=scope, selection=selection)

    @classmethod
    def after(cls, cursor: object, *, scope: str, selection: str) -> Self:
        """Return the place that *cursor* was made of.

        Raises:
            InvalidCursorError: It is malformed, or was given out for another listing.
        """
        micros, workflow, run = decode_place(cursor, (int, str, str), scope=scope, selection=selection)
        check_names(cursor, workflow, run)
        try:
            return cls(moment_of(micros), workflow, run)
        except OverflowError as error:
            raise InvalidCursorError(f"{reprlib.repr(cursor)} is not a cursor; it names no moment") from error


def check_moves_on(after: Any | None, last: Any, *, newest_first: bool = False) -> None:
    """Check that a page ends beyond the place after which it began: else a walk would never end.

    Raises:
        StoreError: It does not.
    """
    if after is not None and not (last < after if newest_first else last > after):
        raise StoreError(
            f"a page after {after} ends at {last}: what the store sorts by is not what it returns; its index "
            "is damaged, so restore it from a copy, or rebuild the projection"
        )


def check_names(cursor: object, *documents: str) -> None:
    """Check what a cursor names: who forges one can have it name anything, and a store would stumble.

    Raises:
        InvalidCursorError: One of *documents* is no document id.
    """
    if not all(map(is_document_id, documents)):
        raise InvalidCursorError(
            f"{reprlib.repr(cursor)} is not a cursor: it names what has no such name; pass what the page "
            "before returned, or None for the first page"
        )
