"""What a run is: the model that platforms fill in, stores keep and queries return."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Annotated, Any, Final, cast

from opentelemetry import metrics
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from .errors import InvalidRunError
from .ids import MAX_ID_BYTES, bounded_id, is_long_id, valid_text
from .logs import get_logger
from .nearest import (
    MAX_PAYLOAD_BYTES,
    OUTER_KEY,
    Contained,
    as_payload,
    as_text,
    id_text,
    type_name,
    unwrapped,
)
from .payload import detached, fit_payloads, fit_text

MAX_ID_LENGTH: Final = 50_000
"""Longest workflow id and run id, in characters, that earlier versions stored; see `MAX_ID_BYTES`."""

# What a document has for both: 1 MiB less five texts, a history, names and scalar fields.
_IDS_AND_PAYLOAD_BYTES: Final = 830_000

MAX_ATTEMPT: Final = 2**31 - 1

STORED: Final = object()
"""The context in which fields are validated that a message or a document states: they have their types."""

_STORED_PAYLOADS: Final = frozenset({dict, type(None)})
_MILLISECOND: Final = timedelta(milliseconds=1)

# What a foreign object's own errors say may be of any length.
_MAX_FAULT: Final = 500
_MAX_EXPLANATION: Final = 2_000

_logger: Final = get_logger("run_log.core")
_cut_values: Final = metrics.get_meter("run_log.core").create_counter(
    "run_log.payload.cut_values", unit="{value}", description="Payload values cut to fit into a document"
)


class RunStatus(enum.StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    """Accepted, not started."""
    RUNNING = "running"
    """Started, not ended."""
    SUCCESS = "success"
    """Ended as it should."""
    FAILED = "failed"
    """Ended by an error."""
    SKIPPED = "skipped"
    """Ended without doing its work, on purpose."""
    PAUSED = "paused"
    """Waiting for a human."""

    @property
    def is_terminal(self) -> bool:
        """Whether a run in this status has ended."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset({RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED})


class TriggerType(enum.StrEnum):
    """What started a run."""

    WEBHOOK = "webhook"
    GMAIL_PUSH = "gmail_push"
    SCHEDULED = "scheduled"
    MANUAL = "manual"
    FILE_UPLOAD = "file_upload"


