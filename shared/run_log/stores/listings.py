"""Listings: which runs a page has, where a run stands in it, and the cursor that goes on from there."""

from __future__ import annotations

import base64
import enum
import functools
import hashlib
import json
import reprlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self, TypedDict, TypeVar, cast

from run_log.core import InvalidArgumentError, InvalidCursorError, RunStatus, StoreError, TriggerType
from run_log.core.clock import micros_of, moment_of
from run_log.core.ids import is_document_id

_E = TypeVar("_E", bound=enum.StrEnum)

# They tell a mix-up of listings. They guard no secret: a cursor gives access to
# nothing that its listing does not show.
_CHECK_BYTES: Final = 6
_FORMAT: Final = 1
# What Firestore and SQLite hold: beyond, a forged cursor would be an error of theirs.
_MAX_NUMBER: Final = 2**63
_MAX_SHOWN: Final = 300


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
            since=None if since is None else aware("since", since),
            until=None if until is None else aware("until", until),
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


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands in a listing: a total order, so ties are neither lost nor repeated."""

    moment: datetime
    """What the listing is sorted by, in UTC."""
    run: str
    """The run's document id; compared by code point, as Firestore compares it."""
    workflow: str = ""
    """The workflow's document id, which comes before the run's; empty in the listing of one workflow."""

    def __lt__(self, other: Position) -> bool:
        """Return whether this comes before *other*."""
        # Not the order of the fields: stores sort by path, and a workflow's is part of its runs'.
        return (self.moment, self.workflow, self.run) < (other.moment, other.workflow, other.run)


def encode_cursor(position: Position, *, scope: str, selection: str = "") -> str:
    """Return the cursor for the page that begins after *position*, the last one of the page before.

    Args:
        position: The position.
        scope: The workflow whose runs are listed, or what a listing of several workflows is called.
        selection: What tells this listing from others of that scope; empty for all runs, the newest first.
    """
    names = (position.workflow, position.run) if position.workflow else (position.run,)
    return encode_parts((micros_of(position.moment), *names), scope=scope, selection=selection)


def decode_cursor(
    cursor: object, *, scope: str, selection: str = "", of_several_workflows: bool = False
) -> Position:
    """Return the position that `encode_cursor` put into *cursor*; see `decode_parts`."""
    kinds = (int, str, str) if of_several_workflows else (int, str)
    micros, *workflow, run = decode_parts(cursor, kinds, scope=scope, selection=selection)
    try:
        return Position(moment_of(micros), run, *workflow)
    except OverflowError as error:
        raise InvalidCursorError(_malformed(cursor)) from error


def encode_parts(parts: Sequence[int | str], *, scope: str, selection: str = "") -> str:
    """Return the cursor for what comes after *parts*, by which the listing is sorted; see `encode_cursor`."""
    content = json.dumps([_FORMAT, *parts], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(content, scope, selection) + content).rstrip(b"=").decode()


def decode_parts(
    cursor: object, kinds: Sequence[type[int | str]], *, scope: str, selection: str = ""
) -> list[Any]:
    """Return the parts of these *kinds* that `encode_parts` put into *cursor*, which a caller passes.

    Raises:
        InvalidCursorError: It is malformed, or was given out for another listing.
    """
    if not isinstance(cursor, str):
        raise InvalidCursorError(_malformed(cursor))
    try:
        # Decoding ignores what it does not know, so equality with its own encoding is the check.
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        check, content = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        found: list[Any] = json.loads(content)
        version, *parts = found
        intact = (
            version == _FORMAT
            and [type(part) for part in parts] == list(kinds)
            and all(-_MAX_NUMBER <= part < _MAX_NUMBER for part in parts if type(part) is int)
            and base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == cursor
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidCursorError(_malformed(cursor)) from error
    if not intact:
        raise InvalidCursorError(_malformed(cursor))
    if check != _check(content, scope, selection):
        raise InvalidCursorError(
            f"the cursor {reprlib.repr(cursor)} belongs to another listing than {scope[:_MAX_SHOWN]!r}"
            f"{f' with {selection[:_MAX_SHOWN]}' if selection else ''}, or was altered; "
            "pass a cursor only to the listing that returned it, with the same filters and order"
        )
    return parts


def check_moves_on(after: Any | None, last: Any, *, newest_first: bool = False) -> None:
    """Check that a page ends beyond the position after which it began: else a walk would never end.

    Raises:
        StoreError: It does not.
    """
    if after is not None and not (last < after if newest_first else last > after):
        raise StoreError(
            f"a page after {after} ends at {last}: what the store sorts by is not what it returns; its index "
            "is damaged, so restore it from a copy, or rebuild the projection"
        )


def check_names(cursor: object, *documents: str) -> None:
    """Check what a cursor names: who forges one can have it name anything, and a store would stumble.

    Raises:
        InvalidCursorError: One of *documents* is no document id.
    """
    if not all(map(is_document_id, documents)):
        raise InvalidCursorError(
            f"{reprlib.repr(cursor)} is not a cursor: it names what has no such name; pass what the page "
            "before returned, or None for the first page"
        )


def aware(name: str, value: object) -> datetime:
    """Return *value*, the argument *name*, in UTC if it is an aware datetime.

    Raises:
        InvalidArgumentError: It is none.
    """
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidArgumentError(f"{name} is {value!r}; pass an aware datetime")
    try:
        moved = value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidArgumentError(
            f"{name} is {value!r}, which lies outside years 1 to 9999 in UTC"
        ) from error
    # A vendor's datetime, as its snapshots hold them, stays one in astimezone(), and is sent through a float.
    return datetime.combine(moved.date(), moved.timetz())


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


def _malformed(cursor: object) -> str:
    # reprlib bounds the text, and bears an object whose own repr raises.
    return (
        f"{reprlib.repr(cursor)} is not a cursor; "
        "pass what the page before returned, or None for the first page"
    )


def _check(content: bytes, scope: str, selection: str) -> bytes:
    listing = f"{scope}\x00{selection}" if selection else scope
    return hashlib.sha256(listing.encode(errors="surrogatepass") + b"\x00" + content).digest()[:_CHECK_BYTES]
