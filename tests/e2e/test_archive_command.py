"""An archive of one machine, as operators keep it, and rebuilds from it: processes, kills, signals."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import Process
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.emulator.projector_kit import until
from tests.emulator.pubsub_kit import RawPubSub
from tests.emulator.rebuild_kit import (
    ANEW,
    LIVE,
    archived,
    differences,
    ended,
    lives,
    rebuilding,
    rebuilt,
)
from tests.emulator.tcp_proxy import TcpProxy
from tests.processes import started

from run_log.core import RunEvent, encode_event
from run_log.stores import FirestoreRunLogService
from run_log.testing import FirestoreEmulator

from .command_line import asked, called

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

LEASE_SECONDS = 10
AT_A_TIME = 100
RUNS = 300


def archiving(folder: Path, *options: str) -> AbstractAsyncContextManager[Process]:
    """Run ``run-log archive`` as a process of its own, which does not outlive the block."""
    return started("archive", "--into", str(folder), *options)


def lines(folder: Path) -> list[bytes]:
    """Return all whole lines of the files of a folder."""
    return [
        line
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


def with_an_archive_of_short_leases() -> RawPubSub:
    """Return the environment's Pub/Sub, with a subscription of the archive that delivers again soon."""
    raw = RawPubSub.provisioned()
    with raw.connection.subscriber() as subscriber:
        subscriber.create_subscription(
            request={
                "name": raw.connection.subscription_path("run-log-archive"),
                "topic": raw.connection.topic_path(raw.settings.topic),
                "ack_deadline_seconds": LEASE_SECONDS,
            }
        )
    return raw


def publish(raw: RawPubSub, events: list[RunEvent]) -> set[bytes]:
    """Publish *events*, and return the lines that an archive has to have of them."""
    messages = [encode_event(event) for event in events]
    for start in range(0, len(messages), AT_A_TIME):
        raw.publish(messages[start : start + AT_A_TIME])
    return {message.data + b"\n" for message in messages}


async def _killed(folder: Path) -> int | None:
    """Kill an archive as soon as it has a line; return its exit code."""
    async with archiving(folder, "--segment-bytes", "30000") as first:

        async def has_begun() -> bool:
            assert first.returncode is None
            return bool(lines(folder))

        await until(has_begun)
        first.kill()
        await first.communicate()
    return first.returncode


# The next one waits for longer than what the killed one had in hand stays leased.
def test_a_killed_archive_loses_nothing(tmp_path: Path) -> None:
    """An archive killed in the middle and begun again has every event, and a rebuild equals the live one."""
    raw, events = with_an_archive_of_short_leases(), lives(RUNS)

    async def project(live: FirestoreRunLogService) -> None:
        for start in range(0, len(events), AT_A_TIME):
            await live.apply(events[start : start + AT_A_TIME])

    asked(project)
    expected = publish(raw, events)
    folder = tmp_path / "archive"

    killed = asyncio.run(_killed(folder))
    second = called("archive", "--into", str(folder), "--until-idle", str(LEASE_SECONDS + 4))
    done = called("rebuild", "-o", "json", "--from", "archive:archive", "--into", ANEW, folder=tmp_path)

    assert (-signal.SIGKILL, 0) == (killed, second.code), second.err
    assert "lines into" in second.out
    assert expected == set(lines(folder))
    # A kill may leave half a line behind, which is rejected, and was written again.
    record = json.loads(done.out)
    assert (RUNS, bool(record["rejects"])) == (record["runs"], bool(done.code)), done.err
    assert [] == asyncio.run(differences(LIVE, ANEW))


async def test_an_archive_makes_its_subscription_and_ends_by_a_signal(tmp_path: Path) -> None:
    """An archive makes its own subscription on the event topic, and ends with 0 on SIGTERM."""
    raw = RawPubSub.provisioned()
    async with archiving(tmp_path / "new", "--subscription", "kept-for-good") as process:

        async def is_there() -> bool:
            with raw.connection.subscriber() as subscriber:
                found = subscriber.list_subscriptions(project=f"projects/{raw.connection.project}")
                return any(each.name.endswith("/kept-for-good") for each in found)

        await until(is_there)
        expected = publish(raw, lives(3))

        async def has_all() -> bool:
            return expected == set(lines(tmp_path / "new"))

        await until(has_all)
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()

    assert 0 == process.returncode
    assert f"pulled 6, wrote 6 lines into {tmp_path / 'new'}\n" == out.decode()


async def test_a_signal_ends_a_rebuild(firestore_emulator: FirestoreEmulator, tmp_path: Path) -> None:
    """A rebuild that is stopped before it is complete exits 130, says so, and is completed later."""
    archived(tmp_path / "archive", lives(5))
    options = ("--from", "archive:archive", "--into", ANEW)
    with TcpProxy(firestore_emulator.host) as line:
        line.allow(0)
        async with rebuilding(tmp_path, *options, FIRESTORE_EMULATOR_HOST=line.host) as process:

            async def is_held_up() -> bool:
                assert process.returncode is None
                return line.is_holding

            await until(is_held_up)
            process.send_signal(signal.SIGTERM)
            stopped = await ended(process, within=30)

    done = await rebuilt(tmp_path, *options)

    assert (130, False) == (stopped.code, stopped.record["complete"]), stopped.err
    assert "stopped; run the same command" in stopped.err
    assert (0, 5) == (done.code, done.record["runs"])
