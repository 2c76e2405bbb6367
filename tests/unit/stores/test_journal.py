"""The order in which memory's runs changed, and who is woken by a change."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from run_log.core import InvalidCursorError, RunStatus
from run_log.core.models import RunKey
from run_log.stores import InMemoryRunLogService, RunUpdate
from run_log.stores.memory._journal import Bell, Journal
from run_log.stores.memory._service import MAX_RUNS
from run_log.testing import a_run, an_event

PATIENCE = 60.0

FORKED = """
import asyncio, os, sys
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run

service = InMemoryRunLogService()

async def see_own(name):
    async with service.watch("w") as watch, asyncio.timeout(30):
        await service.save_run(a_run(workflow_id="w", id=name))
        assert name == (await anext(watch)).run.id

async def main():
    async with service.watch("w") as watch, asyncio.timeout(30):
        waiting = asyncio.create_task(anext(watch))
        await asyncio.sleep(0)
        child = os.fork()
        if not child:
            asyncio._set_running_loop(None)
            try:
                asyncio.run(see_own("child"))
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert not status and not waiting.done()
        await service.save_run(a_run(workflow_id="w", id="parent"))
        assert "parent" == (await waiting).run.id

asyncio.run(main())
"""


def test_the_newest_change_of_each_run() -> None:
    """After any number come the runs that changed since, each where it changed last, in order."""
    newest: dict[RunKey, int] = {}
    journal = Journal(lambda key: newest.get(key, 0))
    for run_id in "abcab":
        newest["w", run_id] = journal.add(("w", run_id))

    assert (3, ("w", "c")) == journal.after(0, None) == journal.after(2, "w")
    assert (4, ("w", "a")) == journal.after(3, "w")
    assert journal.after(3, "v") is None
    assert journal.after(journal.last, None) is None


def test_what_is_superseded_goes() -> None:
    """A journal holds no more than a few times as many entries as there are runs."""
    newest: dict[RunKey, int] = {}
    journal = Journal(lambda key: newest.get(key, 0))
    for number in range(100_000):
        key = ("w", f"r{number % 10}")
        newest[key] = journal.add(key)

    found: list[str] = []
    place = 0
    while (entry := journal.after(place, None)) is not None:
        place = entry[0]
        found.append(entry[1][1])
    assert [f"r{number}" for number in range(10)] == found
    assert 2_000 > len(journal)


async def test_the_evicted_come_no_more() -> None:
    """A watch that is behind sees the runs that are still kept, each once, and then the next change."""
    service = InMemoryRunLogService()
    async with service.watch() as watch:
        events = [an_event(workflow_id="w", id=f"r{number}") for number in range(3 * MAX_RUNS)]
        await service.apply(events)
        listed, _ = await service.list_runs("w", limit=1_000)
        updates = [await anext(watch) for _ in range(MAX_RUNS)]
        await service.apply([an_event(workflow_id="v", id="the end")])

        assert "the end" == (await anext(watch)).run.id

    assert {run.key for run in listed} == {update.run.key for update in updates}


async def test_history_of_the_evicted_is_no_change() -> None:
    """An event that joins only the history of an evicted run wakes nobody."""
    service = InMemoryRunLogService()
    await service.apply([an_event(workflow_id="w", id="r", status=RunStatus.SUCCESS, hlc=9)])
    await service.apply([an_event(workflow_id="w", id=f"r{number}") for number in range(MAX_RUNS)])
    async with service.watch() as watch:
        await service.apply([an_event(workflow_id="w", id="r", hlc=1)])
        await service.apply([an_event(workflow_id="v", id="the end")])

        assert "the end" == (await anext(watch)).run.id


async def test_a_store_that_is_gone() -> None:
    """A cursor of another store in memory is refused, and the error says how to begin anew."""
    service = InMemoryRunLogService()
    async with service.watch() as watch:
        await service.save_run(a_run())
        cursor = (await anext(watch)).cursor

    with pytest.raises(InvalidCursorError, match="watch without a cursor"):
        InMemoryRunLogService().watch(since_cursor=cursor)


async def test_event_loops_of_their_own() -> None:
    """Watches in several event loops all see each change; closing the service ends them all."""
    service = InMemoryRunLogService()
    found: list[list[RunUpdate]] = []
    entered, seen = threading.Barrier(4), threading.Barrier(4)

    async def follow() -> None:
        async with service.watch() as watch:
            await asyncio.to_thread(entered.wait, PATIENCE)
            updates = [await anext(watch)]
            await asyncio.to_thread(seen.wait, PATIENCE)
            found.append(updates + [update async for update in watch])

    threads = [threading.Thread(target=lambda: asyncio.run(follow())) for _ in range(3)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(entered.wait, PATIENCE)
    await service.save_run(a_run(id="r"))
    await asyncio.to_thread(seen.wait, PATIENCE)
    await service.close()
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE)

    assert [["r"]] * 3 == [[update.run.id for update in updates] for updates in found]


def test_who_waited_in_a_closed_event_loop() -> None:
    """Whoever waited in an event loop that is closed hinders nobody."""
    bell = Bell()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(bell.wait(unless=lambda: False))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    bell.ring()

    assert not waiting.done()
    waiting.get_coro().close()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.process
def test_a_forked_child_watches_by_itself() -> None:
    """A forked child's watches see its own changes, and wake nobody in its parent."""
    ended = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", FORKED], capture_output=True, text=True, check=False, timeout=90
    )

    assert (0, "", "") == (ended.returncode, ended.stdout, ended.stderr)
