"""The wire form of an event: CloudEvents 1.0 in binary mode, as Pub/Sub attributes and a JSON body.

The body alone is enough to read an event back, from an archive, a dead letter or a BigQuery export. The
attributes repeat what a router or a trace needs.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import quote

from pydantic import ValidationError

from .clock import micros_of, rfc3339
from .errors import EventDecodeError
from .events import RunEvent
from .fields import Received, count_cut
from .models import PauseRequest, WorkflowRun, faults_of, fit_run
from .nearest import MAX_DEPTH, MAX_PAYLOAD_BYTES
from .payload import decode_foreign_json, encode_json, fit_text, is_deeper
from .steps import MAX_STEPS_BYTES

_SCHEMA_MAJOR: Final = 1

SCHEMA_VERSION: Final = "1-1-0"
"""The SchemaVer of the body: MODEL-REVISION-ADDITION. The first number is the major version in the type."""

_EVENT_TYPE_PREFIX: Final = "run-log.run-state.v"
EVENT_TYPE: Final = f"{_EVENT_TYPE_PREFIX}{_SCHEMA_MAJOR}"
"""The CloudEvents ``type`` that this version writes."""

MAX_ATTRIBUTE_VALUE_BYTES: Final = 1_024
"""Pub/Sub's limit for an attribute's value (https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_ATTRIBUTES: Final = 100
"""Pub/Sub's limit for the attributes of one message."""

MAX_MESSAGE_BYTES: Final = 10_000_000
"""Pub/Sub's limit for body, attributes and their frames."""

ATTRIBUTE_FRAME_BYTES: Final = 8
"""Of an attribute, beside its name and its value."""

MAX_ATTRIBUTE_NAME_BYTES: Final = 256
"""UTF-8 bytes of an attribute's name."""

RESERVED_PREFIX: Final = "goog"
"""How no attribute's name may begin."""

# Quoting an id takes microseconds, and the same id comes with every state of its run.
_REMEMBERED_REFERENCES: Final = 1_024

# The most bytes of the message that says why a message is not an event.
_MAX_WHAT: Final = 2_000

MAX_STAMPED_AHEAD: Final = timedelta(days=1)
"""How far ahead of the time an event may be stamped. Beyond that, the clock of its machine is wrong."""

# Nine digits are plenty for a version. `int` would raise for thousands of them.
_TYPE: Final = re.compile(re.escape(_EVENT_TYPE_PREFIX) + r"([0-9]{1,9})")

# A document holds the payloads of any body of so many bytes. Each becomes at most six bytes, an escape such
# as \u001f.
_SURELY_FITS: Final = MAX_PAYLOAD_BYTES // 6

# The model has defaults for new events. With them, each delivery of a message would be another event.
NO_DEFAULT_ON_THE_WIRE: Final = ("event_id", "hlc", "occurred_at")

_V0_NAMESPACE: Final = uuid.UUID("5f2c1c7e-2a43-5d0b-9d51-3f0d6f7f9a10")

# A v0 body says when a run started and ended, and not when it was pending or paused. Of one moment, the later
# stage of a run's life is the later version.
_V0_STAGE: Final[Mapping[str, int]] = {"pending": 0, "running": 1, "paused": 2}
_V0_ENDED: Final = 3


class DeadLetterReason(enum.StrEnum):
    """Why a message cannot become part of the projection."""

    UNDECODABLE = "undecodable"
    """The body is not a JSON object."""
    UNKNOWN_TYPE = "unknown_type"
    """The body is JSON, but of another event type."""
    UNSUPPORTED_VERSION = "unsupported_version"
    """The event's major version is newer than this reader."""
    INVALID_EVENT = "invalid_event"
    """A field is missing or wrong."""
    WRITE_REFUSED = "write_refused"
    """The store refuses the document for good."""
    CLOCK_AHEAD = "clock_ahead"
    """The event is stamped more than a day ahead of the time."""
    EXPIRED = "expired"
    """The run has outlived its retention."""
    TOO_MANY_DELIVERIES = "too_many_deliveries"
    """The message was delivered again and again, without a cause of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message to publish: bytes and short text attributes."""

    data: bytes
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])


