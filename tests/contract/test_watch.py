"""Watches: what changes comes, once, in order, from now on or from where a cursor says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from run_log.core import InvalidCursorError, RunEvent, RunStatus, Version, WorkflowRun
from run_log.core.models import RunKey
from run_log.stores import ProjectionStore, RunLog, RunUpdate, RunWatch
from run_log.testing import a_life, a_run, an_event

from .adapters import every_adapter
from .harness import Harness, save

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
PATIENCE = 180.0
WORKFLOWS = 8
RUNS = 150
"""Of each workflow: in all of them more than anything keeps, in one no more than memory does."""


async def following(watch: RunWatch, count: int) -> list[RunUpdate]:
    """Return that many updates, as they come."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(watch) for _ in range(count)]


async def until_final(watch: RunWatch, events: Sequence[RunEvent]) -> list[RunUpdate]:
    """Return the updates until each run has come as the newest of its *events* left it."""
    missing = {event.key: event.version for event in sorted(events, key=lambda event: event.version)}
    updates: list[RunUpdate] = []
    async with asyncio.timeout(PATIENCE):
        while missing:
            update = await anext(watch)
            updates.append(update)
            if missing.get(update.run.key) == update.version:
                del missing[update.run.key]
    return updates


async def nothing_more(harness: Harness, watch: RunWatch, workflow_id: str = "w") -> None:
    """See that nothing comes but one more change, made here."""
    run = a_run(workflow_id=workflow_id, id="the end", started_at=NOON)
    await save(harness, run)

    (update,) = await following(watch, 1)

    assert run == update.run


def states(updates: Sequence[RunUpdate]) -> list[tuple[RunKey, RunStatus]]:
    """Return which runs *updates* are of, and their statuses."""
    return [(update.run.key, update.run.status) for update in updates]


def assert_sound(updates: Sequence[RunUpdate]) -> None:
    """See that no run goes back, and that nothing comes twice."""
    newest: dict[RunKey, Version] = {}
    for update in updates:
        assert update.run.key not in newest or newest[update.run.key] < update.version, update
        newest[update.run.key] = update.version
    assert len(updates) == len({update.cursor for update in updates})


async def store_many(store: ProjectionStore, status: RunStatus) -> list[RunEvent]:
    """Have all runs of all workflows come to a status; return the events."""
    events = [
        an_event(workflow_id=f"w{workflow}", id=f"r{number}", status=status, started_at=NOON)
        for workflow in range(WORKFLOWS)
        for number in range(RUNS)
    ]
    for workflow in range(WORKFLOWS):
        await store.apply(events[workflow * RUNS : (workflow + 1) * RUNS])
    return events


@every_adapter
async def test_it_begins_now(harness: Harness, service: RunLog) -> None:
    """A watch tells of what changes after it was entered, and of nothing before."""
    await save(harness, a_run(workflow_id="w", id="before"))
    run = a_run(workflow_id="w", id="r", started_at=NOON, result={"lines": 128})

    async with service.watch() as watch:
        await save(harness, run)
        (update,) = await following(watch, 1)
        await nothing_more(harness, watch)

    assert run == update.run
    assert [update.version] == [line.version for line in await service.get_history("w", "r")]


async def test_it_need_not_be_entered(harness: Harness, service: RunLog) -> None:
    """A watch that is iterated as it is begins where its first update is asked for."""
    watch = service.watch("w")
    first = asyncio.ensure_future(anext(watch))
    number = 0
    async with asyncio.timeout(PATIENCE):
        while not first.done():
            number += 1
            await save(harness, a_run(workflow_id="w", id="r", result={"number": number}))
            await asyncio.wait([first], timeout=0.05)

    async with aclosing(watch):
        assert ("w", "r") == (await first).run.key


@pytest.mark.parametrize("workflow_id", [None, "w/x"])
async def test_each_change_comes_once(harness: Harness, service: RunLog, workflow_id: str | None) -> None:
    """Each change comes once, a run's in order; of one workflow, or of all."""
    keys = [(workflow, f"r{number}") for number in range(3) for workflow in ("w", "w/x", "v")]
    expected: list[tuple[RunKey, RunStatus]] = []

    async with service.watch(workflow_id) as watch:
        updates: list[RunUpdate] = []
        for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.SUCCESS):
            await harness.store.apply([an_event(workflow_id=w, id=r, status=status) for w, r in keys])
            told = [(key, status) for key in keys if workflow_id in (None, key[0])]
            expected += told
            updates += await following(watch, len(told))
        await nothing_more(harness, watch, workflow_id or "w")

    assert sorted(expected) == sorted(states(updates))
    assert_sound(updates)


