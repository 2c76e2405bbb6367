"""DAG runs of a real metadata database of Airflow, of its newest schema and of that of Airflow 2."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.frameworks import framework

from run_log.core import RunEvent, RunStatus, StepStatus
from run_log.core.steps import MAX_STEPS, step_text
from run_log.projector.imports import Found, airflow_runs
from run_log.projector.imports.airflow import NO_CONF, STEPS_CUT
from run_log.stores import SQLiteRunLogService

from .airflow_program import NOON
from .kit import REDACT, imported

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of both databases."""
    airflow = framework("airflow")
    airflow.make()
    made = tmp_path_factory.mktemp("airflow")
    newest, older = made / "airflow.db", made / "airflow2.db"
    # Two processes, as each may only take so long.
    for file, what in ((newest, "make"), (older, "bring-back")):
        ended = airflow.run("-m", "tests.imports.airflow_program", file, what, environ={})
        assert not ended.returncode, ended.stderr
        if file is newest:
            shutil.copyfile(newest, older)
    return made


@pytest.fixture(params=["airflow.db", "airflow2.db"])
def database(folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a copy of a database: of the newest schema, and of that of Airflow 2.10."""
    copy = tmp_path / "airflow.db"
    copy.write_bytes((folder / request.param).read_bytes())
    return copy


def read(database: Path) -> list[Found]:
    """Return what is found."""
    return list(airflow_runs(f"sqlite:///{database}", redact=REDACT))


def by_id(found: list[Found]) -> Mapping[str, RunEvent]:
    """Return the events by the id of their run."""
    return {each.what.run.id: each.what for each in found if isinstance(each.what, RunEvent)}


def change(database: Path, sql: str, *values: object) -> None:
    """Change the database as Airflow might."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(sql, values)


def test_dag_runs_become_runs(database: Path) -> None:
    """Each DAG run is a run of its DAG, with its state, times, type, configuration and clears."""
    before = database.read_bytes()
    found = by_id(read(database))
    ok, bad, again, going, waiting = (found[name].run for name in ("ok", "bad", "again", "going", "waiting"))

    assert {"invoices"} == {event.run.workflow_id for event in found.values()}
    assert (RunStatus.SUCCESS, "scheduled", 300_000) == (ok.status, ok.trigger_type, ok.duration_ms)
    assert (NOON, NOON + timedelta(minutes=5)) == (ok.started_at, ok.completed_at)
    assert (RunStatus.FAILED, "failed: book") == (bad.status, bad.error)
    assert {"file": "may.csv", "password": "[redacted]"} == bad.trigger_data
    assert again.trigger_type in {"asset_triggered", "dataset_triggered"}
    assert (RunStatus.RUNNING, "backfill", None) == (going.status, going.trigger_type, going.completed_at)
    assert (RunStatus.PENDING, NOON + timedelta(hours=4)) == (waiting.status, waiting.started_at)
    assert {"ok": 1, "again": 3} == {name: found[name].run.attempt for name in ("ok", "again")}
    assert before == database.read_bytes()


def test_tasks_become_steps(database: Path) -> None:
    """Each task that has started is a step with its state, its try and its times."""
    found = by_id(read(database))
    states = {
        name: {step.name: (step.status, step.error, step.attempt) for step in event.steps}
        for name, event in found.items()
    }
    success, failed = (StepStatus.SUCCESS, None, 1), (StepStatus.FAILED, None, 1)

    assert {"download": success, "book": success, "send": success} == states["ok"]
    left = (StepStatus.CANCELLED, "upstream_failed", 1)
    assert {"download": success, "book": failed, "send": left} == states["bad"]
    assert (StepStatus.CANCELLED, "skipped", 1) == states["again"]["book"]
    assert {"download": success, "book": (StepStatus.FAILED, None, 2)} == states["going"]
    assert {} == states["waiting"]
    (first, *_) = found["ok"].steps
    assert (NOON, NOON + timedelta(seconds=30)) == (first.started_at, first.ended_at)
    assert {"operator": "EmptyOperator"} == first.attributes


async def test_a_run_that_goes_on_is_brought_up_to_date(database: Path, tmp_path: Path) -> None:
    """A later import brings the new state and the new steps, and a repeat of either nothing."""
    log = SQLiteRunLogService(path=tmp_path / "runs.db")
    try:
        early = read(database)
        await imported(early, log)
        ended = str(NOON + timedelta(days=1))[:19]
        change(
            database,
            "UPDATE task_instance SET state = 'success', end_date = ?, start_date = ?, try_number = 3 "
            "WHERE run_id = 'going' AND task_id = 'book'",
            ended,
            ended,
        )
        await imported(read(database), log)
        steps = {step.name: step for step in await log.get_steps("invoices", "going")}
        assert (StepStatus.SUCCESS, 3) == (steps["book"].status, steps["book"].attempt)
        change(database, "UPDATE dag_run SET state = 'success', end_date = ? WHERE run_id = 'going'", ended)
        late = read(database)
        for found in (late, early, late):
            await imported(found, log)
        run = await log.get_run("invoices", "going")

        assert run is not None
        assert RunStatus.SUCCESS is run.status
        assert 2 == len(await log.get_history("invoices", "going"))
        assert {"total": 5, "successful": 3} == await log.get_stats("invoices")
    finally:
        await log.close()


def test_a_configuration_that_only_airflow_reads_is_told(database: Path) -> None:
    """A configuration with a Python object runs no code, and the run is imported without it."""
    change(database, "UPDATE dag_run SET conf = ? WHERE run_id = 'bad'", pickle.dumps({"at": NOON}))
    change(database, "UPDATE dag_run SET conf = ? WHERE run_id = 'ok'", pickle.dumps({"at": "noon"}))
    found = read(database)

    assert [(NO_CONF,)] == [each.without for each in found if each.without]
    assert ({}, {"at": "noon"}) == tuple(by_id(found)[name].run.trigger_data for name in ("bad", "ok"))


def test_mapped_tasks_and_long_names_are_steps(folder: Path, tmp_path: Path) -> None:
    """Mapped tasks are a step each, whatever their names are; of too many the newest are kept, and told."""
    database = tmp_path / "airflow.db"
    database.write_bytes((folder / "airflow.db").read_bytes())
    name = "группа." + "x" * 200
    many = [(f"{number:032}", name, number) for number in range(MAX_STEPS + 10)]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, state, try_number, "
            "start_date, end_date, max_tries, pool, pool_slots, priority_weight, queue, dag_version_id) "
            "SELECT ?, ?, dag_id, run_id, ?, state, 1, start_date, end_date, 1, pool, 1, 1, queue, "
            "dag_version_id FROM task_instance WHERE run_id = 'ok' AND task_id = 'book'",
            many,
        )
    found = read(database)
    steps = by_id(found)["ok"].steps

    assert [(STEPS_CUT,)] == [each.without for each in found if each.without]
    assert MAX_STEPS == len({step.key for step in steps})
    assert all(len(step_text(step)) <= 640 for step in steps)


def test_unknown_states_and_missing_times_are_left_out(database: Path) -> None:
    """A state of a later version, a run without any time, or one that is none, is left out and told."""
    column = "logical_date" if "logical_date" in columns(database) else "execution_date"
    change(database, "UPDATE dag_run SET state = 'dreaming' WHERE run_id = 'ok'")
    change(database, "UPDATE dag_run SET start_date = 'noon' WHERE run_id = 'again'")
    times = f"queued_at = NULL, start_date = NULL, {column} = ''"
    change(database, f"UPDATE dag_run SET {times} WHERE run_id = 'waiting'")  # noqa: S608 - our own
    reasons = {each.place: str(each.what) for each in read(database) if not isinstance(each.what, RunEvent)}

    assert "its state is unknown, dreaming" == reasons["dag_run 1"]
    assert "a time cannot be read: 'noon'" == reasons["dag_run 3"]
    assert "a time cannot be read: ''" == reasons["dag_run 5"]


def columns(database: Path) -> list[str]:
    """Return the names of the columns of the runs."""
    with closing(sqlite3.connect(database)) as connection:
        return [row[1] for row in connection.execute("PRAGMA table_info(dag_run)")]
