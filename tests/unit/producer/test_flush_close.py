from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from run_log.core import TransportUnavailableError
from run_log.producer import EmitterStats, FlushReport, RunEventEmitter
from run_log.producer._held import BufferLimits
from run_log.producer._spool import Spool
from run_log.testing import a_run

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, logged

_NOTHING = FlushReport(delivered=0, pending=0, dropped=0)
_ONE = FlushReport(delivered=1, pending=0, dropped=0)
_ONE_PENDING = FlushReport(delivered=0, pending=1, dropped=0)


class _Stubborn(ScriptedTransport):
    """Hangs on when it is closed."""

    def close(self) -> None:
        """See `Transport.close`."""


def _dead() -> ScriptedTransport:
    return ScriptedTransport(itertools.repeat(TransportUnavailableError("down")))


async def test_flush_waits_for_delivery(emitter_to: EmitterMaker) -> None:
    """When flush returns in time, everything emitted before it is delivered."""
    transport = ScriptedTransport([TransportUnavailableError("down")])
    emitter = emitter_to(transport)

    emitter.emit(a_run())

    assert await emitter.flush(PATIENCE) == _ONE
    assert [a_run()] == [event.run for event in transport.events]


async def test_flush_of_nothing_starts_nothing(emitter: RunEventEmitter) -> None:
    """Flushing before the first emit returns at once."""
    before = set(threading.enumerate())

    report = await emitter.flush(PATIENCE)

    assert report == _NOTHING
    assert before >= set(threading.enumerate())


async def test_flush_is_bounded_and_says_what_is_left(emitter_to: EmitterMaker) -> None:
    """With a transport that hangs, a flush returns after its timeout and counts what is pending."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)
    emitter.emit(a_run())

    late = [await emitter.flush(0.01), emitter.flush_sync(0.01)]
    assert not emitter._delivery.held.is_waited_for  # pyright: ignore[reportPrivateUsage] - nothing else tells
    transport.let_go()

    assert late == [_ONE_PENDING, _ONE_PENDING]
    assert await emitter.flush(PATIENCE) == emitter.flush_sync(PATIENCE) == _ONE


async def test_the_counters_add_up(emitter_to: EmitterMaker) -> None:
    """Delivered, pending and dropped events are the emitted ones, before, during and after delivery."""
    transport = ScriptedTransport([TransportUnavailableError("down")] * 2, held=True)
    emitter = emitter_to(transport, limits=BufferLimits(events=5))
    seen: list[EmitterStats] = [emitter.stats]

    for number in range(30):
        emitter.emit(a_run(id=str(number % 7)))
        emitter.emit(None)
        seen.append(emitter.stats)
    transport.let_go()
    await emitter.flush(PATIENCE)
    emitter.close(PATIENCE)
    emitter.emit(a_run())
    seen.append(emitter.stats)

    assert [s.emitted for s in seen] == [s.delivered + s.pending + s.dropped for s in seen]
    assert (seen[-1].emitted, seen[-1].pending) == (61, 0)


def test_two_loops_flush_at_once(emitter_to: EmitterMaker) -> None:
    """Flushes in event loops of different threads all end when everything is delivered."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)
    emitter.emit(a_run())
    barrier = threading.Barrier(3)

    def flush() -> FlushReport:
        async def wait() -> FlushReport:
            task = asyncio.create_task(emitter.flush(PATIENCE))
            await asyncio.sleep(0)  # now it waits
            barrier.wait(PATIENCE)
            return await task

        return asyncio.run(wait())

    with ThreadPoolExecutor(2) as pool:
        flushes = [pool.submit(flush) for _ in range(2)]
        barrier.wait(PATIENCE)
        transport.let_go()

        assert [flush.result(PATIENCE) for flush in flushes] == [_ONE, _ONE]


def test_a_loop_that_ends_in_a_flush_harms_nobody(emitter_to: EmitterMaker) -> None:
    """An event loop closed before delivery is not waited for; delivery goes on."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)
    emitter.emit(a_run())
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(emitter.flush(PATIENCE))
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    loop.close()

    transport.let_go()

    assert emitter.close(PATIENCE) == _ONE
    assert not abandoned.done()


async def test_a_cancelled_flush_leaves_nothing_behind(emitter_to: EmitterMaker) -> None:
    """Cancelling a flush cancels it, and delivery goes on."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)
    emitter.emit(a_run())
    flush = asyncio.create_task(emitter.flush(PATIENCE))
    await asyncio.sleep(0)

    flush.cancel()
    await asyncio.wait({flush})
    transport.let_go()

    assert flush.cancelled()
    assert await emitter.flush(PATIENCE) == _ONE


