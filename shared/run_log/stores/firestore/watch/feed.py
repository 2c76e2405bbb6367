"""What Firestore tells of changes as they happen: a listener for an event loop, and the watches it feeds."""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final

from google.api_core import exceptions as google_errors
from grpc.aio import AioRpcError
from typing_extensions import override

from run_log.core import RunLogError, StoreUnavailableError
from run_log.core.logs import get_logger
from run_log.stores.firestore.client import RUNS, VENDOR_ERRORS, Connection, Patience, listen_response
from run_log.stores.firestore.queries import changed_query
from run_log.stores.watch import RunUpdate, UpdateSource, call_soon

from .changes import (
    Bounds,
    Change,
    ChangedDocuments,
    ChangePosition,
    RecentChanges,
    Snapshot,
    WatchPosition,
    requests_around,
)

_vendor_errors: Any = google_errors  # published without annotations

_logger: Final = get_logger("run_log.stores")

# Longest wait until a listener that worked begins anew: all processes may lose theirs at one moment.
_LONGEST_PAUSE_SECONDS: Final = 1.0


class Feed:
    """The newest changes of all runs, as one listener tells them to the watches of one event loop.

    The listener is there while somebody has joined. It is the vendor's call itself, of the asynchronous
    client: no thread, and no document is held but the newest changes. Whatever happens to it, it begins anew
    from the newest change that it told; only what somebody has to mend ends it. So its *patience* is without
    end. *root* is the full name of the collection that holds the projection.
    """

    def __init__(
        self,
        connection: Connection,
        root: str,
        *,
        bounds: Bounds,
        patience: Patience,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._connection = connection
        self._root = root
        self._collection = root.rpartition("/")[2]
        self._documents = ChangedDocuments(connection, self._collection, None, page=bounds.page)
        self._bounds = bounds
        self._patience = patience
        self._uniform = uniform
        self._joined = 0
        self._listening: asyncio.Task[None] | None = None
        self._has_failed = False

    def join(self, now: int) -> None:
        """Be told of what is committed after *now*, if not before; `leave` or `abandon` it once.

        Args:
            now: A moment of the store's that has passed, in nanoseconds since the epoch.
        """
        self._joined += 1
        if self._listening is None or self._listening.done():
            self._loop = asyncio.get_running_loop()
            self._process = os.getpid()
            self._told = asyncio.Event()
            self._recent = RecentChanges(ChangePosition.after_all_at(now), self._bounds)
            self._listening = asyncio.create_task(self._listen())

    async def leave(self) -> None:
        """Be told no more; with the last one the listener is gone when this returns."""
        listening = self._leave()
        if listening is not None:
            await asyncio.wait([listening])

    def abandon(self) -> None:
        """Be told no more, soon; called from any thread."""
        # A forked child has copies of its parent's watches, and could wake the parent's event loop.
        if os.getpid() == self._process:
            call_soon(self._loop, self._leave)

    def covers(self, place: ChangePosition) -> bool:
        """Return whether every change after *place* is or will be told."""
        return place >= self._recent.floor

    def after(self, place: ChangePosition) -> Change | None:
        """Return the first change after *place*, which is covered; None where it has yet to come."""
        return self._recent.after(place)

    async def told(self, place: ChangePosition) -> None:
        """Wait until *place* is covered no more or there is a change after it.

        Raises:
            ConfigurationError: The store is not there (any more), or does not let us in.
            StoreError: It refuses to be listened to.
        """
        while self.covers(place) and self.after(place) is None:
            if self._listening is not None and self._listening.done():
                self._listening.result()
            await self._told.wait()

    def _leave(self) -> asyncio.Task[None] | None:
        """Count one less; return the listener where it was the last one's, and is being cancelled."""
        self._joined -= 1
        if self._joined or self._listening is None:
            return None
        listening, self._listening = self._listening, None
        # One that was waited for keeps its event loop, and the service keeps this.
        self._told = asyncio.Event()
        listening.cancel()
        if not listening.cancelled() and listening.done():
            listening.exception()  # everybody was told
        return listening

    async def _listen(self) -> None:
        try:
            while True:
                await self._patience.run(self._try_to_listen)
                # At random: when a server goes, every process begins a new listener.
                await asyncio.sleep(self._uniform(0, _LONGEST_PAUSE_SECONDS))
        finally:
            self._told.set()

    async def _try_to_listen(self) -> None:
        try:
            await self._listen_once()
        except RunLogError as error:
            if not self._has_failed:
                self._has_failed = True
                _logger.warning("run_log_listener_failed", error=str(error))
            raise

    async def _listen_once(self) -> None:
        """Listen until that ends; raise where it has not worked at all, or never will."""
        # Anew with each listener: what one that broke had half told is told again, and whole.
        snapshot = Snapshot(self._root, self._recent, self._bounds)
        works = False
        try:
            async with aclosing(self._responses()) as responses:
                async for response in responses:
                    if not snapshot.take_in(listen_response(response)):
                        continue
                    if not works:
                        await self._look_around(snapshot)
                    works = True
                    snapshot.pour_out()
                    self._tell()
        except VENDOR_ERRORS as error:
            ours = self._connection.error(error)
            # One that has worked is begun anew without a word: Firestore ends them now and then.
            if not works or not isinstance(ours, StoreUnavailableError):
                raise ours from error
        if not works:
            raise StoreUnavailableError(f"{self._connection} ended the listener before it told anything")

    async def _look_around(self, snapshot: Snapshot) -> None:
        """Read what was committed while the listener started, now that it works."""
        # The emulator looks what is there before it heeds what is written: of what is committed between, it
        # tells with the next commit.
        place = WatchPosition(seen=self._recent.newest, until=await self._documents.now())
        is_last = False
        while not is_last:
            documents, is_last = await self._documents.page(place)
            for document in documents:
                place = place.past(document)
                change = Change.of(document, self._root)
                if change is not None and place.includes(change):
                    snapshot.add(change)

    async def _responses(self) -> AsyncGenerator[Any]:
        # From a margin before: a document says when its request began, not when it was committed.
        since, _ = requests_around(self._recent.newest.nanos)
        query = changed_query(self._connection.client().collection_group(RUNS), self._collection, since)
        is_over = asyncio.Event()
        # It ends by itself after a while: its query begins at a fixed moment, so what it matches only grows.
        call = self._connection.listen(query, is_over, self._bounds.listen_seconds)
        responses: Any = aiter(call)
        try:
            while True:
                async with asyncio.timeout(self._bounds.silent_seconds):
                    response = await anext(responses)
                # What gRPC cannot decode it hands over as None. The emulator garbles a response now and then.
                if response is None:
                    raise _vendor_errors.InternalServerError(
                        "a response of the listener could not be decoded"
                    )
                yield response
        except AioRpcError as error:
            raise _vendor_errors.from_grpc_error(error) from error
        except TimeoutError as error:
            raise _vendor_errors.DeadlineExceeded("the listener fell silent") from error
        except StopAsyncIteration:
            return
        finally:
            is_over.set()
            call.cancel()

    def _tell(self) -> None:
        if self._has_failed:
            self._has_failed = False
            _logger.info("run_log_listener_recovered")
        # An event of its own for each state: who waits for the next one never wakes by this one.
        told, self._told = self._told, asyncio.Event()
        told.set()


class FirestoreUpdates(UpdateSource):
    """The changes after a position: from the feed, and by walks over what the feed does not reach.

    It begins at *place*; None for now. Reads are tried again with the patience *opening* while the watch is
    opened, and later without end. *update* returns the update of a change, given where the watch is after it;
    None where it is of no concern to the watch.
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
