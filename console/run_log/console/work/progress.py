"""The progress of long work: a line on a terminal, or a log line now and then."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Final, NamedTuple

from run_log.console.views.output import StatusLine
from run_log.console.views.tables import elapsed

LOGGED_EVERY: Final = 30.0
_SHOWN_EVERY: Final = 0.5


class Progress(NamedTuple):
    """How far some work is, after so many seconds."""

    line: Callable[[float], str]
    """Returns it as a text for a terminal."""
    log: Callable[[float], None]
    """Logs it."""


@contextlib.asynccontextmanager
async def shown(progress: Progress) -> AsyncGenerator[None]:
    """Show *progress* on stderr during the block, or log it if stderr is not a terminal."""
    with StatusLine() as line:
        begun = time.monotonic()
        showing = asyncio.create_task(
            _show(line, progress, begun) if line.is_shown else _log(progress, begun)
        )
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)


async def _show(line: StatusLine, progress: Progress, begun: float) -> None:
    while True:
        took = time.monotonic() - begun
        line.tell(f"{elapsed(timedelta(seconds=took))}  {progress.line(took)}")
        await asyncio.sleep(_SHOWN_EVERY)


async def _log(progress: Progress, begun: float) -> None:
    while True:
        await asyncio.sleep(LOGGED_EVERY)
        progress.log(time.monotonic() - begun)
