"""Steps: the parts of a run, each in its newest state. They merge by key, whoever tells of them.

A run's steps are a join of a semilattice, as its state and its history are: each step is that of the greatest
version, and the newest `MAX_STEPS` of them are kept.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from .clock import MAX_HLC, micros_of, moment_of, rfc3339
from .ids import valid_text
from .json_form import payload_json
from .payload import as_payload, decode_json, detached, encode_json

MAX_STEPS: Final = 100
"""The most steps of a run that are kept: the newest by version."""

MAX_STEP_BYTES: Final = 640
"""The most bytes of JSON text that a step takes. The bound of a run's steps follows from it. A bound of their
sum would make what is kept depend on the order of arrival."""

MAX_STEPS_BYTES: Final = MAX_STEPS * (MAX_STEP_BYTES + 1)
"""The most bytes that a run's steps take in its document, where each text takes one more."""

MAX_NAME_BYTES: Final = 100
"""The most bytes of JSON text of a step's name."""

MAX_ERROR_BYTES: Final = 160
"""The most bytes of JSON text of a step's error."""

OUTLIVED: Final = "never ended: its run has ended, or was tried again"
"""The error of a step that is shown as cancelled because its run has outlived it."""

_KEY: Final = re.compile(r"[!-~]{1,64}")


class StepStatus(enum.StrEnum):
    """Where a step stands."""

    RUNNING = "running"
    """Started, not ended."""
    SUCCESS = "success"
    """Ended as it should."""
    FAILED = "failed"
    """Ended by an error."""
    CANCELLED = "cancelled"
    """Ended because somebody stopped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A part of a run, as it stands at one moment."""

    key: str
    """Unique within its run: 1 to 64 printable ASCII characters."""
    parent: str | None = None
    """The key of the step around it; None for none."""
    name: str
    """What people call it. Several steps may have the same one."""
    attempt: int = 1
    """Which try of this step it is, from 1."""
    status: StepStatus
    """Where it stands."""
    started_at: datetime
    """When this try of it started, in UTC."""
    ended_at: datetime | None = None
    """When it ended; None while it has not."""
    error: str | None = None
    """Why it failed or was cancelled, in a few words; None otherwise."""
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What is to be known of it: any JSON value under each key, in all as much as `MAX_STEP_BYTES` leaves."""
    version: int
    """A reading of a hybrid logical clock, in microseconds since the epoch: of one key, the greatest wins."""

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON: its public form, and that of an event."""
        return {
            "key": self.key,
            "parent": self.parent,
            "name": self.name,
            "attempt": self.attempt,
            "status": self.status.value,
            "started_at": rfc3339(self.started_at),
            "ended_at": None if self.ended_at is None else rfc3339(self.ended_at),
            "error": self.error,
            "attributes": payload_json(dict(self.attributes)),
            "version": self.version,
        }


def joined_steps(known: Sequence[Step], *more: Sequence[Step]) -> tuple[Step, ...]:
    """Return the newest `MAX_STEPS` of all these steps, one for each key, in the order of their versions."""
    newest: dict[str, Step] = {}
    for step in (*known, *(step for steps in more for step in steps)):
        other = newest.setdefault(step.key, step)
        if other is not step and _is_newer(step, other):
            newest[step.key] = step
    kept = sorted(newest.values(), key=lambda step: (step.version, step.key))
    return tuple(kept[-MAX_STEPS:])


def _is_newer(step: Step, other: Step) -> bool:
    if step.version != other.version:
        return step.version > other.version
    # Only two processes that use one key at the same microsecond get here. Their content makes it total. As
    # Python compares them, 1, 1.0 and True are equal, but they are stored as different texts.
    is_same = step == other and repr(step.attributes) == repr(other.attributes)
    return not is_same and step_text(step) > step_text(other)


