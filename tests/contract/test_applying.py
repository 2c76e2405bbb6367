"""The write port: what a projection store promises about events."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest

from run_log.core import Outcome, RunStatus, Transition, WriteRefusedError
from run_log.core.clock import PROCESS_CLOCK
from run_log.core.history import MAX_HISTORY
from run_log.core.nearest import CUT_MARKER
from run_log.stores import RunLog
from run_log.testing import a_life, a_run, an_event

from .adapters import every_adapter
from .harness import Harness, save


async def test_outcomes_are_in_order(harness: Harness) -> None:
    """There is one outcome for each event, in order: applied, stale or duplicate."""
    old, new, other = an_event(hlc=1), an_event(hlc=2), an_event(workflow_id="w2", hlc=1)

    first = await harness.store.apply([new, other, old, new, old, other])
    second = await harness.store.apply([old, an_event(hlc=3), new])

    assert [] == await harness.store.apply([])
    applied, stale, duplicate = Outcome.APPLIED, Outcome.STALE, Outcome.DUPLICATE
    assert [applied, applied, stale, duplicate, duplicate, duplicate] == first
    assert [duplicate, applied, duplicate] == second


async def test_repeats_change_nothing(harness: Harness, service: RunLog) -> None:
    """Events applied again, in one batch or in another, change nothing."""
    events = a_life("w", "r")
    await harness.store.apply(events)
    before = await answers(service)

    outcomes = [await harness.store.apply(events), await harness.store.apply([*events, *events][::-1])]

    assert outcomes == [[Outcome.DUPLICATE] * 2, [Outcome.DUPLICATE] * 4]
    assert before == await answers(service)


@pytest.mark.parametrize(
    ("loser", "winner"),
    [
        ({"status": RunStatus.RUNNING, "hlc": 1}, {"status": RunStatus.FAILED, "hlc": 2}),
        ({"hlc": 2**61}, {"attempt": 2, "status": RunStatus.RUNNING, "hlc": 1}),
        ({"hlc": 5, "event_id": "a", "result": {"by": "a"}}, {"hlc": 5, "event_id": "b"}),
    ],
    ids=["later", "a later attempt", "the greater id of a tie"],
)
async def test_a_stale_event_is_only_history(
    harness: Harness, service: RunLog, loser: dict[str, Any], winner: dict[str, Any]
) -> None:
    """An event that an earlier attempt, moment or id makes stale changes the history alone."""
    low, high = (an_event(workflow_id="w", id="r", **changes) for changes in (loser, winner))
    await harness.store.apply([high])
    before = await answers(service)

    outcomes = await harness.store.apply([low])

    run, stats, history = await answers(service)
    assert [Outcome.STALE] == outcomes
    assert (high.run, before[1]) == (run, stats)
    assert [low.version, high.version] == [transition.version for transition in history]


async def test_a_real_event_beats_an_inferred_one(harness: Harness, service: RunLog) -> None:
    """What was concluded from silence is only history once the run itself speaks."""
    started, ended = a_life("w", "r")
    dead = started.infer(started.run.model_copy(update={"status": RunStatus.FAILED, "error": "silent"}))
    await harness.store.apply([started, dead])
    concluded = (await answers(service))[0]

    await harness.store.apply([ended])

    assert (dead.run, ended.run) == (concluded, (await answers(service))[0])


@pytest.mark.parametrize("count", [MAX_HISTORY, MAX_HISTORY + 1, 2 * MAX_HISTORY + 1, 130])
@pytest.mark.parametrize("size", [7, 1_000])
async def test_the_newest_transitions_stay(harness: Harness, service: RunLog, count: int, size: int) -> None:
    """A run keeps its newest 50 transitions, however many there were, in any order and grouping."""
    events = [an_event(workflow_id="w", id="r", status=RunStatus.RUNNING, hlc=n) for n in range(count)]
    shuffled = random.Random(count).sample(events, count)

    for start in range(0, count, size):
        await harness.store.apply(shuffled[start : start + size])

    run, stats, history = await answers(service)
    assert (events[-1].run, {"total": 1, "successful": 0}) == (run, stats)
    assert [event.version for event in events[-MAX_HISTORY:]] == [item.version for item in history]


@every_adapter
async def test_saves_and_events_mix(harness: Harness, service: RunLog) -> None:
    """A run saved after an event was applied is as it was saved, though the event's clock was ahead."""
    ahead = an_event(
        workflow_id="w", id="r", hlc=PROCESS_CLOCK.tick() + 3_600_000_000, status=RunStatus.RUNNING
    )
    await harness.store.apply([ahead])
    await service.get_run("w", "r")

    await save(harness, a_run(workflow_id="w", id="r"))

    run, stats, history = await answers(service)
    assert (a_run(workflow_id="w", id="r"), {"total": 1, "successful": 1}) == (run, stats)
    assert [item.status for item in history] == [RunStatus.RUNNING, RunStatus.SUCCESS]


async def test_callers_at_once_count_each_run_once(harness: Harness, service: RunLog) -> None:
    """Any number of callers may apply at once, the same events too: each run is counted once."""
    lives = [a_life("w", f"r{n}", end=RunStatus.SUCCESS if n % 2 else RunStatus.FAILED) for n in range(6)]
    events = [event for life in lives for event in life]
    orders = [random.Random(seed).sample(events, len(events)) for seed in range(4)]

    await asyncio.gather(*(harness.store.apply(order[:9]) for order in orders))
    await asyncio.gather(*(harness.store.apply(order) for order in orders))

    assert await service.get_stats("w") == {"total": 6, "successful": 3}
    assert {life[1].run.id: life[1].run.status for life in lives} == {
        run.id: run.status for run in (await service.list_runs("w"))[0]
    }


async def test_a_thousand_runs_in_one_batch(harness: Harness, service: RunLog) -> None:
    """A batch may hold more runs than one commit takes, of any number of workflows."""
    events = [an_event(workflow_id=f"w{n % 10}", id=f"r{n}") for n in range(1_100)]

    outcomes = await harness.store.apply(events)

    assert outcomes == [Outcome.APPLIED] * 1_100
    assert [(await service.get_stats(f"w{n}"))["total"] for n in range(10)] == [110] * 10


async def test_large_runs_in_one_batch(harness: Harness, service: RunLog) -> None:
    """A batch may hold more bytes than one commit takes."""
    events = [an_event(workflow_id="w", id=f"r{n}", result={"rows": "x" * 800_000}) for n in range(6)]

    outcomes = await harness.store.apply(events)

    assert outcomes == [Outcome.APPLIED] * 6
    assert [event.run for event in events[::-1]] == (await service.list_runs("w"))[0]


async def test_what_a_save_gives_a_store_takes(harness: Harness, service: RunLog) -> None:
    """An event whose payload was never cut to size is either stored whole or refused as too large."""
    cut = an_event(workflow_id="w", id="r")
    event = cut.model_copy(update={"run": cut.run.model_copy(update={"result": {"x": "x" * 1_200_000}})})

    with contextlib.suppress(WriteRefusedError):
        await harness.store.apply([event])
    run = await service.get_run("w", "r")

    assert run is None or run == event.run
    assert CUT_MARKER not in str(run)


async def answers(service: RunLog) -> tuple[object, dict[str, int], tuple[Transition, ...]]:
    """Return what the log says of run ``r`` of workflow ``w``."""
    return (
        await service.get_run("w", "r"),
        await service.get_stats("w"),
        await service.get_history("w", "r"),
    )
