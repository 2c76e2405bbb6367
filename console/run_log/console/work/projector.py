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
# While nothing happens: a sign of life.
QUIET_SECONDS: Final = 600.0

_logger: Final = get_logger("run_log.console")


async def pull_until_signal(
    settings: Settings, *, until_idle: float | None, health: tuple[str, int] | None
) -> PullReport:
    """Pull until SIGTERM or SIGINT, or until idle; what is in hand is finished or given back.

    *until_idle* is raised by `idle_seconds`. *health* is the address and port of the health endpoints.
    """
    stop = stopped_by_signal()
    until_idle = await idle_seconds(settings, settings.subscription, until_idle)

    async def watch(route: Route, worker: PullWorker) -> None:
        tell_route(route, until_idle=until_idle)
        await tell_progress(worker, show_progress)

    return await pull(settings, stop=stop, until_idle=until_idle, health=health, watch=watch)


async def push_until_signal(settings: Settings, *, host: str, port: int) -> None:
    """Take pushes until SIGTERM or SIGINT, and finish the requests under way."""
    await push(settings, host=host, port=port, stop=stopped_by_signal(), started=tell_route)


async def tell_progress(
    worker: PullWorker,
    tell: Callable[[dict[str, float]], None],
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
) -> None:
    """Tell each minute what *worker* has done since the last time, for ever.

    While nothing happens, it is told only every ten minutes. ``lag_seconds`` is the age of the oldest message
    ``in_hand``.
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
        figures = {
            "seconds": round(moment - told_at),
            "pulled": report.pulled - before.pulled,
            "applied": outcomes[Outcome.APPLIED],
            "duplicates": outcomes[Outcome.DUPLICATE],
            "dead_letters": report.dead_lettered - before.dead_lettered,
            "in_hand": in_hand,
            "lag_seconds": round(worker.progress.oldest_age(), 1),
        }
        tell(figures)
        before, told_at = report, moment


def tell_route(route: Route, *, until_idle: float | None = None) -> None:
    """Tell where events come from and go to: as lines on a terminal, else as a log entry."""
    idle = {} if until_idle is None else {"until_idle": f"{until_idle:g} s without a message"}
    if not sys.stderr.isatty():
        _logger.info("run_log_projector_started", **asdict(route), **idle)
        return
    note(f"from          {route.source}")
    note(f"dead letters  {route.dead_letters}")
    note(f"Pub/Sub       {route.pubsub}")
    note(f"into          {route.into}")
    note(f"Firestore     {route.firestore}")
    for value in idle.values():
        note(f"ends after    {value}")


def show_progress(figures: dict[str, float]) -> None:
    """Show the *figures* of `tell_progress`: as a line on a terminal, else as a log entry."""
    if not sys.stderr.isatty():
        _logger.info("run_log_projector_progress", **figures)
        return
    note(
        "{seconds}s: {pulled} pulled, {applied} applied, {duplicates} duplicate, "
        "{dead_letters} dead letters; {in_hand} in hand, lag {lag_seconds:.0f}s".format(**figures)
    )
