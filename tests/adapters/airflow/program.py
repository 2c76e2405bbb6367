"""Dag runs in Airflow's own environment, by ``airflow dags test``, and what its scheduler calls.

    python -m tests.adapters.airflow.program

The folder AIRFLOW_HOME is empty. The page's plugin file is put into it.
"""

from __future__ import annotations

import functools
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.unit.docs.repository import fenced, read

DAG = """
from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException


@dag(schedule=None)
def orders():
    @task
    def download():
        return [1, 2]

    @task
    def parse(number):
        if number == 2:
            raise AirflowSkipException("nothing in it")

    @task(retries=1, retry_delay=timedelta(0))
    def flaky(ti=None):
        if ti.try_number < 2:
            raise ConnectionError("busy")

    @task
    def bad():
        raise ValueError("no")

    parse.expand(number=download())
    flaky() >> bad()


orders()
"""


def scheduled() -> None:
    """Tell of a dag run as the scheduler does: of its start, its failure, and of its success once cleared."""
    run: Any = import_module("airflow.models.dagrun").DagRun(
        dag_id="nightly",
        run_id="scheduled__1",
        run_type="scheduled",
        logical_date=datetime(2026, 12, 1, tzinfo=UTC),
    )
    run.clear_number, run.start_date = 0, datetime(2026, 12, 2, tzinfo=UTC)
    for state, message in (
        ("running", "started"),
        ("failed", "timed_out"),
        ("running", "started"),
        ("success", "success"),
    ):
        run._state = state
        run.notify_dagrun_state_changed(msg=message)
        run.clear_number += state == "failed"


if __name__ == "__main__":
    home = Path(os.environ["AIRFLOW_HOME"])
    for folder, text in (
        ("plugins/run_log_plugin.py", fenced(read("docs/airflow.md"), "python")),
        ("dags/orders.py", DAG),
    ):
        (home / folder).parent.mkdir(parents=True)
        (home / folder).write_text(text)
    main: Any = import_module("airflow.__main__").main
    supervisor: Any = import_module("airflow.sdk.execution_time.supervisor")
    # `airflow dags test` makes the API for each task anew, which costs most of its time.
    supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)
    for words in (["db", "migrate"], ["dags", "test", "orders", "--conf", '{"month": "may"}']):
        sys.argv = ["airflow", *words]
        with suppress(SystemExit):  # the dag run fails, as it should
            main()
    scheduled()
