"""``run-log runs`` and ``run-log workflows``: show runs, and watch them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from run_log.console.commands import answers
from run_log.console.options import (
    After,
    All,
    Limit,
    Output,
    RunId,
    Wide,
    WorkflowId,
    WorkflowOption,
    duration,
    examples,
    group,
    label_pair,
    moment,
    shape,
)
from run_log.console.views.output import Listing, OutputFormat, own_json, say, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from run_log.stores import RunLog
    from run_log.stores.listings import RunConditions

_T = TypeVar("_T")

app: Final = group("Show runs, watch them, and answer paused ones.")


_Workflow = Annotated[
    str | None,
    typer.Argument(
        metavar="WORKFLOW", show_default=False, help="Only runs of this workflow. (default: of all)"
    ),
]
_Status = Annotated[
    list[str] | None,
    typer.Option(metavar="STATUS", help="Only runs in this status; can be repeated. (default: any)"),
]
_Failed = Annotated[bool, typer.Option("--failed", help="Only failed runs: short for --status failed.")]
_Since = Annotated[
    str | None,
    typer.Option(metavar="MOMENT", help="Only runs started since then: 2h, or 2026-03-04T12:00:00Z."),
]
_Until = Annotated[str | None, typer.Option(metavar="MOMENT", help="Only runs started before then.")]
_Trigger = Annotated[
    str | None, typer.Option(metavar="TYPE", help="Only runs with this trigger: scheduled, webhook, ...")
]
_Label = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="Only runs with this label; can be repeated, then with all of them."
    ),
]
_Parent = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="WORKFLOW RUN", show_default=False, help="Only runs that this run started."),
]
_ErrorType = Annotated[
    str | None,
    typer.Option("--error-type", metavar="NAME", help="Only runs that ended by this exception: ValueError."),
]


@app.command(
    name="list",
    epilog=examples(
        "runs list invoices --status failed --since 24h",
        "runs list --failed --label customer=acme",
        "runs list invoices --all -o jsonl",
    ),
)
def list_(
    workflow: _Workflow = None,
    *,
    status: _Status = None,
    failed: _Failed = False,
    since: _Since = None,
    until: _Until = None,
    trigger: _Trigger = None,
    label: _Label = None,
    parent: _Parent = None,
    error_type: _ErrorType = None,
    order: Annotated[
        str, typer.Option(metavar="ORDER", help="Which come first: newest or oldest.")
    ] = "newest",
    limit: Limit = 50,
    after: After = None,
    all_pages: All = False,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the runs of a workflow, or of all, newest first."""
    from run_log.console.views.tables import runs_table
    from run_log.console.work.opening import asked

    filters = _filters(
        status,
        failed=failed,
        since=since,
        until=until,
        trigger=trigger,
        label=label,
        parent=parent,
        error_type=error_type,
    )
    table = partial(runs_table, workflow_id=workflow)
    listing = Listing(shape(output, wide=wide), "runs", table=table, record=own_json)
    # No table shows them.
    payloads = output in {OutputFormat.JSON, OutputFormat.JSONL}
    asked(
        lambda log: listing.walk(
            lambda cursor: log.list_runs(
                workflow, limit=limit, start_after=cursor, payloads=payloads, order=order, **filters
            ),
            after=after,
            all_pages=all_pages,
        )
    )


