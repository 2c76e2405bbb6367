"""What is kept of a run when it is emitted: little, at once, and nothing its owner can still change."""

from __future__ import annotations

import contextlib
import enum
import marshal
import re
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
from sys import getsizeof
from typing import Any, Final, NamedTuple, cast

from opentelemetry.trace import SpanContext

from run_log.core import (
    InvalidRunError,
    Message,
    PauseRequest,
    RunEvent,
    TriggerType,
    WorkflowRun,
    encode_event,
)
from run_log.core.clock import MAX_HLC
from run_log.core.ids import MAX_ID_BYTES
from run_log.core.logs import get_logger
from run_log.core.models import RunKey, count_cut, fit_run, validated
from run_log.core.nearest import CUT_MARKER, MAX_PAYLOAD_BYTES, Contained, is_foreign
from run_log.core.payload import detached
from run_log.core.trace import current_span_context, trace_headers

from ._redaction import Redaction

MAX_CAPTURED_BYTES: Final = 5 * MAX_PAYLOAD_BYTES // 2
"""Most bytes of a run's payloads that are copied whole. JSON takes at least two bytes a value and marshal
five at most, so what is larger would be cut in any case."""

MAX_CUT_KEYS: Final = 10_000
"""Most outer keys of payloads too large whose values are measured one by one."""

MAX_CONTAINERS: Final = 50_000
"""Most lists and objects of payloads that are looked at before they are copied exactly."""

MAX_WORDS: Final = 100
"""Different words that a process tells of: whoever puts ids into them is told often enough."""

MAX_WORD_LENGTH: Final = 200
"""Characters of such a word that are told."""

_logger: Final = get_logger("run_log.producer")
_KNOWN: Final = frozenset(map(str, TriggerType))
_words: Final[set[str]] = set()
_untold: Final[deque[str]] = deque()

_PAUSE_BYTES: Final = 600
_TEXT_BYTES: Final = getsizeof("")

ENTRY_BYTES: Final = 700
"""What an event in the buffer takes besides its payloads and texts, in bytes: measured, CPython 3.11."""


TraceContext = SpanContext | tuple[str | None, str | None] | None


class Captured(NamedTuple):
    """A run as it stood at one moment, and the event's own data."""

    id: str
    workflow_id: str
    status: str
    trigger_type: str
    error: str | None
    started_at: datetime
    completed_at: datetime | None
    duration_ms: float
    attempt: int
    pause: PauseRequest | None
    event_id: str
    hlc: int
    occurred_at: datetime
    inferred: bool
    payloads: bytes
    """Trigger data and result, as `marshal` has them."""
    cut: int
    """Values that were cut before they were copied."""
    trace: TraceContext

    @property
    def fields(self) -> dict[str, Any]:
        """The run's fields, without its payloads."""
        return dict(zip(_FIELDS, self, strict=False))


_FIELDS: Final = Captured._fields[: Captured._fields.index("event_id")]


Content = tuple[Any, ...]
"""A `Captured` as a plain tuple."""


