"""Tasks of real workers, each with its own kind of pool, and what the run log says of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.frameworks import SECONDS, framework
from tests.processes import started
from tests.unit.docs.repository import blocks, read

from run_log.core import RunStatus, Step, Transition, WorkflowRun
from run_log.stores import SQLiteRunLogService

CELERY = framework("celery")

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(900),  # the first run fetches Celery
]

POOLS = {
    "threads": ["--pool=threads", "--concurrency=3"],
    "gevent": ["--pool=gevent", "--concurrency=3"],
    "solo": ["--pool=solo"],
    "single-use": ["--pool=prefork", "--concurrency=3", "--max-tasks-per-child=1"],
}
"""How a worker runs tasks, by the queue that it takes them from."""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the variables that lead programs to one folder; Celery's environment is there then."""
    CELERY.make()
    folder = tmp_path_factory.mktemp("celery")
    return {
        "CELERY_FOLDER": str(folder),
        "RUN_LOG_BACKEND": "sqlite",
        "RUN_LOG_SQLITE_PATH": str(folder / "runs"),
    }


@contextlib.contextmanager
def worker(environ: Mapping[str, str], *options: str) -> Generator[subprocess.Popen[str]]:
    """Run a worker, whose processes do not outlive the block."""
    folder = environ["CELERY_FOLDER"]
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", f"--logfile={folder}/log")
    process = CELERY.start(
        *("-m", "celery", "-q", "-A", "tests.adapters.celery.shop", "worker"),
        *(*quiet, *options),
        environ=environ,
        output=subprocess.DEVNULL,
    )
    with process:
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a worker with its processes, if it is there still."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)  # it replaces processes that end, from any of its threads
        threads = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [child for thread in threads for child in thread.read_text().split()]
        process.kill()
        process.wait()
        for child in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def end(process: subprocess.Popen[str]) -> int:
    """End a worker as its operator does, and return its exit code."""
    process.terminate()
    return process.wait(SECONDS)


def sent(environ: Mapping[str, str], *arguments: str) -> dict[str, str]:
    """Have a process send tasks, and return their ids."""
    done = CELERY.run("-m", "tests.adapters.celery.send", *arguments, environ=environ)
    assert 0 == done.returncode, done.stderr
    ids: dict[str, str] = json.loads(done.stdout)
    return ids


