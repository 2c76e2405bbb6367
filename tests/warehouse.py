"""The warehouse's views in DuckDB, translated from BigQuery's SQL by sqlglot, and what they have to say."""

from __future__ import annotations

import abc
import hashlib
import json
import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Final

import duckdb
import sqlglot
from sqlglot import exp

from run_log.core import EventDecodeError, Message, RunEvent, RunStatus, Step, Transition, decode_event
from run_log.core.counters import MAX_DURATION, duration_micros
from run_log.core.history import annotated
from run_log.core.law import RunHead, by_run, fold
from run_log.core.models import RunKey
from run_log.core.stats import count_statuses
from run_log.core.wire import MAX_MESSAGE_BYTES, check_stamp

FOLDER: Final = Path(__file__).resolve().parents[1] / "infra" / "terraform" / "warehouse"
DATASET: Final = "${dataset}."

# Of bodies DuckDB gets the text: its own cast would escape bytes.
COLUMNS: Final = {
    "subscription_name": "VARCHAR",
    "message_id": "VARCHAR",
    "publish_time": "TIMESTAMPTZ",
    "data": "VARCHAR",
    "attributes": "JSON",
}
"""The columns of the table, with their types in DuckDB."""

_REFERENCE: Final = re.compile(r"`\$\{dataset\}\.(\w+)`")
_MILLISECOND: Final = timedelta(milliseconds=1)
_ENDED: Final = (RunStatus.SUCCESS, RunStatus.FAILED)

_TRANSITION: Final = (
    *("attempt", "hlc", "event_id", "status", "occurred_at", "lasted_ms", "inferred", "anomaly"),
    *("answered_by", "choice", "comment"),
)
_STEP: Final = (
    *("parent", "name", "attempt", "status", "started_at", "ended_at", "took_ms", "error", "version"),
)

Row = Mapping[str, Any]


def views() -> dict[str, str]:
    """Return the text of each view by its name, those first that others are made of."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.sql")}
    made_of = {name: sources(text) & set(texts) for name, text in texts.items()}
    return {name: texts[name] for name in TopologicalSorter(made_of).static_order()}


def sources(text: str) -> set[str]:
    """Return the names of the table and the views that a view is made of."""
    return set(_REFERENCE.findall(text))


def translated(query: str) -> str:
    """Return *query*, in BigQuery's SQL, in DuckDB's."""
    tree = sqlglot.parse_one(query.replace(DATASET, ""), read="bigquery")
    return tree.transform(_safely_parsed).sql(dialect="duckdb")


def _safely_parsed(node: exp.Expr) -> exp.Expr:
    # sqlglot knows the same function of another dialect, TRY_PARSE_JSON, but not this spelling of it.
    if isinstance(node, exp.SafeFunc) and isinstance(node.this, exp.ParseJSON):
        return exp.ParseJSON(this=node.this.this, safe=True)
    return node


class Database(abc.ABC):
    """The table that a BigQuery subscription fills, and the views over it."""

    @abc.abstractmethod
    def load(self, messages: Iterable[Message], *, published_at: datetime) -> None:
        """Fill the table with a row for each message, as Pub/Sub writes it, and work the views out."""

    @abc.abstractmethod
    def rows(self, query: str) -> list[Row]:
        """Return the rows of *query*, which is in BigQuery's SQL, by the names of their columns."""

    def view(self, name: str) -> list[Row]:
        """Return the rows of a view."""
        return self.rows(f"SELECT * FROM `{DATASET}{name}`")  # noqa: S608 - our own names


def written(messages: Iterable[Message], published_at: datetime) -> Iterator[dict[str, Any]]:
    """Yield the row of each message."""
    for number, message in enumerate(messages):
        yield {
            "subscription_name": "projects/a-project/subscriptions/run-log-warehouse",
            "message_id": str(number),
            "publish_time": published_at,
            "data": message.data,
            "attributes": json.dumps(dict(message.attributes)),
        }


class Warehouse(Database):
    """They are in DuckDB."""

    def __init__(self) -> None:
        self._database = duckdb.connect()
        self._database.execute("SET TimeZone = 'UTC'")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        self._database.execute(f"CREATE TABLE messages ({columns})")
        self._views = {name: translated(text) for name, text in views().items()}

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def load(self, messages: Iterable[Message], *, published_at: datetime) -> None:
        """See `Database`."""
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            for row in written(messages, published_at):
                row |= {
                    "publish_time": published_at.isoformat(),
                    "data": _text(row["data"]),
                    "attributes": json.loads(row["attributes"]),
                }
                file.write(f"{json.dumps(row)}\n")
            file.flush()
            self._database.execute("DELETE FROM messages")
            self._database.execute(
                "INSERT INTO messages SELECT * FROM "
                "read_json($path, format = 'nd', columns = $columns, maximum_object_size = $bytes)",
                {"path": file.name, "columns": COLUMNS, "bytes": 2 * MAX_MESSAGE_BYTES},
            )
        # As tables: a view works out all views below it, each time.
        for name, view in self._views.items():
            self._database.execute(f"CREATE OR REPLACE TABLE {name} AS {view}")

    def rows(self, query: str) -> list[Row]:
        """See `Database`."""
        found = self._database.execute(translated(query))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _text(data: bytes) -> str | None:
    # As SAFE_CAST has it.
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


