"""Streams of changes: one watch of the run log for all who look at it, told on as they come.

What is told on is bounded, in number and in bytes. Who comes with an older cursor, or takes so long that what
comes next is no longer kept, reads it from the run log with a watch of their own, until the two meet. So no
stream has a gap, none holds another one up, and none takes memory for a client that does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Final

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Send
from typing_extensions import override

from run_log.core import RunLogError
from run_log.core.logs import get_logger
from run_log.stores import RunLog, RunUpdate, RunWatch

from .bodies import json_bytes

RETRY: Final = timedelta(seconds=2)
"""When a client comes back whose stream was cut."""

MAX_KEPT: Final = 1_000
"""How many updates are kept for who is a little behind."""

MAX_KEPT_BYTES: Final = 8 * 2**20
"""How many bytes they have, as the events that tell programs of them; the newest is kept whatever it has."""

_MAX_AT_ONCE: Final = 100

# Of one update: who looks says what the rows are filtered by, so there is no end of them.
_MAX_FORMS: Final = 16

# A page takes a cursor, and opens its stream a moment later.
_LINGER_SECONDS: Final = 20.0

# How long a server that stops waits for a stream to see it.
_LOOK_SECONDS: Final = 0.5

_logger: Final = get_logger("run_log.dashboard")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTimes:
    """How long the parts of a stream last."""

    longest: timedelta = timedelta(minutes=10)
    """A whole stream: an open one keeps a server billed, and who may see it is asked only when it opens."""
    keep_alive: timedelta = timedelta(seconds=15)
    """Silence: proxies cut what says nothing for a minute."""
    clock: Callable[[], float] = time.monotonic
    """Returns seconds that never go back."""


USUAL_TIMES: Final = StreamTimes()


class Seen:
    """An update that somebody may be told of, in each form made once, however many are told."""

    __slots__ = ("_forms", "update")

    def __init__(self, update: RunUpdate) -> None:
        self.update: Final = update
        self._forms: dict[Callable[[RunUpdate], bytes], bytes] = {}

    def as_form(self, form: Callable[[RunUpdate], bytes]) -> bytes:
        """Return what *form* makes of the update.

        It is asked once, if it is the same function each time and not too many others come between.
        """
        found = self._forms.get(form)
        if found is None:
            if len(self._forms) >= _MAX_FORMS:
                del self._forms[next(iter(self._forms))]
            found = self._forms[form] = form(self.update)
        return found


def event_bytes(data: object, *, cursor: str, event: str = "") -> bytes:
    """Return an event of a stream: *data*, which is JSON, and the cursor that goes on after it.

    *event* is what the event is called; empty for the usual, ``message``.
    """
    named = f"event: {event}\n" if event else ""
    # JSON text is one line.
    return b"%bid: %b\ndata: %b\n\n" % (named.encode(), cursor.encode(), json_bytes(data))


def json_event(update: RunUpdate) -> bytes:
    """Return the event that tells programs of *update*."""
    return event_bytes(update.to_json(), cursor=update.cursor)


class Changes:
    """The changes of all runs, for whoever looks at an app.

    Args:
        opened: Returns the run log.
        linger: How many seconds the watch of an event loop stays once nobody looks any more.
        kept: How many updates are kept for who is a little behind.
        times: How long streams of them last, and the like.
    """

    def __init__(
        self,
        opened: Callable[[], RunLog],
        *,
        linger: float = _LINGER_SECONDS,
        kept: int = MAX_KEPT,
        times: StreamTimes = USUAL_TIMES,
    ) -> None:
        self.times: Final = times
        self._opened = opened
        self._new_feed = partial(_Feed, opened, linger, kept)
        self._feeds: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Feed] = weakref.WeakKeyDictionary()

    async def cursor(self) -> str:
        """Return a cursor for `since`: take it before reading what is then kept fresh by what comes after it.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        feed = self._feed()
        return feed.newest if feed.is_running else await self._opened().get_watch_cursor()

    async def since(self, cursor: str | None) -> Subscription:
        """Return what changes after *cursor*, or from now on; it is to be closed.

        Raises:
            InvalidCursorError: *cursor* is malformed, of a watch of other runs, or of a store in memory that
                is gone.
            StoreUnavailableError: The store does not answer.
        """
        feed = self._feed()
        await feed.join()
        subscription = Subscription(self._opened(), feed, feed.newest if cursor is None else cursor)
        try:
            await subscription.begin()
        except BaseException:
            await subscription.close()
            raise
        return subscription

    def _feed(self) -> _Feed:
        # A watch belongs to its event loop.
        loop = asyncio.get_running_loop()
        if loop not in self._feeds:
            self._feeds[loop] = self._new_feed()
        return self._feeds[loop]


