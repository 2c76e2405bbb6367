"""The projection's documents in Firestore: how they are written, and how a workflow's counts are read.

``{root}/{workflow}`` is a workflow's own document: its stats and its summary's counters, over as many shards
as there are.

    total, successful, by_status.{status}          distinct runs
    durations.{micros | b<bucket>}                 how long the ended ones took
    days.m<map>.s<day>.{counter}                   the same of the runs that started on a day,
    hours.m<map>.s<hour>.{counter}                 and in an hour; both are counted from the epoch
    as_of                                          when the latest event happened, in microseconds

Days and hours lie in a few maps that take turns, so that a few paths take away what is over, unread: those
of the maps whose turn it is not. What a turn finds left over from the one before goes with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from google.cloud.firestore_v1.types import write as write_types
from typing_extensions import override

from run_log.core import RunStatus, StoreError, WriteRefusedError
from run_log.core.clock import micros_of, moment_of
from run_log.core.counters import Horizon, Scope, SummaryCounter, add_counters
from run_log.core.ids import document_id
from run_log.core.models import RunKey
from run_log.core.settings import MAX_STATS_SHARDS
from run_log.core.stats import StatsDelta
from run_log.stores.committing.commits import (
    Commit,
    KnownRun,
    ProjectionDocuments,
    RunWrite,
    StatsWrite,
    shard_of,
)
from run_log.stores.stored.fields import (
    ADDED_FIELDS,
    CHANGED_AT,
    CHANGED_SHARD,
    EXPIRE_AT,
    HISTORY,
    OPTIONAL,
    PROJECTION,
    SHARDS,
    STEPS,
)
from run_log.stores.stored.reading import head_to_merge, number_of
from run_log.stores.summaries import WorkflowStats

from .client import Connection, fields_of, run_path, set_moment, shards_of

_write_types: Any = write_types
Write: Final[Any] = _write_types.Write.pb()
"""The class of one write."""

# The server's clock, as the value of a transform: milliseconds of when it began to process the request.
_REQUEST_TIME: Final[int] = int(_write_types.DocumentTransform.FieldTransform.ServerValue.REQUEST_TIME)

_HISTORY_PATH: Final = f"{PROJECTION}.{HISTORY}"
_STEPS_PATH: Final = f"{PROJECTION}.{STEPS}"
_CHANGED_AT_PATH: Final = f"{PROJECTION}.{CHANGED_AT}"
_CHANGED_SHARD_PATH: Final = f"{PROJECTION}.{CHANGED_SHARD}"

STATS_SHARDS: Final = "stats"
"""The collection below a workflow's document that holds the shards of its stats but the first."""

STATS_SHARD_COUNT: Final = "shards"
"""In a workflow's document: how many shards its stats may have. Absent where there is only the document."""

AS_OF: Final = "as_of"
"""In a workflow's document: microseconds, for only a number can be raised to a maximum."""

STATS_FIELDS: Final = ("workflow_id", "total", "successful", "by_status", STATS_SHARD_COUNT, AS_OF)
"""What is read where only the stats are asked for: the counters of days and hours are many."""

_DURATIONS: Final = "durations"
_DAYS: Final = "days"

# Maps of days, each of which holds a period.
_PERIODS: Final = 8
_PERIOD_DAYS: Final = 31
_HOURS: Final = "hours"

# Maps of hours; each holds a day's. No multiple of a week, which is how often a workflow may run.
_HOUR_MAPS: Final = 11

# What is not taken away yet beyond what is counted: another machine's clock may be ahead.
_SPARE_DAYS: Final = 1