class Folded:
    """What run-log's own fold makes of the same messages."""

    def __init__(self, messages: Iterable[Message], *, published_at: datetime) -> None:
        self.left_out: dict[str, str] = {}
        events: list[RunEvent] = []
        for number, message in enumerate(messages):
            try:
                event = decode_event(message)
                check_stamp(event, published_at)
            except EventDecodeError as error:
                self.left_out[str(number)] = error.reason
            else:
                events.append(_with_its_id(event, message))
        self.heads: dict[RunKey, RunHead] = {}
        self.newest: dict[RunKey, RunEvent] = {}
        for key, positions in by_run(events).items():
            change = fold(None, [events[position] for position in positions])
            assert change.winner is not None
            self.heads[key], self.newest[key] = change.after, change.winner


def _with_its_id(event: RunEvent, message: Message) -> RunEvent:
    """Return *event* as the warehouse identifies it: SQL cannot derive the id that a bare run gets."""
    if "event_id" in json.loads(message.data):
        return event
    return event.model_copy(update={"event_id": f"v0-{hashlib.sha256(message.data).hexdigest()}"})


def check(warehouse: Database, messages: Sequence[Message], *, published_at: datetime) -> None:
    """Check that every view over *messages* says what run-log's own fold of them does."""
    warehouse.load(messages, published_at=published_at)
    folded = Folded(messages, published_at=published_at)
    assert folded.left_out == {row["message_id"]: row["reason"] for row in warehouse.view("left_out")}
    check_runs(warehouse.view("runs"), folded)
    check_transitions(warehouse.view("transitions"), folded)
    check_answers(warehouse.view("answers"), folded)
    check_steps(warehouse.view("steps"), folded)
    check_stats(warehouse, folded)
    check_durations(warehouse.view("durations"), folded)


