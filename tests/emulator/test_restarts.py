from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.processes import started

from run_log.core import RunStatus, Settings, encode_event
from run_log.projector import LetterChoice, discard
from run_log.projector.archive import ArchiveWorker, ArchiveWriter
from run_log.projector.google_cloud import leased_letters, pull
from run_log.projector.leases import LEASE_SECONDS
from run_log.projector.pubsub import PubSubSource
from run_log.pubsub import add_subscription
from run_log.stores import FirestoreRunLogService
from run_log.testing import an_event

from .killed_trial import POISON, is_exact
from .projector_kit import Workload, ended, projecting, provisioned_with_short_leases, totals, until
from .pubsub_kit import RawPubSub

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

SOON = 30.0
"""Seconds that a busy machine may take for what is there at once. What is leased to the dead comes after the
20 s of the subscription's lease."""


@asynccontextmanager
async def reading() -> AsyncGenerator[FirestoreRunLogService]:
    """Yield what reads the projection."""
    service = FirestoreRunLogService.from_env()
    try:
        yield service
    finally:
        await service.close()


def publish(raw: RawPubSub, run_id: str) -> None:
    """Publish one run's end."""
    raw.publish([encode_event(an_event(workflow_id="w", id=run_id))])


async def seen(store: FirestoreRunLogService, run_id: str) -> None:
    """Wait until a run is there; long before a lease ends."""

    async def is_there() -> bool:
        return await store.get_run("w", run_id) is not None

    await until(is_there, within=SOON)


async def test_until_idle_again_and_again() -> None:
    """A projector that ended since it was idle takes nothing of what is published afterwards."""
    raw = RawPubSub.provisioned()
    pulled: list[int] = []
    for round_ in range(3):
        for number in range(3):
            publish(raw, f"{round_}-{number}")
        report = await pull(raw.settings, stop=asyncio.Event(), until_idle=0.5)
        pulled.append(report.pulled)

    assert [3, 3, 3] == pulled
    assert raw.is_empty()


async def test_a_projector_that_was_stopped() -> None:
    """After SIGTERM a projector leaves nothing leased, and takes nothing: the next sees all at once."""
    raw = RawPubSub.provisioned()
    async with reading() as store:
        async with projecting() as process:
            publish(raw, "first")
            await seen(store, "first")
            process.terminate()
            stopped = await ended(process)
        publish(raw, "second")
        async with projecting():
            await seen(store, "second")

    assert (0, 1) == (stopped.code, stopped.counts["pulled"]), stopped.err


async def test_a_projector_that_was_killed() -> None:
    """A killed projector's pulls end at the broker within four seconds; then the next sees all at once."""
    raw = RawPubSub.provisioned()
    async with reading() as store, projecting() as process:
        publish(raw, "first")
        await seen(store, "first")
        process.kill()
        await process.communicate()
        source = PubSubSource(raw.connection, raw.settings.subscription)
        # It began later than any of the dead, and so ends later.
        left = await source.pull(1, wait=3)
        await source.close()
        publish(raw, "second")
        async with projecting():
            await seen(store, "second")

    assert not left


# More than 20 s: what the killed had in hand is leased to them for so long.
@pytest.mark.timeout(1_200)
async def test_what_killed_projectors_had_in_hand() -> None:
    """After two projectors are killed, one with `--until-idle` leaves everything exact and exits 0."""
    raw = provisioned_with_short_leases()
    load = Workload(200, steps=(RunStatus.RUNNING, RunStatus.PAUSED), seed=11)
    raw.publish(POISON)
    load.publish(raw, load.events, repeats=1 / 3)
    async with reading() as store, _held(raw) as lease_for:
        lease_for(600)
        async with projecting() as first, projecting() as second:
            await until(partial(_counts, store, load.chance.randint(1, 60)))
            for process in (first, second):
                process.kill()
                await process.communicate()
        async with started("projector", "pull", "--until-idle", "1") as last:
            assert last.stderr is not None
            assert await last.stderr.readline()
            # As one does that is killed the moment it has extended a lease.
            lease_for(LEASE_SECONDS)
            end = await ended(last)
        exact = await is_exact(raw, load, store, Counter())

    assert (0, True) == (end.code, exact), end.err


@asynccontextmanager
async def _held(raw: RawPubSub) -> AsyncGenerator[Callable[[float], None]]:
    """Take a message that is never answered; yield what has it leased for so many seconds from then on."""
    path = raw.connection.subscription_path(raw.settings.subscription)
    with raw.connection.subscriber() as subscriber:
        (item,) = subscriber.pull(subscription=path, max_messages=1, timeout=30).received_messages

        def lease_for(seconds: float) -> None:
            subscriber.modify_ack_deadline(
                subscription=path, ack_ids=[item.ack_id], ack_deadline_seconds=int(seconds)
            )

        yield lease_for


async def _counts(store: FirestoreRunLogService, runs: int) -> bool:
    return (await totals(store))[0] >= runs


async def test_looking_at_dead_letters_again_and_again() -> None:
    """Whoever has looked at dead letters, or thrown some away, takes none of those that come afterwards."""
    raw = RawPubSub.provisioned()
    topic = raw.connection.topic_path(raw.settings.dead_letter_topic)

    def add(*data: bytes) -> None:
        with raw.connection.publisher() as publisher:
            for body in data:
                publisher.publish(topic=topic, messages=[{"data": body}])

    add(b"1", b"2", b"3")
    first = await _letters(raw.settings, throw_away=False)
    add(b"4", b"5", b"6")
    second = await _letters(raw.settings, throw_away=True)
    add(b"7", b"8", b"9")
    third = await _letters(raw.settings, throw_away=False)

    assert ({b"1", b"2", b"3"}, {b"7", b"8", b"9"}) == (first, third)
    assert {b"1", b"2", b"3", b"4", b"5", b"6"} == second


async def _letters(settings: Settings, *, throw_away: bool) -> set[bytes]:
    found: set[bytes] = set()
    async with leased_letters(settings, quiet_seconds=1) as letters:
        if throw_away:
            await discard(
                letters,
                LetterChoice(),
                tell=lambda _: None,
                save=lambda page: found.update(letter.data for letter in page),
            )
        else:
            async for page in letters.chosen(LetterChoice()):
                found.update(letter.data for letter in page)
    return found


async def test_archiving_again_and_again(tmp_path: Path) -> None:
    """An archive that has ended takes nothing of what is published afterwards."""
    raw = RawPubSub.provisioned()
    add_subscription(raw.connection, raw.settings.topic, "archive")
    written: list[int] = []
    for round_ in range(2):
        for number in range(3):
            publish(raw, f"{round_}-{number}")
        source = PubSubSource(raw.connection, "archive")
        worker = ArchiveWorker(source, ArchiveWriter(tmp_path))
        written.append((await worker.run(stop=asyncio.Event(), until_idle=2)).written)
        await source.close()

    assert [3, 3] == written
