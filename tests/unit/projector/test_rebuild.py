from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from run_log.core import (
    ConfigurationError,
    Outcome,
    RunEvent,
    RunStatus,
    Settings,
    StoreUnavailableError,
    UnreadableRunError,
    WriteRefusedError,
    encode_event,
)
from run_log.core.law import FoldedRun, by_run, fold
from run_log.core.models import RunKey
from run_log.core.wire import EVENT_TYPE
from run_log.projector.archive import find_files
from run_log.projector.rebuild import (
    FromArchive,
    FromRoot,
    FromSubscription,
    RebuildSource,
    RebuildState,
    RebuildWork,
    RejectsFile,
    rebuild,
)
from run_log.projector.rebuild.folding import (
    rebuild_from_archive,
    rebuild_from_root,
    rebuild_from_subscription,
)
from run_log.projector.rebuild.sources import check, replay_name
from run_log.projector.rebuild.wiring import _walk_since  # pyright: ignore[reportPrivateUsage]
from run_log.stores import InMemoryRunLogService, SQLiteRunLogService
from run_log.stores.firestore import RootPage, Unreadable
from run_log.testing import InMemoryTopic, an_event

from .archives import lines, write_avro, write_gzip
from .doubles import JUNK, QUICK, ScriptedStore, WatchedSource, published


def lives(count: int) -> list[RunEvent]:
    """Return the events of so many runs, from start to end."""
    return [
        an_event(id=f"r{number:03}", workflow_id=f"w{number % 3}", status=status)
        for number in range(count)
        for status in (RunStatus.RUNNING, RunStatus.SUCCESS)
    ]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[], RebuildWork]]:
    """Return what begins a rebuild, or goes on with it, as a process does: the one before has ended then."""
    with ExitStack() as processes:

        def begun() -> RebuildWork:
            processes.close()
            state = RebuildState(tmp_path / "state", source="s", into="i")
            processes.callback(state.close)
            rejects = RejectsFile(tmp_path / "rejects", goes_on=not state.is_new)
            return RebuildWork(state, rejects, stop=asyncio.Event())

        yield begun