async def test_duplicates_wake_nobody(harness: Harness, service: RunLog) -> None:
    """Events that change nothing bring no update."""
    life = a_life("w", "r")

    async with service.watch("w") as watch:
        await harness.store.apply(life)
        (update,) = await following(watch, 1)
        await harness.store.apply(life[::-1])
        await harness.store.apply(life[:1])
        await nothing_more(harness, watch)

    assert (life[1].run, life[1].version) == (update.run, update.version)


async def test_history_alone_is_a_change(harness: Harness, service: RunLog) -> None:
    """An older event that arrives late, and joins only the history, brings the state that holds."""
    early, late = a_life("w", "r")

    async with service.watch("w") as watch:
        await harness.store.apply([late])
        await following(watch, 1)
        await harness.store.apply([early])
        (update,) = await following(watch, 1)

    assert (late.run, late.version) == (update.run, update.version)


@pytest.mark.parametrize("workflow_id", [None, "w1"])
async def test_each_cursor_goes_on(harness: Harness, service: RunLog, workflow_id: str | None) -> None:
    """Each update's cursor brings exactly what came after it."""
    keys = [(f"w{number % 2}", f"r{number}") for number in range(6)]
    async with service.watch(workflow_id) as watch:
        for number in range(2):
            for key in keys:
                await save(harness, _numbered(key, number))
        mine = [key for key in keys if workflow_id in (None, key[0])]
        updates = await following(watch, len(mine))
        while {update.run.key: update.run for update in updates} != {key: _numbered(key, 1) for key in mine}:
            updates += await following(watch, 1)
    final = {update.run.key: update for update in updates}

    for index, update in enumerate(updates):
        rest = [later for later in updates[index + 1 :] if final[later.run.key] is later]
        async with service.watch(workflow_id, since_cursor=update.cursor) as watch:
            again = await following(watch, len(rest))
            # The walk of a watch that is behind may come by another order.
            assert sorted((one.run.key, one.version) for one in rest) == sorted(
                (one.run.key, one.version) for one in again
            )
    async with service.watch(workflow_id, since_cursor=updates[-1].cursor) as watch:
        await nothing_more(harness, watch, "w1")


async def test_what_changed_meanwhile_comes(harness: Harness, service: RunLog) -> None:
    """A watch that goes on after many changes, while more are made, misses none and repeats none."""
    async with service.watch() as watch:
        await save(harness, a_run(workflow_id="w", id="r"))
        (first,) = await following(watch, 1)
    await store_many(harness.store, RunStatus.RUNNING)

    more = asyncio.create_task(store_many(harness.store, RunStatus.SUCCESS))
    updates = [first]
    cursor = first.cursor
    for count in (1, 7, 99, 100, 101, 250):  # leaving in the middle of pages, and between them
        async with service.watch(since_cursor=cursor) as watch:
            updates += await following(watch, count)
            cursor = updates[-1].cursor
    async with service.watch(since_cursor=cursor) as watch:
        events = await more
        done = {update.run.key for update in updates if update.run.status is RunStatus.SUCCESS}
        updates += await until_final(watch, [event for event in events if event.key not in done])
        await nothing_more(harness, watch)

    assert_sound(updates)
    final = {update.run.key: update.run for update in updates[1:]}
    assert {event.key: event.run for event in events} == {**final}


async def test_a_slow_consumer_sees_how_all_ended(harness: Harness, service: RunLog) -> None:
    """A consumer slower than more changes than are kept sees how each run ended, each state once at most."""
    async with service.watch() as watch:
        events = [
            event
            for status in (RunStatus.RUNNING, RunStatus.SUCCESS)
            for event in await store_many(harness.store, status)
        ]
        updates = await until_final(watch, events)
        await nothing_more(harness, watch)

    assert_sound(updates)


