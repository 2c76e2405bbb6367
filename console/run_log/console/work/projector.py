"""The projector as a process: signals stop it, a second one ends it, and it tells how it goes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, Final

from run_log.console.signals import stopped_by_signal
from run_log.console.views.output import note
from run_log.console.work.opening import shortest_silence
from run_log.core import Outcome, Settings
from run_log.core.logs import get_logger
from run_log.projector import PullReport, PullWorker
from run_log.projector.google_cloud import Route, pull, push

TOLD_EVERY: Final = 60.0
"""Seconds between two lines of how it goes."""

QUIET_SECONDS: Final = 600.0
"""Seconds between two such lines while nothing happens: a sign of life."""

_logger: Final = get_logger("run_log.console")


async def pull_until_signal(
    settings: Settings, *, until_idle: float | None, health: tuple[str, int] | None
) -> PullReport:
    """Pull until SIGTERM or SIGINT, or until idle; what is in hand is finished or given back.

    Args:
        settings: Where to pull, and where to project.
        until_idle: Seconds without a message that end it too, no fewer than `shortest_silence`; None for
            never.
        health: The address and port of the health endpoints; None for none.
    """
    stop = stopped_by_signal()
    if until_idle is not None:
        until_idle = max(until_idle, await shortest_silence(settings, settings.subscription))

    async def watch(route: Route, worker: PullWorker) -> None:
        tell_route(route, until_idle=until_idle)
        await tell_progress(worker, show_progress)

    return await pull(settings, stop=stop, until_idle=until_idle, health=health, watch=watch)


async def push_until_signal(settings: Settings, *, host: str, port: int) -> None:
    """Take pushes until SIGTERM or SIGINT; requests under way are finished.

    Args:
        settings: Who may push, and where to project.
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
    """Tell each minute what *worker* has done since it was last told; for ever.

    Where nothing happened, nothing is told for ten minutes.

    Args:
        worker: Does the work.
        tell: Is called with ``seconds``, since when; messages ``pulled``; events ``applied`` and
            ``duplicates``; ``dead_letters``; what is ``in_hand`` now, and ``lag_seconds``, the age of the
            oldest of it.
        now: Monotonic seconds.
        sleep: Waits that many seconds.
    """
    before, told_at = worker.report, now()
    while True:
        await sleep(TOLD_EVERY)
        report, moment = worker.report, now()
        in_hand = worker.progress.in_hand
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
    """Say where events come from and go to: a log entry, or lines where somebody watches.

    Args:
        route: Where.
        until_idle: After how many seconds without a message it ends; None for never.
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
    """Say how it goes, likewise; *figures* are those of `tell_progress`."""
    if not sys.stderr.isatty():
        _logger.info("run_log_projector_progress", **figures)
        return
    note(
        "{seconds}s: {pulled} pulled, {applied} applied, {duplicates} duplicate, "
        "{dead_letters} dead letters; {in_hand} in hand, lag {lag_seconds:.0f}s".format(**figures)
    )
