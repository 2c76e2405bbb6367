"""Charts as geometry in per cent, which templates draw as SVG without a style: a strict policy allows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from run_log.core import RunStatus, Step, Transition, WorkflowRun
from run_log.stores import RunRecord, TimeBucket

from .texts import took

_THINNEST: Final = 0.4
_MOST_INDENTS: Final = 6
_ENDED: Final = (RunStatus.SUCCESS, RunStatus.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar of a chart, in per cent of its width and height."""

    x: float
    width: float
    status: str
    title: str
    y: float = 0.0
    height: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A step of a run, on its line of the timeline."""

    step: Step
    depth: int
    """Within how many other steps it is."""
    bar: Bar
    took: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What a run did when: its states, and its steps below them."""

    begins: datetime
    lasts: timedelta
    states: Sequence[Bar]
    lanes: Sequence[Lane]


def timeline(record: RunRecord, now: datetime) -> Timeline:
    """Return the timeline of a run, up to its end or to *now*."""
    run, steps = record.run, record.steps
    moments = [run.started_at, *(line.occurred_at for line in record.history)]
    moments += [step.started_at for step in steps]
    ends = [run.completed_at, *(step.ended_at for step in steps), None if run.status.is_terminal else now]
    begins = min(moments)
    last = max([*moments, *filter(None, ends)])
    scale = _Scale(begins, last)
    return Timeline(
        begins=begins,
        lasts=last - begins,
        states=[bar for bar in _states(record.history, scale, last) if bar is not None],
        lanes=list(_lanes(steps, scale, last)),
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    first: datetime
    last: datetime

    def bar(self, begins: datetime, ends: datetime, status: str, name: str) -> Bar:
        whole = (self.last - self.first) or timedelta(microseconds=1)
        x = min(100 * ((begins - self.first) / whole), 100 - _THINNEST)
        width = max(100 * ((max(ends, begins) - begins) / whole), _THINNEST)
        lasted = took(max(ends - begins, timedelta(0)))
        return Bar(x=round(x, 2), width=round(width, 2), status=status, title=f"{name}: {lasted}")


def _states(history: Sequence[Transition], scale: _Scale, last: datetime) -> Iterable[Bar | None]:
    following = [line.occurred_at for line in history[1:]]
    for line, ends in zip(history, [*following, last], strict=False):
        # Where a run has ended, nothing lasts.
        status = line.status
        yield None if status.is_terminal else scale.bar(line.occurred_at, ends, status.value, status.value)


def _lanes(steps: Sequence[Step], scale: _Scale, last: datetime) -> Iterable[Lane]:
    known = {step.key: step for step in steps}
    for step in nested(steps):
        ends = step.ended_at or last
        yield Lane(
            step=step,
            depth=_depth(step, known),
            bar=scale.bar(step.started_at, ends, step.status.value, step.name),
            took=max(ends - step.started_at, timedelta(0)),
        )


def nested(steps: Sequence[Step]) -> list[Step]:
    """Return *steps*, each with those within it right after it, else in the order in which they come."""
    known = {step.key for step in steps}
    within: dict[str | None, list[Step]] = {}
    for step in steps:
        within.setdefault(step.parent if step.parent in known else None, []).append(step)
    found: dict[str, Step] = {}
    ahead = list(reversed(within.get(None, [])))
    while ahead:
        step = ahead.pop()
        found[step.key] = step
        ahead += reversed(within.get(step.key, []))
    # Another program may have told of steps that are in each other.
    found |= {step.key: step for step in steps if step.key not in found}
    return list(found.values())


def _depth(step: Step, known: dict[str, Step]) -> int:
    depth, around = 0, known.get(step.parent or "")
    while around is not None and depth < _MOST_INDENTS:
        depth, around = depth + 1, known.get(around.parent or "")
    return depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The runs of a day, or of an hour, as a bar."""

    bucket: TimeBucket
    bars: Sequence[Bar]


def days(buckets: Sequence[TimeBucket]) -> list[Day]:
    """Return a bar for each bucket, as high as it has runs: failed ones at its foot, then the others."""
    most = max((bucket.total for bucket in buckets), default=0) or 1
    width = 100 / (len(buckets) or 1)
    return [
        Day(bucket=bucket, bars=list(_stacked(bucket, number * width, width, most)))
        for number, bucket in enumerate(buckets)
    ]


def _stacked(bucket: TimeBucket, x: float, width: float, most: int) -> Iterable[Bar]:
    counts: dict[str, Any] = {status.value: bucket.by_status.get(status, 0) for status in reversed(_ENDED)}
    counts["other"] = bucket.total - sum(counts.values())
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    top = 100.0
    for name, count in counts.items():
        if count:
            # One failure among thousands has to be seen.
            height = max(100 * count / most, 1.5)
            top = max(top - height, 0)
            title = f"{bucket.begins:%Y-%m-%d}: {told}"
            yield Bar(
                x=round(x + width * 0.1, 2),
                width=round(width * 0.8, 2),
                y=round(top, 2),
                height=round(height, 2),
                status=name,
                title=title,
            )


def heights(runs: Sequence[WorkflowRun]) -> list[float]:
    """Return how high the bar of each run is, in per cent: by how long it took, on a scale of roots."""
    longest = max((run.duration_ms for run in runs), default=0) or 1
    # Linear, one long run would make all others invisible.
    return [round(15 + 85 * (min(run.duration_ms, longest) / longest) ** 0.5, 1) for run in runs]
