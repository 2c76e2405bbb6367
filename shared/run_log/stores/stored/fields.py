"""The stored form of a run: its fields, plus one map for the projection's own data.

Every store keeps this form, so a run comes back alike from each of them.
"""

from __future__ import annotations

import reprlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from run_log.core import (
    PauseRequest,
    RunEvent,
    RunStatus,
    Transition,
    UnreadableRunError,
    Version,
    WorkflowRun,
    WriteRefusedError,
)
from run_log.core.clock import micros_of, moment_of
from run_log.core.counters import Counted, hour_of
from run_log.core.durations import MAX_DURATION
from run_log.core.ids import bounded_id, document_id
from run_log.core.law import MAX_ANSWERER_BYTES, RunHead, newest
from run_log.core.models import STORED, RunKey
from run_log.core.payload import decode_json, encode_json, fit_text
from run_log.stores.listings.cursors import Position
from run_log.stores.retention import is_expired

PROJECTION: Final = "projection"
"""The map beside a run's fields that is the projection's own."""

PAUSED_STARTED_AT: Final = "paused_started_at"
"""In the projection map of paused runs only: their `started_at`. The inbox is an index on this field alone,
so that runs which never pause write nothing to it."""

PAUSED_ASSIGNEE: Final = "paused_assignee"
"""In the projection map of paused runs only: who is asked, cut where that is long; absent for anybody.
What is found by it is compared whole."""

PAUSED_DEADLINE: Final = "paused_deadline"
"""In the projection map of paused runs only: when the answer is due, `NO_DEADLINE` where it never is."""

ACTIVE_SINCE: Final = "active_since"
"""In the projection map of pending and running runs only: when their newest event happened."""

ACTIVE_SHARD: Final = "active_shard"
"""In the projection map of pending and running runs only: below `ACTIVE_SHARDS`, by the run's id.

Every run is active at first, and times go up: an index on those alone would have all writers meet at its end.
"""

ACTIVE_SHARDS: Final = 16

CHANGED_AT: Final = "changed_at"
"""In a store's projection map: when the store took the newest request that changed the record, by its clock.

Only about when it changed: the commit comes after the request.
"""

CHANGED_SHARD: Final = "changed_shard"
"""In a store's projection map, always: below `CHANGED_SHARDS`, by the run's id; see `ACTIVE_SHARD`."""

CHANGED_SHARDS: Final = 16

COUNTED_MICROS: Final = "counted_micros"
"""In the projection map of runs whose duration is in the summary: that, in microseconds."""

COUNTED_HOUR: Final = "counted_hour"
"""In the projection map of runs that are counted by hour and day: in which hour since the epoch."""

OPTIONAL: Final = (
    PAUSED_STARTED_AT,
    PAUSED_ASSIGNEE,
    PAUSED_DEADLINE,
    ACTIVE_SINCE,
    ACTIVE_SHARD,
    COUNTED_MICROS,
    COUNTED_HOUR,
)
"""What only some runs have in their projection map."""

NO_DEADLINE: Final = datetime.max.replace(tzinfo=UTC)
"""Stands where a paused run has no deadline, so that it comes after those that have one."""

MAX_ASSIGNEE_BYTES: Final = 512
"""Of what is indexed; Firestore indexes 1,500 (https://firebase.google.com/docs/firestore/quotas#indexes)."""

EXPIRE_AT: Final = "expire_at"
"""Beside a run's fields: when the document may be deleted; absent where it never may. What
Firestore's TTL policy goes by (https://firebase.google.com/docs/firestore/ttl)."""

HISTORY: Final = "history"

MAX_DOCUMENT_BYTES: Final = 1_048_576
"""Firestore's limit for a document (https://firebase.google.com/docs/firestore/quotas)."""

_MAX_NUMBER: Final = 2**63
_MOST_MICROS: Final = MAX_DURATION // timedelta(microseconds=1)
_FIRST_HOUR: Final = hour_of(datetime.min.replace(tzinfo=UTC))
_LAST_HOUR: Final = hour_of(datetime.max.replace(tzinfo=UTC))
_OVERHEAD_BYTES: Final = 2_048 + MAX_ASSIGNEE_BYTES
_TRANSITION_BYTES: Final = 330 + MAX_ANSWERER_BYTES + 1 + 23
"""Of a transition's text: an event id has up to 128 characters, each of which JSON may have to escape. The
newest has a digest too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHead:
    """A run's head as a store holds it."""

    head: RunHead
    history_length: int
    """Transitions stored; more than the head's history until they are trimmed."""
    expires_at: datetime | None = None
    """When the run may be deleted; None where it never may."""

    def is_expired(self, now: datetime) -> bool:
        """Return whether the run is to be deleted, and not to be seen any more."""
        return is_expired(self.expires_at, now)


