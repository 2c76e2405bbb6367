"""``run-log runs resume``, ``reject`` and ``cancel``: answer paused runs, and record that one was stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from run_log.console.options import RunId, WorkflowId
from run_log.console.views.output import note

if TYPE_CHECKING:
    from run_log.core import WorkflowRun
    from run_log.stores import RunLog

_By = Annotated[str, typer.Option("--by", metavar="WHO", help="Who answers.")]
_Comment = Annotated[str | None, typer.Option(metavar="TEXT", help="Their comment.")]
_Choice = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Which of the choices they take; see 'runs pending'.")
]
_Values = Annotated[
    list[str] | None,
    typer.Option(
        "--value",
        metavar="NAME=VALUE",
        help="What they fill in, as JSON or else as text; can be repeated.",
    ),
]
_IfVersion = Annotated[
    str | None,
    typer.Option(
        "--if-version",
        metavar="VERSION",
        help="Only if this pause is not answered yet; 'runs pending --wide' shows its version.",
    ),
]


def resume(
    workflow: WorkflowId,
    run: RunId,
    by: _By,
    comment: _Comment = None,
    choice: _Choice = None,
    value: _Values = None,
    if_version: _IfVersion = None,
) -> None:
    """Answer a paused run, so that it continues."""
    _answer(
        "resume", workflow, run, by=by, comment=comment, choice=choice, value=value, if_version=if_version
    )


def reject(
    workflow: WorkflowId,
    run: RunId,
    by: _By,
    comment: _Comment = None,
    choice: _Choice = None,
    value: _Values = None,
    if_version: _IfVersion = None,
) -> None:
    """Answer a paused run, so that it ends as failed."""
    _answer(
        "reject", workflow, run, by=by, comment=comment, choice=choice, value=value, if_version=if_version
    )


def cancel(
    workflow: WorkflowId,
    run: RunId,
    by: Annotated[str, typer.Option("--by", metavar="WHO", help="Who stopped it.")],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
) -> None:
    """Record that a run was stopped. It does not stop the run itself.

    A run that has ended already stays as it is, and the command exits 1.
    """
    from run_log.console.exit_codes import ExitCode
    from run_log.console.work.opening import asked, delivered
    from run_log.core import RunStatus

    async def cancelled(log: RunLog) -> WorkflowRun:
        found = await log.cancel(workflow, run, cancelled_by=by, reason=reason)
        await delivered(log)
        return found

    status = asked(cancelled, saves=True).status
    note(f"run {run!r} of workflow {workflow!r} is {status.value}")
    if status is not RunStatus.CANCELLED:
        raise typer.Exit(ExitCode.FAILED)


def _answer(
    answer: str,
    workflow: str,
    run: str,
    *,
    by: str,
    comment: str | None,
    choice: str | None,
    value: list[str] | None,
    if_version: str | None,
) -> None:
    from run_log.console.work.opening import asked, delivered

    values = _filled_in(value)

    async def answered(log: RunLog) -> WorkflowRun:
        call = log.resume if answer == "resume" else log.reject
        found = await call(
            workflow,
            run,
            answered_by=by,
            comment=comment,
            choice=choice,
            values=values,
            if_version=if_version,
        )
        await delivered(log)
        return found

    note(f"run {run!r} of workflow {workflow!r} is {asked(answered, saves=True).status.value}")


def _filled_in(given: list[str] | None) -> dict[str, Any] | None:
    """Return what options of ``NAME=VALUE`` say, each value as JSON if it is that."""
    from run_log.core import InvalidArgumentError
    from run_log.core.payload import decode_foreign_json

    if not given:
        return None
    values: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not name or not equals:
            raise InvalidArgumentError(f"--value {each!r} is no NAME=VALUE")
        try:
            values[name] = decode_foreign_json(text)
        except (ValueError, RecursionError):
            values[name] = text
    return values
