"""Stored runs as they are read back. What cannot be read ends no listing."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar, cast

from run_log.core import (
    InvalidRunError,
    RunEvent,
    RunStatus,
    Transition,
    UnreadableRunError,
    Version,
    WorkflowRun,
    WriteRefusedError,
)
from run_log.core.clock import EPOCH, moment_of
from run_log.core.counters import MAX_DURATION, Counted, hour_of
from run_log.core.events import UNVERSIONED
from run_log.core.fields import STORED
from run_log.core.history import newest
from run_log.core.ids import bounded_id, document_id, original_id
from run_log.core.law import RunHead
from run_log.core.models import RunKey
from run_log.core.payload import decode_json, encode_json
from run_log.core.steps import joined_steps, step_from_text
from run_log.stores.listings import MAX_PASSED_OVER, Position, Selection
from run_log.stores.telemetry import skipped_unreadable

from .fields import (
    COUNTED_HOUR,
    COUNTED_MICROS,
    EXPIRE_AT,
    HISTORY,
    LABELS,
    PARENT,
    PROGRESS,
    PROGRESS_DIGEST,
    PROJECTION,
    STEPS,
)

_MAX_NUMBER: Final = 2**63
_MOST_MICROS: Final = MAX_DURATION // timedelta(microseconds=1)
_FIRST_HOUR: Final = hour_of(datetime.min.replace(tzinfo=UTC))
_LAST_HOUR: Final = hour_of(datetime.max.replace(tzinfo=UTC))

# Where they stand at the end of a transition's text.
_DIGEST, _CHOICE, _COMMENT, _VALUES = range(1, 5)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHead:
    """A run's head as a store holds it."""

    head: RunHead
    history_length: int
    """Transitions stored; more than the head's history until they are trimmed."""
    expires_at: datetime | None = None
    """When the run may be deleted; None where it never may."""

    def is_expired(self, now: datetime) -> bool:
        """Return whether the run has expired: it will be deleted, and queries no longer see it."""
        return is_expired(self.expires_at, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as read, with what is known of its newest event."""

    run: WorkflowRun
    version: Version
    """Of the newest event."""
    projection: Mapping[str, Any]
    """Its projection map; empty where something else than run-log wrote it."""
    expires_at: datetime | None = None
    """When it may be deleted; None where it never may."""

    def is_expired(self, now: datetime) -> bool:
        """Return whether it has expired: it will be deleted, and queries no longer see it."""
        return is_expired(self.expires_at, now)

    def concluded(self, changes: Mapping[str, object], now: datetime, *, what: str) -> RunEvent:
        """Return the event that the run has these *changes* by *now*, concluded from its silence.

        It is stamped just after the newest event: any real event that follows this beats it, and two who
        conclude the same make the same event. *what* says in an error what the run cannot be.

        Raises:
            WriteRefusedError: Nothing can come after the newest event.
        """
        # As it is stored, whatever that is: what is concluded from it is checked.
        heard = RunEvent.model_construct(
            event_id=self.version.event_id,
            hlc=self.version.hlc,
            occurred_at=self.occurred_at,
            run=self.run.model_copy(update={"attempt": self.version.attempt}),
        )
        try:
            return heard.infer(heard.run.model_copy(update=dict(changes)), now=lambda: now)
        except InvalidRunError as error:
            raise WriteRefusedError(
                f"run {self.run.id!r} of workflow {self.run.workflow_id!r} cannot be {what}: nothing comes "
                f"after {self.version} ({error}); publish its end as its next attempt, or delete the document"
            ) from error

    def without_payloads(self) -> StoredRun:
        """Return it with an empty `trigger_data` and `result`."""
        return replace(self, run=self.run.model_copy(update={"trigger_data": {}, "result": {}}))

    @property
    def occurred_at(self) -> datetime:
        """When the newest event happened, on its emitter's clock; its start, where nobody says."""
        moment = self.projection.get("occurred_at")
        # A store may return a subclass of its own.
        return EPOCH + (moment - EPOCH) if isinstance(moment, datetime) else self.run.started_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a listing, and whether another follows."""

    runs: Sequence[StoredRun]
    more: bool
    reached: WorkflowRun | None = None
    """The run after which the next page begins; None for the last one of the page."""

    @classmethod
    def of(cls, found: Sequence[StoredRun], limit: int) -> Page:
        """Return the page of the first *limit* of those *found*, which are one more where there are more."""
        return cls(runs=found[:limit], more=len(found) > limit)


class Sieve:
    """Gathers a page of those runs that are selected, of some that are read one after another.

    Args:
        selection: Which.
        limit: How many the page has, at most.
    """

    def __init__(self, selection: Selection, limit: int) -> None:
        self._selection = selection
        self._limit = limit
        self._found: list[StoredRun] = []
        self.passed_over = 0
        """How many runs were taken that are not selected."""
        self._last: WorkflowRun | None = None

    @property
    def wanted(self) -> int:
        """How many more runs decide the page, one more than it has among them."""
        return self._limit + 1 - len(self._found)

    @property
    def left(self) -> int:
        """How many more runs are looked at, at most."""
        return self.wanted + MAX_PASSED_OVER - self.passed_over

    @property
    def is_done(self) -> bool:
        """Whether the page is full and another follows, or so many runs were passed over that it ends."""
        return not self.wanted or self.passed_over >= MAX_PASSED_OVER

    def take(self, runs: Iterable[StoredRun]) -> None:
        """Take in *runs*, no more of them than needed."""
        for stored in runs:
            if self._selection.wants(stored.run):
                self._found.append(stored)
            else:
                self.passed_over += 1
            if not self.wanted:
                break
            self._last = stored.run
            if self.is_done:
                break

    @property
    def page(self) -> Page:
        """What was gathered, once this is done or nothing is left to read."""
        page = Page.of(self._found, self._limit)
        # The next one goes on after what this one has passed over, however few runs it has.
        return replace(page, more=True, reached=self._last) if self.is_done else page


def is_expired(expires_at: datetime | None, now: datetime) -> bool:
    """Return whether a run that expires then will be deleted, and is no longer seen by queries."""
    return expires_at is not None and expires_at <= now


def names_of(text: str) -> tuple[str, ...]:
    """Return the ids that *text*, which a caller asks for, may be stored as; itself comes first.

    It is several only where it is longer than `MAX_ID_BYTES`: what is published under such an id is stored as
    `bounded_id` has it, and was stored as it is by earlier versions.
    """
    return tuple(dict.fromkeys((text, bounded_id(text))))


def position_of(run: WorkflowRun, *, of_all: bool = False) -> Position:
    """Return where *run* stands in its workflow's listing, or in that of all workflows."""
    return Position(run.started_at, document_id(run.id), document_id(run.workflow_id) if of_all else "")


def position_by(stored: StoredRun, name: str) -> Position:
    """Return where a run stands among those of all workflows, by this field of the projection map."""
    return Position(
        stored.projection[name], document_id(stored.run.id), workflow=document_id(stored.run.workflow_id)
    )


def stored_run(fields: Mapping[str, Any], key: RunKey, *, place: tuple[str, str]) -> StoredRun:
    """Return the run that a document's fields, with the projection map, hold; *key* names it in errors.

    *place* is the document ids that it is kept under: its workflow's and its own.

    Raises:
        UnreadableRunError: They hold no run, or one of another place.
    """
    run = run_from_fields(fields, key)
    if (document_id(run.workflow_id), document_id(run.id)) != place:
        # A copied document: a cursor made from its fields would lead elsewhere, even back.
        raise UnreadableRunError(*key, f"it says that it is run {run.id!r} of workflow {run.workflow_id!r}")
    try:
        # Not through the head: parsing a history takes ten times as long as the rest of a listed run.
        projection = cast("Mapping[str, Any]", fields.get(PROJECTION) or {})
        version = _version(projection)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnreadableRunError(*key, repr(error)) from error
    return StoredRun(run=run, version=version, projection=projection, expires_at=expires_at(fields))


def at_its_place(workflow: str, run: str) -> Callable[[Mapping[str, Any]], StoredRun]:
    """Return what reads the run of a document that is kept under these document ids; see `stored_run`."""
    return partial(stored_run, key=key_at(workflow, run), place=(workflow, run))


def id_at(document: str) -> str:
    """Return the id that is kept under this document id; itself where it is no document id of ours."""
    return original_id(document) or document


def key_at(workflow: str, run: str) -> RunKey:
    """Return the key of the run that is kept under these document ids; see `id_at`."""
    return id_at(workflow), id_at(run)


def readable(
    documents: Iterable[_T],
    read: Callable[[_T], StoredRun],
    most: int | None = None,
    *,
    now: datetime,
    is_wanted: Callable[[WorkflowRun], bool] = lambda _run: True,
) -> list[StoredRun]:
    """Return the runs of those *documents* that can be read and seen; unreadable ones are counted and logged.

    Args:
        documents: In the order of the listing; no more of them are taken than needed.
        read: Returns a document's run, or raises `UnreadableRunError`.
        most: How many runs to return; None is all.
        now: What has expired by then is left out.
        is_wanted: Looks at the run itself, whose document an index has found.
    """
    wanted = (one for one in each_readable(documents, read, now=now) if is_wanted(one.run))
    return list(islice(wanted, most))


def each_readable(
    documents: Iterable[_T], read: Callable[[_T], StoredRun], *, now: datetime
) -> Iterator[StoredRun]:
    """Yield what `readable` returns, one by one."""
    # What is left out is left out here and not in the query: a page stays full, and its cursor moves on.
    for document in documents:
        try:
            stored = read(document)
        except UnreadableRunError as error:
            skipped_unreadable(error)
            continue
        if not stored.is_expired(now):
            yield stored


def run_from_fields(fields: Mapping[str, Any], key: RunKey) -> WorkflowRun:
    """Return the run that *fields* hold; *key* names it in errors.

    Raises:
        UnreadableRunError: They hold no run.
    """
    started_at = fields.get("started_at")
    if not isinstance(started_at, datetime):
        # The model would read a text or a number too, but a store sorts those apart from timestamps: the
        # cursor made from one would skip every run between.
        raise UnreadableRunError(*key, f"started_at is {reprlib.repr(started_at)}, not a timestamp")
    try:
        if PROJECTION not in fields:
            fields = _as_its_own(fields)
        decoded: dict[str, Any] = {name: _payload(fields.get(name)) for name in ("trigger_data", "result")}
        if labels := fields.get(LABELS):
            decoded[LABELS] = dict(cast("str", label).split("=", 1) for label in labels)
        return WorkflowRun.model_validate({**fields, **decoded}, context=STORED)
    except Exception as error:  # whatever stands in it: one document ends no listing
        raise UnreadableRunError(*key, str(error)) from error


def _as_its_own(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what another program has written without what it means something else by than run-log does."""
    labels, parent = fields.get(LABELS), fields.get(PARENT)
    is_ours = {
        LABELS: isinstance(labels, list)
        and all(isinstance(label, str) and "=" in label for label in cast("list[object]", labels)),
        PARENT: isinstance(parent, Mapping)
        and {"workflow_id", "run_id"}
        <= {name for name, each in cast("Mapping[str, object]", parent).items() if isinstance(each, str)},
        PROGRESS: isinstance(fields.get(PROGRESS), Mapping),
    }
    return {name: value for name, value in fields.items() if is_ours.get(name, True)}


def head_from_fields(fields: Mapping[str, Any], key: RunKey) -> StoredHead:
    """Return the head that ``status``, `EXPIRE_AT` and the projection map hold; *key* names it in errors.

    A document without a projection map was written by something that knew no versions: every event is
    newer than it.

    Raises:
        UnreadableRunError: They hold no head.
    """
    try:
        projection = cast("Mapping[str, Any]", fields.get(PROJECTION) or {})
        stored = [_transition(text) for text in cast("list[str]", projection.get(HISTORY) or [])]
        version = _version(projection)
        history = newest(transition for transition, _ in stored)
        # Of two states in one version that only their digests tell apart, a union has kept both texts.
        digests = [
            digest
            for transition, digest in stored
            if version == transition.version and transition == history[-1]
        ]
        # That of a transition is in its text. An earlier version leaves this one where it was.
        if PROGRESS_DIGEST in projection and (not history or history[-1].version != version):
            digests = [str(projection[PROGRESS_DIGEST])]
        head = RunHead(
            version=version,
            status=RunStatus(fields["status"]),
            history=history,
            digest=max(digests, default="") or None,
            steps=joined_steps([step_from_text(text) for text in projection.get(STEPS) or ()]),
            counted=_counted(projection.get(COUNTED_MICROS), projection.get(COUNTED_HOUR)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UnreadableRunError(*key, repr(error)) from error
    return StoredHead(head=head, history_length=len(stored), expires_at=expires_at(fields))


def expires_at(fields: Mapping[str, Any]) -> datetime | None:
    """Return when the run expires that *fields* hold; None where it never does."""
    moment = fields.get(EXPIRE_AT)
    return moment if isinstance(moment, datetime) else None


def head_to_merge(fields: Mapping[str, Any], key: RunKey) -> StoredHead:
    """Return the head that *fields* hold, to merge events into it; see `head_from_fields`.

    Raises:
        WriteRefusedError: They do not hold one, so nobody knows what the stats count the run as.
    """
    try:
        return head_from_fields(fields, key)
    except UnreadableRunError as error:
        raise WriteRefusedError(f"no event can be merged into it: {error}") from error


def transition_from_text(text: str) -> Transition:
    """Return the transition that `transition_text` was given; for other texts it raises as `int` does."""
    return _transition(text)[0]


def number_of(stored: Any) -> int:
    """Return a stored number as a store counts: whole, and of 64 bits; for others it raises as `int` does."""
    number = int(stored)
    if not -_MAX_NUMBER <= number < _MAX_NUMBER:
        raise OverflowError(f"{reprlib.repr(stored)} is no number of 64 bits")
    return number


def _version(projection: Mapping[str, Any]) -> Version:
    # Something that knew no versions wrote what has none.
    return Version(
        number_of(projection.get("attempt", UNVERSIONED.attempt)),
        number_of(projection.get("hlc", UNVERSIONED.hlc)),
        str(projection.get("event_id", UNVERSIONED.event_id)),
    )


def _transition(text: str) -> tuple[Transition, str]:
    """Return the transition of a text, and the digest beside it, which may be empty."""
    attempt, hlc, event_id, status, moment, inferred, *more = decode_json(text)
    # Who answered, a digest, the choice, the comment and the values. Earlier versions stored fewer.
    count = len(more)
    transition = Transition(
        version=Version(int(attempt), int(hlc), str(event_id)),
        status=RunStatus(status),
        occurred_at=moment_of(moment),
        inferred=bool(inferred),
        answered_by=(str(more[0]) or None) if count else None,
        choice=(str(more[_CHOICE]) or None) if count > _CHOICE else None,
        comment=(str(more[_COMMENT]) or None) if count > _COMMENT else None,
        values_text=encode_json(dict(more[_VALUES])) if count > _VALUES and more[_VALUES] else None,
    )
    return transition, str(more[_DIGEST]) if count > _DIGEST else ""


def _counted(micros: Any, hour: Any) -> Counted:
    counted = Counted(None if micros is None else int(micros), None if hour is None else int(hour))
    # Else a store could not hold the counts that the run is taken out of.
    if not (0 <= (counted.micros or 0) <= _MOST_MICROS and _FIRST_HOUR <= (counted.hour or 0) <= _LAST_HOUR):
        raise ValueError(f"{counted} cannot have been counted")
    return counted


def _payload(stored: object) -> object:
    # Something else than run-log writes a payload as a map.
    return decode_json(stored) if isinstance(stored, str) else stored
