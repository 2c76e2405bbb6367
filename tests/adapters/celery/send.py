"""What a program sends to workers, or runs itself, in Celery's environment. Prints the tasks' ids as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from run_log.adapters.celery import install
from run_log.core import InvalidArgumentError
from run_log.core.clock import PROCESS_CLOCK, epoch_micros
from run_log.core.ids import bounded_id
from run_log.producer import record_run

from . import shop


def _everything() -> dict[str, str]:
    """Send what a worker with processes is to run, and run something here. This clock is fast."""
    PROCESS_CLOCK.observe(epoch_micros() + 50_000_000)
    sent: dict[str, Any] = {
        "first": shop.add.apply_async((1, 2), priority=3),
        "later": shop.add.apply_async((1, 2), countdown=0.5),
        "expired": shop.add.apply_async((1, 2), expires=-1),
        "fail": shop.fail.delay(),
        "retried": shop.retried.apply_async((2,), {"password": "hunter2"}),
        "gives up": shop.tries_again.delay(),
        "replaced": shop.count_down.delay(3),
        "order": shop.order.delay(),
        "soft": shop.soft.delay(),
        "shown": shop.retried.apply_async(
            (1,), {"card": "4111"}, argsrepr="(one)", kwargsrepr="{'card': '****'}"
        ),
        "shown once": shop.add.apply_async((1, 2), argsrepr="(***)"),
        "any headers": shop.add.apply_async((1, 2), headers={"run_log_parent": "x", "run_log_shown": 7}),
        "long id": shop.add.apply_async((1, 2), task_id="i" * 2_000, ignore_result=True),
        "no room": shop.add.apply_async((1, 2), task_id="j" * 300),  # longer than the name of a file
        "untold": shop.ignored_untold.delay(),
        "ignored": shop.ignored.delay(),
        "rejected": shop.rejected.delay(requeue=False),
        "requeued": shop.rejected.delay(requeue=True),
        "large": shop.large.delay(),
        "unknown": shop.app.send_task("nobody.knows", (1,), {"api_key": "hunter2"}),
        "revoke": shop.revoke.delay(),
    }
    with record_run("night", run_id="n1"):
        sent["nightly"] = shop.add.delay(3, 4)
        sent["eager"] = shop.add.apply((3, 4))
    sent["eager retry"] = shop.retried.apply((2,))
    sent["eager fail"] = shop.fail.apply()
    shop.app.conf.task_always_eager = True
    sent["always eager"] = shop.add.delay(3, 4)
    with contextlib.suppress(ValueError):
        shop.fail.apply(throw=True, task_id="thrown")
    return {"thrown": "thrown", **{name: bounded_id(result.id) for name, result in sent.items()}}


def _nothing() -> None:
    """Do what is no run: call a function, use an app that is not installed, send where no broker is."""
    with contextlib.suppress(InvalidArgumentError):
        install("shop")
        raise AssertionError
    shop.total([1, 2])
    other = shop.celery.Celery("other", broker="memory://", set_as_current=False)
    other.task(name="add")(_no_run).delay()
    other.task(name="total")(_no_run).apply()
    away = shop.celery.Celery("away", broker="amqp://127.0.0.1:1", set_as_current=False)
    away.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0}
    install(away)
    unsent = away.task(name="total")(_no_run)
    with contextlib.suppress(unsent.OperationalError):
        unsent.apply_async(retry=False)


def _no_run() -> None:
    pass


def _two_to_end(queue: str) -> dict[str, str]:
    """Send two tasks that the worker has to end: one that takes too long, and one that `main` revokes."""
    return {
        "hard": shop.hang.apply_async(queue=queue, time_limit=3).id,
        "terminated": shop.hang.apply_async(queue=queue).id,
    }


def _that_end_processes() -> dict[str, str]:
    """Send tasks that end the process in which they run."""
    tasks = {"killed": shop.killed, "lost": shop.lost, "exits": shop.exits}
    return {name: task.apply_async(queue="dying").id for name, task in tasks.items()}


def _to_each(queues: list[str]) -> dict[str, str]:
    """Send to each queue a task of each kind, twice."""
    return {
        f"{queue} {kind} {number}": getattr(shop, kind).apply_async(arguments, queue=queue).id
        for queue in queues
        for kind, arguments in (("add", (1, 2)), ("fail", ()), ("retried", (1,)))
        for number in range(2)
    }


def main() -> None:
    """Do what the first argument says."""
    install(shop.celery.current_app)  # once more
    ids: dict[str, str] = {}
    match sys.argv[1:]:
        case ["everything"]:
            _nothing()
            ids = _everything()
        case ["two to end", queue]:
            ids = _two_to_end(queue)
        case ["by the first protocol", queue]:
            shop.app.conf.task_protocol = 1
            with record_run("around"):
                ids = _to_each([queue])
        case ["that end processes"]:
            ids = _that_end_processes()
        case ["terminate", task_id]:
            shop.app.control.revoke(task_id, terminate=True)
        case ["interrupted"]:
            ids = {"interrupted": shop.interrupted.apply_async(queue="interrupted").id}
        case ["to each", *queues]:
            ids = _to_each(queues)
        case arguments:
            raise SystemExit(f"{arguments} is nothing that this does")
    sys.stdout.write(json.dumps(ids))


if __name__ == "__main__":
    main()
