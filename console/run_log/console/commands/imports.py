"""``run-log import``: run histories that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from run_log.console.exit_codes import ExitCode, require
from run_log.console.options import Output, examples, group
from run_log.console.views.output import OutputFormat, note, show

if TYPE_CHECKING:
    from run_log.console.work.imports import Source
    from run_log.projector.imports import FieldMapping

app: Final = group(
    "Bring in run histories that are there already. Try each with --dry-run first. To import again changes "
    "nothing, and never what run-log recorded later (docs/import.md)."
)

_File = Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="The file; - for stdin.")]
_Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        show_default=False,
        help="The database as SQLAlchemy names it, such as sqlite:////var/lib/airflow/airflow.db.",
    ),
]
_Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN",
        help="The column of a run's field, or of labels.KEY, trigger_data.KEY, result.KEY; repeat it for "
        "more. (default: the column with the field's name)",
    ),
]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="The same value for each run; repeat it for more."),
]
_Status = Annotated[
    list[str] | None,
    typer.Option(
        "--status", metavar="WORD=STATUS", help="What a word means that is no status; repeat it for more."
    ),
]
_Zone = Annotated[
    str | None,
    typer.Option(
        metavar="ZONE",
        help="The time zone of times that have none: UTC, Europe/Berlin. (default: leave these runs out)",
    ),
]
_TimeFormat = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="How times are written: as in strptime, or s, ms, us since 1970. (default: ISO 8601)",
    ),
]
_Encoding = Annotated[
    str | None, typer.Option(metavar="NAME", help="The file's encoding, such as cp1252. (default: utf-8)")
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Write nothing; show what would be imported. (default: import)")
]
_Rejects = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep what is left out in this file. (default: only count it)"),
]


@app.command(
    name="csv",
    epilog=examples(
        "import csv runs.csv --map id=no --set workflow_id=bills --dry-run",
        "import csv - --zone UTC --status ok=success <runs.csv",
    ),
)
def csv_(
    file: _File,
    *,
    columns: _Map = None,
    constants: _Set = None,
    status: _Status = None,
    zone: _Zone = None,
    time_format: _TimeFormat = None,
    delimiter: Annotated[str, typer.Option(metavar="CHARACTER", help="What is between two cells.")] = ",",
    encoding: _Encoding = None,
    dry_run: _DryRun = False,
    rejects: _Rejects = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Import the rows of a CSV file, whose first line names the columns.

    Exits 1 if anything was left out for another reason than its age, and 130 if it was stopped.
    """
    from run_log.projector.imports import batches_of, csv_runs

    mapping = _mapping(columns, constants, status, zone, time_format)
    delimiter = delimiter.replace("\\t", "\t")
    _import(
        lambda _settings, redact, _report: batches_of(
            csv_runs(file, mapping, delimiter=delimiter, encoding=encoding, redact=redact)
        ),
        dry_run=dry_run,
        rejects=rejects,
        output=output,
        mapping=mapping,
    )


