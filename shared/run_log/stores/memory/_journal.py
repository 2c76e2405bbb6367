"""The order in which an embedded store's runs changed."""

from __future__ import annotations

import reprlib
import uuid
from bisect import bisect_right
from collections.abc import Callable
from operator import itemgetter
from typing import Final

from typing_extensions import override

from run_log.core import InvalidCursorError
from run_log.core.bell import Bell
from run_log.core.models import RunKey
from run_log.stores.listings import decode_parts, encode_parts
from run_log.stores.watch import RunUpdate, UpdateSource

# Superseded entries that a journal may always hold, beside as many as there are others.
_SLACK: Final = 1_000


class Journal:
    """The newest change of each run, numbered from 1. The store's lock guards it.

    *number_of* returns the number of a run's newest change; 0 where the run is gone.
    """

    def __init__(self, number_of: Callable[[RunKey], int]) -> None:
        self._number_of = number_of
        self._entries: list[tuple[int, RunKey]] = []
        self._tidy_at = _SLACK
        self._store = uuid.uuid4().hex
        self.last = 0
        """The number of the newest change."""

    def __len__(self) -> int:
        """Return how many entries it holds, superseded ones too."""
        return len(self._entries)

    def add(self, key: RunKey) -> int:
        """Note that a run changes, and return the change's number."""
        self.last += 1
        self._entries.append((self.last, key))
        # Now and then, for a run that changes often leaves an entry each time.
        if len(self._entries) > self._tidy_at:
            self._entries = [entry for entry in self._entries[:-1] if self._is_newest(entry)]
            self._entries.append((self.last, key))
            self._tidy_at = 2 * len(self._entries) + _SLACK
        return self.last

    def after(self, number: int, workflow_id: str | None) -> tuple[int, RunKey] | None:
        """Return the first run of a workflow, or of any, whose newest change comes after a number."""
        for index in range(bisect_right(self._entries, number, key=itemgetter(0)), len(self._entries)):
            entry = self._entries[index]
            if workflow_id in (None, entry[1][0]) and self._is_newest(entry):
                return entry
        return None

    def cursor(self, number: int, selection: str) -> str:
        """Return the cursor that goes on after the change with this number."""
        return encode_parts((self._store, number), scope="watch", selection=selection)

    def number(self, cursor: object, selection: str) -> int:
        """Return the number that *cursor* goes on after.

        Raises:
            InvalidCursorError: It is malformed, of other runs, or of a store in memory that is gone.
        """
        store, number = decode_parts(cursor, (str, int), scope="watch", selection=selection)
        if store != self._store:
            raise InvalidCursorError(
                f"{reprlib.repr(cursor)} is a cursor of a run log in memory that is gone, or of another one; "
                "watch without a cursor, and read what there is with list_runs"
            )
        return int(number)

    def _is_newest(self, entry: tuple[int, RunKey]) -> bool:
        return self._number_of(entry[1]) == entry[0]


class JournalUpdates(UpdateSource):
    """The changes of an embedded store after a number; None is where the store is when it is opened.

    *read* returns the number of the next change, and its update where that can be read; None where nothing is
    next. *last* returns the number of the newest. The *bell* rings when there is another.
    """

    def __init__(
        self,
        *,
        read: Callable[[int], tuple[int, RunUpdate | None] | None],
        last: Callable[[], int],
        bell: Bell,
        after: int | None,
    ) -> None:
        self._read = read
        self._last = last
        self._bell = bell
        self._after = after

    @override
    async def open(self) -> None:
        last = self._last()
        if self._after is None:
            self._after = last
        elif not 0 <= self._after <= last:
            raise InvalidCursorError("the cursor is of a change that was never made; watch without a cursor")

    @override
    def take(self) -> RunUpdate | None:
        while (found := self._read(self._after or 0)) is not None:
            self._after, update = found
            if update is not None:
                return update
        return None

    @override
    async def more(self) -> None:
        await self._bell.wait(unless=lambda: self._last() > (self._after or 0))
