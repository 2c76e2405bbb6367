"""Watches of Firestore: what becomes of them when the line, the listener or memory gives out."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from run_log.core import RunEvent, StoreUnavailableError
from run_log.stores import FirestoreRunLogService, RunUpdate, RunWatch
from run_log.stores.firestore.client import Patience
from run_log.stores.firestore.watch.changes import Bounds
from run_log.testing import FirestoreEmulator, a_life, an_event

from .firestore_kit import FINAL_ERRORS, NOT_DEPLOYED, OpenService, Watch, WatchedService, vendor_error
from .tcp_proxy import TcpProxy

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

PATIENCE = 180.0
CALLS_OF_A_WATCH = ("batch_get_documents", "listen", "run_query")


Opens = Callable[..., OpenService]


@pytest.fixture
async def opens() -> AsyncIterator[Opens]:
    """Yield what makes services of one empty project."""
    async with AsyncExitStack() as opened:

        def make(*bounds: Bounds, watch: Watch | None = None) -> OpenService:
            service = OpenService(*bounds, watch=watch)
            opened.push_async_callback(service.close)
            return service

        yield make


@pytest.fixture
def service(opens: Opens) -> OpenService:
    """Return a service of that project."""
    return opens()


@pytest.fixture
def vendor(watch: Watch) -> Watch:
    """Return what sees the calls of the services that are given it."""
    return watch


def events(count: int, *, hlc: int = 0) -> list[RunEvent]:
    """Return an event of each of so many runs."""
    return [an_event(workflow_id=f"w{n % 2}", id=f"r{n}", hlc=hlc + n) for n in range(count)]


async def following(watch: RunWatch, count: int) -> list[RunUpdate]:
    """Return that many updates, as they come."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(watch) for _ in range(count)]


def versions(updates: list[RunUpdate]) -> list[Any]:
    """Return the versions of *updates*, in order of the events that brought them."""
    return sorted(update.version for update in updates)


async def only(service: FirestoreRunLogService, watch: RunWatch) -> None:
    """See that nothing comes but what is changed here."""
    event = an_event(workflow_id="w", id="the end")
    await service.apply([event])

    assert stamps([event]) == versions(await following(watch, 1))


def stamps(told: list[RunEvent], workflow_id: str | None = None) -> list[Any]:
    """Return the versions of the events of a workflow, or of all."""
    return [event.version for event in told if workflow_id in {None, event.run.workflow_id}]


async def until_nothing_is_left(before: set[Any]) -> None:
    """Wait until this event loop has no other tasks than *before*."""
    async with asyncio.timeout(PATIENCE):
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left)


