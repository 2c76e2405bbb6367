"""Which files of ours an event and a listing pass through: ``python -m tests.benchmarks.walks``."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from run_log.core import Settings
from run_log.producer import RunEventEmitter
from run_log.projector import Projector, PullWorker
from run_log.projector.pubsub import PubSubDeadLetters, PubSubSource
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import FirestoreRunLogService, RunLogService, SQLiteRunLogService
from run_log.testing import FirestoreEmulator, PubSubEmulator, a_run

_MARK = f"{os.sep}run_log{os.sep}"


@contextmanager
def _walking(files: set[str]) -> Generator[None]:
    """Add to *files* each of ours in which a function is called, in any thread."""

    def called(frame: FrameType, event: str, _argument: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and _MARK in name and f"{os.sep}testing{os.sep}" not in name:
            files.add(name.rpartition(_MARK)[2])

    threading.setprofile(called)
    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def _projected(service: FirestoreRunLogService, settings: Settings) -> set[str]:
    """Walk with a second event: the first has made what is made once."""
    connection = PubSubConnection.from_settings(settings)
    emitted: set[str] = set()
    emitter = RunEventEmitter.from_env()
    source = PubSubSource(connection, settings.subscription)
    letters = PubSubDeadLetters(connection, settings.dead_letter_topic)
    worker = PullWorker(source, Projector(service), letters)
    stop = asyncio.Event()
    # Threads are looked at from their start, so the emitter's and the worker's begin within.
    with _walking(emitted):
        running = asyncio.create_task(worker.run(stop=stop))
        emitter.emit(a_run(id="first"))
        await emitter.flush(10)
        while await service.get_run("workflow-1", "first") is None:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)
        emitted.clear()
        emitter.emit(a_run(id="second"))
        await emitter.flush(10)
        stop.set()
        await running
    emitter.close()
    return emitted


async def _listed(service: RunLogService) -> set[str]:
    await service.list_runs("workflow-1")
    files: set[str] = set()
    with _walking(files):
        await service.list_runs("workflow-1")
    return files


def _show(title: str, files: set[str]) -> None:
    sys.stdout.write(f"{title}: {len(files)} files\n")
    for name in sorted(files):
        sys.stdout.write(f"  {name}\n")


async def _walks(settings: Settings, path: Path) -> None:
    firestore = FirestoreRunLogService.from_env()
    sqlite = SQLiteRunLogService(path=path)
    await sqlite.save_run(a_run())
    _show("an event, from emit to its document", await _projected(firestore, settings))
    _show("list_runs of Firestore", await _listed(firestore))
    _show("list_runs of SQLite", await _listed(sqlite))
    await firestore.close()
    await sqlite.close()


def main() -> int:
    """Show the walks."""
    with (
        FirestoreEmulator() as firestore,
        PubSubEmulator() as pubsub,
        tempfile.TemporaryDirectory() as folder,
    ):
        os.environ.update({**firestore.environment, **pubsub.environment, "GOOGLE_CLOUD_PROJECT": "walks"})
        settings = Settings.from_env()
        provision(PubSubConnection.from_settings(settings), settings)
        asyncio.run(_walks(settings, Path(folder) / "runs.db"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
