"""The command line as operators run it: signals, exit codes, and the emulators behind it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from datetime import UTC, datetime

import pytest
from tests.emulator.projector_kit import provisioned_with_short_leases
from tests.emulator.tcp_proxy import TcpProxy
from tests.processes import started

from run_log.console.exit_codes import run
from run_log.core import RunEvent, RunStatus, Settings
from run_log.producer import RunEventEmitter
from run_log.projector.google_cloud import pull
from run_log.pubsub import PubSubConnection
from run_log.stores import FirestoreRunLogService
from run_log.testing import FirestoreEmulator, a_run, an_event

from .command_line import PATIENCE, asked, called, ended

pytestmark = pytest.mark.emulator

BACKLOG = 2_000
"""Runs that keep a projector busy for a while: more than it commits at a time."""

DEAD_PORT = "127.0.0.1:1"
"""Nobody listens there."""


def publish(settings: Settings, bodies: list[bytes]) -> None:
    """Publish *bodies* as they are."""
    connection = PubSubConnection.from_settings(settings)
    with connection.publisher() as publisher:
        publisher.publish(
            topic=connection.topic_path(settings.topic), messages=[{"data": body} for body in bodies]
        )


async def emit(count: int) -> None:
    """Emit *count* successful runs, and return once the broker has them all."""
    emitter = RunEventEmitter.from_env()
    for number in range(count):
        emitter.emit(a_run(id=f"run-{number:05}"))
    report = await emitter.flush(PATIENCE)
    emitter.close()
    assert (count, 0) == (report.delivered, report.pending)


async def total_at_least(store: FirestoreRunLogService, total: int) -> dict[str, int]:
    """Return the workflow's stats as soon as they count *total* runs."""
    async with asyncio.timeout(PATIENCE):
        while True:
            stats = await store.get_stats("workflow-1")
            if stats["total"] >= total:
                return stats
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("emulator_environment")
def test_provisioning_twice(emulator_project: str) -> None:
    """Provisioning says what it made, and says at the next call that all of it exists."""
    first = called("provision")
    second = called("provision")

    names = [
        f"projects/{emulator_project}/{name}"
        for name in (
            "topics/run-log-events",
            "topics/run-log-dead-letters",
            "subscriptions/run-log-projector",
            "subscriptions/run-log-dead-letters",
        )
    ]
    assert (0, [f"created {name}" for name in names]) == (first.code, first.out.splitlines())
    assert (0, [f"exists  {name}" for name in names]) == (second.code, second.out.splitlines())


