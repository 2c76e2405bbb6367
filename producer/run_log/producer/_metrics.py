"""What an operator is told of the events: counters, metrics, log lines, and one line on stderr."""

from __future__ import annotations

import contextlib
import enum
import math
import os
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import metrics

from run_log.core.forks import renewed
from run_log.core.logs import get_logger, one_line

from ._triggers import tell_unknown

TELL_AGAIN_SECONDS: Final = 60.0
"""Drops of one reason are logged at most this often, with their number since the last line; failures, too."""

_logger: Final = get_logger("run_log.producer")
_meter: Final = metrics.get_meter("run_log.producer")
_emitted: Final = _meter.create_counter(
    "run_log.emitter.emitted", unit="{event}", description="Calls of emit, and events found in the spool"
)
_delivered: Final = _meter.create_counter(
    "run_log.emitter.delivered", unit="{event}", description="Events that are durable at the broker"
)
_dropped: Final = _meter.create_counter(
    "run_log.emitter.dropped", unit="{event}", description="Events lost, by reason"
)
_retries: Final = _meter.create_counter(
    "run_log.emitter.retries", unit="{call}", description="Publish calls that failed"
)
_spooled: Final = _meter.create_counter(
    "run_log.emitter.spooled", unit="{event}", description="Events written to the spool directory"
)
_buffered: Final = _meter.create_up_down_counter(
    "run_log.emitter.buffered", unit="{event}", description="Events held in memory"
)
_aside: Final = _meter.create_up_down_counter(
    "run_log.emitter.aside",
    unit="{event}",
    description="Events in the spool directory that were refused, and stand aside",
)
_duration: Final = _meter.create_histogram(
    "run_log.emitter.publish.duration", unit="s", description="How long publish calls took, failed ones too"
)


class DropReason(enum.StrEnum):
    """Why an event was lost."""

    INVALID = "invalid"
    """It was no run."""
    CLOSED = "closed"
    """It was emitted after `close`."""
    BUFFER_FULL = "buffer_full"
    """More was emitted than the broker took and the buffer holds."""
    REFUSED = "refused"
    """The broker takes others, but never this one."""
    SPOOL_FULL = "spool_full"
    """There was no room for it in the spool directory."""
    SPOOL_CORRUPT = "spool_corrupt"
    """Its record in the spool directory cannot be read. The record stays, for a version that can read it."""


_TO_DO: Final[Mapping[DropReason, str]] = {
    DropReason.INVALID: "emit a WorkflowRun, or what has its fields",
    DropReason.CLOSED: "a run was emitted after its emitter was closed; close it last",
    DropReason.BUFFER_FULL: "more is emitted than is taken, and the buffer is full; set RUN_LOG_SPOOL_DIR, "
    "or raise RUN_LOG_BUFFER_EVENTS and RUN_LOG_BUFFER_BYTES",
    DropReason.REFUSED: "the broker takes others, but never this one",
    DropReason.SPOOL_FULL: "the spool directory is full; raise RUN_LOG_SPOOL_MAX_BYTES",
    DropReason.SPOOL_CORRUPT: "records in the spool directory are damaged, gone, or of another version, "
    "which finds them there; leave its files alone",
}


