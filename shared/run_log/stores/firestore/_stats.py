"""A workflow's own document: its stats and its summary's counters, over as many shards as there are.

    total, successful, by_status.{status}          distinct runs
    durations.{micros | b<bucket>}                 how long the ended ones took
    days.m<map>.s<day>.{counter}                   the same of the runs that started on a day,
    hours.m<map>.s<hour>.{counter}                 and in an hour; both are counted from the epoch
    as_of                                          when the latest event happened, in microseconds

Days and hours lie in a few maps that take turns, so that a few paths take away what is over, unread: those
of the maps whose turn it is not. What a turn finds left over from the one before goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from run_log.core import RunStatus, StoreError
from run_log.core.clock import moment_of
from run_log.core.counters import Horizon, Scope, SummaryCounter, add_counters
from run_log.core.ids import document_id
from run_log.core.law import StatsDelta
from run_log.core.settings import MAX_STATS_SHARDS
from run_log.stores.stored.reading import number_of
from run_log.stores.summaries import WorkflowStats

STATS_SHARDS: Final = "stats"
"""The collection below a workflow's document that holds the shards of its stats but the first."""

SHARDS: Final = "shards"
"""In a workflow's document: how many shards its stats may have. Absent where there is only the document."""

AS_OF: Final = "as_of"
"""In a workflow's document: microseconds, for only a number can be raised to a maximum."""

STATS_FIELDS: Final = ("workflow_id", "total", "successful", "by_status", SHARDS, AS_OF)
"""What is read where only the stats are asked for: the counters of days and hours are many."""

_DURATIONS: Final = "durations"
_DAYS: Final = "days"
_PERIODS: Final = 8
"""Maps of days; each holds a period of so many days:"""
_PERIOD_DAYS: Final = 31
_HOURS: Final = "hours"
_HOUR_MAPS: Final = 11
"""Maps of hours; each holds a day's. No multiple of a week, which is how often a workflow may run."""
_SPARE_DAYS: Final = 1
"""What is not taken away yet beyond what is counted: another machine's clock may be ahead."""


def stats_path(root: str, workflow_id: str, shard: int) -> str:
    """Return the path of the document that holds one shard of a workflow's stats, below *root*."""
    workflow = f"{root}/{document_id(workflow_id)}"
    return f"{workflow}/{STATS_SHARDS}/{shard}" if shard else workflow


def further_stats_paths(root: str, workflow_id: str, fields: Mapping[str, Any]) -> list[str]:
    """Return the paths of the shards of a workflow's stats beside its own document.

    Args:
        root: The collection that holds the projection.
        workflow_id: The workflow.
        fields: What its own document holds.
    """
    shards = fields.get(SHARDS)
    count = min(shards, MAX_STATS_SHARDS) if isinstance(shards, int) else 1
    return [stats_path(root, workflow_id, shard) for shard in range(1, count)]


def counter_path(counter: SummaryCounter) -> str:
    """Return where *counter* is in the document."""
    match counter.scope:
        case Scope.ALL:
            return f"{_DURATIONS}.{counter.name}"
        case Scope.DAY:
            turn = counter.slot // _PERIOD_DAYS % _PERIODS
            return f"{_DAYS}.m{turn}.s{counter.slot}.{counter.name}"
        case Scope.HOUR:
            turn = counter.slot // 24 % _HOUR_MAPS
            return f"{_HOURS}.m{turn}.s{counter.slot}.{counter.name}"


@lru_cache(maxsize=16)
def past_paths(horizon: Horizon) -> Sequence[str]:
    """Return the paths of the maps that hold nothing which *horizon* still counts, there or not."""
    last = horizon.last_day + _SPARE_DAYS
    periods = _unused(range(horizon.first_day // _PERIOD_DAYS, last // _PERIOD_DAYS + 1), _PERIODS)
    hours = _unused(range(horizon.first_hours, last + 1), _HOUR_MAPS)
    return (*(f"{_DAYS}.m{each}" for each in periods), *(f"{_HOURS}.m{each}" for each in hours))


def _unused(used: range, count: int) -> list[int]:
    return sorted(set(range(count)) - {each % count for each in used})


def summed_stats(workflow_id: str, documents: Iterable[Mapping[str, Any]]) -> WorkflowStats:
    """Return the stats of a workflow, summed over the documents that hold them.

    Raises:
        StoreError: One of them holds something else.
    """
    deltas: list[StatsDelta] = []
    latest: list[int] = []
    try:
        for fields in documents:
            by_status: Mapping[str, Any] = fields.get("by_status") or {}
            deltas.append(
                StatsDelta(
                    total=number_of(fields.get("total", 0)),
                    successful=number_of(fields.get("successful", 0)),
                    by_status={RunStatus(name): number_of(count) for name, count in by_status.items()},
                )
            )
            if AS_OF in fields:
                latest.append(int(fields[AS_OF]))
        as_of = moment_of(max(latest)) if latest else None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StoreError(f"the stats of workflow {workflow_id!r} are damaged: {error}") from error
    total = StatsDelta.sum(deltas)
    return WorkflowStats(
        workflow_id=workflow_id,
        total=total.total,
        successful=total.successful,
        by_status=total.by_status,
        as_of=as_of,
    )


def summed_counters(workflow_id: str, documents: Iterable[Mapping[str, Any]]) -> dict[SummaryCounter, int]:
    """Return the counters of a workflow's summary, summed over the documents that hold them.

    Raises:
        StoreError: One of them holds something else.
    """
    counters: dict[SummaryCounter, int] = {}
    try:
        for fields in documents:
            add_counters(counters, dict(_counters(fields)))
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StoreError(f"the summary of workflow {workflow_id!r} is damaged: {error}") from error
    return counters


def _counters(fields: Mapping[str, Any]) -> Iterator[tuple[SummaryCounter, int]]:
    durations: Mapping[str, Any] = fields.get(_DURATIONS) or {}
    for name, count in durations.items():
        yield SummaryCounter.stored(Scope.ALL, 0, name), number_of(count)
    for scope, field in ((Scope.DAY, _DAYS), (Scope.HOUR, _HOURS)):
        maps: Mapping[str, Mapping[str, Mapping[str, Any]]] = fields.get(field) or {}
        for slots in maps.values():
            for slot, counts in slots.items():
                for name, count in counts.items():
                    yield SummaryCounter.stored(scope, int(slot[1:]), name), number_of(count)