@app.command(
    epilog=examples("runs count invoices --failed --since 24h", "runs count --label customer=acme -o json")
)
def count(
    workflow: _Workflow = None,
    *,
    status: _Status = None,
    failed: _Failed = False,
    since: _Since = None,
    until: _Until = None,
    trigger: _Trigger = None,
    label: _Label = None,
    parent: _Parent = None,
    error_type: _ErrorType = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Count the runs that "runs list --all" shows, without reading them.

    On Firestore, only by what one index finds: of filters that need more, it says which.
    """
    from run_log.console.work.opening import asked

    filters = _filters(
        status,
        failed=failed,
        since=since,
        until=until,
        trigger=trigger,
        label=label,
        parent=parent,
        error_type=error_type,
    )
    found = asked(lambda log: log.count_runs(workflow, **filters))
    if output in {OutputFormat.JSON, OutputFormat.JSONL}:
        show(output, {"runs": found}, tuple)
    else:
        say(str(found))


def _filters(
    status: list[str] | None,
    *,
    failed: bool,
    since: str | None,
    until: str | None,
    trigger: str | None,
    label: list[str] | None,
    parent: tuple[str, str] | None,
    error_type: str | None,
) -> RunConditions:
    """Return what the options of a command say about runs."""
    from run_log.core import utc_now

    now = utc_now()
    return {
        "status": [*(status or ()), *(["failed"] if failed else ())] or None,
        "since": moment(since, now),
        "until": moment(until, now),
        "trigger_type": trigger,
        "label": [label_pair(text) for text in label] if label else None,
        "parent": parent,
        "error_type": error_type,
    }


@app.command(epilog=examples("runs failures --since 24h", "runs failures invoices -o json"))
def failures(
    workflow: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKFLOW", show_default=False, help="Only failures of this workflow. (default: of all)"
        ),
    ] = None,
    *,
    since: _Since = None,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show the newest failures, in groups of the same error.

    Of the newest 500. Numbers and ids in an error are shown as #.
    """
    from run_log.console.views.tables import failures_table
    from run_log.console.work.opening import asked
    from run_log.core import utc_now

    begun = moment(since, utc_now())
    groups = asked(lambda log: log.list_failures(workflow, begun))
    table = partial(failures_table, workflow_id=workflow)
    listing = Listing(shape(output, wide=wide), "failures", table=table, record=own_json)
    listing.add(groups)
    listing.end()


@app.command(name="show", epilog=examples("runs show invoices run-17 -o json"))
def show_(workflow: WorkflowId, run: RunId, output: Output = OutputFormat.TABLE) -> None:
    """Show one run: its state, its payloads, its error."""
    from run_log.console.views.tables import run_sheet
    from run_log.console.work.opening import asked
    from run_log.core import RunNotFoundError

    stored = asked(lambda log: log.get_run(workflow, run))
    if stored is None:
        raise RunNotFoundError(workflow, run)
    show(output, stored.to_json(), lambda: [run_sheet(stored)])


@app.command(epilog=examples("runs steps invoices run-17"))
def steps(
    workflow: WorkflowId, run: RunId, *, wide: Wide = False, output: Output = OutputFormat.TABLE
) -> None:
    """Show the steps of a run, in the order in which they started."""
    from run_log.console.views.tables import steps_table

    listing = Listing(shape(output, wide=wide), "steps", table=steps_table, record=own_json)
    listing.add(_of_run(workflow, run, lambda log: log.get_steps(workflow, run)))
    listing.end()


@app.command(epilog=examples("runs history invoices run-17"))
def history(
    workflow: WorkflowId, run: RunId, *, wide: Wide = False, output: Output = OutputFormat.TABLE
) -> None:
    """Show each change of a run: when, how long, who answered what."""
    from run_log.console.views.tables import history_table

    listing = Listing(shape(output, wide=wide), "transitions", table=history_table, record=own_json)
    listing.add(_of_run(workflow, run, lambda log: log.get_history(workflow, run)))
    listing.end()


def _of_run(workflow: str, run: str, ask: Callable[[RunLog], Awaitable[Sequence[_T]]]) -> Sequence[_T]:
    """Return what *ask* finds of a run: a run may have no step, or only steps and so no transition yet."""
    from run_log.console.work.opening import asked
    from run_log.core import RunNotFoundError

    async def read(log: RunLog) -> Sequence[_T]:
        found = await ask(log)
        if not found and await log.get_run(workflow, run) is None:
            raise RunNotFoundError(workflow, run)
        return found

    return asked(read)


@app.command(
    epilog=examples(
        "runs watch",
        "runs watch invoices -o jsonl",
        "runs watch invoices run-17 --exit-status --timeout 600",
    )
)
def watch(
    workflow: Annotated[
        str | None, typer.Argument(metavar="WORKFLOW", show_default=False, help="Only runs of this workflow.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", show_default=False, help="Only this run, until it ends."),
    ] = None,
    *,
    cursor: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR", help="Continue after the update with this cursor. (default: from now on)"
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="Exit 5 if the run has not ended in time. (default: never)"
        ),
    ] = None,
    exit_status: Annotated[
        bool, typer.Option("--exit-status", help="Exit 1 unless the run ended in success.")
    ] = False,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show changes of runs as they come.

    Goes on until Ctrl-C, or with RUN until that run ends.
    """
    from run_log.console.exit_codes import ExitCode
    from run_log.console.work.opening import complete
    from run_log.console.work.watch import watch_one, watch_runs
    from run_log.core import InvalidArgumentError, RunStatus

    if run is None and (timeout is not None or exit_status):
        raise InvalidArgumentError(
            "--timeout and --exit-status are for one run; pass its id after its workflow"
        )
    output = shape(output, wide=wide)
    if workflow is None or run is None:
        complete(watch_runs(workflow, cursor=cursor, output=output))
        return
    ended = complete(watch_one(workflow, run, cursor=cursor, within=timeout, output=output))
    if exit_status and ended.status is not RunStatus.SUCCESS:
        raise typer.Exit(ExitCode.FAILED)


@app.command(epilog=examples("runs stats invoices", "runs stats invoices --window 7d -o json"))
def stats(
    workflow: WorkflowId,
    window: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only runs started within this time: 12h, 7d. (default: all)"),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show counts, success rate, durations and last runs."""
    from run_log.console.views.tables import summary_view
    from run_log.console.work.opening import asked

    back = None if window is None else duration(window)
    summary = asked(lambda log: log.get_summary(workflow, back))
    show(output, summary.to_json(), lambda: summary_view(summary))


