from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from run_log.core import RunStatus
from run_log.producer import FlushReport, RunEventEmitter, default_emitter, record_run, reset_default_emitter
from run_log.stores import get_run_log_service, reset_run_log_service

from .transports import PATIENCE, awaited, logged, run_script

Backend = Callable[[str], None]


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


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


async def test_sqlite_is_seen_by_every_service_of_the_file(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the back end sqlite, a recorded run is in the file after a flush, and a reset lets go of it."""
    backend("sqlite")
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", str(tmp_path / "runs"))
    threads = set(threading.enumerate())

    async with record_run("w", run_id="r"):
        pass
    report = await default_emitter().flush(PATIENCE)
    run = await get_run_log_service().get_run("w", "r")
    reset_default_emitter()
    await get_run_log_service().close()

    assert report == FlushReport(delivered=2, pending=0, dropped=0)
    assert run is not None
    assert RunStatus.SUCCESS is run.status
    assert ["runs"] == _names(tmp_path)
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE)
    assert threads == set(threading.enumerate())


@pytest.mark.parametrize("last", ["pass", "default_emitter().flush_sync(30)"])
@pytest.mark.process
def test_a_program_that_ends_leaves_its_runs_in_the_file(
    last: str, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the back end sqlite, what a program recorded just before its end is there for the next one."""
    backend("sqlite")
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", str(tmp_path / "runs"))

    told = run_script(
        f"""
        import logging, sys
        from run_log.producer import default_emitter, record_run
        logging.basicConfig(format="%(message)s %(exc_info)s", stream=sys.stdout)
        with record_run("w", run_id="r"):
            pass
        {last}
        """
    )
    printed = run_script(
        """
        import asyncio
        from run_log.stores import get_run_log_service

        async def main():
            log = get_run_log_service()
            print((await log.get_run("w", "r")).status.value, await log.get_stats("w"))
            await log.close()

        asyncio.run(main())
        """
    )

    assert ("", "success {'total': 1, 'successful': 1}\n") == (told, printed)
    assert ["runs"] == _names(tmp_path)


@pytest.mark.process
def test_a_forked_child_records_in_the_same_file(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the back end sqlite, parent and forked child record in one file, each run once."""
    backend("sqlite")
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", str(tmp_path / "runs"))

    printed = run_script(
        """
        import asyncio, os
        from run_log.producer import default_emitter, record_run
        from run_log.stores import get_run_log_service

        with record_run("w", run_id="before"):
            pass
        default_emitter().flush_sync(30)
        child = os.fork()
        for number in range(20):
            with record_run("w", run_id=f"{'parent' if child else 'child'}-{number}"):
                pass
        report = default_emitter().close(30)
        if not child:
            os._exit(report.pending + report.dropped)
        _, status = os.waitpid(child, 0)
        print(status, report.pending, report.dropped)
        log = get_run_log_service()
        print(asyncio.run(log.get_stats("w")))
        """
    )

    assert "0 0 0\n{'total': 41, 'successful': 41}\n" == printed


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
    async with record_run("w", run_id="loads what delivers"):
        pass
    await default_emitter().flush(PATIENCE)
    async with record_run("w", run_id="r"):
        pass

    reset_default_emitter()

    assert await get_run_log_service().get_run("w", "r") is not None
    assert asyncio.get_event_loop() is asyncio.get_running_loop()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("RUN_LOG_BACKEND", "no-such", "firestore, memory, pubsub, sqlite"),
        ("RUN_LOG_TOPICC", "x", "did you mean RUN_LOG_TOPIC?"),
        ("RUN_LOG_TOPIC", "?", "RUN_LOG_TOPIC"),
        ("RUN_LOG_REDACT_KEYS", "-no-such", "RUN_LOG_REDACT_KEYS"),
        ("RUN_LOG_BUFFER_EVENTS", "many", "RUN_LOG_BUFFER_EVENTS"),
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
    """Where the environment is wrong the workflow runs on, and the log says once what to set."""
    backend("memory")
    monkeypatch.setenv(variable, value)
    done: list[bool] = []

    with record_run("w"):
        done.append(True)
    (record,) = awaited(caplog, "run_log_publish_failed")
    reset_default_emitter()

    assert done == [True]
    assert told in record["error"]
    assert [2] == [record["count"] for record in logged(caplog, "run_log_events_undelivered")]


def test_a_repaired_environment_is_taken(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure the next run tries again."""
    backend("memory")
    monkeypatch.setenv("RUN_LOG_TOPICC", "x")
    broken, again = default_emitter(), default_emitter()

    monkeypatch.delenv("RUN_LOG_TOPICC")

    assert broken is again
    assert broken is not default_emitter() is default_emitter()


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
    (record,) = awaited(caplog, "run_log_publish_failed")
    reset_default_emitter()

    assert "credentials" in record["error"]


@pytest.mark.parametrize("name", ["pubsub", "firestore"])
@pytest.mark.process
def test_nothing_is_looked_for_on_the_workflows_thread(name: str, backend: Backend) -> None:
    """Making the process's emitter neither imports a vendor's library nor looks for credentials."""
    backend(name)
    printed = run_script(
        """
        import sys, threading
        from run_log.producer import default_emitter
        default_emitter()
        print([name for name in sys.modules if name.split(".")[0] in ("google", "grpc")])
        print(threading.active_count())
        """
    )

    assert printed.splitlines() == ["[]", "1"]


async def test_after_a_reset_of_the_run_log_runs_go_to_the_new_one() -> None:
    """With the back end memory, recorded runs follow `reset_run_log_service` to the new service."""
    with record_run("w", run_id="before"):
        pass
    await default_emitter().flush(PATIENCE)
    reset_run_log_service()

    with record_run("w", run_id="after"):
        pass
    await default_emitter().flush(PATIENCE)

    listed, _ = await get_run_log_service().list_runs("w")
    assert ["after"] == [run.id for run in listed]
