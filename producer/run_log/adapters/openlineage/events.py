"""What an event of OpenLineage tells of a run. The rest of it is not looked at."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Final, Literal, cast

from pydantic import (
    AfterValidator,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, from_json

from run_log.core import DeadLetterReason, EventDecodeError, RunRef, RunStatus, Version
from run_log.core.clock import micros_of
from run_log.core.fields import LABEL_HINT, UtcDatetime, is_label
from run_log.core.ids import bounded_id, valid_text
from run_log.core.logs import get_logger
from run_log.core.models import RunKey, faults_of
from run_log.core.payload import decode_foreign_json, fit_text
from run_log.core.wire import MAX_STAMPED_AHEAD

# Of one moment, the later stage of a run's life is the later version: many clocks tick in seconds.
_STAGES: Final[Mapping[RunStatus, int]] = {
    RunStatus.RUNNING: 0,
    RunStatus.SUCCESS: 1,
    RunStatus.CANCELLED: 2,
    RunStatus.FAILED: 3,
}
STATUSES: Final[Mapping[str | None, RunStatus]] = {
    "START": RunStatus.RUNNING,
    "RUNNING": RunStatus.RUNNING,
    "COMPLETE": RunStatus.SUCCESS,
    "FAIL": RunStatus.FAILED,
    "ABORT": RunStatus.CANCELLED,
}

# The name of an exception before what it says, in Java's form and in Python's.
_ERROR_TYPE: Final = re.compile(
    r'(?:Exception in thread ".*?" )?'
    r"((?:[^\W\d][\w$]*\.)*[^\W\d][\w$]*(?:Error|Exception|Interrupt|Exit))(?::|\s*$)"
)
_NOT_IN_KEYS: Final = re.compile(r"[^a-z0-9_.-]+")

_MAX_WHAT: Final = 2_000
_MAX_TOLD: Final = 100

_logger: Final = get_logger("run_log.adapters")
# What this process has logged already, of which there would be a line for each event otherwise.
_told: Final[set[tuple[str, str]]] = set()


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one event tells of a run."""

    key: RunKey
    """The run's workflow and its id."""
    moment: datetime
    """When it occurred, in UTC."""
    status: RunStatus | None
    """What it states; None for no status."""
    is_progress: bool = False
    """Whether it only says that the run is still running."""
    error: str | None = None
    error_type: str | None = None
    labels: dict[str, str]
    parent: RunRef | None = None

    @cached_property
    def version(self) -> Version:
        """The version of the event. The same event has the same one, wherever it is received."""
        said = (self.status, self.is_progress, self.error, self.error_type, self.parent)
        content = [self.key, said, sorted(self.labels.items())]
        # Never another text: the ids of events that are stored were made from it.
        text = json.dumps(content, separators=(",", ":"))
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        stage = _STAGES[self.status or RunStatus.RUNNING]
        return Version(1, micros_of(self.moment), f"openlineage-{stage}-{digest}")


def parsed(body: bytes) -> Any:
    """Return the value of the JSON in *body*. Raises `EventDecodeError` if it is none."""
    try:
        try:
            return from_json(body)
        except ValueError:
            # It is too deep for that parser, or has lone surrogates, which file names may have.
            return decode_foreign_json(body.decode())
    except (ValueError, RecursionError) as error:
        what = f"the body is not JSON: {type(error).__name__}: {error}"
        raise _refused(DeadLetterReason.UNDECODABLE, what) from error


def told_by(value: object, now: datetime) -> Told | None:
    """Return what an event, as JSON has it, tells of a run; None for one of a job or a dataset alone.

    Raises:
        EventDecodeError: It is no event of OpenLineage, or occurred more than a day after *now*.
    """
    if not isinstance(value, dict):
        what = f"an event is an object, not a {type(value).__name__}"
        if isinstance(value, list):
            what += "; post a list of events to .../lineage/batch"
        raise _refused(DeadLetterReason.INVALID_EVENT, what)
    given = cast("dict[str, Any]", value)
    if given.get("run") is None and given.get("eventType") is None and _is_of_job_or_dataset(given):
        return None
    try:
        event = _Event.model_validate(given)
    except ValidationError as error:
        what = f"not an event of OpenLineage: {faults_of(error)}"
        raise _refused(DeadLetterReason.INVALID_EVENT, what) from error
    if event.event_time - now > MAX_STAMPED_AHEAD:
        what = f"eventTime is {event.event_time - now} ahead of the time here; correct the sender's clock"
        raise _refused(DeadLetterReason.CLOCK_AHEAD, what)
    return event.told()


def _is_of_job_or_dataset(event: Mapping[str, Any]) -> bool:
    # By its schema, it would be an event of a run that does not say which.
    is_of_run = str(event.get("schemaURL")).endswith("/RunEvent")
    return not is_of_run and any(isinstance(event.get(name), dict) for name in ("job", "dataset"))


def _refused(reason: DeadLetterReason, what: str) -> EventDecodeError:
    return EventDecodeError(fit_text(what, _MAX_WHAT), reason=reason.value)


def _is_new(what: str, name: str) -> bool:
    """Return whether *name* comes up for the first time in this process, and is to be logged."""
    if (what, name) in _told or len(_told) >= _MAX_TOLD:
        return False
    _told.add((what, name))
    return True


