"""Structured logs that stay silent until the host application configures logging."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Final, cast

import structlog

MAX_SHOWN: Final = 500
"""Characters of a value that a log line shows."""

# Without it the standard library would print a library's warnings to stderr by itself.
logging.getLogger("run_log").addHandler(logging.NullHandler())


class _HarmlessLogger(structlog.stdlib.BoundLogger):
    """Raises nothing into the code that logs: a handler's fault is its owner's, not the workflow's."""

    def _proxy_to_logger(self, *arguments: Any, **fields: Any) -> Any:
        try:
            return super()._proxy_to_logger(*arguments, **fields)
        except Exception:  # noqa: BLE001 - there is nowhere left to tell it
            return None


_RESERVED: Final = (frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}) - {
    "exc_info",
    "stack_info",
}
"""Names that a log record keeps for itself: as extras they raise `KeyError`."""


def one_line(text: str, limit: int = MAX_SHOWN) -> str:
    """Return *text* as part of a line: what breaks lines or commands a terminal is escaped, a long one cut.

    Args:
        text: What may be anybody's.
        limit: Characters to return at most, about.
    """
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the structured logger *name*: events go to the standard library, fields as extras; never raises.

    Args:
        name: Dotted, under ``run_log``.
    """
    processors: list[Any] = [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        _rename_reserved,
        structlog.stdlib.render_to_log_kwargs,
    ]
    logger = structlog.wrap_logger(
        logging.getLogger(name), processors=processors, wrapper_class=_HarmlessLogger
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def _rename_reserved(
    _logger: object, _method: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    # The host's context variables come in too, and it may have bound "name" or "module".
    return {f"{key}_" if key in _RESERVED else key: value for key, value in event_dict.items()}