def in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return *steps* in the order in which they started."""
    return tuple(sorted(steps, key=lambda step: (step.started_at, step.version, step.key)))


def outlived(step: Step, alive_since: int) -> Step:
    """Return *step*, or as cancelled if it is running and its version is before *alive_since*."""
    if step.status is not StepStatus.RUNNING or step.version >= alive_since:
        return step
    # When is not known, so it has no end: nobody was there to say so.
    return replace(step, status=StepStatus.CANCELLED, error=OUTLIVED)


def fitted(step: Step, *, is_detached: bool = False) -> Step:
    """Return *step* in at most `MAX_STEP_BYTES`: long texts are cut, and the largest attributes left out.

    Args:
        step: Whose attributes may be shared with others, and of any type.
        is_detached: Whether they are not, since this returned them before. That is much quicker.
    """
    step = replace(
        step,
        name=fitted_name(step.name),
        error=None if step.error is None else _cut(step.error, MAX_ERROR_BYTES),
    )
    if not step.attributes:
        return step
    if not is_detached:
        (attributes,), _ = detached(step.attributes, limit=MAX_STEP_BYTES)
        step = replace(step, attributes=attributes)
    while step.attributes and len(step_text(step)) > MAX_STEP_BYTES:
        sizes = {name: len(encode_json({name: value})) for name, value in step.attributes.items()}
        largest = max(sorted(sizes), key=sizes.__getitem__)
        left = {name: value for name, value in step.attributes.items() if name != largest}
        step = replace(step, attributes=left)
    return step


def fitted_name(name: str) -> str:
    """Return *name* as it is kept: in at most `MAX_NAME_BYTES`."""
    return _cut(name, MAX_NAME_BYTES)


def _cut(text: str, most: int) -> str:
    # Measured as JSON, in which a character takes up to 12 bytes.
    text = valid_text(text[:most])
    while len(encode_json(text)) > most:
        text = f"{text[: len(text) * 3 // 4 - 1]}…"
    return text


def step_text(step: Step) -> str:
    """Return *step* as it is stored. Equal steps give equal texts."""
    return encode_json(
        [
            step.version,
            step.key,
            step.parent,
            step.name,
            step.attempt,
            step.status.value,
            micros_of(step.started_at),
            None if step.ended_at is None else micros_of(step.ended_at),
            step.error,
            dict(sorted(step.attributes.items())),
        ]
    )


def step_from_text(text: str) -> Step:
    """Return the step that `step_text` was given. For other texts it raises as `int` does."""
    version, key, parent, name, attempt, status, started, ended, error, attributes, *_ = decode_json(text)
    return Step(
        version=int(version),
        key=str(key),
        parent=None if parent is None else str(parent),
        name=str(name),
        attempt=int(attempt),
        status=StepStatus(status),
        started_at=moment_of(started),
        ended_at=None if ended is None else moment_of(ended),
        error=None if error is None else str(error),
        attributes=dict(attributes),
    )


def step_from_record(record: object) -> Step:
    """Return the step that has this `Step.to_json`, or that another program tells of.

    Raises:
        ValueError: It is no step; the message says why.
    """
    if not isinstance(record, Mapping):
        raise ValueError("it is no object")  # noqa: TRY004 - the error of every other fault
    given = cast("Mapping[str, Any]", record)
    fields = {name: value for name, value in given.items() if value is not None}
    try:
        return fitted(
            Step(
                key=_key(fields.get("key")),
                parent=_key(fields["parent"]) if "parent" in fields else None,
                name=str(fields["name"]),
                attempt=_whole(fields.get("attempt", 1), 1, 2**31),
                status=StepStatus(fields["status"]),
                started_at=_moment(fields["started_at"]),
                ended_at=_moment(fields["ended_at"]) if "ended_at" in fields else None,
                error=str(fields["error"]) if "error" in fields else None,
                attributes=as_payload(fields.get("attributes")),
                version=_whole(fields.get("version"), 0, MAX_HLC),
            )
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def is_step_key(text: str) -> bool:
    """Return whether *text* can be the key of a step: 1 to 64 printable ASCII characters."""
    return _KEY.fullmatch(text) is not None


def _key(value: object) -> str:
    if not isinstance(value, str) or not is_step_key(value):
        raise ValueError(f"{value!r:.100} is no key: that is 1 to 64 printable ASCII characters")
    return value


def _whole(value: object, first: int, beyond: int) -> int:
    if type(value) is not int or not first <= value < beyond:
        raise ValueError(f"{value!r:.100} is no whole number from {first} to {beyond - 1}")
    return value


def _moment(value: object) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(cast("str", value))
    if moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return moment.astimezone(UTC)
