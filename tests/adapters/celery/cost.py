"""What recording costs a task: `python -m tests.adapters.celery.cost`, in Celery's environment.

Microseconds of CPU, medians of processes that take turns: of the thread that sends or runs tasks, and of the
whole process, with the delivery into a file of SQLite.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from run_log.adapters.celery import install
from run_log.producer import default_emitter

celery: Any = import_module("celery")
testing: Any = import_module("celery.contrib.testing.worker")

TASKS: Final = 500
TURNS: Final = 5
KINDS: Final = ("apply", "delay", "solo worker")


def _measure(*, is_installed: bool) -> dict[str, tuple[float, float]]:
    """Return microseconds a task, of the thread and of the process, by how the task runs."""
    app: Any = celery.Celery("cost", broker="memory://", backend="cache+memory://")
    app.conf.update(worker_prefetch_multiplier=0)
    seen: list[tuple[float, float]] = []
    make: Callable[[Callable[..., Any]], Any] = app.task(name="add")

    @make
    def add(a: int, b: int) -> int:
        seen.append((time.thread_time(), time.process_time()))
        return a + b

    if is_installed:
        install(app)
    found: dict[str, tuple[float, float]] = {}
    for kind, call in (("apply", add.apply), ("delay", add.apply_async)):
        call((1, 2))
        default_emitter().flush_sync(60)
        begun = time.thread_time(), time.process_time()
        for number in range(TASKS):
            call((number, 2))
        thread = time.thread_time() - begun[0]
        default_emitter().flush_sync(60)
        found[kind] = (thread, time.process_time() - begun[1])
    seen.clear()
    with testing.start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60):
        while len(seen) <= TASKS:
            time.sleep(0.05)
        default_emitter().flush_sync(60)
        found["solo worker"] = (seen[-1][0] - seen[1][0], time.process_time() - seen[1][1])
    return {kind: (thread / TASKS * 1e6, whole / TASKS * 1e6) for kind, (thread, whole) in found.items()}


def _in_a_process(mode: str) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        file = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": f"{folder}/runs"}
        done = subprocess.run(  # noqa: S603 - this program
            [sys.executable, "-m", "tests.adapters.celery.cost", mode],
            env={**os.environ, **file},
            stdout=subprocess.PIPE,
            check=True,
        )
    found: dict[str, tuple[float, float]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, or print a table of what processes that take turns have measured."""
    if sys.argv[1:]:
        sys.stdout.write(json.dumps(_measure(is_installed=sys.argv[1] == "with")))
        return
    turns = [(_in_a_process("without"), _in_a_process("with")) for _ in range(TURNS)]
    for kind in KINDS:
        for of, name in enumerate(("thread", "process")):
            without, recorded = (statistics.median(turn[mode][kind][of] for turn in turns) for mode in (0, 1))
            sys.stdout.write(f"{kind:12} {name:8} {without:7.0f} us without, {recorded:7.0f} us with\n")


if __name__ == "__main__":
    main()
