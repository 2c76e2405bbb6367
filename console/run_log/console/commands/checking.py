"""``run-log doctor``, ``verify`` and ``sweep``: whether a deployment, its counts and its runs are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from run_log.console.exit_codes import ExitCode
from run_log.console.options import Output, Wide, WorkflowOption, duration, shape
from run_log.console.views.output import Listing, OutputFormat, note, own_json

if TYPE_CHECKING:
    from run_log.console.checks import Check


def doctor(
    *,
    probe: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Also emit an event, which queries must see in time. (default: do not)",
        ),
    ] = None,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check each part of a deployment, and say what to do.

    Checks settings, credentials, topics, subscriptions, dead letters, the store, clocks, indexes, expiry and
    lag. Changes nothing, except that --probe emits the run 'probe' of workflow 'run-log-doctor'. Exits 1 if
    something is wrong.
    """
    from run_log.core import Settings

    # A wrong setting is told at once, before slower imports.
    settings = Settings.from_env()
    from run_log.console.checks import Verdict
    from run_log.console.views.tables import checks_table
    from run_log.console.work.doctor import examine
    from run_log.console.work.opening import complete

    listing: Listing[Check] = Listing(
        shape(output, wide=wide), "checks", table=checks_table, record=lambda check: check.record
    )

    async def examined() -> list[Check]:
        return [check async for check in examine(settings, probe=probe)]

    checks = complete(examined())
    listing.add(checks)
    listing.end()
    if any(check.verdict is Verdict.WRONG for check in checks):
        raise typer.Exit(ExitCode.FAILED)


def verify(
    workflow: Annotated[
        str | None, typer.Argument(metavar="WORKFLOW", show_default=False, help="Only this workflow.")
    ] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct wrong counts. (default: only show them)")
    ] = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Keep what is found for the dashboard's operations page. (default: only show it)"
        ),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="ROOT",
            help="Compare with another root collection; with SQLite another file. (default: recount)",
        ),
    ] = None,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Recount runs, and show wrong counts and unreadable runs.

    With --repair, wrong counts are corrected, even while others write. With --against, two projections are
    compared document by document. Exits 1 if something differs and was not repaired.
    """
    from run_log.console.work.opening import complete
    from run_log.console.work.verify import compare_roots, verify_counts
    from run_log.core import InvalidArgumentError

    output = shape(output, wide=wide)
    if against is None:
        work = verify_counts(workflow, repair=repair, record=record, output=output)
    elif repair or record:
        raise InvalidArgumentError(
            "--repair and --record are for one projection; pass them without --against"
        )
    else:
        work = compare_roots(workflow, against=against, output=output)
    if complete(work):
        raise typer.Exit(ExitCode.FAILED)


def sweep(
    *,
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Least age of the newest event: 90m, 24h, 2d.")
    ],
    workflow: WorkflowOption = None,
    running: Annotated[
        bool,
        typer.Option(
            "--running", help="Leave out pending runs, which may wait in a queue. (default: with them)"
        ),
    ] = False,
    mark: Annotated[
        bool,
        typer.Option(
            "--mark", help="Mark them as failed, and take defaults that are due. (default: only show them)"
        ),
    ] = False,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show runs that have been silent for long; mark them as lost.

    Paused runs are left out: they wait for an answer. But one whose deadline has passed goes on with its
    default choice, if it has one. Each run is read again before it is marked, and a later event of the run
    replaces the mark. Exits 1 if one cannot be marked.
    """
    from run_log.console.views.tables import stale_table
    from run_log.console.work import sweep as work
    from run_log.console.work.opening import asked
    from run_log.core import utc_now

    silence = duration(older_than)
    listing = Listing(shape(output, wide=wide), "stale_runs", table=stale_table, record=own_json)
    done = asked(
        lambda log: work.sweep(
            log,
            listing,
            older_than=silence,
            workflow_id=workflow,
            running_only=running,
            mark=mark,
            now=utc_now(),
        ),
        saves=mark,
    )
    told = f"{done.marked} marked as lost" if mark else "none marked; pass --mark to mark them"
    told += f"; {done.refused} cannot be marked, see above" if done.refused else ""
    note(f"{done.found} without an event for {older_than}; {told}")
    if done.due:
        told = f"{done.taken} go on with it" if mark else "pass --mark to take it"
        note(f"{done.due} paused past their deadline with a default choice; {told}")
    if done.refused:
        raise typer.Exit(ExitCode.FAILED)
