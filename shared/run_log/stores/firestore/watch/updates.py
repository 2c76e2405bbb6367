"""The updates of one watch: from the feed, and by walks while it is behind what the feed reaches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from typing_extensions import override

from run_log.stores.firestore.client import Patience
from run_log.stores.watch import RunUpdate, UpdateSource

from .changes import Change, ChangePosition
from .feed import Feed
from .walks import ChangedDocuments, WatchPosition


class FirestoreUpdates(UpdateSource):
    """The changes after a position: from the feed, and by walks over what the feed does not reach.

    Args:
        documents: Reads what the feed does not reach.
        opening: How reads are tried again while the watch is opened.
        patience: How they are later: without end.
        feed: Returns the running event loop's feed.
        place: Where to begin; None for now.
        root: The full name of the collection that holds the projection.
        update: Returns the update of a change, given where the watch is after it; None where it is of no
            concern to the watch.
    """

    def __init__(
        self,
        *,
        documents: ChangedDocuments,
        opening: Patience,
        patience: Patience,
        feed: Callable[[], Feed],
        place: WatchPosition | None,
        root: str,
        update: Callable[[Change, WatchPosition], RunUpdate | None],
    ) -> None:
        self._documents = documents
        self._opening = opening
        self._patience = patience
        self._feed_here = feed
        self._begins = place
        self._root = root
        self._update = update
        self._page: deque[Any] = deque()
        self._is_last_page = False

    @override
    async def open(self) -> None:
        # The store's time, not this machine's: what is committed after it comes, whatever clocks say. The
        # feed is joined before the watch is entered, so nothing falls between.
        now = await self._opening.run(self._documents.now)
        self._place = self._begins or WatchPosition(seen=ChangePosition.after_all_at(now))
        self._feed = self._feed_here()
        self._feed.join(now)

    @override
    def take(self) -> RunUpdate | None:
        while (change := self._next()) is not None:
            update = self._update(change, self._place)
            if update is not None:
                return update
        return None

    @override
    async def more(self) -> None:
        if not self._place.until:
            if self._feed.covers(self._place.seen):
                await self._feed.told(self._place.seen)
                return
            # A round has an end, or a walk over a busy store would never come to it.
            now = await self._patience.run(self._documents.now)
            self._place = replace(self._place, until=now)
        documents, self._is_last_page = await self._patience.run(partial(self._documents.page, self._place))
        self._page.extend(documents)

    @override
    async def close(self) -> None:
        await self._feed.leave()

    @override
    def abandon(self) -> None:
        self._feed.abandon()

    def _next(self) -> Change | None:
        """Return the next change at hand, and be after it."""
        if self._place.until:
            return self._next_of_round()
        if not self._feed.covers(self._place.seen):
            return None
        change = self._feed.after(self._place.seen)
        if change is not None:
            self._place = replace(self._place, seen=change.place)
        return change

    def _next_of_round(self) -> Change | None:
        while self._page:
            document = self._page.popleft()
            self._place = self._place.past(document)
            change = Change.of(document, self._root)
            if change is not None and self._place.includes(change):
                return change
        if self._is_last_page:
            # What changed during the round is the next one's, or the feed's where that reaches back so far.
            self._is_last_page = False
            self._place = WatchPosition(seen=ChangePosition.after_all_at(self._place.until))
        return None
