"""Logs of a process that is ours: one line an event on stderr, JSON where nobody watches."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the library's logs to stderr: coloured text on a terminal, else one JSON object a line.

    The JSON has the keys that Cloud Logging reads: ``severity``, ``message``, ``time``.

    Args:
        level: The least level to show.
    """
    # An id or an error is any producer's: quoted, or as JSON, nothing in it commands a terminal.
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback, repr_native_str=True)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    keys: list[Any] = (
        [_literal_traceback]
        if sys.stderr.isatty()
        else [_severity, structlog.processors.EventRenamer("message")]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.ExtraAdder(),
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                structlog.processors.format_exc_info,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *keys, renderer],
        )
    )
    logger = logging.getLogger("run_log")
    logger.addHandler(handler)
    logger.setLevel(level)


def _severity(_logger: Any, _method: str, event: Any) -> Any:
    event["severity"] = event.pop("level").upper()
    return event


def _literal_traceback(_logger: Any, _method: str, event: Any) -> Any:
    # Read late: only a terminal needs it, and it brings all that tables take.
    from run_log.console._render import literal

    if "exception" in event:
        event["exception"] = literal(event["exception"]).plain
    return event
