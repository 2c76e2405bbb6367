from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from run_log.core import (
    Message,
    MessageRefusedError,
    RunStatus,
    TransportRefusedError,
    TransportUnavailableError,
    decode_event,
)
from run_log.producer import EmitterStats, FlushReport, RunEventEmitter
from run_log.producer._held import BufferLimits
from run_log.producer._metrics import DropReason
from run_log.producer._transport import MAX_BATCH_BYTES, DeliveryPolicy
from run_log.testing import a_run

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, logged


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


def test_retries_wait_longer_and_longer(emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture) -> None:
    """Waits double up to ten seconds, drawn from zero; an outage is logged once, and so is its end."""
    caplog.set_level("INFO", "run_log")
    waits = _Waits(0)
    transport = ScriptedTransport([TransportUnavailableError("down")] * 9)
    emitter = emitter_to(transport, uniform=waits)

    emitter.emit(a_run())
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=1, pending=0, dropped=0) == report
    assert [(0, high) for high in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10)] == waits.ranges
    assert [record["error"] for record in logged(caplog, "run_log_publish_failed")] == ["down"]
    assert [record["failures"] for record in logged(caplog, "run_log_publish_recovered")] == [9]


@pytest.mark.parametrize(
    "error", [TransportRefusedError("no topic; run `run-log provision`"), ValueError("a bug")]
)
def test_a_refusal_is_retried_slowly_and_logged(
    error: Exception, emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """What only somebody's action can help is retried by the half minute, and logged once with what to do."""
    waits = _Waits(0)
    transport = ScriptedTransport([error, error])
    emitter = emitter_to(transport, uniform=waits)

    emitter.emit(a_run())
    report = asyncio.run(emitter.flush(PATIENCE))

    assert FlushReport(delivered=1, pending=0, dropped=0) == report
    assert waits.ranges == [(15.0, 30.0)] * 2
    records = logged(caplog, "run_log_publish_failed")
    assert [("ERROR", str(error))] == [(record["levelname"], record["error"]) for record in records]


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
    assert [(record["reason"], record["count"]) for record in records] == [("buffer_full", 6)]
    assert emitter.stats.dropped_by_reason == {DropReason.BUFFER_FULL: 6}


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


@pytest.mark.usefixtures("_no_threads")
def test_a_thread_that_cannot_start_is_tried_again(
    caplog: pytest.LogCaptureFixture, emitter: RunEventEmitter
) -> None:
    """On a machine out of threads emit returns; the next event's thread delivers both."""
    emitter.emit(a_run(id="a"))
    threading.stack_size(0)
    emitter.emit(a_run(id="b"))

    assert FlushReport(delivered=2, pending=0, dropped=0) == emitter.close(PATIENCE)
    assert len(logged(caplog, "run_log_no_thread")) == 1


class _Refusing(ScriptedTransport):
    """Takes no message of the runs it is given, nor any call that holds one."""

    def __init__(self, *run_ids: str) -> None:
        super().__init__()
        self.refused = set(run_ids)
        self.calls = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        self.calls += 1
        if self.refused & {decode_event(message).run.id for message in messages}:
            raise MessageRefusedError("not like this")
        super().publish(messages)


def test_one_bad_message_does_not_hold_up_its_neighbours(
    emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that the broker never takes is dropped, counted and logged; its neighbours are delivered."""
    transport = _Refusing("3", "700")
    emitter = emitter_to(transport, policy=DeliveryPolicy(linger=PATIENCE))

    for number in range(1_000):
        emitter.emit(a_run(id=str(number)))
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=998, pending=0, dropped=2) == report
    assert emitter.stats.dropped_by_reason == {DropReason.REFUSED: 2}
    assert {str(n) for n in range(1_000)} - {"3", "700"} == {event.run.id for event in transport.events}
    (record,) = logged(caplog, "run_log_events_dropped")
    assert (record["reason"], record["count"], record["error"]) == ("refused", 2, "not like this")


def test_a_topic_that_refuses_every_message_loses_none(emitter_to: EmitterMaker) -> None:
    """Where every message is refused the topic is at fault: all are kept, and delivered once it may."""
    transport = _Refusing("a", "b")
    waits = _Waits(0)

    def mended(shortest: float, longest: float) -> float:
        transport.refused.clear()
        return waits(shortest, longest)

    emitter = emitter_to(transport, uniform=mended)

    for run_id in "ab":
        emitter.emit(a_run(id=run_id))
    report = asyncio.run(emitter.flush(PATIENCE))

    assert FlushReport(delivered=2, pending=0, dropped=0) == report
    assert waits.ranges == [(15.0, 30.0)]


def test_a_bad_message_on_its_own(emitter_to: EmitterMaker) -> None:
    """A single message that is refused by a topic which took the one before is dropped at once."""
    transport = _Refusing("bad")
    emitter = emitter_to(transport)

    for run_id in ("good", "bad", "better"):
        emitter.emit(a_run(id=run_id))
        emitter.flush_sync(PATIENCE)

    assert EmitterStats(emitted=3, delivered=2, pending=0, dropped=1) == emitter.stats
    assert ["good", "better"] == [event.run.id for event in transport.events]


def test_a_long_outage_makes_room_for_newer_states(emitter_to: EmitterMaker) -> None:
    """Past its deadline a batch goes back into the buffer, where newer states displace superseded ones."""
    now = [0.0]
    transport = ScriptedTransport(itertools.repeat(TransportUnavailableError("down"), 3))
    emitted = threading.Event()

    def an_hour_later(_shortest: float, _longest: float) -> float:
        emitted.wait(PATIENCE)
        now[0] += 3_600
        return 0

    policy = DeliveryPolicy(uniform=an_hour_later, monotonic=lambda: now[0], linger=0)
    emitter = emitter_to(transport, policy=policy, limits=BufferLimits(events=2))
    for run_id in "ab":
        emitter.emit(a_run(id=run_id, status=RunStatus.RUNNING))
    assert transport.entered.wait(PATIENCE)
    for run_id in "ab":
        emitter.emit(a_run(id=run_id))
    emitted.set()
    emitter.close(PATIENCE)

    newest = {event.run.id: event.status for event in transport.events}
    assert {"a": RunStatus.SUCCESS, "b": RunStatus.SUCCESS} == newest
    assert emitter.stats.dropped_by_reason == {DropReason.BUFFER_FULL: 2}


def test_drops_are_logged_at_a_bounded_rate(
    emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """However much is dropped, one reason is logged once a minute, and what is left to tell at the end."""
    now = [0.0]
    emitter = emitter_to(ScriptedTransport(), policy=DeliveryPolicy(monotonic=lambda: now[0], linger=0))

    for seconds in (0, 30, 59, 61, 90):
        now[0] = float(seconds)
        for _ in range(100):
            emitter.emit(None)
        emitter.emit(a_run())
        emitter.flush_sync(PATIENCE)
    assert logged(caplog, "run_log_events_dropped")
    emitter.close(PATIENCE)

    counts = [record["count"] for record in logged(caplog, "run_log_events_dropped")]
    assert 500 == sum(counts)
    assert len(counts) <= 4


def test_what_cannot_be_encoded_is_dropped_alone(emitter_to: EmitterMaker) -> None:
    """A run that was made without validation, and is none, is dropped; its neighbours are delivered."""
    transport = ScriptedTransport()
    emitter = emitter_to(transport, policy=DeliveryPolicy(linger=PATIENCE))
    broken = a_run(id="broken").model_copy(update={"status": "asleep", "started_at": None})

    for run in (a_run(id="a"), broken, a_run(id="b")):
        emitter.emit(run)
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=2, pending=0, dropped=1) == report
    assert emitter.stats.dropped_by_reason == {DropReason.INVALID: 1}


class _Narrow(ScriptedTransport):
    """Carries no more than so many bytes a call in time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def publish(self, messages: Sequence[Message]) -> None:
        if len(messages) > 1 and sum(len(message.data) for message in messages) > self._width:
            raise TransportUnavailableError("not in time")
        super().publish(messages)


def test_a_slow_line_gets_smaller_batches(emitter_to: EmitterMaker) -> None:
    """What a line does not carry in time is sent in smaller pieces, until it does."""
    transport = _Narrow(200_000)
    emitter = emitter_to(transport)

    for number in range(100):
        emitter.emit(a_run(id=str(number), result={"x": "x" * 50_000}))
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=100, pending=0, dropped=0) == report
    assert {str(number) for number in range(100)} == {event.run.id for event in transport.events}


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1), KeyError("a fault of its own")])
def test_the_thread_outlives_every_fault(error: BaseException, emitter_to: EmitterMaker) -> None:
    """Whatever a transport raises the delivery thread goes on, and delivers when it can."""

    class Faulty(ScriptedTransport):
        def publish(self, messages: Sequence[Message]) -> None:
            if not self.entered.is_set():
                self.entered.set()
                raise error
            super().publish(messages)

    transport = Faulty()
    emitter = emitter_to(transport)
    emitter.emit(a_run())

    assert FlushReport(delivered=1, pending=0, dropped=0) == emitter.flush_sync(PATIENCE)