class Entry:
    """One event on its way.

    Attributes:
        key: Its run.
        version: Its place among the run's events: a `Version`, as a plain tuple.
        size: Bytes it takes, about.
        number: Counts the emitter's events from 1; 0 until the buffer has it.
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
        """Return the message that states the event, made by *encoder* the first time.

        Raises:
            Exception: Whatever *encoder* raises.
        """
        # Two threads may come here at once, when the emitter is closed: both make the same message.
        content = self.content
        if content is not None:
            self.set_message(encoder(content))
        return cast("Message", self.message)

    def set_message(self, message: Message) -> None:
        """Have *message* state the event."""
        self.message, self.size = message, message_bytes(message)
        self.content = None


_fields: Final[Callable[[WorkflowRun], tuple[Any, ...]]] = attrgetter(
    *(f"{name}._value_" if name in {"status", "trigger_type"} else name for name in _FIELDS)
)
_CONTAINERS: Final = frozenset({dict, list, tuple})
_PLAIN: Final = frozenset({str, int, float, bool, type(None), bytes})
_EVENT_ID: Final = re.compile(r"[!-~]{1,128}")
_EMPTY: Final = marshal.dumps(({}, {}))


class Capture:
    """Makes the entry of whatever is emitted.

    The caller pays for reading the fields and for one `marshal` copy of the payloads, which is exact,
    runs no foreign code and costs less than any other. Validation, redaction and encoding wait for the
    delivery thread.

    Args:
        tick: The next reading of a hybrid logical clock for a run, in microseconds since the epoch.
        new_id: Makes events' identities.
    """

    def __init__(self, *, tick: Callable[[RunKey], int], new_id: Callable[[], str]) -> None:
        self._tick = tick
        self._new_id = new_id

    def __call__(self, run: object) -> Entry:
        """Return the entry for *run*, which shares nothing with it that can change.

        Args:
            run: A `WorkflowRun`, any object with its fields, a mapping of them, or a `RunEvent`.

        Raises:
            InvalidRunError: It is none of these.
            WriteRefusedError: Nothing can be later than what was read of the run.
        """
        if type(run) is not WorkflowRun:
            if isinstance(run, RunEvent):
                _check(run)
                return _entry(
                    run.run,
                    (run.event_id, run.hlc, run.occurred_at, run.inferred),
                    (run.traceparent, run.tracestate),
                )
            run = recordable(run)
        try:
            key = (run.workflow_id, run.id)
        except AttributeError:  # made without validation
            run = recordable(run)
            key = run.key
        hlc = self._tick(key)
        return _entry(run, (self._new_id(), hlc, datetime.now(UTC), False), current_span_context())


def _check(event: RunEvent) -> None:
    """Refuse an event made without validation that could not be ordered, or that no reader would take."""
    hlc, event_id = event.hlc, event.event_id
    if type(hlc) is not int or not 0 <= hlc < MAX_HLC:
        raise InvalidRunError(f"an event's hlc is an integer from 0 to 2**62, not {hlc!r:.100}")
    if type(event_id) is not str or not _EVENT_ID.fullmatch(event_id):
        raise InvalidRunError(
            f"an event's id is printable ASCII of up to 128 characters, not {event_id!r:.100}"
        )


def _entry(run: WorkflowRun, identity: tuple[str, int, datetime, bool], trace: TraceContext) -> Entry:
    try:
        fields = _fields(run)
    except AttributeError:  # made without validation, with a text where a status belongs
        return _entry(recordable(run), identity, trace)
    run_id, workflow_id, _, _, error, _, _, _, attempt, pause = fields
    is_plain = type(run_id) is str and type(workflow_id) is str and type(attempt) is int
    is_plain = is_plain and (error is None or type(error) is str)
    if not is_plain or len(run_id) > MAX_ID_BYTES or len(workflow_id) > MAX_ID_BYTES:
        # The buffer needs these to place it; the rest is checked when it is encoded.
        return _entry(recordable(run), identity, trace)
    payloads, cut = _payloads(run)
    size = ENTRY_BYTES + len(payloads) + _bytes(workflow_id, run_id, error)
    if pause is not None:
        fields = (*fields[:-1], pause.model_copy())
        size += _PAUSE_BYTES + _bytes(pause.reason, pause.assignee, pause.answered_by, pause.comment)
    if type(trace) is tuple:
        size += _bytes(*trace)
    event_id, hlc, _, _ = identity
    # Plain tuples of plain values: the garbage collector stops following those, so that what waits through
    # an outage does not cost the workflow long collections.
    content = fields + identity + (payloads, cut, trace)
    return Entry((workflow_id, run_id), (attempt, hlc, event_id), size, content)


def _bytes(*texts: str | None) -> int:
    """Return how many bytes *texts* take in memory, which for any but ASCII is more than their length."""
    return sum([getsizeof(text) - _TEXT_BYTES for text in texts if text is not None])


def encode(content: Content, redaction: Redaction) -> Message:
    """Return the message that states *content*: validated, redacted, and cut to what a document holds.

    Raises:
        InvalidRunError: It was made without validation, and a field is wrong.
    """
    captured = Captured._make(content)
    count_cut(captured.workflow_id, captured.id, captured.cut)
    trigger_data, result = marshal.loads(captured.payloads)  # noqa: S302 - this process wrote it
    run = recordable({**captured.fields, "trigger_data": trigger_data, "result": result})
    redaction.apply(run.trigger_data)
    redaction.apply(run.result)
    _redact_texts(run, redaction)
    run = fit_run(run)
    trace = captured.trace
    headers = trace_headers(trace) if trace is None or isinstance(trace, SpanContext) else trace
    return encode_event(
        RunEvent.model_construct(
            event_id=captured.event_id,
            hlc=captured.hlc,
            occurred_at=captured.occurred_at,
            inferred=captured.inferred,
            run=run,
            traceparent=headers[0],
            tracestate=headers[1],
        )
    )


def _redact_texts(run: WorkflowRun, redaction: Redaction) -> None:
    # Each assignment validates the whole run.
    if run.error and (error := redaction.text(run.error)) != run.error:
        run.error = error
    if run.pause is not None:
        for name in ("reason", "comment"):
            said: str | None = getattr(run.pause, name)
            if said and (text := redaction.text(said)) != said:
                setattr(run.pause, name, text)


def _payloads(run: WorkflowRun) -> tuple[bytes, int]:
    """Return a copy of the payloads, and how many values of them were cut."""
    payloads: tuple[dict[str, Any], ...] = (run.trigger_data, run.result)
    cut = 0
    try:
        if payloads == ({}, {}):
            return _EMPTY, 0
        # marshal takes every buffer for bytes: arrays, memory views, numpy's numbers.
        captured = marshal.dumps(payloads) if _is_exact(payloads) else b""
    except BaseException as error:
        if not is_foreign(error):
            raise
        # Nested too deep; changed by another thread meanwhile; made without validation, of a number, say.
        captured = b""
    if not captured:
        payloads, cut = detached(*payloads)
        captured = marshal.dumps(payloads)
    if len(captured) <= MAX_CAPTURED_BYTES:
        return captured, cut
    payloads, more = _cut(payloads, len(captured))
    return marshal.dumps(payloads), cut + more


def _is_exact(payloads: tuple[object, ...]) -> bool:
    """Return whether *payloads* hold nothing but what marshal copies as what it is, under texts for keys."""
    ahead: list[Any] = [*payloads]
    # One that holds itself, or another over and over, has no end.
    for container in islice(ahead, MAX_CONTAINERS):
        values = container
        own: type[object] = type(container)  # pyright: ignore[reportUnknownVariableType]
        if own is dict:
            for key in container:
                if type(key) is not str:
                    return False
            values = container.values()
        for value in values:
            if type(value) not in _PLAIN:
                if type(value) not in _CONTAINERS:
                    return False
                ahead.append(value)
    return len(ahead) <= MAX_CONTAINERS


def _cut(payloads: tuple[dict[str, Any], ...], size: int) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return copies whose largest values are markers, so that what cannot be kept is not held either."""
    copies = tuple(dict(payload) for payload in payloads)
    if sum(map(len, copies)) <= MAX_CUT_KEYS:
        sizes = sorted(
            (
                (len(marshal.dumps(value)), index, key)
                for index, copy in enumerate(copies)
                for key, value in copy.items()
            ),
            reverse=True,
        )
        for cut, (taken, index, key) in enumerate(sizes, start=1):
            copies[index][key] = f"{CUT_MARKER}, about {taken} bytes"
            size -= taken
            if size <= MAX_CAPTURED_BYTES:
                return copies, cut
    # The keys alone are too much.
    markers = tuple({CUT_MARKER: f"{len(copy)} keys"} if copy else {} for copy in copies)
    return markers, sum(map(len, copies))


