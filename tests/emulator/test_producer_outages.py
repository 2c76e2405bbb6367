from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import pytest
from tests.ports import unused_port

from run_log.core import Message, Settings, decode_event
from run_log.producer import FlushReport, RunEventEmitter
from run_log.producer._emitter import pubsub_transport
from run_log.producer._held import BufferLimits
from run_log.producer._pubsub import PUBLISH_TIMEOUT_SECONDS
from run_log.producer._spool import Spool
from run_log.producer._transport import DeliveryPolicy, Transport
from run_log.pubsub import provision
from run_log.testing import PubSubEmulator, an_event
from run_log.testing.pytest_plugin import skipping_without_emulators

from .pubsub_kit import RawPubSub
from .tcp_proxy import TcpProxy

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

_PATIENCE: Final = 180.0
_THREADS: Final = 3
_PACE_SECONDS: Final = 0.0125
"""Between two events of a thread: some 240 a second of all of them."""

_ROOMY: Final = BufferLimits(events=10**6, data_bytes=2**30)
"""Room for a test's whole load, however long an outage lasts until a busy machine has noticed its end."""

_GUARD_SECONDS: Final = 10.0
"""Within which ends what is bounded by half a second."""

_QUICK: Final = DeliveryPolicy(longest_retry=0.5)
"""For a test that has no need of an outage's long waits."""


class EmitterMaker(Protocol):
    """Makes emitters of the test's own."""

    def __call__(self, transport: Transport | None = None, **options: Any) -> RunEventEmitter:
        """Return an emitter, by default to where the environment leads at its first delivery."""
        ...


@pytest.fixture
def raw() -> RawPubSub:
    """Return the emulator's own Pub/Sub, past the proxy."""
    return RawPubSub.provisioned()


@pytest.fixture
def line(
    raw: RawPubSub,  # noqa: ARG001 - goes past the line, so it is made before
    pubsub_emulator: PubSubEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TcpProxy]:
    """Yield the line to the emulator, which every client made from now on takes."""
    with TcpProxy(pubsub_emulator.host) as proxy:
        monkeypatch.setenv(PubSubEmulator.host_variable, proxy.host)
        yield proxy


@pytest.fixture
def new_emitter() -> Iterator[EmitterMaker]:
    """Make emitters that are closed when the test ends, however it does."""
    made: list[RunEventEmitter] = []
    others = _delivering()

    def make(transport: Transport | None = None, **options: Any) -> RunEventEmitter:
        emitter = RunEventEmitter(transport or pubsub_transport(Settings.from_env()), **options)
        made.append(emitter)
        return emitter

    yield make
    for emitter in made:
        emitter.close(0)
    for thread in _delivering() - others:
        thread.join(_PATIENCE)
    assert _delivering() <= others


class Load:
    """Threads that emit events of about a kilobyte, of many runs, for as long as a ``with`` block lasts."""

    def __init__(self, emitter: RunEventEmitter) -> None:
        self.emitter = emitter
        self.emitted: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._emit, args=(index,)) for index in range(_THREADS)]

    def __enter__(self) -> Self:
        """Start."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; from now on `emitted` is all that was."""
        self._end.set()
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _emit(self, thread: int) -> None:
        number = 0
        while not self._end.wait(_PACE_SECONDS):
            self.emitted.append(_emit(self.emitter, f"{thread}-{number % 500}"))
            number += 1


class Retries:
    """Says how long a retry waits, remembers what it was asked, and may hold the next one."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.asked: list[tuple[float, float]] = []
        self._seconds = seconds
        self._go, self._held = threading.Event(), threading.Event()
        self._go.set()

    def __call__(self, shortest: float, longest: float) -> float:
        """Return the wait, after the time it is held."""
        self.asked.append((shortest, longest))
        if not self._go.is_set():
            self._held.set()
            self._go.wait(_PATIENCE)
        return min(self._seconds, longest)

    def hold(self) -> None:
        """Return once a retry is held; it stays so until `go_on`."""
        self._go.clear()
        assert self._held.wait(_PATIENCE)

    def go_on(self) -> None:
        """Hold none any more."""
        self._go.set()


class Counting:
    """A transport that keeps when its calls began."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.calls: list[float] = []

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        self.calls.append(time.monotonic())
        self._transport.publish(messages)

    def close(self) -> None:
        """See `Transport.close`."""
        self._transport.close()


