"""The model of a run: platforms fill it in, stores keep it, queries return it."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Annotated, Any, Final, NamedTuple, cast

from opentelemetry import metrics
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SkipValidation,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from .clock import rfc3339
from .errors import InvalidRunError
from .forms import MAX_FORM_LEVELS, MAX_VALUES_BYTES, form_fault
from .ids import MAX_ID_BYTES, as_text, bounded_id, id_text, is_long_id, valid_text
from .json_form import payload_json, time_json
from .logs import get_logger
from .nearest import MAX_PAYLOAD_BYTES, OUTER_KEY, Contained, qualified_name, type_name, unwrapped
from .payload import (
    MAX_TEXT_BYTES,
    as_payload,
    decode_json,
    detached,
    encode_json,
    fit_payloads,
    fit_text,
    is_deeper,
)

# The most characters of an id. Earlier versions stored such long ones. A new one has at most `MAX_ID_BYTES`.
_MAX_ID_LENGTH: Final = 50_000

# A document holds 1 MiB. The rest of it is for five texts, a history, names and scalar fields.
_IDS_AND_PAYLOAD_BYTES: Final = 830_000

MAX_ATTEMPT: Final = 2**31 - 1

MAX_LABELS: Final = 20
"""The most labels of a run."""

MAX_LABEL_LENGTH: Final = 128
"""The most characters of a label's value."""

MAX_ERROR_TYPE_BYTES: Final = 256
"""The most bytes of UTF-8 that an `error_type` takes. Stores index it."""

LABEL_HINT: Final = (
    f"a run has at most {MAX_LABELS} labels; a key is at most 63 of a-z 0-9 _ . -, a letter or digit first, "
    f"a value a text of at most {MAX_LABEL_LENGTH} characters"
)
MAX_CHOICES: Final = 50
"""The most choices of a pause."""

MAX_CHOICE_BYTES: Final = 1_024
"""The most bytes of UTF-8 that a choice takes."""

_LABEL_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_TRIGGER_WORD: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")

# A wrong type there is a fault of the writer, which must be seen, and not a value to interpret.
STORED: Final = object()
"""The context for the fields of a document: they must have their types already."""


class Received:
    """The context for the fields of a message: typed as in a document. Ids and texts are made to fit."""

    cut_texts = 0


_STORED_PAYLOADS: Final = frozenset({dict, type(None)})
_MILLISECOND: Final = timedelta(milliseconds=1)

# The message of a foreign object's error may be of any length.
_MAX_FAULT: Final = 500
_MAX_EXPLANATION: Final = 2_000

_MAX_SHOWN_NAME: Final = 64
_MAX_TOLD: Final = 100
_told_fields: Final[set[str]] = set()
_PARENT_IDS: Final = 2

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
    CANCELLED = "cancelled"
    """Ended because somebody stopped it."""
    PAUSED = "paused"
    """Waiting for a human."""

    @property
    def is_terminal(self) -> bool:
        """Whether a run in this status has ended."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset({RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED, RunStatus.CANCELLED})


class TriggerType(enum.StrEnum):
    """What commonly starts a run. Any other word can be a trigger type too."""

    WEBHOOK = "webhook"
    GMAIL_PUSH = "gmail_push"
    SCHEDULED = "scheduled"
    MANUAL = "manual"
    FILE_UPLOAD = "file_upload"


_TRIGGERS: Final[Mapping[str, TriggerType]] = {trigger.value: trigger for trigger in TriggerType}


def trigger_of(word: str) -> TriggerType | str:
    """Return the `TriggerType` that *word* names, or *word* if it names none."""
    return _TRIGGERS.get(word, word)


def is_trigger_word(word: str) -> bool:
    """Return whether *word* can be a trigger type: at most 64 of ``a-z 0-9 _ . -``, a letter first."""
    return _TRIGGER_WORD.fullmatch(word) is not None


def is_label_key(text: str) -> bool:
    """Return whether *text* can be a label's key: at most 63 of ``a-z 0-9 _ . -``, no sign first."""
    return _LABEL_KEY.fullmatch(text) is not None


def is_label(key: str, value: str) -> bool:
    """Return whether this can be a label."""
    return is_label_key(key) and len(value) <= MAX_LABEL_LENGTH