async def test_many_watch_at_once(harness: Harness, service: RunLog) -> None:
    """Each of many watches gets every change, however fast the others take theirs."""
    events = [an_event(workflow_id=f"w{number % 2}", id=f"r{number}") for number in range(10)]
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        entered = asyncio.Barrier(21)

        async def follow(workflow_id: str | None) -> None:
            own = [event for event in events if workflow_id in (None, event.run.workflow_id)]
            async with service.watch(workflow_id) as watch:
                await entered.wait()
                updates = await until_final(watch, own)
            assert len(own) == len(updates)

        for number in range(20):
            group.create_task(follow(None if number % 2 else f"w{number // 2 % 2}"))
        await entered.wait()
        await harness.store.apply(events)


async def test_a_foreign_cursor_is_refused(harness: Harness, service: RunLog) -> None:
    """A cursor that is malformed, of a watch of other runs or of a listing is an error."""
    async with service.watch("w") as watch:
        await save(harness, a_run(workflow_id="w", id="r"), a_run(workflow_id="w", id="r2"))
        (update,) = await following(watch, 1)
    _, of_runs = await service.list_runs("w", limit=1)

    assert update.cursor == update.cursor.strip("=")
    for bad in ("", 5, of_runs, update.cursor[:-1], update.cursor + "A"):
        with pytest.raises(InvalidCursorError):
            service.watch("w", since_cursor=bad)
    for workflow_id in (None, "w2"):
        with pytest.raises(InvalidCursorError, match="another listing"):
            service.watch(workflow_id, since_cursor=update.cursor)


async def test_unreadable_runs_are_passed_over(harness: Harness, service: RunLog) -> None:
    """A run that cannot be read comes no more, and does not hold up the others."""
    async with service.watch("w") as watch:
        await save(harness, a_run(workflow_id="w", id="r"))
        (first,) = await following(watch, 1)
    await harness.plant_unreadable("w", NOON)

    async with service.watch("w", since_cursor=first.cursor) as watch:
        await nothing_more(harness, watch)


async def test_a_wait_that_is_cancelled_loses_nothing(harness: Harness, service: RunLog) -> None:
    """A wait that runs into a time limit ends nothing: the next one has what came meanwhile."""
    async with service.watch("w") as watch:
        for number in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(watch)
            await save(harness, a_run(workflow_id="w", id=f"r{number}"))

            assert [f"r{number}"] == [update.run.id for update in await following(watch, 1)]


async def test_closing_ends_a_wait(service: RunLog) -> None:
    """Closing a watch ends at once the iteration that waits in another task, and any after it."""
    watch = service.watch()
    async with watch:
        waiting = asyncio.create_task(_rest(watch))
        await asyncio.sleep(0)
        await watch.aclose()
        async with asyncio.timeout(PATIENCE):
            assert [] == await waiting
    await watch.aclose()

    assert [] == await _rest(watch)
    async with service.watch() as unused:
        pass
    assert [] == await _rest(unused)
    never_opened = service.watch()
    await never_opened.aclose()
    assert [] == await _rest(never_opened)


async def test_cancelling_leaves_nothing_behind(service: RunLog) -> None:
    """A task that is cancelled while it watches ends, and leaves no task behind."""
    before = asyncio.all_tasks()

    async def follow() -> None:
        async with service.watch() as watch, service.watch("w") as other:
            entered.set()
            await asyncio.gather(anext(watch), anext(other))

    entered = asyncio.Event()
    task = asyncio.create_task(follow())
    async with asyncio.timeout(PATIENCE):
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left)


async def test_one_task_at_a_time(service: RunLog) -> None:
    """A second task that waits for the same watch's next update is told to open its own."""
    async with service.watch() as watch:
        waiting = asyncio.create_task(_rest(watch))
        await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match="open one for each task"):
            await anext(watch)
    assert [] == await waiting


async def test_closing_while_it_opens(service: RunLog) -> None:
    """A watch that is closed while another task opens it ends without an update, and leaves no task."""
    before = asyncio.all_tasks()
    watch = service.watch()
    opening = asyncio.create_task(_rest(watch))
    await asyncio.sleep(0)
    await watch.aclose()

    async with asyncio.timeout(PATIENCE):
        assert [] == await opening
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left)


