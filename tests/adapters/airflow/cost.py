"""What the listener costs: `python -m tests.adapters.airflow.cost`, in Airflow's environment.

Microseconds of CPU, medians of processes that take turns. A scheduler tells that a dag run starts and ends:
of its thread, and of the whole process, with the delivery into a file of SQLite. A task, whose process was
forked as a worker forks it, tells that it starts and ends: of that process, until it exits.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from tests.unit.docs.repository import fenced, read

RUNS: Final = 500
TASKS: Final = 20
TURNS: Final = 5
KINDS: Final = ("dag run", "dag run, whole process", "task process")


def _measure() -> dict[str, float]:
    """Return microseconds by kind. Whether anything listens, the plugins folder tells."""
    dag_run: Any = import_module("airflow.models.dagrun").DagRun
    import_module("airflow.sdk.listener").get_listener_manager()  # reads the plugins folder
    import_module("airflow.jobs.job").Job()  # as a scheduler does when it starts
    gc.freeze()  # as the executor does before it forks workers
    tasks = statistics.median(_task(f"task{number}") for number in range(TASKS))
    now = datetime.now(UTC)
    ids = [f"r{number}" for number in range(RUNS)]
    runs = [dag_run(dag_id="d", run_id=run_id, run_type="manual", queued_at=now) for run_id in ids]
    for run in runs:
        run.clear_number, run.start_date = 0, now
    _tell(runs[0])
    _flush()
    begun = time.thread_time(), time.process_time()
    for run in runs[1:]:
        _tell(run)
    thread = time.thread_time() - begun[0]
    _flush()
    whole = time.process_time() - begun[1]
    per_run = 1 / (RUNS - 1)
    return dict(zip(KINDS, (1e6 * thread * per_run, 1e6 * whole * per_run, 1e6 * tasks), strict=True))


def _tell(run: Any) -> None:
    for state in ("running", "success"):
        run._state = state
        run.notify_dagrun_state_changed(msg=state)


def _flush() -> None:
    if "run_log.producer" in sys.modules:
        import_module("run_log.producer").default_emitter().flush_sync(60)


def _task(name: str) -> float:
    """Return the seconds of a process that tells what a task's process tells."""
    child = os.fork()
    if not child:
        hook = import_module("airflow.sdk.listener").get_listener_manager().hook
        task = SimpleNamespace(
            dag_id="d", run_id="r", task_id=name, map_index=-1, try_number=1, start_date=datetime.now(UTC)
        )
        hook.on_task_instance_running(previous_state=None, task_instance=task)
        hook.on_task_instance_success(previous_state=None, task_instance=task)
        hook.before_stopping(component=None)
        os._exit(0)
    _, _, used = os.wait4(child, 0)
    return used.ru_utime + used.ru_stime


def _in_a_process(mode: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        plugins = Path(folder) / "plugins"
        plugins.mkdir()
        if mode == "with":
            (plugins / "run_log_plugin.py").write_text(fenced(read("docs/airflow.md"), "python"))
        own = {
            "RUN_LOG_BACKEND": "sqlite",
            "RUN_LOG_SQLITE_PATH": f"{folder}/runs",
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        done = subprocess.run(  # noqa: S603 - this program
            [sys.executable, "-m", "tests.adapters.airflow.cost", mode],
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            check=True,
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, or print a table of what processes that take turns have measured."""
    if sys.argv[1:]:
        sys.stdout.write(json.dumps(_measure()))
        return
    turns = [(_in_a_process("without"), _in_a_process("with")) for _ in range(TURNS)]
    for kind in KINDS:
        without, recorded = (statistics.median(turn[mode][kind] for turn in turns) for mode in (0, 1))
        sys.stdout.write(f"{kind:23} {without:7.0f} us without, {recorded:7.0f} us with\n")


if __name__ == "__main__":
    main()