def message_bytes(message: Message) -> int:
    """Return how many bytes of Pub/Sub's limit *message* takes.

    Raises:
        UnicodeEncodeError: An attribute holds what UTF-8 cannot.
    """
    attributes = message.attributes
    texts = sum(len(name.encode()) + len(value.encode()) for name, value in attributes.items())
    return len(message.data) + texts + ATTRIBUTE_FRAME_BYTES * len(attributes)


def message_fault(message: Message) -> str | None:
    """Return why Pub/Sub would refuse *message*; None if it would not."""
    attributes = message.attributes
    if not message.data and not attributes:
        return "it has neither a body nor an attribute"
    if len(attributes) > MAX_ATTRIBUTES:
        return f"it has {len(attributes)} attributes; the most are {MAX_ATTRIBUTES}"
    # Here, for the vendor would tell it of the whole batch: one message at fault fails those beside it.
    size = len(message.data) + ATTRIBUTE_FRAME_BYTES * len(attributes)
    for name, value in attributes.items():
        try:
            name_bytes, value_bytes = len(name.encode()), len(value.encode())
        except UnicodeEncodeError:
            return f"the attribute {name!r} holds what UTF-8 cannot, lone surrogates"
        size += name_bytes + value_bytes
        if not 0 < name_bytes <= MAX_ATTRIBUTE_NAME_BYTES:
            return f"an attribute's name has {name_bytes} bytes; it takes 1 to {MAX_ATTRIBUTE_NAME_BYTES}"
        if value_bytes > MAX_ATTRIBUTE_VALUE_BYTES:
            return f"the attribute {name!r} has {value_bytes} bytes; the most are {MAX_ATTRIBUTE_VALUE_BYTES}"
        if name.startswith(RESERVED_PREFIX):
            return f"the attribute {name!r} begins with {RESERVED_PREFIX!r}, which is Google's own"
    return f"it has {size} bytes; the most are {MAX_MESSAGE_BYTES}" if size > MAX_MESSAGE_BYTES else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage(Message):
    """A message that was pulled, with its delivery."""

    message_id: str
    """The transport's id. A publisher's retry gives the same event another one."""
    ack_id: str
    """The id to acknowledge or release the message with. Every delivery has its own."""
    delivery_attempt: int = 0
    """The number of deliveries so far; 0 if the transport does not count them."""
    published_at: datetime | None = None
    """When the transport accepted the message, by its own clock; None if it does not say."""


def encode_event(event: RunEvent) -> Message:
    """Return the message that states *event*. Payloads are read now, so later changes have no effect."""
    return Message(data=_body(event).encode("ascii"), attributes=_attributes(event))


def decode_event(message: Message) -> RunEvent:
    """Return the event that *message* states, upcast to this version's schema.

    Unknown fields are ignored. `bounded_id` shortens ids beyond `MAX_ID_BYTES`. Payloads that are too large
    for a document are cut and counted, as `snapshot` does. Of the attributes only the trace context is read,
    and it may be absent, as in a message that was rebuilt from an archived body.

    Raises:
        EventDecodeError: The message states no event that this version understands. `reason` says why. No
            other error is raised.
    """
    try:
        return _decoded(message)
    except EventDecodeError:
        raise
    except Exception as error:
        # A reader that dies of a message gets it again, for ever. There is no list of what a message may
        # raise: the depth that the parser and the upcasters can take, for example, depends on the version of
        # Python.
        raise _refused(DeadLetterReason.INVALID_EVENT, f"not an event: {_explanation(error)}") from error


def check_stamp(event: RunEvent, now: datetime, published_at: datetime | None = None) -> None:
    """Check that *event* is not stamped so far ahead that no later event of its run could beat it.

    An old event passes, so a rebuild from an archive accepts what a re-drive would. If *now*, the reader's
    time, is behind *published_at*, the transport's, that one counts.

    Raises:
        EventDecodeError: The event is stamped more than `MAX_STAMPED_AHEAD` ahead.
    """
    moment = now if published_at is None else max(now, published_at)
    # A reading may be beyond the calendar. A timedelta can still hold it.
    ahead = timedelta(microseconds=event.hlc - micros_of(moment))
    if ahead > MAX_STAMPED_AHEAD:
        raise _refused(
            DeadLetterReason.CLOCK_AHEAD,
            f"the event is stamped {ahead} ahead of the time; correct the clock of the machine that stamped "
            "it, then re-drive it stamped that much earlier (--earlier), or once its time has come",
        )


