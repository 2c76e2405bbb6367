"""Runs that expire and are deleted: whatever comes again and whenever, each was there once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from run_log.core import Outcome, RunEvent, RunStatus
from run_log.core.models import RunKey
from run_log.projector import Projector
from run_log.stores import InMemoryRunLogService, RunLogService, SQLiteRunLogService
from run_log.testing import an_event

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEPT_DAYS = 3

Open = Callable[[Path, Callable[[], datetime]], RunLogService]

STORES: dict[str, Open] = {
    "memory": lambda _path, now: InMemoryRunLogService(retention_days=KEPT_DAYS, now=now),
    "sqlite": lambda path, now: SQLiteRunLogService(path=path / "runs", retention_days=KEPT_DAYS, now=now),
}

new_events = st.tuples(st.integers(0, 3), st.sampled_from(RunStatus), st.integers(0, 10), st.integers(-2, 1))
"""Which run, its status, its version, and how many days later than it is told it happened."""
Story = list[tuple[int, RunStatus, int, int] | str]
steps = st.lists(st.one_of(new_events, st.just("a day"), st.just("again")), max_size=25)


@dataclass
class World:
    """A store, its time, and what it has taken."""

    now: datetime = NOON
    taken: list[RunEvent] = field(default_factory=list[RunEvent])

    async def tell(self, store: RunLogService, events: list[RunEvent]) -> None:
        """Have *events* projected, and remember those that were applied."""
        for event, outcome in zip(events, await Projector(store).apply(events), strict=True):
            if outcome in (Outcome.APPLIED, Outcome.STALE):
                self.taken.append(event)

    def expiry(self, key: RunKey) -> datetime:
        """Return when a run has expired for sure: so long after all that was taken of it."""
        return max(event.occurred_at for event in self.taken if event.key == key) + KEPT_DAYS * DAY


async def live(
    store: RunLogService, world: World, story: list[tuple[int, RunStatus, int, int] | str]
) -> None:
    """Do each step, and see after it that nothing expired is seen and nothing counts twice."""
    for step in story:
        if step == "a day":
            world.now += DAY
        elif step == "again":
            before = await store.get_stats("w")
            await world.tell(store, list(world.taken))
            assert before == await store.get_stats("w")
        elif isinstance(step, tuple):
            number, status, hlc, late = step
            occurred_at = world.now + late * DAY
            event = an_event(
                workflow_id="w", id=f"r{number}", status=status, hlc=hlc, occurred_at=occurred_at
            )
            await world.tell(store, [event])
        for run in (await store.list_runs("w"))[0]:
            if run.status.is_terminal:
                assert world.now < world.expiry(run.key)
    seen = {event.key for event in world.taken}
    assert (await store.get_stats("w"))["total"] >= len(seen)


DELETED_AND_BEGUN_AGAIN: Story = [
    (0, RunStatus.FAILED, 1, -1),
    *("a day", "a day"),
    *[(0, RunStatus.PENDING, 0, 0)] * 2,
    "a day",
    *((1, RunStatus.PENDING, 0, 0), (0, RunStatus.SUCCESS, 0, 0)),
    "again",
]
"""A run is deleted and its id used again, by a state of a lower version than the one that is deleted."""


@pytest.mark.search
@pytest.mark.parametrize("name", STORES)
@example(story=DELETED_AND_BEGUN_AGAIN)
@settings(max_examples=60, deadline=None)
@given(story=steps)
def test_what_expired_does_not_come_back(name: str, story: Story) -> None:
    """Whenever all that was told is told again, expired runs stay unseen and no count changes."""
    world = World()
    with tempfile.TemporaryDirectory() as folder:
        store = STORES[name](Path(folder), lambda: world.now)

        async def run() -> None:
            await live(store, world, story)
            await store.close()

        asyncio.run(run())
