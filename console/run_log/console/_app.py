"""The command line: which commands there are."""

from __future__ import annotations

import sys
from typing import Final

import typer

from ._exit import run
from .commands import events, pipeline, runs
from .commands.rebuild import archive, rebuild
from .commands.sweep import sweep
from .commands.workflows import workflows

app: Final = typer.Typer(
    name="run-log",
    help="A durable, queryable history of workflow runs.",
    epilog="To have what queries read made anew, after an upgrade say: 'rebuild' folds all that is known "
    "into a fresh root collection beside the live one; then switch to that (docs/operations.md#rebuild). "
    "Exit codes: 0 done, 1 failed or a check did not hold, 2 used wrongly, 3 not found, 4 refused, "
    "5 unavailable, 130 interrupted. Every command has --help with examples; docs/operations.md tells more.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(pipeline.demo)
app.add_typer(runs.app, name="runs")
app.command(epilog="Example: run-log workflows --all -o jsonl")(workflows)
app.command(epilog="Example: run-log emit invoices --status running --data '{\"n\": 1}' --wait 10")(
    events.emit
)
app.add_typer(pipeline.projector, name="projector")
app.command()(pipeline.provision)
app.command(
    epilog="Examples: run-log rebuild --from archive:gs://bucket/run-log --into runs_2; "
    "run-log rebuild --from subscription --into runs_2; run-log rebuild --from root:runs --into runs_2"
)(rebuild)
app.command(epilog="Example: run-log archive --into /var/lib/run-log/archive")(archive)
app.command(epilog="Example: run-log sweep --older-than 24h --mark")(sweep)
app.add_typer(events.schema, name="schema")


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with an `ExitCode`."""
    sys.exit(run(app))