@pytest.mark.parametrize(("runs", "report"), [(0, _NOTHING), (1, _ONE)])
def test_closing_twice_is_fine(
    runs: int, report: FlushReport, transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """Whether it was used or not, an emitter closes its transport; a second close reports the same."""
    for _ in range(runs):
        emitter.emit(a_run())

    reports = [emitter.close(PATIENCE)]
    closings = transport.closings
    reports.append(emitter.close(PATIENCE))

    assert reports == [report, report]
    assert closings == 1


def test_close_is_bounded_with_a_transport_that_hangs(emitter_to: EmitterMaker) -> None:
    """A publish that never returns costs close its timeout and no more."""
    transport = _Stubborn(held=True)
    emitter = emitter_to(transport)
    emitter.emit(a_run())
    assert transport.entered.wait(PATIENCE)

    assert emitter.close(0.01) == _ONE_PENDING
    transport.let_go()


def test_failing_is_known(emitter_to: EmitterMaker) -> None:
    """An emitter knows whether its last call failed, so that nobody has to wait in vain."""
    failed, waits = threading.Event(), threading.Event()

    def until_told(_shortest: float, _longest: float) -> float:
        failed.set()
        waits.wait(PATIENCE)
        return 0

    transport = ScriptedTransport([TransportUnavailableError("down")])
    emitter = emitter_to(transport, uniform=until_told)
    fresh = emitter.is_failing
    emitter.emit(a_run())
    assert failed.wait(PATIENCE)

    late = emitter.is_failing
    waits.set()
    emitter.flush_sync(PATIENCE)

    assert (fresh, late, emitter.is_failing) == (False, True, False)


async def test_a_closed_emitter_waits_for_nothing(emitter_to: EmitterMaker) -> None:
    """After close has given up, neither flush nor another close waits for what nobody delivers any more."""
    emitter = emitter_to(_dead())
    emitter.emit(a_run())
    emitter.close(0)

    assert await emitter.flush(3_600) == _ONE_PENDING
    assert emitter.close(3_600) == _ONE_PENDING


async def test_close_ends_a_flush(emitter_to: EmitterMaker) -> None:
    """Whoever waits in a flush learns at once that the emitter was closed."""
    emitter = emitter_to(_dead())
    emitter.emit(a_run())
    flush = asyncio.create_task(emitter.flush(3_600))
    await asyncio.sleep(0)

    await asyncio.to_thread(emitter.close, 0)

    assert await flush == _ONE_PENDING


async def test_what_is_settled(emitter_to: EmitterMaker) -> None:
    """Whether all that was emitted is delivered is known whatever others emit meanwhile."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport)
    emitter.emit(a_run())
    await asyncio.to_thread(transport.entered.wait, PATIENCE)
    late = await emitter.settled(0.01)
    waiting = asyncio.create_task(emitter.settled(PATIENCE))
    await asyncio.sleep(0)
    for _ in range(3):
        emitter.emit(a_run())
    transport.let_go()

    assert (late, await waiting) == (False, True)


async def test_what_is_given_up_is_not_settled(emitter_to: EmitterMaker) -> None:
    """Whoever waits for delivery is not told of any if the emitter is closed with something left."""
    emitter = emitter_to(_dead())
    emitter.emit(a_run())
    waiting = asyncio.create_task(emitter.settled(3_600))
    await asyncio.sleep(0)

    await asyncio.to_thread(emitter.close, 0)

    assert (await waiting, await emitter.settled(3_600)) == (False, False)


def test_one_thread_from_the_first_emit_until_close(emitter: RunEventEmitter) -> None:
    """There is no thread before the first emit, one afterwards, none after close."""
    others = set(threading.enumerate())
    before = set(threading.enumerate()) - others

    for _ in range(3):
        emitter.emit(a_run())
    between = set(threading.enumerate()) - others
    emitter.close(PATIENCE)
    after = set(threading.enumerate()) - others

    assert set() == before == after
    assert [thread.name for thread in between] == ["run-log-emitter"]


def test_a_transport_that_cannot_be_closed(
    emitter_to: EmitterMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A transport that raises when it is closed costs nothing: what was held is on disk; the log says so."""

    class Stuck(ScriptedTransport):
        def close(self) -> None:
            super().close()
            raise RuntimeError("no")

    emitter = emitter_to(Stuck(itertools.repeat(TransportUnavailableError("down"))), spool=Spool(tmp_path))
    emitter.emit(a_run())
    report = emitter.close(0.01)

    assert FlushReport(delivered=0, pending=1, dropped=0) == report
    spool = Spool(tmp_path)
    assert ["run-1"] == [event.key[1] for event in spool.next_batch(events=10, data_bytes=10**6)]
    spool.close()
    assert logged(caplog, "run_log_transport_not_closed")