class _Feed:
    """The newest updates of all runs, as one watch brings them while somebody has joined."""

    def __init__(self, opened: Callable[[], RunLog], linger: float, kept: int) -> None:
        self._opened = opened
        self._linger = linger
        self._most = kept
        self._lock = asyncio.Lock()
        self._joined = 0
        self._reading: asyncio.Task[None] | None = None
        self._begin("")

    def _begin(self, cursor: str) -> None:
        self._kept: deque[tuple[Seen, int]] = deque()
        self._bytes = 0
        self._gone = 0
        # After which cursor which update comes, numbered from the first one that there was.
        self._next: dict[str, int] = {cursor: 0}
        self._oldest = self.newest = cursor
        self._told = asyncio.Event()

    @property
    def is_running(self) -> bool:
        return self._reading is not None and not self._reading.done()

    async def join(self) -> None:
        """Have it running until `leave`, which is called once for each that has joined."""
        self._joined += 1
        try:
            async with self._lock:
                if not self.is_running:
                    log = self._opened()
                    cursor = await log.get_watch_cursor()
                    updates = log.watch(None, since_cursor=cursor)
                    # Here, so that who joins hears of what is wrong with it.
                    await updates.__aenter__()
                    self._begin(cursor)
                    self._reading = asyncio.create_task(self._read(updates))
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        self._joined -= 1
        if not self._joined:
            asyncio.get_running_loop().call_later(self._linger, self._stop_if_left)

    def covers(self, cursor: str) -> bool:
        """Return whether what comes after *cursor* is kept, or will come."""
        return cursor in self._next

    def after(self, cursor: str) -> Sequence[Seen]:
        """Return the next updates after *cursor*, which is covered; none where they have yet to come."""
        begin = self._next[cursor] - self._gone
        return [seen for seen, _ in islice(self._kept, begin, begin + _MAX_AT_ONCE)]

    async def told(self) -> None:
        """Wait until there is another update.

        Raises:
            EOFError: There will be none: the run log has ended the watch.
        """
        if not self.is_running:
            raise EOFError
        await self._told.wait()

    def _stop_if_left(self) -> None:
        if not self._joined and self._reading is not None:
            self._reading.cancel()
            # Whoever joins before it is gone needs another one.
            self._reading = None

    async def _read(self, updates: RunWatch) -> None:
        try:
            async with updates:
                async for update in updates:
                    self._keep(Seen(update))
        except RunLogError as error:
            _logger.warning("run_log_dashboard_watch_failed", error=str(error))
        finally:
            if self._reading is asyncio.current_task():
                # Whoever waits sees in a moment that this is done.
                asyncio.get_running_loop().call_soon(self._told.set)

    def _keep(self, seen: Seen) -> None:
        size = len(seen.as_form(json_event))
        self._kept.append((seen, size))
        self._bytes += size
        self.newest = seen.update.cursor
        self._next[self.newest] = self._gone + len(self._kept)
        while len(self._kept) > self._most or (self._bytes > MAX_KEPT_BYTES and len(self._kept) > 1):
            oldest, size = self._kept.popleft()
            self._bytes -= size
            self._gone += 1
            # Right after it comes the oldest that is kept.
            self._next.pop(self._oldest, None)
            self._oldest = oldest.update.cursor
        told, self._told = self._told, asyncio.Event()
        told.set()


