"""What the tests of the group commit share: a store that holds batches, timers, and fates."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from run_log.core import Outcome, ReceivedMessage, RunEvent, encode_event
from run_log.core.models import RunKey
from run_log.projector import Fate, GroupCommit, GroupLimits, Projector
from run_log.stores import InMemoryRunLogService
from run_log.testing import an_event

from .doubles import (
    Letters,
    nearly_zero,
)

QUICK = GroupLimits(gather_seconds=0.0)


class Fates:
    """Remembers what became of each message."""

    def __init__(self) -> None:
        self.of: dict[str, Fate] = {}

    def __call__(self, message: ReceivedMessage, fate: Fate) -> None:
        """Note a message's fate, which it has once."""
        assert message.ack_id not in self.of
        self.of[message.ack_id] = fate

    def counts(self) -> tuple[int, int]:
        """Return how many are done, and how many were returned."""
        counts = Counter(self.of.values())
        return counts[Fate.DONE], counts[Fate.RETURNED]


class BatchStore(InMemoryRunLogService):
    """Holds each batch until told, and remembers them; what is under way together is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Sequence[RunEvent]] = []
        self.under_way: list[set[RunKey]] = []
        self.most_under_way = 0
        self.overlaps: list[set[RunKey]] = []
        self.permits = asyncio.Semaphore(0)

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        keys = {event.key for event in events}
        self.overlaps += [shared for others in self.under_way if (shared := keys & others)]
        self.batches.append(events)
        self.under_way.append(keys)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        try:
            await self.permits.acquire()
            return await super().apply(events)
        finally:
            self.under_way.remove(keys)

    def let(self, batches: int = 1_000) -> None:
        """Let that many batches end; more than a test has, by default."""
        for _ in range(batches):
            self.permits.release()

    @property
    def sizes(self) -> list[int]:
        """How many events each batch had."""
        return [len(batch) for batch in self.batches]


class Timer:
    """Sleeps until the test says so."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        """Wait for `ring`."""
        self.asked.append(seconds)
        await self._over.wait()

    def ring(self) -> None:
        """End all sleeps, and let new ones begin."""
        self._over.set()
        self._over = asyncio.Event()


async def no_sleep(seconds: float) -> None:
    """Fail: nothing is to wait for a timer."""
    raise AssertionError(f"waited for a timer of {seconds} s")


def received(*events: RunEvent | bytes, attempt: int = 0, **fields: Any) -> list[ReceivedMessage]:
    """Return the messages of *events*, as they were delivered; bytes are a body of their own."""
    messages: list[ReceivedMessage] = []
    for number, event in enumerate(events):
        if isinstance(event, bytes):
            data, attributes, name = event, {}, f"junk-{number}"
        else:
            message = encode_event(event)
            data, attributes, name = message.data, dict(message.attributes), event.event_id
        messages.append(
            ReceivedMessage(
                data=data,
                attributes=attributes,
                message_id=name,
                ack_id=f"{name}/{number}",
                delivery_attempt=attempt,
                **fields,
            )
        )
    return messages


def some_runs(count: int, *, first: int = 0) -> list[RunEvent]:
    """Return an event each of so many runs."""
    return [an_event(id=f"r{number}") for number in range(first, first + count)]


def make_group(
    store: InMemoryRunLogService, letters: Letters | None = None, limits: GroupLimits = QUICK, **options: Any
) -> GroupCommit:
    """Return a group over *store* that does not wait between tries."""
    given: dict[str, Any] = {"limits": limits, "uniform": nearly_zero, **options}
    return GroupCommit(Projector(store), Letters() if letters is None else letters, **given)


async def turns(count: int = 20) -> None:
    """Let the loop go round so often."""
    for _ in range(count):
        await asyncio.sleep(0)
