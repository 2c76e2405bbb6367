"""The thread of an emitter that takes what is held to the broker, or to disk."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry import context
from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage] - what every exporter uses
)

from run_log.core import Message, MessageRefusedError, RunLogError, TransportUnavailableError
from run_log.core.forks import renewed
from run_log.core.logs import get_logger, logging_later

from ._capture import Content, Entry, Rejection
from ._disk import Disk, keep_alone
from ._failure import text_of
from ._held import MAX_INTAKE, SMALL_ENTRY_BYTES, BufferLimits, Held
from ._lifecycle import OWN_FAULT, deliver_late, warn_of_sigterm, watch_the_end
from ._metrics import DropReason, Reporter, measure_publish, say_loss
from ._spool import Spool
from ._timers import Timers
from ._transport import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_REFUSALS,
    MIN_BATCH_BYTES,
    DeliveryPolicy,
    Transport,
)

RETIRE_SECONDS: Final = 5.0
"""How long an emitter that was garbage collected goes on delivering."""

_CLOSING_RETRY_SECONDS: Final = 0.1
_AWAITED_RETRY_SECONDS: Final = 0.5
_NO_ANSWER: Final = "nothing has answered yet; is what RUN_LOG_BACKEND names up and reachable?"
_logger: Final = get_logger("run_log.producer")


class Delivery:
    """Delivers what an emitter holds, in a thread of its own.

    Three kinds of threads come here: those of the workflow, the delivery thread, and one that ends the
    process. Locks are taken in this order: `_ending`, `_starting`, the disk's, `Held`'s. No log handler runs
    while one of them but `_ending` is held, because it may record a run.

    Attributes:
        held: What is not delivered yet. A forked child has another one.
        idle: Whether the next `emit` has to call `attend`.
        failures: Publish calls that failed in a row until now.
        timers: What the thread calls when it is due. A forked child begins without any.
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
        self.idle = True
        # A SimpleQueue, because its `put` is reentrant: signal handlers and finalizers ring. An Event's lock
        # could be held by the code that they interrupted.
        self._bell = renewed(self, "_bell", queue.SimpleQueue[None])
        self._starting = renewed(self, "_starting", threading.RLock)
        self._thread: threading.Thread | None = None
        self._ending = renewed(self, "_ending", threading.RLock)
        self._stopping = self._is_final = self._is_alone = False
        self._retire_at: float | None = None
        self.failures = 0
        self._failing_since = 0.0
        self._batch_bytes = MAX_BATCH_BYTES
        self._trouble = ""
        self._is_trusted = False
        self._refusals = 0
        self._is_urgent = False
        self._disk = Disk(self._spool, self.held, self._encode)
        self._disk_is_next = False
        self._reporter = Reporter()
        self.timers = Timers()

    # What the workflow's threads call

    def attend(self, item: Entry | Rejection) -> None:
        """Do what an emit has to do now and then: empty a full intake, wake or start the thread."""
        closed = self.held.closed
        if closed or len(self.held.intake) >= MAX_INTAKE or item.size > SMALL_ENTRY_BYTES:
            self.held.absorb()
            if self.held.has_shed:
                self._bell.put(None)
        if closed:
            self.report(is_noticed=False)
        elif self._is_final:
            # The process is ending. The delivery thread, if it is still there, delivers this as well.
            if self._thread is not threading.current_thread():
                deliver_late(self)
        elif self.idle:
            self.idle = False
            try:
                self.start()
            except BaseException:  # a signal's handler raised: the next event tries again
                self.idle = True
                raise

    def start(self) -> bool:
        """Start the thread unless it runs, and wake it. Return whether there is one."""
        with logging_later(), self._starting:
            if self._thread is None or not self._thread.is_alive():
                # Stored before it starts: a signal's handler may raise while `start` waits. A thread that
                # this replaces may start late; it is woken, and ends.
                if self._thread is not None:
                    self._bell.put(None)
                self._thread = threading.Thread(target=self._run, name="run-log-emitter", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    self._thread, self.idle = None, True
                    # If the interpreter is ending, its exit delivers.
                    if "shutdown" not in str(error):
                        self._trouble = str(error)
                        hint = "the next event tries again"
                        _logger.error("run_log_no_thread", error=self._trouble, hint=hint)  # noqa: TRY400 - it says it all
                    return False
                watch_the_end()
        self._bell.put(None)
        return True

    def call_at(self, at: float, method: Callable[[], None]) -> None:
        """Have the delivery thread call the bound *method* at this monotonic time; see `Timers.set`."""
        if not self.timers.set(method, at):
            return
        if self._thread is None and not self._is_ending:
            self.start()  # nothing was emitted yet, in this process
        else:
            self._bell.put(None)

    def wait(self, notify: Callable[[], None]) -> object:
        """Do what `Held.wait` does. The thread does not linger meanwhile."""
        waiter = self.held.wait(notify)
        if self._stopping:
            self.held.give_up()
        elif threading.current_thread() is self._thread:
            notify()  # a log handler in the delivery thread, which delivers nothing while it waits
        elif self.held.stats.pending:
            self.start()
        return waiter

    def settled(self, timeout: float) -> bool:
        """Wait *timeout* seconds at most for delivery, and return whether nothing is left."""
        event = threading.Event()
        waiter = self.wait(event.set)
        try:
            return event.wait(min(max(0.0, timeout), threading.TIMEOUT_MAX))
        finally:
            self.held.forget(waiter)

    # The end, and what comes before it

    def close(self, timeout: float) -> None:
        self.held.close()
        self.end(timeout)

    def begin_end(self) -> None:
        """Deliver what is held at once, because the process ends. From now on each emit calls `attend`."""
        self._is_final = self.idle = True
        self._bell.put(None)

    def end(self, timeout: float) -> None:
        """Deliver for *timeout* seconds at most, then let go of everything. It can be used again."""
        if sys.is_finalizing():
            ends_with_process = getattr(self._transport, "ends_with_process", False)
            keep_alone(self.held, self._spool, self._encode, is_lasting=not ends_with_process)
            return
        deadline = time.monotonic() + timeout
        if not self._ending.acquire(timeout=min(max(0.0, timeout), threading.TIMEOUT_MAX)):
            return  # another thread ends it, and may wait for this one in a log handler
        try:
            self.begin_end()
            while True:
                self._stopping = self._stopping and self.held.closed
                try:
                    self.deliver_or_keep(deadline - time.monotonic())
                finally:
                    self._stop()
                if self._thread is not None and self._thread is not threading.current_thread():
                    self._thread.join(max(0.0, deadline - time.monotonic()))
                # Other threads may have emitted meanwhile.
                if self.held.closed or not self.holds() or time.monotonic() >= deadline:
                    break
            self._let_go()
        finally:
            self._ending.release()

    def deliver_or_keep(self, timeout: float) -> None:
        """Deliver for *timeout* seconds at most, then write what is left to the spool, if there is one."""
        is_done = False
        self._is_urgent = True
        self._bell.put(None)
        try:
            if self._stopping or not self.held.stats.pending or self.start():
                is_done = self.settled(timeout) and not self._stopping
            else:
                is_done = self._deliver_here(time.monotonic() + timeout)
        finally:
            self._is_urgent = False
            self._disk.write_all()
            # What could not be written is in memory again, where the thread may just have found nothing.
            self._bell.put(None)
            if not is_done:
                self._tell_undelivered()
        self.report(final=True)

    def holds(self) -> bool:
        return self.held.holds()

    def _deliver_here(self, deadline: float) -> bool:
        """Deliver in this thread, because no other one starts any more. Return whether nothing is left."""
        self._is_alone, self._thread = True, threading.current_thread()
        try:
            while time.monotonic() < deadline and self._turn():
                pass
        finally:
            self._is_alone, self._thread = False, None
        return not self.held.stats.buffered

    def retire(self) -> None:
        """Have the thread end by itself once all is delivered, or after `RETIRE_SECONDS`."""
        # Takes no lock and does not wait: the garbage collector calls it in the middle of anything.
        self._retire_at = time.monotonic() + RETIRE_SECONDS
        self._bell.put(None)

    def after_fork(self) -> None:
        """Start empty in a forked child: the parent delivers what it holds, and has the thread."""
        if self._spool is not None:
            self._spool.close()  # only the child's copies of the files: the parent keeps the locks
        self._start_empty(closed=self.held.closed)

    def report(self, *, final: bool = False, is_noticed: bool = True) -> None:
        self._reporter.report(
            self.held.stats,
            written=self.held.total_written,
            details=self.held.details,
            now=self.policy.monotonic(),
            final=final,
            is_noticed=is_noticed,
        )

    @property
    def has_given_up(self) -> bool:
        """Whether it delivers no more, so that who waited was told although something may be left."""
        return self._stopping

    @property
    def _is_ending(self) -> bool:
        return self.held.closed or self._is_final or self._retire_at is not None

    def _stop(self) -> None:
        self._stopping = self.idle = True
        self.held.give_up()
        self._bell.put(None)

    def _let_go(self) -> None:
        self._disk.write_all()
        self._disk.close()
        try:
            self._transport.close()
        except Exception as error:
            _logger.exception("run_log_transport_not_closed", error=repr(error), hint="nothing is lost by it")
        self._tell_undelivered()
        self.report(final=True)

    def _tell_undelivered(self) -> None:
        lost = self.held.stats.buffered
        if lost:
            keep = "" if self._spool else "set RUN_LOG_SPOOL_DIR to keep them for the next start"
            why = "; ".join(filter(None, (self._trouble or _NO_ANSWER, self._disk.trouble, keep)))
            self._reporter.tell_undelivered(lost, why)

    # The thread

    def _run(self) -> None:
        warn_of_sigterm()
        # Instrumentation of gRPC must not trace these calls: the run log is no part of the workflow.
        token = context.attach(context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
        try:
            self._gather()
            while self._turn():
                pass
        finally:
            context.detach(token)
            self.idle = True
            self._bell.put(None)  # this thread may have taken what was to wake its successor
            if self._retire_at is not None:
                self._let_go()
            self.report(final=self.held.closed)

    def _turn(self) -> bool:
        """Deliver a batch. Return False if there is nothing left to do."""
        try:
            if not self._take():
                return False
            self._publish()
        except Exception as error:
            # The thread outlives every fault, even one of ours.
            self._trouble = repr(error)
            _logger.exception("run_log_emitter_failed", error=self._trouble, hint=OWN_FAULT)
            self._pause(self.policy.longest_retry)
        return True

    def _take(self) -> bool:
        """Wait until something is in flight. Return False if there is nothing left to do."""
        while True:
            self.report()
            if not self._is_ending:
                self.timers.run(self.policy.monotonic())
            self.held.absorb()
            seen = self.held.last_number
            self._write_shed()
            if self._is_done:
                return False
            if self.held.in_flight(1) or self._fill():
                return True
            if self.held.closed or self._is_alone or self._retire_at is not None:
                return False
            # Idle first, then the look: an emit in between finds the thread idle, and wakes it. What was
            # emitted just before may be in the intake no more: a look at the counters absorbs it too.
            self.idle = True
            if self.held.intake or self.held.last_number != seen:
                self.idle = self._is_final
            else:
                self._gather()

    @property
    def _is_done(self) -> bool:
        # A signal's handler may have cut a start short, and another thread may have been started since.
        if self._stopping or self._thread is not threading.current_thread():
            return True
        return self._retire_at is not None and time.monotonic() >= self._retire_at

    def _gather(self) -> None:
        """Wait for an event, and then a moment for others, unless somebody waits for delivery."""
        # A process that ends says no more between transitions.
        due = None if self._is_ending else self.timers.next()
        wait = None if due is None else max(due - self.policy.monotonic(), 0.0)
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=None if wait is None else min(wait, threading.TIMEOUT_MAX))
        self.idle = self._is_final
        if not (self.held.is_waited_for or self._is_ending):
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=self.policy.linger)

    def _fill(self) -> bool:
        """Take events in flight, in turns from memory and from disk. Return whether there were any."""
        self._disk_is_next = not self._disk_is_next
        return (
            (self._disk_is_next and self._fill_from_disk())
            or self._fill_from_memory()
            or self._fill_from_disk()
        )

    def _fill_from_disk(self) -> bool:
        if self._spool is None:
            return False
        # Half of a call's bytes, so that one call takes all, attributes too.
        return self._disk.fill(events=MAX_BATCH_EVENTS, data_bytes=MAX_BATCH_BYTES // 2)

    def _fill_from_memory(self) -> bool:
        while self.held.has_waiting:
            self.held.take(events=MAX_BATCH_EVENTS, data_bytes=MAX_BATCH_BYTES)
            for entry in self.held.in_flight():
                try:
                    entry.encode(self._encode)
                except BaseException as error:  # noqa: BLE001 - an event that cannot be encoded holds up no other
                    self.held.settle([entry], DropReason.INVALID, error=text_of(error))
            if self.held.in_flight(1):
                return True
        return False

    def _publish(self) -> None:
        entries = self._batch()
        if not entries:
            return  # a thread that closes the emitter has taken them
        is_last_try = self._is_ending
        was_trusted, self._is_trusted, self._refusals = self._is_trusted, False, 0
        refused: list[Entry] = []
        try:
            why = self._hand_over(entries, refused)
        except BaseException as error:  # noqa: BLE001 - a store's cancelled call raises no Exception
            self._is_trusted |= was_trusted
            self._failed(error, is_last_try=is_last_try)
            return
        if why is None:
            return
        # If the topic has taken others, now or just before, these events are at fault. If not, it may be
        # the topic, and dropping them would lose what a deployment can still mend.
        is_sure = self._is_trusted or (
            was_trusted and self._refusals < MAX_REFUSALS and isinstance(why, MessageRefusedError)
        )
        # What is on disk can stay there: put aside, it holds up nothing else.
        is_on_disk = not entries[0].number
        if is_sure or is_on_disk:
            self._disk.put_aside(refused, error=_text(why))
        if is_on_disk or not (is_sure or self._refusals >= MAX_REFUSALS):
            self.held.give_back()
        if not is_on_disk and not is_sure:
            # Only the last ones are given up: any others may show that the topic is fine.
            is_last_try = is_last_try and len(entries) == self.held.stats.buffered
            self._failed(why, is_last_try=is_last_try)

    def _batch(self) -> list[Entry]:
        left = self._batch_bytes
        batch: list[Entry] = []
        for entry in self.held.in_flight(MAX_BATCH_EVENTS):
            left -= entry.size
            if batch and left < 0:
                break
            batch.append(entry)
        return batch

    def _hand_over(self, entries: Sequence[Entry], refused: list[Entry]) -> Exception | None:
        """Publish *entries*, by halves where they are refused, and return why any are."""
        if self._refusals >= MAX_REFUSALS or self._stopping:
            return MessageRefusedError("too much is refused; what is left of the call is tried again")
        begun = self.policy.monotonic()
        try:
            self._transport.publish([entry.encode(self._encode) for entry in entries])
        except Exception as error:
            measure_publish(self.policy.monotonic() - begun, "failed")
            # Any other error may come of one message, like a refusal: the halves show it.
            if isinstance(error, RunLogError | OSError) and not isinstance(error, MessageRefusedError):
                raise
            self._refusals += 1
            if len(entries) == 1:
                refused.append(entries[0])
                return error
        else:
            measure_publish(self.policy.monotonic() - begun, "delivered")
            self._delivered(entries)
            return None
        half = len(entries) // 2
        # Alternating, so that a few at the front cannot use up the refusals of every try.
        halves = (
            (entries[:half], entries[half:]) if self.failures % 2 == 0 else (entries[half:], entries[:half])
        )
        errors = [self._hand_over(part, refused) for part in halves]
        return errors[0] or errors[1]

    def _delivered(self, entries: Sequence[Entry]) -> None:
        gone = self.held.settle(entries)
        if self._spool is not None:
            self._disk.settle(gone)
        self._is_trusted = True
        self._refusals = 0
        self._batch_bytes = min(MAX_BATCH_BYTES, 2 * self._batch_bytes)
        if self.failures:
            self._reporter.tell_recovered(self.failures, self.policy.monotonic() - self._failing_since)
        self.failures, self._trouble = 0, ""

    def _failed(self, error: BaseException, *, is_last_try: bool = False) -> None:
        """Wait before the next call, or end."""
        refused = not isinstance(error, TransportUnavailableError)
        self._trouble = _text(error)
        if not refused:
            # A slow line carries a smaller call in time.
            tried = sum(entry.size for entry in self.held.in_flight(MAX_BATCH_EVENTS))
            self._batch_bytes = max(MIN_BATCH_BYTES, min(self._batch_bytes, tried) // 2)
        now = self.policy.monotonic()
        if not self.failures:
            self._failing_since = now
        self.failures += 1
        self.held.retries += 1
        wait = self.policy.wait(self.failures, refused=refused)
        self._reporter.tell_failure(error, refused=refused, wait=wait, now=now)
        if refused:
            say_loss(self._trouble)
        overdue = now - self._failing_since >= self.policy.deadline
        if overdue or self.held.is_half_full:
            self._disk.write_what_fits()  # in case the process is killed
        if overdue:
            self.held.give_back()
        if refused and is_last_try:
            self._stop()
        self._pause(wait, is_patient=refused)

    def _pause(self, seconds: float, *, is_patient: bool = False) -> None:
        """Wait *seconds*, or less if the process ends or somebody waits for delivery."""
        begun = time.monotonic()
        while not self._stopping:
            at_most = seconds
            if self._is_ending or self._is_urgent:
                at_most = min(seconds, _CLOSING_RETRY_SECONDS)
            elif self.held.is_waited_for and not is_patient:
                at_most = min(seconds, _AWAITED_RETRY_SECONDS)
            left = begun + at_most - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=left)
            self._write_shed()

    def _write_shed(self) -> None:
        if self.held.has_shed:
            self._disk.write_shed()


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, RunLogError) else repr(error)
