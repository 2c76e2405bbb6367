"""A Celery app whose tasks are recorded: what its workers run, in Celery's environment."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from run_log.adapters.celery import install
from run_log.producer import current_run, record_run

celery: Any = import_module("celery")
exceptions: Any = import_module("celery.exceptions")

FOLDER = Path(os.environ["CELERY_FOLDER"])
FOLDERS = {name: FOLDER / name for name in ("queues", "done", "control", "results")}
for folder in FOLDERS.values():
    folder.mkdir(exist_ok=True)

app: Any = celery.Celery("shop", backend=f"file://{FOLDERS['results']}")
app.conf.update(
    broker_transport="tests.adapters.celery.broker:Transport",
    broker_transport_options={
        "data_folder_in": FOLDERS["queues"],
        "data_folder_out": FOLDERS["queues"],
        "control_folder": FOLDERS["control"],
        "processed_folder": FOLDERS["done"],
        "store_processed": True,
        "polling_interval": 0.05,
    },
    beat_schedule={"tick": {"task": "tick", "schedule": 0.5, "options": {"expires": 60}}},
    broker_connection_retry_on_startup=True,
    worker_lost_wait=0.2,
)
install(app, heartbeat=timedelta(seconds=2))


def task(name: str, **options: object) -> Callable[[Callable[..., Any]], Any]:
    """Return what makes a task of a function."""
    make: Callable[[Callable[..., Any]], Any] = app.task(name=name, **options)
    return make


@task("add")
def add(a: int, b: int) -> int:
    """Return the sum, in a step."""
    run = current_run()
    assert run is not None
    with run.step("sum"):
        return a + b


@task("total")
def total(parts: list[int]) -> int:
    """Return the sum of *parts*."""
    return sum(parts)


@task("tick")
def tick() -> None:
    """Do nothing: beat sends it."""


@task("fail")
def fail() -> NoReturn:
    """Raise."""
    raise ValueError("no such order")


@task("retried", bind=True)
def retried(self: Any, fails: int, **_: object) -> dict[str, int]:
    """Fail so many times before it succeeds."""
    with record_run("attempt"):  # a run around the retry is not the parent of the next try
        if self.request.retries < fails:
            raise self.retry(exc=OSError("no answer"), countdown=0.1, max_retries=fails)
    # Celery's result may say for good that it is tried again: that may be stored after the try has ended.
    (FOLDERS["done"] / self.request.id).touch()
    return {"attempts": self.request.retries + 1}


@task("tries_again", bind=True)
def tries_again(self: Any) -> NoReturn:
    """Give up after one retry."""
    raise self.retry(exc=OSError("no answer"), countdown=0, max_retries=1)


@task("count_down", bind=True)
def count_down(self: Any, number: int) -> int:
    """Replace itself by the next smaller number."""
    return self.replace(self.s(number - 1)) if number else 0


@task("order")
def order() -> None:
    """Send tasks: a chain, a chord of a group, and one from within a run of its own."""
    celery.chain(add.s(1, 2), add.s(3))()
    celery.chord([add.s(1, 1), add.s(2, 2)])(total.s())
    with record_run("packing", run_id="box"):
        retried.delay(1, kind="inner")


@task("hang")
def hang() -> None:
    """Wait for long."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        time.sleep(0.05)


soft = task("soft", soft_time_limit=0.5)(hang.run)


@task("interrupted", acks_late=True)
def interrupted() -> str:
    """Wait for long, the first time."""
    if _is_first("interrupted"):
        hang.run()
    return "lives"


@task("ignored")
def ignored() -> NoReturn:
    """Be ignored."""
    raise exceptions.Ignore("nothing new")


class Untold:
    """Has no text."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError


@task("ignored_untold")
def ignored_untold() -> NoReturn:
    """Be ignored, for a reason that has no text."""
    raise exceptions.Ignore(Untold())


@task("rejected", acks_late=True)
def rejected(*, requeue: bool) -> str:
    """Be rejected, the first time."""
    if requeue and not _is_first("rejected"):
        return "again"
    raise exceptions.Reject("not now", requeue=requeue)


@task("killed", acks_late=True, reject_on_worker_lost=True)
def killed() -> str:
    """Have the kernel kill the process, the first time."""
    if _is_first("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "lives"


def _is_first(name: str) -> bool:
    mark = FOLDER / name
    is_first = not mark.exists()
    mark.touch()
    return is_first


@task("lost")
def lost() -> None:
    """Have the kernel kill the process, which is not tolerated."""
    os.kill(os.getpid(), signal.SIGKILL)


@task("exits")
def exits() -> NoReturn:
    """End the process."""
    sys.exit(3)


@task("large")
def large() -> dict[str, Any]:
    """Return more than a run can keep."""
    return {"rows": "x" * 2_000_000, "count": 1}


@task("revoke")
def revoke() -> str:
    """Send a task that the worker knows to be revoked."""
    task_id = str(uuid.uuid4())
    app.control.revoke(task_id, reply=True, timeout=60, limit=1)
    sent: str = add.apply_async((1, 2), task_id=task_id).id
    return sent
