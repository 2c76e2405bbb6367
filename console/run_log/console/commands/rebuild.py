"""``run-log rebuild`` and ``run-log archive``: keep all events, and fold them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from run_log.console.exit_codes import ExitCode, require
from run_log.console.options import Output, moment
from run_log.console.views.output import OutputFormat, note, say, show

_Source = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="SOURCE",
        help="archive:PATH (a file, a folder, a pattern, or gs://...), subscription (all that the topic "
        "retains), or root:NAME (another root collection).",
    ),
]
_Into = Annotated[
    str,
    typer.Option(metavar="ROOT", help="The root collection to create; with SQLite the path of a file."),
]
_Since = Annotated[
    str | None,
    typer.Option(
        metavar="MOMENT",
        help="For a subscription: only events published since then. (default: all retained)",
    ),
]
_UntilIdle = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0.1,
        help="For a subscription: complete after so many seconds without a message.",
    ),
]
_Keep = Annotated[
    bool,
    typer.Option(
        "--keep", help="For a subscription: keep it, to continue later. (default: delete it when done)"
    ),
]
_State = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The file for its progress. (default: rebuild-ROOT-from-....state)"),
]
_Rejects = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The file for what cannot be folded. (default: beside the state, .rejects)"
    ),
]


def rebuild(
    *,
    source: _Source,
    into: _Into,
    since: _Since = None,
    until_idle: _UntilIdle = 60.0,
    keep: _Keep = False,
    state: _State = None,
    rejects: _Rejects = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Fold all known events into a new projection.

    The live projection is not changed. After a signal or a kill, the same command continues. Exits 1 if
    anything was rejected, and 130 if it was stopped before the end.
    """
    from run_log.console.log_lines import log_to_stderr
    from run_log.console.work.opening import complete
    from run_log.console.work.rebuild import named_source, rebuild_until_signal
    from run_log.core import Settings, utc_now

    settings = Settings.from_env()
    begins = named_source(source, since=moment(since, utc_now()), until_idle=until_idle, keeps=keep)
    if settings.backend != "sqlite":
        require("stores")
    if source == "subscription":
        require("producer")
    log_to_stderr()
    done = complete(rebuild_until_signal(settings, begins, into=into, state=state, rejects=rejects))
    show(output, done.record, lambda: [done.sheet])
    for line in done.advice:
        note(line)
    if not done.rebuilt.complete:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if done.rebuilt.rejects:
        raise typer.Exit(ExitCode.FAILED)


def archive(
    *,
    into: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The folder for the files; created if it does not exist.")
    ],
    subscription: Annotated[
        str,
        typer.Option(metavar="ID", help="The archive's own subscription; created if it does not exist."),
    ] = "run-log-archive",
    until_idle: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Exit 0 after so many seconds without a message, or a lease. (default: never)",
        ),
    ] = None,
    segment_bytes: Annotated[
        int, typer.Option(metavar="N", min=1, help="Begin a new file after so many bytes.")
    ] = 64 * 2**20,
) -> None:
    """Write every event to files on this machine until SIGTERM. A second signal ends the process at once.

    A message is acknowledged only once its line is on the disk, so a kill repeats some lines and loses none.
    In the cloud, a Cloud Storage subscription does the same.
    """
    require("producer")
    from run_log.console.log_lines import log_to_stderr
    from run_log.console.work.archive import archive_until_signal
    from run_log.console.work.opening import complete
    from run_log.core import Settings

    log_to_stderr()
    work = archive_until_signal(
        Settings.from_env(),
        folder=into,
        subscription=subscription,
        until_idle=until_idle,
        segment_bytes=segment_bytes,
    )
    report = complete(work)
    say(f"pulled {report.pulled}, wrote {report.written} lines into {into}")
