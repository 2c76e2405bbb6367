"""Makes a metadata database with DAG runs in it, by Airflow's own migrations and models.

In Airflow's own environment: ``python -m tests.imports.airflow_program FILE make`` makes it with the newest
schema, and ``... FILE bring-back`` brings it back to that of Airflow 2.10.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
TASKS = ("download", "book", "send")


class Life(NamedTuple):
    """A run of the DAG."""

    run_id: str
    kind: str
    conf: dict[str, Any]
    tasks: tuple[str | None, str | None, str | None]
    state: str
    clears: int = 0


LIVES = (
    Life("ok", "scheduled", {}, ("success", "success", "success"), "success"),
    Life(
        "bad",
        "manual",
        {"file": "may.csv", "password": "hunter2"},
        ("success", "failed", "upstream_failed"),
        "failed",
    ),
    Life("again", "asset_triggered", {}, ("success", "skipped", "success"), "success", 2),
    Life("going", "backfill", {}, ("success", "up_for_retry", None), "running"),
    Life("waiting", "manual", {}, (None, None, None), "queued"),
)


def store(session: Any) -> None:
    """Store a DAG of three tasks, and its runs."""
    sdk: Any = import_module("airflow.sdk")
    operators: Any = import_module("airflow.providers.standard.operators.empty")
    bundles: Any = import_module("airflow.models.dagbundle")
    stored: Any = import_module("airflow.models.serialized_dag")
    definitions: Any = import_module("airflow.serialization.definitions.dag")
    serialized: Any = import_module("airflow.serialization.serialized_objects")
    types: Any = import_module("airflow.utils.types")

    with sdk.DAG("invoices", schedule=None, start_date=NOON - timedelta(days=1)) as dag:
        for name in TASKS:
            operators.EmptyOperator(task_id=name)
    session.add(bundles.DagBundleModel(name="bundle"))
    session.flush()
    lazy = serialized.LazyDeserializedDAG.from_dag(dag)
    definitions.SerializedDAG.bulk_write_to_db("bundle", None, [lazy], session=session)
    stored.SerializedDagModel.write_dag(lazy, bundle_name="bundle", session=session)
    session.commit()
    dag = stored.SerializedDagModel.get_dag("invoices", session=session)
    for number, life in enumerate(LIVES):
        begun = NOON + timedelta(hours=number)
        run = dag.create_dagrun(
            run_id=life.run_id,
            logical_date=begun,
            data_interval=(begun, begun),
            run_after=begun,
            run_type=types.DagRunType(life.kind),
            conf=life.conf,
            triggered_by=types.DagRunTriggeredByType.TEST,
            state="queued",
            start_date=None if life.state == "queued" else begun,
            session=session,
        )
        session.flush()
        run.queued_at = begun
        run._state = life.state
        run.clear_number = life.clears
        run.end_date = begun + timedelta(minutes=5) if life.state in {"success", "failed"} else None
        for place, (name, state) in enumerate(zip(TASKS, life.tasks, strict=True)):
            task = run.get_task_instance(name, session=session)
            task.state = state
            if state is not None:
                task.start_date = begun + timedelta(minutes=place)
                task.end_date = task.start_date + timedelta(seconds=30)
                task.try_number = 2 if state == "up_for_retry" else 1


def make(databases: Any) -> None:
    """Make a database of the newest schema."""
    databases.initdb()
    with import_module("airflow.utils.session").create_session() as session:
        store(session)


def bring_back(databases: Any) -> None:
    """Bring the database back to the schema of Airflow 2.10."""
    # Airflow's own command needs a package of Airflow 2 for this; its migrations do not.
    revision = databases._REVISION_HEADS_MAP["2.10.3"]
    import_module("alembic.command").downgrade(databases._get_alembic_config(), revision=revision)


def main(file: Path, what: str) -> None:
    """Do what is asked for with the database in *file*."""
    os.environ |= {
        "AIRFLOW_HOME": str(file.parent),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{file}",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    databases: Any = import_module("airflow.utils.db")
    {"make": make, "bring-back": bring_back}[what](databases)
    import_module("airflow.settings").engine.dispose()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
