"""``run-log sweep``: find lost runs."""

from __future__ import annotations

from typing import Annotated

import typer

from run_log.console.options import Output, Wide, WorkflowOption, duration, shape
from run_log.console.views.output import OutputFormat


def sweep(
    *,
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Least age of the newest event: 90m, 24h, 2d.")
    ],
    workflow: WorkflowOption = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="Mark them as failed. (default: only show them)")
    ] = False,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show runs that have not ended and sent no event for long; mark them as lost.

    Paused runs are left out: they wait for an answer. Each run is read again before it is marked, and a later
    event of the run replaces the mark. Exits 1 if one cannot be marked.
    """
    from run_log.console.exit_codes import ExitCode
    from run_log.console.views.output import Listing, note
    from run_log.console.views.records import stale_record
    from run_log.console.views.tables import stale_table
    from run_log.console.work.opening import complete, opened_run_log
    from run_log.console.work.sweep import Swept
    from run_log.console.work.sweep import sweep as run_sweep
    from run_log.core import utc_now

    silence = duration(older_than)
    listing = Listing(shape(output, wide=wide), "stale_runs", table=stale_table, record=stale_record)

    async def swept() -> Swept:
        async with opened_run_log(saves=mark) as log:
            return await run_sweep(
                log, listing, older_than=silence, workflow_id=workflow, mark=mark, now=utc_now()
            )

    done = complete(swept())
    told = f"{done.marked} marked as lost" if mark else "none marked; pass --mark to mark them"
    told += f"; {done.refused} cannot be marked, see above" if done.refused else ""
    note(f"{done.found} without an event for {older_than}; {told}")
    if done.refused:
        raise typer.Exit(ExitCode.FAILED)