async def totals(store: InMemoryRunLogService | SQLiteRunLogService) -> dict[str, int]:
    """Return how many runs each workflow has."""
    workflows, _ = await store.list_workflows()
    return {stats.workflow_id: stats.total for stats in workflows}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return the folder of an archive of 60 runs, in all forms, with repeats and in no order."""
    folder = tmp_path / "archive"
    folder.mkdir()
    events = lives(60)
    random.Random(1).shuffle(events)
    (folder / "a.jsonl").write_bytes(lines(events[:50]))
    write_gzip(folder / "b.jsonl.gz", lines(events[40:80]))
    write_avro(folder / "c", [encode_event(event) for event in events[80:]])
    return folder


async def test_an_archive_is_folded(archive: Path, begin: Callable[[], RebuildWork]) -> None:
    """A rebuild folds every event of every file, whatever order and form; repeats change nothing."""
    store = InMemoryRunLogService()
    work = begin()

    complete = await rebuild_from_archive(find_files(str(archive)), store, work)

    assert complete
    assert {"w0": 20, "w1": 20, "w2": 20} == await totals(store)
    assert (130, 0, (3, 3)) == (work.events, len(work.rejects), work.files)
    runs, _ = await store.list_runs("w1")
    assert {RunStatus.SUCCESS} == {run.status for run in runs}


async def test_a_folded_archive_is_left_alone(archive: Path, begin: Callable[[], RebuildWork]) -> None:
    """A rebuild that is complete folds nothing again; files that have come since are folded."""
    store = ScriptedStore()
    work = begin()
    await rebuild_from_archive(find_files(str(archive)), store, work)
    calls = store.calls

    again = begin()
    assert await rebuild_from_archive(find_files(str(archive)), store, again)
    assert (calls, 130, 0) == (store.calls, again.events, again.folded)

    (archive / "d").write_bytes(lines([an_event(workflow_id="w0", id="new")]))
    later = begin()
    assert await rebuild_from_archive(find_files(str(archive)), store, later)
    assert (131, 1, (4, 4)) == (later.events, later.folded, later.files)
    assert 21 == (await totals(store))["w0"]


async def test_what_is_no_event_is_rejected(tmp_path: Path, begin: Callable[[], RebuildWork]) -> None:
    """What is no event is kept with its file and line and why, counted, and stops nothing."""
    (tmp_path / "archive").mkdir()
    path = tmp_path / "archive" / "a"
    bodies = [
        b"junk",
        b'{"type":"somebody.elses"}',
        b'{"type":"run-log.run-state.v99"}',
        f'{{"type":"{EVENT_TYPE}"}}'.encode(),
    ]
    path.write_bytes(b"".join(body + b"\n" for body in bodies) + lines(lives(2))[:-9])
    store = InMemoryRunLogService()
    work = begin()

    complete = await rebuild_from_archive(find_files(str(path)), store, work)

    assert complete
    assert (3, 5) == (work.events, len(work.rejects))
    kept = (tmp_path / "rejects").read_text().splitlines()
    reasons = [
        "undecodable",
        "unknown_type",
        "unsupported_version",
        "invalid_event",
        "undecodable",
    ]
    for number, reason in zip((1, 2, 3, 4, 8), reasons, strict=True):
        assert any(f'{path}:{number}", "reason": "{reason}"' in line for line in kept)
    assert {"w0": 1, "w1": 1} == await totals(store)


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("away"), ConfigurationError("none")], ids=["away", "none"]
)
async def test_a_store_that_fails(error: Exception, tmp_path: Path, begin: Callable[[], RebuildWork]) -> None:
    """A rebuild waits for a store that is away, ends without one, and loses nothing when it goes on.

    What the store never takes is rejected alone.
    """
    (tmp_path / "a").write_bytes(lines(lives(5)))
    store = ScriptedStore([error], refuses=lambda event: event.run.id == "r002")
    files = find_files(str(tmp_path / "a"))
    if isinstance(error, ConfigurationError):
        with pytest.raises(ConfigurationError):
            await rebuild_from_archive(files, store, begin())
    work = begin()

    assert await rebuild_from_archive(files, store, work)

    assert (8, 2) == (work.events, len(work.rejects))
    assert 4 == sum((await totals(store)).values())
    assert '"write_refused"' in (tmp_path / "rejects").read_text()


async def test_a_stop_and_another_process(archive: Path, begin: Callable[[], RebuildWork]) -> None:
    """Stopped in the middle, a rebuild says that it is not complete; the next one folds what is left."""
    store = ScriptedStore()
    store.gate.clear()
    work = begin()
    working = asyncio.create_task(rebuild_from_archive(find_files(str(archive)), store, work))
    await store.entered.wait()
    work.stop.set()
    store.gate.set()
    stopped = await working
    done = work.events

    rest = begin()
    complete = await rebuild_from_archive(find_files(str(archive)), store, rest)

    assert (False, True) == (stopped, complete)
    assert 130 - done <= rest.folded <= 130
    assert {"w0": 20, "w1": 20, "w2": 20} == await totals(store)


async def test_a_state_that_fails(archive: Path, begin: Callable[[], RebuildWork]) -> None:
    """Where it cannot be noted how far it is, a rebuild ends with that error and does not go on."""
    work = begin()
    work.state.file.close()
    work.state.file = work.state.path.open("rb", buffering=0)

    with pytest.raises(StoreUnavailableError, match="state cannot be written"):
        await rebuild_from_archive(find_files(str(archive)), InMemoryRunLogService(), work)


async def test_a_subscription_is_folded(begin: Callable[[], RebuildWork]) -> None:
    """A rebuild folds what a subscription delivers until it is idle; what is no event is rejected."""
    store = InMemoryRunLogService()
    source = WatchedSource(published(*lives(30), JUNK))
    work = begin()

    complete = await rebuild_from_subscription(source, store, work, until_idle=0.1, limits=QUICK)

    assert complete
    assert (60, 1) == (work.events, len(work.rejects))
    assert 30 == sum((await totals(store)).values())
    assert 61 == len(source.acknowledged)


async def test_a_stopped_subscription(begin: Callable[[], RebuildWork]) -> None:
    """Stopped, a rebuild from a subscription is not complete."""
    work = begin()
    work.stop.set()

    assert not await rebuild_from_subscription(
        WatchedSource(InMemoryTopic().subscribe()),
        InMemoryRunLogService(),
        work,
        until_idle=60,
        limits=QUICK,
    )


class Pages:
    """A projection of events, two runs a page."""

    def __init__(self, events: Sequence[RunEvent], unreadable: Sequence[str] = ()) -> None:
        self._runs: list[FoldedRun] = []
        for positions in by_run(events).values():
            own = [events[position] for position in positions]
            history = fold(None, own).after.history
            self._runs.append(FoldedRun(event=max(own, key=lambda event: event.version), history=history))
        self._unreadable = {
            name: Unreadable(error=UnreadableRunError("w", name, "damaged"), body=b"what it holds")
            for name in unreadable
        }
        self.asked: list[str] = []

    async def page(self, after: str = "") -> RootPage:
        """See `FirestoreRoot.page`."""
        self.asked.append(after)
        start = int(after or 0)
        end = start + 2
        return RootPage(
            runs=self._runs[start:end],
            unreadable={} if after else self._unreadable,
            after=str(end) if end < len(self._runs) else None,
        )


class MergingDouble:
    """Keeps what is merged; raises the errors it is given, and refuses some runs."""

    def __init__(self, errors: Sequence[Exception] = (), refuses: Sequence[str] = (), knows: int = 0) -> None:
        self._errors = iter(errors)
        self._refuses = set(refuses)
        self._known = {f"r{number:03}" for number in range(knows)}
        self.merged: dict[RunKey, FoldedRun] = {}

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome]:
        """See `ClosableStore.merge`."""
        await asyncio.sleep(0)
        error = next(self._errors, None)
        if error is not None:
            raise error
        if self._refuses & {run.event.run.id for run in runs}:
            raise WriteRefusedError("too large")
        self.merged |= {run.event.key: run for run in runs}
        return [Outcome.DUPLICATE if run.event.run.id in self._known else Outcome.APPLIED for run in runs]


async def test_a_root_is_merged(tmp_path: Path, begin: Callable[[], RebuildWork]) -> None:
    """A rebuild merges each run of another projection once, with its history; rejects stop nothing."""
    pages, store = Pages(lives(9), unreadable=["damaged"]), MergingDouble(refuses=["r004"])
    work = begin()

    complete = await rebuild_from_root(pages.page, store.merge, work)

    assert complete
    assert (8, 2) == (work.events, len(work.rejects))
    assert [f"r{number:03}" for number in range(9) if number != 4] == sorted(key[1] for key in store.merged)
    assert {2} == {len(run.history) for run in store.merged.values()}
    rejects = (tmp_path / "rejects").read_text()
    assert '"damaged", "reason": "invalid_event"' in rejects
    assert '"body": "what it holds"' in rejects
    assert '"w1/r004", "reason": "write_refused"' in rejects


async def test_a_root_goes_on_where_it_was(begin: Callable[[], RebuildWork]) -> None:
    """After a failed merge it goes on at the first page that was not merged; complete, it reads nothing."""
    store = MergingDouble([StoreUnavailableError("away")])
    work = begin()
    with pytest.raises(StoreUnavailableError):
        await rebuild_from_root(Pages(lives(9)).page, store.merge, work)

    rest = begin()
    assert await rebuild_from_root(Pages(lives(9)).page, store.merge, rest)
    assert 9 == len(store.merged)

    pages = Pages(lives(9))
    again = begin()
    assert await rebuild_from_root(pages.page, store.merge, again)
    assert ([], 0, 9) == (pages.asked, again.folded, again.events)


async def test_a_stopped_root(begin: Callable[[], RebuildWork]) -> None:
    """Stopped, a rebuild from a root is not complete, and nothing is noted that is not merged."""
    work = begin()
    work.stop.set()

    assert not await rebuild_from_root(Pages(lives(3)).page, MergingDouble().merge, work)
    assert {} == work.state.get("root")


def test_a_walk_begins_where_the_one_before_began(begin: Callable[[], RebuildWork]) -> None:
    """A walk that was killed goes on with the moment it had; the next one looks from when that one began."""
    moments = [datetime(2026, 3, 4, hour, tzinfo=UTC) for hour in range(5)]

    def walked(now: datetime, *, until: str | None) -> datetime | None:
        work = begin()
        since = _walk_since(work, now)
        work.state.note({"root": {"after": until}})
        return since

    killed = [walked(moments[0], until="a/runs/b"), walked(moments[1], until=None)]
    again = [walked(moments[2], until="c/runs/d"), walked(moments[3], until=None)]

    assert [None, None] == killed
    assert [moments[0], moments[0]] == again
    assert moments[2] == walked(moments[4], until=None)


@pytest.mark.parametrize("after", ["a/runs/b", None])
def test_a_walk_of_an_earlier_version(begin: Callable[[], RebuildWork], after: str | None) -> None:
    """Where nobody knows when a walk began, the next one reads all, and the one after that what changed."""
    moments = [datetime(2026, 3, 4, hour, tzinfo=UTC) for hour in range(3)]
    begin().state.note({"root": {"after": after}, "end": {"complete": after is None}})
    found: list[datetime | None] = []

    for moment in moments:
        work = begin()
        found.append(_walk_since(work, moment))
        assert work.state.get("root")["after"] is not None
        work.state.note({"root": {"after": None}})

    assert ([None, None, moments[1]] if after else [None, moments[0], moments[1]]) == found


async def test_a_walk_that_goes_on_counts_news(begin: Callable[[], RebuildWork]) -> None:
    """A rebuild that was complete counts only runs that changed anything, and has to see to their expiry."""
    await rebuild_from_root(Pages(lives(4)).page, MergingDouble().merge, begin())
    begin().settle()
    work = begin()
    work.state.note({"root": {"after": ""}})

    assert await rebuild_from_root(Pages(lives(6)).page, MergingDouble(knows=4).merge, work)

    assert (2, True, False) == (work.folded, work.goes_on, work.is_settled)


async def test_into_a_file(archive: Path, tmp_path: Path, begin: Callable[[], RebuildWork]) -> None:
    """With SQLite an archive is folded into another file, where old runs are counted and not seen."""
    (archive / "old").write_bytes(lines([an_event(id="paused", workflow_id="w9", status=RunStatus.PAUSED)]))
    settings = Settings(backend="sqlite", sqlite_path=str(tmp_path / "live"), retention_days=1)
    into = str(tmp_path / "anew")

    done = await rebuild(settings, FromArchive(path=str(archive)), into=into, work=begin())

    assert (True, 131, 61, 0) == (done.complete, done.events, done.runs, done.rejects)
    store = SQLiteRunLogService(path=into)
    assert {"w0": 20, "w1": 20, "w2": 20, "w9": 1} == await totals(store)
    seen, _ = await store.list_runs("w0")
    await store.close()
    assert ([], 60) == (seen, done.expired)


@pytest.mark.parametrize(
    ("source", "into", "told"),
    [
        (FromRoot(name="old"), "live", "is the live root collection"),
        (FromArchive(path="a"), "live", "is the live root collection"),
        (FromSubscription(), "live", "is the live root collection"),
        (FromRoot(name="same"), "same", "are the same root collection"),
        (FromRoot(name="a/b"), "into", "collection id"),
        (FromRoot(name="a"), "in/to", "collection id"),
    ],
)
def test_what_cannot_be_rebuilt(source: RebuildSource, into: str, told: str) -> None:
    """A rebuild into the live projection, into its own source, or into no collection is refused."""
    with pytest.raises(ConfigurationError, match=told):
        check(Settings(root_collection="live"), source, into)


@pytest.mark.parametrize("source", [FromRoot(name="old"), FromSubscription()])
def test_what_a_file_cannot_be_rebuilt_from(source: RebuildSource) -> None:
    """With SQLite other sources than archives are refused, and so is the live file."""
    settings = Settings(backend="sqlite", sqlite_path="live.db")

    with pytest.raises(ConfigurationError, match="can only read archive files"):
        check(settings, source, "x.db")
    with pytest.raises(ConfigurationError, match="is the live file"):
        check(settings, FromArchive(path="a"), "./live.db")


def test_names_of_subscriptions() -> None:
    """Each root collection gives another subscription, with a name that Pub/Sub takes."""
    roots = ["runs_2", "runs 2", "Läufe", "x" * 375, "x" * 374 + "y", "a%20b", "a b"]

    names = [replay_name(root) for root in roots]

    assert len(roots) == len(set(names))
    for name in names:
        assert name == Settings(subscription=name).subscription
