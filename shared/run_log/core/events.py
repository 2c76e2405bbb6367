"""Events: facts about one run at one moment, each with an identity and a version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, NamedTuple, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from .clock import MAX_HLC, PROCESS_CLOCK, HybridLogicalClock, utc_now
from .errors import InvalidRunError
from .ids import uuid7
from .models import RunKey, RunStatus, UtcDatetime, WorkflowRun, snapshot


class Version(NamedTuple):
    """What orders the events of one run: totally, and alike for everybody."""

    attempt: int
    """The run's attempt, from 1."""
    hlc: int
    """A reading of a hybrid logical clock, in microseconds since the epoch."""
    event_id: str
    """Breaks ties."""

    @property
    def successor(self) -> Version:
        """The version just after this one: no event of another moment lies between the two.

        Where the id has no room for more, only what was stamped a microsecond later could lie there, and only
        under an id that no UUID is.
        """
        longer = f"{self.event_id}{_INFERRED_SUFFIX}"
        if _EVENT_ID.fullmatch(longer):
            return self._replace(event_id=longer)
        digest = hashlib.sha256(self.event_id.encode(errors="surrogatepass")).hexdigest()
        return self._replace(hlc=self.hlc + 1, event_id=f"{2 * _INFERRED_SUFFIX}{digest}")


# The smallest printable character: nothing but this suffix sorts between an id and the id with it.
_INFERRED_SUFFIX = "!"

_EVENT_ID: Final = re.compile(r"[!-~]{1,128}")

EventId = Annotated[str, StringConstraints(pattern=f"^{_EVENT_ID.pattern}$")]
"""Printable ASCII: a UUIDv7 where this library makes it."""


def _copied(run: object) -> object:
    """Copy an object that somebody else holds; the fields of one, as the wire gives them, are nobody's."""
    return cast("object", run) if isinstance(run, dict) else snapshot(run)


class RunEvent(BaseModel):
    """The full state of one run at one moment. Immutable: a fact does not change.

    ``RunEvent(run=run)`` states that *run* is so now: it gets a new identity, and a version later than every
    one this process has made, or observed less than `MAX_AHEAD` ahead of its clock. `from_run` gives one that
    is later than whatever was observed of the run.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True, use_attribute_docstrings=True)

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
    ) -> Self:
        """Return the event that *run* is in this state now. The run is copied, not kept.

        Args:
            run: A `WorkflowRun`, any object with its fields, or a mapping of them.
            clock: Stamps the event.
            new_id: Makes the event's identity.
            now: The wall clock, for people.
            inferred: Whether the state was concluded rather than observed.
            trace: W3C ``traceparent`` and ``tracestate`` of the emitting span.

        Raises:
            InvalidRunError: *run* does not have a run's fields; the message names each at fault.
            WriteRefusedError: See `HybridLogicalClock.tick`.
        """
        copy = snapshot(run)
        try:
            return cls(
                event_id=new_id(),
                hlc=clock.tick(copy.key),
                occurred_at=now(),
                inferred=inferred,
                run=cast("WorkflowRun", dict(copy)),
                traceparent=trace[0],
                tracestate=trace[1],
            )
        except ValidationError as error:
            raise InvalidRunError(f"run {copy.id!r} cannot become an event: {error}") from error

    def infer(self, run: object, *, now: Callable[[], datetime] = utc_now) -> Self:
        """Return the event that *run* was concluded from this one's silence.

        Its version lies just after this event's, so any real event that comes after this one beats it,
        and two observers who conclude the same make the same event.

        Args:
            run: The state concluded; its attempt stays this event's.
            now: The wall clock, for people.

        Raises:
            InvalidRunError: *run* is not a run, or another run than this event's.
        """
        concluded = snapshot(run)
        if (concluded.key, concluded.attempt) != (self.run.key, self.run.attempt):
            raise InvalidRunError(
                f"{concluded.key} attempt {concluded.attempt} cannot be inferred from {self.run.key} "
                f"attempt {self.run.attempt}: it has to be the same run and attempt"
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
            raise InvalidRunError(f"nothing more can be inferred of {concluded.key}: {error}") from error

    def later_than(self, version: Version, *, clock: HybridLogicalClock = PROCESS_CLOCK) -> Self:
        """Return this event, stamped after *version* where it was not already.

        Args:
            version: Of what is stored of its run. Within a later attempt than this event's, nothing can be
                later.
            clock: Stamps the event; it follows *version* as it does what is read.

        Raises:
            WriteRefusedError: Nothing lies past *version*.
        """
        if self.version > version or self.run.attempt < version.attempt:
            return self
        clock.observe(version.hlc, self.key)
        # It may be that the clock has been there, and the event not.
        return self.model_copy(update={"hlc": clock.tick(self.key)})

    @property
    def key(self) -> RunKey:
        """The identity of the run this event is about."""
        return self.run.key

    @property
    def status(self) -> RunStatus:
        """The status the event states."""
        return self.run.status

    @property
    def version(self) -> Version:
        """The event's place in the total order of its run's events."""
        return Version(self.run.attempt, self.hlc, self.event_id)
