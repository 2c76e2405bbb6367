from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from run_log.core import (
    Outcome,
    ReceivedMessage,
    RunEvent,
    RunStatus,
    encode_event,
)
from run_log.projector import GroupLimits, PullLimits
from run_log.stores import InMemoryRunLogService
from run_log.testing import InMemoryTopic, ManualClock, a_life

from .doubles import (
    WatchedSource,
    make_worker,
)


class CrashingStore(InMemoryRunLogService):
    """Stops for ever before or after the commit of a batch, and says that it is there."""

    def __init__(self, *, batch: int, durable: bool) -> None:
        super().__init__()
        self._left = batch
        self._durable = durable
        self.reached = asyncio.Event()

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        self._left -= 1
        if self._left:
            return await super().apply(events)
        if self._durable:
            await super().apply(events)
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError


class DyingSource(WatchedSource):
    """A subscription that never hears from its worker again once that has died, nor while it is told so."""

    def __init__(self, *given: Any, dies_at: str = "") -> None:
        super().__init__(*given)
        self.is_dead = False
        self.reached = asyncio.Event()
        self._dies_at = dies_at

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        messages = await super().pull(max_messages, wait=wait)
        if messages and self._dies_at == "pull":
            await self._die()
        return messages

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        if self._dies_at == "acknowledge":
            await self._die()
        if not self.is_dead:
            await super().acknowledge(ack_ids)
        if self._dies_at == "acknowledged":
            await self._die()

    async def release(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.release`."""
        if not self.is_dead:
            await super().release(ack_ids)

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """See `MessageSource.extend`."""
        if not self.is_dead:
            await super().extend(ack_ids, seconds)

    async def _die(self) -> None:
        self.reached.set()
        await asyncio.Event().wait()


_SMALL = PullLimits(
    pulls=2,
    pull_seconds=0.01,
    stop_seconds=0.01,
    settle_seconds=0.01,
    group=GroupLimits(batch=7, in_flight=2, gather_seconds=0),
)


@pytest.mark.parametrize(
    ("dies_at", "batch", "durable"),
    [
        ("pull", 0, False),
        ("", 1, False),
        ("", 1, True),
        ("", 2, False),
        ("", 2, True),
        ("acknowledge", 0, False),
        ("acknowledged", 0, False),
    ],
    ids=[
        "after a pull",
        "before the first commit",
        "after the first commit",
        "before another commit",
        "after another commit",
        "before an acknowledgement",
        "after an acknowledgement",
    ],
)
async def test_a_crash_loses_nothing(dies_at: str, batch: int, *, durable: bool) -> None:
    """Wherever a worker dies, unheard, the next one ends with every run once and every count exact."""
    clock, topic = ManualClock(), InMemoryTopic()
    subscription = topic.subscribe(now=clock.monotonic)
    ends = [RunStatus.SUCCESS, RunStatus.FAILED]
    events = [event for n in range(20) for event in a_life(run_id=f"r{n:02}", end=ends[n % 2])]
    shuffled = random.Random(batch).sample(events * 2, 80)
    topic.publish([encode_event(event) for event in shuffled])
    source = DyingSource(subscription, dies_at=dies_at)
    store = CrashingStore(batch=batch, durable=durable)
    first = asyncio.create_task(make_worker(source, store, limits=_SMALL).run(stop=asyncio.Event()))

    await asyncio.wait_for((store if batch else source).reached.wait(), 30)
    source.is_dead = True
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    left = subscription.backlog
    clock.advance(3_600)
    await make_worker(subscription, store, limits=_SMALL).run(stop=asyncio.Event(), until_idle=0.05)

    runs, _ = await store.list_runs("workflow-1", limit=100)
    histories = [await store.get_history("workflow-1", f"r{n:02}") for n in range(20)]
    assert left > 0
    assert 0 == subscription.backlog
    assert {"total": 20, "successful": 10} == await store.get_stats("workflow-1")
    assert {event.run.id: event.run for event in events} == {run.id: run for run in runs}
    assert [e.version for e in events] == [line.version for lines in histories for line in lines]
