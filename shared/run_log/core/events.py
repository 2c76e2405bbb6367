"""Events: facts about one run at one moment, each with an identity, a version and the trace it came from."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Final, NamedTuple, Self, cast

from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    SpanContext,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from .clock import MAX_HLC, PROCESS_CLOCK, HybridLogicalClock, utc_now
from .errors import InvalidArgumentError, InvalidRunError
from .fields import UtcDatetime
from .ids import uuid7
from .models import MAX_ATTEMPT, RunKey, RunStatus, WorkflowRun, snapshot
from .steps import Step, joined_steps, step_from_record


class Version(NamedTuple):
    """What orders the events of one run. The order is total, and the same for every reader."""

    attempt: int
    """The run's attempt, from 1."""
    hlc: int
    """A reading of a hybrid logical clock, in microseconds since the epoch."""
    event_id: str
    """Breaks ties."""

    @property
    def text(self) -> str:
        """The version as one text: ``attempt:hlc:event_id``, which `from_text` reads."""
        return f"{self.attempt}:{self.hlc}:{self.event_id}"

    @classmethod
    def from_text(cls, text: str) -> Version:
        """Return the version that has this `text`: that of an event, or of a run stored without versions.

        Raises:
            InvalidArgumentError: No version has it.
        """
        match = _VERSION.fullmatch(text)
        if match is not None:
            version = cls(int(match[1]), int(match[2]), match[3])
            if version.attempt <= MAX_ATTEMPT and version.hlc < MAX_HLC:
                return version
        if text == UNVERSIONED.text:
            return UNVERSIONED
        raise InvalidArgumentError(f"{text!r:.200} is no version; pass its text, attempt:hlc:event_id")

    @property
    def successor(self) -> Version:
        """The version just after this one. No event of another moment comes between the two."""
        longer = f"{self.event_id}{_INFERRED_SUFFIX}"
        if _EVENT_ID.fullmatch(longer):
            return self._replace(event_id=longer)
        # The id cannot get longer. The next microsecond is left: an event of that one comes before this
        # version only if its id sorts before every UUID.
        digest = hashlib.sha256(self.event_id.encode(errors="surrogatepass")).hexdigest()
        return self._replace(hlc=self.hlc + 1, event_id=f"{2 * _INFERRED_SUFFIX}{digest}")


# The smallest character of an event id: no id sorts between another id and that id with this suffix.
_INFERRED_SUFFIX = "!"

_EVENT_ID: Final = re.compile(r"[!-~]{1,128}")
# As `Version.text` writes them: a number has one form.
_VERSION: Final = re.compile(rf"([1-9][0-9]{{0,9}}):(0|[1-9][0-9]{{0,18}}):({_EVENT_ID.pattern})")

UNVERSIONED: Final = Version(1, 0, "")
"""The version of a stored run that something wrote which knew no versions. Every event is newer."""

EventId = Annotated[str, StringConstraints(pattern=f"^{_EVENT_ID.pattern}$")]
"""Printable ASCII: a UUIDv7 where this library makes it."""


def _as_steps(steps: object) -> tuple[Step, ...]:
    """Return what of *steps* are steps: as objects, or as JSON has them. What is none is left out."""
    if steps is None or not isinstance(steps, list | tuple):
        return ()
    kept: list[Step] = []
    for step in cast("Sequence[object]", steps):
        # A run is worth more than a step of another program that cannot be read.
        with contextlib.suppress(ValueError):
            kept.append(step if isinstance(step, Step) else step_from_record(step))
    return joined_steps(kept)


def _copied(run: object) -> object:
    # Somebody else may change a run. The fields of one, in a dict, were made for the event.
    return cast("object", run) if isinstance(run, dict) else snapshot(run)


