"""Which of a workflow's runs a listing has, and from which end it begins."""

from __future__ import annotations

import enum
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypedDict, TypeVar, cast

from run_log.core.errors import InvalidArgumentError
from run_log.core.models import RunStatus, TriggerType

_E = TypeVar("_E", bound=enum.StrEnum)


class Order(enum.StrEnum):
    """From which end a listing begins."""

    NEWEST = "newest"
    """The run that started last comes first."""
    OLDEST = "oldest"
    """The run that started first comes first."""


class RunFilters(TypedDict, total=False):
    """What narrows a listing of runs; all given have to hold. Values may be given as text."""

    status: RunStatus | str | Collection[RunStatus | str] | None
    """The run's status, or one of several; None is any."""
    since: datetime | None
    """The earliest `started_at`, included; aware."""
    until: datetime | None
    """The `started_at` from which on runs are left out; aware."""
    trigger_type: TriggerType | str | None
    """What started the run; None is anything."""
    order: Order | str
    """From which end; the newest first unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Runs of one workflow by what is stored of them, in an order."""

    statuses: tuple[RunStatus, ...] | None = None
    """Those of which the status is one, in the order of their declaration; None is any."""
    since: datetime | None = None
    """Included; in UTC."""
    until: datetime | None = None
    """Left out; in UTC."""
    trigger_type: TriggerType | None = None
    order: Order = Order.NEWEST

    @classmethod
    def of(
        cls,
        *,
        status: object = None,
        since: object = None,
        until: object = None,
        trigger_type: object = None,
        order: object = Order.NEWEST,
    ) -> Self:
        """Return what `RunFilters` select.

        Raises:
            InvalidArgumentError: A value cannot be used; the message says which can.
        """
        return cls(
            statuses=_statuses(status),
            since=_moment("since", since),
            until=_moment("until", until),
            trigger_type=None if trigger_type is None else _member(TriggerType, "trigger_type", trigger_type),
            order=_member(Order, "order", order),
        )

    @property
    def text(self) -> str:
        """What tells this selection from every other; empty for all runs, the newest first."""
        if self == Selection():
            return ""
        parts = [
            self.statuses,
            self.since and self.since.isoformat(),
            self.until and self.until.isoformat(),
            self.trigger_type,
            self.order,
        ]
        return json.dumps(parts, separators=(",", ":"))

    def includes(self, *, status: object, started_at: datetime, trigger_type: object) -> bool:
        """Return whether a run with these fields is selected."""
        return (
            (self.statuses is None or status in self.statuses)
            and (self.since is None or started_at >= self.since)
            and (self.until is None or started_at < self.until)
            and (self.trigger_type is None or trigger_type == self.trigger_type)
        )


def _statuses(value: object) -> tuple[RunStatus, ...] | None:
    if value is None:
        return None
    several: Collection[object] = [value]
    if isinstance(value, Collection) and not isinstance(value, str):
        several = cast("Collection[object]", value)
    chosen = {_member(RunStatus, "status", one) for one in several}
    if not chosen:
        raise InvalidArgumentError("status is empty; pass one status, several, or None for any")
    return None if len(chosen) == len(RunStatus) else tuple(one for one in RunStatus if one in chosen)


def _member(kind: type[_E], name: str, value: Any) -> _E:
    try:
        return kind(value)
    except ValueError as error:
        raise InvalidArgumentError(f"{name} is {value!r}; pass one of {', '.join(kind)}") from error


def _moment(name: str, value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidArgumentError(f"{name} is {value!r}; pass an aware datetime")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidArgumentError(
            f"{name} is {value!r}, which lies outside years 1 to 9999 in UTC"
        ) from error
