"""The projector as a process: signals stop it, a second one ends it."""

from __future__ import annotations

from run_log.console._signals import stopped_by_signal
from run_log.core import Settings
from run_log.projector import PullReport
from run_log.projector.google_cloud import pull, push


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
