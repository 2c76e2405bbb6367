"""What every query has to answer, computed from the runs themselves in plain Python."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from run_log.core import RunStatus, WorkflowRun
from run_log.core.counters import RELATIVE_ERROR, RESOLUTION, Durations
from run_log.core.ids import document_id
from run_log.stores import RunLogReader, TimeBucket, WorkflowSummary
from run_log.stores.listings import Position

Item = TypeVar("Item")

END_OF_TIME = datetime.max.replace(tzinfo=UTC)
ENDED = (RunStatus.SUCCESS, RunStatus.FAILED)


def newest_first(runs: Iterable[WorkflowRun]) -> list[WorkflowRun]:
    """Return *runs* as a listing has them."""
    return sorted(runs, key=lambda run: Position(run.started_at, document_id(run.id)), reverse=True)


def known_durations(runs: Iterable[WorkflowRun]) -> list[timedelta]:
    """Return how long those took that succeeded or failed, the shortest first."""
    return sorted(timedelta(milliseconds=run.duration_ms) for run in runs if run.status in ENDED)


def check_durations(found: Durations, runs: Iterable[WorkflowRun]) -> None:
    """Check the durations of *runs*: count and sum exactly, every percentile within the stated error."""
    durations = known_durations(runs)
    assert (len(durations), sum(durations, timedelta())) == (found.count, found.total)
    if not durations:
        assert (None, None, None) == (found.mean, found.p50, found.p99)
        return
    for percent in range(101):
        exact = durations[max(math.ceil(percent * len(durations) / 100), 1) - 1]
        estimate = found.quantile(percent / 100)
        assert estimate is not None
        assert abs(estimate - exact) <= max(exact * RELATIVE_ERROR, RESOLUTION), percent


def check_bucket(found: TimeBucket, runs: Iterable[WorkflowRun]) -> None:
    """Check one hour or day against those of *runs* that started in it."""
    own = [run for run in runs if found.begins <= run.started_at < found.begins + found.width]
    assert Counter(run.status for run in own) == found.by_status
    assert len(own) == found.total
    check_durations(found.durations, own)


def check_summary(found: WorkflowSummary, runs: Sequence[WorkflowRun]) -> None:
    """Check a summary against all of its workflow's runs."""
    counted = [run for run in runs if found.since is None or run.started_at >= found.since]
    assert Counter(run.status for run in counted) == found.by_status
    assert len(counted) == found.total
    ended = [run for run in counted if run.status in ENDED]
    successful = sum(run.status is RunStatus.SUCCESS for run in ended)
    assert (successful / len(ended) if ended else None) == found.success_rate
    check_durations(found.durations, counted)
    last = newest_first(runs)
    assert next(iter(last), None) == found.last_run
    assert next((run for run in last if run.status is RunStatus.SUCCESS), None) == found.last_success
    assert next((run for run in last if run.status is RunStatus.FAILED), None) == found.last_failure
    ends = [bucket.begins + bucket.width for bucket in found.buckets]
    assert ends[:-1] == [bucket.begins for bucket in found.buckets[1:]]
    assert found.since is None or found.since == found.buckets[0].begins
    for bucket in found.buckets:
        check_bucket(bucket, runs)


async def check_summaries(
    service: RunLogReader, workflow_id: str, runs: Sequence[WorkflowRun], now: datetime
) -> None:
    """Check the summaries of a workflow that look back to the beginning, some days and some hours."""
    for window in (None, timedelta(hours=5), timedelta(days=40)):
        check_summary(await service.get_summary(workflow_id, window, now=now), runs)


async def every_page(
    ask: Callable[..., Awaitable[tuple[list[Item], str | None]]], **named: Any
) -> list[Item]:
    """Return what all the pages of a listing have."""
    found, cursor = await ask(**named)
    while cursor is not None:
        page, cursor = await ask(start_after=cursor, **named)
        found += page
    return found


async def check_workflow(
    service: RunLogReader, workflow_id: str, runs: Sequence[WorkflowRun], now: datetime
) -> None:
    """Check every query about one workflow against all of its runs."""
    newest = newest_first(runs)
    by_status = Counter(run.status for run in runs)
    middle = newest[len(newest) // 2].started_at
    assert newest == await every_page(service.list_runs, workflow_id=workflow_id, limit=100)
    oldest, _ = await service.list_runs(workflow_id, order="oldest", limit=20)
    assert newest[: -len(oldest) - 1 : -1] == oldest
    for status in by_status:
        expected = [run for run in newest if run.status is status and run.started_at >= middle]
        assert expected == [run async for run in service.iter_runs(workflow_id, status=status, since=middle)]
        assert len(expected) == await service.count_runs(workflow_id, status=status, since=middle)
    assert len(runs) == await service.count_runs(workflow_id)
    early = [run for run in newest if run.started_at < middle]
    trigger = newest[0].trigger_type
    expected = [run for run in early if run.trigger_type is trigger]
    listing = service.iter_runs(workflow_id, until=middle, trigger_type=trigger)
    assert expected == [run async for run in listing]
    assert newest[0] == await service.get_latest_run(workflow_id)
    assert {"total": len(runs), "successful": by_status[RunStatus.SUCCESS]} == await service.get_stats(
        workflow_id
    )
    check_summary(await service.get_summary(workflow_id, now=now), runs)


async def check_workflows(service: RunLogReader, workflows: Mapping[str, Sequence[WorkflowRun]]) -> None:
    """Check the list of workflows, with their stats."""
    found = await every_page(service.list_workflows, limit=100)
    assert {name: Counter(run.status for run in runs) for name, runs in workflows.items()} == {
        stats.workflow_id: stats.by_status for stats in found
    }
    assert len(workflows) == len(found)


async def check_inbox(service: RunLogReader, runs: Iterable[WorkflowRun], now: datetime) -> None:
    """Check the inbox of all workflows, whole, by assignee and by deadline."""
    waiting = {run.key: run for run in runs if run.status is RunStatus.PAUSED}
    assert waiting == {run.key: run for run in await service.get_pending_runs()}
    for assignee in {run.pause.assignee for run in waiting.values() if run.pause} - {None}:
        own = {key for key, run in waiting.items() if run.pause and run.pause.assignee == assignee}
        found = await every_page(service.list_pending, assignee=assignee, now=now)
        assert own == {one.run.key for one in found}
        assert len(own) == len(found)
    for overdue in (True, False):
        found = await every_page(service.list_pending, overdue=overdue, now=now)
        deadlines = [one.deadline or END_OF_TIME for one in found]
        assert deadlines == sorted(deadlines)
        assert {overdue} == {one.overdue for one in found}
        assert overdue == all(deadline < now for deadline in deadlines)
        assert len(found) == sum(
            bool(run.pause and run.pause.deadline and run.pause.deadline < now) == overdue
            for run in waiting.values()
        )


async def check_stale(service: RunLogReader, runs: Iterable[WorkflowRun], now: datetime) -> None:
    """Check which runs fell silent; those that are under way were last heard of when they started."""
    for age in (timedelta(0), timedelta(days=365)):
        found = await every_page(service.list_stale, older_than=age, now=now)
        active = [run for run in runs if run.status in (RunStatus.PENDING, RunStatus.RUNNING)]
        expected = {run.key for run in active if run.started_at < now - age}
        assert expected == {one.run.key for one in found}
        assert len(expected) == len(found)
        heard = [one.heard_at for one in found]
        assert heard == sorted(heard)
