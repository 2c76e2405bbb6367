"""Structured logs that stay silent until the host application configures logging."""

from __future__ import annotations

import logging
from typing import Any, cast

import structlog

# Without it the standard library would print a library's warnings to stderr by itself.
logging.getLogger("run_log").addHandler(logging.NullHandler())


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the structured logger *name*: events go to the standard library, fields as extras.

    Args:
        name: Dotted, under ``run_log``.
    """
    processors: list[Any] = [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.render_to_log_kwargs,
    ]
    logger = structlog.wrap_logger(
        logging.getLogger(name), processors=processors, wrapper_class=structlog.stdlib.BoundLogger
    )
    return cast("structlog.stdlib.BoundLogger", logger)