def test_who_waits_cuts_a_retrys_wait_short(emitter_to: EmitterMaker) -> None:
    """A flush in the middle of a long wait has the next try made soon: the outage may be over."""
    failed = threading.Event()

    def for_long(_shortest: float, _longest: float) -> float:
        failed.set()
        return 1_000

    emitter = emitter_to(ScriptedTransport([TransportUnavailableError("down")]), uniform=for_long)
    emitter.emit(a_run())
    assert failed.wait(PATIENCE)

    assert FlushReport(delivered=1, pending=0, dropped=0) == emitter.flush_sync(PATIENCE)


@pytest.mark.parametrize("end", [("begin_end",), ("retire",), ("deliver_or_keep", PATIENCE)])
def test_an_end_cuts_a_refusals_wait_short(end: tuple[Any, ...], emitter_to: EmitterMaker) -> None:
    """Where the process ends, or nobody holds the emitter any more, even what was refused is tried soon."""
    waits = _Waits(3_600)
    transport = ScriptedTransport([TransportRefusedError("no such topic")])
    emitter = emitter_to(transport, uniform=waits)
    emitter.emit(a_run())
    assert waits.drawn.wait(PATIENCE)
    transport.entered.clear()
    name, *seconds = end

    getattr(emitter._delivery, name)(*seconds)  # pyright: ignore[reportPrivateUsage] - what calls it waits as well

    assert transport.entered.wait(PATIENCE)