class FirestoreDocuments(ProjectionDocuments):
    """Commits to Firestore, and reads what a commit was refused for."""

    def __init__(self, connection: Connection, root_collection: str) -> None:
        self._connection = connection
        self._root_collection = root_collection
        self._root = f"{connection.documents_name}/{root_collection}"
        self._shards = shards_of(root_collection)

    @override
    async def commit(self, commit: Commit) -> Sequence[Any]:
        with self._refusing():
            writes = [
                *(self._run_write(run) for run in commit.runs),
                *(self._stats_write(stats) for stats in commit.stats),
                *(self._announcement(*announced) for announced in commit.announced.items()),
            ]
        return (await self._connection.commit(writes))[: len(commit.runs)]

    async def repair(self, stats: StatsWrite, *, guard: str, expected: Any | None) -> Any:
        """Add *stats* to a workflow's, and count that in another document; return the mark of that.

        That one is at the path *guard*, and has to have the mark *expected*; None: it must not be there yet.

        Raises:
            GuessRefusedError: It has another one; nothing is written.
            RunLogError: See `commit`.
        """
        counting = Write()
        counting.update.name = f"{self._connection.documents_name}/{guard}"
        counting.update_mask.SetInParent()
        # A write that changes nothing would keep the mark.
        counting.update_transforms.add(field_path="count").increment.integer_value = 1
        if expected is None:
            counting.current_document.exists = False
        else:
            counting.current_document.update_time.CopyFrom(expected)
        with self._refusing():
            writes = [counting, self._stats_write(stats)]
        mark, _ = await self._connection.commit(writes)
        return mark

    @override
    async def read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        paths = {run_path(self._root_collection, key): key for key in keys}
        known: dict[RunKey, KnownRun] = {}
        for document in await self._connection.documents(paths, ["status", EXPIRE_AT, PROJECTION]):
            key = paths[self._connection.path(document)]
            stored = head_to_merge(fields_of(document.fields), key)
            known[key] = KnownRun(stored=stored, mark=document.update_time)
        return known

    @contextlib.contextmanager
    def _refusing(self) -> Generator[None]:
        try:
            yield
        except (ValueError, TypeError, OverflowError) as error:
            # A number or a text that a protocol buffer cannot hold: no try will make it one.
            raise WriteRefusedError(f"{self._connection} cannot hold a value ({error})") from error

    def _run_write(self, run: RunWrite) -> Any:
        # As a protocol buffer: through the vendor's layers this was most of what a projection cost, in CPU
        # (docs/adr/0011).
        write = Write()
        write.update.name = f"{self._connection.documents_name}/{run_path(self._root_collection, run.key)}"
        stored = write.update.fields
        if run.fields is not None:
            set_fields(stored, run.fields)
        if run.expires_at is not None and not run.keeps_expiry:
            set_fields(stored, {EXPIRE_AT: run.expires_at})
        projected = stored[PROJECTION].map_value.fields
        set_fields(projected, run.projection)
        # Times only go up. An index on those alone takes all writes at its end, and no more than 500 a second
        # (https://firebase.google.com/docs/firestore/solutions/shard-timestamp).
        projected[CHANGED_SHARD].string_value = self._shards[shard_of(run.key[1], SHARDS)]
        # By the server's clock: writers' clocks differ, and a watch goes by one order.
        write.update_transforms.add(field_path=_CHANGED_AT_PATH).set_to_server_value = _REQUEST_TIME
        if run.steps is not None:
            texts(projected[STEPS].array_value.values, run.steps)
        self._set_history(write, run)
        if run.expected is None:
            write.current_document.exists = False
            return write
        # Compared within the commit, without a transaction: nothing is locked, and nothing is read first.
        write.current_document.update_time.CopyFrom(run.expected)
        # What the mask does not name is kept as it is stored; the transforms take effect all the same.
        write.update_mask.field_paths.append(_CHANGED_SHARD_PATH)
        if run.fields is not None:
            # A path replaces what is below it: the vendor's merge would keep the keys of an older pause.
            # A path without a field takes away what is stored there. So a run that goes on leaves the inbox.
            projection = {*OPTIONAL, *run.projection}
            write.update_mask.field_paths.extend(sorted({*ADDED_FIELDS, *run.fields}))
            write.update_mask.field_paths.extend(sorted(f"{PROJECTION}.{name}" for name in projection))
        if not run.keeps_expiry:
            write.update_mask.field_paths.append(EXPIRE_AT)
        if run.steps is not None:
            write.update_mask.field_paths.append(_STEPS_PATH)
        if run.replaces_history:
            write.update_mask.field_paths.append(_HISTORY_PATH)
        return write

    def _set_history(self, write: Any, run: RunWrite) -> None:
        if run.replaces_history:
            history = write.update.fields[PROJECTION].map_value.fields[HISTORY].array_value
            # A run may be known by its progress before any transition has come.
            history.SetInParent()
            texts(history.values, run.history)
        elif run.history:
            transform = write.update_transforms.add(field_path=_HISTORY_PATH)
            texts(transform.append_missing_elements.values, run.history)

    def _stats_write(self, stats: StatsWrite) -> Any:
        write = self._workflow_write(stats.workflow_id, stats.shard)
        delta = stats.delta
        counts = {"total": delta.total, "successful": delta.successful}
        counts |= {f"by_status.{status.value}": count for status, count in delta.by_status.items()}
        counts |= {counter_path(counter): count for counter, count in stats.counters.items()}
        # Transforms, not values: two commits at once both count.
        for path, count in counts.items():
            write.update_transforms.add(field_path=path).increment.integer_value = count
        if stats.as_of is not None:
            # A maximum takes commits in any order.
            write.update_transforms.add(field_path=AS_OF).maximum.integer_value = micros_of(stats.as_of)
        if stats.forgets is not None:
            # A path without a field takes away what is stored there.
            write.update_mask.field_paths.extend(past_paths(stats.forgets))
        return write

    def _announcement(self, workflow_id: str, shards: int) -> Any:
        write = self._workflow_write(workflow_id, 0)
        # A raise to a maximum, so that whoever writes with fewer shards hides none.
        write.update_transforms.add(field_path=STATS_SHARD_COUNT).maximum.integer_value = shards
        return write

    def _workflow_write(self, workflow_id: str, shard: int) -> Any:
        """Return a write that makes sure that a shard's document says whose it is."""
        # By its mask it creates the document where it is not there, and leaves alone what else is in it.
        write = Write()
        write.update.name = stats_path(self._root, workflow_id, shard)
        write.update.fields["workflow_id"].string_value = workflow_id
        write.update_mask.field_paths.append("workflow_id")
        return write


