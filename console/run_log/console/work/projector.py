"""``run-log projector`` as a process that signals stop, and that reports its progress."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, Final

from run_log.console.signals import stopped_by_signal
from run_log.console.views.output import note
from run_log.console.work.opening import idle_seconds
from run_log.core import Outcome, Settings
from run_log.core.logs import get_logger
from run_log.projector import PullReport, PullWorker
from run_log.projector.google_cloud import Route, pull, push

TOLD_EVERY: Final = 60.0
"""Seconds between two reports of progress."""

QUIET_SECONDS: Final = 600.0
"""Seconds between two reports while nothing happens, as a sign of life."""

_logger: Final = get_logger("run_log.console")


async def pull_until_signal(
    settings: Settings, *, until_idle: float | None, health: tuple[str, int] | None
) -> PullReport:
    """Pull until SIGTERM or SIGINT, or until idle; what is in hand is finished or given back.

    Args:
        settings: Where to pull from, and where to project to.
        until_idle: Seconds without a message that end the work too, raised by `idle_seconds`; None for never.
        health: The address and port of the health endpoints; None for none.
    """
    stop = stopped_by_signal()
    until_idle = await idle_seconds(settings, settings.subscription, until_idle)

    async def watch(route: Route, worker: PullWorker) -> None:
        tell_route(route, until_idle=until_idle)
        await tell_progress(worker, show_progress)

    return await pull(settings, stop=stop, until_idle=until_idle, health=health, watch=watch)


async def push_until_signal(settings: Settings, *, host: str, port: int) -> None:
    """Take pushes until SIGTERM or SIGINT, and finish the requests under way.

    Args:
        settings: Who may push, and where to project to.
        host: The address to listen at.
        port: The port.
    """
    await push(settings, host=host, port=port, stop=stopped_by_signal(), started=tell_route)


async def tell_progress(
    worker: PullWorker,
    tell: Callable[[dict[str, float]], None],
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
) -> None:
    """Report each minute what *worker* has done since the last report, for ever.

    While nothing happens, there is a report only every ten minutes.

    Args:
        worker: The worker.
        tell: Called with the ``seconds`` since the last report; messages ``pulled``; events ``applied`` and
            ``duplicates``; ``dead_letters``; messages ``in_hand`` now; and ``lag_seconds``, the age of the
            oldest of these.
        now: Monotonic seconds.
        sleep: Waits so many seconds.
    """
    before, told_at = worker.report, now()
    while True:
        await sleep(TOLD_EVERY)
        report, moment = worker.report, now()
        in_hand = worker.progress.in_hand
        # Something in hand without a change is worth a report: it may be stuck.
        if report == before and not in_hand and moment - told_at < QUIET_SECONDS:
            continue
        outcomes = {outcome: report.outcomes[outcome] - before.outcomes[outcome] for outcome in Outcome}
        tell(
            {
                "seconds": round(moment - told_at),
                "pulled": report.pulled - before.pulled,
                "applied": outcomes[Outcome.APPLIED],
                "duplicates": outcomes[Outcome.DUPLICATE],
                "dead_letters": report.dead_lettered - before.dead_lettered,
                "in_hand": in_hand,
                "lag_seconds": round(worker.progress.oldest_age(), 1),
            }
        )
        before, told_at = report, moment


def tell_route(route: Route, *, until_idle: float | None = None) -> None:
    """Report where events come from and go to: as lines on a terminal, else as a log entry.

    Args:
        route: Where events come from and go to.
        until_idle: Seconds without a message that end the work; None for never.
    """
    idle = {} if until_idle is None else {"until_idle": f"{until_idle:g} s without a message"}
    if not sys.stderr.isatty():
        _logger.info("run_log_projector_started", **asdict(route), **idle)
        return
    lines = {
        "from": route.source,
        "dead letters": route.dead_letters,
        "Pub/Sub": route.pubsub,
        "into": route.into,
        "Firestore": route.firestore,
        **({"ends after": idle["until_idle"]} if idle else {}),
    }
    for name, value in lines.items():
        note(f"{name:12}  {value}")


def show_progress(figures: dict[str, float]) -> None:
    """Show the *figures* of `tell_progress`: as a line on a terminal, else as a log entry."""
    if not sys.stderr.isatty():
        _logger.info("run_log_projector_progress", **figures)
        return
    note(
        "{seconds}s: {pulled} pulled, {applied} applied, {duplicates} duplicate, "
        "{dead_letters} dead letters; {in_hand} in hand, lag {lag_seconds:.0f}s".format(**figures)
    )
