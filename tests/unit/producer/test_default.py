from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from run_log.core import RunStatus
from run_log.producer import FlushReport, RunEventEmitter, default_emitter, record_run, reset_default_emitter
from run_log.stores import get_run_log_service, reset_run_log_service

from .transports import PATIENCE, logged

Backend = Callable[[str], None]


async def test_memory_is_seen_by_the_processs_own_service(backend: Backend) -> None:
    """With the back end memory, a recorded run is in `get_run_log_service` after a flush."""
    backend("memory")

    async with record_run("w", run_id="r"):
        pass
    emitter = default_emitter()
    assert isinstance(emitter, RunEventEmitter)
    report = await emitter.flush(PATIENCE)

    assert report == FlushReport(delivered=2, pending=0, dropped=0)
    run = await get_run_log_service().get_run("w", "r")
    assert run is not None
    assert RunStatus.SUCCESS is run.status
    assert await get_run_log_service().get_stats("w") == {"total": 1, "successful": 1}


def test_there_is_one_until_it_is_reset(backend: Backend) -> None:
    """The process's emitter is the same at every call, and another one after a reset, which closes it."""
    backend("memory")
    first = default_emitter()

    again = default_emitter()
    reset_default_emitter()

    assert first is again
    assert isinstance(first, RunEventEmitter)
    first.emit(object())
    assert first is not default_emitter()


async def test_a_reset_within_a_loop(backend: Backend) -> None:
    """Closing the process's emitter from async code delivers, and disturbs no event loop."""
    backend("memory")
    async with record_run("w", run_id="r"):
        pass

    reset_default_emitter()

    assert await get_run_log_service().get_run("w", "r") is not None
    assert asyncio.get_event_loop() is asyncio.get_running_loop()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("RUN_LOG_BACKEND", "sqlite", "firestore, memory, pubsub"),
        ("RUN_LOG_TOPICC", "x", "did you mean RUN_LOG_TOPIC?"),
        ("RUN_LOG_TOPIC", "?", "RUN_LOG_TOPIC"),
    ],
)
def test_a_wrong_environment_is_logged(
    variable: str,
    value: str,
    told: str,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the environment is wrong the workflow runs on, and the log says what to set."""
    backend("memory")
    monkeypatch.setenv(variable, value)
    done: list[bool] = []

    with record_run("w"):
        done.append(True)

    assert done == [True]
    records = logged(caplog, "run_log_not_recorded")
    assert [told in record["error"] for record in records] == [True, True]


def test_a_repaired_environment_is_taken(backend: Backend) -> None:
    """After a failure the next run tries again."""
    backend("sqlite")
    broken = default_emitter()

    backend("memory")

    assert not isinstance(broken, RunEventEmitter)
    assert isinstance(default_emitter(), RunEventEmitter)


@pytest.mark.parametrize("name", ["pubsub", "firestore"])
@pytest.mark.parametrize("where", [".", "missing.json", "broken.json"])
def test_credentials_that_cannot_be_read(
    where: str,
    name: str,
    tmp_path: Path,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Credentials that are a folder, missing or broken are logged, and the workflow runs on."""
    backend(name)
    (tmp_path / "broken.json").write_text("{")
    for variable in ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "some-project")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / where))

    with record_run("w"):
        pass

    assert len(logged(caplog, "run_log_not_recorded")) == 2


async def test_after_a_reset_of_the_run_log_runs_go_to_the_new_one() -> None:
    """With the back end memory, recorded runs follow `reset_run_log_service` to the new service."""
    with record_run("w", run_id="before"):
        pass
    await default_emitter().flush()
    reset_run_log_service()

    with record_run("w", run_id="after"):
        pass
    await default_emitter().flush()

    listed, _ = await get_run_log_service().list_runs("w")
    assert ["after"] == [run.id for run in listed]


async def test_a_wrong_environment_is_told_by_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no emitter can be made, flushing returns at once and counts what was not recorded."""
    monkeypatch.setenv("RUN_LOG_BACKEND", "no-such-back-end")
    before = default_emitter().stats.dropped

    with record_run("w"):
        pass

    assert FlushReport(delivered=0, pending=0, dropped=before + 2) == await default_emitter().flush()
    assert before + 2 == default_emitter().close().dropped == default_emitter().stats.emitted
