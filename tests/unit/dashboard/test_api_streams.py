"""Changes as a client of the API is told of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from typing_extensions import override

from run_log.core import RunStatus, StoreError, StoreUnavailableError, WorkflowRun
from run_log.dashboard.streams import Changes, Seen, StreamTimes, Subscription
from run_log.stores import InMemoryRunLogService, RunLogService, RunUpdate
from run_log.stores.watch import UpdateSource
from run_log.testing import a_run

from .api import opened_api, problem_of
from .streaming import PATIENCE, WATCH, app_of, streaming

SOON = timedelta(milliseconds=10)


def run_of(number: int, workflow_id: str = "w", status: RunStatus = RunStatus.RUNNING) -> WorkflowRun:
    """Return a run."""
    return a_run(workflow_id=workflow_id, id=f"{number}", status=status)


async def ids(updates: Subscription, count: int) -> list[str]:
    """Return the ids of the runs of the next updates."""
    found: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += [seen.update.run.id for seen in await updates.more()]
    return found


class GatedSource(UpdateSource):
    """What another source has, once the gate is open, or the error that it is shut with."""

    def __init__(self, source: UpdateSource, gate: asyncio.Future[None]) -> None:
        self._source = source
        self._gate = gate
        self.asked = 0

    @override
    async def open(self) -> None:
        await self._source.open()

    @override
    def take(self) -> RunUpdate | None:
        return self._source.take() if self._gate.done() else None

    @override
    async def more(self) -> None:
        self.asked += 1
        await asyncio.shield(self._gate)
        await self._source.more()


class GatedLog(InMemoryRunLogService):
    """Watches through gates."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sources: list[GatedSource] = []

    @override
    def updates(self, workflow_id: str | None, cursor: object, selection: str) -> Any:
        self.sources.append(GatedSource(super().updates(workflow_id, cursor, selection), self.gate))
        return self.sources[-1]


class CountedLog(InMemoryRunLogService):
    """Counts its watches."""

    def __init__(self) -> None:
        super().__init__()
        self.watches = 0

    @override
    def updates(self, workflow_id: str | None, cursor: object, selection: str) -> Any:
        self.watches += 1
        return super().updates(workflow_id, cursor, selection)


async def test_a_change_is_told_as_the_library_tells_it(log: RunLogService) -> None:
    """An event is the library's update, and its id is the update's cursor."""
    async with streaming(app_of(log)) as stream:
        begun = await stream.next()
        await log.save_run(run_of(1))
        event = await stream.event()

    assert 200 == await stream.status
    assert {"retry", "id"} == begun.fields.keys()
    async with log.watch(None, since_cursor=begun.id) as updates:
        assert (await anext(updates)).to_json() == event.json
    assert event.json["cursor"] == event.id


async def test_who_is_cut_off_misses_nothing(log: RunLogService) -> None:
    """A client goes on where it was cut off, before the first event, between two, and by a parameter too."""
    app = app_of(log)
    async with streaming(app) as stream:
        begun = (await stream.next()).id
    for number in range(3):
        await log.save_run(run_of(number))

    async with streaming(app, last_event_id=begun, cursor="is of no concern") as stream:
        first = await stream.event()
    async with streaming(app, cursor=first.id) as stream:
        rest = [(await stream.event()).json["id"] for _ in range(2)]

    assert ("0", ["1", "2"]) == (first.json["id"], rest)


async def test_another_server_goes_on(log: RunLogService) -> None:
    """What one server has told another one goes on after, also once it is told itself."""
    async with streaming(app_of(log)) as stream:
        begun = (await stream.next()).id
        await log.save_run(run_of(1))
        told = await stream.event()
    other = app_of(log)

    async with streaming(other) as first, streaming(other, cursor=begun) as second:
        await first.next()
        assert told.json == (await second.event()).json
        for number in (2, 3):
            await log.save_run(run_of(number))
            assert str(number) == (await second.event()).json["id"] == (await first.event()).json["id"]


async def test_one_workflow_is_watched(log: RunLogService) -> None:
    """With a workflow, no other is told of, and the cursor moves past the others all the same."""
    app = app_of(log, StreamTimes(keep_alive=SOON))
    async with streaming(app, workflow_id="a/b") as stream:
        await stream.next()
        await log.save_run(run_of(1, "w"))
        while "id" not in (alive := await stream.next()).fields:
            pass
        await log.save_run(run_of(2, "a/b"))
        event = await stream.event()

    assert {"id"} == alive.fields.keys()
    assert ("a/b", "2") == (event.json["workflow_id"], event.json["id"])
    async with streaming(app, last_event_id=alive.id) as stream:
        assert "2" == (await stream.event()).json["id"]


async def test_silence_is_broken(log: RunLogService) -> None:
    """Where nothing changes there is a comment now and then."""
    async with streaming(app_of(log, StreamTimes(keep_alive=SOON))) as stream:
        await stream.next()

        assert [{":": ""}] * 2 == [(await stream.next()).fields for _ in range(2)]


async def test_a_stream_ends(log: RunLogService) -> None:
    """After its time a stream says that it ends, and where to go on."""
    async with streaming(app_of(log, StreamTimes(longest=timedelta(0)))) as stream:
        begun = await stream.next()
        last = await stream.event()
        with pytest.raises(EOFError):
            await stream.next()

    assert {"event": "end", "id": begun.id, "data": "{}"} == last.fields


async def test_a_stream_ends_with_its_run_log(log: RunLogService) -> None:
    """Where the run log is closed its streams end without an error, those that are behind too."""
    old = await log.get_watch_cursor()
    await log.save_run(run_of(1))
    app = app_of(log)
    async with streaming(app) as stream, streaming(app, cursor=old) as behind:
        await stream.next()
        await behind.event()
        await log.close()

        for each in (stream, behind):
            with pytest.raises(EOFError):
                await each.next()


