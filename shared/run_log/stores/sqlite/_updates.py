"""The updates of one watch of a file: read in the order of the changes, and looked for again and again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from typing_extensions import override

from run_log.core import InvalidCursorError
from run_log.stores.listings import check_names, decode_parts, encode_parts
from run_log.stores.stored.reading import StoredRun
from run_log.stores.watch import RunUpdate, UpdateSource

PAGE: Final = 200
"""Changes read at a time: what a watch holds at most."""

POLL_SECONDS: Final = 0.1
"""How long a change may go unseen that another process made: SQLite tells nobody of it."""

_SCOPE: Final = "watch"


@dataclass(frozen=True, slots=True, order=True)
class ChangePosition:
    """Where a watch stands: after this change. Changes are in the order of their commits."""

    number: int
    """Of the transaction."""
    workflow: str = ""
    run: str = ""
    """The document ids of a run that the transaction changed; empty before all of them."""

    def cursor(self, log: str, selection: str) -> str:
        """Return the cursor that goes on after this position in the file with this *log*."""
        return encode_parts((log, self.number, self.workflow, self.run), scope=_SCOPE, selection=selection)

    @classmethod
    def of(cls, cursor: object, selection: str) -> tuple[Self, str]:
        """Return the position that *cursor* goes on after, and the log of its file.

        Raises:
            InvalidCursorError: It is malformed, or was given out for a watch of other runs.
        """
        log, number, workflow, run = decode_parts(
            cursor, (str, int, str, str), scope=_SCOPE, selection=selection
        )
        if workflow or run:
            check_names(cursor, workflow, run)
        return cls(number, workflow, run), log


class SQLiteUpdates(UpdateSource):
    """The changes of a file after a cursor, or from now on where that is None, looked for again and again.

    *state* returns the file's log, which is empty where there is no file, and the number of its last
    transaction. *page* returns at most `PAGE` changes after a position: where each is, and its run, if that
    is seen. *update* returns the update of a run, given its cursor.

    Raises:
        InvalidCursorError: *cursor* cannot be used.
    """

    def __init__(
        self,
        *,
        state: Callable[[], Awaitable[tuple[str, int]]],
        page: Callable[[ChangePosition], Awaitable[Sequence[tuple[ChangePosition, StoredRun | None]]]],
        update: Callable[[StoredRun, str], RunUpdate],
        selection: str,
        cursor: object,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._state = state
        self._page = page
        self._update = update
        self._selection = selection
        self._begins = None if cursor is None else ChangePosition.of(cursor, selection)
        self._sleep = sleep
        self._at_hand: deque[tuple[ChangePosition, StoredRun | None]] = deque()

    @override
    async def open(self) -> None:
        self._log, last = await self._state()
        now = ChangePosition(last + 1)
        if self._begins is None:
            self._place = now
            return
        self._place, log = self._begins
        # The cursor may be older than the file, and then all that is in it is new.
        if log and log != self._log:
            raise InvalidCursorError(
                "the cursor is of another file than RUN_LOG_SQLITE_PATH names now; watch without a cursor, "
                "and read what there is with list_runs"
            )
        if self._place > now:
            raise InvalidCursorError(
                "the cursor is of a change that the file has not seen; was it restored from a copy? Watch "
                "without a cursor, and read what there is with list_runs"
            )

    @override
    def take(self) -> RunUpdate | None:
        while self._at_hand:
            self._place, stored = self._at_hand.popleft()
            if stored is not None:
                return self._update(stored, self._place.cursor(self._log, self._selection))
        return None

    @override
    async def more(self) -> None:
        found = await self._page(self._place)
        while not found:
            await self._sleep(POLL_SECONDS)
            found = await self._page(self._place)
        if not self._log:  # there was no file when the watch began
            self._log, _ = await self._state()
        self._at_hand.extend(found)
