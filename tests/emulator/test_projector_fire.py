"""Exactness under fire: whatever is killed, paused or cut, no run is lost and none counted twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any, Final

import pytest
from tests.unit.projector.doubles import logged

from run_log.core import Message, Outcome, RunEvent, RunStatus, encode_event
from run_log.core.nearest import CUT_MARKER
from run_log.projector import PullReport
from run_log.projector.google_cloud import pull
from run_log.stores import FirestoreRunLogService
from run_log.stores.committing.committer import WARY_COMMITS
from run_log.testing import FirestoreEmulator, PubSubEmulator, an_event

from .projector_kit import (
    LEASE_SECONDS,
    PATIENCE,
    Wired,
    Workload,
    ended,
    projecting,
    provisioned_with_short_leases,
    totals,
    until,
    until_true,
    wired,
)
from .pubsub_kit import RawPubSub
from .tcp_proxy import TcpProxy

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

_FAULTS: Final = 3
_PAUSE: Final = 30.0
"""Longer than any lease (20 s) and any deadline (10 s a call, 15 s an operation) of a projector."""


@pytest.fixture
async def store() -> AsyncIterator[FirestoreRunLogService]:
    """Yield what reads the projection, past any proxy."""
    service = FirestoreRunLogService.from_env()
    await service.get_stats("w0")  # connected before a proxy stands in the way
    yield service
    await service.close()


@pytest.fixture
def raw() -> RawPubSub:
    """Return a Pub/Sub whose leases end soon, past any proxy."""
    return provisioned_with_short_leases()


@pytest.fixture
def store_line(
    store: FirestoreRunLogService,  # noqa: ARG001 - goes past the line, so it is made before
    firestore_emulator: FirestoreEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TcpProxy]:
    """Yield the line to Firestore, which every client made from now on takes."""
    with TcpProxy(firestore_emulator.host) as proxy:
        monkeypatch.setenv(FirestoreEmulator.host_variable, proxy.host)
        yield proxy


@pytest.fixture
def broker_line(
    raw: RawPubSub,  # noqa: ARG001 - goes past the line, so it is made before
    pubsub_emulator: PubSubEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TcpProxy]:
    """Yield the line to Pub/Sub, which every client made from now on takes."""
    with TcpProxy(pubsub_emulator.host) as proxy:
        monkeypatch.setenv(PubSubEmulator.host_variable, proxy.host)
        yield proxy


@contextlib.asynccontextmanager
async def _running(wired: Wired) -> AsyncGenerator[asyncio.Task[PullReport]]:
    """Let the worker work; leaving the block tells it to stop and waits for it."""
    stop = asyncio.Event()
    running = asyncio.create_task(wired.worker.run(stop=stop))
    try:
        yield running
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# Processes


# More than 10 s: the leases and the store's own deadlines pass while one stands still.
@pytest.mark.timeout(1_200)  # the pause, and four times three processes' patience
async def test_a_projector_paused_past_its_leases(
    store: FirestoreRunLogService,
    store_line: TcpProxy,
    firestore_emulator: FirestoreEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of three stands still past its leases, the others do its work, then it goes on: all is exact."""
    raw = RawPubSub.provisioned()
    load = Workload(600, steps=(RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.RUNNING), seed=1)
    first, further = load.lives[:200], load.lives[200:]
    load.publish(raw, [event for life in first for event in life[:2]], repeats=0)

    async with projecting() as paused:
        await until(partial(_counts, store, 1))
        store_line.black_hole()
        load.publish(raw, [event for life in further for event in life[:2]], repeats=0)
        await until_true(lambda: store_line.is_holding)
        paused.send_signal(signal.SIGSTOP)
        paused_at = time.monotonic()
        monkeypatch.setenv(FirestoreEmulator.host_variable, firestore_emulator.host)
        async with projecting() as second, projecting() as third:
            await until(lambda: _all_are_paused(store, load), within=2 * _PAUSE + PATIENCE)
            await until_true(lambda: time.monotonic() > paused_at + _PAUSE, within=_PAUSE + PATIENCE)
            # What it had sent arrives only now.
            store_line.heal()
            paused.send_signal(signal.SIGCONT)
            load.publish(raw, [event for life in load.lives for event in life[2:]], repeats=0)
            for life in load.lives:
                await until(partial(_knows, store, life))
            for process in (paused, second, third):
                process.send_signal(signal.SIGTERM)
            ends = await asyncio.gather(*(ended(process) for process in (paused, second, third)))

    await load.verify(store)
    assert [0, 0, 0] == [end.code for end in ends]


