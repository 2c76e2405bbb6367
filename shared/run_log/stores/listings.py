"""Listings: which runs a page has, where a run stands in it, and the cursor that goes on from there."""

from __future__ import annotations

import base64
import enum
import functools
import hashlib
import json
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self, TypedDict, TypeVar, cast

from run_log.core import (
    InvalidArgumentError,
    InvalidCursorError,
    RunRef,
    RunStatus,
    StoreError,
    TriggerType,
    WorkflowRun,
)
from run_log.core.clock import micros_of, moment_of
from run_log.core.fields import MAX_ERROR_TYPE_BYTES, MAX_LABEL_LENGTH, is_label_key
from run_log.core.ids import bounded_id, id_text, is_document_id, valid_text
from run_log.core.models import is_trigger_word, trigger_of
from run_log.core.payload import fit_text

_E = TypeVar("_E", bound=enum.StrEnum)


class HasJson(Protocol):
    """What has a public JSON form, as runs, steps and transitions do."""

    def to_json(self) -> dict[str, Any]:
        """Return that form."""
        ...


# They tell a mix-up of listings. They guard no secret: a cursor gives access to
# nothing that its listing does not show.
_CHECK_BYTES: Final = 6
_FORMAT: Final = 1
# What Firestore and SQLite hold: beyond, a forged cursor would be an error of theirs.
_MAX_NUMBER: Final = 2**63
_MAX_SHOWN: Final = 300

_PAIR: Final = 2

MAX_PASSED_OVER: Final = 1_000
"""How many runs a page passes over, at most, that an index has found and that are not selected."""


class Order(enum.StrEnum):
    """From which end a listing begins."""

    NEWEST = "newest"
    """The run that started last comes first."""
    OLDEST = "oldest"
    """The run that started first comes first."""


class RunConditions(TypedDict, total=False):
    """What runs have to be like; all given have to hold. Values may be given as text."""

    status: RunStatus | str | Collection[RunStatus | str] | None
    """The run's status, or one of several; None is any."""
    since: datetime | None
    """The earliest `started_at`, included; aware."""
    until: datetime | None
    """The `started_at` from which on runs are left out; aware."""
    trigger_type: TriggerType | str | None
    """What started the run, a `TriggerType` or any other word; None is anything."""
    label: tuple[str, str] | Mapping[str, str] | Iterable[tuple[str, str]] | None
    """A label of the run, as a key and its value; or several, all of which it has to have."""
    parent: RunRef | tuple[str, str] | None
    """The run that started it: its workflow's id and its own."""
    error_type: str | None
    """The `error_type` of the run, whole."""