class RunRef(NamedTuple):
    """The identity of a run of any workflow."""

    workflow_id: str
    run_id: str


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
    # A vendor's subclass of datetime survives astimezone(). Firestore's has nanoseconds, which JSON would
    # lose.
    return datetime.combine(moved.date(), moved.timetz())


def _is_typed(info: ValidationInfo) -> bool:
    return info.context is STORED or isinstance(info.context, Received)


def _as_text(value: object, info: ValidationInfo) -> object:
    """Cut a text that is too long. If it is not typed yet, accept anything in its nearest form."""
    if value is None or (_is_typed(info) and not isinstance(value, str)):
        return value
    text = value if type(value) is str else as_text(value)
    if isinstance(info.context, Received):
        info.context.cut_texts += len(text.encode(errors="backslashreplace")) > MAX_TEXT_BYTES
    return fit_text(text)


def _as_id(value: object, info: ValidationInfo) -> object:
    """If it is not typed yet, accept whatever has a text: a number, a UUID, a path, a member of an enum."""
    if info.context is STORED:
        return value
    if isinstance(info.context, Received):
        # Another program may have made it.
        return bounded_id(value) if isinstance(value, str) else value
    text = id_text(value)
    if text is None:
        what = f"an id is a text, or has one, as a number or a UUID does; a {type_name(value)} has none"
        raise PydanticCustomError("id_type", "{what}", {"what": what})
    if is_long_id(text):
        what = f"it has {len(text.encode()):,} bytes, an id at most {MAX_ID_BYTES:,}; pass a shorter one"
        raise PydanticCustomError("id_too_long", "{what}", {"what": what})
    return text


def _as_person(value: object, info: ValidationInfo) -> object:
    """Shorten it as `bounded_id` does, but not that of a document."""
    if isinstance(info.context, Received) and isinstance(value, str):
        value = bounded_id(value)
    if value is None or _is_typed(info):
        return _as_text(value, info)
    return bounded_id(valid_text(value) if type(value) is str else as_text(value))


def _enum_value(value: object) -> object:
    # It may be a member of a platform's own enum.
    return value.value if isinstance(value, enum.Enum) else value


def _as_trigger_type(value: object) -> TriggerType | str:
    word = _enum_value(value)
    if not isinstance(word, str) or not is_trigger_word(word):
        what = f"a trigger type is a word such as 'cron', at most 64 of a-z 0-9 _ . -, not {word!r:.100}"
        raise PydanticCustomError("trigger_type", "{what}", {"what": what})
    return trigger_of(str.__str__(word))


def _as_labels(value: object, info: ValidationInfo) -> dict[str, str]:
    """Return the labels that *value* has. What cannot be a label is left out, and logged."""
    if value is None or callable(value):
        return {}
    if info.context is STORED:
        return dict(cast("Mapping[str, str]", value))
    labels: dict[str, str] = {}
    left_out: list[str] = []
    # The code of a foreign object may raise. Then what is read so far is kept.
    with Contained():
        for name, given in sorted(as_payload(value).items()):
            if given is None:
                continue
            text = id_text(given)
            if text is not None and is_label(name, text) and len(labels) < MAX_LABELS:
                labels[name] = text
            else:
                left_out.append(name)
    if left_out:
        _logger.warning(
            "run_log_labels_left_out",
            workflow_id=info.data.get("workflow_id"),
            run_id=info.data.get("id"),
            labels=[fit_text(name, _MAX_SHOWN_NAME) for name in left_out[:MAX_LABELS]],
            hint=LABEL_HINT,
        )
    return labels


def _as_parent(value: object, info: ValidationInfo) -> RunRef | None:
    """Return the run that *value* names: a pair of ids, a mapping or an object that has them, or a run."""
    if value is None or callable(value):
        return None
    ids: list[str | None] = []
    with Contained():
        ids = [_parent_id(each, info) for each in _parent_ids(value)]
    workflow_id, run_id = ids if len(ids) == _PARENT_IDS else (None, None)
    if workflow_id and run_id:
        return RunRef(workflow_id, run_id)
    what = "a parent is a RunRef, a pair of a workflow's id and a run's"
    if info.context is STORED:
        raise PydanticCustomError("parent", "{what}", {"what": what})
    # A run is worth more than the link to its parent.
    _logger.warning(
        "run_log_parent_left_out",
        workflow_id=info.data.get("workflow_id"),
        run_id=info.data.get("id"),
        hint=what,
    )
    return None