async def _counts(store: FirestoreRunLogService, runs: int) -> bool:
    return (await totals(store))[0] >= runs


async def _all_are_paused(store: FirestoreRunLogService, load: Workload) -> bool:
    found, _ = await store.list_workflows()
    return len(load.lives) == sum(stats.by_status.get(RunStatus.PAUSED, 0) for stats in found)


async def _knows(store: FirestoreRunLogService, life: Sequence[RunEvent]) -> bool:
    return len(await store.get_history(*life[0].key)) == len(life)


# More than 10 s: the last one killed leaves messages leased for as long as the shortest lease there is.
async def test_projectors_killed_one_after_the_other(raw: RawPubSub, store: FirestoreRunLogService) -> None:
    """Projectors killed at moments of chance lose nothing, and whoever comes next counts nothing twice."""
    load = Workload(1_200, seed=2)
    codes: list[int | None] = []
    for share in load.shares(_FAULTS):
        load.publish(raw, share)
        goal = (await totals(store))[0] + load.chance.randint(1, 60)
        async with projecting() as victim:
            await until(partial(_counts, store, goal))
            victim.kill()
            codes.append((await ended(victim)).code)
    killed_at = time.monotonic()

    async with wired(batch=500) as last, _running(last):
        await until(lambda: load.is_done(store))
        await until_true(lambda: time.monotonic() > killed_at + LEASE_SECONDS + 1)
        await until_true(lambda: last.source.is_settled)

    await load.verify(store)
    assert [-signal.SIGKILL] * _FAULTS == codes


# Lines


async def test_commits_whose_answers_are_lost(
    raw: RawPubSub, store: FirestoreRunLogService, store_line: TcpProxy
) -> None:
    """The line breaks between a commit and its answer, again and again: nothing is counted twice."""
    load = Workload(300, seed=3)
    published: set[str] = set()

    async with (
        wired(store_patience=PATIENCE, call_seconds=PATIENCE) as worker,
        _running(worker) as running,
    ):
        for number in range(_FAULTS):
            lives = load.lives[number::_FAULTS]
            published |= await _committing_unread(worker, load, raw, lives[:WARY_COMMITS])
            store_line.hold_answers()
            seen, _ = await totals(store)
            published |= load.publish(
                raw, [event for life in lives[WARY_COMMITS:] for event in life], repeats=0
            )
            await until(partial(_counts, store, seen + 1))
            failed = worker.watch.failures.total()
            store_line.cut()
            store_line.heal()
            await worker.has_acknowledged(published)
            assert worker.watch.failures.total() > failed
    report = await running

    await load.verify(store)
    assert report.outcomes[Outcome.DUPLICATE] > 0
    assert (0, 0) == (report.released, report.dead_lettered)


async def _committing_unread(
    worker: Wired, load: Workload, raw: RawPubSub, lives: Sequence[Sequence[RunEvent]]
) -> set[str]:
    """Project *lives* one by one: after so many new runs the worker reads none first; return the messages."""
    published: set[str] = set()
    for life in lives:
        published |= load.publish(raw, life, repeats=0)
        await worker.has_acknowledged(published)
    return published


async def test_a_store_that_falls_silent(
    raw: RawPubSub, store: FirestoreRunLogService, store_line: TcpProxy
) -> None:
    """Commits that get no answer in time, and arrive late, are made again meanwhile: all is exact."""
    load = Workload(300, seed=4)
    alone = _FAULTS * WARY_COMMITS
    shares = load.shares(_FAULTS, load.lives[alone:])

    async with wired(call_seconds=PATIENCE, store_patience=PATIENCE) as worker, _running(worker):
        for number, share in enumerate(shares):
            published = await _committing_unread(worker, load, raw, load.lives[number:alone:_FAULTS])
            given_up = worker.watch.failures["DeadlineExceeded"]
            worker.watch.seconds = 1.0
            store_line.black_hole()
            published |= load.publish(raw, share)
            await until_true(lambda: worker.watch.failures["DeadlineExceeded"] > given_up)  # noqa: B023 - asked at once
            worker.watch.seconds = PATIENCE
            store_line.heal()
            await worker.has_acknowledged(published)

    await load.verify(store)