async def until(is_so: Callable[[], Awaitable[bool]], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until it is so. A worker that is named has to be there meanwhile."""
    deadline = time.monotonic() + SECONDS
    while not await is_so():
        assert process is None or process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Recorded:
    """The run log as it is once all is done."""

    ids: Mapping[str, str]
    """The ids of tasks, by the names of what sent them."""
    runs: Mapping[str, WorkflowRun]
    """All runs, by id."""
    histories: Mapping[str, tuple[Transition, ...]]
    steps: Mapping[str, tuple[Step, ...]]

    @classmethod
    async def of(
        cls, environ: Mapping[str, str], ids: Mapping[str, str], *, queue: str | None = None
    ) -> Recorded:
        """Read it. Of the tasks that were sent, only those of a *queue*; None for all."""
        log = SQLiteRunLogService(path=environ["RUN_LOG_SQLITE_PATH"])
        runs = {
            run.id: run
            async for run in log.iter_runs(None)
            if queue is None or run.labels.get("queue", queue) == queue
        }
        histories = {run.id: await log.get_history(*run.key) for run in runs.values()}
        steps = {run.id: await log.get_steps(*run.key) for run in runs.values()}
        await log.close()
        return cls(ids, runs, histories, steps)

    def __getitem__(self, name: str) -> WorkflowRun:
        """Return the run of a task, by its name."""
        return self.runs[self.ids[name]]

    def named(self, workflow_id: str) -> list[WorkflowRun]:
        """Return the runs of a workflow."""
        return [run for run in self.runs.values() if run.workflow_id == workflow_id]

    def states(self, name: str) -> str:
        """Return the history of a task: each status with its attempt."""
        return " ".join(f"{line.status}{line.attempt}" for line in self.histories[self.ids[name]])


@pytest.fixture(scope="module")
def everything(environ: Mapping[str, str]) -> Recorded:
    """Return the run log of what `send` sends and runs, after a worker with three processes."""
    ids = sent(environ, "everything")

    async def is_done() -> bool:
        log = await Recorded.of(environ, ids, queue="celery")
        runs = [*log.named("total"), *log.named("retried"), *(log[name] for name in ids)]
        return bool(log.named("total")) and all(run.status.is_terminal for run in runs)

    options = ("--concurrency=3", "--beat", f"--schedule={environ['CELERY_FOLDER']}/beat")
    with worker(environ, *options) as process:
        asyncio.run(until(is_done, process))
        assert 0 == end(process)
    # Tests that come first may have sent tasks of the same names to other queues.
    return asyncio.run(Recorded.of(environ, ids, queue="celery"))


def test_a_task_is_a_run(everything: Recorded) -> None:
    """A task waits, runs and ends, with its arguments, its result and its steps, whatever the clocks say."""
    run = everything["first"]

    assert ("add", "celery", RunStatus.SUCCESS) == (run.workflow_id, run.trigger_type, run.status)
    assert {"args": [1, 2], "kwargs": {}} == run.trigger_data
    assert {"value": 3} == run.result
    assert {"queue": "celery", "priority": "3"} == run.labels
    assert run.parent is None
    assert "pending1 running1 success1" == everything.states("first")
    assert ["sum"] == [step.name for step in everything.steps[run.id]]


def test_a_task_that_waits_for_its_time(everything: Recorded) -> None:
    """The time that a task waits for is a label, whether it was given or counted from now."""
    run = everything["later"]

    assert datetime.fromisoformat(run.labels["eta"]) <= run.started_at


def test_a_task_that_fails(everything: Recorded) -> None:
    """A task that raises fails its run, with the exception's type, its text and where it was raised."""
    run = everything["fail"]

    assert "pending1 running1 failed1" == everything.states("fail")
    assert "ValueError" == run.error_type
    assert run.error is not None
    assert run.error.startswith("ValueError: no such order\n")
    assert "in fail" in run.error


def test_a_result_that_cannot_be_stored(everything: Recorded) -> None:
    """A task whose result the back end does not take fails, as it does for Celery."""
    assert "pending1 running1 failed1" == everything.states("no room")
    assert "OSError" == everything["no room"].error_type


def test_retries_are_attempts(everything: Recorded) -> None:
    """Each retry is the next attempt of the same run, which waits for it meanwhile."""
    twice = "pending1 running1 failed1 pending2 running2"

    assert f"{twice} failed2 pending3 running3 success3" == everything.states("retried")
    assert {"attempts": 3} == everything["retried"].result
    assert "eta" in everything["retried"].labels
    assert f"{twice} failed2" == everything.states("gives up")
    assert "OSError" == everything["gives up"].error_type


def test_secrets_are_replaced(everything: Recorded) -> None:
    """Secrets among the arguments do not reach the run log, with whatever state they come."""
    hidden = {"password": "[redacted]"}, {"api_key": "[redacted]"}

    assert hidden == tuple(everything[name].trigger_data["kwargs"] for name in ("retried", "unknown"))


def test_what_the_caller_shows(everything: Recorded) -> None:
    """Where the caller says what is shown of arguments, that is recorded, through all attempts."""
    assert {"args": "(one)", "kwargs": "{'card': '****'}"} == everything["shown"].trigger_data
    assert "pending1 running1 failed1 pending2 running2 success2" == everything.states("shown")
    assert {"args": "(***)", "kwargs": {}} == everything["shown once"].trigger_data


def test_odd_messages(everything: Recorded) -> None:
    """A task with headers of others, or an id longer than a run's, is recorded from its beginning."""
    for name in ("any headers", "long id"):
        assert "pending1 running1 success1" == everything.states(name)
        assert {"args": [1, 2], "kwargs": {}} == everything[name].trigger_data


def test_parents(everything: Recorded) -> None:
    """What a task sends has it as its parent: groups, chords, chains. A chain's link has the one before."""
    order = everything["order"].key
    sums = {tuple(run.trigger_data["args"]): run for run in everything.named("add")}
    (total,) = everything.named("total")
    first, second = sums[1, 1], sums[2, 2]
    chained = next(
        run for run in everything.named("add") if run.parent == order and "group" not in run.labels
    )
    assert chained.key == sums[3, 3].parent
    assert [order] * 3 == [run.parent for run in (first, second, total)]
    assert {"value": 6} == total.result
    assert first.labels["group"] == second.labels["group"]
    assert {order[1]} == {run.labels["root"] for run in (chained, sums[3, 3], first, second, total)}


def test_runs_around(everything: Recorded) -> None:
    """A task that is sent from within a run has that one as its parent, through all its retries."""
    assert ("night", "n1") == everything["nightly"].parent == everything["eager"].parent
    inner = [run for run in everything.named("retried") if "kind" in run.trigger_data["kwargs"]]
    assert [(("packing", "box"), 2)] == [(run.parent, run.attempt) for run in inner]


def test_no_run_stays_around(everything: Recorded) -> None:
    """However a task ends, the next one in its process does not have it as its parent."""
    assert {"nightly", "eager"} == {name for name in everything.ids if everything[name].parent is not None}


def test_revoked_tasks(everything: Recorded) -> None:
    """A task that is revoked, or expires, is cancelled, and says why."""
    assert ("pending1 cancelled1", "expired") == (everything.states("expired"), everything["expired"].error)
    revoked = everything.runs[everything["revoke"].result["value"]]
    assert ["pending", "cancelled"] == [line.status.value for line in everything.histories[revoked.id]]
    assert "revoked" == revoked.error


def test_tasks_that_end_otherwise(everything: Recorded) -> None:
    """A task that is ignored is skipped; one that is rejected fails, or runs when it is delivered again."""
    assert ("pending1 running1 skipped1", "nothing new") == (
        everything.states("ignored"),
        everything["ignored"].error,
    )
    assert ("pending1 running1 skipped1", "") == (everything.states("untold"), everything["untold"].error)
    assert "pending1 running1 failed1" == everything.states("rejected")
    assert "celery.exceptions.Reject" == everything["rejected"].error_type
    assert "pending1 running1 running1 success1" == everything.states("requeued")


def test_a_task_that_replaces_itself(everything: Recorded) -> None:
    """A task that is replaced by itself is one run, which ends when the last one does."""
    assert f"{'pending1 ' * 4}{'running1 ' * 4}success1" == everything.states("replaced")


def test_a_soft_time_limit(everything: Recorded) -> None:
    """A task that exceeds its soft time limit fails by the exception that Celery raises in it."""
    assert "pending1 running1 failed1" == everything.states("soft")
    assert "billiard.exceptions.SoftTimeLimitExceeded" == everything["soft"].error_type


def test_a_large_result(everything: Recorded) -> None:
    """A result that is too large is cut, and the run is a success."""
    assert "pending1 running1 success1" == everything.states("large")
    assert 1 == everything["large"].result["count"]
    assert everything["large"].result["rows"].startswith("run-log: cut")


def test_a_task_that_no_worker_knows(everything: Recorded) -> None:
    """A task that its worker does not know fails."""
    assert "pending1 failed1" == everything.states("unknown")
    assert "celery.exceptions.NotRegistered" == everything["unknown"].error_type


def test_beat(everything: Recorded) -> None:
    """What beat sends has the trigger of a schedule."""
    assert {"scheduled"} == {run.trigger_type for run in everything.named("tick")}


def test_eager_tasks(everything: Recorded) -> None:
    """A task that is applied where it is called is a run, too."""
    for name in ("eager", "always eager"):
        assert "running1 success1" == everything.states(name)
    assert "running1 failed1 running2 failed2 running3 success3" == everything.states("eager retry")
    for name in ("eager fail", "thrown"):
        assert ("running1 failed1", "ValueError") == (everything.states(name), everything[name].error_type)


def test_what_is_no_run(everything: Recorded) -> None:
    """A call of a task's function, a task of another app, and one that could not be sent are no runs."""
    assert 1 == len(everything.named("total"))
    names = (
        *("first", "later", "expired", "nightly", "eager", "always eager"),
        *("shown once", "any headers", "long id", "no room"),
    )
    inner = {run.id for run in everything.named("add") if "root" in run.labels}
    assert {everything.ids[name] for name in names} | inner == {run.id for run in everything.named("add")}


def test_no_state_is_out_of_order(everything: Recorded) -> None:
    """No run breaks the order of states, though the clock of the process that sends is far ahead."""
    assert not [line for lines in everything.histories.values() for line in lines if line.anomaly]


async def test_processes_that_end(environ: Mapping[str, str]) -> None:
    """A task whose process ends fails. One that is delivered again then runs once more, as the same run."""
    ids = sent(environ, "that end processes")

    # It is killed in the end: where a broker has no event loop, the pool's processes share a pipe and its
    # lock, which a killed one may hold for good. So Celery's pool may wait for ever, with run-log or without.
    with worker(environ, "--queues=dying", "--concurrency=2") as process:
        await until(lambda: have_ended(environ, ids), process)

    log = await Recorded.of(environ, ids)
    assert RunStatus.SUCCESS is log["killed"].status
    assert {"value": "lives"} == log["killed"].result
    assert 1 == log["killed"].attempt == len(log.named("killed"))
    lost = "billiard.exceptions.WorkerLostError"
    assert [lost, lost] == [log[name].error_type for name in ("lost", "exits")]
    assert {"args": [], "kwargs": {}} == log["lost"].trigger_data
    assert not any(line.anomaly for task_id in ids.values() for line in log.histories[task_id])


async def have_ended(environ: Mapping[str, str], ids: Mapping[str, str]) -> bool:
    """Return whether all these tasks have."""
    log = await Recorded.of(environ, ids)
    return all(log[name].status.is_terminal for name in ids)


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
async def test_tasks_that_the_worker_ends(pool: str, environ: Mapping[str, str]) -> None:
    """A task that is terminated is cancelled, and one that exceeds its time limit fails."""
    ids = sent(environ, "two to end", f"harsh-{pool}")

    async def are_running() -> bool:
        log = await Recorded.of(environ, ids)
        return all(log[name].status is not RunStatus.PENDING for name in ids)

    with worker(environ, f"--queues=harsh-{pool}", f"--pool={pool}", "--concurrency=2") as process:
        await until(are_running, process)
        sent(environ, "terminate", ids["terminated"])
        await until(lambda: have_ended(environ, ids), process)

    log = await Recorded.of(environ, ids)
    assert "pending1 running1 cancelled1" == log.states("terminated")
    assert "terminated by signal 15" == log["terminated"].error
    assert log.states("hard").startswith("pending1 running1 failed1")
    assert "billiard.exceptions.TimeLimitExceeded" == log["hard"].error_type
    assert log["hard"].duration_ms > 1_000
    assert not any(line.anomaly for task_id in ids.values() for line in log.histories[task_id])


@pytest.fixture(scope="module")
def for_pools(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the ids of tasks for each kind of pool."""
    return sent(environ, "to each", *POOLS)


def has_ended(folder: Path, task_id: str) -> bool:
    """Return whether the task has said so itself, or Celery has stored it."""
    file = folder / "results" / f"celery-task-meta-{task_id}"
    is_stored = file.exists() and ('"SUCCESS"' in (text := file.read_text()) or '"FAILURE"' in text)
    return is_stored or (folder / "done" / task_id).exists()


@pytest.mark.parametrize("pool", POOLS)
async def test_every_pool(pool: str, environ: Mapping[str, str], for_pools: Mapping[str, str]) -> None:
    """A worker that is ended once its tasks have ended loses no state of them, however it runs tasks."""
    ids = {name: task_id for name, task_id in for_pools.items() if name.startswith(pool)}

    async def is_done() -> bool:
        return all(has_ended(Path(environ["CELERY_FOLDER"]), task_id) for task_id in ids.values())

    with worker(environ, f"--queues={pool}", *POOLS[pool]) as process:
        await until(is_done, process)
        assert 0 == end(process)

    log = await Recorded.of(environ, ids)
    expected = {
        "add": "pending1 running1 success1",
        "fail": "pending1 running1 failed1",
        "retried": "pending1 running1 failed1 pending2 running2 success2",
    }
    assert {name: expected[name.split()[1]] for name in ids} == {name: log.states(name) for name in ids}
    assert {pool} == {log[name].labels["queue"] for name in ids}


async def test_messages_of_the_first_protocol(environ: Mapping[str, str]) -> None:
    """Of a message of Celery's first protocol, the task is a run from when it begins, without a parent."""
    ids = sent(environ, "by the first protocol", "old")

    with worker(environ, "--queues=old", "--pool=solo") as process:

        async def is_done() -> bool:
            log = await Recorded.of(environ, ids)
            return all(task_id in log.runs for task_id in ids.values()) and await have_ended(environ, ids)

        await until(is_done, process)

    log = await Recorded.of(environ, ids)
    retried = "running1 failed1 pending2 running2 success2"
    expected = {"add": "running1 success1", "fail": "running1 failed1", "retried": retried}
    assert {name: expected[name.split()[1]] for name in ids} == {name: log.states(name) for name in ids}
    assert {None} == {log[name].parent for name in ids}


def deliver_again(folder: Path, queue: str) -> None:
    """Do what a broker does with a message that a worker took and did not acknowledge."""
    (message,) = folder.glob(f"done/*.{queue}.msg")
    message.rename(folder / "queues" / message.name)


async def test_a_killed_worker(environ: Mapping[str, str]) -> None:
    """A run of a killed worker falls silent and is swept; when its task is delivered again, it succeeds."""
    ids = sent(environ, "interrupted")
    log = SQLiteRunLogService(path=environ["RUN_LOG_SQLITE_PATH"])

    async def is_stale(older_than: timedelta) -> bool:
        return bool((await log.list_stale(older_than, workflow_id="interrupted"))[0])

    async def has_beaten() -> bool:
        later = datetime.now(UTC) + timedelta(hours=1)
        found, _ = await log.list_stale(timedelta(0), workflow_id="interrupted", now=later)
        return any(each.heard_at > each.run.started_at + timedelta(seconds=1) for each in found)

    with worker(environ, "--queues=interrupted", "--pool=solo") as process:
        await until(has_beaten, process)
        assert not await is_stale(timedelta(minutes=1))
        process.kill()
        process.wait()
    await until(lambda: is_stale(timedelta(seconds=3)))
    async with started(
        "sweep", "--older-than", "3s", "--workflow", "interrupted", "--mark", environment=environ
    ) as swept:
        await swept.communicate()
    assert 0 == swept.returncode
    run = await log.get_run("interrupted", ids["interrupted"])
    assert run is not None
    assert RunStatus.FAILED is run.status

    deliver_again(Path(environ["CELERY_FOLDER"]), "interrupted")

    async def is_success() -> bool:
        run = await log.get_run("interrupted", ids["interrupted"])
        return run is not None and run.status is RunStatus.SUCCESS

    with worker(environ, "--queues=interrupted", "--pool=solo") as process:
        await until(is_success, process)
        assert 0 == end(process)
    recorded = await Recorded.of(environ, ids)
    assert "pending1 running1 failed1 running1 success1" == recorded.states("interrupted")
    assert {"total": 1, "successful": 1} == await log.get_stats("interrupted")
    await log.close()


def test_the_page(environ: Mapping[str, str]) -> None:
    """The blocks of the page run, and record their tasks."""
    page = blocks(read("docs/celery.md"), "python")

    done = CELERY.run("-c", "\n".join([*page, "charge.apply((7,)), pack.apply((7,))"]), environ=environ)

    assert 0 == done.returncode, done.stderr
    log = asyncio.run(Recorded.of(environ, {}))
    (charge,), (pack,) = log.named("orders.charge"), log.named("orders.pack")
    assert {"order": 7, "lines": 128} == charge.result
    assert ["print label"] == [step.name for step in log.steps[pack.id]]