def _to_utc(value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise PydanticCustomError(
            "naive_datetime",
            "{value} has no time zone; pass an aware datetime, such as datetime.now(timezone.utc)",
            {"value": value.isoformat()},
        )
    try:
        moved = value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError(
            "datetime_range", "the datetime lies outside years 1 to 9999 in UTC"
        ) from None
    # A vendor's datetime subclass (Firestore's has nanoseconds) survives astimezone(); ours are plain.
    return datetime.combine(moved.date(), moved.timetz())


def _as_text(value: object, info: ValidationInfo) -> object:
    """Bound a text; outside of documents, accept anything in its nearest form."""
    if value is None or (info.context is STORED and not isinstance(value, str)):
        return value
    return fit_text(value if type(value) is str else as_text(value))


def _as_id(value: object, info: ValidationInfo) -> object:
    """Outside of documents, accept what has one text: a number, a UUID, a path, a member of an enum."""
    if info.context is STORED:
        return value
    text = id_text(value)
    if text is None:
        what = f"an id is a text, or what has one, a number or a UUID say; not a {type_name(value)}"
        raise PydanticCustomError("id_type", "{what}", {"what": what})
    if is_long_id(text):
        what = f"it has {len(text.encode()):,} bytes, an id at most {MAX_ID_BYTES:,}; pass a shorter one"
        raise PydanticCustomError("id_too_long", "{what}", {"what": what})
    return text


def _as_person(value: object, info: ValidationInfo) -> object:
    """Accept anything that has a text; outside of documents, as `bounded_id` has it."""
    if value is None or info.context is STORED:
        return _as_text(value, info)
    return bounded_id(valid_text(value) if type(value) is str else as_text(value))


def _enum_value(value: object) -> object:
    """Accept a platform's own enum class by its members' values."""
    return value.value if isinstance(value, enum.Enum) else value


def _none_is(default: object) -> Callable[[object], object]:
    """Accept None, as platforms write it, for what is not known."""
    return lambda value: default if value is None else value


def _as_milliseconds(value: object, info: ValidationInfo) -> object:
    """Accept a timedelta; outside of documents, take what is no length of time for 0: not known."""
    if value is None:
        return 0
    if info.context is STORED or isinstance(value, str):
        return value
    with Contained():  # a foreign object's own code: it is no number
        told = value if type(value) is float or type(value) is int else unwrapped(value)
        if isinstance(told, timedelta):
            told = told / _MILLISECOND
        if not isinstance(told, Real | Decimal):
            return value
        try:
            number = float(told)
        except OverflowError:
            return 0
        return number if 0 <= number < math.inf else 0
    return value


def _not_negative(duration_ms: float) -> float:
    """Read what was written where clocks differ: a run that ended before it started took no time."""
    return max(0.0, duration_ms)


def _method_is_none(value: object) -> object:
    """Accept an object of a platform's own that can be paused: its method is no pause request."""
    return None if callable(value) else value


def _as_payload(value: object, info: ValidationInfo) -> dict[str, Any]:
    """Copy a payload; outside of documents, accept anything in its nearest form."""
    if info.context is STORED:
        if type(value) not in _STORED_PAYLOADS:
            raise PydanticCustomError("payload_type", "a payload is an object")
        return dict(cast("Mapping[str, Any] | None", value) or {})
    payload = as_payload(value)
    context: object = info.context
    if isinstance(context, list) and value is not None and payload.get(OUTER_KEY) is value:
        cast("list[str | None]", context).append(info.field_name)
    return dict(payload)


UtcDatetime = Annotated[datetime, AfterValidator(_to_utc)]
"""An aware datetime, turned into UTC; a naive one is refused."""

Identifier = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), BeforeValidator(_as_id)]
"""Any non-empty text that UTF-8 can hold, of at most `MAX_ID_BYTES`; see `id_text`."""

Text = Annotated[str, BeforeValidator(_as_text)]
Person = Annotated[str, BeforeValidator(_as_person)]
"""Who is asked, or has answered: any text, as `bounded_id` has it where it is long."""

Payload = Annotated[dict[str, Any], SkipValidation, BeforeValidator(_as_payload)]
Milliseconds = Annotated[float, BeforeValidator(_as_milliseconds), AfterValidator(_not_negative)]


class PauseRequest(BaseModel):
    """What a paused run waits for."""

    model_config = ConfigDict(
        from_attributes=True,
        validate_assignment=True,
        revalidate_instances="always",
        use_attribute_docstrings=True,
    )

    reason: Annotated[Text, BeforeValidator(_none_is(""))] = ""
    """What a human is asked to decide."""
    assignee: Person | None = None
    """Who is asked; None for anybody."""
    deadline: UtcDatetime | None = None
    """When the answer is due; None for no deadline."""
    answered_by: Person | None = None
    """Who answered; None while nobody has."""
    comment: Text | None = None
    """What they had to say; None for nothing."""


class WorkflowRun(BaseModel):
    """One execution of a workflow, as it stands at one moment.

    Fields stay assignable, and each assignment is validated: naive datetimes are refused, aware ones
    are turned into UTC. Stores and the emitter take copies.
    """

    model_config = ConfigDict(
        from_attributes=True,
        validate_assignment=True,
        allow_inf_nan=False,
        revalidate_instances="always",
        use_attribute_docstrings=True,
    )

    id: Identifier
    """Unique within its workflow. Any non-empty text."""
    workflow_id: Identifier
    """The workflow's name. Any non-empty text."""
    status: Annotated[RunStatus, BeforeValidator(_enum_value)]
    """Where the run stands."""
    trigger_type: Annotated[TriggerType, BeforeValidator(_enum_value)]
    """What started it."""
    trigger_data: Payload = Field(default_factory=dict)
    """What it was started with: any JSON value under each key."""
    result: Payload = Field(default_factory=dict)
    """What it produced: any JSON value under each key."""
    error: Text | None = None
    """Why it failed or was skipped; None otherwise."""
    started_at: UtcDatetime
    """When it started; the order of every listing."""
    completed_at: UtcDatetime | None = None
    """When it ended; None while it has not."""
    duration_ms: Milliseconds = 0
    """How long it took, in milliseconds."""
    attempt: Annotated[int, Field(ge=1, le=MAX_ATTEMPT), BeforeValidator(_none_is(1))] = 1
    """Which try this is, from 1; a later attempt's state always beats an earlier one's."""
    pause: Annotated[PauseRequest | None, BeforeValidator(_method_is_none)] = None
    """What it waits for, or last waited for; None if it never paused."""

    @property
    def key(self) -> RunKey:
        """The identity of the run: its workflow's id and its own."""
        return (self.workflow_id, self.id)


