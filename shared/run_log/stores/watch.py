"""Watching runs: their changes as they come, from now on or from where a cursor says."""

from __future__ import annotations

import abc
import asyncio
import threading
import weakref
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from run_log.core import Version, WorkflowRun
from run_log.core.forks import renewed

from .telemetry import span

_ONE_TASK: Final = "another task waits for this watch's next update; open one for each task"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUpdate:
    """A run's stored record changed: its state, or its history alone."""

    run: WorkflowRun
    """The run as it was when the change was read."""
    version: Version
    """Of the run's newest event; the same as before where an older event only joined the history."""
    cursor: str
    """Goes on right after this update, given back as ``since_cursor`` to a watch of the same runs."""

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON, and with it the version and the cursor."""
        return {**self.run.to_json(), "version": self.version.text, "cursor": self.cursor}


class UpdateSource(abc.ABC):
    """What a watch needs of a store: the changes after a place that moves as they are taken.

    Used from one event loop, and by one task at a time, `abandon` aside.
    """

    @abc.abstractmethod
    async def open(self) -> None:
        """Be at the place that the watch begins at. Where this raises, there is nothing to let go of."""

    @abc.abstractmethod
    def take(self) -> RunUpdate | None:
        """Return the next change that is at hand, and be after it; None where none is at hand."""

    @abc.abstractmethod
    async def more(self) -> None:
        """Wait until there may be another one at hand. Cancelled, it loses none."""

    async def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of everything, and have it gone when this returns. By default there is nothing."""

    def abandon(self) -> None:  # noqa: B027 - likewise
        """Let go of everything soon; called from any thread, in place of `close`."""


class RunWatch:
    """The changes of runs as they come: an asynchronous iterator, to be entered with ``async with``.

    Once entered it misses nothing: enter it, then start what is to be seen. Iterated without having been
    entered, it begins where its first update is asked for. Leaving it, `aclose`, and closing the service end
    the iteration at once; what was still to come is had with a cursor. A wait that is cancelled, by a time
    limit say, ends nothing: ask again. It belongs to the event loop it was entered in, and to one task.
    """

    def __init__(self, source: UpdateSource, watches: Watches, workflow_id: str | None) -> None:
        self._source = source
        self._watches = watches
        self._attributes = {} if workflow_id is None else {"workflow_id": workflow_id}
        self._is_opening = False
        self._is_ended = False
        self._waiting: asyncio.Future[None] | None = None
        self._abandoned: weakref.finalize[[], RunWatch] | None = None

    async def __aenter__(self) -> Self:
        """Begin: whatever changes from now on, or has since the cursor, will come.

        Raises:
            StoreUnavailableError: The store does not answer in bounded time.
            ConfigurationError: The store is not there, or does not let us in.
        """
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; see `aclose`."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> RunUpdate:
        """Return the next update, once there is one.

        However long a store is away, this waits for it.

        Raises:
            StopAsyncIteration: It was ended.
            ConfigurationError: The store is not there (any more), or does not let us in; the watch is ended.
            StoreError: The store refuses to be watched; the watch is ended.
        """
        await self._begin()
        while not self._is_ended:
            update = self._source.take()
            if update is not None:
                return update
            await self._wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it, in the event loop it was entered in: nothing is left behind. Closing twice is fine."""
        self._is_ended = True
        if self._waiting is not None:
            self._waiting.cancel()
        if self._abandoned is not None and self._abandoned.detach():
            self._watches.discard(self)
            await self._source.close()

    async def _begin(self) -> None:
        if self._abandoned is not None or self._is_ended:
            return
        if self._is_opening:
            raise RuntimeError(_ONE_TASK)
        self._is_opening = True
        try:
            with span("run_log.watch", attributes=self._attributes):
                await self._source.open()
        finally:
            self._is_opening = False
        self._abandoned = weakref.finalize(self, self._source.abandon)
        self._abandoned.atexit = False
        self._watches.add(self, asyncio.get_running_loop())
        await self._end_if_over()

    async def _end_if_over(self) -> None:
        if self._is_ended:  # by another task, while it was opened
            await self.aclose()

    async def _wait(self) -> None:
        if self._waiting is not None:
            raise RuntimeError(_ONE_TASK)
        task = asyncio.current_task()
        self._waiting = asyncio.ensure_future(self._source.more())
        try:
            await self._waiting
        except asyncio.CancelledError:
            if not self._is_ended or (task and task.cancelling()):
                raise
        except Exception:
            await self.aclose()
            raise
        finally:
            self._waiting = None


class Watches:
    """The open watches of a service, in whatever event loops, so that closing it ends them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = renewed(self, "_lock", threading.Lock)
        self._loops = renewed(self, "_loops", weakref.WeakKeyDictionary[RunWatch, asyncio.AbstractEventLoop])

    def add(self, watch: RunWatch, loop: asyncio.AbstractEventLoop) -> None:
        """Remember that *watch* was entered in *loop*."""
        with self._lock:
            self._loops[watch] = loop

    def discard(self, watch: RunWatch) -> None:
        """Forget *watch*, which is ended."""
        with self._lock:
            self._loops.pop(watch, None)

    async def close(self) -> None:
        """End those of the running event loop, and have those of others end soon."""
        with self._lock:
            watches = list(self._loops.items())
        running = asyncio.get_running_loop()
        for watch, loop in watches:
            if loop is running:
                await watch.aclose()
            else:
                in_loop(loop, watch.aclose)


def in_loop(loop: asyncio.AbstractEventLoop, work: Any) -> None:
    """Have *loop* run the coroutine function *work* soon, from any thread; not at all where it is closed."""

    def start() -> None:
        coroutine: Coroutine[Any, Any, None] = work()
        task = loop.create_task(coroutine)
        _running.add(task)
        task.add_done_callback(_running.discard)

    call_soon(loop, start)


def call_soon(loop: asyncio.AbstractEventLoop, function: Any) -> None:
    """Have *loop* call *function* soon, from any thread; not at all where it is closed."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return  # closed: whoever waited there is gone


# The event loop itself holds its tasks weakly.
_running: set[asyncio.Task[None]] = set()
