"""Logs of a command: one line for each event on stderr, as JSON unless stderr is a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

from run_log.core.payload import decode_json, encode_json

from .views.layout import literal
from .views.output import json_text, screen, write


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the library's logs of *level* or more to stderr: text on a terminal, else JSON lines.

    The JSON has the keys that Cloud Logging reads: ``severity``, ``message``, ``time``.
    """
    processors: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if sys.stderr.isatty():
        # An id or an error may hold any bytes a producer sends. Quoted, it cannot control a terminal.
        plain = structlog.dev.plain_traceback
        coloured = screen(stream=sys.stderr).coloured
        processors += [
            _literal,
            structlog.dev.ConsoleRenderer(colors=coloured, exception_formatter=plain, repr_native_str=True),
        ]
    else:
        renamer = structlog.processors.EventRenamer("message")
        processors += [_severity, renamer, structlog.processors.JSONRenderer(serializer=_serialized)]
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.ExtraAdder(),
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                structlog.processors.format_exc_info,
            ],
            processors=processors,
        )
    )
    logger = logging.getLogger("run_log")
    logger.addHandler(handler)
    logger.setLevel(level)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines with their colours, which `Border` would escape."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write(self.format(record).split("\n"), self.stream)
        except Exception:  # noqa: BLE001 - logging reports it, and the command goes on
            self.handleError(record)


def _serialized(event: object, **_: Any) -> str:
    return json_text(event)


def _severity(_logger: Any, _method: str, event: Any) -> Any:
    event["severity"] = event.pop("level").upper()
    return event


def _literal(_logger: Any, _method: str, event: Any) -> Any:
    # Texts must command no terminal, and values of any kind and depth must be such that they can be shown.
    for name, value in event.items():
        if name == "event":
            event[name] = literal(str(value))
        elif name in {"exception", "stack"}:
            # Set in, so that no line of it can be taken for one of the log.
            event[name] = "\n".join(f"    {literal(line)}" for line in str(value).split("\n"))
        elif not isinstance(value, str):
            event[name] = decode_json(encode_json(value))
    return event
