from __future__ import annotations

import gc
import itertools
import logging
import math
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import numpy  # noqa: ICN001 - rare enough to be written out
import pytest
from opentelemetry.sdk.trace import TracerProvider

from run_log.core import (
    Message,
    PauseRequest,
    RunEvent,
    RunProgress,
    RunRef,
    RunStatus,
    TransportUnavailableError,
    decode_event,
)
from run_log.core.ids import MAX_ID_BYTES
from run_log.producer import EmitterStats, FlushReport, RunEventEmitter, record_run
from run_log.producer._held import MAX_INTAKE, SMALL_ENTRY_BYTES, BufferLimits
from run_log.producer._metrics import DropReason
from run_log.testing import a_run, an_event

from .conftest import EmitterMaker, Published
from .transports import PATIENCE, ScriptedTransport, logged

_NOW = datetime(2026, 3, 4, tzinfo=UTC)


class _UnprintableError(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text for you")


class _RaisingAttributes:
    def __getattr__(self, name: str) -> NoReturn:
        raise _UnprintableError(name)


class _RaisingClass:
    @property  # type: ignore[misc]  # what an unbound proxy does
    def __class__(self) -> NoReturn:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        raise _UnprintableError


def _fields(**changes: Any) -> dict[str, Any]:
    return {**dict(a_run(started_at=_NOW)), **changes}


@pytest.mark.parametrize(
    "junk",
    [
        None,
        0,
        "run",
        b"run",
        object(),
        RunEvent,
        {},
        {"run"},
        [a_run()],
        _fields(started_at=_NOW.replace(tzinfo=None)),
        _fields(started_at="yesterday"),
        _fields(duration_ms="long"),
        _fields(id=""),
        _fields(id=None),
        _fields(workflow_id="w" * (MAX_ID_BYTES + 1)),
        _fields(status="asleep"),
        _fields(trigger_type=7),
        _fields(trigger_type="telepathy", attempt=0),
        _fields(attempt=0),
        _fields(id=[1]),
        RunEvent.model_construct(run=cast("Any", None)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_run_is_counted_and_logged(
    junk: object, caplog: pytest.LogCaptureFixture, emitter: RunEventEmitter
) -> None:
    """Whatever emit is given, it returns; what is no run is counted as dropped, and logged."""
    emitter.emit(junk)

    assert EmitterStats(emitted=1, delivered=0, pending=0, dropped=1) == emitter.stats
    emitter.close(PATIENCE)
    (record,) = logged(caplog, "run_log_events_dropped")
    assert (record["reason"], record["count"]) == ("invalid", 1)
    assert record["error"]


@pytest.mark.parametrize("make", [_RaisingAttributes, _RaisingClass])
def test_an_object_that_raises_is_counted(make: Callable[[], object], emitter: RunEventEmitter) -> None:
    """An object whose attributes raise, errors without a text even, is counted as dropped."""
    emitter.emit(make())

    assert EmitterStats(emitted=1, delivered=0, pending=0, dropped=1) == emitter.stats


def test_delivered_runs_leave_little_behind(emitter_to: EmitterMaker) -> None:
    """However long ids are, an emitter holds little once everything is delivered."""

    class Everything:
        def publish(self, messages: Sequence[Message]) -> None:
            """Take them, and keep none."""

        def close(self) -> None:
            """Do nothing."""

    emitter = emitter_to(Everything())
    tracemalloc.start()
    try:
        for number in range(200):
            name = f"{number}" + "\U0001f600" * 10_000
            with record_run(name, run_id=name, emitter=emitter):
                pass
            emitter.emit(a_run().model_copy(update={"id": name, "workflow_id": name}))
        report = emitter.flush_sync(PATIENCE)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (400, 0, 200) == (report.delivered, report.pending, report.dropped)
    assert held < 4 * 2**20


@pytest.mark.parametrize(
    "pause",
    [
        cast("Any", PauseRequest).model_construct(reason="pay?", choices=5, form="no", values=[1]),
        cast("Any", PauseRequest).model_construct(reason="pay?", choices=["5"], values={"value": [1]}),
        {"reason": "pay?", "choices": "5", "values": {"value": {1}}},
    ],
)
def test_a_pause_made_without_validation_travels(
    pause: object, transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """A pause that was made without validation is read as any other is."""
    emitter.emit(a_run(status=RunStatus.PAUSED).model_copy(update={"pause": pause}))
    emitter.close(PATIENCE)

    (event,) = transport.events
    assert PauseRequest(reason="pay?", choices=("5",), values={"value": [1]}) == event.run.pause


def test_a_held_run_is_counted_as_what_it_takes(emitter_to: EmitterMaker) -> None:
    """The buffer counts bytes: of texts of any alphabet, and of what came with an event."""
    wide = "\U0001f600" + "x" * 20_000
    pause = PauseRequest(reason=wide, comment=wide)
    event = an_event(error=wide, pause=pause).model_copy(update={"traceparent": wide, "tracestate": wide})
    emitter = emitter_to(ScriptedTransport(held=True), limits=BufferLimits(data_bytes=5 * 4 * 20_000))

    emitter.emit(event)
    emitter.emit(event)

    assert emitter.stats.dropped_by_reason[DropReason.BUFFER_FULL] >= 1


@pytest.mark.parametrize(
    ("value", "stated"),
    [
        (math.nan, "NaN"),
        ({1}, [1]),
        (_NOW, "2026-03-04T00:00:00Z"),
        ([[[1]]], [[[1]]]),
        (2**70, 2**70),
    ],
)
def test_odd_payloads_travel_in_their_nearest_form(
    value: object, stated: object, published: Published
) -> None:
    """A payload that JSON cannot hold is delivered in its nearest readable form."""
    (event,) = published(_fields(result={"value": value}))

    assert {"value": stated} == event.run.result


def test_twenty_megabytes_are_cut(published: Published, caplog: pytest.LogCaptureFixture) -> None:
    """A value of 20 MB becomes a marker that tells its size, and is logged; the run is delivered."""
    run = a_run()
    run.result = {"big": "x" * 20_000_000, "small": 1}

    event, _ = published(run, a_run(id="empty", trigger_data={}, result={}))

    assert [1] == [record["values"] for record in logged(caplog, "run_log_payload_cut")]
    assert {"big": "run-log: cut, about 20000005 bytes", "small": 1} == event.run.result


def test_little_is_held_outside_of_the_limits(emitter_to: EmitterMaker) -> None:
    """While a call is under way, the 500th event, and each large one, goes into the buffer at once."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)
    emitter.emit(a_run(id="first"))
    assert transport.entered.wait(PATIENCE)
    intake = emitter._delivery.held.intake  # pyright: ignore[reportPrivateUsage] - what nothing else bounds

    held: list[int] = []
    for number in range(MAX_INTAKE + 1):
        emitter.emit(a_run(id=f"r{number}"))
        held.append(len(intake))
    emitter.emit(a_run(id="large", result={"x": "y" * SMALL_ENTRY_BYTES}))
    held.append(len(intake))
    transport.let_go()

    assert [*range(1, MAX_INTAKE), 0, 1, 0] == held
    assert 1 + MAX_INTAKE + 1 + 1 == emitter.close(PATIENCE).delivered


def test_what_cannot_be_kept_is_not_held(emitter_to: EmitterMaker) -> None:
    """A hundred values of a megabyte take no more of the buffer than what a document holds."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport, limits=BufferLimits(data_bytes=3_000_000))
    run = a_run()
    run.result = {str(number): [number, "x" * 1_000_000] for number in range(100)}

    emitter.emit(run)
    transport.let_go()

    assert FlushReport(delivered=1, pending=0, dropped=0) == emitter.close(PATIENCE)
    assert set(run.result) == set(transport.events[0].run.result)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("odd", [False, True], ids=["plain", "with a value of a type of its own"])
def test_a_payload_that_grows_without_end_is_cut(odd: bool, published: Published) -> None:  # noqa: FBT001
    """A value that holds itself twice, over and over, is small to hold and endless to write: it is cut."""
    bomb: Any = [_NOW] if odd else []
    for _ in range(60):
        bomb = [bomb, bomb]

    (event,) = published(_fields(result={"bomb": bomb, "small": 1}))

    assert event.run.result["small"] == 1
    assert str(event.run.result["bomb"]).startswith("run-log: cut")


def test_deep_nesting_is_cut(published: Published) -> None:
    """A value that nests deeper than anything can read is cut at its depth, and delivered."""
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]

    assert len(published(_fields(result={"deep": deep}))) == 1


def test_any_object_with_a_runs_fields_is_taken(published: Published) -> None:
    """A platform's own object, a mapping and a run state the same; an event is published as it is."""
    event = an_event()

    events = published(SimpleNamespace(**_fields()), _fields(), a_run(started_at=_NOW), event)

    assert [a_run(started_at=_NOW)] * 3 == [event.run for event in events[:3]]
    assert event == events[3]


@pytest.mark.parametrize("as_event", [False, True])
def test_the_run_is_copied(as_event: bool, emitter_to: EmitterMaker) -> None:  # noqa: FBT001
    """What the caller does to a run after emit, outside or deep inside, is not delivered."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)
    run = a_run(status=RunStatus.RUNNING)
    run.result = {"list": [1]}

    emitter.emit(RunEvent(run=run) if as_event else run)
    run.status = RunStatus.FAILED
    run.result["list"].append(2)
    transport.let_go()
    emitter.close(PATIENCE)

    assert [(e.status, e.run.result) for e in transport.events] == [(RunStatus.RUNNING, {"list": [1]})]


def test_emit_returns_while_the_transport_blocks(emitter_to: EmitterMaker) -> None:
    """Emitting goes on while a publish hangs; all is delivered once it does no more."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)

    emitter.emit(a_run(id="first"))
    assert transport.entered.wait(PATIENCE)
    for number in range(2_000):
        emitter.emit(a_run(id=f"r{number}"))

    assert EmitterStats(emitted=2_001, delivered=0, pending=2_001, dropped=0) == emitter.stats
    transport.let_go()
    assert FlushReport(delivered=2_001, pending=0, dropped=0) == emitter.close(PATIENCE)
    assert [len(batch) for batch in transport.batches] == [1, 1_000, 1_000]


def test_after_close_is_counted_and_logged(
    caplog: pytest.LogCaptureFixture, emitter: RunEventEmitter
) -> None:
    """What is emitted after close is dropped, counted and logged."""
    emitter.close()

    emitter.emit(a_run())

    assert EmitterStats(emitted=1, delivered=0, pending=0, dropped=1) == emitter.stats
    assert [record["reason"] for record in logged(caplog, "run_log_events_dropped")] == ["closed"]


def test_sixty_four_threads(emitter_to: EmitterMaker) -> None:
    """What many threads emit at once is all delivered, with versions and identities that differ."""
    topic = ScriptedTransport()
    emitter = emitter_to(topic)
    barrier = threading.Barrier(64)

    def work(thread: int) -> None:
        barrier.wait(PATIENCE)
        for number in range(40):
            emitter.emit(a_run(id=f"{thread}-{number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=2_560, pending=0, dropped=0) == report
    assert {f"{t}-{n}" for t, n in itertools.product(range(64), range(40))} == {
        e.run.id for e in topic.events
    }
    assert 2_560 == len({event.hlc for event in topic.events}) == len({e.event_id for e in topic.events})


def test_secrets_never_leave_the_process(transport: ScriptedTransport, emitter: RunEventEmitter) -> None:
    """What a key that looks like a secret holds is replaced before anything is published, at any depth."""
    secrets = {"API-Key": "hunter2", "nested": [{"Authorization": "hunter2"}], "count": 3}

    emitter.emit(_fields(trigger_data=secrets, result={"refreshToken": "hunter2"}))
    emitter.emit(an_event(trigger_data=secrets))
    emitter.close(PATIENCE)

    assert [b"hunter2" in message.data for message in transport.messages] == [False, False]
    assert {"API-Key": "[redacted]", "nested": [{"Authorization": "[redacted]"}], "count": 3} == (
        transport.events[0].run.trigger_data
    )
    assert secrets["API-Key"] == "hunter2"


def test_the_trace_travels_beside_the_body(transport: ScriptedTransport, emitter: RunEventEmitter) -> None:
    """The current span's trace context is in the message's attributes, and comes back with the event."""
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        emitter.emit(a_run())
    emitter.close(PATIENCE)

    context = span.get_span_context()
    (message,) = transport.messages
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert traceparent == message.attributes["traceparent"]
    assert traceparent == decode_event(message).traceparent


def test_numbers_of_numpy_stay_numbers(transport: ScriptedTransport, emitter: RunEventEmitter) -> None:
    """Where numpy is loaded its scalars and arrays travel as numbers and lists, however deep they lie."""
    result: dict[str, Any] = {
        "accuracy": numpy.float64(0.5),
        "deep": [{"count": numpy.int64(3)}, {"good": numpy.bool_(True)}],  # noqa: FBT003
        "matrix": numpy.array([[1, 2], [3, 4]]),
    }

    emitter.emit(a_run(result=result))
    emitter.close(PATIENCE)

    expected = {"accuracy": 0.5, "deep": [{"count": 3}, {"good": True}], "matrix": [[1, 2], [3, 4]]}
    assert expected == transport.events[0].run.result


@pytest.mark.parametrize(
    "trigger_data", [{}, {"b": "y" * 2_000_000}, {"b": 1}], ids=["none", "large", "small"]
)
def test_one_large_value_leaves_every_key(
    trigger_data: dict[str, Any], transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """However large the values of both payloads are, every outer key stays, and an empty payload empty."""
    emitter.emit(a_run(trigger_data=trigger_data, result={"a": "x" * 3_000_000}))
    emitter.close(PATIENCE)

    run = transport.events[0].run
    assert (list(trigger_data), ["a"]) == (list(run.trigger_data), list(run.result))
    assert run.result["a"].startswith("run-log: cut")


@pytest.mark.parametrize(("hlc", "event_id"), [("x", "e"), (-1, "e"), (1, "a b"), (1, ""), (1, 7)])
def test_an_event_that_cannot_be_ordered_is_dropped(
    hlc: Any, event_id: Any, emitter: RunEventEmitter
) -> None:
    """An event made without validation that no reader would take is dropped, counted, and hurts no other."""
    broken = an_event().model_copy(update={"hlc": hlc, "event_id": event_id})

    emitter.emit(broken)
    emitter.emit(an_event())

    assert FlushReport(delivered=1, pending=0, dropped=1) == emitter.flush_sync(PATIENCE)
    assert emitter.stats.dropped_by_reason == {DropReason.INVALID: 1}


def test_what_a_pause_says_takes_room(emitter_to: EmitterMaker) -> None:
    """The texts of a pause count among what the buffer holds."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport, limits=BufferLimits(data_bytes=100_000))
    emitter.emit(a_run())
    transport.entered.wait(PATIENCE)

    for number in range(50):
        emitter.emit(a_run(id=str(number), pause=PauseRequest(reason="x" * 30_000)))
    dropped = emitter.stats.dropped
    transport.let_go()

    assert dropped >= 47


def test_a_filling_buffer_costs_the_garbage_collector_little(emitter_to: EmitterMaker) -> None:
    """What is held of an event, once collected, is one object to the garbage collector."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)
    emitter.emit(a_run())
    transport.entered.wait(PATIENCE)
    runs = [a_run(id=str(number)) for number in range(100)]
    gc.collect()
    before = len(gc.get_objects())

    for run in runs:
        emitter.emit(run)
    pending = emitter.stats.pending
    gc.collect()
    grown = len(gc.get_objects()) - before
    transport.let_go()

    assert pending == 101
    assert grown <= 120


def test_what_is_emitted_has_all_fields(emitter_to: EmitterMaker) -> None:
    """Labels, parent, trace and type of error are as they were when the run was emitted."""
    transport = ScriptedTransport()
    emitter = emitter_to(transport)
    run = a_run(
        labels={"team": "a"}, parent=RunRef("v", "p"), trace_id="ab" * 16, error_type="E", trigger_type="cron"
    ).model_copy(update={"progress": RunProgress(fraction=0.5, text="half")})
    emitted = run.model_copy(deep=True)

    emitter.emit(run)
    run.labels["team"] = "b"
    emitter.close(PATIENCE)

    (event,) = transport.events
    assert emitted == event.run


def test_fields_that_become_labels(emitter_to: EmitterMaker) -> None:
    """A platform's own run is emitted with the labels that the setting asks for."""
    transport = ScriptedTransport()
    emitter = emitter_to(transport, label_fields=("tenant",))

    emitter.emit({**dict(a_run()), "tenant": "acme", "nodes": [1]})
    emitter.close(PATIENCE)

    assert [{"tenant": "acme"}] == [event.run.labels for event in transport.events]


class _LoudHandler(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:
        raise RuntimeError(record.getMessage())


@pytest.mark.parametrize("run", [None, a_run(result={"a": "x" * 3_000_000})], ids=["no run", "too large"])
def test_a_log_handler_that_raises_hurts_nobody(run: object, emitter_to: EmitterMaker) -> None:
    """Whatever the host's log handlers do, emitting does not raise and delivery goes on."""
    emitter = emitter_to(ScriptedTransport([TransportUnavailableError("down")]))
    logger, handler = logging.getLogger("run_log"), _LoudHandler()
    logger.addHandler(handler)
    try:
        emitter.emit(run)
        emitter.emit(a_run())
        report = emitter.close(PATIENCE)
        emitter.emit(a_run())
    finally:
        logger.removeHandler(handler)

    assert (report.pending, emitter.stats.emitted) == (0, 3)
