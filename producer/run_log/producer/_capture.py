"""What is kept of a run when it is emitted: a copy that its owner can no longer change."""

from __future__ import annotations

import marshal
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from sys import getsizeof
from typing import Any, ClassVar, Final, NamedTuple, Self, cast

from opentelemetry.trace import SpanContext

from run_log.core import (
    InvalidRunError,
    Message,
    PauseRequest,
    RunEvent,
    RunProgress,
    RunRef,
    RunStatus,
    WorkflowRun,
    encode_event,
)
from run_log.core.clock import MAX_HLC
from run_log.core.events import current_span_context, trace_headers
from run_log.core.fields import count_cut
from run_log.core.ids import MAX_ID_BYTES
from run_log.core.models import RunKey, fit_run, trigger_of
from run_log.core.nearest import type_name
from run_log.core.payload import decode_json, encode_json
from run_log.core.steps import MAX_STEPS_BYTES, Step, fitted, joined_steps
from run_log.core.wire import message_bytes

from ._failure import text_of
from ._payloads import copied_payloads
from ._redaction import Redaction
from ._triggers import recordable

MAX_CAUSE: Final = 2_000
"""Most characters that are kept of why something is no run."""

ENTRY_BYTES: Final = 700
"""What an event takes in the buffer besides its payloads and texts, in bytes, as measured in CPython 3.11."""

_LEFT: Final = frozenset({RunStatus.PAUSED, RunStatus.FAILED, RunStatus.CANCELLED})

MAX_LEFT: Final = 100
"""The most unfinished runs that an emitter remembers."""

MAX_LEFT_BYTES: Final = 16 * 2**20
"""The most bytes of their payloads."""

_PAUSE_BYTES: Final = 600
_STEP_BYTES: Final = 700
_OBJECTS: Final = ("form", "values")
_TEXT_BYTES: Final = getsizeof("")
_BYTES_WITHOUT_IDS: Final = ENTRY_BYTES - 2 * _TEXT_BYTES

TraceContext = SpanContext | tuple[str | None, str | None] | None


class Captured(NamedTuple):
    """A run as it stood at one moment, and the data of the event."""

    id: str
    workflow_id: str
    status: str
    trigger_type: str
    error: str | None
    started_at: datetime
    completed_at: datetime | None
    duration_ms: float
    attempt: int
    trace_id: str | None
    error_type: str | None
    parent: RunRef | None
    progress: RunProgress | None
    pause: PauseRequest | None
    labels: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    is_progress: bool
    event_id: str
    hlc: int
    occurred_at: datetime
    inferred: bool
    is_valid: bool
    """Whether the run was validated before it was captured, and so need not be again."""
    payloads: bytes
    """Trigger data and result, as `marshal` has them."""
    cut: int
    """How many values were cut before they were copied."""
    trace: TraceContext


_FIELDS: Final = Captured._fields[: Captured._fields.index("labels")]


# The fields of a `Captured` from its event id to whether it is valid.
_Identity = tuple[str, int, datetime, bool, bool]

# Its steps, and whether it only says how far it is.
_More = tuple[tuple[Step, ...], bool]
_NOTHING_MORE: Final[_More] = ((), False)

Content = tuple[Any, ...]
"""A `Captured` as a plain tuple."""