def _parent_ids(value: object) -> tuple[object, ...]:
    if isinstance(value, tuple | list):
        return tuple(cast("list[object]", value))
    if isinstance(value, Mapping):
        named = cast("Mapping[str, object]", value)
        return named.get("workflow_id"), named.get("run_id", named.get("id"))
    return getattr(value, "workflow_id", None), getattr(value, "run_id", getattr(value, "id", None))


def _parent_id(value: object, info: ValidationInfo) -> str | None:
    if info.context is STORED:
        return value if isinstance(value, str) else None
    text = id_text(value)
    return bounded_id(text) if text else None


def _as_trace_id(value: object) -> str | None:
    # One without meaning is no reason to lose a run, and all zeros is W3C's word for none.
    if isinstance(value, str) and _TRACE_ID.fullmatch(value) and value.strip("0"):
        return str.__str__(value)
    return None


def _as_error_type(value: object, info: ValidationInfo) -> str | None:
    if value is None:
        return None
    if isinstance(value, type):
        value = qualified_name(cast("type[object]", value))
    text = _as_text(value, info)
    return fit_text(text, MAX_ERROR_TYPE_BYTES) if isinstance(text, str) and text else None


def _none_is(default: object) -> Callable[[object], object]:
    # Platforms write None for an unknown value.
    return lambda value: default if value is None else value


def _as_milliseconds(value: object, info: ValidationInfo) -> object:
    """Accept a timedelta. If it is not typed yet, read a number that is no duration as 0, for unknown."""
    if value is None:
        return 0
    if _is_typed(info) or isinstance(value, str):
        return value
    # If the code of a foreign object raises, the value is not a number, and pydantic refuses it.
    with Contained():
        number = value if type(value) is float or type(value) is int else unwrapped(value)
        if isinstance(number, timedelta):
            number = number / _MILLISECOND
        if not isinstance(number, Real | Decimal):
            return value
        try:
            number = float(number)
        except OverflowError:
            return 0
        return number if 0 <= number < math.inf else 0
    return value


def _not_negative(duration_ms: float) -> float:
    # Earlier versions stored a negative one if clocks differed, and a run seemed to end before it started.
    return max(0.0, duration_ms)


def _as_fraction(value: object) -> float | None:
    # Bounded rather than refused: a run is worth more than how far it says it is.
    with Contained():
        number = float(cast("float", value)) if isinstance(value, Real | Decimal) else math.nan
        return None if math.isnan(number) else min(max(number, 0.0), 1.0)
    return None


