from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import Iterator

import pytest

from run_log.core import (
    Message,
    RunEvent,
    RunStatus,
    TransportRefusedError,
    TransportUnavailableError,
    Version,
)
from run_log.producer import BufferLimits, EmitterStats, FlushReport
from run_log.producer._buffer import Entry, EventBuffer
from run_log.producer._emitter import MAX_BATCH_BYTES
from run_log.testing import a_run, an_event

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, logged


class _Message(Message):
    """One that can be looked for after it has gone."""


class _Waits:
    """Keeps what retries are drawn from."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self.ranges: list[tuple[float, float]] = []
        self.drawn = threading.Event()

    def __call__(self, shortest: float, longest: float) -> float:
        self.ranges.append((shortest, longest))
        self.drawn.set()
        return self._wait


@pytest.fixture
def _no_threads() -> Iterator[None]:
    """Make every start of a thread fail: no machine has stacks so large."""
    before = threading.stack_size(2**45)
    yield
    threading.stack_size(before)


def test_a_failing_transport_is_retried_until_it_works(emitter_to: EmitterMaker) -> None:
    """Passing faults lose nothing and repeat nothing that was taken."""
    transport = ScriptedTransport([TransportUnavailableError("down")] * 5)
    emitter = emitter_to(transport)

    for number in range(10):
        emitter.emit(a_run(id=str(number)))
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=10, pending=0, dropped=0) == report
    assert [str(number) for number in range(10)] == [event.run.id for event in transport.events]


def test_retries_wait_longer_and_longer(emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture) -> None:
    """Waits double up to ten seconds, drawn from zero, and an outage is logged once."""
    waits = _Waits(0)
    transport = ScriptedTransport([TransportUnavailableError("down")] * 9)
    emitter = emitter_to(transport, uniform=waits)

    emitter.emit(a_run())
    emitter.close(PATIENCE)

    assert [(0, high) for high in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10)] == waits.ranges
    assert [record["error"] for record in logged(caplog, "run_log_publish_failed")] == ["down"]


@pytest.mark.parametrize(
    "error", [TransportRefusedError("no topic; run `run-log provision`"), ValueError("a bug")]
)
def test_a_refusal_is_retried_slowly_and_logged(
    error: Exception, emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """What only somebody's action can help is retried by the half minute, and logged each time."""
    waits = _Waits(0)
    transport = ScriptedTransport([error, error])
    emitter = emitter_to(transport, uniform=waits)

    emitter.emit(a_run())
    report = asyncio.run(emitter.flush(PATIENCE))

    assert FlushReport(delivered=1, pending=0, dropped=0) == report
    assert waits.ranges == [(15.0, 30.0)] * 2
    records = logged(caplog, "run_log_publish_failed")
    assert [("ERROR", str(error))] * 2 == [(record["levelname"], record["error"]) for record in records]


def test_close_cuts_a_wait_short(emitter_to: EmitterMaker) -> None:
    """A broker that is back when the process ends gets everything, however long the next retry was off."""
    waits = _Waits(3_600)
    transport = ScriptedTransport([TransportUnavailableError("down")])
    emitter = emitter_to(transport, uniform=waits)
    emitter.emit(a_run())
    assert waits.drawn.wait(PATIENCE)

    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=1, pending=0, dropped=0) == report


def test_superseded_events_go_first(emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture) -> None:
    """A full buffer loses states that a newer one supersedes, counted and logged; each run's newest stays."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport, limits=BufferLimits(events=3))
    emitter.emit(a_run(id="in flight"))
    assert transport.entered.wait(PATIENCE)

    for run_id, status in itertools.product(
        ("a", "b", "c"), (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.SUCCESS)
    ):
        emitter.emit(a_run(id=run_id, status=status))

    assert EmitterStats(emitted=10, delivered=0, pending=4, dropped=6) == emitter.stats
    transport.let_go()
    emitter.close(PATIENCE)
    delivered = [(event.run.id, event.status) for event in transport.events[1:]]
    assert [(run_id, RunStatus.SUCCESS) for run_id in "abc"] == delivered
    records = logged(caplog, "run_log_events_dropped")
    assert [(record["reason"], record["count"]) for record in records] == [("buffer_full", 1)] * 6


def test_bytes_bound_the_buffer(emitter_to: EmitterMaker) -> None:
    """Few large events fill a buffer as many small ones do; the oldest go."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport, limits=BufferLimits(data_bytes=250_000))
    emitter.emit(a_run(id="in flight"))
    assert transport.entered.wait(PATIENCE)

    for run_id in "abcd":
        emitter.emit(a_run(id=run_id, result={"x": "x" * 100_000}))

    transport.let_go()
    assert FlushReport(delivered=3, pending=0, dropped=2) == emitter.close(PATIENCE)
    assert [event.run.id for event in transport.events] == ["in flight", "c", "d"]


@pytest.mark.parametrize(
    "limits", [BufferLimits(events=0), BufferLimits(events=-1), BufferLimits(data_bytes=-1)]
)
def test_no_room_at_all_is_no_error(limits: BufferLimits, emitter_to: EmitterMaker) -> None:
    """An emitter that may hold nothing drops everything, and never raises."""
    emitter = emitter_to(ScriptedTransport(), limits=limits)

    emitter.emit(a_run())

    assert EmitterStats(emitted=1, delivered=0, pending=0, dropped=1) == emitter.stats


def test_a_call_stays_below_the_brokers_limit(emitter_to: EmitterMaker) -> None:
    """Large events are spread over several calls."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)

    for number in range(20):
        emitter.emit(a_run(id=str(number), result={"x": "x" * 700_000}))
    transport.let_go()
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=20, pending=0, dropped=0) == report
    assert max(sum(len(m.data) for m in batch) for batch in transport.batches) <= MAX_BATCH_BYTES


def test_the_later_version_is_newer_whatever_came_last() -> None:
    """Of one run's events the one of greatest version supersedes, also where it was added first."""
    buffer = EventBuffer(BufferLimits(events=2))
    older, newer = an_event(hlc=1), an_event(hlc=2)

    dropped = [
        entry.number
        for number, event in enumerate([newer, older, an_event(id="other")], start=1)
        for entry in buffer.add(_entry(number, event))
    ]

    assert dropped == [2]


def test_an_outage_costs_no_memory_beyond_the_limits() -> None:
    """What a full buffer drops leaves nothing behind, neither of many runs nor of one."""
    buffer = EventBuffer(BufferLimits(events=10))
    dropped: list[weakref.ref[Message]] = []
    lost: list[Entry] = []

    for number in range(2_000):
        for place, run_id in ((2 * number, str(number)), (2 * number + 1, "hot")):
            lost = buffer.add(_entry(place, an_event(id=run_id, hlc=number)))
            dropped += [weakref.ref(entry.message) for entry in lost]
    del lost

    assert (len(buffer), len(dropped)) == (10, 3_990)
    assert [message() for message in dropped] == [None] * 3_990


@pytest.mark.usefixtures("_no_threads")
def test_a_thread_that_cannot_start_is_tried_again(
    emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """On a machine out of threads emit returns; the next event's thread delivers both."""
    transport = ScriptedTransport()
    emitter = emitter_to(transport)

    emitter.emit(a_run(id="a"))
    threading.stack_size(0)
    emitter.emit(a_run(id="b"))

    assert FlushReport(delivered=2, pending=0, dropped=0) == emitter.close(PATIENCE)
    assert len(logged(caplog, "run_log_no_thread")) == 1


def _entry(number: int, event: RunEvent) -> Entry:
    version = Version(1, event.hlc, str(number))
    return Entry(number, event.key, version, _Message(data=b"x"))
