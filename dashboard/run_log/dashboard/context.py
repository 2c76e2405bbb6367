"""What routes are given with a request: the run log, the time, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from run_log.stores import RunLog

from .access import Authenticate, Caller, OpenStreams
from .access.guard import CALLER


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an app was made with."""

    opened: Callable[[], RunLog]
    """Returns the run log."""
    authenticate: Authenticate
    read_only: bool
    streams: OpenStreams
    now: Callable[[], datetime]
    """Returns the time, aware."""


def _context(connection: HTTPConnection) -> Context:
    context: Context = connection.app.state.context
    return context


def _run_log(connection: HTTPConnection) -> RunLog:
    return _context(connection).opened()


def _now(connection: HTTPConnection) -> datetime:
    return _context(connection).now()


def _caller(connection: HTTPConnection) -> Caller:
    caller: Caller = connection.scope[CALLER]
    return caller


Log = Annotated[RunLog, Depends(_run_log)]
Now = Annotated[datetime, Depends(_now)]
Asking = Annotated[Caller, Depends(_caller)]