# More than 20 s: an outage that outlasts several of the waits between two tries.
def test_an_outage_of_twenty_seconds_under_load(
    raw: RawPubSub, line: TcpProxy, new_emitter: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """After twenty seconds without a connection all arrives that was emitted before, meanwhile and after."""
    caplog.set_level(logging.INFO)
    emitter = new_emitter(limits=_ROOMY)

    with Load(emitter) as load:
        _until(lambda: emitter.stats.delivered >= 200)
        threads = _delivering()
        line.cut()
        _until_passed(20)
        _until(lambda: emitter.stats.pending >= 1_000)
        line.heal()
        emitter.flush_sync(_PATIENCE)
    report = emitter.flush_sync(_PATIENCE)

    assert FlushReport(delivered=len(load.emitted), pending=0, dropped=0) == report
    assert set(load.emitted) == _received(raw, len(load.emitted))
    assert threads >= _delivering()
    assert ["run_log_publish_failed", "run_log_publish_recovered"] == _logged(caplog)


# More than 10 s: a call that gets no answer is given up after `PUBLISH_TIMEOUT_SECONDS`.
def test_a_black_hole_under_load(
    raw: RawPubSub, line: TcpProxy, new_emitter: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that swallows everything is given up; once the line is well again all arrives."""
    caplog.set_level(logging.INFO)
    emitter = new_emitter(limits=_ROOMY)

    with Load(emitter) as load:
        _until(lambda: emitter.stats.delivered >= 200)
        threads = _delivering()
        line.black_hole()
        _until_passed(PUBLISH_TIMEOUT_SECONDS + 2)
        _until(lambda: emitter.stats.retries > 0 and emitter.stats.pending >= 1_000)
        line.heal()
        emitter.flush_sync(_PATIENCE)
    report = emitter.flush_sync(_PATIENCE)

    assert FlushReport(delivered=len(load.emitted), pending=0, dropped=0) == report
    assert set(load.emitted) == _received(raw, len(load.emitted))
    assert threads >= _delivering()
    assert ["run_log_publish_failed", "run_log_publish_recovered"] == _logged(caplog)


async def test_a_slow_line(raw: RawPubSub, line: TcpProxy, new_emitter: EmitterMaker) -> None:
    """On a line that brings no answer, then slow ones, a flush ends and says how far it came; all arrives."""
    line.hold_answers()
    emitter = new_emitter()

    emitted = {_emit(emitter, str(number)) for number in range(500)}
    reports: list[FlushReport] = []
    while not reports or reports[-1].pending:
        async with asyncio.timeout(_GUARD_SECONDS):
            reports.append(await emitter.flush(0.5))
        line.delay(0.2)
    received = await asyncio.to_thread(_received, raw, 500)

    assert FlushReport(delivered=0, pending=500, dropped=0) == reports[0]
    assert {500} == {report.delivered + report.pending for report in reports}
    assert reports == sorted(reports, key=lambda report: report.delivered)
    assert emitted == received


Fault = Callable[[TcpProxy, pytest.MonkeyPatch], None]


def _cut(line: TcpProxy, _monkeypatch: pytest.MonkeyPatch) -> None:
    line.cut()


def _black_hole(line: TcpProxy, _monkeypatch: pytest.MonkeyPatch) -> None:
    line.black_hole()


def _delayed(line: TcpProxy, _monkeypatch: pytest.MonkeyPatch) -> None:
    line.delay(_PATIENCE)


def _never_there(_line: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PubSubEmulator.host_variable, "127.0.0.1:1")


_FAULTS: Final = pytest.mark.parametrize(
    ("fault", "delivered"),
    [
        (_cut, 0),
        (_cut, 1),
        (_black_hole, 0),
        (_black_hole, 1),
        (_delayed, 0),
        (_delayed, 1),
        (_never_there, 0),
    ],
)


@_FAULTS
async def test_a_flush_is_bounded(
    fault: Fault,
    delivered: int,
    raw: RawPubSub,
    line: TcpProxy,
    new_emitter: EmitterMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is wrong with the line, from the beginning or later, a flush ends in time and says so."""
    emitter = new_emitter()
    _emit_and_take(emitter, raw, delivered)
    fault(line, monkeypatch)

    for number in range(10):
        _emit(emitter, str(number))
    async with asyncio.timeout(_GUARD_SECONDS):
        report = await emitter.flush(0.5)

    assert FlushReport(delivered=delivered, pending=10, dropped=0) == report
    assert await asyncio.to_thread(raw.is_empty)


@_FAULTS
async def test_a_close_is_bounded(
    fault: Fault,
    delivered: int,
    raw: RawPubSub,
    line: TcpProxy,
    new_emitter: EmitterMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is wrong with the line, a close ends in time, counts what is lost, and its thread ends."""
    others = _delivering()
    emitter = new_emitter()
    _emit_and_take(emitter, raw, delivered)
    fault(line, monkeypatch)

    for number in range(10):
        _emit(emitter, str(number))
    async with asyncio.timeout(_GUARD_SECONDS):
        report = await asyncio.to_thread(emitter.close, 0.5)

    assert FlushReport(delivered=delivered, pending=10, dropped=0) == report
    assert await asyncio.to_thread(raw.is_empty)
    await asyncio.to_thread(_until, lambda: _delivering() <= others)


def test_an_emulator_that_is_killed_and_comes_again(
    new_emitter: EmitterMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is emitted while the broker is dead, and afterwards, reaches the one that takes its place."""
    retries = Retries()
    environ = {name: value for name, value in os.environ.items() if name != PubSubEmulator.host_variable}
    emitter = new_emitter(policy=DeliveryPolicy(uniform=retries))

    with (
        skipping_without_emulators(),
        PubSubEmulator(environ=environ, choose_port=unused_port) as killed,
    ):
        host, pid = killed.host, killed.pid
        monkeypatch.setenv(PubSubEmulator.host_variable, host)
        RawPubSub.provisioned()
        for number in range(100):
            _emit(emitter, str(number))
        before = emitter.flush_sync(_PATIENCE)
        assert pid
        os.kill(pid, signal.SIGKILL)
        emitted = {_emit(emitter, str(number)) for number in range(300)}
        _until(lambda: emitter.stats.retries >= 3)
    retries.hold()  # a topic that is there before its subscription keeps nothing for it
    during = emitter.flush_sync(0)
    with PubSubEmulator(environ=environ, choose_port=lambda: int(host.rpartition(":")[2])):
        raw = RawPubSub.provisioned()
        retries.go_on()
        emitted |= {_emit(emitter, str(number)) for number in range(300)}
        after = emitter.flush_sync(_PATIENCE)
        received = _received(raw, len(emitted))

    assert FlushReport(delivered=100, pending=0, dropped=0) == before
    assert FlushReport(delivered=100, pending=300, dropped=0) == during
    assert FlushReport(delivered=700, pending=0, dropped=0) == after
    assert emitted == received


def test_a_backlog_goes_through_the_spool(
    raw: RawPubSub, line: TcpProxy, new_emitter: EmitterMaker, tmp_path: Path
) -> None:
    """What an outage leaves no room for in memory goes to disk; all arrives, and the directory is empty."""
    emitter = new_emitter(spool=Spool(tmp_path), limits=BufferLimits(events=50), policy=_QUICK)

    emitted = {_emit(emitter, f"before {number}") for number in range(10)}
    emitter.flush_sync(_PATIENCE)
    line.cut()
    emitted |= {_emit(emitter, str(number % 700)) for number in range(2_000)}
    _until(lambda: emitter.stats.spooled >= 1_000 and emitter.stats.retries > 0)
    files = list(tmp_path.iterdir())
    line.heal()
    emitted |= {_emit(emitter, f"after {number}") for number in range(100)}
    report = emitter.close(_PATIENCE)

    assert files
    assert FlushReport(delivered=2_110, pending=0, dropped=0) == report
    assert emitted == _received(raw, 2_110)
    assert not list(tmp_path.iterdir())


def test_a_missing_topic_is_asked_for_seldom(
    raw: RawPubSub, new_emitter: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a topic publishing is tried seldom, however much is emitted and flushed, and told once."""
    caplog.set_level(logging.INFO)
    later = RawPubSub(raw.settings.model_copy(update={"topic": "later", "subscription": "later-projector"}))
    retries, transport = Retries(seconds=0.5), Counting(pubsub_transport(later.settings))
    emitter = new_emitter(transport, policy=DeliveryPolicy(uniform=retries), limits=_ROOMY)

    with Load(emitter) as load:
        while len(transport.calls) < 4:
            emitter.flush_sync(0.05)  # which wakes the thread
        retries.hold()
        provision(later.connection, later.settings)
        told = _logged(caplog)
        asked = list(retries.asked)
        calls = list(transport.calls)
        retries.go_on()
        emitter.flush_sync(_PATIENCE)
    report = emitter.flush_sync(_PATIENCE)

    policy = DeliveryPolicy()
    assert {(policy.refused_retry / 2, policy.refused_retry)} == set(asked)
    assert len(asked) == len(calls)
    assert all(after - before >= 0.5 for before, after in pairwise(calls))
    assert ["run_log_publish_failed"] == told
    assert ["run_log_publish_failed", "run_log_publish_recovered"] == _logged(caplog)
    assert FlushReport(delivered=len(load.emitted), pending=0, dropped=0) == report
    assert set(load.emitted) == _received(later, len(load.emitted))


def _emit(emitter: RunEventEmitter, run_id: str) -> str:
    """Emit an event of about a kilobyte and return its id."""
    event = an_event(id=run_id, result={"text": "x" * 700})
    emitter.emit(event)
    return event.event_id


def _emit_and_take(emitter: RunEventEmitter, raw: RawPubSub, count: int) -> None:
    """Have *emitter* deliver that many events, and nothing left of them."""
    emitted = {_emit(emitter, f"before {number}") for number in range(count)}
    emitter.flush_sync(_PATIENCE)
    assert emitted == _received(raw, count)


def _received(raw: RawPubSub, count: int) -> set[str]:
    """Return the ids of the events that arrived, once they are as many as that; any may arrive repeatedly."""
    ids: set[str] = set()
    while len(ids) < count:
        ids |= {decode_event(message).event_id for message in raw.take(count - len(ids))}
    return ids


def _until(is_so: Callable[[], bool]) -> None:
    """Wait for what has to come about."""
    deadline = time.monotonic() + _PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def _until_passed(seconds: float) -> None:
    """Wait until that many seconds have passed."""
    end = time.monotonic() + seconds
    _until(lambda: time.monotonic() >= end)


def _delivering() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "run-log-emitter"}


def _logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the emitter logged."""
    return [vars(record)["event"] for record in caplog.records if record.name == "run_log.producer"]