class Entry:
    """One event on its way.

    Attributes:
        key: Its run.
        version: Its order among the run's events: a `Version`, as a plain tuple.
        size: About how many bytes it takes.
        number: Its number among the emitter's events, from 1; 0 until the buffer has it.
        content: What was captured, until it is encoded: a `Captured`, as a plain tuple.
        message: What is published, once it is encoded.
    """

    __slots__ = ("content", "key", "message", "number", "size", "version")

    def __init__(
        self, key: RunKey, version: tuple[int, int, str], size: int, content: Content | None
    ) -> None:
        self.key = key
        self.version = version
        self.size = size
        self.number = 0
        self.content = content
        self.message: Message | None = None

    def encode(self, encoder: Callable[[Content], Message]) -> Message:
        """Return the event's message. The first call has *encoder* make it."""
        # Two threads may come here at once when the emitter is closed. Both make the same message.
        content = self.content
        if content is not None:
            self.set_message(encoder(content))
        return cast("Message", self.message)

    def set_message(self, message: Message) -> None:
        self.message, self.size = message, message_bytes(message)
        self.content = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Takes the place of something that was emitted and is no run."""

    type_name: str
    error: str
    size: ClassVar[int] = 0

    @classmethod
    def of(cls, run: object, error: BaseException) -> Self:
        return cls(type_name(run), text_of(error)[:MAX_CAUSE] or type_name(error))


class Checked:
    """A run that was validated just now and that nobody else holds. It is not validated again.

    Attributes:
        run: The run.
        steps: Its steps, as far as this process knows them.
        hlc: The reading of the clock by which the run only says how far it is; None for a transition.
        payloads: Its payloads as they were copied, and how many values were cut; None until they are.
    """

    __slots__ = ("hlc", "payloads", "run", "steps")

    def __init__(
        self,
        run: WorkflowRun,
        steps: tuple[Step, ...] = (),
        hlc: int | None = None,
        payloads: tuple[bytes, int] | None = None,
    ) -> None:
        self.run = run
        self.steps = steps
        self.hlc = hlc
        self.payloads = payloads


class LeftRuns:
    """What was stated last of the runs that blocks left unfinished. Their projection may be behind."""

    def __init__(self) -> None:
        # Single operations of a dict are atomic, so it needs no lock.
        self._left: dict[RunKey, tuple[WorkflowRun, bytes, int]] = {}

    def note(self, stated: Checked | None, after: int) -> None:
        """Remember what was *stated* later than the reading *after* of the clock; forget what is done."""
        if stated is None:
            return
        key = stated.run.key
        self._left.pop(key, None)
        if stated.payloads is None or stated.run.status not in _LEFT:
            return
        # Without the workflow's own objects, which may be much larger than what is kept of them.
        run = stated.run.model_copy(update={"trigger_data": {}, "result": {}})
        self._left[key] = run, stated.payloads[0], after
        while len(self._left) > MAX_LEFT or self._bytes() > MAX_LEFT_BYTES:
            self._left.pop(next(iter(self._left)), None)

    def _bytes(self) -> int:
        return sum(len(payloads) for _, payloads, _ in list(self._left.values()))

    def event(self, key: RunKey) -> RunEvent | None:
        """Return what was stated last of a run. Its version is after those stated before, and not later."""
        if key not in self._left:
            return None
        run, payloads, after = self._left[key]
        trigger_data, result = marshal.loads(payloads)  # noqa: S302 - this process wrote it
        whole = run.model_copy(update={"trigger_data": trigger_data, "result": result})
        return RunEvent.model_construct(event_id="~", hlc=after, occurred_at=run.started_at, run=whole)


_fields_of_any: Final[Callable[[WorkflowRun], tuple[Any, ...]]] = attrgetter(
    *(f"{name}._value_" if name == "status" else name for name in _FIELDS)
)
# Most trigger types are members, and a member in a tuple would keep the garbage collector following it.
_fields_of_known: Final[Callable[[WorkflowRun], tuple[Any, ...]]] = attrgetter(
    *(f"{name}._value_" if name in {"status", "trigger_type"} else name for name in _FIELDS)
)
_EVENT_ID: Final = re.compile(r"[!-~]{1,128}")


class Capture:
    """Makes the entry of whatever is emitted.

    The caller pays for reading the fields and for one `marshal` copy of the payloads. That copy is exact,
    runs no foreign code and is the cheapest there is. Validation, redaction and encoding are left to the
    delivery thread.
    """

    def __init__(
        self,
        *,
        tick: Callable[[RunKey], int],
        new_id: Callable[[], str],
        label_fields: Sequence[str] = (),
    ) -> None:
        self._tick = tick
        self._new_id = new_id
        self._label_fields = label_fields

    def __call__(self, run: object) -> Entry:
        """Return the entry for *run*. It shares nothing with *run* that can change.

        Raises:
            InvalidRunError: It is none of these.
            WriteRefusedError: Nothing can be later than what was read of the run.
        """
        is_valid = False
        if type(run) is not WorkflowRun:
            if isinstance(run, RunEvent):
                _check(run)
                return _entry(
                    run.run,
                    (run.event_id, run.hlc, run.occurred_at, run.inferred, False),
                    (run.traceparent, run.tracestate),
                    (run.steps, run.is_progress),
                )
            if type(run) is Checked:
                return self._of_checked(run)
            run = recordable(run, self._label_fields)
            is_valid = True
        try:
            key = (run.workflow_id, run.id)
        except AttributeError:  # made without validation
            run = recordable(run)
            key = run.key
        hlc = self._tick(key)
        identity = (self._new_id(), hlc, datetime.now(UTC), False, is_valid)
        return _entry(run, identity, current_span_context(), _NOTHING_MORE)

    def _of_checked(self, checked: Checked) -> Entry:
        if checked.payloads is None:
            checked.payloads = copied_payloads(checked.run)
        is_progress = checked.hlc is not None
        hlc = self._tick(checked.run.key) if checked.hlc is None else checked.hlc
        identity = (self._new_id(), hlc, datetime.now(UTC), False, True)
        trace = None if is_progress else current_span_context()
        return _entry(checked.run, identity, trace, (checked.steps, is_progress), checked.payloads)


def _check(event: RunEvent) -> None:
    """Refuse an event that was made without validation and has no order, or that no reader would take."""
    hlc, event_id = event.hlc, event.event_id
    if type(hlc) is not int or not 0 <= hlc < MAX_HLC:
        raise InvalidRunError(f"an event's hlc is an integer from 0 to 2**62, not {hlc!r:.100}")
    if type(event_id) is not str or not _EVENT_ID.fullmatch(event_id):
        raise InvalidRunError(
            f"an event's id is printable ASCII of up to 128 characters, not {event_id!r:.100}"
        )


def _entry(
    run: WorkflowRun,
    identity: _Identity,
    trace: TraceContext,
    more: _More,
    copied: tuple[bytes, int] | None = None,
) -> Entry:
    try:
        fields, labels = _fields(run), run.labels
    except AttributeError:  # made without validation, with a text where a status belongs
        return _entry(recordable(run), identity, trace, more)
    run_id, workflow_id, _, trigger, error, _, _, _, attempt, _, _, _, progress, pause = fields
    is_plain = type(run_id) is str and type(workflow_id) is str and type(attempt) is int
    is_plain = is_plain and type(trigger) is str and type(labels) is dict
    is_plain = is_plain and (error is None or type(error) is str)
    is_plain = is_plain and (pause is None or type(getattr(pause, "choices", None)) is tuple)
    if not is_plain or len(run_id) > MAX_ID_BYTES or len(workflow_id) > MAX_ID_BYTES:
        # The buffer needs these fields. The others are checked when the entry is encoded.
        return _entry(recordable(run), identity, trace, more)
    payloads, cut = copied_payloads(run) if copied is None else copied
    # Not by `_bytes`, which costs a twentieth of an emit.
    size = _BYTES_WITHOUT_IDS + len(payloads) + getsizeof(workflow_id) + getsizeof(run_id)
    if error is not None:
        size += getsizeof(error) - _TEXT_BYTES
    if labels:
        size += _bytes(*labels, *labels.values())
    if progress is not None:
        fields = (*fields[:-2], progress.model_copy(), pause)
        size += _PAUSE_BYTES
    if pause is not None:
        pause, offered = _copied(pause)
        fields = (*fields[:-1], pause)
        size += _PAUSE_BYTES + _bytes(pause.reason, pause.assignee, pause.answered_by, pause.comment)
        size += offered
    if more[0]:
        size += _STEP_BYTES * len(more[0])
    if type(trace) is tuple:
        size += _bytes(*trace)
    event_id, hlc, _, _, _ = identity
    # Plain tuples of plain values: the garbage collector stops following those, so that what waits through
    # an outage does not cost the workflow long collections.
    content = (*fields, tuple(labels.items()) if labels else (), *more, *identity, payloads, cut, trace)
    return Entry((workflow_id, run_id), (attempt, hlc, event_id), size, content)


def _copied(pause: PauseRequest) -> tuple[PauseRequest, int]:
    """Return a copy of *pause*, and how many bytes take what it offers and what was chosen of that."""
    texts = {name: encode_json(value) for name in _OBJECTS if (value := getattr(pause, name)) is not None}
    size = _bytes(*pause.choices, pause.default_choice, pause.choice, *texts.values())
    return pause.model_copy(update={name: decode_json(text) for name, text in texts.items()}), size


def _bytes(*texts: str | None) -> int:
    """Return how many bytes *texts* take in memory, which is more than their length unless they are ASCII."""
    return sum([getsizeof(text) - _TEXT_BYTES for text in texts if text is not None])


def encode(content: Content, redaction: Redaction) -> Message:
    """Return the message of *content*: validated, redacted, and cut to what a document holds.

    Raises:
        InvalidRunError: The run was made without validation, and a field is wrong.
    """
    captured = Captured._make(content)
    count_cut(captured.workflow_id, captured.id, captured.cut)
    run = _run_of(captured)
    redaction.apply_to_run(run)
    run = fit_run(run, beside=MAX_STEPS_BYTES if captured.steps else 0)
    trace = captured.trace
    headers = trace_headers(trace) if trace is None or isinstance(trace, SpanContext) else trace
    return encode_event(
        RunEvent.model_construct(
            event_id=captured.event_id,
            hlc=captured.hlc,
            occurred_at=captured.occurred_at,
            inferred=captured.inferred,
            run=run,
            steps=joined_steps([_redacted(step, redaction) for step in captured.steps]),
            is_progress=captured.is_progress,
            traceparent=headers[0],
            tracestate=headers[1],
        )
    )


def _run_of(captured: Captured) -> WorkflowRun:
    trigger_data, result = marshal.loads(captured.payloads)  # noqa: S302 - this process wrote it
    fields: dict[str, Any] = dict(zip(_FIELDS, captured, strict=False))
    fields |= {"trigger_data": trigger_data, "result": result, "labels": dict(captured.labels)}
    if not captured.is_valid:
        return recordable(fields)
    fields |= {"status": RunStatus(captured.status), "trigger_type": trigger_of(captured.trigger_type)}
    return WorkflowRun.model_construct(**fields)


def _redacted(step: Step, redaction: Redaction) -> Step:
    attributes = dict(step.attributes)
    redaction.apply(attributes)
    error = step.error and redaction.text(step.error)
    return fitted(replace(step, name=redaction.text(step.name), error=error, attributes=attributes))


def _fields(run: WorkflowRun) -> tuple[Any, ...]:
    try:
        return _fields_of_known(run)
    except AttributeError:  # the trigger type is a word of the workflow's own
        return _fields_of_any(run)
