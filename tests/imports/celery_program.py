"""Runs tasks in a real Celery worker of this process, whose results a database or Redis keeps.

In Celery's own environment: ``python -m tests.imports.celery_program BACKEND BACKEND [PREFIX]``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

celery: Any = import_module("celery")
exceptions: Any = import_module("celery.exceptions")
worker: Any = import_module("celery.contrib.testing.worker")

FILE = "may.csv"


def made_app(backend: str, *, extended: bool, zone: str, prefix: str = "") -> Any:
    """Return an application whose results are kept at *backend*."""
    app = celery.Celery("shop", broker="memory://", backend=backend)
    app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
    app.conf.update(result_extended=extended, timezone=zone, worker_hijack_root_logger=False)
    return app


def add(one: int, other: int) -> int:
    """Return the sum of both."""
    return one + other


def report(**options: Any) -> dict[str, Any]:
    """Return an object."""
    return {"lines": 3, "options": options}


def fail() -> None:
    """Fail."""
    raise ValueError("no line 7")


def flaky(self: Any) -> str:
    """Fail twice, then succeed."""
    if self.request.retries < 2:
        raise self.retry(exc=OSError("no network"), countdown=0)
    return "at last"


def halfway(self: Any) -> None:
    """End in a state of its own."""
    self.update_state(state="HALFWAY", meta={"done": 0.5})
    raise exceptions.Ignore


def main(extended: str, plain: str, prefix: str = "") -> None:
    """Run each task, and store one that is revoked; and store one without its name at another address."""
    app = made_app(extended, extended=True, zone="Europe/Berlin")
    add_task, report_task, fail_task = (
        app.task(name=f"shop.{task.__name__}")(task) for task in (add, report, fail)
    )
    flaky_task, halfway_task = (
        app.task(name=f"shop.{task.__name__}", bind=True, max_retries=2)(task) for task in (flaky, halfway)
    )
    with worker.start_worker(app, pool="solo", perform_ping_check=False, loglevel="CRITICAL"):
        halfway_task.apply_async(task_id="halfway")
        results = [
            add_task.apply_async((1, 2), task_id="add"),
            report_task.apply_async(kwargs={"password": "hunter2", "file": FILE}, task_id="report"),
            fail_task.apply_async(task_id="fail"),
            flaky_task.apply_async(task_id="flaky"),
        ]
        for result in results:
            result.get(timeout=60, propagate=False)
    app.backend.mark_as_revoked("revoked", reason="terminated", request=None)
    made_app(plain, extended=False, zone="UTC", prefix=prefix).backend.mark_as_done("add", 3, request=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
