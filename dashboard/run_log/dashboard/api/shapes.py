"""What the API's JSON looks like, for its OpenAPI document. The JSON itself is that of the library."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from run_log.core import RunStatus, StepStatus

_described = with_config(ConfigDict(use_attribute_docstrings=True))

Payload = dict[str, Any]
Counts = dict[RunStatus, int]
Milliseconds = Annotated[float, Field(ge=0)]


class RunReference(TypedDict):
    """The identity of a run."""

    workflow_id: str
    run_id: str


@_described
class Progress(TypedDict):
    """How far a run says that it is."""

    fraction: Annotated[float, Field(ge=0, le=1)] | None
    """From 0 to 1; null for unknown."""
    text: str | None


@_described
class Pause(TypedDict):
    """What a run waits for, or last waited for, and once it is answered, the answer."""

    reason: str
    """What somebody is asked to decide."""
    assignee: str | None
    """Who is asked; null for anybody."""
    deadline: datetime | None
    answered_by: str | None
    """Who answered; null while nobody has."""
    comment: str | None
    choices: list[str]
    """What they can choose from; empty for no choice."""
    form: Payload | None
    """What they fill in, as a JSON Schema."""
    default_choice: str | None
    """Which choice is taken when the deadline passes."""
    choice: str | None
    """What they chose."""
    values: Payload | None
    """What they filled in."""


@_described
class RunState(TypedDict):
    """A run as it stands, without its payloads."""

    id: str
    """Unique within its workflow."""
    workflow_id: str
    status: RunStatus
    trigger_type: str
    """What started it: webhook, gmail_push, scheduled, manual, file_upload, or another word."""
    error: str | None
    """Why it failed or was skipped."""
    started_at: datetime
    completed_at: datetime | None
    duration_ms: Milliseconds
    attempt: Annotated[int, Field(ge=1)]
    pause: Pause | None
    labels: dict[str, str]
    parent: RunReference | None
    """The run that started this one."""
    trace_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None
    error_type: str | None
    """The qualified name of the exception that failed it."""
    progress: Progress | None


@_described
class ListedRun(RunState):
    """A run as it stands; with its payloads where they are asked for."""

    trigger_data: NotRequired[Payload]
    """What it was started with."""
    result: NotRequired[Payload]
    """What it produced."""


@_described
class Run(RunState):
    """A run as it stands, with its payloads."""

    trigger_data: Payload
    """What it was started with."""
    result: Payload
    """What it produced."""


@_described
class PendingRun(Run):
    """A run that waits for an answer."""

    paused_at: datetime
    age_ms: Milliseconds
    """How long it has waited."""
    overdue: bool
    """Whether its deadline has passed."""
    version: str
    """Which pause that is, for `If-Match` of an answer."""


@_described
class StaleRun(Run):
    """A run that is under way, and has been silent for long."""

    heard_at: datetime
    """When its newest event happened."""
    silence_ms: Milliseconds


@_described
class Change(Run):
    """A run that changed, as it was when that was read."""

    version: str
    """Of its newest event."""
    cursor: str
    """Goes on right after this change; the same as the event's id."""


@_described
class Transition(TypedDict):
    """A run came into a status."""

    status: RunStatus
    occurred_at: datetime
    lasted_ms: Milliseconds | None
    """How long it was in this status; null while it still is."""
    attempt: Annotated[int, Field(ge=1)]
    event_id: str
    inferred: bool
    """Whether that was concluded rather than said by the run."""
    anomaly: bool
    """Whether the status before cannot lead to this one."""
    answered_by: str | None
    """Who answered the pause that ended with this."""
    choice: str | None
    values: Payload | None
    comment: str | None
    version: str


@_described
class Step(TypedDict):
    """A part of a run, in its newest state."""

    key: str
    """Unique within its run."""
    parent: str | None
    """The key of the step around it."""
    name: str
    attempt: Annotated[int, Field(ge=1)]
    status: StepStatus
    started_at: datetime
    ended_at: datetime | None
    error: str | None
    attributes: Payload
    version: int


@_described
class Workflow(TypedDict):
    """How many runs a workflow has."""

    workflow_id: str
    total: int
    successful: int
    by_status: Counts
    """Statuses without runs are absent."""
    as_of: datetime | None
    """How far the counts have come, at least; null for unknown."""


@_described
class Durations(TypedDict):
    """How long runs took that succeeded or failed."""

    count: int
    mean_ms: Milliseconds | None
    p50_ms: Milliseconds | None
    p95_ms: Milliseconds | None
    p99_ms: Milliseconds | None


@_described
class Bucket(TypedDict):
    """The runs that started in one hour, or on one day, in UTC."""

    begins: datetime
    width_ms: Milliseconds
    total: int
    by_status: Counts
    durations: Durations


@_described
class Summary(TypedDict):
    """A workflow at a glance."""

    workflow_id: str
    since: datetime | None
    """Counts and durations are of the runs that started then or later; null for all that ever were."""
    total: int
    by_status: Counts
    success_rate: Annotated[float, Field(ge=0, le=1)] | None
    """Successes among the runs that succeeded or failed; null without such."""
    durations: Durations
    buckets: list[Bucket]
    """By hour or day, the oldest first, without gaps; the last one is the current."""
    last_run: Run | None
    last_success: Run | None
    last_failure: Run | None
    as_of: datetime | None


@_described
class Failure(TypedDict):
    """Failures of one workflow that differ in numbers and ids only."""

    workflow_id: str
    error_type: str | None
    text: str
    """The first line of their error, with # for each number and id."""
    count: int
    newest: RunState
    """The one that started last."""


class Runs(TypedDict):
    """A page of runs."""

    runs: list[ListedRun]
    next_page_token: NotRequired[str]


class Workflows(TypedDict):
    """A page of workflows."""

    workflows: list[Workflow]
    next_page_token: NotRequired[str]


class PendingRuns(TypedDict):
    """A page of runs that wait for an answer."""

    pending_runs: list[PendingRun]
    next_page_token: NotRequired[str]


class StaleRuns(TypedDict):
    """A page of runs that have been silent for long."""

    stale_runs: list[StaleRun]
    next_page_token: NotRequired[str]


class Transitions(TypedDict):
    """The newest transitions of a run, in the order of their versions."""

    transitions: list[Transition]


class Steps(TypedDict):
    """The newest steps of a run, in the order in which they started."""

    steps: list[Step]


class Failures(TypedDict):
    """Groups of the newest failures, the largest first."""

    failures: list[Failure]


class Fault(TypedDict):
    """What is wrong with one part of a request."""

    field: str
    message: str


@_described
class Problem(TypedDict):
    """What went wrong, by RFC 9457."""

    type: str
    """`about:blank`, or `urn:run-log:problem:` and what it is called."""
    title: str
    status: int
    detail: str
    """What happened, and what to do."""
    instance: NotRequired[str]
    """The path that was asked for."""
    errors: NotRequired[list[Fault]]
    """The parts of the request that are at fault."""
    workflow_id: NotRequired[str]
    run_id: NotRequired[str]
    answered_by: NotRequired[str]
    """Who has answered, where somebody has."""


SHAPES: Final = (
    Workflows,
    Summary,
    Failures,
    Runs,
    Run,
    Transitions,
    Steps,
    PendingRuns,
    StaleRuns,
    Problem,
    Change,
)
"""What the document describes by name."""