def run_fields(run: WorkflowRun) -> dict[str, Any]:
    """Return *run* as stored: payloads as JSON text, times as aware datetimes."""
    pause = run.pause
    return {
        "id": run.id,
        "workflow_id": run.workflow_id,
        "status": run.status.value,
        "trigger_type": run.trigger_type.value,
        "trigger_data": encode_json(run.trigger_data),
        "result": encode_json(run.result),
        "error": run.error,
        "started_at": run.started_at,
        "completed_at": run.completed_at,
        "duration_ms": float(run.duration_ms),
        "attempt": run.attempt,
        "pause": pause.model_dump() if pause else None,
    }


def projection_fields(event: RunEvent, counted: Counted) -> dict[str, Any]:
    """Return what the projection keeps about the run's newest event, the history aside.

    Args:
        event: The event.
        counted: What the summary counts of it.
    """
    fields: dict[str, Any] = {
        "attempt": event.version.attempt,
        "hlc": event.version.hlc,
        "event_id": event.version.event_id,
        "occurred_at": event.occurred_at,
        "inferred": event.inferred,
    }
    if event.status is RunStatus.PAUSED:
        pause = event.run.pause or PauseRequest()
        fields[PAUSED_STARTED_AT] = event.run.started_at
        fields[PAUSED_DEADLINE] = pause.deadline or NO_DEADLINE
        if pause.assignee:
            fields[PAUSED_ASSIGNEE] = indexed_assignee(pause.assignee)
    elif event.status in (RunStatus.PENDING, RunStatus.RUNNING):
        fields[ACTIVE_SINCE] = event.occurred_at
        fields[ACTIVE_SHARD] = zlib.crc32(event.run.id.encode()) % ACTIVE_SHARDS
    if counted.micros is not None:
        fields[COUNTED_MICROS] = counted.micros
    if counted.hour is not None:
        fields[COUNTED_HOUR] = counted.hour
    return fields


def changed_shard(run_id: str) -> int:
    """Return the value of `CHANGED_SHARD` for a run: always the same, in every process."""
    return zlib.crc32(run_id.encode()) % CHANGED_SHARDS


def indexed_assignee(assignee: str) -> str:
    """Return *assignee* as it is stored to be found by."""
    return fit_text(assignee, MAX_ASSIGNEE_BYTES)


def names_of(text: str) -> tuple[str, ...]:
    """Return the ids that *text*, which a caller asks for, may be stored as; itself comes first.

    It is several only where it is longer than `MAX_ID_BYTES`: what is published under such an id is stored as
    `bounded_id` has it, and was stored as it is by earlier versions.
    """
    return tuple(dict.fromkeys((text, bounded_id(text))))


def transition_text(transition: Transition, digest: str | None = None) -> str:
    """Return *transition* as stored: equal transitions give equal texts, so a union keeps one.

    A text rather than a map: a map of six fields is seven messages for the vendor's client to build.

    Args:
        transition: What is stored.
        digest: Of the state that it led to, where that is the run's newest. What comes after it leaves it.
    """
    version = transition.version
    moment = micros_of(transition.occurred_at)
    # By hand, for every event pays for it; a status is a plain word.
    text = (
        f"[{version.attempt},{version.hlc},{encode_json(version.event_id)},"
        f'"{transition.status.value}",{moment},{int(transition.inferred)}'
    )
    if transition.answered_by is not None or digest is not None:
        text = f"{text},{encode_json(transition.answered_by or '')}"
    return f"{text}]" if digest is None else f'{text},"{digest}"]'


def history_texts(head: RunHead, transitions: Iterable[Transition]) -> list[str]:
    """Return those *transitions*, of the history of *head*, as stored."""
    newest_of_all = head.history[-1]
    return [
        transition_text(transition, head.digest if transition is newest_of_all else None)
        for transition in transitions
    ]


def transition_from_text(text: str) -> Transition:
    """Return the transition that `transition_text` was given.

    Raises:
        ValueError: *text* is not of its making.
        TypeError: *text* is not of its making.
    """
    return _transition(text)[0]


def _transition(text: str) -> tuple[Transition, str]:
    """Return the transition of a text, and the digest beside it; an empty one where there is none."""
    attempt, hlc, event_id, status, moment, inferred, *more = decode_json(text)
    transition = Transition(
        version=Version(int(attempt), int(hlc), str(event_id)),
        status=RunStatus(status),
        occurred_at=moment_of(moment),
        inferred=bool(inferred),
        answered_by=(str(more[0]) or None) if more else None,
    )
    return transition, str(more[1]) if len(more) > 1 else ""


