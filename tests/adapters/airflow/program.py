"""Dag runs of a real scheduler with its executor and of an API server, in Airflow's own environment.

    python -m tests.adapters.airflow.program

The folder AIRFLOW_HOME is empty. The page's plugin file is put into it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tests.unit.docs.repository import fenced, read

DAGS: Final = """
import os
from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException

from run_log.producer import current_step


@dag(schedule=None)
def orders():
    @task
    def download():
        current_step().set(rows=2)
        return [1, 2]

    @task
    def parse(number):
        if number == 2:
            raise AirflowSkipException("nothing in it")

    @task(retries=1, retry_delay=timedelta(0))
    def flaky(ti=None):
        if ti.try_number < 2:
            raise ConnectionError("busy")

    @task(retries=1, retry_delay=timedelta(0))
    def killed(ti=None):
        if ti.try_number < 2:
            os._exit(1)

    @task
    def bad():
        raise ValueError("no")

    @task
    def after():
        pass

    parse.expand(number=download())
    [flaky(), killed()] >> bad() >> after()


@dag(schedule=None, is_paused_upon_creation=True)
def held():
    @task
    def never():
        pass

    never()


orders()
held()
"""

SECONDS: Final = 300
"""After which Airflow is taken to be stuck."""

AHEAD: Final = timedelta(seconds=50)
"""How far a clock is ahead of the others."""


def forked(work: Callable[[], object]) -> int:
    """Do *work* in a child, which need not import Airflow again, and return its id."""
    child = os.fork()
    if not child:
        os.setsid()
        with suppress(SystemExit):
            work()
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - as Airflow does
        os._exit(0)  # to take all of Airflow down would last seconds
    return child


def await_end(child: int) -> None:
    """Wait for the end of a child, which is to be a good one."""
    _, status = os.waitpid(child, 0)
    assert status == 0


def command(*words: str) -> int:
    """Start a command of Airflow's, and return the id of its process."""

    def run() -> None:
        sys.argv = ["airflow", *words]
        import_module("airflow.__main__").main()

    return forked(run)


def ask(method: str, path: str, body: object = None, token: str = "") -> Any:
    """Return what the API server answers, once it does."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{os.environ['AIRFLOW__API__PORT']}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            # Its database is locked.
        except OSError:
            pass  # it does not listen yet
        time.sleep(1)


def drive() -> None:
    """Have one dag run fail, mark its failed task as success by hand, and mark a run that waits as failed."""
    token = ask("GET", "/auth/token")["access_token"]

    def dags(method: str, path: str, body: object = None) -> Any:
        return ask(method, f"/api/v2/dags/{path}", body, token)

    def await_state(state: str) -> None:
        while dags("GET", "orders/dagRuns/may")["state"] != state:
            time.sleep(1)

    dags("POST", "held/dagRuns", {"dag_run_id": "may", "logical_date": None})
    dags("PATCH", "held/dagRuns/may", {"state": "failed"})
    run = {"dag_run_id": "may", "logical_date": "2026-12-01T00:00:00Z", "conf": {"month": "may"}}
    dags("POST", "orders/dagRuns", run)
    await_state("failed")
    dags("PATCH", "orders/dagRuns/may/taskInstances/bad", {"new_state": "success"})  # clears what comes after
    await_state("success")


def tell(run_id: str, queued_at: datetime, *states: str, ahead: timedelta = timedelta(0)) -> None:
    """Tell of a dag run as a scheduler does whose clock is *ahead*."""
    clock: Any = import_module("run_log.core.clock")
    clock.PROCESS_CLOCK.observe(clock.micros_of(datetime.now(UTC) + ahead))
    run: Any = import_module("airflow.models.dagrun").DagRun(
        dag_id="nightly", run_id=run_id, run_type="scheduled", queued_at=queued_at
    )
    run.clear_number, run.start_date = 0, datetime.now(UTC) + ahead
    for state in states:
        run._state = state
        run.notify_dagrun_state_changed(msg="")


def tell_of_a_step() -> None:
    """Tell of a run that goes on, and of one of its tasks."""
    tell("under-way", datetime.now(UTC), "running")
    with import_module("run_log.producer").join_run("nightly", "under-way") as run, run.step("parse"):
        pass


def tell_as_schedulers() -> None:
    """Tell of a run that goes on, one that two schedulers tell of, and one that was queued in the future."""
    await_end(forked(tell_of_a_step))
    now = datetime.now(UTC)
    await_end(forked(lambda: tell("started-ahead", now, "running", ahead=AHEAD)))
    await_end(forked(lambda: tell("started-ahead", now, "success")))
    await_end(forked(lambda: tell("queued-ahead", now + AHEAD, "running", "success")))


def start_a_job() -> None:
    """Start a job as a scheduler does, and expect that it loads what delivers to Pub/Sub."""
    os.environ["RUN_LOG_BACKEND"] = "pubsub"
    import_module("airflow.jobs.job").Job()
    assert "google.pubsub_v1" in sys.modules


def main() -> None:
    """Make what Airflow needs, then let its servers run."""
    home = Path(os.environ["AIRFLOW_HOME"])
    for path, text in (
        ("plugins/run_log_plugin.py", fenced(read("docs/airflow.md"), "python")),
        ("dags/dags.py", DAGS),
    ):
        (home / path).parent.mkdir(parents=True)
        (home / path).write_text(text)
    for module in ("__main__", "api_fastapi.main", "executors.local_executor", "jobs.scheduler_job_runner"):
        import_module(f"airflow.{module}")
    import_module("sqlalchemy.orm").configure_mappers()
    gc.freeze()  # the children share it
    await_end(command("db", "migrate"))
    await_end(command("dags", "reserialize"))
    servers = [command("api-server"), command("scheduler", "--skip-serve-logs")]
    try:
        drive()
        for server in servers:
            os.kill(server, signal.SIGTERM)
            os.waitpid(server, 0)
    finally:
        for server in servers:
            with suppress(ProcessLookupError):
                os.killpg(server, signal.SIGKILL)
    tell_as_schedulers()
    await_end(forked(start_a_job))


if __name__ == "__main__":
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    signal.alarm(SECONDS)
    main()
