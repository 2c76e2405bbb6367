"""Delivery: one thread an emitter, which takes what is held to the broker, or to disk."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry import context
from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage] - what every exporter uses
)

from run_log.core import (
    Message,
    MessageRefusedError,
    TransportUnavailableError,
    get_logger,
)

from ._accounts import DropReason, EmitterStats, Reporter, measure_publish
from ._buffer import BufferLimits
from ._capture import Content, Entry
from ._disk import Disk
from ._held import Held, Rejection
from ._lifecycle import deliver_at_exit
from ._policy import DeliveryPolicy
from ._spool import Spool
from ._transport import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Transport

MAX_INTAKE: Final = 500
"""Events that wait to be put into the buffer, before whoever emits has to help."""

SMALL_ENTRY_BYTES: Final = 8_192
"""Larger ones go into the buffer at once, so that what waits outside of it stays small."""

RETIRE_SECONDS: Final = 5.0
"""How long an emitter that nobody holds any more goes on delivering."""

_CLOSING_RETRY_SECONDS: Final = 0.1
_logger: Final = get_logger("run_log.producer")


class Delivery:
    """The thread that delivers, and what its emitter asks of it.

    Args:
        transport: Where messages go.
        encode: Makes the message of what was captured.
        limits: How much is held for a broker that is slow or away.
        policy: When to publish and when to try again.
        spool: Where events go that memory cannot keep; None drops them.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        encode: Callable[[Content], Message],
        limits: BufferLimits,
        policy: DeliveryPolicy,
        spool: Spool | None,
    ) -> None:
        self.policy = policy
        self._transport = transport
        self._encode = encode
        self._limits = limits
        self._spool = spool
        self._start_empty(closed=False)

    def _start_empty(self, *, closed: bool) -> None:
        self.held = Held(self._limits, keeps_shed=self._spool is not None, closed=closed)
        self.intake = self.held.intake
        self.idle = True
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._retire_at: float | None = None
        self._failures = 0
        self._failing_since = 0.0
        self._told: set[object] = set()
        self._told_lost = False
        self._is_trusted = False
        self._disk = Disk(self._spool, self.held, self._encode)
        self._disk_is_next = False
        self._reporter = Reporter()

    # What the workflow's threads call

    def attend(self, entry: Entry | None = None) -> None:
        """Do what an emit has to do now and then: help with the intake, wake or start the thread.

        Args:
            entry: What was emitted last.
        """
        closed = self.held.closed
        if closed or len(self.intake) >= MAX_INTAKE or (entry and entry.size > SMALL_ENTRY_BYTES):
            self.held.absorb()
            if self.held.has_shed:
                self._bell.put(None)
        if closed:
            self.report()
        elif self.idle:
            self.idle = False
            self.start()

    def reject(self, run: object, error: Exception) -> None:
        """Count *run*, which is none."""
        try:
            cause = str(error)
        except Exception:  # noqa: BLE001 - the error is of the given object's own making
            cause = type(error).__name__
        self.intake.append(Rejection(type(run).__name__, cause))
        self.attend()

    def start(self) -> None:
        """Start the thread if it does not run, and have it look for something to do."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="run-log-emitter", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    # The machine is out of threads, or the interpreter is ending. The next event tries again.
                    self.idle = True
                    _logger.error("run_log_no_thread", error=str(error))  # noqa: TRY400 - the message says it all
                    return
                self._thread = thread
                deliver_at_exit()
        self._bell.put(None)

    def wait(self, notify: Callable[[], None]) -> object:
        """See `Held.wait`; the thread does not linger meanwhile."""
        waiter = self.held.wait(notify)
        if self._stopping:
            self.held.give_up()
        elif self.held.stats.pending:
            self.start()
        return waiter

    def settled(self, timeout: float) -> bool:
        """Wait until what is held is delivered or dropped, and return whether it is.

        Args:
            timeout: Seconds to wait at most.
        """
        event = threading.Event()
        waiter = self.wait(event.set)
        try:
            return event.wait(max(0.0, timeout))
        finally:
            self.held.forget(waiter)

    @property
    def stats(self) -> EmitterStats:
        """The counters now."""
        return self.held.stats

    @property
    def is_failing(self) -> bool:
        """Whether the last publish call failed."""
        return self._failures > 0

    # The end, and what comes before it

    def begin_close(self) -> None:
        """Take nothing more; deliver what is held."""
        self.held.close()
        self._bell.put(None)

    def finish_close(self, timeout: float) -> None:
        """Wait for delivery, *timeout* seconds at most, and let go of everything. Twice is fine."""
        deadline = time.monotonic() + timeout
        self.settled(timeout)
        self._stop()
        thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._let_go()

    def deliver_or_keep(self, timeout: float) -> None:
        """Deliver what is held, *timeout* seconds at most; what is left goes to disk, if there is a spool."""
        if not self.settled(timeout):
            self._disk.write_all()
        self.report(final=True)

    def retire(self) -> None:
        """Have the thread end by itself once all is delivered, or some seconds have passed.

        Takes no lock and does not wait: the garbage collector calls it, in the middle of anything.
        """
        self._retire_at = time.monotonic() + RETIRE_SECONDS
        self._bell.put(None)

    def after_fork(self) -> None:
        """Start empty in a forked child: what is held is the parent's, and the thread stayed there."""
        if self._spool is not None:
            self._spool.close()  # the child's copies of the files; the locks stay the parent's
        self._start_empty(closed=self.held.closed)

    def report(self, *, final: bool = False) -> None:
        """Tell metrics and logs what has changed."""
        self._reporter.report(
            self.held.stats,
            written=self.held.written_so_far,
            details=self.held.drop_details,
            now=self.policy.monotonic(),
            final=final,
        )

    @property
    def _is_ending(self) -> bool:
        return self.held.closed or self._retire_at is not None

    def _stop(self) -> None:
        self._stopping = self.idle = True
        self.held.give_up()
        self._bell.put(None)

    def _let_go(self) -> None:
        self._transport.close()
        self._disk.write_all()
        self._disk.close()
        lost = self.held.stats.buffered
        if lost and not self._told_lost:
            self._told_lost = True
            _logger.error("run_log_events_undelivered", count=lost)
        self.report(final=True)

    # The thread

    def _run(self) -> None:
        # What instruments gRPC must not trace the emitter's calls: the run log is no part of what it logs.
        token = context.attach(context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
        try:
            self._gather()
            while self._take():
                self._publish()
        except Exception:
            _logger.exception("run_log_emitter_failed")  # the next event starts another thread
        finally:
            context.detach(token)
            self.idle = True
            if self._retire_at is not None:
                self._let_go()
            self.report(final=self.held.closed)

    def _take(self) -> bool:
        """Wait until something is in flight; return False when there is nothing left to do."""
        while True:
            self.report()
            self.held.absorb()
            self._disk.write_shed()
            if self._stopping or (self._retire_at is not None and time.monotonic() >= self._retire_at):
                return False
            if self.held.in_flight(1) or self._fill():
                return True
            if self._is_ending:
                return False
            self.idle = True
            if self.intake:
                self.idle = False
            else:
                self._gather()

    def _gather(self) -> None:
        """Wait for an event, and a moment for others, unless somebody waits for delivery."""
        self._bell.get()
        self.idle = False
        if not (self.held.is_waited_for or self._is_ending):
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=self.policy.linger)

    def _fill(self) -> bool:
        """Take events in flight, from memory and from disk in turns, and return whether there were any."""
        self._disk_is_next = not self._disk_is_next
        return (
            (self._disk_is_next and self._fill_from_disk())
            or self._fill_from_memory()
            or self._fill_from_disk()
        )

    def _fill_from_disk(self) -> bool:
        # Half of a call's bytes: all of it has to fit into one call, attributes too.
        return self._disk.fill(events=MAX_BATCH_EVENTS, data_bytes=MAX_BATCH_BYTES // 2)

    def _fill_from_memory(self) -> bool:
        while self.held.has_waiting:
            self.held.take(events=MAX_BATCH_EVENTS, data_bytes=MAX_BATCH_BYTES)
            for entry in self.held.in_flight():
                try:
                    entry.encode(self._encode)
                except Exception as error:  # noqa: BLE001 - an event that cannot be encoded holds up no other
                    self.held.settle([entry], DropReason.INVALID, error=str(error))
            if self.held.in_flight(1):
                return True
        return False

    def _publish(self) -> None:
        entries = self._batch()
        try:
            refused, why = self._hand_over(entries)
        except Exception as error:  # noqa: BLE001 - the thread has to outlive every fault
            self._failed(error)
            return
        if why is None:
            return
        # Where others were taken, with these or just before, these are at fault; else it may be the topic.
        is_taking = len(refused) < len(entries)
        if is_taking or self._is_trusted:
            self.held.settle(refused, DropReason.REFUSED, error=str(why))
            self._disk.delivered()
        else:
            self._give_back()
            self._failed(why, is_hopeless=len(entries) == self.held.stats.buffered)
        self._is_trusted = is_taking

    def _batch(self) -> list[Entry]:
        left = MAX_BATCH_BYTES
        batch: list[Entry] = []
        for entry in self.held.in_flight(MAX_BATCH_EVENTS):
            left -= entry.size
            if batch and left < 0:
                break
            batch.append(entry)
        return batch

    def _hand_over(self, entries: Sequence[Entry]) -> tuple[list[Entry], MessageRefusedError | None]:
        """Publish *entries*; return those that are refused while others are taken, and why."""
        begun = self.policy.monotonic()
        try:
            self._transport.publish([entry.encode(self._encode) for entry in entries])
        except MessageRefusedError as error:
            measure_publish(self.policy.monotonic() - begun, "failed")
            if len(entries) == 1:
                return list(entries), error
        except Exception:
            measure_publish(self.policy.monotonic() - begun, "failed")
            raise
        else:
            measure_publish(self.policy.monotonic() - begun, "delivered")
            self._delivered(entries)
            return [], None
        half = len(entries) // 2
        left, left_error = self._hand_over(entries[:half])
        right, right_error = self._hand_over(entries[half:])
        return left + right, right_error or left_error

    def _delivered(self, entries: Sequence[Entry]) -> None:
        self.held.settle(entries)
        self._disk.delivered()
        self._is_trusted = True
        if self._failures:
            seconds = self.policy.monotonic() - self._failing_since
            _logger.info("run_log_publish_recovered", failures=self._failures, after_s=round(seconds, 3))
        self._failures = 0
        self._told.clear()

    def _failed(self, error: Exception, *, is_hopeless: bool = True) -> None:
        """Wait before the next call, or end.

        Args:
            error: Why the last call failed.
            is_hopeless: Whether a refusal holds for all that is held.
        """
        refused = not isinstance(error, TransportUnavailableError)
        now = self.policy.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        self.held.count_retry()
        wait = self.policy.wait(self._failures, refused=refused)
        if refused not in self._told:
            self._told.add(refused)
            log = _logger.error if refused else _logger.warning
            log("run_log_publish_failed", error=str(error), retry_in_s=round(wait, 3), refused=refused)
        overdue = now - self._failing_since >= self.policy.deadline
        if overdue or self.held.is_half_full:
            self._disk.write_what_fits()  # so that it outlives the process, should that be killed
        if overdue:
            self._give_back()
        if refused and is_hopeless and self._is_ending:
            self._stop()
        self._pause(wait)

    def _give_back(self) -> None:
        self._disk.put_back()
        self.held.give_back()

    def _pause(self, seconds: float) -> None:
        """Wait that long; less once the emitter is closed, since then there is no later."""
        begun = time.monotonic()
        while not self._stopping:
            at_most = min(seconds, _CLOSING_RETRY_SECONDS) if self._is_ending else seconds
            left = begun + at_most - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=left)
            self._disk.write_shed()
