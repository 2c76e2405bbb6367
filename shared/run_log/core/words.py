"""What people write for times and labels, on the command line and on pages: ``90m``, ``customer=acme``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from .errors import InvalidArgumentError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")


def duration(text: str) -> timedelta:
    """Parse a duration such as ``90m``. Anything else is an `InvalidArgumentError`."""
    found = _duration(text)
    if found is None:
        raise InvalidArgumentError(
            f"{text!r} is not a duration; pass a whole number with s, m, h or d, such as 90m or 2d"
        )
    return found


def moment(text: str, now: datetime) -> datetime:
    """Parse a moment: a duration such as ``2h`` before *now*, a date, or a time, in UTC if it has no offset.

    Anything else is an `InvalidArgumentError`.
    """
    ago = _duration(text)
    if ago is not None:
        try:
            return now - ago
        except OverflowError as error:
            raise InvalidArgumentError(f"{text!r} is longer ago than any run; leave it out") from error
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgumentError(
            f"{text!r} is not a moment; pass how long ago it was, such as 90m or 2d, or a time, such as "
            "2026-03-04T12:00:00Z"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def label_pair(text: str) -> tuple[str, str]:
    """Parse a label such as ``customer=acme``. Anything else is an `InvalidArgumentError`."""
    key, separator, value = text.partition("=")
    if not separator:
        raise InvalidArgumentError(
            f"{text!r} is not a label; pass a key and its value, such as customer=acme"
        )
    return key, value


def _duration(text: str) -> timedelta | None:
    match = _DURATION.fullmatch(text)
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
