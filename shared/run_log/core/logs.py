"""Structured logs that stay silent until the host application configures logging.

A handler may be any code: it may record a run, which may log in its turn. So what is logged while we log is
left out, of one event only so many lines are logged, and no handler is called while one of our locks is held.
"""

from __future__ import annotations

import enum
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import structlog
from opentelemetry import metrics

from .literal import literal
from .nearest import Contained, is_foreign, type_name

MAX_SHOWN: Final = 1_000
"""Characters of a value that a log line shows."""

LINES_AT_ONCE: Final = 50
"""Lines of one event that may follow each other at once; then there is one each `SECONDS_A_LINE`.

A handler behind a queue that makes a line of each line comes to its end so, however long it takes for one."""

SECONDS_A_LINE: Final = 60.0

_TEXT: Final = "_run_log_text"
_FOR_LOGGING: Final = frozenset({"exc_info", "stack_info", "stacklevel"})

_left_out: Final = metrics.get_meter("run_log.core").create_counter(
    "run_log.logs.left_out", unit="{line}", description="Log lines left out, by why"
)

# Without it the standard library would print a library's warnings to stderr by itself.
logging.getLogger("run_log").addHandler(logging.NullHandler())


class LeftOut(enum.StrEnum):
    """Why a line is not logged."""

    REENTRANT = "reentrant"
    """It came up while this thread was logging: a handler's doing."""
    RATE = "rate"
    """There were too many of its event; the next line of it says how many."""


class _Thread(threading.local):
    """What this thread is doing, besides what it logs."""

    is_logging = False
    is_counting = False
    waiting: list[Callable[[], object]] | None = None


@dataclass(slots=True)
class _Allowance:
    """How many lines of an event may be logged now. No lock: a race costs or spares a line."""

    lines: float = LINES_AT_ONCE
    at: float = 0.0
    left_out: int = 0

    def take(self, now: float) -> bool:
        self.lines = min(LINES_AT_ONCE, self.lines + max(0.0, now - self.at) / SECONDS_A_LINE)
        self.at = now
        if self.lines < 1:
            self.left_out += 1
            return False
        self.lines -= 1
        return True


_thread: Final = _Thread()
_allowances: Final[dict[str, _Allowance]] = {}


class _HarmlessLogger(structlog.stdlib.BoundLogger):
    """Raises nothing into the code that logs: a handler's fault is its owner's, not the workflow's."""

    def _proxy_to_logger(self, method_name: str, event: str | None = None, *args: Any, **fields: Any) -> Any:
        try:
            level = logging.getLevelNamesMapping().get(method_name.upper(), logging.ERROR)  # `exception`
            if not self.isEnabledFor(level):
                return
            if _thread.is_logging:
                _count(LeftOut.REENTRANT)
            elif _thread.waiting is not None:
                if fields.get("exc_info") is True:
                    fields["exc_info"] = sys.exc_info()
                _thread.waiting.append(partial(self._proxy_to_logger, method_name, event, *args, **fields))
            else:
                self._log(method_name, event, *args, **fields)
        except BaseException as error:  # there is nowhere left to tell it
            if not is_foreign(error):
                raise

    def _log(self, method_name: str, event: str | None, *args: Any, **fields: Any) -> None:
        _thread.is_logging = True
        try:
            super()._proxy_to_logger(method_name, event, *args, **fields)
        finally:
            _thread.is_logging = False


_RESERVED: Final = (frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}) - _FOR_LOGGING
"""Names that a log record keeps for itself: as extras they raise `KeyError`."""


def one_line(text: str, limit: int = MAX_SHOWN) -> str:
    """Return *text* as part of a line: what breaks lines or commands a terminal is escaped, a long one cut.

    Args:
        text: What may be anybody's.
        limit: Characters to return at most, about.
    """
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    return literal(cut)


@contextmanager
def logging_later() -> Generator[None]:
    """Have what this thread logs in the block be logged after it: no handler runs while a lock is held.

    Put it around the lock.
    """
    if _thread.waiting is not None:
        yield
        return
    waiting: list[Callable[[], object]] = []
    _thread.waiting = waiting
    try:
        yield
    finally:
        _thread.waiting = None
        for log in waiting:
            log()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the structured logger *name*; never raises.

    Its lines are the standard library's: the message is the event's name and its fields, the extras are
    ``event`` and each field.

    Args:
        name: Dotted, under ``run_log``.
    """
    processors: list[Any] = [
        _limit,
        _add_text,
        structlog.contextvars.merge_contextvars,
        _rename_reserved,
        _as_record,
    ]
    logger = structlog.wrap_logger(
        logging.getLogger(name), processors=processors, wrapper_class=_HarmlessLogger
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def _count(reason: LeftOut) -> None:
    # A metric may be any code, too.
    if not _thread.is_counting:
        _thread.is_counting = True
        try:
            _left_out.add(1, {"reason": reason.value})
        finally:
            _thread.is_counting = False


def _limit(_logger: object, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    allowance = _allowances.setdefault(event_dict["event"], _Allowance())
    if not allowance.take(time.monotonic()):
        _count(LeftOut.RATE)
        raise structlog.DropEvent
    if allowance.left_out:
        event_dict["lines_left_out"], allowance.left_out = allowance.left_out, 0
    return event_dict


def _add_text(
    _logger: object, _method: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    # Before the host's context variables come in: those are its own to show.
    event_dict[_TEXT] = " ".join(
        f"{key}={_shown(value)}"
        for key, value in event_dict.items()
        if key != "event" and key not in _FOR_LOGGING
    )
    return event_dict


def _shown(value: object) -> str:
    with Contained():  # an object's own code may raise anything, and a deep one has no repr
        return one_line(str.__str__(repr(value)))
    return one_line(f"<{type_name(value)}>")  # object's repr would ask its class for names


def _rename_reserved(
    _logger: object, _method: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    # The host's context variables come in too, and it may have bound "name" or "module".
    return {f"{key}_" if key in _RESERVED else key: value for key, value in event_dict.items()}


def _as_record(
    _logger: object, _method: str, event_dict: MutableMapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    text = event_dict.pop(_TEXT)
    event = event_dict["event"]
    stacks = {name: event_dict.pop(name) for name in _FOR_LOGGING if name in event_dict}
    # The event's name alone is the format: what groups log lines does so by that.
    return (f"{event} %s", text) if text else (event,), {"extra": dict(event_dict), **stacks}