def _decoded(message: Message) -> RunEvent:
    text, body = _json_object(message.data)
    major = _major_version(body, message.attributes)
    if major == 0:
        # The upcaster wraps the body, which adds a level.
        _check_depth(text, MAX_DEPTH - 1)
    for version in range(major, _SCHEMA_MAJOR):
        body = _UPCASTERS[version](body)
    # As of a run's fields: many a writer says null where it has nothing to say.
    body = {name: value for name, value in body.items() if value is not None}
    missing = [name for name in NO_DEFAULT_ON_THE_WIRE if name not in body]
    if missing:
        raise _refused(DeadLetterReason.INVALID_EVENT, f"not an event: {', '.join(missing)} missing")
    attributes = message.attributes
    # Google's Pub/Sub client propagates the publisher's span under a prefix of its own.
    parent = attributes.get("traceparent") or attributes.get("googclient_traceparent")
    received = Received()
    event = RunEvent.model_validate(
        {**body, "traceparent": _fitting(parent), "tracestate": _fitting(attributes.get("tracestate"))},
        context=received,
    )
    count_cut(event.run.workflow_id, event.run.id, received.cut_texts)
    if len(message.data) > _SURELY_FITS:
        fit_run(event.run, beside=MAX_STEPS_BYTES if event.steps else 0)
    return event