@pytest.mark.parametrize("cursor", ["nonsense", "of another watch", "of another store"])
async def test_a_cursor_of_something_else_is_refused(cursor: str, log: RunLogService) -> None:
    """What is no cursor, or one of something else, is refused before a stream begins."""
    cursors = {
        "of another watch": await log.get_watch_cursor("w"),
        "of another store": await InMemoryRunLogService().get_watch_cursor(),
    }
    async with opened_api(log) as api:
        response = await api.get(WATCH.removeprefix("/api/v1"), {"cursor": cursors.get(cursor, cursor)})

    assert "urn:run-log:problem:invalid-cursor" == problem_of(response, 400)["type"]


async def test_all_look_through_one_watch() -> None:
    """However many look, the run log is watched once, and an update is put into each form once."""
    log = CountedLog()
    changes = Changes(lambda: log)
    forms: list[str] = []

    def form(update: RunUpdate) -> bytes:
        forms.append(update.run.id)
        return b""

    many = [await changes.since(None) for _ in range(20)]
    await log.save_run(run_of(1))
    for one in many:
        for seen in await one.more():
            seen.as_form(form)
    late = await changes.since(many[0].cursor)
    await log.save_run(run_of(2))

    assert ["2"] == await ids(late, 1)
    assert (1, ["1"]) == (log.watches, forms)
    for one in (*many, late):
        await one.close()


async def test_the_watch_goes_with_who_looks(log: RunLogService) -> None:
    """Once nobody looks any more the watch is let go of, and the next one begins another."""
    changes = Changes(lambda: log, linger=0)
    first = await changes.since(None)
    place = await changes.cursor()
    reading = changes._feed()._reading  # pyright: ignore[reportPrivateUsage] - nobody else knows that it is gone
    assert reading is not None
    await first.close()
    await asyncio.wait([reading])
    await log.save_run(run_of(1))

    again = await changes.since(place)

    assert place != await changes.cursor()
    assert ["1"] == await ids(again, 1)
    await again.close()


@pytest.mark.parametrize("is_behind", [False, True])
async def test_the_watch_goes_with_a_client_that_goes(*, is_behind: bool, log: RunLogService) -> None:
    """Once the last client has cut its connection the watch is let go of, one that was behind too."""
    app = app_of(log, linger=0)
    begun = await log.get_watch_cursor()
    await log.save_run(run_of(1))
    async with streaming(app, **({"cursor": begun} if is_behind else {})) as stream:
        await stream.next()
        feed = app.state.context.changes._feed()
        reading = feed._reading

    async with asyncio.timeout(PATIENCE):
        await asyncio.wait([reading])
    assert not feed.is_running


async def test_many_filters_hold_little(log: RunLogService) -> None:
    """However many forms an update is put into, only so many are kept."""
    async with log.watch(None, since_cursor=await log.get_watch_cursor()) as updates:
        await log.save_run(run_of(1))
        seen = Seen(await anext(updates))

    def numbered(number: int, update: RunUpdate) -> bytes:
        return f"{update.run.id} {number}".encode()

    for number in range(100):
        assert f"1 {number}".encode() == seen.as_form(partial(numbered, number))

    assert 16 == len(seen._forms)  # pyright: ignore[reportPrivateUsage] - what is held


async def test_who_reads_slowly_holds_nothing(log: RunLogService) -> None:
    """Only so many updates are kept for who does not read; the rest is read from the run log."""
    changes = Changes(lambda: log, kept=5)
    slow, quick = await changes.since(None), await changes.since(None)
    for number in range(20):
        await log.save_run(run_of(number))
        assert [str(number)] == await ids(quick, 1)

    kept = changes._feed()._kept  # pyright: ignore[reportPrivateUsage] - what is held
    assert 5 == len(kept)
    assert [str(number) for number in range(20)] == await ids(slow, 20)
    await slow.close()
    await quick.close()


async def test_a_slow_store_is_waited_for() -> None:
    """However long a store takes, what is asked of it is asked once, and silence is broken meanwhile."""
    log = GatedLog()
    old = await log.get_watch_cursor()
    await log.save_run(run_of(1))
    async with streaming(app_of(log, StreamTimes(keep_alive=SOON)), cursor=old) as stream:
        for _ in range(5):
            await stream.next()
        log.gate.set_result(None)

        assert "1" == (await stream.event()).json["id"]
    assert [1, 1] == [source.asked for source in log.sources]


async def test_a_watch_that_fails_ends_its_streams() -> None:
    """Where the store refuses to be watched any more, streams end, and the next one tries again."""
    log = GatedLog()
    app = app_of(log)
    async with streaming(app) as stream:
        await stream.next()
        log.gate.set_exception(StoreError("refused"))
        with pytest.raises(EOFError):
            await stream.event()
    log.gate = asyncio.get_running_loop().create_future()
    log.gate.set_result(None)
    async with streaming(app) as stream:
        await stream.next()
        await log.save_run(run_of(1))

        assert "1" == (await stream.event()).json["id"]


async def test_a_store_that_is_away_is_told_at_once() -> None:
    """Where the store does not answer, no stream begins: the client is told to come again."""

    class Away(InMemoryRunLogService):
        @override
        async def read_place(self, selection: str) -> str:
            raise StoreUnavailableError("away")

    async with opened_api(Away()) as api:
        problem_of(await api.get(WATCH.removeprefix("/api/v1")), 503)
