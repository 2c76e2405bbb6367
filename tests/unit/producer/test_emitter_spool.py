from __future__ import annotations

import itertools
import json
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from run_log.core import (
    Message,
    MessageRefusedError,
    Outcome,
    RunEvent,
    SpoolError,
    TransportRefusedError,
    TransportUnavailableError,
    UnreadableRunError,
    WriteRefusedError,
    decode_event,
    encode_event,
)
from run_log.producer import EmitterStats, FlushReport, RunEventEmitter
from run_log.producer._held import BufferLimits
from run_log.producer._metrics import DropReason
from run_log.producer._segment import SpooledEvent, encode_record
from run_log.producer._spool import Spool
from run_log.producer._store_transport import StoreTransport
from run_log.producer._transport import DeliveryPolicy
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run, an_event

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, logged, run_script, soon

_FEW: Final = BufferLimits(events=5)

_FILE_TRANSPORT: Final = """
import json, os, sys, threading
from run_log.core import TransportUnavailableError, decode_event
from run_log.producer import RunEventEmitter
from run_log.producer._held import BufferLimits
from run_log.producer._spool import Spool
from run_log.testing import a_run

class FileTransport:
    parent, gate = os.getpid(), threading.Event()

    def publish(self, messages):
        if os.getpid() == self.parent and not self.gate.is_set():
            raise TransportUnavailableError("down")
        with open(sys.argv[1], "a") as file:
            for message in messages:
                print(json.dumps([os.getpid(), decode_event(message).run.id]), file=file)

    def close(self):
        pass

"""


class _Outage(ScriptedTransport):
    """Is down until it is told otherwise, and meanwhile tells when something holds."""

    def __init__(self) -> None:
        super().__init__()
        self._claim: Callable[[], bool] = lambda: False
        self._holds = threading.Event()
        self._is_over = threading.Event()
        self.taken = threading.Event()

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        if self._claim():
            self._holds.set()
        if not self._is_over.is_set():
            raise TransportUnavailableError("down")
        super().publish(messages)
        self.taken.set()

    def wait_until(self, claim: Callable[[], bool]) -> None:
        """Wait until *claim* holds when a call is made."""
        self._claim = claim
        assert self._holds.wait(PATIENCE)

    def end(self) -> None:
        """Take everything from now on."""
        self._is_over.set()


class _Watched(ScriptedTransport):
    """Keeps the counters of an emitter as they are with each call."""

    def __init__(self, errors: Sequence[Exception] = (), *, held: bool = False) -> None:
        super().__init__(errors, held=held)
        self.emitter: RunEventEmitter | None = None
        self.seen: list[EmitterStats] = []

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        assert self.emitter is not None
        self.seen.append(self.emitter.stats)
        super().publish(messages)
        self.seen.append(self.emitter.stats)


class _Refusing(ScriptedTransport):
    """Takes no call with a message of the run "refused"."""

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        if any(decode_event(message).run.id == "refused" for message in messages):
            raise MessageRefusedError("never")
        super().publish(messages)


def _dead() -> ScriptedTransport:
    """Return a transport that is held in its first call, and fails it and all others."""
    return ScriptedTransport(itertools.repeat(TransportUnavailableError("down")), held=True)


def _emit(emitter: RunEventEmitter, run_ids: Sequence[object]) -> None:
    for run_id in run_ids:
        emitter.emit(a_run(id=str(run_id)))


def _run_ids(events: Sequence[RunEvent]) -> list[str]:
    return [event.run.id for event in events]


def _leave(directory: Path, events: Sequence[RunEvent]) -> None:
    """Have *events* be on disk, as of a process that has ended."""
    spool = Spool(directory)
    spool.append([SpooledEvent(event.key, event.version, encode_event(event)) for event in events])
    spool.close()


def _left(directory: Path) -> list[str]:
    """Return the runs of the events that are on disk."""
    spool = Spool(directory)
    found = [event.key[1] for event in spool.next_batch(events=100_000, data_bytes=10**9)]
    spool.close()
    return found


def _assert_sound(seen: Sequence[EmitterStats]) -> None:
    """Check that the counters add up, and that nothing is counted twice or below zero."""
    for stats in seen:
        assert stats.emitted == stats.delivered + stats.pending + stats.dropped
        assert stats.pending == stats.buffered + stats.spooled
        assert stats.dropped == sum(stats.dropped_by_reason.values())
        assert min(stats.delivered, stats.buffered, stats.spooled, *stats.dropped_by_reason.values(), 0) == 0