@app.command(
    epilog=examples(
        "import jsonl runs.jsonl --dry-run",
        "import jsonl runs.jsonl --map id=run.uuid --time-format ms",
    )
)
def jsonl(
    file: _File,
    *,
    columns: _Map = None,
    constants: _Set = None,
    status: _Status = None,
    zone: _Zone = None,
    time_format: _TimeFormat = None,
    encoding: _Encoding = None,
    dry_run: _DryRun = False,
    rejects: _Rejects = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Import a file with one JSON object on each line, such as listings print with -o jsonl.

    A.B as a column is the key B of the object A. Exits as 'import csv' does.
    """
    from run_log.projector.imports import batches_of, jsonl_runs

    mapping = _mapping(columns, constants, status, zone, time_format)
    _import(
        lambda _settings, redact, _report: batches_of(
            jsonl_runs(file, mapping, encoding=encoding, redact=redact)
        ),
        dry_run=dry_run,
        rejects=rejects,
        output=output,
        mapping=mapping,
    )


@app.command(
    epilog=examples("import celery sqlite:///results.db --dry-run", "import celery redis://localhost:6379/0")
)
def celery(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            show_default=False,
            help="The result back end: a database as SQLAlchemy names it, such as sqlite:///results.db, or "
            "redis://HOST:6379/0.",
        ),
    ],
    *,
    workflow: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="The workflow of tasks whose names Celery did not store. (default: leave them out)",
        ),
    ] = None,
    status: _Status = None,
    zone: Annotated[str, typer.Option(metavar="ZONE", help="Celery's setting 'timezone'.")] = "UTC",
    key_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX", help="Of Redis: Celery's setting 'global_keyprefix'. (default: no prefix)"
        ),
    ] = None,
    dry_run: _DryRun = False,
    rejects: _Rejects = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Import the tasks of Celery's result back end, a database or Redis. It is only read.

    Exits as 'import csv' does.
    """
    require("import")
    from datetime import UTC

    from run_log.projector.imports import CELERY_STATUSES, batches_of, celery_runs, status_words, time_zone

    statuses = status_words(status or (), CELERY_STATUSES)
    of_times = time_zone(zone) or UTC
    _import(
        lambda _settings, redact, _report: batches_of(
            celery_runs(
                url,
                workflow_id=workflow,
                statuses=statuses,
                zone=of_times,
                key_prefix=key_prefix,
                redact=redact,
            )
        ),
        dry_run=dry_run,
        rejects=rejects,
        output=output,
    )


@app.command(epilog=examples("import airflow postgresql+psycopg://airflow@db/airflow --dry-run"))
def airflow(
    url: _Url, *, dry_run: _DryRun = False, rejects: _Rejects = None, output: Output = OutputFormat.TABLE
) -> None:
    """Import the DAG runs of Airflow's metadata database, with tasks as steps. It is only read.

    Airflow 2.2 or newer. Exits as 'import csv' does.
    """
    require("import")
    from run_log.projector.imports import airflow_runs, batches_of

    _import(
        lambda _settings, redact, _report: batches_of(airflow_runs(url, redact=redact)),
        dry_run=dry_run,
        rejects=rejects,
        output=output,
    )


@app.command(epilog=examples("import root old_runs --dry-run"))
def root(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="The root collection in Firestore.")
    ],
    *,
    dry_run: _DryRun = False,
    rejects: _Rejects = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Import documents of the service that run-log began from, out of a root collection of Firestore.

    Exits as 'import csv' does.
    """
    require("stores")
    from run_log.projector.imports import root_runs

    _import(
        lambda settings, _redact, report: root_runs(settings, name, report.without),
        dry_run=dry_run,
        rejects=rejects,
        output=output,
    )


def _mapping(
    columns: list[str] | None,
    constants: list[str] | None,
    status: list[str] | None,
    zone: str | None,
    time_format: str | None,
) -> FieldMapping:
    from run_log.projector.imports import FieldMapping, status_words, time_zone

    return FieldMapping(
        columns=[_pair(text, "--map", "COLUMN") for text in columns or ()],
        constants=[_pair(text, "--set", "VALUE") for text in constants or ()],
        statuses=status_words(status or ()),
        zone=time_zone(zone),
        time_format=time_format,
    )


def _pair(text: str, option: str, value: str) -> tuple[str, str]:
    from run_log.core import InvalidArgumentError

    field, equals, given = text.partition("=")
    if not equals or not given:
        raise InvalidArgumentError(f"{option} {text!r} is not FIELD={value}")
    return field.strip(), given


def _import(
    source: Source,
    *,
    dry_run: bool,
    rejects: Path | None,
    output: OutputFormat,
    mapping: FieldMapping | None = None,
) -> None:
    from run_log.console.log_lines import log_to_stderr
    from run_log.console.work.imports import import_until_signal
    from run_log.console.work.opening import complete
    from run_log.core import Settings

    settings = Settings.from_env()
    log_to_stderr()
    done = complete(import_until_signal(settings, source, dry_run=dry_run, rejects=rejects))
    show(output, done.record, lambda: done.views)
    if mapping is not None and mapping.unused:
        note(f"columns that are no field (--map FIELD=COLUMN takes them): {', '.join(mapping.unused)}")
    for line in done.advice:
        note(line)
    if not done.report.complete:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if done.report.rejects:
        raise typer.Exit(ExitCode.FAILED)
