"""The embedded file with several processes: at once, killed in the middle, and forked."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import IO, Final

import pytest

from run_log.core import WorkflowRun
from run_log.core.stats import count_statuses
from run_log.stores import SQLiteRunLogService

pytestmark = pytest.mark.process

PATIENCE: Final = 60.0
"""Seconds after which a test gives up waiting; nothing takes that long."""

WRITERS: Final = 4
RUNS: Final = 60
WORKFLOWS: Final = ("w0", "w1", "w2")

EVENTS: Final = f"""
import asyncio, os, random, signal, sqlite3, sys
from datetime import UTC, datetime, timedelta
from run_log.core import Outcome, RunStatus
from run_log.stores import SQLiteRunLogService
from run_log.testing import a_run, an_event

def told(number):
    started_at = datetime(2026, 3, 4, tzinfo=UTC) + timedelta(seconds=number)
    ended = (RunStatus.SUCCESS, RunStatus.FAILED)[number % 2]
    return [
        an_event(
            workflow_id=f"w{{number % {len(WORKFLOWS)}}}", id=f"r{{number:05}}", started_at=started_at,
            status=status, hlc=hlc, event_id=f"{{number}}-{{hlc}}",
        )
        for hlc, status in enumerate((RunStatus.PENDING, RunStatus.RUNNING, ended))
    ]