def run_from_fields(fields: Mapping[str, Any], key: RunKey) -> WorkflowRun:
    """Return the run that *fields* hold.

    Args:
        fields: A document's fields.
        key: The run that is looked for, to name it.

    Raises:
        UnreadableRunError: They do not hold a run.
    """
    started_at = fields.get("started_at")
    if not isinstance(started_at, datetime):
        # The model would read a text or a number too, but a store sorts those apart from timestamps: the
        # cursor made from one would skip every run between.
        raise UnreadableRunError(*key, f"started_at is {reprlib.repr(started_at)}, not a timestamp")
    try:
        payloads = {name: _payload(fields.get(name)) for name in ("trigger_data", "result")}
        return WorkflowRun.model_validate({**fields, **payloads}, context=STORED)
    except Exception as error:  # whatever stands in it: one document ends no listing
        raise UnreadableRunError(*key, str(error)) from error


def head_from_fields(fields: Mapping[str, Any], key: RunKey) -> StoredHead:
    """Return the head that *fields* hold.

    A document without a projection map was written by something that knew no versions: every event is
    newer than it.

    Args:
        fields: A document's fields, of which ``status``, `EXPIRE_AT` and the projection map are read.
        key: The run that is looked for, to name it.

    Raises:
        UnreadableRunError: They do not hold a head.
    """
    try:
        projection = cast("Mapping[str, Any]", fields.get(PROJECTION) or {})
        stored = [_transition(text) for text in cast("list[str]", projection.get(HISTORY) or [])]
        version = Version(
            int(projection.get("attempt", 1)),
            int(projection.get("hlc", 0)),
            str(projection.get("event_id", "")),
        )
        history = newest(transition for transition, _ in stored)
        # Of two states in one version that only their digests tell apart, a union has kept both texts.
        digests = [
            digest
            for transition, digest in stored
            if transition == history[-1] and version == transition.version
        ]
        head = RunHead(
            version=version,
            status=RunStatus(fields["status"]),
            history=history,
            digest=max(digests, default="") or None,
            counted=Counted(
                micros=_whole_or_none(projection.get(COUNTED_MICROS)),
                hour=_whole_or_none(projection.get(COUNTED_HOUR)),
            ),
        )
        _check_numbers(head)
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


def position_of(run: WorkflowRun) -> Position:
    """Return where *run* stands in its workflow's listing."""
    return Position(run.started_at, document_id(run.id))


def document_bytes(fields: Mapping[str, Any]) -> int:
    """Return about how many bytes a run's document takes without a history, never less than it does.

    Args:
        fields: What `run_fields` returned.
    """
    pause = cast("Mapping[str, Any]", fields["pause"] or {})
    texts = (*fields.values(), *pause.values())
    size = sum(len(text.encode()) for text in texts if isinstance(text, str))
    # Ids stand in the document's name as well.
    names = len(document_id(fields["id"]).encode()) + len(document_id(fields["workflow_id"]).encode())
    return size + names + _OVERHEAD_BYTES


def history_bytes(transitions: int) -> int:
    """Return how many bytes so many transitions take in a document at most."""
    return transitions * _TRANSITION_BYTES


def number_of(stored: Any) -> int:
    """Return a stored number as a store counts: whole, and of 64 bits.

    Raises:
        ValueError: It is none.
        TypeError: It is none.
        OverflowError: It is none.
    """
    number = int(stored)
    if not -_MAX_NUMBER <= number < _MAX_NUMBER:
        raise OverflowError(f"{reprlib.repr(stored)} is no number of 64 bits")
    return number


def _check_numbers(head: RunHead) -> None:
    """Check that a store can hold what becomes of *head*: counts, too, that its run is taken out of.

    Raises:
        ValueError: It cannot.
        OverflowError: It cannot.
    """
    number_of(head.version.attempt)
    number_of(head.version.hlc)
    micros, hour = head.counted
    if not 0 <= (micros or 0) <= _MOST_MICROS or not _FIRST_HOUR <= (hour or 0) <= _LAST_HOUR:
        raise ValueError(f"{head.counted} cannot have been counted")


def _whole_or_none(stored: Any) -> int | None:
    return None if stored is None else int(stored)


def _payload(stored: object) -> object:
    """Return a payload as it was given; a map stands where something else than run-log wrote it."""
    return decode_json(stored) if isinstance(stored, str) else stored
