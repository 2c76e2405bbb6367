"""Stores beside a model that is a dictionary: whatever callers do in whatever order, both say the same."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.model import check_summaries

from run_log.core import Outcome, RunEvent, RunStatus, WorkflowRun, utc_now
from run_log.core.models import RunKey
from run_log.stores import (
    FirestoreRunLogService,
    InMemoryRunLogService,
    RunLogService,
    SQLiteRunLogService,
)
from run_log.stores.listings import Order
from run_log.testing import FirestoreEmulator, a_run, an_event

from .core_strategies import scaled

pytestmark = pytest.mark.search

T = TypeVar("T")

NOON = utc_now().replace(microsecond=0) - timedelta(hours=2)
WORKFLOWS = ("w", "w/x")

workflows = st.sampled_from(WORKFLOWS)
numbers = st.integers(min_value=0, max_value=6)
statuses = st.sampled_from(RunStatus)
attempts = st.integers(min_value=1, max_value=2)


def state(workflow_id: str, number: int, status: RunStatus, attempt: int = 1) -> WorkflowRun:
    """Return a run; runs 0 to 2, and 3 to 5, started at the same moment."""
    return a_run(
        workflow_id=workflow_id,
        id=f"r{number}",
        status=status,
        attempt=attempt,
        started_at=NOON + timedelta(seconds=number // 3),
        duration_ms=1_000.0 * number + attempt,
    )


class StoreMachine(RuleBasedStateMachine):
    """Drives one store and a dictionary of each run's newest event."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.service = self.run(self.opened())
        self.events: dict[RunKey, list[RunEvent]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what *work* does in the machine's event loop."""
        return self.runner.run(work)

    async def opened(self) -> RunLogService:
        """Return the store under test."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Let go of the store and the loop."""
        self.run(self.service.close())
        self.runner.close()

    def newest(self, key: RunKey) -> WorkflowRun:
        """Return the run as the model has it."""
        return max(self.events[key], key=lambda event: event.version).run

    def listing(self, workflow_id: str) -> list[WorkflowRun]:
        """Return the model's runs of a workflow, newest first."""
        own = [self.newest(key) for key in self.events if key[0] == workflow_id]
        return sorted(own, key=lambda run: (run.started_at, run.id), reverse=True)

    def remember(self, event: RunEvent) -> Outcome:
        """Add *event* to the model; return what the store has to answer."""
        known = self.events.setdefault(event.key, [])
        if any(event.event_id == one.event_id for one in known):
            return Outcome.DUPLICATE
        known.append(event)
        return Outcome.APPLIED if event is max(known, key=lambda one: one.version) else Outcome.STALE

    @rule(workflow_id=workflows, number=numbers, status=statuses)
    def save(self, workflow_id: str, number: int, status: RunStatus) -> None:
        """A saved run is the newest state, unless a later attempt was there."""
        attempt = max(
            (event.run.attempt for event in self.events.get((workflow_id, f"r{number}"), [])), default=1
        )
        run = state(workflow_id, number, status, attempt)

        self.run(self.service.save_run(run))

        history = self.run(self.service.get_history(*run.key))
        newest = history[-1]
        self.remember(an_event(run, hlc=newest.version.hlc, event_id=newest.version.event_id))

    @rule(
        workflow_id=workflows,
        number=numbers,
        status=statuses,
        attempt=attempts,
        hlc=st.integers(min_value=0, max_value=2**52),
    )
    def apply_event(self, workflow_id: str, number: int, status: RunStatus, attempt: int, hlc: int) -> None:
        """An event of any version, early or late, is merged."""
        event = an_event(state(workflow_id, number, status, attempt), hlc=hlc)

        outcomes = self.run(self.service.apply([event]))

        assert [self.remember(event)] == outcomes

    @rule(data=st.data())
    def apply_again(self, data: st.DataObject) -> None:
        """Events that were applied already are duplicates, in any number and order."""
        known = [event for events in self.events.values() for event in events]
        repeats = data.draw(st.lists(st.sampled_from(known), max_size=5)) if known else []

        outcomes = self.run(self.service.apply(repeats))

        assert [Outcome.DUPLICATE] * len(repeats) == outcomes

    @rule(
        workflow_id=workflows,
        limits=st.lists(st.integers(min_value=1, max_value=5), min_size=10, max_size=10),
        inserted=st.lists(st.tuples(numbers, statuses), max_size=2),
    )
    def walk(self, workflow_id: str, limits: list[int], inserted: list[tuple[int, RunStatus]]) -> None:
        """A walk with any page sizes returns every run that was there once, whatever is stored meanwhile."""
        there = [run.id for run in self.listing(workflow_id)]

        walked: list[str] = []
        cursor: str | None = None
        for step, limit in enumerate(limits):
            page, cursor = self.run(self.service.list_runs(workflow_id, limit=limit, start_after=cursor))
            walked += [run.id for run in page]
            if cursor is None:
                break
            assert limit == len(page)
            if step < len(inserted):
                self.save(workflow_id, *inserted[step])

        assert len(walked) == len(set(walked))
        assert there == [run_id for run_id in walked if run_id in there]

    @rule(
        workflow_id=workflows,
        status=st.sets(statuses, min_size=1),
        since=st.none() | numbers,
        until=st.none() | numbers,
        order=st.sampled_from(Order),
        page_size=st.integers(min_value=1, max_value=5),
    )
    def select(
        self,
        workflow_id: str,
        status: set[RunStatus],
        since: int | None,
        until: int | None,
        order: Order,
        page_size: int,
    ) -> None:
        """A filtered listing has the model's runs that match, from the end that is asked for."""
        start = None if since is None else NOON + timedelta(seconds=since)
        end = None if until is None else NOON + timedelta(seconds=until)
        expected = [
            run
            for run in self.listing(workflow_id)
            if run.status in status
            and (start is None or start <= run.started_at)
            and (end is None or run.started_at < end)
        ]

        async def walked() -> list[WorkflowRun]:
            runs = self.service.iter_runs(
                workflow_id, page_size=page_size, status=status, since=start, until=end, order=order
            )
            return [run async for run in runs]

        assert (expected if order is Order.NEWEST else expected[::-1]) == self.run(walked())

    @invariant()
    def listings_are_equal(self) -> None:
        """Listings, stats, latest runs and the inbox are those of the model."""
        for workflow_id in WORKFLOWS:
            expected = self.listing(workflow_id)
            successful = sum(run.status is RunStatus.SUCCESS for run in expected)

            assert (expected, None) == self.run(self.service.list_runs(workflow_id))
            assert next(iter(expected), None) == self.run(self.service.get_latest_run(workflow_id))
            assert {"total": len(expected), "successful": successful} == self.run(
                self.service.get_stats(workflow_id)
            )
            self.run(check_summaries(self.service, workflow_id, expected, utc_now()))
        listed, _ = self.run(self.service.list_workflows())
        counts = {name: Counter(run.status for run in self.listing(name)) for name in WORKFLOWS}
        assert {name: dict(count) for name, count in counts.items() if count} == {
            stats.workflow_id: stats.by_status for stats in listed
        }
        paused = [run for name in WORKFLOWS for run in self.listing(name) if run.status is RunStatus.PAUSED]
        inbox = self.run(self.service.get_pending_runs())
        assert sorted(run.key for run in paused) == sorted(run.key for run in inbox)
        assert inbox == sorted(inbox, key=lambda run: run.started_at, reverse=True)
        assert inbox == [one.run for one in self.run(self.service.list_pending())[0]]


class MemoryMachine(StoreMachine):
    """Memory beside the model."""

    async def opened(self) -> RunLogService:
        """Return a new memory."""
        return InMemoryRunLogService()


class SQLiteMachine(StoreMachine):
    """SQLite beside the model; each example in a file of its own, opened anew now and then."""

    async def opened(self) -> RunLogService:
        """Return a service of an empty file."""
        self.folder = tempfile.TemporaryDirectory()
        return self.of_the_file()

    def of_the_file(self) -> SQLiteRunLogService:
        """Return a new service of the example's file."""
        return SQLiteRunLogService(path=Path(self.folder.name) / "runs.sqlite3")

    @rule()
    def reopen(self) -> None:
        """A service that is opened anew answers as the one before it."""
        self.run(self.service.close())
        self.service = self.of_the_file()

    def teardown(self) -> None:
        """Let go of the store, the loop and the file."""
        super().teardown()
        self.folder.cleanup()


class FirestoreMachine(StoreMachine):
    """Firestore beside the model; each example in a project of its own."""

    async def opened(self) -> RunLogService:
        """Return a service of an empty project."""
        return FirestoreRunLogService(project=f"run-log-{uuid.uuid4().hex[:12]}")


TEST_SETTINGS = settings(
    max_examples=scaled(30),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_memory_is_like_the_model() -> None:
    """Memory answers as the model does, whatever callers do in whatever order."""
    run_state_machine_as_test(MemoryMachine, settings=TEST_SETTINGS)


def test_sqlite_is_like_the_model() -> None:
    """SQLite answers as the model does, whatever callers do in whatever order."""
    run_state_machine_as_test(SQLiteMachine, settings=settings(TEST_SETTINGS, max_examples=scaled(15)))


@pytest.mark.emulator
def test_firestore_is_like_the_model(
    firestore_emulator: FirestoreEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Firestore answers as the model does, whatever callers do in whatever order."""
    for name, value in firestore_emulator.environment.items():
        monkeypatch.setenv(name, value)

    run_state_machine_as_test(FirestoreMachine, settings=settings(TEST_SETTINGS, max_examples=scaled(8)))
