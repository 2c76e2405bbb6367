"""Hypothesis strategies for the core's values, shared by the property tests of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from run_log.core import PauseRequest, RunEvent, RunRef, RunStatus, TriggerType, WorkflowRun
from run_log.core.ids import valid_text
from run_log.core.law import RunHead, by_run, fold
from run_log.core.models import RunKey
from run_log.core.stats import StatsDelta
from run_log.core.steps import Step, StepStatus, joined_steps

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)

anything: Final = st.characters(exclude_categories=())
"""Every code point, lone surrogates too."""

ids: Final = st.text(min_size=1, max_size=20)

json_values: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(anything, max_size=8),
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(st.text(anything, max_size=4), values, max_size=4)
    ),
    max_leaves=12,
)
"""Any JSON value: nested, with empty and dotted keys, with integers beyond 64 bits."""

payloads: Final = st.dictionaries(st.text(anything, max_size=6), json_values, max_size=4)

zones: Final = st.integers(min_value=-14 * 60, max_value=14 * 60).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)

moments: Final = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(9998, 12, 31),  # noqa: DTZ001
    timezones=zones,
)
"""Aware datetimes of any zone that stay within the calendar in UTC."""

forms: Final = st.sampled_from(
    [
        None,
        {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]},
        {"enum": [[1, [2]], {"a": 10**30}]},
    ]
)

pauses: Final = st.builds(
    PauseRequest,
    reason=st.text(max_size=8),
    assignee=st.none() | st.text(max_size=8),
    deadline=st.none() | moments,
    answered_by=st.none() | st.text(max_size=8),
    comment=st.none() | st.text(max_size=8),
    choices=st.just(()) | st.just(("yes", "no")),
    form=forms,
    default_choice=st.none() | st.just("no"),
    choice=st.none() | st.text(max_size=8),
    values=st.none() | payloads,
)

labels: Final = st.dictionaries(
    st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True), st.text(anything, max_size=8), max_size=4
)

trigger_types: Final = st.sampled_from(TriggerType) | st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)

runs: Final = st.builds(
    WorkflowRun,
    id=ids,
    workflow_id=ids,
    status=st.sampled_from(RunStatus),
    trigger_type=trigger_types,
    trigger_data=payloads,
    result=payloads,
    error=st.none() | st.text(anything, max_size=8),
    started_at=moments,
    completed_at=st.none() | moments,
    duration_ms=st.floats(allow_nan=False, allow_infinity=False),
    attempt=st.integers(min_value=1, max_value=2**31 - 1),
    pause=st.none() | pauses,
    labels=labels,
    parent=st.none() | st.builds(RunRef, ids, ids),
    trace_id=st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    error_type=st.none() | st.text(anything, max_size=8),
)

events: Final = st.builds(
    RunEvent,
    event_id=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128),
    hlc=st.integers(min_value=0, max_value=2**62 - 1),
    occurred_at=moments,
    inferred=st.booleans(),
    run=runs,
)


def small_event(
    number: int,
    *,
    run: int = 0,
    attempt: int = 1,
    hlc: int = 0,
    status: RunStatus = RunStatus.RUNNING,
    inferred: bool = False,
    content: int | None = None,
) -> RunEvent:
    """Return an event whose identity is *number*; every second run belongs to another workflow.

    What it tells, and when it happened, is by *content*, else by the number too.
    """
    return RunEvent(
        event_id=f"event-{number:04}",
        hlc=hlc,
        occurred_at=EPOCH + timedelta(seconds=number if content is None else content // 2),
        inferred=inferred,
        run=WorkflowRun(
            id=f"run-{run}",
            workflow_id=f"workflow-{run % 2}",
            status=status,
            trigger_type=TriggerType.MANUAL,
            started_at=EPOCH,
            attempt=attempt,
            result={"event": number if content is None else content},
        ),
    )


def small_events(
    *, runs: int = 3, min_size: int = 1, max_size: int = 12
) -> st.SearchStrategy[list[RunEvent]]:
    """Return distinct events of a few runs: few attempts and few clock readings, so that ties are common."""
    return st.lists(
        st.builds(
            small_event,
            st.integers(min_value=0, max_value=999),
            run=st.integers(min_value=0, max_value=runs - 1),
            attempt=st.integers(min_value=1, max_value=3),
            hlc=st.integers(min_value=0, max_value=4),
            status=st.sampled_from(RunStatus),
            inferred=st.booleans(),
        ),
        unique_by=lambda event: event.event_id,
        min_size=min_size,
        max_size=max_size,
    )


def clashing_events(
    *, runs: int = 2, min_size: int = 1, max_size: int = 12
) -> st.SearchStrategy[list[RunEvent]]:
    """Return events of few runs, of which many share their id, or their version, or all but a payload."""
    return st.lists(
        st.builds(
            small_event,
            st.integers(min_value=0, max_value=1),
            run=st.integers(min_value=0, max_value=runs - 1),
            attempt=st.integers(min_value=1, max_value=2),
            hlc=st.integers(min_value=0, max_value=1),
            status=st.sampled_from(RunStatus),
            inferred=st.booleans(),
            content=st.integers(min_value=0, max_value=3),
        ),
        min_size=min_size,
        max_size=max_size,
    )


steps: Final = st.builds(
    Step,
    key=st.sampled_from("abcde"),
    parent=st.none() | st.sampled_from("abcde"),
    name=st.text(anything, max_size=4).map(valid_text),
    attempt=st.integers(min_value=1, max_value=2),
    status=st.sampled_from(StepStatus),
    started_at=st.integers(min_value=0, max_value=3).map(lambda second: EPOCH + timedelta(seconds=second)),
    ended_at=st.none() | st.just(EPOCH + timedelta(seconds=9)),
    error=st.none() | st.just("no"),
    attributes=st.dictionaries(st.sampled_from("xy"), st.integers(), max_size=1),
    version=st.integers(min_value=0, max_value=4),
)
"""Steps of few keys, versions and starts, so that ties are common."""


def stepped_events(
    *, runs: int = 2, min_size: int = 1, max_size: int = 10
) -> st.SearchStrategy[list[RunEvent]]:
    """Return events of few runs, many of which have steps, or only say how far a run is."""
    few = st.lists(steps, max_size=3)
    kinds = st.lists(st.tuples(st.booleans(), few), min_size=max_size, max_size=max_size)
    some = clashing_events(runs=runs, min_size=min_size, max_size=max_size)
    some |= small_events(runs=runs, min_size=min_size, max_size=max_size)
    return st.builds(_stepped, some, kinds)


def _stepped(events: list[RunEvent], kinds: list[tuple[bool, list[Step]]]) -> list[RunEvent]:
    return [
        event.model_copy(update={"is_progress": is_progress, "steps": joined_steps(own)})
        for event, (is_progress, own) in zip(events, kinds, strict=False)
    ]


@st.composite
def deliveries(draw: st.DrawFn, facts: Sequence[RunEvent]) -> list[list[RunEvent]]:
    """Return *facts* in any order, some of them several times, cut anywhere into batches."""
    repeats = draw(st.lists(st.sampled_from(facts), max_size=5))
    order = draw(st.permutations([*facts, *repeats]))
    cuts = sorted(draw(st.lists(st.integers(min_value=0, max_value=len(order)), max_size=6)))
    edges = [0, *cuts, len(order)]
    return [list(order[start:end]) for start, end in pairwise(edges)]


def project(
    batches: Iterable[Sequence[RunEvent]],
) -> tuple[dict[RunKey, RunHead], dict[str, StatsDelta]]:
    """Return the heads and the stats that *batches* end in, as a projector would keep them."""
    heads: dict[RunKey, RunHead] = {}
    stats: dict[str, StatsDelta] = {}
    for batch in batches:
        for key, positions in by_run(batch).items():
            change = fold(heads.get(key), [batch[position] for position in positions])
            heads[key] = change.after
            stats[key[0]] = stats.get(key[0], StatsDelta()) + change.delta
    return heads, stats


def examples(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a property *count* times, ten times that in `make thorough`, however slow the machine is."""
    return settings(max_examples=scaled(count), deadline=None, suppress_health_check=[HealthCheck.too_slow])


def scaled(count: int) -> int:
    """Return *count*, and ten times that in `make thorough`."""
    return 10 * count if settings.get_current_profile_name() == "thorough" else count
