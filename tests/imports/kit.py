"""What the tests of imports share: tables, and imports into a store."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from run_log.core import RunEvent, utc_now
from run_log.producer import Redaction
from run_log.projector.imports import (
    FieldMapping,
    Found,
    ImportReport,
    LeftOut,
    batches_of,
    csv_runs,
    import_runs,
    jsonl_runs,
    status_words,
    time_zone,
)
from run_log.projector.rebuild import RejectsFile
from run_log.stores import ProjectionStore

REDACT = Redaction().apply_to_run


def mapping(
    *,
    columns: Mapping[str, str] | None = None,
    constants: Mapping[str, str] | None = None,
    words: Iterable[str] = (),
    zone: str | None = None,
    time_format: str | None = None,
) -> FieldMapping:
    """Return a mapping as the command line makes it."""
    return FieldMapping(
        columns=list((columns or {}).items()),
        constants=list((constants or {}).items()),
        statuses=status_words(words),
        zone=time_zone(zone),
        time_format=time_format,
    )


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return *rows*, which have the same columns, as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def from_csv(path: Path, content: str | bytes, fields: FieldMapping | None = None, **how: str) -> list[Found]:
    """Return what is found in a CSV file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(csv_runs(str(path), fields or mapping(), redact=REDACT, **how))


def from_jsonl(path: Path, content: str | bytes, fields: FieldMapping | None = None) -> list[Found]:
    """Return what is found in a file of JSON lines with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(jsonl_runs(str(path), fields or mapping(), redact=REDACT))


def events(found: Iterable[Found]) -> list[RunEvent]:
    """Return the events of what was found, all of which are runs."""
    taken: list[RunEvent] = []
    for each in found:
        assert isinstance(each.what, RunEvent), str(each.what)
        taken.append(each.what)
    return taken


def left_out(found: Iterable[Found]) -> list[tuple[str, str]]:
    """Return the place and the reason of what was left out."""
    return [(each.place, str(each.what)) for each in found if isinstance(each.what, LeftOut)]


async def imported(
    found: Iterable[Found],
    store: ProjectionStore | None,
    *,
    retention_days: int | None = None,
    rejects: RejectsFile | None = None,
    size: int = 500,
    now: datetime | None = None,
) -> ImportReport:
    """Import what is found to its end."""
    report = ImportReport()
    await import_runs(
        batches_of((each for each in found), size=size),
        store,
        report,
        stop=asyncio.Event(),
        retention_days=retention_days,
        rejects=rejects,
        now=utc_now if now is None else lambda: now,
    )
    return report
