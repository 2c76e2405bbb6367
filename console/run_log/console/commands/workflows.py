"""``run-log workflows``: list workflows."""

from __future__ import annotations

from run_log.console.options import After, All, Limit, Output, Wide, shape
from run_log.console.views.output import Listing, OutputFormat


def workflows(
    *,
    limit: Limit = 50,
    after: After = None,
    all_pages: All = False,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the workflows that have runs, with their counts."""
    from run_log.console.views.records import workflow_record
    from run_log.console.views.tables import workflows_table
    from run_log.console.work.opening import complete, opened_run_log

    listing = Listing(shape(output, wide=wide), "workflows", table=workflows_table, record=workflow_record)

    async def listed() -> None:
        async with opened_run_log() as log:
            await listing.walk(
                lambda cursor: log.list_workflows(limit=limit, start_after=cursor),
                after=after,
                all_pages=all_pages,
            )

    complete(listed())