# More than 10 s: the commit has to outlast the shortest lease there is.
async def test_a_commit_slower_than_the_leases(
    raw: RawPubSub, store: FirestoreRunLogService, store_line: TcpProxy
) -> None:
    """While a commit takes longer than the subscription's leases, its messages do not come again."""
    load = Workload(100, seed=10)
    first, second = load.shares(2)

    async with wired(call_seconds=PATIENCE, store_patience=PATIENCE) as worker, _running(worker) as running:
        published = load.publish(raw, first, repeats=0)
        await worker.has_acknowledged(published)
        store_line.black_hole()
        published |= load.publish(raw, second, repeats=0)
        await until_true(lambda: worker.worker.progress.in_hand == len(second))
        taken_at = time.monotonic()
        await until_true(lambda: time.monotonic() > taken_at + LEASE_SECONDS + 2)
        came_again = not raw.is_empty()
        store_line.heal()
        await worker.has_acknowledged(published)
    report = await running

    await load.verify(store)
    assert not came_again
    assert (len(published), 0) == (report.pulled, report.outcomes[Outcome.DUPLICATE])


async def test_a_broker_cut_off_during_acknowledgements(
    raw: RawPubSub,
    store: FirestoreRunLogService,
    broker_line: TcpProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Acknowledgements that never arrive bring the messages back, and those change nothing."""
    load = Workload(400, seed=5)
    published: set[str] = set()

    async with wired() as worker, _running(worker) as running:
        for share in load.shares(_FAULTS):
            lost = worker.source.failed
            async with asyncio.timeout(PATIENCE):
                while worker.source.failed == lost:
                    # The same again, where every acknowledgement of them slipped through.
                    published |= load.publish(raw, share)
                    broker_line.delay(0.05)
                    await until_true(lambda: worker.source.acknowledging > 0)
                    broker_line.cut()
                    broker_line.heal()
                    await until_true(lambda: worker.source.acknowledging == 0)
        await worker.has_acknowledged(published)
    report = await running

    await load.verify(store)
    events = [vars(record).get("event") for record in caplog.records]
    assert events.count("run_log_acknowledge_failed") == worker.source.failed
    assert report.pulled >= len(published)


# Away at start


@pytest.mark.parametrize("away", ["store", "broker"])
async def test_what_is_away_at_first(
    away: str, raw: RawPubSub, store: FirestoreRunLogService, request: pytest.FixtureRequest, caplog: Any
) -> None:
    """A worker whose store or broker is not up yet says so and waits; once it is up, all is projected."""
    load = Workload(50, seed=6)
    published = load.publish(raw, load.events)
    line: TcpProxy = request.getfixturevalue(f"{away}_line")
    line.cut()
    event = "run_log_store_unavailable" if away == "store" else "run_log_pull_failed"

    def said() -> list[str]:
        return [record["error"] for record in logged(caplog, event)]

    async with wired(store_patience=0.2) as worker, _running(worker) as running:
        await until_true(lambda: len(said()) > 1)
        troubled, before = worker.worker.trouble, await totals(store)
        line.heal()
        await worker.has_acknowledged(published)
        await until_true(lambda: worker.worker.trouble is None)
    report = await running

    await load.verify(store)
    assert (0, 0) == before
    assert troubled is not None
    assert all(f"emulator at {line.host}" in error for error in said())
    assert (away == "store") == (report.released > 0)
    assert report.dead_lettered == 0
    assert raw.is_empty()


# Poison


@pytest.mark.parametrize("size", [1_200_000, 3_300_000])
async def test_a_run_too_large_for_a_document_is_cut(
    raw: RawPubSub, store: FirestoreRunLogService, size: int
) -> None:
    """A run too large for a document is projected with its payload cut, whatever the payload's size."""
    load = Workload(60, seed=8)
    event = encode_event(an_event(workflow_id="large", id="large", trigger_data={"text": "*"}))
    # A run's own payload would have been cut by its emitter: another producer's is not.
    large = Message(data=event.data.replace(b"*", b"x" * size), attributes={**event.attributes, "own": "ä"})
    raw.publish([large])
    load.publish(raw, load.events)

    report = await pull(raw.settings, stop=asyncio.Event(), until_idle=1)

    found = await store.get_run("large", "large")
    assert found is not None
    assert found.trigger_data["text"].startswith(f"{CUT_MARKER}, {size // 1_000}")
    assert (0, 0) == (report.dead_lettered, report.outcomes[Outcome.REJECTED])
    await load.verify(store)
    assert raw.is_empty()