def _as_progress(value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    """Return how far a run is. What is no progress is left out, and logged."""
    # A platform's own model may have a method `progress`.
    if value is None or callable(value):
        return None
    try:
        return handler(value)
    except ValidationError:
        if info.context is STORED:
            raise
    # Or a field of that name which is a percentage: a run is worth more than how far it says it is.
    _logger.warning(
        "run_log_progress_left_out",
        workflow_id=info.data.get("workflow_id"),
        run_id=info.data.get("id"),
        hint=f"progress is a RunProgress, an object with a fraction and a text, not a {type_name(value)}",
    )
    return None


# The workflow and the run whose pause is read, for the log.
_run_at_hand: Final = ContextVar[tuple[object, object]]("run_log_run_at_hand", default=(None, None))


def _as_pause(value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    # A platform's own model may have a method `pause`.
    if value is None or callable(value):
        return None
    token = _run_at_hand.set((info.data.get("workflow_id"), info.data.get("id")))
    try:
        return handler(value)
    finally:
        _run_at_hand.reset(token)


def _left_out(field: str | None, cause: str) -> None:
    # A pause is worth more than what it offers.
    workflow_id, run_id = _run_at_hand.get()
    _logger.warning(
        "run_log_pause_left_out", workflow_id=workflow_id, run_id=run_id, field=field, cause=cause
    )


def _is_absent(value: object) -> bool:
    # A platform's own pause may be a mapping, which has a method `values`.
    return value is None or (callable(value) and not isinstance(value, type))


def _as_choices(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """Return the texts of *value*, each once. What cannot be a choice is left out, and logged."""
    if _is_absent(value):
        return ()
    if info.context is STORED:
        return tuple(cast("list[str]", value))
    texts: list[str] = []
    # The code of a foreign object may raise. Then what is read so far is kept.
    with Contained():
        given: Collection[object] = (value,)
        if isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping):
            given = cast("Collection[object]", value)
        for each in given:
            text = _as_choice(each, info)
            if not isinstance(text, str):
                _left_out("choices", f"a choice is a text, and not empty, not a {type_name(each)}")
            elif text not in texts:
                texts.append(text)
            if len(texts) > MAX_CHOICES:
                _left_out("choices", f"it has more than {MAX_CHOICES}; the first are kept")
                break
    return tuple(texts[:MAX_CHOICES])


def _as_choice(value: object, info: ValidationInfo) -> object:
    if value is None or info.context is STORED:
        return value
    text = value if _is_typed(info) else id_text(value)
    return fit_text(text, MAX_CHOICE_BYTES) or None if isinstance(text, str) else None


def _as_default_choice(value: object, info: ValidationInfo) -> object:
    choice = _as_choice(value, info)
    if value is None or info.context is STORED or choice in info.data.get("choices", ()):
        return choice
    _left_out(info.field_name, "it is none of the choices")
    return None


def _stored_object(value: object) -> dict[str, Any]:
    # As text: a document of Firestore holds no list in a list, and no large integer.
    found = decode_json(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise PydanticCustomError("object", "it is an object, or the JSON text of one")
    return dict(cast("Mapping[str, Any]", found))


def _as_form(value: object, info: ValidationInfo) -> dict[str, Any] | None:
    """Return a copy of *value* if it is a JSON Schema. Else it is left out, and logged."""
    if _is_absent(value):
        return None
    if info.context is STORED:
        return _stored_object(value)
    text = cause = ""
    with Contained():
        payload = as_payload(value)
        if not _has_keys(value, payload):
            cause = f"a form is a JSON Schema as an object, not a {type_name(value)}"
        else:
            text = encode_json(payload)
            cause = form_fault(text) or ""
    if cause or not text:
        _left_out(info.field_name, cause or "its own code raised")
        return None
    return decode_json(text) or None


def _has_keys(value: object, payload: Mapping[str, Any]) -> bool:
    return payload.get(OUTER_KEY) is not value or isinstance(value, Mapping)


def _as_values(value: object, info: ValidationInfo) -> dict[str, Any] | None:
    """Return a copy of *value*, in its nearest form, cut to what is kept of it."""
    if _is_absent(value):
        return None
    if info.context is STORED:
        return _stored_object(value)
    if isinstance(info.context, Received) and type(value) not in _STORED_PAYLOADS:
        _left_out(info.field_name, f"values are an object, not a {type_name(value)}")
        return None
    (values,), cut = detached(value, limit=MAX_VALUES_BYTES)
    if is_deeper(encode_json(values), MAX_FORM_LEVELS):
        _left_out(info.field_name, f"it nests more than {MAX_FORM_LEVELS} levels")
        return None
    workflow_id, run_id = _run_at_hand.get()
    count_cut(str(workflow_id), str(run_id), cut)
    return values or None


def _as_payload(value: object, info: ValidationInfo) -> dict[str, Any]:
    """Copy a payload. If it is not typed yet, accept anything in its nearest form."""
    if _is_typed(info):
        if type(value) not in _STORED_PAYLOADS:
            raise PydanticCustomError("payload_type", "a payload is an object")
        return dict(cast("Mapping[str, Any] | None", value) or {})
    payload = as_payload(value)
    context: object = info.context
    if isinstance(context, list) and value is not None and payload.get(OUTER_KEY) is value:
        cast("list[str | None]", context).append(info.field_name)
    return dict(payload)


UtcDatetime = Annotated[datetime, AfterValidator(_to_utc)]
"""An aware datetime, converted to UTC. A naive one is refused."""

_Identifier = Annotated[str, Field(min_length=1, max_length=_MAX_ID_LENGTH), BeforeValidator(_as_id)]
_Text = Annotated[str, BeforeValidator(_as_text)]
_Person = Annotated[str, BeforeValidator(_as_person)]
_Payload = Annotated[dict[str, Any], SkipValidation, BeforeValidator(_as_payload)]
_Milliseconds = Annotated[float, BeforeValidator(_as_milliseconds), AfterValidator(_not_negative)]
_Trigger = Annotated[
    TriggerType | str,
    SkipValidation,
    BeforeValidator(_as_trigger_type),
    WithJsonSchema({"type": "string", "pattern": f"^{_TRIGGER_WORD.pattern}$"}),
]
_Labels = Annotated[
    dict[str, str],
    SkipValidation,
    BeforeValidator(_as_labels),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": f"^{_LABEL_KEY.pattern}$"},
            "additionalProperties": {"type": "string", "maxLength": MAX_LABEL_LENGTH},
        }
    ),
]
_Parent = Annotated[
    RunRef | None,
    SkipValidation,
    BeforeValidator(_as_parent),
    PlainSerializer(lambda parent: parent and parent._asdict(), when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"workflow_id": {"type": "string"}, "run_id": {"type": "string"}},
                    "required": ["workflow_id", "run_id"],
                },
                {"type": "null"},
            ]
        }
    ),
]
_TraceId = Annotated[
    str | None,
    SkipValidation,
    BeforeValidator(_as_trace_id),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_TRACE_ID.pattern}$"}, {"type": "null"}]}),
]
_ErrorType = Annotated[str | None, BeforeValidator(_as_error_type)]
_Choices = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_choices),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "maxItems": MAX_CHOICES}),
]
_Choice = Annotated[str | None, BeforeValidator(_as_choice)]
_DefaultChoice = Annotated[str | None, BeforeValidator(_as_default_choice)]
_OBJECT: Final = {"anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}]}
_Form = Annotated[dict[str, Any] | None, SkipValidation, BeforeValidator(_as_form), WithJsonSchema(_OBJECT)]
_Values = Annotated[
    dict[str, Any] | None, SkipValidation, BeforeValidator(_as_values), WithJsonSchema(_OBJECT)
]


_CONFIG: Final = ConfigDict(
    from_attributes=True,
    validate_assignment=True,
    allow_inf_nan=False,
    # An instance proves nothing: `model_construct` and `model_copy` validate nothing.
    revalidate_instances="always",
    # Not `use_attribute_docstrings`: to read this file at each import takes 13 ms. `make schema` reads it.
)


class PauseRequest(BaseModel):
    """What a paused run waits for."""

    model_config = _CONFIG

    reason: Annotated[_Text, BeforeValidator(_none_is(""))] = ""
    """What a human is asked to decide."""
    assignee: _Person | None = None
    """Who is asked; None for anybody."""
    deadline: UtcDatetime | None = None
    """When the answer is due; None for no deadline."""
    answered_by: _Person | None = None
    """Who answered; None while nobody has."""
    comment: _Text | None = None
    """What they had to say; None for nothing."""
    choices: _Choices = ()
    """What they can choose from: at most 50 texts; empty for no choice."""
    form: _Form = None
    """What they fill in, as a JSON Schema of at most 32,768 bytes; None for nothing."""
    default_choice: _DefaultChoice = None
    """Which of the choices is taken when the deadline passes; None for none."""
    choice: _Choice = None
    """What they chose; None for nothing."""
    values: _Values = None
    """What they filled in, at most 32,768 bytes of JSON; None for nothing."""

    def to_json(self) -> dict[str, Any]:
        """Return the pause as JSON; see `WorkflowRun.to_json`."""
        return {
            "reason": self.reason,
            "assignee": self.assignee,
            "deadline": time_json(self.deadline),
            "answered_by": self.answered_by,
            "comment": self.comment,
            "choices": list(self.choices),
            "form": None if self.form is None else payload_json(self.form),
            "default_choice": self.default_choice,
            "choice": self.choice,
            "values": None if self.values is None else payload_json(self.values),
        }


class RunProgress(BaseModel):
    """How far a run says that it is."""

    model_config = _CONFIG

    fraction: Annotated[float | None, BeforeValidator(_as_fraction)] = None
    """From 0 to 1; None for unknown."""
    text: _Text | None = None
    """In words, such as "3 of 7 files"; None for nothing."""

    def to_json(self) -> dict[str, Any]:
        """Return the progress as JSON."""
        return {"fraction": self.fraction, "text": self.text}


class WorkflowRun(BaseModel):
    """One execution of a workflow, as it stands at one moment.

    Fields can be assigned, and each assignment is validated: naive datetimes are refused, aware ones are
    converted to UTC. Stores and the emitter take copies.
    """

    model_config = _CONFIG

    id: _Identifier
    """Unique within its workflow. Any non-empty text."""
    workflow_id: _Identifier
    """The workflow's name. Any non-empty text."""
    status: Annotated[RunStatus, BeforeValidator(_enum_value)]
    """Where the run stands."""
    trigger_type: _Trigger
    """What started it: a `TriggerType`, or another word. It equals its text."""
    trigger_data: _Payload = Field(default_factory=dict)
    """What it was started with: any JSON value under each key."""
    result: _Payload = Field(default_factory=dict)
    """What it produced: any JSON value under each key."""
    error: _Text | None = None
    """Why it failed or was skipped; None otherwise."""
    started_at: UtcDatetime
    """When it started; the order of every listing."""
    completed_at: UtcDatetime | None = None
    """When it ended; None while it has not."""
    duration_ms: _Milliseconds = 0
    """How long it took, in milliseconds."""
    attempt: Annotated[int, Field(ge=1, le=MAX_ATTEMPT), BeforeValidator(_none_is(1))] = 1
    """Which try this is, from 1; a later attempt's state always beats an earlier one's."""
    pause: Annotated[PauseRequest | None, WrapValidator(_as_pause)] = None
    """What it waits for, or last waited for; None if it never paused."""
    labels: _Labels = Field(default_factory=dict)
    """What it is found by: at most `MAX_LABELS` keys with short texts."""
    parent: _Parent = None
    """The run that started this one; None for none."""
    trace_id: _TraceId = None
    """The trace in which it began, as 32 hex digits; None for none."""
    error_type: _ErrorType = None
    """The qualified name of the exception that failed it; None for none."""
    progress: Annotated[RunProgress | None, WrapValidator(_as_progress)] = None
    """How far it last said that it is; None if it never did."""

    @property
    def key(self) -> RunKey:
        """The identity of the run: its workflow's id and its own."""
        return (self.workflow_id, self.id)

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON: every field under its name, times by RFC 3339 in UTC.

        Payloads are the run's own, not copies. `model_validate` makes an equal run of it.
        """
        # Not `model_dump`: it raises for payloads that nest deeply and for lone surrogates in them.
        return {
            "id": self.id,
            "workflow_id": self.workflow_id,
            "status": self.status.value,
            "trigger_type": str(self.trigger_type),
            "trigger_data": payload_json(self.trigger_data),
            "result": payload_json(self.result),
            "error": self.error,
            "started_at": rfc3339(self.started_at),
            "completed_at": time_json(self.completed_at),
            # The default of a new run is an integer, and what a store returns a float.
            "duration_ms": float(self.duration_ms),
            "attempt": self.attempt,
            "pause": self.pause and self.pause.to_json(),
            "labels": dict(self.labels),
            "parent": self.parent and self.parent._asdict(),
            "trace_id": self.trace_id,
            "error_type": self.error_type,
            "progress": self.progress and self.progress.to_json(),
        }


RunKey = tuple[str, str]
"""The identity of a run: workflow id and run id."""


def validated(run: object, *, label_fields: Sequence[str] = ()) -> WorkflowRun:
    """Return *run*, as `snapshot` does, but its payloads still hold the given values.

    Ids, texts and payloads may be anything that has a nearest form. A payload without keys becomes the value
    of `OUTER_KEY`, which is logged. Fields that a run does not have become labels where *label_fields* names
    them. The names of all others are logged once for each kind of run.
    """
    source = run
    if isinstance(source, Mapping):
        source = dict(cast("Mapping[str, object]", source))
    without_keys: list[str] = []
    try:
        copy = WorkflowRun.model_validate(source, from_attributes=True, context=without_keys)
    except ValidationError as error:
        what = f"a {type_name(run)} is not a run: {faults_of(error)}"
        raise InvalidRunError(what[:_MAX_EXPLANATION]) from error
    for name in without_keys:
        _logger.warning(
            "run_log_payload_without_keys",
            workflow_id=copy.workflow_id,
            run_id=copy.id,
            field=name,
            kept_as=OUTER_KEY,
        )
    if type(run) is not WorkflowRun and (further := _further_fields(source)):
        asked = {name: further.pop(name) for name in label_fields if name in further}
        if asked:
            copy.labels = {**cast("dict[str, str]", asked), **copy.labels}
        _tell_of_fields(type_name(run), copy, further)
    return copy


def _further_fields(source: object) -> dict[str, object]:
    """Return the public fields of *source*, somebody else's run, that a run has no place for."""
    found: dict[str, object] = {}
    # If its code raises, nobody knows what else it has.
    with Contained():
        if isinstance(source, dict):
            found = dict(cast("dict[str, object]", source))
        else:
            slots: Mapping[str, object] = getattr(type(source), "__dataclass_fields__", {})
            found = {name: getattr(source, name) for name in slots} | dict(getattr(source, "__dict__", {}))
        known = WorkflowRun.model_fields
        return {
            name: value
            for name, value in found.items()
            if type(name) is str and not name.startswith("_") and name not in known and value is not None
        }
    return {}


def _tell_of_fields(kind: str, run: WorkflowRun, further: Mapping[str, object]) -> None:
    told = f"{kind}: {', '.join(sorted(further))}"[:_MAX_EXPLANATION]
    if not further or told in _told_fields or len(_told_fields) >= _MAX_TOLD:
        return
    _told_fields.add(told)
    _logger.warning(
        "run_log_fields_left_out",
        workflow_id=run.workflow_id,
        run_id=run.id,
        type=kind,
        fields=sorted(further)[:MAX_LABELS],
        hint="a run has no such fields; RUN_LOG_LABEL_FIELDS keeps short ones as labels",
    )


def snapshot(run: object, *, label_fields: Sequence[str] = ()) -> WorkflowRun:
    """Return a validated copy of *run* that shares nothing with it and fits into a document.

    *run* is a `WorkflowRun`, an object with its fields as attributes (a platform's own model), or a mapping.
    Payloads beyond `MAX_PAYLOAD_BYTES` are cut: markers replace the largest values, and every outer key
    stays. The metric ``run_log.payload.cut_values`` counts the values that were cut. For *label_fields* see
    `validated`.

    Raises:
        InvalidRunError: A field is missing or wrong. The message names each.
    """
    copy = validated(run, label_fields=label_fields)
    (trigger_data, result), cut = detached(copy.trigger_data, copy.result, limit=_payload_room(copy))
    count_cut(copy.workflow_id, copy.id, cut)
    return copy.model_copy(update={"trigger_data": trigger_data, "result": result})


def fit_run(run: WorkflowRun, *, beside: int = 0) -> WorkflowRun:
    """Return *run*, which nobody else holds. Payloads that are too large are cut, as `snapshot` does.

    *beside* are bytes that something else takes in the run's document.
    """
    payloads, cut = fit_payloads((run.trigger_data, run.result), _payload_room(run) - beside)
    if cut:
        # Only if something was cut: each assignment validates the whole run.
        run.trigger_data, run.result = payloads
        count_cut(run.workflow_id, run.id, cut)
    return run


def count_cut(workflow_id: str, run_id: str, values: int) -> None:
    """Count and log how many *values* of a run's payloads and texts were cut, if any were."""
    if values:
        _cut_values.add(values)
        hint = f"they exceed {MAX_PAYLOAD_BYTES} bytes, or their own code raised; the markers say which"
        _logger.warning(
            "run_log_payload_cut", workflow_id=workflow_id, run_id=run_id, values=values, hint=hint
        )


def _payload_room(run: WorkflowRun) -> int:
    room = _IDS_AND_PAYLOAD_BYTES - len(run.id.encode()) - len(run.workflow_id.encode())
    # What a pause asks for and is answered with takes of the payloads' room.
    return min(MAX_PAYLOAD_BYTES, room) - (_offered_bytes(run.pause) if run.pause else 0)


def _offered_bytes(pause: PauseRequest) -> int:
    # One byte more for each text, as Firestore counts (docs: storage-size).
    texts = [*pause.choices, *filter(None, (pause.default_choice, pause.choice))]
    texts += [encode_json(each) for each in (pause.form, pause.values) if each is not None]
    return sum(len(text.encode()) + 1 for text in texts)


def faults_of(error: ValidationError) -> str:
    """Return what *error* says of each field at fault."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'run'}: {fault['msg']}"[:_MAX_FAULT]
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    )