async def test_a_line_that_is_cut(
    opens: Opens, firestore_emulator: FirestoreEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch whose line is cut tells, once it is mended, what changed meanwhile, each change once."""
    service = opens()
    with TcpProxy(firestore_emulator.host) as line:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", line.host)
        behind = opens()
        async with behind.watch() as watch, behind.watch("w1") as one:
            told = events(4)
            await service.apply(told)
            found = await following(watch, 4)
            for number in range(3):
                line.cut()
                more = events(6, hlc=1_000 * (number + 1))
                await service.apply(more)
                told += more
                line.heal()
                found += await following(watch, 6)
            await only(service, watch)
            of_one = await following(one, 2 + 3 * 3)

    assert stamps(told) == versions(found)
    assert stamps(told, "w1") == versions(of_one)


async def test_an_outage_while_it_is_behind(
    opens: Opens, firestore_emulator: FirestoreEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that is behind when the line is cut goes on where it was once that is mended."""
    service = opens()
    async with service.watch() as watch:
        await service.apply(events(1, hlc=7))
        (first,) = await following(watch, 1)
    more = events(40, hlc=100)
    await service.apply(more)
    with TcpProxy(firestore_emulator.host) as line:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", line.host)
        behind = opens(Bounds(page=10))
        async with behind.watch(since_cursor=first.cursor) as watch:
            found = await following(watch, 10)
            line.cut()
            waiting = asyncio.create_task(following(watch, 30))
            await asyncio.sleep(0)
            line.heal()
            found += await waiting
            await only(service, watch)

    assert stamps(more) == versions(found)


@pytest.mark.parametrize(
    "bounds", [Bounds(changes=5, page=3), Bounds(changes=1, page=1), Bounds(bytes=1, page=7)]
)
async def test_more_than_is_kept(opens: Opens, bounds: Bounds) -> None:
    """A watch that is behind what is kept in memory reads the rest, and then goes by what it is told."""
    service = opens(bounds)
    async with service.watch() as watch, service.watch("w1") as one:
        told = events(20)
        for start in range(0, 20, 4):
            await service.apply(told[start : start + 4])
        async with asyncio.timeout(PATIENCE):
            await service.feed.has_told(told[-1].key)
        found = await following(watch, 20)
        of_one = await following(one, 10)
        assert bounds.changes >= service.feed.kept
        await only(service, watch)

    assert stamps(told) == versions(found)
    assert stamps(told, "w1") == versions(of_one)


async def test_a_listener_begins_anew(opens: Opens, vendor: Watch) -> None:
    """A listener begins anew from time to time, and nobody notices."""
    service = opens(Bounds(listen_seconds=1.0), watch=vendor)
    told: list[RunEvent] = []
    found: list[RunUpdate] = []
    async with service.watch() as watch:
        while vendor.calls.count("listen") < 5:
            batch = events(3, hlc=len(told))
            await service.apply(batch)
            told += batch
            found += await following(watch, 3)
        await only(service, watch)

    assert stamps(told) == versions(found)


async def test_a_line_that_falls_silent(
    firestore_emulator: FirestoreEmulator, opens: Opens, vendor: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that hears nothing, be the line dead or nothing new, begins anew, and nobody notices."""
    service = opens()
    with TcpProxy(firestore_emulator.host) as line:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", line.host)
        behind = opens(Bounds(silent_seconds=2.0), watch=vendor)
        async with behind.watch() as watch:
            await service.apply(events(1))
            found = await following(watch, 1)
            line.black_hole()
            await service.apply(events(3, hlc=10))
            async with asyncio.timeout(PATIENCE):
                await vendor.called("listen", 3)
            line.heal()
            found += await following(watch, 3)
            await only(service, watch)

    assert 4 == len({update.version for update in found})


@pytest.mark.parametrize("responses", [0, 3])
async def test_a_response_that_cannot_be_decoded(opens: Opens, vendor: Watch, responses: int) -> None:
    """A listener's response that cannot be decoded, the first or a later one, is made good for."""
    service = opens(watch=vendor)
    vendor.garbled = 0 if responses else 2
    async with service.watch() as watch:
        told = events(4)
        await service.apply(told)
        found = await following(watch, 4)
        vendor.garbled = responses
        more = events(4, hlc=10)
        await service.apply(more)
        found += await following(watch, 4)
        await only(service, watch)

    assert versions(found) == sorted(stamps(told + more))
    assert 1 < vendor.calls.count("listen")


async def test_a_listener_that_ends_before_it_tells_anything(
    service: OpenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that the server ends before it told anything is tried again."""
    original, ended = service.feed._responses, [0, 1]  # pyright: ignore[reportPrivateUsage]

    async def ends() -> AsyncGenerator[Any]:
        if ended:
            ended.pop()
            return
        async for response in original():
            yield response

    monkeypatch.setattr(service.feed, "_responses", ends)
    async with service.watch() as watch:
        await only(service, watch)

    assert [] == ended


async def test_nothing_is_left_behind(service: OpenService) -> None:
    """With the last watch the listener goes, whatever way it ends; no thread ever was its own."""
    await service.get_stats("w")
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    async with service.watch() as one, service.watch("w0") as other:
        await service.apply(events(2))
        assert 2 == len(await following(one, 2))
        assert threads >= set(threading.enumerate())
        await one.aclose()
        assert 1 == len(await following(other, 1))
    assert not service.feed.is_listening
    await until_nothing_is_left(tasks)

    abandoned = service.watch()
    await abandoned.__aenter__()
    del abandoned
    gc.collect()
    await until_nothing_is_left(tasks)

    watch = service.watch()
    await watch.__aenter__()
    await service.close()
    await until_nothing_is_left(tasks)
    assert [] == [update async for update in watch]
    assert threads >= set(threading.enumerate())


async def test_one_listener_for_all(opens: Opens, vendor: Watch) -> None:
    """All watches of an event loop share one listener, and each change is read once for all of them."""
    service = opens(watch=vendor)
    watches = [service.watch(workflow_id) for workflow_id in (None, "w0", "w1", None)]
    for one in watches:
        await one.__aenter__()
    await service.apply(events(2))
    for one in watches:
        await following(one, 1)

    assert (1, 1) == (vendor.calls.count("listen"), vendor.calls.count("run_query"))


async def test_event_loops_of_their_own(service: OpenService) -> None:
    """Watches in several event loops of one service all see each change; closing it ends them all."""
    entered, seen, there = threading.Event(), threading.Event(), list[RunUpdate]()

    async def follow() -> None:
        async with service.watch() as watch:
            entered.set()
            async for update in watch:
                there.append(update)
                if len(there) == 3:
                    seen.set()
        await service.close()

    thread = threading.Thread(target=lambda: asyncio.run(follow()))
    thread.start()
    assert await asyncio.to_thread(entered.wait, PATIENCE)
    async with service.watch() as watch:
        told = events(3)
        await service.apply(told)
        here = await following(watch, 3)
        assert await asyncio.to_thread(seen.wait, PATIENCE)
        await service.close()
        left = [update async for update in watch]
    await asyncio.to_thread(thread.join, PATIENCE)

    assert not thread.is_alive()
    assert stamps(told) == versions(here) == versions(there)
    assert [] == left


async def test_another_root_is_not_watched(service: FirestoreRunLogService) -> None:
    """What changes below another root collection, as in a rebuild, is not told."""
    rebuilt = FirestoreRunLogService(root_collection="rebuilt")
    async with service.watch() as watch:
        await service.apply(events(1, hlc=5))
        (first,) = await following(watch, 1)
        await rebuilt.apply(events(4))
        await only(service, watch)
    async with service.watch(since_cursor=first.cursor) as watch:
        assert ["the end"] == [update.run.id for update in await following(watch, 1)]
        await only(service, watch)
    await rebuilt.close()


@pytest.mark.parametrize("late", [True, False])
async def test_a_run_stored_by_an_earlier_version(opens: Opens, *, late: bool) -> None:
    """A run that an earlier version stored comes with its next change, be that its history alone."""
    service, other = opens(), opens()
    early, newest = a_life("w", "r")
    first, then = (newest, early) if late else (early, newest)
    await service.apply([first])
    await service.forget_changes(("w", "r"))

    async with other.watch("w") as watch:
        await other.apply([then])
        (update,) = await following(watch, 1)

    assert newest.version == update.version


@pytest.mark.parametrize("name", ["ServiceUnavailable", "DeadlineExceeded", "ResourceExhausted", "Aborted"])
@pytest.mark.parametrize("call", CALLS_OF_A_WATCH)
async def test_passing_errors_are_survived(
    opens: Opens, vendor: Watch, name: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A passing error of any call is survived, without a gap or a repeat, and told once."""
    service = opens(watch=vendor)
    async with service.watch() as watch:
        await service.apply(events(2))
        (first, _) = await following(watch, 2)
    vendor.before[call] = [vendor_error(name)] * 3

    with caplog.at_level(logging.INFO, "run_log.stores"):
        async with service.watch(since_cursor=first.cursor) as watch:
            more = events(4, hlc=10)
            await service.apply(more)
            found: list[RunUpdate] = []
            while not {update.version for update in found} >= {event.version for event in more}:
                found += await following(watch, 1)
            await only(service, watch)

    assert len(found) == len({update.version for update in found})
    if call == "listen":
        assert ["run_log_listener_failed", "run_log_listener_recovered"] == [
            vars(record)["event"] for record in caplog.records if record.name == "run_log.stores"
        ]


@pytest.mark.parametrize(("error", "ours", "advice"), FINAL_ERRORS + NOT_DEPLOYED)
@pytest.mark.parametrize("call", CALLS_OF_A_WATCH)
async def test_what_somebody_has_to_mend_ends_every_watch(
    opens: Opens, vendor: Watch, call: str, error: str, ours: type[Exception], advice: str
) -> None:
    """An error that will not pass is raised by every watch, as ours, which says what to do."""
    service = opens(watch=vendor)
    theirs = vendor_error(error)
    vendor.before[call] = [theirs] * 20
    tasks = asyncio.all_tasks()

    async def follow() -> None:
        async with asyncio.timeout(PATIENCE):
            async for _ in service.watch():
                raise AssertionError

    failures = await asyncio.gather(follow(), follow(), return_exceptions=True)
    vendor.before[call].clear()

    for failure in failures:
        assert isinstance(failure, ours)
        assert advice in str(failure)
        assert theirs is failure.__cause__
    await until_nothing_is_left(tasks)
    async with service.watch() as watch:
        await only(service, watch)


async def test_a_store_that_is_away_is_told_at_once(vendor: Watch) -> None:
    """A watch cannot be entered while the store does not answer, and nothing is left of the try."""
    service = WatchedService(vendor, Patience(0))
    vendor.before["batch_get_documents"] = [vendor_error("ServiceUnavailable")]
    tasks = asyncio.all_tasks()

    with pytest.raises(StoreUnavailableError, match="is it up and reachable"):
        await service.watch().__aenter__()

    assert tasks == asyncio.all_tasks()
    await service.close()
