from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from run_log.core import (
    ConfigurationError,
    Outcome,
    RunEvent,
    StoreUnavailableError,
    TransportRefusedError,
    TransportUnavailableError,
    WriteRefusedError,
    encode_event,
)
from run_log.producer import FlushReport
from run_log.producer._metrics import DropReason
from run_log.producer._store_transport import StoreTransport
from run_log.producer._transport import DeliveryPolicy
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run, an_event

from .conftest import EmitterMaker
from .transports import PATIENCE


class _Store(InMemoryRunLogService):
    """Fails as told, before it takes anything."""

    def __init__(self, *errors: Exception, refuses: Callable[[RunEvent], bool] = lambda _: False) -> None:
        super().__init__()
        self._errors = list(errors)
        self._refuses = refuses
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.threads: set[str] = set()

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        self.loops.add(asyncio.get_running_loop())
        self.threads.add(threading.current_thread().name)
        if self._errors:
            raise self._errors.pop(0)
        if any(self._refuses(event) for event in events):
            raise WriteRefusedError("too large")
        return await super().apply(events)


class _Closing(_Store):
    """Remembers where it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed_in: list[asyncio.AbstractEventLoop] = []

    async def close(self) -> None:
        self.closed_in.append(asyncio.get_running_loop())


def test_everything_happens_in_the_background(emitter_to: EmitterMaker) -> None:
    """The store is used in the emitter's thread alone, and in one event loop."""
    store = _Store(StoreUnavailableError("busy"))
    emitter = emitter_to(StoreTransport(lambda: store))

    for number in range(3):
        emitter.emit(a_run(id=str(number)))
        asyncio.run(emitter.flush(PATIENCE))

    assert FlushReport(delivered=3, pending=0, dropped=0) == emitter.close(PATIENCE)
    assert {"run-log-emitter"} == store.threads
    assert len(store.loops) == 1


def test_an_unavailable_store_is_a_passing_fault() -> None:
    """A store that does not answer is a transport that does not answer."""
    transport = StoreTransport(lambda: _Store(StoreUnavailableError("busy")))

    with pytest.raises(TransportUnavailableError, match="busy"):
        transport.publish([encode_event(an_event())])
    transport.close()


@pytest.mark.parametrize("culprit", ["0", "3", "6"])
def test_a_refused_event_holds_up_no_other(culprit: str, emitter_to: EmitterMaker) -> None:
    """An event that the store never takes is dropped alone and counted; its neighbours are applied."""
    store = _Store(refuses=lambda event: event.run.id == culprit)
    emitter = emitter_to(StoreTransport(lambda: store), policy=DeliveryPolicy(linger=PATIENCE))

    for number in range(7):
        emitter.emit(a_run(id=str(number)))
    report = emitter.close(PATIENCE)

    runs, _ = asyncio.run(store.list_runs("workflow-1"))
    assert {str(number) for number in range(7)} - {culprit} == {run.id for run in runs}
    assert FlushReport(delivered=6, pending=0, dropped=1) == report
    assert emitter.stats.dropped_by_reason == {DropReason.REFUSED: 1}


def test_a_store_that_is_misconfigured_is_a_refusal() -> None:
    """A store that cannot be made is a transport that waits for somebody to act."""

    def broken() -> NoReturn:
        raise ConfigurationError("set RUN_LOG_BACKEND")

    transport = StoreTransport(broken)

    with pytest.raises(TransportRefusedError, match="set RUN_LOG_BACKEND"):
        transport.publish([encode_event(an_event())])
    transport.close()


async def test_closing_within_a_loop() -> None:
    """Close may be called where another event loop runs, and before anything was published."""
    store = _Store()
    used, unused = StoreTransport(lambda: store), StoreTransport(lambda: store)
    await asyncio.to_thread(used.publish, [encode_event(an_event())])

    used.close()
    unused.close()

    assert [loop.is_closed() for loop in store.loops] == [True]


@pytest.mark.parametrize("within_a_loop", [False, True])
def test_an_own_store_is_closed_where_it_was_used(within_a_loop: bool) -> None:  # noqa: FBT001
    """A store that belongs to the transport is closed with it, once, in the event loop it was used in."""
    store = _Closing()
    transport = StoreTransport(lambda: store, close_store=store.close)
    transport.publish([encode_event(an_event())])

    async def close() -> None:
        transport.close()

    if within_a_loop:
        asyncio.run(close())
    transport.close()

    assert list(store.loops) == store.closed_in
    assert [True] == [loop.is_closed() for loop in store.loops]


def test_closing_while_a_batch_is_under_way(emitter_to: EmitterMaker) -> None:
    """A batch that outlives the emitter's patience does not make close fail."""
    inside, gate = threading.Event(), threading.Event()

    class Held(InMemoryRunLogService):
        async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
            inside.set()
            await asyncio.to_thread(gate.wait)
            return await super().apply(events)

    emitter = emitter_to(StoreTransport(Held))
    emitter.emit(a_run())
    assert inside.wait(PATIENCE)

    report = emitter.close(0)
    gate.set()

    assert FlushReport(delivered=0, pending=1, dropped=0) == report
