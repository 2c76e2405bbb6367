"""How an exception that ended a run is put into words: what, then where, and never too much of it."""

from __future__ import annotations

import asyncio
import traceback
from typing import Final

MAX_SUMMARY: Final = 8_000
"""Most characters of an exception's type and message."""

MAX_FRAMES: Final = 30
"""Most frames of a traceback: the innermost ones."""

MAX_TRACEBACK: Final = 16_000
"""Most characters of a traceback. With the summary it stays well below what a run's error may take."""

_CAUSES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (asyncio.CancelledError, "cancelled"),
    (KeyboardInterrupt, "interrupted"),
    (SystemExit, "exited"),
)
"""What ends a run from outside, and how it is called."""


def describe(error: BaseException) -> str:
    """Return *error* as a text: one line that says what happened, and the end of its traceback.

    Args:
        error: Any exception; one whose own text cannot be had is described by its type.
    """
    try:
        summary = "".join(traceback.format_exception_only(error)).strip()
    except Exception:  # noqa: BLE001 - a foreign exception's own code may raise anything
        summary = type(error).__qualname__
    cause = next((name for kind, name in _CAUSES if isinstance(error, kind)), None)
    summary = _cut(summary if cause is None else f"{cause}: {summary}", MAX_SUMMARY)
    where = _traceback(error)
    return f"{summary}\n\n{where}" if where else summary


def _traceback(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    try:
        lines = traceback.TracebackException(
            type(error), error, error.__traceback__, limit=-MAX_FRAMES, compact=True
        ).format()
        text = "".join(lines).strip()
    except Exception:  # noqa: BLE001 - a foreign exception's own code may raise anything
        return ""
    # Its end tells most: the innermost frames, of the exception that went on.
    return text if len(text) <= MAX_TRACEBACK else f"[...]\n{text[-MAX_TRACEBACK:]}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} [...]"
