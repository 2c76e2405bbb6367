"""What callers pass to queries and answers, checked: each function says what is wrong, and what to pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from run_log.core import InvalidArgumentError, utc_now
from run_log.core.ids import id_text
from run_log.core.protocol import MAX_LIMIT

from .listings import aware


def identifier(name: str, value: object) -> str:
    """Return *value* as an id, as `save_run` takes it."""
    text = id_text(value)
    if not text:
        raise InvalidArgumentError(f"{name} is {value!r}; pass a non-empty text")
    return text


def assignee_or_none(value: object) -> str | None:
    """Return *value* as the id of a person; None for anybody."""
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentError(f"assignee is {value!r}; pass a non-empty text")
    return None if value is None else identifier("assignee", value)


def overdue_or_none(value: object) -> bool | None:
    """Return *value*, which is True, False, or None for either."""
    if value is not None and not isinstance(value, bool):
        raise InvalidArgumentError(f"overdue is {value!r}; pass True, False, or None for either")
    return value


def heard_before(older_than: object, now: datetime) -> datetime:
    """Return the moment that was *older_than* before *now*, or the first one that there is.

    Raises:
        InvalidArgumentError: *older_than* is no duration.
    """
    if not isinstance(older_than, timedelta) or older_than < timedelta(0):
        raise InvalidArgumentError(f"older_than is {older_than!r}; pass a timedelta of 0 or more")
    try:
        return now - older_than
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def moment_or_now(value: object) -> datetime:
    """Return *value* in UTC if it is an aware datetime; the machine's time where it is None.

    Raises:
        InvalidArgumentError: It is neither.
    """
    return utc_now() if value is None else aware("now", value)


def whole(name: str, value: object) -> int:
    """Return *value*, the argument *name*, if it is a whole number from 1 to `MAX_LIMIT`.

    Raises:
        InvalidArgumentError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LIMIT:
        raise InvalidArgumentError(f"{name} is {value!r}; pass a whole number from 1 to {MAX_LIMIT}")
    return value