def test_a_refusal_gets_a_last_try_at_the_end(emitter_to: EmitterMaker) -> None:
    """An emitter that is closed while a refusal comes in tries once more, and no more often."""
    refused, closing = threading.Event(), threading.Event()

    def once_closing(_shortest: float, _longest: float) -> float:
        refused.set()
        closing.wait(PATIENCE)
        return 1_000

    transport = ScriptedTransport([TransportRefusedError("no such topic")])
    emitter = emitter_to(transport, uniform=once_closing)
    emitter.emit(a_run())
    assert refused.wait(PATIENCE)
    closer = threading.Thread(target=emitter.close, args=(PATIENCE,))
    closer.start()
    while not emitter._delivery.held.closed:  # pyright: ignore[reportPrivateUsage] - nothing else tells
        closing.wait(0.001)

    closing.set()
    closer.join(PATIENCE)

    assert FlushReport(delivered=1, pending=0, dropped=0) == emitter.flush_sync(0)


def test_a_topic_that_refuses_all_is_not_asked_for_each(emitter_to: EmitterMaker) -> None:
    """Where each message is refused a batch is not taken apart to the last: it is the topic."""
    transport = _Refusing(*map(str, range(1_000)))
    waiting, go_on = threading.Event(), threading.Event()

    def held(_shortest: float, _longest: float) -> float:
        waiting.set()
        go_on.wait(PATIENCE)
        return 0

    emitter = emitter_to(transport, policy=DeliveryPolicy(linger=PATIENCE, uniform=held))
    for number in range(1_000):
        emitter.emit(a_run(id=str(number)))
    emitter.flush_sync(0.01)
    assert waiting.wait(PATIENCE)
    calls = transport.calls
    transport.refused.clear()
    go_on.set()

    assert calls <= 100
    assert FlushReport(delivered=1_000, pending=0, dropped=0) == emitter.flush_sync(PATIENCE)
