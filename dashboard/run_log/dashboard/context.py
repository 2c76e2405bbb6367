"""What routes are given with a request: the run log, the time, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import HTTPConnection

from run_log.core import TransportUnavailableError
from run_log.stores import RunLog

from .access import Authenticate, Caller, OpenStreams
from .access.guard import CALLER
from .counts import Counts
from .streams import Changes

FLUSH_SECONDS: Final = 5.0
"""How long an answer to a run may take to be durable, where it is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an app was made with."""

    opened: Callable[[], RunLog]
    """Returns the run log."""
    authenticate: Authenticate
    read_only: bool
    """Whether nobody may answer."""
    streams: OpenStreams
    now: Callable[[], datetime]
    """Returns the time, aware."""
    changes: Changes
    """Of all runs, as they come."""
    counts: Counts
    """Of all workflows, as they were a moment ago."""
    project: str | None = None
    """The Google Cloud project that traces are in; None where that is not known."""


def _context(connection: HTTPConnection) -> Context:
    context: Context = connection.app.state.context
    return context


# Coroutines: FastAPI would call plain functions in a thread each.
async def _run_log(connection: HTTPConnection) -> RunLog:
    return _context(connection).opened()


async def _now(connection: HTTPConnection) -> datetime:
    return _context(connection).now()


async def _changes(connection: HTTPConnection) -> Changes:
    return _context(connection).changes


async def _counts(connection: HTTPConnection) -> Counts:
    return _context(connection).counts


async def _caller(connection: HTTPConnection) -> Caller:
    caller: Caller = connection.scope[CALLER]
    return caller


Log = Annotated[RunLog, Depends(_run_log)]
Now = Annotated[datetime, Depends(_now)]
Asking = Annotated[Caller, Depends(_caller)]
Live = Annotated[Changes, Depends(_changes)]
Counting = Annotated[Counts, Depends(_counts)]


async def ensure_durable(log: RunLog, workflow_id: str, run_id: str) -> None:
    """Wait until an answer to a run is durable: a server that is about to rest has to publish it first.

    Raises:
        TransportUnavailableError: It is not within `FLUSH_SECONDS`; it may be later.
    """
    if not await log.flush(FLUSH_SECONDS):
        raise TransportUnavailableError(
            f"the answer to run {run_id!r} of {workflow_id!r} was not published within {FLUSH_SECONDS:.0f} s"
        )
