"""The model of a run: platforms fill it in, stores keep it, queries return it."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SkipValidation,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from .clock import rfc3339
from .errors import InvalidRunError
from .fields import (
    ErrorType,
    Fraction,
    Identifier,
    Labels,
    Milliseconds,
    Payload,
    Person,
    Text,
    TraceId,
    UtcDatetime,
    as_progress,
    count_cut,
    further_fields,
    none_is,
    parent_ids,
    tell_of_fields,
)
from .json_form import payload_json, time_json
from .logs import get_logger
from .nearest import MAX_PAYLOAD_BYTES, OUTER_KEY, type_name
from .pause_fields import Choice, Choices, DefaultChoice, Form, Values, as_pause
from .payload import detached, encode_json, fit_payloads

# A document holds 1 MiB. The rest of it is for five texts, a history, names and scalar fields.
_IDS_AND_PAYLOAD_BYTES: Final = 830_000

MAX_ATTEMPT: Final = 2**31 - 1

_TRIGGER_WORD: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")

# The message of a foreign object's error may be of any length.
_MAX_FAULT: Final = 500
_MAX_EXPLANATION: Final = 2_000

_logger: Final = get_logger("run_log.core")


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


class RunRef(NamedTuple):
    """The identity of a run of any workflow."""

    workflow_id: str
    run_id: str


def _enum_value(value: object) -> object:
    # It may be a member of a platform's own enum.
    return value.value if isinstance(value, enum.Enum) else value


def _as_trigger_type(value: object) -> TriggerType | str:
    word = _enum_value(value)
    if not isinstance(word, str) or not is_trigger_word(word):
        what = f"a trigger type is a word such as 'cron', at most 64 of a-z 0-9 _ . -, not {word!r:.100}"
        raise PydanticCustomError("trigger_type", "{what}", {"what": what})
    return trigger_of(str.__str__(word))


def _as_parent(value: object, info: ValidationInfo) -> RunRef | None:
    ids = parent_ids(value, info)
    return RunRef(*ids) if ids else None


_Trigger = Annotated[
    TriggerType | str,
    SkipValidation,
    BeforeValidator(_as_trigger_type),
    WithJsonSchema({"type": "string", "pattern": f"^{_TRIGGER_WORD.pattern}$"}),
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

    reason: Annotated[Text, BeforeValidator(none_is(""))] = ""
    """What a human is asked to decide."""
    assignee: Person | None = None
    """Who is asked; None for anybody."""
    deadline: UtcDatetime | None = None
    """When the answer is due; None for no deadline."""
    answered_by: Person | None = None
    """Who answered; None while nobody has."""
    comment: Text | None = None
    """What they had to say; None for nothing."""
    choices: Choices = ()
    """What they can choose from: at most 50 texts; empty for no choice."""
    form: Form = None
    """What they fill in, as a JSON Schema of at most 32,768 bytes; None for nothing."""
    default_choice: DefaultChoice = None
    """Which of the choices is taken when the deadline passes; None for none."""
    choice: Choice = None
    """What they chose; None for nothing."""
    values: Values = None
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

    fraction: Fraction = None
    """From 0 to 1; None for unknown."""
    text: Text | None = None
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

    id: Identifier
    """Unique within its workflow. Any non-empty text."""
    workflow_id: Identifier
    """The workflow's name. Any non-empty text."""
    status: Annotated[RunStatus, BeforeValidator(_enum_value)]
    """Where the run stands."""
    trigger_type: _Trigger
    """What started it: a `TriggerType`, or another word. It equals its text."""
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
    attempt: Annotated[int, Field(ge=1, le=MAX_ATTEMPT), BeforeValidator(none_is(1))] = 1
    """Which try this is, from 1; a later attempt's state always beats an earlier one's."""
    pause: Annotated[PauseRequest | None, WrapValidator(as_pause)] = None
    """What it waits for, or last waited for; None if it never paused."""
    labels: Labels = Field(default_factory=dict)
    """What it is found by: at most `MAX_LABELS` keys with short texts."""
    parent: _Parent = None
    """The run that started this one; None for none."""
    trace_id: TraceId = None
    """The trace in which it began, as 32 hex digits; None for none."""
    error_type: ErrorType = None
    """The qualified name of the exception that failed it; None for none."""
    progress: Annotated[RunProgress | None, WrapValidator(as_progress)] = None
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
    if type(run) is not WorkflowRun and (further := further_fields(source, known=WorkflowRun.model_fields)):
        asked = {name: further.pop(name) for name in label_fields if name in further}
        if asked:
            copy.labels = {**cast("dict[str, str]", asked), **copy.labels}
        tell_of_fields(type_name(run), copy.key, further)
    return copy


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