RunKey = tuple[str, str]
"""A run's identity: workflow id and run id."""


def validated(run: object) -> WorkflowRun:
    """Return *run* as a validated `WorkflowRun`, whose payloads still hold the given values.

    Ids, texts and payloads may be anything that has a nearest form; one log line tells of a payload without
    keys, which stands under `OUTER_KEY`.

    Args:
        run: A `WorkflowRun`, any object with its fields as attributes (a platform's own model), or a
            mapping of them.

    Raises:
        InvalidRunError: A field is missing or wrong; the message names each.
    """
    source = run
    if isinstance(source, Mapping):
        source = dict(cast("Mapping[str, object]", source))
    without_keys: list[str] = []
    try:
        copy = WorkflowRun.model_validate(source, from_attributes=True, context=without_keys)
    except ValidationError as error:
        raise InvalidRunError(_explain(run, error)) from error
    for name in without_keys:
        _logger.warning(
            "run_log_payload_without_keys",
            workflow_id=copy.workflow_id,
            run_id=copy.id,
            field=name,
            kept_as=OUTER_KEY,
        )
    return copy


def snapshot(run: object) -> WorkflowRun:
    """Return a validated copy of *run* that shares nothing with it, and that a document can hold.

    Payloads beyond `MAX_PAYLOAD_BYTES` are cut: markers stand for the largest values, every outer key
    stays, and the counter ``run_log.payload.cut_values`` tells how many.

    Args:
        run: A `WorkflowRun`, any object with its fields as attributes (a platform's own model), or a
            mapping of them.

    Raises:
        InvalidRunError: A field is missing or wrong; the message names each.
    """
    copy = validated(run)
    (trigger_data, result), cut = detached(copy.trigger_data, copy.result, limit=_payload_room(copy))
    count_cut(copy.workflow_id, copy.id, cut)
    return copy.model_copy(update={"trigger_data": trigger_data, "result": result})


def fit_run(run: WorkflowRun) -> WorkflowRun:
    """Return *run*, with its payloads cut as `snapshot` does where they are too large.

    Args:
        run: Ours: it may be changed.
    """
    payloads, cut = fit_payloads((run.trigger_data, run.result), _payload_room(run))
    if cut:
        # Each assignment validates the whole run.
        run.trigger_data, run.result = payloads
        count_cut(run.workflow_id, run.id, cut)
    return run


def count_cut(workflow_id: str, run_id: str, values: int) -> None:
    """Count and log that *values* of a run's payloads and texts were cut, if any were."""
    if values:
        _cut_values.add(values)
        hint = f"more than {MAX_PAYLOAD_BYTES} bytes, or their own code raised: the markers say"
        _logger.warning(
            "run_log_payload_cut", workflow_id=workflow_id, run_id=run_id, values=values, hint=hint
        )


def _payload_room(run: WorkflowRun) -> int:
    room = _IDS_AND_PAYLOAD_BYTES - len(run.id.encode()) - len(run.workflow_id.encode())
    return min(MAX_PAYLOAD_BYTES, room)


def _explain(run: object, error: ValidationError) -> str:
    faults = "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'run'}: {fault['msg']}"[:_MAX_FAULT]
        for fault in error.errors(include_url=False, include_input=False)
    )
    return f"a {type_name(run)} is not a run: {faults}"[:_MAX_EXPLANATION]