# 25 s of silence: as long as a projector that was killed may have something leased.
@pytest.mark.usefixtures("provisioned")
def test_pulling_until_idle() -> None:
    """The projector says its way and how long it will wait, projects what comes, and sums up on stdout."""
    asyncio.run(emit(3))

    pulled = called("projector", "pull", "--until-idle", "1")

    summary = "pulled 3: 3 applied, 0 duplicate, 0 stale, 0 rejected; 0 dead-lettered, 0 given back\n"
    (started,) = [json.loads(line) for line in pulled.err.splitlines()]
    assert (0, summary) == (pulled.code, pulled.out)
    assert ("INFO", "run_log_projector_started") == (started["severity"], started["message"])
    assert "25 s without a message" == started["until_idle"]
    assert started["source"].endswith("/subscriptions/run-log-projector")
    assert started["dead_letters"].endswith("/topics/run-log-dead-letters")
    assert started["into"].endswith("/databases/(default)/documents/autopilot_runs")
    assert "emulator at" in started["pubsub"]
    assert "emulator at" in started["firestore"]
    assert {"total": 3, "successful": 3} == asked(lambda store: store.get_stats("workflow-1"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_projector(
    provisioned: Settings, store: FirestoreRunLogService, number: signal.Signals
) -> None:
    """A projector that waits ends on a signal with 0 and its summary; on stderr all it logs is JSON lines."""
    publish(provisioned, [b"not JSON", b"[]", b'{"type": "somebody.elses"}'])
    async with started("projector", "pull") as projector:
        assert projector.stderr is not None
        async with asyncio.timeout(PATIENCE):
            logged = [json.loads(await projector.stderr.readline()) for _ in range(4)]
        await emit(1)
        await total_at_least(store, 1)
        projector.send_signal(number)
        stopped = await ended(projector)

    lines = [*logged, *map(json.loads, stopped.err.splitlines())]
    letters = [line for line in lines if line["message"] == "run_log_dead_lettered"]
    assert ["undecodable", "undecodable", "unknown_type"] == sorted(letter["reason"] for letter in letters)
    assert {"WARNING"} == {letter["severity"] for letter in letters}
    assert all(line["severity"] and line["time"].endswith("Z") for line in lines)
    assert 0 == stopped.code
    (summary,) = stopped.out.splitlines()
    assert summary.startswith("pulled 4: 1 applied")
    assert "3 dead-lettered" in summary


@pytest.mark.usefixtures("emulator_environment")
@pytest.mark.parametrize("options", [(), ("--until-idle", "1")])
def test_pulling_what_is_not_there(options: tuple[str, ...]) -> None:
    """Without a subscription the projector ends at once with 4, and says how to make one."""
    pulled = called("projector", "pull", *options)

    assert (4, "") == (pulled.code, pulled.out)
    assert "run `run-log provision`" in pulled.err


def test_a_store_that_does_not_answer(
    provisioned: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where Firestore does not answer, the projector logs it, ends with 5 and says where it looked."""
    asyncio.run(emit(1))
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", DEAD_PORT)

    # As the command does it, but for its 25 s of silence.
    code = run(lambda: asyncio.run(pull(provisioned, stop=asyncio.Event(), until_idle=1)))

    assert 5 == code
    assert f"run-log: Firestore (emulator at {DEAD_PORT}" in capsys.readouterr().err
    assert "run_log_store_unavailable" in {vars(record)["event"] for record in caplog.records}


async def test_a_signal_in_the_middle_of_a_backlog(store: FirestoreRunLogService) -> None:
    """A projector with work in hand ends when it is told to; the next one goes on, nothing is lost."""
    provisioned_with_short_leases()
    await emit(BACKLOG)
    async with started("projector", "pull") as first:
        await total_at_least(store, 1)

        first.send_signal(signal.SIGTERM)
        stopped = await ended(first)
    async with started("projector", "pull") as second:
        await total_at_least(store, BACKLOG)
        second.send_signal(signal.SIGTERM)
        last = await ended(second)

    assert (0, 0) == (stopped.code, last.code)
    assert {"total": BACKLOG, "successful": BACKLOG} == await store.get_stats("workflow-1")


@pytest.mark.parametrize("backend", ["firestore", "pubsub"])
def test_a_sweep(provisioned: Settings, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """A sweep shows what fell silent, then marks it: at once where saves are direct, else once projected."""
    monkeypatch.setenv("RUN_LOG_BACKEND", backend)
    long_ago = datetime(2026, 3, 4, tzinfo=UTC)
    events = [
        an_event(id=status.value, status=status, started_at=long_ago, completed_at=None)
        for status in (RunStatus.RUNNING, RunStatus.PAUSED)
    ]
    asked(lambda store: store.apply(events))

    shown = called("sweep", "--older-than", "1h")
    before = asked(lambda store: store.get_run("workflow-1", "running"))
    marked = called("sweep", "--older-than", "1h", "--mark")
    asyncio.run(pull(provisioned, stop=asyncio.Event(), until_idle=1))

    assert [0] * 2 == [one.code for one in (shown, marked)]
    assert "1 without an event for 1h; none marked" in shown.err
    assert "1 without an event for 1h; 1 marked as lost" in marked.err
    assert before is not None
    assert RunStatus.RUNNING is before.status
    runs, _ = asked(lambda store: store.list_runs("workflow-1", status=RunStatus.FAILED))
    assert ["running"] == [run.id for run in runs]
    assert str(runs[0].error).startswith("lost: ")
    assert 1 == len(asked(lambda store: store.get_pending_runs()))


async def _two_roots(events: list[RunEvent]) -> None:
    """Save *events*, and all but the first of them into another root; have counts of the first be wrong."""
    store, rebuilt = FirestoreRunLogService.from_env(), FirestoreRunLogService(root_collection="rebuilt")
    await store.apply(events)
    await rebuilt.apply(events[1:])
    document = store._workflow("workflow-1")  # pyright: ignore[reportPrivateUsage]
    await document.update({"total": 23, "by_status.failed": 3})
    await asyncio.gather(store.close(), rebuilt.close())


@pytest.mark.usefixtures("provisioned")
@pytest.mark.parametrize("backend", ["firestore", "pubsub"])
def test_verifying(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """What is wrong exits 1 and is shown, what is repaired exits 0; another root is compared alike."""
    monkeypatch.setenv("RUN_LOG_BACKEND", backend)
    events = [an_event(id=f"r{number}") for number in range(20)]
    asyncio.run(_two_roots(events))

    shown = called("verify", "-o", "jsonl")
    repaired = called("verify", "workflow-1", "--repair")
    after = called("verify", "-o", "json")
    differs = called("verify", "--against", "rebuilt", "-o", "jsonl")
    with monkeypatch.context() as patched:
        patched.setenv("RUN_LOG_ROOT_COLLECTION", "rebuilt")
        asked(lambda store: store.apply(events[:1]))
    same = called("verify", "--against", "rebuilt")

    wrong = [json.loads(line) for line in shown.out.splitlines()]
    assert [("failed", 3, 0), ("total", 23, 20)] == [
        (one["name"], one["stored"], one["recounted"]) for one in wrong
    ]
    assert [1, 0, 0, 1, 0] == [one.code for one in (shown, repaired, after, differs, same)]
    assert [] == json.loads(after.out)["findings"]
    assert {"total": 20, "successful": 20} == asked(lambda store: store.get_stats("workflow-1"))
    found = [json.loads(line) for line in differs.out.splitlines()]
    assert [("r0", "here")] == [(one["run_id"], one["only_in"]) for one in found if one["kind"] == "run"]


@pytest.mark.usefixtures("provisioned")
async def test_a_second_signal(store: FirestoreRunLogService) -> None:
    """A second signal ends the projector at once, with 130."""
    async with started("projector", "pull") as projector:
        await emit(1)
        await total_at_least(store, 1)

        # Two of the same kind might arrive as one.
        projector.send_signal(signal.SIGTERM)
        projector.send_signal(signal.SIGINT)
        killed = await ended(projector)

    assert 130 == killed.code


# What the killed one had in hand comes again after a lease, which is 10 s at least.
async def test_a_killed_projector(
    store: FirestoreRunLogService, firestore_emulator: FirestoreEmulator
) -> None:
    """A projector killed in the middle of a backlog loses nothing, and its successor counts nothing twice."""
    provisioned_with_short_leases()
    with TcpProxy(firestore_emulator.host) as line:
        async with started("projector", "pull", environment={"FIRESTORE_EMULATOR_HOST": line.host}) as first:
            await emit(1)
            await total_at_least(store, 1)
            line.hold_answers()  # it comes no further than the commits that it makes at a time
            await emit(BACKLOG)
            seen = await total_at_least(store, 2)
            first.kill()
            await first.communicate()

    async with started("projector", "pull") as second:
        await total_at_least(store, BACKLOG)
        second.send_signal(signal.SIGTERM)
        stopped = await ended(second)

    assert BACKLOG > seen["total"]
    assert (-signal.SIGKILL, 0) == (first.returncode, stopped.code)
    assert {"total": BACKLOG, "successful": BACKLOG} == await store.get_stats("workflow-1")


# It starts both emulators once more.
@pytest.mark.usefixtures("firestore_emulator", "pubsub_emulator")  # skipped where they are missing
async def test_both_emulators_by_hand() -> None:
    """``python -m run_log.testing`` prints how to use both emulators, and a signal ends it and them."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "run_log.testing", stdout=PIPE, stderr=PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            exports = [(await process.stdout.readline()).decode() for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        left = await ended(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

    names = [export.removeprefix("export ").split("=")[0] for export in exports]
    assert ["FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"] == names
    assert (0, "") == (left.code, left.err)