def _json_object(data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        # RFC 8259 requires UTF-8, and lets a reader ignore a byte order mark.
        text = data.decode().removeprefix("\ufeff")
        _check_depth(text, MAX_DEPTH)
        body = decode_foreign_json(text)
    except EventDecodeError:
        raise
    except Exception as error:
        what = f"the body is not JSON: {_explanation(error)}"
        raise _refused(DeadLetterReason.UNDECODABLE, what) from error
    if not isinstance(body, dict):
        what = f"the body is a JSON {type(body).__name__}, not an object"
        raise _refused(DeadLetterReason.UNDECODABLE, what)
    return text, cast("dict[str, Any]", body)


def _check_depth(text: str, most: int) -> None:
    # The parser reads it or not depending on the depth of its stack, and `encode_event` would cut it.
    if is_deeper(text, most):
        what = f"the body nests more than {most} levels"
        raise _refused(DeadLetterReason.UNDECODABLE, what)


def _refused(reason: DeadLetterReason, what: str) -> EventDecodeError:
    return EventDecodeError(fit_text(what, _MAX_WHAT), reason=reason.value)


def _explanation(error: Exception) -> str:
    # Explaining an error may fail as well: no memory, no stack, or a message that cannot be made.
    try:
        if isinstance(error, ValidationError):
            return faults_of(error)
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the error's name is better than none
        return type(error).__name__


def _major_version(body: Mapping[str, Any], attributes: Mapping[str, str]) -> int:
    name = body.get("type", attributes.get("ce-type"))
    match = _TYPE.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise _refused(
            DeadLetterReason.UNKNOWN_TYPE,
            f"the type is {name!r:.200}, not {EVENT_TYPE!r}; publish other events to another topic",
        )
    major = int(match[1])
    if major > _SCHEMA_MAJOR:
        raise _refused(
            DeadLetterReason.UNSUPPORTED_VERSION,
            f"the event has schema version {major}, this reader knows up to {_SCHEMA_MAJOR}; "
            "deploy a newer projector, then re-drive the dead letters",
        )
    return major


def run_dump_to_event(body: dict[str, Any]) -> dict[str, Any]:
    """Return a v0 body, a bare run as its platform dumped it, as a v1 body, an event around it.

    A bare run has no identity and no version. Both are derived from its content. So the same dump, delivered
    twice, is the same event, and an ended run is later than the same run when it started. EventDecodeError if
    the body has no moment to derive the version from.
    """
    run = {key: value for key, value in body.items() if key != "type"}
    moments = [_v0_micros(run[name]) for name in ("started_at", "completed_at") if run.get(name)]
    if not moments:
        raise _refused(DeadLetterReason.INVALID_EVENT, "a v0 body needs started_at")
    # The id of each v0 event that is stored was made from exactly this text, so it must never change.
    content = json.dumps(run, sort_keys=True, separators=(",", ":"))
    return {
        "type": f"{_EVENT_TYPE_PREFIX}1",
        "event_id": str(uuid.uuid5(_V0_NAMESPACE, content)),
        "hlc": max(moments) + _V0_STAGE.get(str(run.get("status")), _V0_ENDED),
        "occurred_at": run.get("completed_at") or run["started_at"],
        "inferred": False,
        "run": run,
    }


def _v0_micros(moment: object) -> int:
    try:
        # Not `micros_of`, which is exact: versions that are stored were rounded like this.
        return int(datetime.fromisoformat(cast("str", moment)).timestamp() * 1_000_000)
    except (TypeError, ValueError, OverflowError) as error:
        what = f"{moment!r:.200} is not an ISO 8601 datetime"
        raise _refused(DeadLetterReason.INVALID_EVENT, what) from error


# From each older major version to the next one.
_UPCASTERS: Final = {0: run_dump_to_event}


def _body(event: RunEvent) -> str:
    # Not pydantic's JSON: it raises for a lone surrogate in a payload.
    run = event.run
    return encode_json(
        {
            "type": EVENT_TYPE,
            "event_id": event.event_id,
            "hlc": event.hlc,
            "occurred_at": rfc3339(event.occurred_at),
            "inferred": event.inferred,
            "run": {
                "id": run.id,
                "workflow_id": run.workflow_id,
                "status": run.status.value,
                "trigger_type": str(run.trigger_type),
                "trigger_data": run.trigger_data,
                "result": run.result,
                "error": run.error,
                "started_at": rfc3339(run.started_at),
                "completed_at": rfc3339(run.completed_at) if run.completed_at else None,
                "duration_ms": run.duration_ms,
                "attempt": run.attempt,
                "pause": _pause(run.pause) if run.pause else None,
                **_additions(run),
            },
            # Schema 1-0-1 has neither.
            **({"is_progress": True} if event.is_progress else {}),
            **({"steps": [step.to_json() for step in event.steps]} if event.steps else {}),
        }
    )


def _additions(run: WorkflowRun) -> dict[str, object]:
    """Return the fields that schema 1-1-0 added. A run that has none of them has the body of 1-0-1."""
    additions: dict[str, object] = {}
    if run.labels:
        additions["labels"] = run.labels
    if run.parent:
        additions["parent"] = run.parent._asdict()
    if run.trace_id:
        additions["trace_id"] = run.trace_id
    if run.error_type:
        additions["error_type"] = run.error_type
    if run.progress:
        additions["progress"] = run.progress.model_dump()
    return additions


def _pause(pause: PauseRequest) -> dict[str, object]:
    body: dict[str, object] = {
        "reason": pause.reason,
        "assignee": pause.assignee,
        "deadline": rfc3339(pause.deadline) if pause.deadline else None,
        "answered_by": pause.answered_by,
        # Schema 1-0-0 has no comment. Without one, the body is the same in both.
        **({} if pause.comment is None else {"comment": pause.comment}),
    }
    # Likewise what schema 1-1-0 added.
    for name in ("choices", "form", "default_choice", "choice", "values"):
        if value := getattr(pause, name):
            body[name] = value
    return body


def _attributes(event: RunEvent) -> dict[str, str]:
    attributes = {
        "ce-specversion": "1.0",
        "ce-id": event.event_id,
        "ce-source": _reference("//run-log/workflows/", event.run.workflow_id),
        "ce-type": EVENT_TYPE,
        "ce-subject": _reference("runs/", event.run.id),
        "ce-time": rfc3339(event.occurred_at),
        "ce-dataschema": f"urn:run-log:schema:run-state:{SCHEMA_VERSION}",
        "content-type": "application/json",
    }
    # Pub/Sub refuses a message with a value that is too long. The event is worth more than its trace.
    if parent := _fitting(event.traceparent):
        attributes["traceparent"] = parent
        if state := _fitting(event.tracestate):
            attributes["tracestate"] = state
    return attributes


def _fitting(value: str | None) -> str | None:
    return value if value and value.isascii() and len(value) <= MAX_ATTRIBUTE_VALUE_BYTES else None


@lru_cache(_REMEMBERED_REFERENCES)
def _reference(prefix: str, text: str) -> str:
    reference = prefix + quote(text, safe="")
    if len(reference) <= MAX_ATTRIBUTE_VALUE_BYTES:
        return reference
    return f"{prefix}sha256-{hashlib.sha256(text.encode()).hexdigest()}"
