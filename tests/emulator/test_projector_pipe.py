from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from tests.ports import unused_port

from run_log.core import (
    ConfigurationError,
    Message,
    Outcome,
    RunEvent,
    RunStatus,
    Settings,
    TransportRefusedError,
    encode_event,
)
from run_log.core.models import RunKey
from run_log.producer import RunEventEmitter, record_run
from run_log.projector import PullReport
from run_log.projector.google_cloud import pull
from run_log.stores import FirestoreRunLogService
from run_log.testing import a_life

from .pubsub_kit import RawPubSub

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

_PATIENCE = 180.0


@pytest.fixture
async def reader() -> AsyncIterator[FirestoreRunLogService]:
    """Read the test's own Firestore."""
    service = FirestoreRunLogService.from_env()
    yield service
    await service.close()


async def _pull(settings: Settings) -> PullReport:
    return await pull(settings, stop=asyncio.Event(), until_idle=0.5)


async def test_recorded_runs_can_be_queried(reader: FirestoreRunLogService) -> None:
    """Runs that a workflow records come out of the queries as they went in."""
    raw = RawPubSub.provisioned()
    emitter = RunEventEmitter.from_env()
    async with record_run("w", run_id="good", trigger_data={"n": 1}, emitter=emitter) as good:
        good.set_result({"nested": [[1], {"": 2}]})
    with pytest.raises(ValueError, match="bad"), record_run("w", run_id="bad", emitter=emitter):
        raise ValueError("bad")
    with record_run("w", run_id="waits", emitter=emitter) as waits:
        waits.pause("pay?")
    await emitter.flush(_PATIENCE)
    await asyncio.to_thread(emitter.close)

    report = await _pull(raw.settings)

    runs, cursor = await reader.list_runs("w")
    assert [(run.id, run.status) for run in runs] == [
        ("waits", RunStatus.PAUSED),
        ("bad", RunStatus.FAILED),
        ("good", RunStatus.SUCCESS),
    ]
    assert cursor is None
    assert (runs[2].trigger_data, runs[2].result) == ({"n": 1}, {"nested": [[1], {"": 2}]})
    assert await reader.get_stats("w") == {"total": 3, "successful": 1}
    assert [run.id for run in await reader.get_pending_runs()] == ["waits"]
    history = await reader.get_history("w", "good")
    assert [line.status for line in history] == [RunStatus.RUNNING, RunStatus.SUCCESS]
    assert (report.pulled, report.dead_lettered, report.released) == (6, 0, 0)
    assert raw.is_empty()


async def test_two_workers_on_doubled_and_shuffled_messages(reader: FirestoreRunLogService) -> None:
    """Two workers, every message published twice, in no order: state equals a fold, stats a recount."""
    raw = RawPubSub.provisioned()
    chance = random.Random(7)
    ends = [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.PAUSED]
    events = [
        event
        for number in range(150)
        for event in a_life(f"w{number % 2}", f"r{number}", end=chance.choice(ends))
    ]
    doubled = [encode_event(event) for event in events * 2]
    chance.shuffle(doubled)
    for start in range(0, len(doubled), 100):
        raw.publish(doubled[start : start + 100])

    reports = await asyncio.gather(_pull(raw.settings), _pull(raw.settings))

    newest: dict[RunKey, RunEvent] = {}
    for event in sorted(events, key=lambda event: event.version):
        newest[event.key] = event
    for workflow_id in ("w0", "w1"):
        runs, _ = await reader.list_runs(workflow_id, limit=1_000)
        states = {run.id: run for run in runs}
        expected = {event.run.id: event.run for key, event in newest.items() if key[0] == workflow_id}
        assert states == expected
        successful = sum(run.status is RunStatus.SUCCESS for run in runs)
        assert await reader.get_stats(workflow_id) == {"total": 75, "successful": successful}
    history = await reader.get_history(*events[0].key)
    assert [line.version for line in history] == [event.version for event in events[:2]]
    assert sum(report.outcomes[Outcome.DUPLICATE] for report in reports) >= len(events)
    assert raw.is_empty()


async def test_a_missing_dead_letter_topic_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where dead letters cannot be kept, the message is given back; log and error say what to do."""
    raw = RawPubSub.provisioned()
    raw.publish([Message(data=b"no json")])
    broken = raw.settings.model_copy(update={"dead_letter_topic": "not-there"})

    with pytest.raises(TransportRefusedError, match="run-log provision"):
        await _pull(broken)

    assert "run_log_dead_lettered" not in {vars(record).get("event") for record in caplog.records}
    (error, *_) = [
        vars(r)["error"] for r in caplog.records if vars(r).get("event") == "run_log_dead_letter_failed"
    ]
    assert "topics/not-there is not there; run `run-log provision`" in error


async def test_a_missing_subscription_is_told() -> None:
    """Pulling from a subscription that is not there ends with an error that says what to run."""
    with pytest.raises(
        TransportRefusedError, match=r"run-log-projector is not there; run `run-log provision`"
    ):
        await _pull(Settings.from_env())


async def test_a_pulling_projector_tells_its_health() -> None:
    """While it pulls, a projector answers whether it is alive and ready, and how far behind it is."""
    raw = RawPubSub.provisioned()
    port = unused_port()
    stop = asyncio.Event()
    running = asyncio.create_task(pull(raw.settings, stop=stop, health=("127.0.0.1", port)))
    answers: dict[str, tuple[int, Any]] = {}

    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=_PATIENCE) as client:
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    await client.get("/live")
                    break
                except httpx2.TransportError:
                    await asyncio.sleep(0.01)
        for path in ("/live", "/ready", "/lag"):
            answer = await client.get(path)
            answers[path] = (answer.status_code, answer.json())
    stop.set()
    await running

    assert (200, {"stuck_for_seconds": 0.0, "failed": False}) == answers["/live"]
    assert (200, {"trouble": None}) == answers["/ready"]
    assert (200, {"lag_seconds": 0.0, "in_hand": 0}) == answers["/lag"]


async def test_a_health_port_that_is_taken() -> None:
    """A health port that somebody else has is an error that says so, and nothing is pulled."""
    raw = RawPubSub.provisioned()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="choose another port"):
            await pull(raw.settings, stop=asyncio.Event(), health=taken.getsockname()[:2])
