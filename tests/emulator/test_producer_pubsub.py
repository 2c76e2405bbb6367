from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from run_log.core import RunStatus, Settings, decode_event, encode_event
from run_log.core.wire import EVENT_TYPE
from run_log.producer import (
    FlushReport,
    PubSubRunLogService,
    RunEventEmitter,
    record_run,
    reset_default_emitter,
)
from run_log.producer._emitter import pubsub_transport
from run_log.producer._transport import DeliveryPolicy
from run_log.projector.google_cloud import pull
from run_log.pubsub import provision
from run_log.stores import FirestoreRunLogService
from run_log.testing import a_run, an_event

from .pubsub_kit import RawPubSub

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

_PATIENCE = 180.0


def test_an_event_is_a_cloud_event() -> None:
    """A run arrives as a CloudEvent: its context in the attributes, its state in the body."""
    raw = RawPubSub.provisioned()
    emitter = RunEventEmitter.from_env()
    event = an_event(workflow_id="a/b", id="r 1")

    emitter.emit(event)
    report = emitter.close(_PATIENCE)

    (message,) = raw.take(1)
    assert report == FlushReport(delivered=1, pending=0, dropped=0)
    attributes = dict(message.attributes)
    assert attributes == dict(encode_event(event).attributes)
    assert (attributes["ce-specversion"], attributes["ce-type"]) == ("1.0", EVENT_TYPE)
    assert (attributes["ce-id"], attributes["ce-source"]) == (event.event_id, "//run-log/workflows/a%2Fb")
    assert message.data == encode_event(event).data


def test_large_batches_arrive() -> None:
    """Thousands of events and megabytes of payload arrive, each once."""
    raw = RawPubSub.provisioned()
    emitter = RunEventEmitter.from_env()

    for number in range(1_500):
        emitter.emit(a_run(id=str(number)))
    for number in range(12):
        emitter.emit(a_run(id=f"large {number}", result={"x": "x" * 800_000}))
    report = emitter.close(_PATIENCE)

    assert report == FlushReport(delivered=1_512, pending=0, dropped=0)
    expected = {*map(str, range(1_500)), *(f"large {number}" for number in range(12))}
    assert {decode_event(message).run.id for message in raw.take(1_512)} == expected
    assert raw.is_empty()


def test_a_topic_that_is_missing_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """Without a topic emitting goes on and the log says what to do; once it is there all is delivered."""
    raw = RawPubSub.provisioned()
    missing = raw.settings.model_copy(update={"topic": "later", "subscription": "later-projector"})
    refused, ready = threading.Event(), threading.Event()

    def once_ready(_shortest: float, _longest: float) -> float:
        # A topic that is there before its subscription keeps nothing for it.
        refused.set()
        ready.wait(_PATIENCE)
        return 0

    emitter = RunEventEmitter(pubsub_transport(missing), policy=DeliveryPolicy(uniform=once_ready))
    with record_run("w", run_id="r", emitter=emitter):
        assert refused.wait(_PATIENCE)
    late = asyncio.run(emitter.flush(0.01))
    later = RawPubSub(missing)
    provision(later.connection, missing)
    ready.set()
    report = emitter.close(_PATIENCE)

    assert late == FlushReport(delivered=0, pending=2, dropped=0)
    assert report == FlushReport(delivered=2, pending=0, dropped=0)
    states = [decode_event(message).status for message in later.take(2)]
    assert sorted(states) == [RunStatus.RUNNING, RunStatus.SUCCESS]
    errors = [
        vars(record)["error"]
        for record in caplog.records
        if vars(record).get("event") == "run_log_publish_failed"
    ]
    assert all("topics/later is not there; run `run-log provision`" in error for error in errors)
    assert errors


def test_a_program_without_a_topic() -> None:
    """A short program whose topic is not there says on stderr what to do, and ends as it would."""
    script = (
        "import google.pubsub_v1\n"  # it takes a while, and the end of a process waits two seconds
        "from run_log.producer import record_run\n"
        "with record_run('w'): pass\n"
    )
    ended = subprocess.run(  # noqa: S603 - this interpreter, a script of the test's own
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "RUN_LOG_BACKEND": "pubsub", "RUN_LOG_TOPIC": "never-made"},
        timeout=_PATIENCE,
        check=False,
    )

    assert (0, "", 1) == (ended.returncode, ended.stdout, ended.stderr.count("\n"))
    assert ended.stderr.startswith("run-log: runs of this process are not recorded: ")
    assert "topics/never-made is not there; run `run-log provision`" in ended.stderr


async def test_the_service_from_the_environment() -> None:
    """What is saved by the back end pubsub is read back once the projector has come to it."""
    RawPubSub.provisioned()
    service = PubSubRunLogService.from_env()

    await service.save_run(a_run(status=RunStatus.RUNNING))
    await service.save_run(a_run())
    before = await service.get_run("workflow-1", "run-1")
    await service.emitter.flush(_PATIENCE)
    await pull(Settings.from_env(), stop=asyncio.Event(), until_idle=0.5)
    after = await service.get_run("workflow-1", "run-1")
    history = await service.get_history("workflow-1", "run-1")
    await service.close()

    assert before is None
    assert after == a_run()
    assert [line.status for line in history] == [RunStatus.RUNNING, RunStatus.SUCCESS]


@pytest.mark.parametrize("backend", ["firestore", "pubsub"])
async def test_a_workflow_that_is_given_no_emitter(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its environment alone a workflow's run reaches Firestore, directly or through Pub/Sub."""
    reset_default_emitter()
    monkeypatch.setenv("RUN_LOG_BACKEND", backend)
    raw = RawPubSub.provisioned()

    async with record_run("w", run_id="r"):
        pass
    await asyncio.to_thread(reset_default_emitter)
    await pull(raw.settings, stop=asyncio.Event(), until_idle=0.5)

    reader = FirestoreRunLogService.from_env()
    run = await reader.get_run("w", "r")
    stats = await reader.get_stats("w")
    await reader.close()
    assert run is not None
    assert run.status is RunStatus.SUCCESS
    assert stats == {"total": 1, "successful": 1}
