"""The wire form: CloudEvents 1.0 in binary mode over Pub/Sub attributes, around a self-sufficient body.

The body alone is enough to read an event back (from an archive, a dead letter, a BigQuery export); the
attributes repeat what a router or a trace needs.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import quote

from pydantic import ValidationError

from .clock import EPOCH
from .errors import EventDecodeError
from .events import RunEvent
from .ids import bounded_id
from .models import STORED, PauseRequest, WorkflowRun, count_cut, fit_run
from .nearest import MAX_DEPTH, MAX_PAYLOAD_BYTES
from .payload import MAX_TEXT_BYTES, encode_json, fit_text, is_deeper
from .upcast import SCHEMA_MAJOR, UPCASTERS

SCHEMA_VERSION: Final = "1-0-1"
"""SchemaVer of the body: MODEL-REVISION-ADDITION. The first number is the major version in the type."""

EVENT_TYPE_PREFIX: Final = "run-log.run-state.v"
EVENT_TYPE: Final = f"{EVENT_TYPE_PREFIX}{SCHEMA_MAJOR}"
"""The CloudEvents ``type`` that this version writes."""

MAX_ATTRIBUTE_VALUE_BYTES: Final = 1_024
"""Pub/Sub's limit for an attribute's value (https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_ATTRIBUTES: Final = 100
"""Pub/Sub's limit for the attributes of one message."""

_REMEMBERED_REFERENCES: Final = 1_024
"""Quoting an id takes microseconds, and each comes again: every run's with every state."""

_MAX_WHAT: Final = 2_000
"""Bytes of what is said about a message that is no event."""

MAX_STAMPED_AHEAD: Final = timedelta(days=1)
"""How far an event may be stamped ahead of the time: further, its machine's clock is wrong."""

_RUN_IDS: Final = ("id", "workflow_id")
_PERSONS: Final = ("assignee", "answered_by")

_TYPE: Final = re.compile(re.escape(EVENT_TYPE_PREFIX) + r"([0-9]{1,9})")

_SURELY_FITS: Final = MAX_PAYLOAD_BYTES // 6
"""Bytes of a body whose payloads a document holds: there, none takes more than six."""


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else json.dumps(number)


_decoder: Final = json.JSONDecoder(parse_constant=str, parse_float=_finite)
"""NaN and the infinities, which are no JSON, come as their names: what `encode_json` makes of them. So does
what Python reads as one of them, 1e999 say."""

NO_DEFAULT_ON_THE_WIRE: Final = ("event_id", "hlc", "occurred_at")
"""What the model makes for a new event; a received one made anew would differ with every delivery."""


class DeadLetterReason(enum.StrEnum):
    """Why a message cannot become part of the projection."""

    UNDECODABLE = "undecodable"
    """The body is not a JSON object."""
    UNKNOWN_TYPE = "unknown_type"
    """The body is JSON, but of another event type than ours."""
    UNSUPPORTED_VERSION = "unsupported_version"
    """The event's major version is newer than this reader."""
    INVALID_EVENT = "invalid_event"
    """A field is missing or wrong."""
    WRITE_REFUSED = "write_refused"
    """The store refuses the document for good."""
    CLOCK_AHEAD = "clock_ahead"
    """It is stamped more than a day ahead of the time."""
    EXPIRED = "expired"
    """Its run has outlived its retention."""
    TOO_MANY_DELIVERIES = "too_many_deliveries"
    """It was delivered again and again without a cause of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is published: bytes and short text attributes."""

    data: bytes
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage(Message):
    """What is pulled: a message with its delivery."""

    message_id: str
    """The transport's id; a publisher's retry gives the same event another one."""
    ack_id: str
    """What to acknowledge or release it with; every delivery has its own."""
    delivery_attempt: int = 0
    """Deliveries so far, where the transport counts them; else 0."""
    published_at: datetime | None = None
    """When the transport took it, by the transport's clock; None where it does not say."""


def encode_event(event: RunEvent) -> Message:
    """Return *event* as the message that states it.

    Args:
        event: Any event; its payloads are read now, so later changes to them do not matter.
    """
    return Message(data=_body(event).encode("ascii"), attributes=_attributes(event))


def decode_event(message: Message) -> RunEvent:
    """Return the event that *message* states, upcast to this version's schema.

    Unknown fields are ignored, and ids beyond `MAX_ID_BYTES` are as `bounded_id` has them; attributes other
    than the trace context are not needed. What is larger than a document holds is cut and counted, as
    `snapshot` does it. Whatever happens while a message is read is an `EventDecodeError`: no caller has to
    expect anything else.

    Args:
        message: A message from the event topic, or one rebuilt from an archived body.

    Raises:
        EventDecodeError: It states no event that this version understands; `reason` says in which way.
    """
    try:
        return _decoded(message)
    except EventDecodeError:
        raise
    except Exception as error:
        # A reader that dies of a message is given it again, for ever. How deep a body may be nested, say, the
        # JSON parser and the upcasters do not agree on, and each version of Python limits them differently.
        raise _refused(DeadLetterReason.INVALID_EVENT, f"not an event: {_told(error)}") from error


def check_stamp(event: RunEvent, now: datetime, published_at: datetime | None = None) -> None:
    """Check that *event* is not stamped so far ahead that nothing honest comes after it.

    Args:
        event: What was published.
        now: The reader's time. By that a rebuild, from whatever archive, takes what a re-drive would: what
            has its time behind it.
        published_at: When it was, by the transport's clock: a reader whose own is behind goes by that.

    Raises:
        EventDecodeError: It is, by more than `MAX_STAMPED_AHEAD`.
    """
    moment = now if published_at is None else max(now, published_at)
    # Readings go beyond the calendar, and differences do not.
    ahead = timedelta(microseconds=event.hlc) - (moment - EPOCH)
    if ahead > MAX_STAMPED_AHEAD:
        raise _refused(
            DeadLetterReason.CLOCK_AHEAD,
            f"the event is stamped {ahead} ahead of the time; set the clock right of the machine that did, "
            "then re-drive it stamped so much earlier (--earlier), or once its time has come",
        )


def _decoded(message: Message) -> RunEvent:
    text, body = _json_object(message.data)
    major = _major_version(body, message.attributes)
    if major == 0:
        # A level comes around it.
        _check_depth(text, MAX_DEPTH - 1)
    for version in range(major, SCHEMA_MAJOR):
        body = UPCASTERS[version](body)
    if isinstance(body.get("run"), dict):
        body = {**body, "run": _with_bounded_ids(body["run"])}
    missing = [name for name in NO_DEFAULT_ON_THE_WIRE if name not in body]
    if missing:
        raise _refused(DeadLetterReason.INVALID_EVENT, f"not an event: {', '.join(missing)} missing")
    attributes = message.attributes
    parent = attributes.get("traceparent") or attributes.get("googclient_traceparent")
    event = RunEvent.model_validate(
        {**body, "traceparent": _fitting(parent), "tracestate": _fitting(attributes.get("tracestate"))},
        context=STORED,
    )
    if len(message.data) > MAX_TEXT_BYTES:
        _count_cut_texts(event.run, body["run"])
    if len(message.data) > _SURELY_FITS:
        fit_run(event.run)
    return event


def _count_cut_texts(run: WorkflowRun, told: Mapping[str, Any]) -> None:
    """Count the texts of which the model has cut the end."""
    pause: Mapping[str, Any] = told.get("pause") or {}
    texts: list[str] = [
        told.get("error") or "",
        *(pause.get(name) or "" for name in PauseRequest.model_fields),
    ]
    cut = sum(len(text.encode(errors="backslashreplace")) > MAX_TEXT_BYTES for text in texts)
    count_cut(run.workflow_id, run.id, cut)


def _with_bounded_ids(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's fields, whose ids somebody else has made, with ids that are within our bound."""
    fields = {**run, **_bounded(run, _RUN_IDS)}
    pause = fields.get("pause")
    if isinstance(pause, dict):
        asked = cast("dict[str, Any]", pause)
        fields["pause"] = {**asked, **_bounded(asked, _PERSONS)}
    return fields


def _bounded(fields: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    return {name: bounded_id(text) for name in names if isinstance(text := fields.get(name), str)}


def _json_object(data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        # RFC 8259 asks for UTF-8, and lets a reader pass over a mark.
        text = data.decode().removeprefix("\ufeff")
        _check_depth(text, MAX_DEPTH)
        body = _decoder.decode(text)
    except EventDecodeError:
        raise
    except Exception as error:
        raise _refused(DeadLetterReason.UNDECODABLE, f"the body is not JSON: {_told(error)}") from error
    if not isinstance(body, dict):
        what = f"the body is a JSON {type(body).__name__}, not an object"
        raise _refused(DeadLetterReason.UNDECODABLE, what)
    return text, cast("dict[str, Any]", body)


def _check_depth(text: str, most: int) -> None:
    """Refuse what the parser reads or not by how deep its stack is, and what `encode_event` would cut."""
    if is_deeper(text, most):
        what = f"the body nests more than {most} levels"
        raise _refused(DeadLetterReason.UNDECODABLE, what)


def _refused(reason: DeadLetterReason, what: str) -> EventDecodeError:
    return EventDecodeError(fit_text(what, _MAX_WHAT), reason=reason.value)


def _told(error: Exception) -> str:
    # Telling what is wrong may go wrong likewise: of memory, of depth, or of what an error was given.
    try:
        if isinstance(error, ValidationError):
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its name is told at least
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
    if major > SCHEMA_MAJOR:
        raise _refused(
            DeadLetterReason.UNSUPPORTED_VERSION,
            f"the event has schema version {major}, this reader knows up to {SCHEMA_MAJOR}; "
            "deploy a newer projector, then re-drive the dead letters",
        )
    return major


def _body(event: RunEvent) -> str:
    run = event.run
    return encode_json(
        {
            "type": EVENT_TYPE,
            "event_id": event.event_id,
            "hlc": event.hlc,
            "occurred_at": _rfc3339(event.occurred_at),
            "inferred": event.inferred,
            "run": {
                "id": run.id,
                "workflow_id": run.workflow_id,
                "status": run.status.value,
                "trigger_type": run.trigger_type.value,
                "trigger_data": run.trigger_data,
                "result": run.result,
                "error": run.error,
                "started_at": _rfc3339(run.started_at),
                "completed_at": _rfc3339(run.completed_at) if run.completed_at else None,
                "duration_ms": run.duration_ms,
                "attempt": run.attempt,
                "pause": _pause(run.pause) if run.pause else None,
            },
        }
    )


def _pause(pause: PauseRequest) -> dict[str, str | None]:
    return {
        "reason": pause.reason,
        "assignee": pause.assignee,
        "deadline": _rfc3339(pause.deadline) if pause.deadline else None,
        "answered_by": pause.answered_by,
        **({} if pause.comment is None else {"comment": pause.comment}),
    }


def _attributes(event: RunEvent) -> dict[str, str]:
    attributes = {
        "ce-specversion": "1.0",
        "ce-id": event.event_id,
        "ce-source": _reference("//run-log/workflows/", event.run.workflow_id),
        "ce-type": EVENT_TYPE,
        "ce-subject": _reference("runs/", event.run.id),
        "ce-time": _rfc3339(event.occurred_at),
        "ce-dataschema": f"urn:run-log:schema:run-state:{SCHEMA_VERSION}",
        "content-type": "application/json",
    }
    # What Pub/Sub would refuse is left out: a trace is worth less than the event.
    if parent := _fitting(event.traceparent):
        attributes["traceparent"] = parent
        if state := _fitting(event.tracestate):
            attributes["tracestate"] = state
    return attributes


def _fitting(value: str | None) -> str | None:
    return value if value and value.isascii() and len(value) <= MAX_ATTRIBUTE_VALUE_BYTES else None


@lru_cache(_REMEMBERED_REFERENCES)
def _reference(prefix: str, text: str) -> str:
    """Return *text* as a URI reference that fits into an attribute."""
    reference = prefix + quote(text, safe="")
    if len(reference) <= MAX_ATTRIBUTE_VALUE_BYTES:
        return reference
    return f"{prefix}sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def _rfc3339(moment: datetime) -> str:
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='microseconds').removesuffix('+00:00')}Z"
