"""The projector as a process: signals stop it, a second one ends it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

from run_log.core import Settings
from run_log.projector import PullReport
from run_log.projector.google_cloud import pull, push

INTERRUPTED = 130


async def pull_until_signal(
    settings: Settings, *, until_idle: float | None, health: tuple[str, int] | None
) -> PullReport:
    """Pull until SIGTERM or SIGINT, or until idle; what is in hand is finished or given back.

    Args:
        settings: Where to pull, and where to project.
        until_idle: Seconds without a message that end it too; None for never.
        health: The address and port of the health endpoints; None for none.
    """
    return await pull(settings, stop=stopped_by_signal(), until_idle=until_idle, health=health)


async def push_until_signal(settings: Settings, *, host: str, port: int) -> None:
    """Take pushes until SIGTERM or SIGINT; requests under way are finished.

    Args:
        settings: Who may push, and where to project.
        host: The address to listen at.
        port: The port.
    """
    await push(settings, host=host, port=port, stop=stopped_by_signal())


def stopped_by_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets; a second signal ends the process."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    # What is imported by now stays: each full collection would look at it again, a quarter of the CPU.
    gc.collect()
    gc.freeze()
    return stop
