"""``run-log emit`` and ``run-log schema``: an event by hand, and the schema of events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from run_log.console.options import WorkflowId, examples, group, json_object, labels
from run_log.console.views.output import note, say, write

schema: Final = group("The schema of events.")


def emit(
    workflow: WorkflowId,
    *,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="The run's id. (default: a new id)")
    ] = None,
    status: Annotated[str, typer.Option(metavar="STATUS", help="The status of the run now.")] = "success",
    data: Annotated[
        str | None, typer.Option(metavar="JSON", help="Its trigger data, an object. (default: {})")
    ] = None,
    result: Annotated[
        str | None, typer.Option(metavar="JSON", help="Its result, an object. (default: {})")
    ] = None,
    error: Annotated[str | None, typer.Option(metavar="TEXT", help="Its error.")] = None,
    trigger: Annotated[
        str | None, typer.Option(metavar="TYPE", help="What started it. (default: manual, or as before)")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label; repeat it for more.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Wait until queries see it; exit 5 if they do not in time. (default: do not wait)",
        ),
    ] = None,
) -> None:
    """Emit the state of a run, and print the run's id.

    Use it to try a deployment: with this RUN_LOG_BACKEND, events of workflows take the same path.
    """
    from run_log.console.work.emit import emit_state
    from run_log.console.work.opening import complete

    fields: dict[str, Any] = {
        "status": status,
        "trigger_data": json_object(data, "--data"),
        "result": json_object(result, "--result"),
        "error": error,
    }
    if trigger is not None:
        fields["trigger_type"] = trigger
    if label:
        fields["labels"] = labels(label)
    emitted, seconds = complete(emit_state(workflow, run, fields, wait=wait))
    say(emitted.id)
    if seconds is not None:
        note(f"queries saw it after {seconds:.3f} s")


@schema.command(epilog=examples("schema export --into run-state.json"))
def export(
    *,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write it to this file. (default: to stdout)"),
    ] = None,
) -> None:
    """Print the JSON Schema of an event's body."""
    from run_log.core import ConfigurationError
    from run_log.core.schema import event_schema_text

    text = event_schema_text()
    if into is None:
        write(text.removesuffix("\n").split("\n"))
        return
    try:
        into.write_text(text, encoding="utf-8")
    except OSError as fault:
        raise ConfigurationError(f"cannot write {into}: {fault.strerror}; pass another file") from fault
    note(f"wrote {into}")
