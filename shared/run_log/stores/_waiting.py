"""How a caller waits until queries see what it has emitted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from run_log.core import InvalidArgumentError, RunEvent, Version
from run_log.core.backoff import Backoff
from run_log.core.models import RunKey

_BACKOFF: Final = Backoff(0.02, 1.0)

_T = TypeVar("_T")


def awaited_version(key: RunKey, version_or_event: object) -> Version:
    """Return the version that a run has to reach.

    Raises:
        InvalidArgumentError: *version_or_event* is neither, or an event of another run than *key*.
    """
    if isinstance(version_or_event, RunEvent):
        if version_or_event.key != key:
            raise InvalidArgumentError(f"the event is of {version_or_event.key}, not of {key}")
        return version_or_event.version
    if not isinstance(version_or_event, Version):
        raise InvalidArgumentError(
            f"version_or_event is a {type(version_or_event).__name__}; pass the RunEvent that was emitted, "
            "or its version"
        )
    return version_or_event


async def look_until(
    look: Callable[[], Awaitable[_T | None]],
    timeout: object,  # noqa: ASYNC109 - a look that is under way is not cut off
    *,
    uniform: Callable[[float, float], float] = random.uniform,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> _T | None:
    """Return what *look* finds, looking again less and less often; None once *timeout* seconds are over.

    Raises:
        InvalidArgumentError: *timeout* is not a number of 0 or more; 0 looks once.
    """
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout >= 0:
        raise InvalidArgumentError(f"timeout is {timeout!r}; pass seconds, 0 or more")
    end = now() + timeout
    looks = 1
    while (found := await look()) is None and (left := end - now()) > 0:
        await sleep(min(_BACKOFF.seconds(looks, uniform), left))
        looks += 1
    return found