def _or_none(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Leave out a facet that cannot be read: of a later version, for example."""
    try:
        return None if value is None else handler(value)
    except ValidationError as error:
        facet = info.field_name or ""
        if _is_new("facet", facet):
            _logger.warning(
                "run_log_openlineage_facet_left_out", facet=facet, error=faults_of(error)[:_MAX_WHAT]
            )
        return None


def _as_moment(value: object) -> object:
    # pydantic's own parser refuses nanoseconds.
    if not isinstance(value, str) or "t" not in value.lower():
        return _no_moment(value)
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        return _no_moment(value)
    if moment.utcoffset() is None:
        # The examples of the official client make them so.
        if _is_new("zone", ""):
            hint = "the sender's local time may be another; have it send the zone"
            _logger.warning(
                "run_log_openlineage_no_zone", event_time=value[:_MAX_TOLD], taken_as="UTC", hint=hint
            )
        moment = moment.replace(tzinfo=UTC)
    return moment


def _no_moment(value: object) -> object:
    what = f"{value!r:.100} is no date and time by RFC 3339, such as 2026-01-31T12:00:00.000Z"
    raise PydanticCustomError("moment", "{what}", {"what": what})


def _since_epoch(moment: datetime) -> datetime:
    if micros_of(moment) < 0:
        raise PydanticCustomError("moment", "the run log has no times before 1970")
    return moment


class _Part(BaseModel):
    """A part of an event, of which only these fields are read."""

    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=to_camel))


_Name = Annotated[str, Field(min_length=1)]


class _Tag(_Part):
    key: _Name
    value: str | bool | int | float = ""


class _Tags(_Part):
    tags: list[Annotated[_Tag | None, WrapValidator(_or_none)]] = []


class _Engine(_Part):
    name: _Name | None = None
    version: _Name | None = None


class _Failure(_Part):
    message: str
    stack_trace: str | None = None

    @property
    def text(self) -> str:
        """What failed, and below it where."""
        return "\n".join(filter(None, (self.message, self.stack_trace)))

    @property
    def error_type(self) -> str | None:
        """The exception's name, where one stands before what it says."""
        trace = (self.stack_trace or "").strip().splitlines()
        # Java's traces begin with it, and Python's end with it.
        for line in (*self.message.strip().splitlines()[:1], *trace[:1], *trace[-1:]):
            if found := _ERROR_TYPE.match(line[:_MAX_WHAT]):
                return found[1]
        return None


class _JobFacets(_Part):
    tags: Annotated[_Tags | None, WrapValidator(_or_none)] = None


class _Job(_Part):
    namespace: _Name
    name: _Name
    facets: _JobFacets | None = None

    @property
    def workflow_id(self) -> str:
        return bounded_id(valid_text(f"{self.namespace}/{self.name}"))


class _ParentRun(_Part):
    run_id: _Name


class _Parent(_Part):
    run: _ParentRun
    job: _Job

    @property
    def ref(self) -> RunRef:
        return RunRef(self.job.workflow_id, bounded_id(valid_text(self.run.run_id)))


class _RunFacets(_JobFacets):
    parent: Annotated[_Parent | None, WrapValidator(_or_none)] = None
    error_message: Annotated[_Failure | None, WrapValidator(_or_none)] = None
    processing_engine: Annotated[
        _Engine | None, WrapValidator(_or_none), Field(validation_alias="processing_engine")
    ] = None


class _Run(_ParentRun):
    facets: _RunFacets | None = None


class _Event(_Part):
    event_type: Literal["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"] | None = None
    event_time: Annotated[UtcDatetime, BeforeValidator(_as_moment), AfterValidator(_since_epoch)]
    run: _Run
    job: _Job

    def told(self) -> Told:
        """Return what it tells."""
        facets = self.run.facets or _RunFacets()
        status = STATUSES.get(self.event_type)
        failure = facets.error_message if status in {RunStatus.FAILED, RunStatus.CANCELLED} else None
        return Told(
            key=(self.job.workflow_id, bounded_id(valid_text(self.run.run_id))),
            moment=self.event_time,
            status=status,
            is_progress=self.event_type == "RUNNING",
            error=failure.text if failure else None,
            error_type=failure.error_type if failure else None,
            labels=dict(self._labels(facets)),
            parent=facets.parent.ref if facets.parent else None,
        )

    def _labels(self, facets: _RunFacets) -> Iterator[tuple[str, str]]:
        # The later ones hold: those of the run before those of the job.
        if engine := facets.processing_engine:
            yield from _label("engine", engine.name)
            yield from _label("engine_version", engine.version)
        for tags in (self.job.facets and self.job.facets.tags, facets.tags):
            for tag in filter(None, tags.tags if tags else ()):
                yield from _label(tag.key, tag.value)


def _label(name: str, value: object) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    key = _NOT_IN_KEYS.sub("_", name.lower()).lstrip("_.-")
    text = valid_text(str(value).lower() if isinstance(value, bool) else str(value))
    if is_label(key, text):
        yield key, text
    elif _is_new("tag", name[:_MAX_TOLD]):
        _logger.warning("run_log_openlineage_tag_left_out", tag=name[:_MAX_TOLD], hint=LABEL_HINT)
