"""Structured logs that stay silent until the host application configures logging.

A handler is foreign code. It may record a run, and recording may log. So a line that a thread logs while it
is logging is left out, each event has a limit of lines, and no handler runs while one of our locks is held.
"""

from __future__ import annotations

import enum
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from opentelemetry import metrics

from .nearest import Contained, is_foreign, type_name

# The most characters of a value that a log line shows.
MAX_SHOWN: Final = 1_000

# A handler behind a queue runs in a thread of its own, where its lines are not seen to be made while we log.
# If each line makes it log another, this limit ends the loop, however slow the handler is.
LINES_AT_ONCE: Final = 50
"""How many lines of one event may be logged at once. Then there is one each `SECONDS_A_LINE`."""

SECONDS_A_LINE: Final = 60.0

_FOR_LOGGING: Final = frozenset({"exc_info", "stack_info", "stacklevel"})

# The printable characters that show nothing: Unicode's Default_Ignorable_Code_Point, without the two that
# choose between a character's text and its picture
# (https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point).
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufe00-\ufe0d\U000e0100-\U000e01ef]"
)

_left_out: Final = metrics.get_meter("run_log.core").create_counter(
    "run_log.logs.left_out", unit="{line}", description="Log lines left out, by why"
)

# Without a handler, the standard library prints warnings to stderr.
logging.getLogger("run_log").addHandler(logging.NullHandler())


class LeftOut(enum.StrEnum):
    """Why a line is not logged."""

    REENTRANT = "reentrant"
    """This thread was logging already: a handler logged it."""
    RATE = "rate"
    """There were too many lines of its event. The next one says how many were left out."""


class _Thread(threading.local):
    is_logging = False
    is_counting = False
    waiting: list[Callable[[], object]] | None = None


@dataclass(slots=True)
class _Allowance:
    # No lock: every line would pay for it, and threads that race only let through a line too many or too few.
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


class Logger:
    """Logs events. It raises nothing into the code that logs: a faulty handler does not fail the workflow."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: Any) -> None:
        """Log for whoever looks for a fault."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what is as it should be."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what somebody may have to look at."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what somebody has to look at."""
        self._log(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Log what ends the process."""
        self._log(logging.CRITICAL, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log an error with the current exception."""
        self._log(logging.ERROR, event, {"exc_info": True, **fields})

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        try:
            if not self._logger.isEnabledFor(level):
                return
            if _thread.is_logging:
                _count(LeftOut.REENTRANT)
            elif _thread.waiting is not None:
                # By the time the line is logged, the exception is no longer the current one.
                if fields.get("exc_info") is True:
                    fields["exc_info"] = sys.exc_info()
                _thread.waiting.append(partial(self._log, level, event, fields))
            else:
                self._write(level, event, fields)
        except BaseException as error:
            # Logging is what failed, so there is no way left to report it.
            if not is_foreign(error):
                raise

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        _thread.is_logging = True
        try:
            if not _is_allowed(event, fields):
                return
            # Before the host's context variables are merged in: the host decides whether to show those.
            shown = ((key, value) for key, value in fields.items() if key not in _FOR_LOGGING)
            text = " ".join(f"{key}={_shown(value)}" for key, value in shown)
            extra = _renamed({**_host_context(), **fields, "event": event})
            stacks = {name: extra.pop(name) for name in _FOR_LOGGING if name in extra}
            # The format is the event's name alone, because error trackers group lines by their format.
            line = (f"{event} %s", text) if text else (event,)
            self._logger.log(level, *line, extra=extra, **stacks)
        finally:
            _thread.is_logging = False


# Attributes of a log record. As extras they would raise `KeyError`.
_RESERVED: Final = (frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}) - _FOR_LOGGING


def one_line(text: str, limit: int = MAX_SHOWN) -> str:
    """Return *text* as part of a line: escaped as by `literal`, and cut if it has over *limit* characters."""
    return literal(text if len(text) <= limit else f"{text[:limit]}...")


def literal(text: str, encoding: str = "utf-8") -> str:
    r"""Return *text* on one line, with escapes for all characters that are invisible or command a terminal.

    These are control characters, line and paragraph separators, characters that change the direction or have
    no width, tags, and lone surrogates. Joiners are no exception: an emoji of several parts is shown as its
    parts with ``\u200d`` between. Characters that *encoding* lacks are escaped too.
    """
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    if not text.isascii():
        text = _UNSEEN.sub(lambda unseen: ascii(unseen[0])[1:-1], text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def logging_later() -> Generator[None]:
    """Log what this thread logs in the block after it. Put it around a block that holds a lock."""
    # A handler may record a run, which needs our locks, or wait for a thread that needs them.
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


@contextmanager
def caught_events(caught: list[str]) -> Generator[None]:
    """Log nothing of what this thread logs in the block, and add the names of these events to *caught*."""
    before, waiting = _thread.waiting, list[Callable[[], object]]()
    _thread.waiting = waiting
    try:
        yield
    finally:
        _thread.waiting = before
        caught += (line.args[1] for line in waiting if isinstance(line, partial))


def get_logger(name: str) -> Logger:
    """Return the structured logger *name*. It never raises.

    It logs through the standard library. The message is the event's name and its fields; the extras are
    ``event``, each field, and the context variables that the host has bound with structlog.
    """
    return Logger(logging.getLogger(name))


def _count(reason: LeftOut) -> None:
    # The exporter of a metric is foreign code too, and may log.
    if not _thread.is_counting:
        _thread.is_counting = True
        try:
            _left_out.add(1, {"reason": reason.value})
        finally:
            _thread.is_counting = False


def _is_allowed(event: str, fields: dict[str, Any]) -> bool:
    allowance = _allowances.setdefault(event, _Allowance())
    if not allowance.take(time.monotonic()):
        _count(LeftOut.RATE)
        return False
    if allowance.left_out:
        fields["lines_left_out"], allowance.left_out = allowance.left_out, 0
    return True


def _host_context() -> Mapping[str, Any]:
    # Whoever has bound some has loaded it. It loads rich, which would take a quarter of the time in which a
    # short command starts.
    context = getattr(sys.modules.get("structlog.contextvars"), "get_contextvars", dict)
    bound: Mapping[str, Any] = context()
    return bound


def _shown(value: object) -> str:
    # The repr of a foreign object may raise anything, and that of a deep value raises RecursionError.
    with Contained():
        return one_line(str.__str__(repr(value)))
    # Not object.__repr__: it asks the class for its name and module, which may raise again.
    return one_line(f"<{type_name(value)}>")


def _renamed(fields: Mapping[str, Any]) -> dict[str, Any]:
    # The host's context variables are among the fields, and one may be called "name" or "module".
    return {f"{key}_" if key in _RESERVED else key: value for key, value in fields.items()}