def message_bytes(message: Message) -> int:
    """Return about how many bytes *message* takes in a publish call: body, attributes and their frames."""
    return (
        len(message.data) + sum(len(name) + len(value) + 8 for name, value in message.attributes.items()) + 8
    )


class _Known:
    """Stands for *run*, whatever it is made of, with a trigger type that is known."""

    def __init__(self, run: object, trigger_type: object) -> None:
        self._run = run
        self.trigger_type = trigger_type

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


def known_trigger(trigger: object) -> object:
    """Return *trigger*; where it is a word that is none there is, ``manual``: see `tell_unknown`."""
    word: object = trigger
    with Contained():
        word = trigger.value if isinstance(trigger, enum.Enum) else trigger
    if not issubclass(type(word), str):
        return trigger
    # A class of the workflow's own may compare and hash as it likes.
    word = str.__str__(cast("str", word))
    if word in _KNOWN:
        return trigger if type(trigger) is str else TriggerType(word)
    told = word[:MAX_WORD_LENGTH]
    if told not in _words and len(_words) < MAX_WORDS:
        _words.add(told)
        _untold.append(told)
    return TriggerType.MANUAL


def recordable(run: object) -> WorkflowRun:
    """Return *run* as `validated` does; where its trigger type is a word that nobody knows, as ``manual``.

    Raises:
        InvalidRunError: A field is missing or wrong; the message names each.
    """
    try:
        return validated(run)
    except InvalidRunError:
        is_mapping = isinstance(run, Mapping)
        source: Any = dict(cast("Mapping[str, object]", run)) if is_mapping else run
        trigger = source.get("trigger_type") if is_mapping else getattr(source, "trigger_type", None)
        known = known_trigger(trigger)
        if known is not trigger:
            # Where that does not help, what is told is the run's own fault, not that of what stands for it.
            with contextlib.suppress(InvalidRunError):
                return validated({**source, "trigger_type": known} if is_mapping else _Known(source, known))
        raise


def tell_unknown() -> None:
    """Log the words that came up since the last time; not in `emit`, which no log handler is to hold up."""
    while _untold:
        word = _untold.popleft()
        _logger.warning(
            "run_log_unknown_trigger_type",
            trigger_type=word,
            recorded_as=TriggerType.MANUAL.value,
            known=", ".join(TriggerType),
        )