@every_adapter
async def test_closing_the_service_ends_watches(service: RunLog) -> None:
    """Closing the service ends the iteration of each of its watches."""
    watches = [service.watch(workflow_id) for workflow_id in (None, "w", "v")]
    for watch in watches:
        await watch.__aenter__()
    waiting = [asyncio.create_task(_rest(watch)) for watch in watches]
    await asyncio.sleep(0)

    await service.close()

    async with asyncio.timeout(PATIENCE):
        assert [[], [], []] == [await task for task in waiting]
    assert [] == await _rest(watches[0])


async def test_abandoned_watches_are_let_go(harness: Harness, service: RunLog) -> None:
    """A watch that nobody closed or holds any more is let go of, and others go on."""
    async with service.watch("w") as kept:
        for _ in range(3):
            await service.watch().__aenter__()
        await nothing_more(harness, kept)


@pytest.mark.parametrize("workflow_id", [None, "w"])
async def test_a_watch_begins_where_a_cursor_was_taken(
    harness: Harness, service: RunLog, workflow_id: str | None
) -> None:
    """What changes after a cursor was taken comes, whenever it is watched; what was there before does not."""
    first = await service.get_watch_cursor(workflow_id)
    for number in range(3):
        await save(harness, _numbered(("w", f"r{number}"), number))
    second = await service.get_watch_cursor(workflow_id)
    await save(harness, _numbered(("w", "last"), 3))

    for cursor, expected in ((first, ["r0", "r1", "r2", "last"]), (second, ["last"])):
        async with service.watch(workflow_id, since_cursor=cursor) as watch:
            assert expected == [update.run.id for update in await following(watch, len(expected))]


async def test_a_cursor_of_now_is_of_its_watch(service: RunLog) -> None:
    """A cursor that was taken for one workflow is no cursor of all."""
    cursor = await service.get_watch_cursor("w")

    with pytest.raises(InvalidCursorError):
        service.watch(None, since_cursor=cursor)


@pytest.mark.parametrize("seed", range(3))
async def test_any_disconnects_lose_and_repeat_nothing(harness: Harness, service: RunLog, seed: int) -> None:
    """A watch resumed from a cursor goes on without a gap or a repeat."""
    chance = random.Random(seed)
    events: list[RunEvent] = []
    updates: list[RunUpdate] = []
    watch = service.watch()
    await watch.__aenter__()
    await harness.store.apply([event := _random_event(chance, 0)])
    events.append(event)
    for step in range(1, 60):
        match chance.choice(["write", "write", "read", "leave"]):
            case "write":
                batch = [_random_event(chance, step * 100 + n) for n in range(chance.randint(1, 12))]
                await harness.store.apply(batch)
                events += batch
            case "read":
                try:
                    async with asyncio.timeout(chance.choice([0, 0.01, 0.2])):
                        for _ in range(chance.randint(1, 10)):
                            updates.append(await anext(watch))  # noqa: PERF401 - what came counts
                except TimeoutError:
                    pass
            case _ if updates:
                await watch.aclose()
                watch = service.watch(since_cursor=updates[-1].cursor)
                if chance.random() < 0.5:
                    await watch.__aenter__()
            case _:
                pass
    newest = {event.key: event for event in sorted(events, key=lambda event: event.version)}
    seen = {update.run.key: update.version for update in updates}
    async with watch:
        left = [event for key, event in newest.items() if seen.get(key) != event.version]
        updates += await until_final(watch, left)
        await nothing_more(harness, watch)

    assert_sound(updates)
    assert {key: event.run for key, event in newest.items()} == {
        update.run.key: update.run for update in updates
    }


def _numbered(key: RunKey, number: int) -> WorkflowRun:
    return a_run(workflow_id=key[0], id=key[1], started_at=NOON, result={"number": number})


def _random_event(chance: random.Random, hlc: int) -> RunEvent:
    return an_event(
        workflow_id=f"w{chance.randrange(3)}",
        id=f"r{chance.randrange(12)}",
        status=chance.choice(list(RunStatus)),
        started_at=NOON,
        result={"hlc": hlc},
        hlc=hlc,
    )


async def _rest(watch: RunWatch) -> list[RunUpdate]:
    return [update async for update in watch]
