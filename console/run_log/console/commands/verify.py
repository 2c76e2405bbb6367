"""``run-log verify``: whether the stored counts and runs are right."""

from __future__ import annotations

from typing import Annotated

import typer

from run_log.console.options import Output, Wide, shape
from run_log.console.views.output import OutputFormat


def verify(
    workflow: Annotated[
        str | None, typer.Argument(metavar="WORKFLOW", show_default=False, help="Only this workflow.")
    ] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct wrong counts. (default: only show them)")
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
    """Recount the runs of each workflow; show which counts differ, and which runs cannot be read.

    With --repair, wrong counts are corrected, even while others write. With --against, two projections are
    compared document by document. Exits 1 if something differs and was not repaired.
    """
    from run_log.console.exit_codes import ExitCode
    from run_log.console.work.opening import complete
    from run_log.console.work.verify import compare_roots, verify_counts
    from run_log.core import InvalidArgumentError

    if against is not None and repair:
        raise InvalidArgumentError("--repair is for one projection; pass it without --against")
    output = shape(output, wide=wide)
    if against is not None:
        work = compare_roots(workflow, against=against, output=output)
    else:
        work = verify_counts(workflow, repair=repair, output=output)
    if complete(work):
        raise typer.Exit(ExitCode.FAILED)