@app.command(epilog=examples("runs pending --assignee ann --overdue"))
def pending(
    *,
    assignee: Annotated[
        str | None, typer.Option(metavar="WHO", help="Only runs that wait for this person. (default: all)")
    ] = None,
    overdue: Annotated[
        bool | None,
        typer.Option(
            "--overdue/--in-time", help="Only runs past their deadline, or only the others. (default: both)"
        ),
    ] = None,
    workflow: WorkflowOption = None,
    limit: Limit = 50,
    after: After = None,
    all_pages: All = False,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the runs that wait for an answer."""
    from run_log.console.views.tables import pending_table
    from run_log.console.work.opening import asked

    listing = Listing(shape(output, wide=wide), "pending_runs", table=pending_table, record=own_json)
    asked(
        lambda log: listing.walk(
            lambda cursor: log.list_pending(
                assignee=assignee, overdue=overdue, workflow_id=workflow, limit=limit, start_after=cursor
            ),
            after=after,
            all_pages=all_pages,
        )
    )


def workflows(
    *,
    limit: Limit = 50,
    after: After = None,
    all_pages: All = False,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the workflows that have runs, with their counts."""
    from run_log.console.views.tables import workflows_table
    from run_log.console.work.opening import asked

    listing = Listing(shape(output, wide=wide), "workflows", table=workflows_table, record=own_json)
    asked(
        lambda log: listing.walk(
            lambda cursor: log.list_workflows(limit=limit, start_after=cursor),
            after=after,
            all_pages=all_pages,
        )
    )


app.command(
    epilog=examples(
        "runs resume expenses run-17 --by ann --comment 'as agreed'",
        "runs resume expenses run-17 --by ann --choice pay --value eur=42",
    )
)(answers.resume)
app.command(epilog=examples("runs reject expenses run-17 --by ann"))(answers.reject)
app.command(epilog=examples("runs cancel invoices run-17 --by ann --reason 'no longer needed'"))(
    answers.cancel
)