class Subscription:
    """The updates after a cursor, without a gap: from the feed, or else from the run log itself."""

    def __init__(self, log: RunLog, feed: _Feed, cursor: str) -> None:
        self._log = log
        self._feed = feed
        self._own: RunWatch | None = None
        self.cursor = cursor
        """Goes on after the last update that `more` returned."""

    async def begin(self) -> None:
        """Check that there is a way on from the cursor; see `Changes.since`."""
        if not self._feed.covers(self.cursor):
            self._own = self._log.watch(None, since_cursor=self.cursor)
            # Here, so that a client hears of a cursor that cannot be used.
            await self._own.__aenter__()

    async def more(self) -> Sequence[Seen]:
        """Wait for the next updates. Cancelled, it loses none.

        Raises:
            EOFError: There will be none: the run log is closed, or has ended the watch.
            RunLogError: The run log cannot be watched any more.
        """
        found: Sequence[Seen] = ()
        while not found:
            if self._feed.covers(self.cursor):
                await self._let_go()
                found = self._feed.after(self.cursor)
                if not found:
                    await self._feed.told()
            else:
                found = [await self._of_own()]
        self.cursor = found[-1].update.cursor
        return found

    async def close(self) -> None:
        """Let go of everything."""
        self._feed.leave()
        await self._let_go()

    async def _of_own(self) -> Seen:
        if self._own is None:
            self._own = self._log.watch(None, since_cursor=self.cursor)
        try:
            return Seen(await anext(self._own))
        except StopAsyncIteration as error:
            raise EOFError from error

    async def _let_go(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()


class EventStream(StreamingResponse):
    """An answer that tells of changes as server-sent events, until it was open for long enough.

    It begins with its cursor, so that a client that is cut off before the first event misses nothing. In
    silence it says that it is alive, and with that how far it has come. Its last event is ``end``. A client
    comes back with ``Last-Event-ID``, also where the server stops or the run log is away.

    Args:
        updates: What it tells of; closed with the answer.
        event_of: Returns the event of an update; None for no event.
        beside: Returns what is to be told besides, now and then; it is given the events that are told.
        times: How long it lasts, and the like.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        updates: Subscription,
        event_of: Callable[[Seen], bytes | None],
        *,
        beside: Callable[[bytes], Awaitable[bytes]] | None = None,
        times: StreamTimes = USUAL_TIMES,
    ) -> None:
        # A proxy would gather events before it passes them on.
        super().__init__((), headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._updates = updates
        self._event_of = event_of
        self._beside = beside
        self._times = times
        self._ends = times.clock() + times.longest.total_seconds()
        self._asked: asyncio.Task[Sequence[Seen]] | None = None

    @override
    async def stream_response(self, send: Send) -> None:
        try:
            async with aclosing(self._events()) as events:
                self.body_iterator = events
                await super().stream_response(send)
        finally:
            # Once a client is gone, what awaits is cancelled again and again until this has returned.
            with anyio.CancelScope(shield=True):
                if self._asked is not None:
                    self._asked.cancel()
                    await asyncio.gather(self._asked, return_exceptions=True)
                await self._updates.close()

    async def _events(self) -> AsyncGenerator[bytes]:
        clock, most_silence = self._times.clock, self._times.keep_alive.total_seconds()
        with contextlib.suppress(EOFError, RunLogError):
            # How far the client is told by an id, and how far it has come: the rest was of no concern to it.
            told = cursor = self._updates.cursor
            told_at = clock()
            yield f"retry: {RETRY // timedelta(milliseconds=1)}\nid: {told}\n\n".encode()
            # Looked at often, for a server that stops does not tell its streams.
            while clock() < self._ends and not _server_stops():
                updates = await self._next()
                cursor = updates[-1].update.cursor if updates else cursor
                events = b"".join(filter(None, map(self._event_of, updates)))
                if self._beside is not None:
                    events += await self._beside(events)
                if not events and clock() - told_at >= most_silence:
                    # An id without data is no event, and yet where the client comes back to.
                    events = f"{f'id: {cursor}' if cursor != told else ':'}\n\n".encode()
                if events:
                    told, told_at = cursor, clock()
                    yield events
            yield event_bytes({}, cursor=cursor, event="end")

    async def _next(self) -> Sequence[Seen]:
        """Return the next updates; none where there are none for a moment."""
        # Left to go on, however often this looks: a read that a slow store takes long for would never end.
        if self._asked is None:
            self._asked = asyncio.create_task(self._updates.more())
        left = max(self._ends - self._times.clock(), 0)
        await asyncio.wait(
            [self._asked], timeout=min(_LOOK_SECONDS, self._times.keep_alive.total_seconds(), left)
        )
        if not self._asked.done():
            return ()
        asked, self._asked = self._asked, None
        return asked.result()


def _server_stops() -> bool:
    # uvicorn waits for open answers before it tells an app of its end, by default for ever. While it serves,
    # SIGTERM is handled by a method of its server, which knows.
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
