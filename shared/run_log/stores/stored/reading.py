"""Stored runs as they are read back; what cannot be read ends no listing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from run_log.core import UnreadableRunError, WorkflowRun
from run_log.core.ids import document_id, original_id
from run_log.core.models import RunKey
from run_log.stores.service import StoredRun
from run_log.stores.telemetry import skipped_unreadable

from .fields import PROJECTION, expires_at, head_from_fields, run_from_fields

_T = TypeVar("_T")


def stored_run(fields: Mapping[str, Any], key: RunKey, *, place: tuple[str, str]) -> StoredRun:
    """Return the run that a document holds.

    Args:
        fields: The document's fields, with the projection map.
        key: The run that is looked for, to name it.
        place: The document ids it is kept under: its workflow's and its own.

    Raises:
        UnreadableRunError: They do not hold a run, or that of another place.
    """
    run = run_from_fields(fields, key)
    if (document_id(run.workflow_id), document_id(run.id)) != place:
        # A copied document: a cursor made from its fields would lead elsewhere, even back.
        raise UnreadableRunError(*key, f"it says that it is run {run.id!r} of workflow {run.workflow_id!r}")
    version = head_from_fields(fields, key).head.version
    return StoredRun(
        run=run, version=version, projection=fields.get(PROJECTION) or {}, expires_at=expires_at(fields)
    )


def at_its_place(workflow: str, run: str) -> Callable[[Mapping[str, Any]], StoredRun]:
    """Return what reads the run of a document that is kept under these document ids; see `stored_run`."""
    key = (original_id(workflow) or workflow, original_id(run) or run)
    return lambda fields: stored_run(fields, key, place=(workflow, run))


def readable(
    documents: Iterable[_T],
    read: Callable[[_T], StoredRun],
    most: int | None = None,
    *,
    now: datetime,
    is_wanted: Callable[[WorkflowRun], bool] = lambda _run: True,
) -> list[StoredRun]:
    """Return the runs of those *documents* that can be read and seen; unreadable ones are counted and logged.

    Args:
        documents: In the order of the listing; no more of them are taken than needed.
        read: Returns a document's run, or raises `UnreadableRunError`.
        most: How many runs to return; None is all.
        now: What has expired by then is not seen any more.
        is_wanted: Looks at the run itself, whose document an index has found.
    """
    runs: list[StoredRun] = []
    for document in documents:
        try:
            stored = read(document)
        except UnreadableRunError as error:
            skipped_unreadable(error)
            continue
        if not stored.is_expired(now) and is_wanted(stored.run):
            runs.append(stored)
        if len(runs) == most:
            break
    return runs