def check_runs(rows: Sequence[Row], folded: Folded) -> None:
    """Check that each run is in the state of its newest event."""
    assert {key: _shown(event) for key, event in folded.newest.items()} == {
        _key(row): _event(row) for row in rows
    }
    assert len(rows) == len(folded.newest)
    for row in rows:
        micros = duration_micros(folded.newest[_key(row)].run)
        took = row["took_ms"]
        assert (took is None) == (micros is None)
        if took is not None:
            # The library's own is in whole microseconds, and at most ten years.
            assert micros == round(min(took * 1_000, MAX_DURATION // timedelta(microseconds=1)))


def _shown(event: RunEvent) -> RunEvent:
    """Return *event* as the view has it: steps and trace context have no columns there."""
    beside = {"steps": (), "traceparent": None, "tracestate": None, "is_progress": not event.is_transition}
    return event.model_copy(update=beside)


def _event(row: Row) -> RunEvent:
    """Return the event whose state a row of the view `runs` is."""
    progress = {"fraction": row["progress_fraction"], "text": row["progress_text"]}
    run = {
        "id": row["run_id"],
        **{
            name: row[name]
            for name in ("workflow_id", "status", "trigger_type", "error", "error_type", "trace_id")
        },
        **{name: row[name] for name in ("attempt", "started_at", "completed_at", "duration_ms")},
        **{name: json.loads(row[name]) for name in ("labels", "trigger_data", "result")},
        "pause": row["pause"] and json.loads(row["pause"]),
        "parent": row["parent_run_id"] and (row["parent_workflow_id"], row["parent_run_id"]),
        "progress": progress if any(value is not None for value in progress.values()) else None,
    }
    own = {name: row[name] for name in ("event_id", "hlc", "occurred_at", "inferred", "is_progress")}
    return RunEvent.model_validate({**own, "run": run})


def check_transitions(rows: Sequence[Row], folded: Folded) -> None:
    """Check every run's history: its order, its anomalies, its answers, and how long each state lasted."""
    expected = {
        (*key, position): {**_transition(line), "attempt": line.attempt}
        for key, head in folded.heads.items()
        for position, line in enumerate(annotated(head.history), 1)
    }
    found = {
        (*_key(row), row["position"]): {
            **{name: row[name] for name in _TRANSITION},
            "answer_values": row["answer_values"] and json.loads(row["answer_values"]),
        }
        for row in rows
    }
    assert expected == found
    assert len(rows) == len(found)


def _transition(line: Transition) -> dict[str, Any]:
    return {
        "hlc": line.version.hlc,
        "event_id": line.version.event_id,
        "status": line.status.value,
        "occurred_at": line.occurred_at,
        "lasted_ms": _lasted_ms(line),
        "inferred": line.inferred,
        "anomaly": line.anomaly,
        "answered_by": line.answered_by,
        "choice": line.choice,
        "comment": line.comment,
        "answer_values": line.values,
    }


def _lasted_ms(line: Transition) -> float | None:
    return None if line.lasted is None else line.lasted / _MILLISECOND


def check_answers(rows: Sequence[Row], folded: Folded) -> None:
    """Check every pause: how long it lasted, and what ended it."""
    expected: Counter[tuple[object, ...]] = Counter()
    for key, head in folded.heads.items():
        lines = annotated(head.history)
        for line, after in zip(lines, (*lines[1:], None), strict=False):
            if line.status is RunStatus.PAUSED:
                ended = (after.occurred_at, after.status.value, after.answered_by) if after else 3 * (None,)
                expected[(*key, line.occurred_at, _lasted_ms(line), *ended)] += 1
    assert expected == Counter(
        (
            *_key(row),
            *(row[name] for name in ("asked_at", "waited_ms", "answered_at", "became", "answered_by")),
        )
        for row in rows
    )


def check_steps(rows: Sequence[Row], folded: Folded) -> None:
    """Check every run's steps, as they are shown."""
    expected = {
        (*key, step.key): _step(step) for key, head in folded.heads.items() for step in head.shown_steps
    }
    found = {
        (*_key(row), row["key"]): {
            **{name: row[name] for name in _STEP},
            "attributes": json.loads(row["attributes"]),
        }
        for row in rows
    }
    assert expected == found
    assert len(rows) == len(found)


def _step(step: Step) -> dict[str, Any]:
    return {
        "parent": step.parent,
        "name": step.name,
        "attempt": step.attempt,
        "status": step.status.value,
        "started_at": step.started_at,
        "ended_at": step.ended_at,
        "error": step.error,
        "attributes": dict(step.attributes),
        "version": step.version,
        "took_ms": step.ended_at and max(step.ended_at - step.started_at, timedelta(0)) / _MILLISECOND,
    }


def check_stats(warehouse: Database, folded: Folded) -> None:
    """Check what is counted of each workflow, in all and by day."""
    in_all: defaultdict[tuple[object, ...], list[RunStatus]] = defaultdict(list)
    by_day: defaultdict[tuple[object, ...], list[RunStatus]] = defaultdict(list)
    for event in folded.newest.values():
        in_all[event.run.workflow_id,].append(event.status)
        by_day[event.run.workflow_id, event.run.started_at.date()].append(event.status)
    for name, groups, columns in (("stats", in_all, 1), ("stats_by_day", by_day, 2)):
        rows = {tuple(row.values())[:columns]: row for row in warehouse.view(name)}
        assert rows.keys() == groups.keys()
        for group, statuses in groups.items():
            stats = count_statuses(statuses)
            assert (stats.total, stats.successful) == (rows[group]["total"], rows[group]["successful"])
            for status in set(RunStatus) - {RunStatus.SUCCESS}:
                assert stats.by_status.get(status, 0) == rows[group][status.value]


def check_durations(rows: Sequence[Row], folded: Folded) -> None:
    """Check the durations of each workflow and day, the percentiles as exact as doubles are."""
    durations: defaultdict[tuple[str, date], list[float]] = defaultdict(list)
    for event in folded.newest.values():
        run = event.run
        if run.status in _ENDED and (run.duration_ms > 0 or run.completed_at):
            took = run.duration_ms or max(
                ((run.completed_at or run.started_at) - run.started_at) / _MILLISECOND, 0.0
            )
            durations[run.workflow_id, run.started_at.date()].append(took)
    assert durations.keys() == {(row["workflow_id"], row["day"]) for row in rows}
    for row in rows:
        own = sorted(durations[row["workflow_id"], row["day"]])
        assert len(own) == row["runs"]
        assert math.isclose(math.fsum(own), row["total_ms"], rel_tol=1e-9)
        for percent in (50, 95, 99, 100):
            name = f"p{percent}_ms" if percent < 100 else "max_ms"
            exact = own[max(math.ceil(percent * len(own) / 100), 1) - 1]
            # Microseconds of a thousand years are more than a double holds.
            assert math.isclose(exact, row[name], rel_tol=1e-12)


def _key(row: Row) -> RunKey:
    return row["workflow_id"], row["run_id"]
