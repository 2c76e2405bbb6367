from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Self

import pytest

from run_log.core import TransportUnavailableError, encode_event
from run_log.projector import PullLimits
from run_log.projector.pull import FIRST_EXTENSION_SECONDS, LEASE_SECONDS, LONGEST_SECONDS, Leases
from run_log.testing import InMemoryTopic, ManualClock, an_event

from .doubles import ScriptedStore, WatchedSource, eventually, logged, make_worker
from .groups import turns


class Extended:
    """Takes extensions, after raising the errors it is given."""

    def __init__(self, clock: ManualClock, errors: Sequence[Exception] = ()) -> None:
        self._clock = clock
        self._errors = iter(errors)
        self.calls: list[tuple[float, list[str], float]] = []
        """When, which, and for how long."""

    async def __call__(self, ack_ids: Sequence[str], seconds: float) -> None:
        """See `MessageSource.extend`."""
        self.calls.append((self._clock.monotonic(), list(ack_ids), seconds))
        error = next(self._errors, None)
        if error is not None:
            raise error


class Kept:
    """Leases that are looked at when a test says so.

    Args:
        errors: Raised by the first extensions.
    """

    def __init__(self, errors: Sequence[Exception] = ()) -> None:
        self.clock = ManualClock()
        self._looks = asyncio.Semaphore(0)
        self.extended = Extended(self.clock, errors)
        self.leases = Leases(self.extended, now=self.clock.monotonic, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        await self._looks.acquire()
        self.clock.advance(seconds)

    async def __aenter__(self) -> Self:
        """Have them kept while the block lasts."""
        self._keeping = asyncio.create_task(self.leases.keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Keep them no longer."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def pass_by(self, seconds: float) -> None:
        """Let at least so many seconds go by, with a look every now and then."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self._looks.release()
            await turns(5)

    @property
    def moments(self) -> list[float]:
        """When leases were extended."""
        return [moment for moment, _, _ in self.extended.calls]


async def test_what_is_settled_soon_is_never_extended() -> None:
    """A message that is settled within seconds costs no call."""
    async with Kept() as kept:
        kept.leases.hold(["a", "b"])
        await kept.pass_by(FIRST_EXTENSION_SECONDS / 2)
        kept.leases.drop("a")
        kept.leases.drop("b")
        await turns()

    assert [] == kept.extended.calls


async def test_with_nothing_in_hand_nobody_looks() -> None:
    """Once everything is settled, nothing runs until there is something again."""
    clock = ManualClock()
    extended = Extended(clock)
    leases = Leases(extended, now=clock.monotonic, sleep=clock.sleep)
    keeping = asyncio.create_task(leases.keep())
    leases.hold(["a"])
    leases.drop("a")
    await turns()
    looked_until = clock.monotonic()
    await turns()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)

    assert clock.monotonic() == looked_until < FIRST_EXTENSION_SECONDS


async def test_what_is_held_is_extended_before_its_lease_ends() -> None:
    """The shortest lease there is, 10 s, is extended before it ends, and from then on every half of it."""
    async with Kept() as kept:
        kept.leases.hold(["a"])
        await kept.pass_by(3 * LEASE_SECONDS)

    assert len(kept.moments) > 4
    assert [(["a"], LEASE_SECONDS)] * len(kept.moments) == [call[1:] for call in kept.extended.calls]
    assert FIRST_EXTENSION_SECONDS <= kept.moments[0] < 10
    gaps = [later - earlier for earlier, later in itertools.pairwise(kept.moments)]
    assert LEASE_SECONDS / 2 <= min(gaps) <= max(gaps) < LEASE_SECONDS


async def test_only_what_is_due_is_extended() -> None:
    """A message that came later is extended later; one that was settled is not extended again."""
    async with Kept() as kept:
        kept.leases.hold(["early"])
        await kept.pass_by(FIRST_EXTENSION_SECONDS)
        kept.leases.hold(["late"])
        kept.leases.drop("early")
        await kept.pass_by(LEASE_SECONDS / 2)

    assert [["early"], ["late"]] == [ack_ids for _, ack_ids, _ in kept.extended.calls]


async def test_an_extension_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that does not answer is asked again seconds later, and the log says so."""
    async with Kept([TransportUnavailableError("down")] * 2) as kept:
        kept.leases.hold(["a", "b"])
        await kept.pass_by(LEASE_SECONDS / 2)

    assert 3 == len(kept.moments)
    warnings = logged(caplog, "run_log_extend_failed")
    assert [(2, "down")] * 2 == [(record["messages"], record["error"]) for record in warnings]


async def test_a_lease_is_not_extended_for_ever() -> None:
    """After an hour in hand a message's lease is left to end, so that another projector may take it."""
    async with Kept() as kept:
        kept.leases.hold(["a"])
        await kept.pass_by(LONGEST_SECONDS)
        last = len(kept.moments)
        kept.leases.hold(["b"])
        await kept.pass_by(LEASE_SECONDS)

    assert LONGEST_SECONDS - LEASE_SECONDS < kept.moments[last - 1] < LONGEST_SECONDS
    assert [["b"]] * (len(kept.moments) - last) == [ack_ids for _, ack_ids, _ in kept.extended.calls[last:]]
    assert len(kept.moments) > last


async def test_what_waits_for_a_slow_commit_is_delivered_once() -> None:
    """While a commit takes longer than the subscription's leases, its messages do not come again."""
    clock = ManualClock()
    topic = InMemoryTopic()
    subscription = topic.subscribe(now=clock.monotonic, ack_deadline=timedelta(seconds=10))
    topic.publish([encode_event(an_event())])
    source, store = WatchedSource(subscription), ScriptedStore()
    store.gate.clear()
    stop = asyncio.Event()
    looking = asyncio.Event()

    async def sleep(seconds: float) -> None:
        looking.set()
        await clock.sleep(seconds)

    limits = PullLimits(pulls=1, pull_seconds=0.01, stop_seconds=0.01)
    worker = make_worker(source, store, limits=limits, now=clock.monotonic, sleep=sleep)
    running = asyncio.create_task(worker.run(stop=stop))
    await store.entered.wait()
    await looking.wait()
    await eventually(lambda: clock.monotonic() > 100)
    store.gate.set()
    await eventually(lambda: bool(source.acknowledged))
    stop.set()
    report = await running

    assert 1 == report.pulled
    assert len(source.extended) > 1
    assert subscription.backlog == 0