def stats_path(root: str, workflow_id: str, shard: int) -> str:
    """Return the path of the document that holds one shard of a workflow's stats, below *root*."""
    workflow = f"{root}/{document_id(workflow_id)}"
    return f"{workflow}/{STATS_SHARDS}/{shard}" if shard else workflow


def further_stats_paths(root: str, workflow_id: str, fields: Mapping[str, Any]) -> list[str]:
    """Return the paths of the shards of a workflow's stats beside its own document, which holds *fields*."""
    shards = fields.get(STATS_SHARD_COUNT)
    # Whatever something else put there, one query reads no more than that.
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
    # Whole maps, and unread: to know which days are over, a writer would have to read the document first.
    last = horizon.last_day + _SPARE_DAYS
    periods = _unused(range(horizon.first_day // _PERIOD_DAYS, last // _PERIOD_DAYS + 1), _PERIODS)
    hours = _unused(range(horizon.first_hours, last + 1), _HOUR_MAPS)
    return (*(f"{_DAYS}.m{each}" for each in periods), *(f"{_HOURS}.m{each}" for each in hours))


def _unused(used: range, count: int) -> list[int]:
    return sorted(set(range(count)) - {each % count for each in used})


def summed(
    workflow_id: str, documents: Iterable[Mapping[str, Any]]
) -> tuple[WorkflowStats, dict[SummaryCounter, int]]:
    """Return the stats of a workflow and its summary's counters, summed over the documents that hold them.

    Raises:
        StoreError: One of them holds something else.
    """
    deltas: list[StatsDelta] = []
    latest: list[int] = []
    counters: dict[SummaryCounter, int] = {}
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
            add_counters(counters, dict(_counters(fields)))
        as_of = moment_of(max(latest)) if latest else None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StoreError(f"the stats of workflow {workflow_id!r} are damaged: {error}") from error
    total = StatsDelta.sum(deltas)
    stats = WorkflowStats(
        workflow_id=workflow_id,
        total=total.total,
        successful=total.successful,
        by_status=total.by_status,
        as_of=as_of,
    )
    return stats, counters


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


def set_fields(target: Any, fields: Mapping[str, Any]) -> None:
    """Set *fields*, of the types that are stored, in a map of protobuf values.

    These are texts, numbers, truth values, None, aware datetimes, lists of texts, and maps of these.
    """
    for name, value in fields.items():
        # Most are texts, or absent, and every run pays for each.
        if isinstance(value, str):
            target[name].string_value = value
        elif value is None:
            target[name].null_value = 0
        else:
            _set_value(target[name], value)


def texts(target: Any, values: Iterable[str]) -> None:
    """Append text *values* to an array's protobuf values."""
    for value in values:
        target.add().string_value = value


def _set_value(target: Any, value: object) -> None:
    match value:
        case bool():
            target.boolean_value = value
        case int():
            target.integer_value = value
        case float():
            target.double_value = value
        case datetime():
            set_moment(target.timestamp_value, value)
        case Mapping():
            target.map_value.SetInParent()
            set_fields(target.map_value.fields, value)  # pyright: ignore[reportUnknownArgumentType]
        case list():
            texts(target.array_value.values, value)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            raise TypeError(f"a {type(value).__name__} is not stored as such")
