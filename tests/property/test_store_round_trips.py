"""Any run comes back equal from each store: any ids, any JSON, any moment."""

from __future__ import annotations

import asyncio
from datetime import UTC

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run_log.core import RunEvent, WorkflowRun
from run_log.stores import InMemoryRunLogService, RunLogService
from run_log.testing import FirestoreEmulator

from .core_strategies import events, examples, runs, scaled
from .store_folds import OpenStores, memory_stores, sqlite_stores, use_firestore

pytestmark = pytest.mark.search

on_the_emulator = settings(
    max_examples=scaled(20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# Whoever reads a run moves the process's clock past it: readings far from today would spoil other tests.
near_events = events.map(lambda event: event.model_copy(update={"hlc": event.hlc % 2**52}))
few_events = st.lists(near_events, min_size=1, max_size=6, unique_by=lambda event: event.key)


async def round_trip(open_stores: OpenStores, facts: list[RunEvent]) -> None:
    """Apply *facts*, each of another run; check that each comes back equal, by id and in its listing."""
    async with open_stores() as services:
        service = services[0]
        await service.apply(facts)
        found = [await service.get_run(*event.key) for event in facts]
        listed = [
            run
            for workflow_id in {event.key[0] for event in facts}
            for run in await walk(service, workflow_id)
        ]
        histories = [await service.get_history(*event.key) for event in facts]

    assert [event.run for event in facts] == found
    assert sorted(event.key for event in facts) == sorted(run.key for run in listed)
    assert [(event.version, event.occurred_at, event.inferred) for event in facts] == [
        (item.version, item.occurred_at, item.inferred) for (item,) in histories
    ]
    assert {UTC} == {run.started_at.tzinfo for run in listed}


async def walk(service: RunLogService, workflow_id: str) -> list[WorkflowRun]:
    """Return a workflow's runs, by pages of two; check that they come newest first."""
    page, cursor = await service.list_runs(workflow_id, limit=2)
    walked = list(page)
    while cursor is not None:
        page, cursor = await service.list_runs(workflow_id, limit=2, start_after=cursor)
        walked += page
    assert walked == sorted(walked, key=lambda run: run.started_at, reverse=True)
    return walked


@pytest.mark.parametrize("open_stores", [memory_stores, sqlite_stores], ids=["memory", "sqlite"])
@examples(80)
@given(facts=few_events)
def test_any_event_round_trips(open_stores: OpenStores, facts: list[RunEvent]) -> None:
    """Any run comes back equal, whatever its ids, payloads and moments."""
    asyncio.run(round_trip(open_stores, facts))


@pytest.mark.emulator
@on_the_emulator
@given(facts=few_events)
def test_any_event_round_trips_in_firestore(
    facts: list[RunEvent], firestore_emulator: FirestoreEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Firestore, any run comes back equal, whatever its ids, payloads and moments."""
    asyncio.run(round_trip(use_firestore(firestore_emulator, monkeypatch), facts))


@examples(100)
@given(runs)
def test_any_run_can_be_saved(run: WorkflowRun) -> None:
    """Any run that the model accepts can be saved, and comes back equal."""

    async def saved() -> WorkflowRun | None:
        service = InMemoryRunLogService()
        await service.save_run(run)
        return await service.get_run(*run.key)

    assert run == asyncio.run(saved())
