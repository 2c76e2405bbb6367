"""The emitter: takes a run's state in passing, and delivers it from a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from run_log.core import (
    PROCESS_CLOCK,
    ConfigurationError,
    HybridLogicalClock,
    RunEvent,
    RunLogError,
    Settings,
    TransportRefusedError,
    current_trace,
    encode_event,
    get_logger,
    snapshot,
    uuid7,
)

from ._buffer import BufferLimits, Entry, EventBuffer
from ._transport import Transport

MAX_BATCH_EVENTS: Final = 1_000
"""Pub/Sub's limit for one publish call (https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_BATCH_BYTES: Final = 5 * 2**20
"""Of message bodies. Half of Pub/Sub's 10 MB for one publish call, which counts attributes too: a thousand
messages' take up to 4.5 MB."""

FIRST_RETRY_SECONDS: Final = 0.1
LONGEST_RETRY_SECONDS: Final = 10.0
REFUSED_RETRY_SECONDS: Final = 30.0
"""The longest wait when only somebody's action can help; the shortest is half of it."""

_logger: Final = get_logger("run_log.producer")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushReport:
    """What has become of the events emitted so far."""

    delivered: int
    """Durable at the broker."""
    pending: int
    """Still held; they go on being delivered."""
    dropped: int
    """Lost: no room, not a run, or emitted after `close`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterStats(FlushReport):
    """An emitter's counters since it was made: emitted = delivered + pending + dropped."""

    emitted: int
    """Calls of `emit`."""


