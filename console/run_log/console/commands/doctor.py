"""``run-log doctor``: whether a deployment can work."""

from __future__ import annotations

from typing import Annotated

import typer

from run_log.console.exit_codes import ExitCode
from run_log.console.options import Output, Wide, shape
from run_log.console.views.output import OutputFormat


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
    """Check a deployment, and say for each part that it is ok, or what to do.

    Checks settings, credentials, topics, subscriptions, dead letters, the store, clocks, indexes, expiry and
    lag. Changes nothing, except that --probe emits the run 'probe' of workflow 'run-log-doctor'. Exits 1 if
    something is wrong.
    """
    from run_log.console.views.output import Listing
    from run_log.console.work.opening import complete
    from run_log.core import Settings

    settings = Settings.from_env()
    from run_log.console.checks import Check, Verdict
    from run_log.console.views.tables import checks_table
    from run_log.console.work.doctor import examine

    listing: Listing[Check] = Listing(
        shape(output, wide=wide), "checks", table=checks_table, record=lambda check: check.record
    )

    async def examined() -> bool:
        checks = [check async for check in examine(settings, probe=probe)]
        listing.add(checks)
        listing.end()
        return all(check.verdict is not Verdict.WRONG for check in checks)

    if not complete(examined()):
        raise typer.Exit(ExitCode.FAILED)