"""
"""What scripts know: the three events of a run, alike in every process."""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start *script*, after `EVENTS`, in a fresh interpreter; whoever starts it waits for it."""
    # From 3.12 on CPython warns of any fork beside threads: forking there is what these scripts test.
    forks = "ignore:This process:DeprecationWarning"
    return subprocess.Popen(  # noqa: S603 - our own interpreter on our own text
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            forks,
            "-c",
            EVENTS + textwrap.dedent(script),
            *map(str, arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stream(opened: IO[str] | None) -> IO[str]:
    """Return a process's stream, which is there."""
    assert opened is not None
    return opened


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for *process* to end well; return what it printed."""
    printed, complaints = process.communicate(timeout=PATIENCE)
    assert (0, "") == (process.returncode, complaints)
    return printed


async def contents(file: Path) -> tuple[dict[str, list[WorkflowRun]], dict[str, dict[str, int]]]:
    """Return the runs and the stats of each workflow, as a service that opens *file* anew reads them."""
    service = SQLiteRunLogService(path=file)
    runs = {name: [run async for run in service.iter_runs(name)] for name in WORKFLOWS}
    stats = {name: await service.get_stats(name) for name in WORKFLOWS}
    await service.close()
    return runs, stats


def checked(file: Path) -> list[WorkflowRun]:
    """Return all runs in *file*, after a check that it is whole and that its stats equal a recount."""
    runs, stats = asyncio.run(contents(file))
    with closing(sqlite3.connect(file)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        for workflow, statuses in ((name, [run.status for run in own]) for name, own in runs.items()):
            recount = count_statuses(statuses)
            assert {"total": recount.total, "successful": recount.successful} == stats[workflow]
            kept = connection.execute("SELECT count(*) FROM runs WHERE workflow = ?", (workflow,)).fetchone()
            assert (len(statuses),) == kept
    return [run for own in runs.values() for run in own]


def test_processes_write_one_file(tmp_path: Path) -> None:
    """With the back end sqlite, runs outlive the process and several processes may write one file."""
    file = tmp_path / "runs.sqlite3"
    writers = [
        start(
            """
            events = [event for number in range(int(sys.argv[2])) for event in told(number)]
            events += events[::7]
            random.Random(int(sys.argv[3])).shuffle(events)

            async def main():
                service = SQLiteRunLogService(path=sys.argv[1])
                print("ready", flush=True)
                sys.stdin.readline()
                outcomes = []
                for first in range(0, len(events), 5):
                    outcomes += await service.apply(events[first : first + 5])
                await service.close()
                print(len(events), outcomes.count(Outcome.DUPLICATE), flush=True)

            asyncio.run(main())
            """,
            file,
            RUNS,
            seed,
        )
        for seed in range(WRITERS)
    ]

    for writer in writers:
        assert "ready\n" == stream(writer.stdout).readline()
    for writer in writers:
        stream(writer.stdin).write("go\n")
        stream(writer.stdin).flush()
    told = [list(map(int, finished(writer).split())) for writer in writers]

    runs = checked(file)
    assert RUNS == len({run.key for run in runs}) == len(runs)
    assert all(run.status.is_terminal for run in runs)
    # Each event was new to exactly one of them, once.
    assert 3 * RUNS == sum(events - duplicates for events, duplicates in told)


@pytest.mark.parametrize(
    "point",
    ["BEGIN IMMEDIATE", "UPDATE sequence", "INSERT INTO runs", "INSERT INTO workflows", "COMMIT"],
)
def test_a_process_killed_in_a_transaction(tmp_path: Path, point: str) -> None:
    """Killed at any step of a transaction, a process leaves what it had said to be applied, and no more."""
    file = tmp_path / "runs.sqlite3"
    script = """
        async def main():
            service = SQLiteRunLogService(path=sys.argv[1])
            await service.apply([event for number in range(10) for event in told(number)])

            def watch(statement):
                if statement.startswith(sys.argv[2]):
                    os.kill(os.getpid(), signal.SIGKILL)

            await service._writer.run(lambda connection: connection.set_trace_callback(watch))
            await service.apply([event for number in range(5, 20) for event in told(number)])

        asyncio.run(main())
        """

    killed = start(script, file, point)
    _, complaints = killed.communicate(timeout=PATIENCE)

    assert (-signal.SIGKILL, "") == (killed.returncode, complaints)
    assert 10 == len(checked(file))
    killed = start(script, file, "no such statement")
    finished(killed)
    assert 20 == len(checked(file))


def test_processes_killed_at_any_moment(tmp_path: Path) -> None:
    """Killed again and again while they write, processes leave a whole file with all they had answered."""
    file = tmp_path / "runs.sqlite3"
    answered = 0
    for _ in range(4):
        writer = start(
            """
            async def main():
                service = SQLiteRunLogService(path=sys.argv[1])
                for number in range(int(sys.argv[2]), 100_000, 3):
                    await service.apply([event for n in range(number, number + 3) for event in told(n)])
                    print(number + 3, flush=True)

            asyncio.run(main())
            """,
            file,
            answered,
        )
        for _ in range(10):
            answered = int(stream(writer.stdout).readline())
        writer.kill()
        # What the stream has read ahead is known to it alone.
        rest = stream(writer.stdout).read()
        writer.communicate(timeout=PATIENCE)
        answered = max([answered, *(int(line) for line in rest.splitlines() if line)])

        runs = checked(file)
        # What was written last may have been killed before it said so.
        assert len(runs) in (answered, answered + 3)
        assert all(run.status.is_terminal for run in runs)


def test_a_forked_child(tmp_path: Path) -> None:
    """A fork carries no connection over, whatever is under way; parent and child go on with one service."""
    file = tmp_path / "runs.sqlite3"
    forking = start(
        """
        import threading

        service = SQLiteRunLogService(path=sys.argv[1])
        inside = threading.Event()

        def slow(connection):
            connection.execute("BEGIN IMMEDIATE")
            inside.set()
            for event in told(0):
                pass
            connection.execute("ROLLBACK")

        async def save(numbers):
            for number in numbers:
                await service.apply(told(number))
            return await service.get_stats("w0")

        asyncio.run(save([0]))
        busy = threading.Thread(target=lambda: asyncio.run(service._writer.run(slow)))
        busy.start()
        inside.wait()
        child = os.fork()
        held = [one._handle.connection for one in (service._writer, service._reader)]
        assert held == [None, None], held
        if child == 0:
            asyncio.run(save(range(1, 30, 2)))
            asyncio.run(service.close())
            os._exit(0)
        asyncio.run(save(range(2, 30, 2)))
        _, status = os.waitpid(child, 0)
        busy.join()
        asyncio.run(service.close())
        print(status)
        """,
        file,
    )

    assert "0\n" == finished(forking)
    assert 30 == len(checked(file))


def test_a_child_of_a_child(tmp_path: Path) -> None:
    """Processes forked one from another all write: each run is there once."""
    file = tmp_path / "runs.sqlite3"
    forking = start(
        """
        service = SQLiteRunLogService(path=sys.argv[1])
        for number in range(4):
            asyncio.run(service.apply(told(number)))
            child = os.fork()
            if child:
                _, status = os.waitpid(child, 0)
                asyncio.run(service.apply(told(number + 10)))
                asyncio.run(service.close())
                os._exit(status)
        os._exit(0)
        """,
        file,
    )

    finished(forking)
    assert 8 == len(checked(file))