class RunEventEmitter:
    """Publishes run states, fire-and-forget. One a process is enough.

    Nothing starts before the first `emit`; then one daemon thread delivers in batches. A broker that is
    slow or away costs bounded memory: see `BufferLimits`. Thread-safe, and usable from async code.
    Normal interpreter exit closes it; a forked child starts empty.

    Args:
        transport: Where messages go.
        limits: How much is held for a broker that is slow or away.
        clock: Stamps events.
        new_id: Makes events' identities.
        uniform: Returns a random number between two, to spread retries.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        limits: BufferLimits = BufferLimits(),  # noqa: B008 - frozen
        clock: HybridLogicalClock = PROCESS_CLOCK,
        new_id: Callable[[], str] = uuid7,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._transport = transport
        self._limits = limits
        self._clock = clock
        self._new_id = new_id
        self._uniform = uniform
        self._start_empty()
        os.register_at_fork(after_in_child=_weakly(self, RunEventEmitter._start_empty))

    @classmethod
    def from_env(cls) -> Self:
        """Return an emitter to the Pub/Sub topic that the environment describes.

        Raises:
            ConfigurationError: A setting, the project or credentials are missing or wrong, or the extra
                ``producer`` is not installed.
        """
        try:
            from ._pubsub import create_transport  # noqa: PLC0415 - the vendor's library is an extra
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"publishing needs {error.name}; pip install 'run-log[producer]'"
            ) from error
        return cls(create_transport(Settings.from_env()))

    def emit(self, run: object) -> None:
        """State that *run* is so now. Copies it and returns; never raises, never waits for the network.

        Args:
            run: A `WorkflowRun`, any object with its fields, a mapping of them, or a `RunEvent` to
                publish as it is. What is none of these is counted as dropped and logged.
        """
        try:
            event = self._event(run)
            message = encode_event(event)
        except Exception as error:  # noqa: BLE001 - a workflow never notices
            self._reject(run, error)
            return
        with self._wake:
            self._emitted += 1
            closed = self._closed
            if closed:
                dropped = 1
            else:
                entry = Entry(self._emitted, event.key, event.version, message)
                dropped = len(self._buffer.add(entry))
                self._ensure_thread()
                self._wake.notify_all()
            self._dropped += dropped
            if dropped:
                self._notify_waiters()
        if dropped:
            reason = "closed" if closed else "buffer_full"
            _logger.warning("run_log_events_dropped", reason=reason, count=dropped)

    async def flush(self, timeout: float = 2.0) -> FlushReport:  # noqa: ASYNC109 - part of the contract
        """Wait until everything emitted so far is delivered, or *timeout* seconds have passed.

        On a closed emitter it does not wait.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The emitter's counters then: whatever `pending` counts goes on being delivered.
        """
        loop = asyncio.get_running_loop()
        settled = loop.create_future()

        def settle() -> None:
            if not settled.done():
                settled.set_result(None)

        def notify() -> None:
            # The loop may have been closed meanwhile: then nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle)

        waiter = self._add_waiter(notify)
        try:
            async with asyncio.timeout(timeout):
                await settled
        except TimeoutError:
            pass
        finally:
            self._remove_waiter(waiter)
        return self._report()

    def close(self, timeout: float = 2.0) -> FlushReport:
        """Deliver what is held, for *timeout* seconds at most, and stop. Closing twice is fine.

        What is emitted afterwards is counted as dropped.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The emitter's counters; what was not delivered in time is counted as pending, and lost when
            the process ends.
        """
        deadline = time.monotonic() + timeout
        settled = threading.Event()
        waiter = self._add_waiter(settled.set)
        with self._wake:
            self._closed = True
            thread = self._thread
            self._wake.notify_all()
        settled.wait(timeout)
        self._remove_waiter(waiter)
        with self._wake:
            self._stopping = True
            self._notify_waiters()
            self._wake.notify_all()
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._transport.close()
        return self._report()

    @property
    def stats(self) -> EmitterStats:
        """The counters now."""
        with self._wake:
            return EmitterStats(
                emitted=self._emitted,
                delivered=self._delivered,
                pending=self._emitted - self._delivered - self._dropped,
                dropped=self._dropped,
            )

    def _report(self) -> FlushReport:
        stats = self.stats
        return FlushReport(delivered=stats.delivered, pending=stats.pending, dropped=stats.dropped)

    def _event(self, run: object) -> RunEvent:
        if isinstance(run, RunEvent):
            return run.model_copy(update={"run": snapshot(run.run)})
        return RunEvent.from_run(run, clock=self._clock, new_id=self._new_id, trace=current_trace())

    def _reject(self, run: object, error: Exception) -> None:
        with self._wake:
            self._emitted += 1
            self._dropped += 1
        try:
            cause = str(error)
        except Exception:  # noqa: BLE001 - the error is of the given object's own making
            cause = type(error).__name__
        _logger.error("run_log_not_a_run", reason="invalid", type=type(run).__name__, error=cause)

    def _start_empty(self) -> None:
        """Begin without events and thread: at first, and in a forked child, whose threads are gone."""
        self._wake = threading.Condition()
        self._buffer = EventBuffer(self._limits)
        self._in_flight: list[Entry] = []
        self._waiters: dict[object, tuple[int, Callable[[], None]]] = {}
        self._emitted = self._delivered = self._dropped = 0
        self._closed = self._stopping = False
        self._thread: threading.Thread | None = None
        self._exit_hooked = False

    def _ensure_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._deliver, name="run-log-emitter", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # The machine is out of threads, or the interpreter is ending. The next event tries again.
            _logger.error("run_log_no_thread", error=str(error))  # noqa: TRY400 - the message says it all
            return
        self._thread = thread
        if not self._exit_hooked:
            self._exit_hooked = True
            atexit.register(_weakly(self, RunEventEmitter.close))

    def _deliver(self) -> None:
        failures = 0
        while self._take():
            try:
                self._transport.publish([entry.message for entry in self._in_flight])
            except Exception as error:  # noqa: BLE001 - the thread has to outlive every fault
                failures += 1
                self._failed(error, failures)
            else:
                failures = 0
                self._settled()

    def _take(self) -> bool:
        """Wait for something to deliver; return False when there is nothing left to do."""
        with self._wake:
            while not self._in_flight:
                if self._stopping:
                    return False
                self._in_flight = self._buffer.take(events=MAX_BATCH_EVENTS, data_bytes=MAX_BATCH_BYTES)
                if not self._in_flight:
                    if self._closed:
                        return False
                    self._wake.wait()
            return not self._stopping

    def _settled(self) -> None:
        with self._wake:
            self._delivered += len(self._in_flight)
            self._in_flight = []
            self._notify_waiters()

    def _failed(self, error: Exception, failures: int) -> None:
        refused = isinstance(error, TransportRefusedError) or not isinstance(error, RunLogError)
        ceiling = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures, 16))
        shortest, longest = (REFUSED_RETRY_SECONDS / 2, REFUSED_RETRY_SECONDS) if refused else (0, ceiling)
        wait = self._uniform(shortest, longest)
        if failures == 1 or (refused and not self._closed):
            log = _logger.error if refused else _logger.warning
            log("run_log_publish_failed", failures=failures, retry_in_s=round(wait, 3), error=str(error))
        failed_at = time.monotonic()
        with self._wake:
            while not self._stopping:
                # Once it is closed there is no later, and the broker may be back.
                at_most = min(wait, FIRST_RETRY_SECONDS) if self._closed else wait
                left = failed_at + at_most - time.monotonic()
                if left <= 0:
                    return
                self._wake.wait(left)

    def _add_waiter(self, notify: Callable[[], None]) -> object:
        waiter = object()
        with self._wake:
            self._waiters[waiter] = (self._emitted, notify)
            self._notify_waiters()
        return waiter

    def _remove_waiter(self, waiter: object) -> None:
        with self._wake:
            self._waiters.pop(waiter, None)

    def _notify_waiters(self) -> None:
        oldest = self._in_flight[0].number if self._in_flight else self._buffer.oldest()
        for waiter, (target, notify) in list(self._waiters.items()):
            if self._stopping or oldest is None or oldest > target:
                del self._waiters[waiter]
                notify()


def _weakly(emitter: RunEventEmitter, method: Callable[[RunEventEmitter], object]) -> Callable[[], None]:
    """Return a hook for the process's lifetime that does not keep *emitter* alive."""
    reference = weakref.ref(emitter)

    def hook() -> None:
        alive = reference()
        if alive is not None:
            method(alive)

    return hook
