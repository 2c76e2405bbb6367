"""What the file holds, and how one that an earlier version made becomes that."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from run_log.core import ConfigurationError

APPLICATION_ID: Final = 0x52754C67
"""Marks the file as ours (https://www.sqlite.org/pragma.html#pragma_application_id)."""

# Payloads come last: a query that does not ask for them does not walk over their pages. Document ids order
# runs and workflows as other stores do: BINARY collation of UTF-8 is the order of code points.
_FIRST: Final = """
CREATE TABLE sequence (log TEXT NOT NULL, last INTEGER NOT NULL);
INSERT INTO sequence VALUES (lower(hex(randomblob(16))), 0);

CREATE TABLE workflows (
    workflow TEXT NOT NULL PRIMARY KEY,
    workflow_id TEXT NOT NULL,
    as_of INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    running INTEGER NOT NULL,
    success INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    paused INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE counters (
    workflow TEXT NOT NULL,
    scope TEXT NOT NULL,
    slot INTEGER NOT NULL,
    name TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (workflow, scope, slot, name)
) WITHOUT ROWID;

CREATE TABLE runs (
    workflow TEXT NOT NULL,
    run TEXT NOT NULL,
    changed INTEGER NOT NULL,
    workflow_id TEXT NOT NULL,
    id TEXT NOT NULL,
    status TEXT NOT NULL,
    trigger_type TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    completed_at INTEGER,
    duration_ms REAL NOT NULL,
    attempt INTEGER NOT NULL,
    hlc INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    occurred_at INTEGER NOT NULL,
    inferred INTEGER NOT NULL,
    paused_started_at INTEGER,
    paused_assignee TEXT,
    paused_deadline INTEGER,
    active_since INTEGER,
    counted_micros INTEGER,
    counted_hour INTEGER,
    expire_at INTEGER,
    history TEXT NOT NULL,
    pause TEXT,
    error TEXT,
    trigger_data TEXT NOT NULL,
    result TEXT NOT NULL,
    UNIQUE (workflow, run)
);

CREATE INDEX runs_by_change ON runs (changed, workflow, run);
CREATE INDEX runs_of_workflow_by_change ON runs (workflow, changed, run);
CREATE INDEX runs_by_start ON runs (workflow, started_at, run);
CREATE INDEX runs_by_status ON runs (workflow, status, started_at, run);
CREATE INDEX runs_by_trigger ON runs (workflow, trigger_type, started_at, run);
CREATE INDEX runs_by_status_and_trigger ON runs (workflow, status, trigger_type, started_at, run);

CREATE INDEX inbox_by_start ON runs (paused_started_at, workflow, run)
    WHERE paused_started_at IS NOT NULL;
CREATE INDEX inbox_by_deadline ON runs (paused_deadline, workflow, run)
    WHERE paused_deadline IS NOT NULL;
CREATE INDEX inbox_of_assignee_by_start ON runs (paused_assignee, paused_started_at, workflow, run)
    WHERE paused_started_at IS NOT NULL;
CREATE INDEX inbox_of_assignee_by_deadline ON runs (paused_assignee, paused_deadline, workflow, run)
    WHERE paused_deadline IS NOT NULL;
CREATE INDEX inbox_of_workflow_by_start ON runs (workflow, paused_started_at, run)
    WHERE paused_started_at IS NOT NULL;
CREATE INDEX inbox_of_workflow_by_deadline ON runs (workflow, paused_deadline, run)
    WHERE paused_deadline IS NOT NULL;
CREATE INDEX inbox_of_both_by_start ON runs (workflow, paused_assignee, paused_started_at, run)
    WHERE paused_started_at IS NOT NULL;
CREATE INDEX inbox_of_both_by_deadline ON runs (workflow, paused_assignee, paused_deadline, run)
    WHERE paused_deadline IS NOT NULL;

CREATE INDEX expired ON runs (expire_at)
    WHERE expire_at IS NOT NULL;

CREATE INDEX stale ON runs (active_since, workflow, run)
    WHERE active_since IS NOT NULL;
CREATE INDEX stale_of_workflow ON runs (workflow, active_since, run)
    WHERE active_since IS NOT NULL;
"""

_REPAIRS: Final = """
CREATE TABLE repairs (workflow TEXT NOT NULL PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""

# A partial index holds only the runs that have what it is for: the others write nothing to it.
_SECOND_EDITION: Final = """
ALTER TABLE workflows ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN labels TEXT;
ALTER TABLE runs ADD COLUMN parent_workflow_id TEXT;
ALTER TABLE runs ADD COLUMN parent_run_id TEXT;
ALTER TABLE runs ADD COLUMN trace_id TEXT;
ALTER TABLE runs ADD COLUMN error_type TEXT;
ALTER TABLE runs ADD COLUMN progress TEXT;
ALTER TABLE runs ADD COLUMN progress_digest TEXT;
ALTER TABLE runs ADD COLUMN steps TEXT;

CREATE INDEX all_by_start ON runs (started_at, workflow, run);
CREATE INDEX all_by_status ON runs (status, started_at, workflow, run);
CREATE INDEX runs_by_parent ON runs (workflow, parent_workflow_id, parent_run_id, started_at, run)
    WHERE parent_run_id IS NOT NULL;
CREATE INDEX all_by_parent ON runs (parent_workflow_id, parent_run_id, started_at, workflow, run)
    WHERE parent_run_id IS NOT NULL;
CREATE INDEX runs_by_error_type ON runs (workflow, error_type, started_at, run)
    WHERE error_type IS NOT NULL;
CREATE INDEX all_by_error_type ON runs (error_type, started_at, workflow, run)
    WHERE error_type IS NOT NULL;

CREATE TABLE labels (
    of_workflow TEXT NOT NULL,
    of_run TEXT NOT NULL,
    label TEXT NOT NULL,
    began INTEGER NOT NULL,
    PRIMARY KEY (of_workflow, of_run, label)
) WITHOUT ROWID;
CREATE INDEX runs_by_label ON labels (of_workflow, label, began, of_run);
CREATE INDEX all_by_label ON labels (label, began, of_workflow, of_run);
"""

_NOTICES: Final = """
CREATE TABLE notices (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    expire_at INTEGER,
    text TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""

MIGRATIONS: Final[Sequence[str]] = (_FIRST, _REPAIRS, _SECOND_EDITION, _NOTICES)
"""Each leads from the version before it to its own, the first to 1. Only ever appended to.

A reader brings no file forward, so queries have to work with every version.
"""

FIRST_WITH_ADDED: Final = 3
"""The first version of the schema that has what `_SECOND_EDITION` adds."""

# What in the place of our tables could do anything when it is read or written, and without end.
_NOT_OURS: Final = """
SELECT count(*) FROM sqlite_master
WHERE tbl_name IN ('sequence', 'workflows', 'counters', 'runs', 'repairs', 'labels', 'notices')
AND (type IN ('view', 'trigger') OR sql LIKE 'CREATE VIRTUAL%')
"""


@contextmanager
def transaction(connection: sqlite3.Connection, *, writes: bool = True) -> Generator[None]:
    """Make what the block writes take effect together, or not at all, and let it read one state.

    One writer at a time has the file; readers wait for nobody.
    """
    # A writer takes its lock at once: what begins by reading could not write once another had written.
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk, among others, has ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the file at *path* up to the newest version of the schema, in one transaction.

    Raises:
        ConfigurationError: It is another program's, or a newer run-log made it.
    """
    if schema_version(connection, path, migrations) == len(migrations):
        return
    with transaction(connection):
        # Another process may have been here meanwhile.
        for migration in migrations[_version(connection, path, migrations) :]:
            for statement in migration.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


def schema_version(connection: sqlite3.Connection, path: str, migrations: Sequence[str] = MIGRATIONS) -> int:
    """Return the version of the schema that the file has, 0 where it is empty. Nothing is written.

    It raises what `migrate` does.
    """
    # At once: another process may be making it what it is to be.
    with transaction(connection, writes=False):
        return _version(connection, path, migrations)


def _version(connection: sqlite3.Connection, path: str, migrations: Sequence[str]) -> int:
    application = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if application != APPLICATION_ID and (
        application or version or _number(connection, "SELECT count(*) FROM sqlite_master")
    ):
        raise ConfigurationError(
            f"{path} is another program's database; set RUN_LOG_SQLITE_PATH to a file of run-log's own"
        )
    if version < 0 or _number(connection, _NOT_OURS):
        raise ConfigurationError(
            f"{path} is not as run-log makes it: it has a view, a virtual table or a trigger where a table "
            "has to be, or no version; restore it from a copy, or set RUN_LOG_SQLITE_PATH to another file"
        )
    if version > len(migrations):
        raise ConfigurationError(
            f"{path} was written by a newer run-log (schema {version}, this one knows {len(migrations)}); "
            "upgrade run-log here, or set RUN_LOG_SQLITE_PATH to another file"
        )
    return version


def _number(connection: sqlite3.Connection, query: str) -> int:
    (value,) = connection.execute(query).fetchone()
    return int(value)