def test_what_a_full_buffer_sheds_is_delivered_later(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """In an outage what the buffer cannot keep goes to disk; once it is over everything is delivered once."""
    transport = _Outage()
    emitter = emitter_to(transport, spool=Spool(tmp_path), limits=_FEW)
    _emit(emitter, range(50))
    transport.wait_until(lambda: emitter.stats.spooled >= 45)
    kept = emitter.stats

    transport.end()
    report = emitter.flush_sync(PATIENCE)

    assert (50, 50, 0) == (kept.emitted, kept.pending, kept.dropped)
    assert FlushReport(delivered=50, pending=0, dropped=0) == report
    assert {*map(str, range(50))} == set(_run_ids(transport.events))
    assert 50 == len(transport.events)
    emitter.close(PATIENCE)
    assert list(tmp_path.iterdir()) == []


def test_what_is_overdue_goes_to_disk(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """A batch that was retried long enough is on disk, so that it outlives the process, and in no memory."""
    transport = _Outage()
    policy = DeliveryPolicy(uniform=soon, linger=0, deadline=0)
    emitter = emitter_to(transport, spool=Spool(tmp_path), policy=policy)

    _emit(emitter, "abc")
    transport.wait_until(lambda: emitter.stats.spooled == 3)

    assert 0 == emitter.stats.buffered
    transport.end()
    assert FlushReport(delivered=3, pending=0, dropped=0) == emitter.close(PATIENCE)
    assert ["a", "b", "c"] == sorted(_run_ids(transport.events))


def test_a_close_keeps_on_disk_what_the_next_start_delivers(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """With a dead broker close leaves everything on disk; the next emitter delivers it in version order."""
    dead, alive = _dead(), _Watched()
    first = emitter_to(dead, spool=Spool(tmp_path), limits=_FEW)
    _emit(first, ["in flight"])
    assert dead.entered.wait(PATIENCE)
    _emit(first, range(30))

    report = first.close(0)
    kept = first.stats
    second = alive.emitter = emitter_to(alive, spool=Spool(tmp_path), limits=_FEW)
    _emit(second, ["next"])
    later = second.close(PATIENCE)

    assert FlushReport(delivered=0, pending=31, dropped=0) == report
    assert (31, 0) == (kept.spooled, kept.buffered)
    assert FlushReport(delivered=32, pending=0, dropped=0) == later
    assert ["in flight", *map(str, range(30)), "next"] == _run_ids(alive.events)
    assert sorted(event.version for event in alive.events) == [event.version for event in alive.events]
    assert 32 == second.stats.emitted
    _assert_sound([kept, *alive.seen, second.stats])
    assert list(tmp_path.iterdir()) == []


def test_a_flush_waits_for_what_is_on_disk(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """When a flush returns in time, what an earlier process left is delivered too."""
    _leave(tmp_path, [an_event(id=str(number)) for number in range(2_500)])
    transport = ScriptedTransport([TransportUnavailableError("down")] * 2)
    emitter = emitter_to(transport, spool=Spool(tmp_path))
    _emit(emitter, ["own"])

    report = emitter.flush_sync(PATIENCE)

    assert FlushReport(delivered=2_501, pending=0, dropped=0) == report
    assert {*map(str, range(2_500)), "own"} == set(_run_ids(transport.events))
    assert 2_501 == len(transport.events)


def test_a_leftover_does_not_hold_up_what_is_new(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """Batches from disk and from memory take turns."""
    _leave(tmp_path, [an_event(id="left") for _ in range(3_000)])
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport, spool=Spool(tmp_path))
    _emit(emitter, ["new"])
    assert transport.entered.wait(PATIENCE)

    transport.let_go()
    emitter.flush_sync(PATIENCE)

    assert ["left", "new", "left", "left"] == [decode_event(batch[0]).run.id for batch in transport.batches]


def test_a_failed_batch_from_disk_comes_again(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """What was taken from disk and not delivered stays there until it is."""
    _leave(tmp_path, [an_event(id=run_id) for run_id in "abc"])
    dead = _dead()
    emitter = emitter_to(dead, spool=Spool(tmp_path))
    _emit(emitter, ["new"])
    assert dead.entered.wait(PATIENCE)

    report = emitter.close(0)

    assert FlushReport(delivered=0, pending=4, dropped=0) == report
    assert ["a", "b", "c", "new"] == _left(tmp_path)


def test_a_damaged_record_is_counted_and_logged(
    tmp_path: Path, emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """A record that cannot be read is counted as dropped for that and logged once; the others arrive."""
    events = [an_event(id=run_id) for run_id in "abc"]
    _leave(tmp_path, events)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(encode_record(encode_event(events[0]))) + 100] ^= 1
    path.write_bytes(content)
    transport = _Watched()
    emitter = transport.emitter = emitter_to(transport, spool=Spool(tmp_path))

    _emit(emitter, ["own"])
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=3, pending=0, dropped=1) == report
    assert {DropReason.SPOOL_CORRUPT: 1} == emitter.stats.dropped_by_reason
    assert ["a", "c", "own"] == _run_ids(transport.events)
    records = logged(caplog, "run_log_events_dropped")
    assert [("spool_corrupt", 1)] == [(record["reason"], record["count"]) for record in records]
    _assert_sound([*transport.seen, emitter.stats])


def test_a_full_spool_is_counted_and_logged(
    tmp_path: Path, emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """What neither memory nor disk has room for is counted as dropped for that; the newest is delivered."""
    transport = _Watched(held=True)
    spool = Spool(tmp_path, max_bytes=10_000)
    emitter = transport.emitter = emitter_to(transport, spool=spool, limits=_FEW)
    _emit(emitter, ["in flight"])
    assert transport.entered.wait(PATIENCE)

    _emit(emitter, range(100))
    transport.let_go()
    report = emitter.close(PATIENCE)

    dropped = emitter.stats.dropped_by_reason
    assert {DropReason.SPOOL_FULL} == set(dropped)
    assert FlushReport(delivered=101 - report.dropped, pending=0, dropped=spool.lost) == report
    assert 5 + 1 < report.delivered < 5 + 1 + 15
    assert {"in flight", "94", "99"} <= set(_run_ids(transport.events))
    records = logged(caplog, "run_log_events_dropped")
    assert {"spool_full"} == {record["reason"] for record in records}
    assert spool.lost == sum(record["count"] for record in records)
    _assert_sound([*transport.seen, emitter.stats])


def test_a_close_fills_the_disk_with_the_newest(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """Where a close finds too little room, what matters most is kept, and the rest is counted as dropped."""
    dead = _dead()
    emitter = emitter_to(dead, spool=Spool(tmp_path, max_bytes=10_000))
    _emit(emitter, ["in flight"])
    assert dead.entered.wait(PATIENCE)
    _emit(emitter, range(100))

    report = emitter.close(0)

    kept = _left(tmp_path)
    assert FlushReport(delivered=0, pending=len(kept), dropped=101 - len(kept)) == report
    assert [str(number) for number in range(100)][-len(kept) :] == kept
    assert {DropReason.SPOOL_FULL: report.dropped} == emitter.stats.dropped_by_reason
    _assert_sound([emitter.stats])


def test_a_spool_that_cannot_be_used_is_logged_once(
    tmp_path: Path, emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the directory cannot be used that is logged once, with what to do; events wait in memory."""
    (tmp_path / "file").write_text("in the way")
    transport = _Outage()
    emitter = emitter_to(transport, spool=Spool(tmp_path / "file"), limits=_FEW)
    calls = itertools.count()
    _emit(emitter, range(50))
    transport.wait_until(lambda: next(calls) == 20)
    kept = emitter.stats

    transport.end()
    report = emitter.close(PATIENCE)

    assert (50, 50, 0) == (kept.emitted, kept.buffered, kept.spooled)
    assert FlushReport(delivered=50, pending=0, dropped=0) == report
    (record,) = logged(caplog, "run_log_spool_failed")
    assert str(tmp_path / "file") in record["error"]
    assert "RUN_LOG_SPOOL_DIR" in record["error"]


@pytest.mark.search
def test_a_spool_that_cannot_be_used_bounds_memory(
    tmp_path: Path, emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the directory cannot be used, memory stays bounded: the oldest are dropped for its being full."""
    (tmp_path / "file").write_text("in the way")
    dead = _dead()
    emitter = emitter_to(dead, spool=Spool(tmp_path / "file"), limits=_FEW)
    _emit(emitter, ["in flight"])
    assert dead.entered.wait(PATIENCE)

    for number in range(100):
        emitter.emit(a_run(id=str(number), result={"": "x" * 500_000}))
    report = emitter.close(0)

    stats = emitter.stats
    assert (101, 0) == (stats.emitted, stats.spooled)
    assert {DropReason.BUFFER_FULL: report.dropped} == stats.dropped_by_reason
    assert 0 < report.dropped < 50
    assert 1 == len(logged(caplog, "run_log_spool_failed"))
    assert [report.pending] == [record["count"] for record in logged(caplog, "run_log_events_undelivered")]
    _assert_sound([stats])


def _of_newer_schema(run_id: str) -> SpooledEvent:
    event = an_event(id=run_id)
    message = encode_event(event)
    newer = message.data.replace(b"run-state.v1", b"run-state.v9")
    return SpooledEvent(event.key, event.version, Message(data=newer, attributes={**message.attributes}))


def _with_odd_attributes(content: object) -> bytes:
    """Return a whole record, as `encode_record` makes them, of attributes that are none."""
    data = encode_event(an_event(id="odd")).data
    line = b"%b\t%b\n" % (json.dumps(content).encode(), data)
    return b"+%08x %08x %b" % (zlib.crc32(line), len(line), line)


class _Store(InMemoryRunLogService):
    """Raises *error* for what it is given together with the run "bad"."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        if self.error and any(event.run.id.startswith("bad") for event in events):
            raise self.error
        return await super().apply(events)

    def run_ids(self) -> set[str]:
        return set(self._workflows["workflow-1"].runs)


_POISON: Final[dict[str, Exception | None]] = {
    "of a newer schema": None,
    "refused by the store": WriteRefusedError("too large"),
    "stored unreadably": UnreadableRunError("w", "r", "bytes"),
    "beyond 64 bits": OverflowError("Python int too large to convert to SQLite INTEGER"),
    "of another kind": TypeError("unhashable type: 'list'"),
}


@pytest.mark.parametrize("bad", [1, 150])
@pytest.mark.parametrize("kind", _POISON)
def test_what_cannot_be_delivered_holds_up_nothing(
    kind: str, bad: int, tmp_path: Path, emitter_to: EmitterMaker
) -> None:
    """Events that a broker refuses stay on disk, and hold up nothing that comes after them."""
    names = [f"bad-{number}" for number in range(bad)]
    events = [an_event(id=name) for name in names]
    spooled = [SpooledEvent(event.key, event.version, encode_event(event)) for event in events]
    if _POISON[kind] is None:
        spooled = list(map(_of_newer_schema, names))
    spool = Spool(tmp_path)
    spool.append(spooled)
    spool.close()
    _leave(tmp_path, [an_event(id=f"left-{number}") for number in range(30)])
    store = _Store(_POISON[kind])
    emitter = emitter_to(StoreTransport(lambda: store), spool=Spool(tmp_path))

    _emit(emitter, [f"live-{number}" for number in range(30)])
    report = emitter.close(PATIENCE)

    expected = {f"{when}-{number}" for when in ("left", "live") for number in range(30)}
    assert expected == store.run_ids()
    assert FlushReport(delivered=60, pending=bad, dropped=0) == report
    assert bad == emitter.stats.aside
    assert sorted(names) == sorted(_left(tmp_path))
    _assert_sound([emitter.stats])


def test_what_stood_aside_is_sent_once_it_may(
    tmp_path: Path, emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """What was refused is named once, sent by a later process whose broker takes it, and forgotten then."""
    _leave(tmp_path, [an_event(id=run_id) for run_id in ("a", "refused", "b")])
    transport = _Refusing()
    first = emitter_to(transport, spool=Spool(tmp_path))
    _emit(first, ["own"])
    before = first.close(PATIENCE)
    (told,) = logged(caplog, "run_log_events_aside")

    later = ScriptedTransport()
    second = emitter_to(later, spool=Spool(tmp_path))
    _emit(second, ["new"])
    after = second.close(PATIENCE)

    assert ["a", "b", "own"] == sorted(_run_ids(transport.events))
    assert FlushReport(delivered=3, pending=1, dropped=0) == before
    assert (1, "never") == (told["count"], told["error"])
    assert ["new", "refused"] == sorted(_run_ids(later.events))
    assert FlushReport(delivered=2, pending=0, dropped=0) == after
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_while_it_is_new_is_kept_too(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """With a spool, an event that the broker refuses while it takes others is not lost but stands aside."""
    transport = _Refusing()
    emitter = emitter_to(transport, spool=Spool(tmp_path), policy=DeliveryPolicy(linger=PATIENCE))

    _emit(emitter, ["a", "refused", "b"])
    report = emitter.close(PATIENCE)

    assert FlushReport(delivered=2, pending=1, dropped=0) == report
    assert (1, 1, 0) == (emitter.stats.aside, emitter.stats.spooled, emitter.stats.buffered)
    assert ["refused"] == _left(tmp_path)


def test_a_broker_that_is_away_puts_nothing_aside(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """While the broker is away all waits in order, and arrives in order once it is back."""
    _leave(tmp_path, [an_event(id=run_id) for run_id in "abc"])
    transport = ScriptedTransport([TransportUnavailableError("down"), TransportRefusedError("no topic")])
    emitter = emitter_to(transport, spool=Spool(tmp_path))

    emitter.emit(a_run(id="new"))
    report = emitter.flush_sync(PATIENCE)

    assert FlushReport(delivered=4, pending=0, dropped=0) == report
    assert 0 == emitter.stats.aside
    assert ["a", "b", "c"] == [run_id for run_id in _run_ids(transport.events) if run_id != "new"]


@pytest.mark.parametrize("content", [[], ["a"], {"a": 1}, {"a": None}, "text", None, 7])
def test_odd_attributes_hold_up_nothing(content: object, tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """A record whose attributes are none is counted and stays on disk; what stands behind it is sent."""
    _leave(tmp_path, [an_event(id="behind")])
    (path,) = tmp_path.iterdir()
    record = _with_odd_attributes(content)
    path.write_bytes(record + path.read_bytes())
    store = _Store()
    emitter = emitter_to(StoreTransport(lambda: store), spool=Spool(tmp_path))

    _emit(emitter, ["live"])
    report = emitter.close(PATIENCE)

    assert {"behind", "live"} == store.run_ids()
    assert FlushReport(delivered=2, pending=0, dropped=1) == report
    assert {DropReason.SPOOL_CORRUPT: 1} == emitter.stats.dropped_by_reason
    assert record[1:] == path.read_bytes()[1 : len(record)]


@pytest.mark.process
def test_an_exit_with_a_dead_broker_keeps_on_disk(tmp_path: Path) -> None:
    """A program that ends without close leaves on disk what it could not deliver."""
    printed = run_script(
        _FILE_TRANSPORT
        + """
from run_log.producer import _lifecycle
_lifecycle.EXIT_SECONDS = 0.1
emitter = RunEventEmitter(FileTransport(), spool=Spool(sys.argv[2]))
for number in range(100):
    emitter.emit(a_run(id=str(number)))
""",
        "/nowhere/out",
        str(tmp_path),
    )

    assert printed == ""
    assert [*map(str, range(100))] == _left(tmp_path)


@pytest.mark.process
def test_a_forked_child_leaves_the_spool_to_its_parent(tmp_path: Path) -> None:
    """After a fork the child's emitter is empty and its spool too; what the parent spooled is sent once."""
    out, directory = tmp_path / "out", tmp_path / "spool"

    printed = run_script(
        _FILE_TRANSPORT
        + """
class Telling(FileTransport):
    spooled = threading.Event()

    def publish(self, messages):
        if emitter.stats.spooled >= 25:
            self.spooled.set()
        super().publish(messages)

emitter = RunEventEmitter(Telling(), spool=Spool(sys.argv[2]), limits=BufferLimits(events=5))
for number in range(30):
    emitter.emit(a_run(id=f"parent-{number}"))
Telling.spooled.wait(30)
child = os.fork()
if child == 0:
    empty = emitter.stats
    emitter.emit(a_run(id="child"))
    report = emitter.close(30)
    print(empty.emitted, report, flush=True)
    os._exit(0)
os.waitpid(child, 0)
FileTransport.gate.set()
print(emitter.close(30), os.getpid(), child, os.listdir(sys.argv[2]))
""",
        str(out),
        str(directory),
    )

    in_child, in_parent = printed.splitlines()
    assert in_child == f"0 {FlushReport(delivered=1, pending=0, dropped=0)}"
    assert in_parent.startswith(f"{FlushReport(delivered=30, pending=0, dropped=0)} ")
    parent, child = map(int, in_parent.removesuffix(" []").split()[-2:])
    sent = [json.loads(line) for line in out.read_text().splitlines()]
    assert sent[0] == [child, "child"]
    assert sorted([parent, f"parent-{number}"] for number in range(30)) == sorted(sent[1:])


def test_many_emitters_share_what_was_left(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """What ten emitters left on disk is delivered once by ten others that start at the same time."""
    for number in range(10):
        dead = _dead()
        emitter = emitter_to(dead, spool=Spool(tmp_path))
        _emit(emitter, [f"{number}-0"])
        assert dead.entered.wait(PATIENCE)
        _emit(emitter, [f"{number}-{one}" for one in range(1, 20)])
        emitter.close(0)
    transports = [ScriptedTransport() for _ in range(10)]
    emitters = [emitter_to(transport, spool=Spool(tmp_path)) for transport in transports]
    barrier = threading.Barrier(len(emitters))

    def work(emitter: RunEventEmitter) -> FlushReport:
        barrier.wait(PATIENCE)
        emitter.emit(a_run(id="own"))
        return emitter.close(PATIENCE)

    with ThreadPoolExecutor(len(emitters)) as pool:
        reports = list(pool.map(work, emitters))

    assert [0] * 10 == [report.pending for report in reports]
    assert 210 == sum(report.delivered for report in reports)
    sent = [run_id for transport in transports for run_id in _run_ids(transport.events)]
    expected = [f"{number}-{one}" for number, one in itertools.product(range(10), range(20))]
    assert sorted([*expected, *["own"] * 10]) == sorted(sent)
    assert list(tmp_path.iterdir()) == []


def test_what_is_absorbed_as_the_thread_becomes_idle_is_delivered(
    emitter_to: EmitterMaker, tmp_path: Path
) -> None:
    """An event is delivered though somebody looks at the counters just before the thread becomes idle."""
    runs = iter([a_run(id=str(number)) for number in range(4)])
    arrived = threading.Event()

    class Interrupted(Spool):
        def next_batch(self, *, events: int, data_bytes: int) -> list[SpooledEvent]:
            found = super().next_batch(events=events, data_bytes=data_bytes)
            # Nothing is left, on disk or in memory: after this look the thread becomes idle.
            nothing_left = emitter.stats.pending == 0
            if nothing_left and (run := next(runs, None)) is not None:
                emitter.emit(run)
                absorbed = emitter.stats.pending
                assert 1 == absorbed
            return found

    class Watching(ScriptedTransport):
        def publish(self, messages: Sequence[Message]) -> None:
            super().publish(messages)
            if "3" in {decode_event(message).run.id for message in messages}:
                arrived.set()

    emitter = emitter_to(Watching(), spool=Interrupted(tmp_path))
    emitter.emit(a_run(id="first"))

    assert arrived.wait(PATIENCE)


def test_what_cannot_be_written_before_an_exec_is_delivered(emitter_to: EmitterMaker, tmp_path: Path) -> None:
    """An event that is neither delivered nor on disk when a process tries to exec is delivered later."""
    is_writing, is_looking = threading.Event(), threading.Event()
    transport = _Outage()

    class Noticed:
        lock = threading.Lock()

        def __enter__(self) -> None:
            if is_writing.is_set():
                is_looking.set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    class Full(Spool):
        def append(self, *_: Any, **__: Any) -> None:
            # Meanwhile the delivery thread finds nothing in memory, and waits for the directory.
            is_writing.set()
            assert is_looking.wait(PATIENCE)
            transport.end()
            raise SpoolError("full")

    emitter = emitter_to(transport, spool=Full(tmp_path))
    disk: Any = emitter._delivery._disk  # pyright: ignore[reportPrivateUsage] - whose lock is looked at
    disk._lock = Noticed()
    emitter.emit(a_run())
    transport.wait_until(lambda: True)

    emitter._delivery.deliver_or_keep(0)  # pyright: ignore[reportPrivateUsage] - as before an exec

    assert transport.taken.wait(PATIENCE)