_ASIDE_HINT: Final = (
    "these events are refused while others are taken: they stay in the spool directory and are tried again; "
    "mend what the error says, or deploy the version that wrote them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushReport:
    """What has become of the events that were emitted so far."""

    delivered: int
    """Durable at the broker."""
    pending: int
    """Still held, in memory or in the spool directory, and still being delivered."""
    dropped: int
    """Lost: for want of room, because they were no run, or because they came after `close`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterStats(FlushReport):
    """An emitter's counters since it was made: emitted = delivered + pending + dropped."""

    emitted: int
    """Calls of `emit`, and events that an earlier process left in the spool directory."""
    buffered: int = field(default=0, compare=False)
    """Pending events in memory."""
    spooled: int = field(default=0, compare=False)
    """Pending events in the spool directory."""
    aside: int = field(default=0, compare=False)
    """Spooled events that were refused. They are tried again once nothing else waits."""
    retries: int = field(default=0, compare=False)
    """Publish calls that failed."""
    dropped_by_reason: Mapping[DropReason, int] = field(default_factory=dict[DropReason, int], compare=False)
    """Dropped events by reason."""


class Reporter:
    """Updates metrics and writes log lines when an emitter's counters have changed.

    The delivery thread calls it, and `emit` does not: a log handler may write to a terminal that hangs.
    """

    def __init__(self) -> None:
        self._lock = renewed(self, "_lock", threading.Lock)
        self._last = EmitterStats(emitted=0, delivered=0, pending=0, dropped=0)
        self._written = 0
        self._told: Counter[DropReason] = Counter()
        self._told_at: dict[DropReason, float] = {}
        self._told_aside, self._told_aside_at = 0, -math.inf
        self._told_failure_at: dict[bool, float] = {}
        self._has_told_failure = self._has_told_undelivered = False
        self._loss: str | None = None

    def report(
        self,
        stats: EmitterStats,
        *,
        written: int,
        details: Mapping[DropReason, Mapping[str, str]],
        now: float,
        final: bool = False,
        is_noticed: bool = True,
    ) -> None:
        """Report *stats*, with what `Held.total_written` and `Held.details` are.

        A *final* report logs at once the drops that would wait for the next line. Unless *is_noticed*, a loss
        is written to stderr by the next report.
        """
        # Never wait here: the thread that reports may be inside a log handler that hangs.
        if not self._lock.acquire(blocking=False):
            return
        try:
            tell_unknown()
            self._count(stats, written)
            for reason, total in stats.dropped_by_reason.items():
                news = total - self._told[reason]
                told_at = self._told_at.get(reason)
                if news and (final or told_at is None or now - told_at >= TELL_AGAIN_SECONDS):
                    self._told[reason], self._told_at[reason] = total, now
                    why = {**details.get(reason, {}), "hint": _TO_DO[reason]}
                    _logger.error("run_log_events_dropped", reason=reason.value, count=news, **why)
                    self._loss = self._loss or "; ".join(filter(None, (why.get("error"), why["hint"])))
            self._report_aside(stats.aside, details.get(DropReason.REFUSED, {}), now)
        finally:
            self._lock.release()
        if is_noticed and self._loss is not None:
            loss, self._loss = self._loss, None
            say_loss(loss)

    def tell_failure(self, error: BaseException, *, refused: bool, wait: float, now: float) -> None:
        told_at = self._told_failure_at.get(refused)
        if told_at is None or now - told_at >= TELL_AGAIN_SECONDS:
            self._told_failure_at[refused] = now
            self._has_told_failure = True
            log = _logger.error if refused else _logger.warning
            log("run_log_publish_failed", error=str(error), retry_in_s=round(wait, 3), refused=refused)

    def tell_recovered(self, failures: int, seconds: float) -> None:
        """Log that publishing works again after *failures* in *seconds*, if a failure was logged."""
        if self._has_told_failure:
            _logger.info("run_log_publish_recovered", failures=failures, after_s=round(seconds, 3))
            self._has_told_failure = False

    def tell_undelivered(self, events: int, why: str) -> None:
        """Say once that *events* are given up at the end of the process."""
        if not self._has_told_undelivered:
            self._has_told_undelivered = True
            _logger.error("run_log_events_undelivered", count=events, error=why)
            say_loss(f"{events} of their states were not delivered in time: {why}")

    def _report_aside(self, aside: int, details: Mapping[str, str], now: float) -> None:
        if aside > self._told_aside and now - self._told_aside_at >= TELL_AGAIN_SECONDS:
            self._told_aside, self._told_aside_at = aside, now
            _logger.error("run_log_events_aside", count=aside, **details, hint=_ASIDE_HINT)
        self._told_aside = min(self._told_aside, aside)

    def _count(self, stats: EmitterStats, written: int) -> None:
        last, self._last = self._last, stats
        for counter, change in (
            (_emitted, stats.emitted - last.emitted),
            (_delivered, stats.delivered - last.delivered),
            (_retries, stats.retries - last.retries),
            (_spooled, written - self._written),
            (_buffered, stats.buffered - last.buffered),
            (_aside, stats.aside - last.aside),
        ):
            if change:
                counter.add(change)
        self._written = written
        for reason, total in stats.dropped_by_reason.items():
            change = total - last.dropped_by_reason.get(reason, 0)
            if change:
                _dropped.add(change, {"reason": reason.value})


def measure_publish(seconds: float, outcome: str) -> None:
    _duration.record(seconds, {"outcome": outcome})


MAX_REASON: Final = 700
"""Most characters of a reason."""

SWITCH: Final = "RUN_LOG_STDERR_NOTICE"
"""The variable of `Settings.stderr_notice`."""

_OFF: Final = frozenset({"0", "false", "off", "no", "f", "n"})

# Whoever says it first takes the only item. A lock could be left held by a fork, or waited for by a signal's
# handler that interrupted its holder.
_unsaid: Final = [True]


def say_loss(reason: str) -> None:
    """Say on stderr, once a process, that this process loses run states. Never raises.

    A forked child stays silent if its parent has said it. ``RUN_LOG_STDERR_NOTICE=false`` turns this off. It
    is read from the environment rather than from `Settings`, because unreadable settings are one of the
    reasons.
    """
    # Anything may stand for stderr and raise anything, and at the interpreter's end much is gone.
    with contextlib.suppress(Exception):
        stream = sys.stderr
        is_off = os.environ.get(SWITCH, "").strip().lower() in _OFF
        if is_off or not _unsaid or stream is None or getattr(stream, "closed", False):
            return
        line = f"run-log: runs of this process are not recorded: {one_line(reason, MAX_REASON)}"
        line += f" (said once; {SWITCH}=false turns this off)\n"
        shown = _encodable(line, getattr(stream, "encoding", None))
        _unsaid.pop()  # raises where another thread was first
        stream.write(shown)
        stream.flush()


def _encodable(line: str, encoding: Any) -> str:
    try:
        return line.encode(encoding, "backslashreplace").decode(encoding)
    except (LookupError, TypeError):  # a stream that is not the interpreter's own
        return line.encode("ascii", "backslashreplace").decode()