class RunFilters(RunConditions, total=False):
    """What narrows a listing of runs, and its order."""

    order: Order | str
    """From which end; the newest first unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Runs of one workflow, or of all, by what is stored of them, in an order."""

    statuses: tuple[RunStatus, ...] | None = None
    """Those of which the status is one, in the order of their declaration; None is any."""
    since: datetime | None = None
    """Included; in UTC."""
    until: datetime | None = None
    """Left out; in UTC."""
    trigger_type: TriggerType | str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    """Those of which it has all, sorted."""
    parent: RunRef | None = None
    error_type: str | None = None
    order: Order = Order.NEWEST

    @classmethod
    def of(  # noqa: PLR0913 - each is a filter
        cls,
        *,
        status: object = None,
        since: object = None,
        until: object = None,
        trigger_type: object = None,
        label: object = None,
        parent: object = None,
        error_type: object = None,
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
            trigger_type=None if trigger_type is None else _trigger(trigger_type),
            labels=() if label is None else _labels(label),
            parent=None if parent is None else _parent(parent),
            error_type=None if error_type is None else _error_type(error_type),
            order=_member(Order, "order", order),
        )

    @property
    def text(self) -> str:
        """What tells this selection from every other; empty for all runs, the newest first."""
        if self == Selection():
            return ""
        parts: list[object] = [
            self.statuses,
            self.since and self.since.isoformat(),
            self.until and self.until.isoformat(),
            self.trigger_type,
            self.order,
        ]
        # Only where there are any: cursors of listings without them were made before there were any.
        if self.labels or self.parent or self.error_type:
            parts += [self.labels, self.parent, self.error_type]
        return json.dumps(parts, separators=(",", ":"))

    def by_index(self, *, of_all: bool = False) -> Selection:
        """Return what of this an index finds: the times, and one filter, or a status and a trigger.

        What else is asked for is looked for in the runs that this finds; see `wants`.

        Args:
            of_all: Whether runs of all workflows are listed: no index of these has triggers.
        """
        # An index for each combination would be written with every run, and most combinations are rare.
        rest = Selection(since=self.since, until=self.until, order=self.order)
        if self.parent:
            return replace(rest, parent=self.parent)
        if self.labels:
            return replace(rest, labels=self.labels[:1])
        if self.error_type:
            return replace(rest, error_type=self.error_type)
        return replace(rest, statuses=self.statuses, trigger_type=None if of_all else self.trigger_type)

    def wants(self, run: WorkflowRun) -> bool:
        """Return whether *run*, which started within the times, is selected."""
        return (
            (self.statuses is None or run.status in self.statuses)
            and (self.trigger_type is None or run.trigger_type == self.trigger_type)
            and run.labels.items() >= set(self.labels)
            and (self.parent is None or run.parent == self.parent)
            and (self.error_type is None or run.error_type == self.error_type)
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


def page_json(
    name: str, items: Iterable[HasJson], cursor: str | None = None, *, payloads: bool = True
) -> dict[str, Any]:
    """Return a page of a listing as JSON: *items* under *name*, and under ``next_page_token`` the *cursor*.

    At the end of the listing, where *cursor* is None, there is no ``next_page_token``. Where *payloads* were
    not read, the runs have no ``trigger_data`` and no ``result``: see `without_payloads`.
    """
    found = [item.to_json() for item in items]
    page: dict[str, Any] = {name: found if payloads else [without_payloads(each) for each in found]}
    if cursor is not None:
        page["next_page_token"] = cursor
    return page


def without_payloads(run: dict[str, Any]) -> dict[str, Any]:
    """Return *run*, as `WorkflowRun.to_json` returned it, without the payloads, which were not read.

    Empty ones would say that there are none.
    """
    del run["trigger_data"], run["result"]
    return run


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


def _trigger(value: object) -> TriggerType | str:
    if not isinstance(value, str) or not is_trigger_word(value):
        raise InvalidArgumentError(
            f"trigger_type is {value!r:.100}; pass one of {', '.join(TriggerType)}, or another word: at most "
            "64 of a-z 0-9 _ . -, a letter first"
        )
    return trigger_of(str.__str__(value))


def _labels(value: object) -> tuple[tuple[str, str], ...]:
    shown = reprlib.repr(value)
    given = cast("Mapping[object, object]", value).items() if isinstance(value, Mapping) else value
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise _no_label(shown)
    several = tuple(cast("Iterable[object]", given))
    # One label is a pair itself.
    if len(several) == _PAIR and isinstance(several[0], str):
        several = (several,)
    if not several:
        raise InvalidArgumentError("label is empty; pass a key and its value, several, or None for any")
    return tuple(sorted({_label(one, shown) for one in several}))


def _label(given: object, shown: str) -> tuple[str, str]:
    pair = tuple(cast("Sequence[object]", given)) if isinstance(given, tuple | list) else ()
    if len(pair) != _PAIR:
        raise _no_label(shown)
    key, text = pair
    # As the labels of a run: a number is its text.
    found = id_text(text)
    if not isinstance(key, str) or not is_label_key(key) or found is None or len(found) > MAX_LABEL_LENGTH:
        raise _no_label(shown)
    return str.__str__(key), valid_text(found)


def _no_label(shown: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"label is {shown}; pass a key and its value, such as ('customer', 'acme'), or several: a key is at "
        f"most 63 of a-z 0-9 _ . -, a letter or digit first, a value at most {MAX_LABEL_LENGTH} characters"
    )


def _parent(value: object) -> RunRef:
    shown = reprlib.repr(value)
    given = tuple(cast("Sequence[object]", value)) if isinstance(value, tuple | list) else ()
    workflow_id, run_id = map(id_text, given) if len(given) == _PAIR else (None, None)
    if not workflow_id or not run_id:
        raise InvalidArgumentError(
            f"parent is {shown}; pass RunRef(workflow_id, run_id) of the run that started others"
        )
    return RunRef(bounded_id(workflow_id), bounded_id(run_id))


def _error_type(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(
            f"error_type is {value!r:.100}; pass the qualified name of an exception, such as 'ValueError'"
        )
    return fit_text(value, MAX_ERROR_TYPE_BYTES)


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