class RunEvent(BaseModel):
    """The full state of one run at one moment. Immutable: a fact does not change.

    ``RunEvent(run=run)`` states that *run* is in this state now. It has a new identity. Its version is later
    than every version that this process has made, or has observed less than `MAX_AHEAD` ahead of its clock.
    That of `from_run` is also later than everything that was observed of the run.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True)

    event_id: EventId = Field(default_factory=uuid7)
    """Identity: two messages with the same one are the same event, delivered twice."""
    hlc: Annotated[int, Field(ge=0, lt=MAX_HLC)] = Field(default_factory=PROCESS_CLOCK.tick)
    """When, on the hybrid logical clock, in microseconds since the epoch; with the attempt it orders."""
    occurred_at: UtcDatetime = Field(default_factory=utc_now)
    """When, on the emitter's wall clock; for people, never for order."""
    inferred: bool = False
    """Whether nobody said so: concluded from silence (a run found dead). Any real event beats it."""
    run: Annotated[WorkflowRun, BeforeValidator(_copied)]
    """The run as it stood: a copy."""
    is_progress: bool = False
    """Whether it only says that a running run is alive, how far it is, and what its steps are. Then it is no
    transition of the history."""
    steps: Annotated[tuple[Step, ...], BeforeValidator(_as_steps)] = ()
    """The run's steps that the emitting process knows, each in its newest state."""
    traceparent: str | None = Field(default=None, exclude=True)
    """W3C trace context of the span that emitted the event; travels beside the body, never in it."""
    tracestate: str | None = Field(default=None, exclude=True)
    """W3C vendor trace state that belongs to `traceparent`."""

    @classmethod
    def from_run(
        cls,
        run: object,
        *,
        clock: HybridLogicalClock = PROCESS_CLOCK,
        new_id: Callable[[], str] = uuid7,
        now: Callable[[], datetime] = utc_now,
        inferred: bool = False,
        trace: tuple[str | None, str | None] = (None, None),
        label_fields: Sequence[str] = (),
    ) -> Self:
        """Return the event that *run* is in this state now. The event has a copy of the run.

        Args:
            run: A `WorkflowRun`, any object with its fields, or a mapping of them.
            clock: Stamps the event.
            new_id: Makes the event's identity.
            now: The wall clock that people see.
            inferred: Whether the state was concluded rather than observed.
            trace: W3C ``traceparent`` and ``tracestate`` of the emitting span.
            label_fields: Fields of somebody else's run that become labels.

        Raises:
            InvalidRunError: *run* does not have a run's fields; the message names each field at fault.
            WriteRefusedError: No version comes after what was observed of the run.
        """
        copy = snapshot(run, label_fields=label_fields)
        try:
            return cls(
                event_id=new_id(),
                hlc=clock.tick(copy.key),
                occurred_at=now(),
                inferred=inferred,
                # As a dict, which `_copied` does not copy once more: every emit pays for it.
                run=cast("WorkflowRun", dict(copy)),
                traceparent=trace[0],
                tracestate=trace[1],
            )
        except ValidationError as error:
            raise InvalidRunError(f"run {copy.id!r} cannot become an event: {error}") from error

    def infer(self, run: object, *, now: Callable[[], datetime] = utc_now) -> Self:
        """Return the event that *run* is in this state, inferred because nothing followed this event.

        Its version comes just after this event's. So every real event that follows this one beats it, and
        two observers who infer the same state make the same event.

        Raises:
            InvalidRunError: *run* is not a run, or not the run and attempt of this event.
        """
        concluded = snapshot(run)
        if (concluded.key, concluded.attempt) != (self.run.key, self.run.attempt):
            raise InvalidRunError(
                f"{concluded.key} attempt {concluded.attempt} cannot be inferred from {self.run.key} "
                f"attempt {self.run.attempt}: it must be the same run and attempt"
            )
        successor = self.version.successor
        try:
            return type(self)(
                event_id=successor.event_id,
                hlc=successor.hlc,
                occurred_at=now(),
                inferred=True,
                run=concluded,
            )
        except ValidationError as error:
            raise InvalidRunError(f"nothing more can be inferred about {concluded.key}: {error}") from error

    def later_than(self, version: Version, *, clock: HybridLogicalClock = PROCESS_CLOCK) -> Self:
        """Return this event with a version after *version*, the stored one; itself if it has one.

        An event of an earlier attempt than *version* is returned as it is: no stamp makes it later. *clock*
        stamps the event. It observes *version* first.

        Raises:
            WriteRefusedError: No version comes after *version*.
        """
        if self.version > version or self.run.attempt < version.attempt:
            return self
        clock.observe(version.hlc, self.key)
        # The clock may have been past *version* already, but the event was stamped before that.
        return self.model_copy(update={"hlc": clock.tick(self.key)})

    @property
    def key(self) -> RunKey:
        """The identity of the run that this event is about."""
        return self.run.key

    @property
    def status(self) -> RunStatus:
        """The status the event states."""
        return self.run.status

    @property
    def is_transition(self) -> bool:
        """Whether the event belongs to the history. One that ends or pauses a run always does."""
        return not (self.is_progress and self.status is RunStatus.RUNNING)

    @property
    def version(self) -> Version:
        """The event's position in the total order of its run's events."""
        return Version(self.run.attempt, self.hlc, self.event_id)


_PROPAGATOR: Final = TraceContextTextMapPropagator()


def current_span_context() -> SpanContext | None:
    """Return the context of the current span, which is immutable; None outside of any span."""
    span = get_current_span()
    if span is INVALID_SPAN:
        return None
    context = span.get_span_context()
    return context if context.is_valid else None


def trace_headers(context: SpanContext | None) -> tuple[str | None, str | None]:
    """Return the W3C ``traceparent`` and ``tracestate`` of *context*; (None, None) for None."""
    if context is None:
        return None, None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(NonRecordingSpan(context)))
    return carrier.get("traceparent"), carrier.get("tracestate")


def current_trace() -> tuple[str | None, str | None]:
    """Return ``traceparent`` and ``tracestate`` of the current span; (None, None) outside of any span."""
    return trace_headers(current_span_context())


def span_link(traceparent: str | None, tracestate: str | None) -> Link | None:
    """Return a link to the span that *traceparent* names, whatever it is; None if it names none."""
    carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
    context = get_current_span(_PROPAGATOR.extract(carrier)).get_span_context()
    return Link(context) if context.is_valid else None
