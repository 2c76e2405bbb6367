"""``run-log dead-letters``: messages that could not be projected."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from run_log.console.exit_codes import require
from run_log.console.options import (
    Limit,
    Output,
    Wide,
    WorkflowOption,
    duration,
    examples,
    group,
    moment,
    shape,
)
from run_log.console.views.output import OutputFormat, show

if TYPE_CHECKING:
    from run_log.projector import LetterChoice

app: Final = group("Messages that could not be projected. A command leases them while it works.")

_ID: Final = typer.Argument(
    metavar="MESSAGE_ID",
    show_default=False,
    help="The id of a letter, or of the message that became it, as logs have it.",
)
_Reason = Annotated[
    list[str] | None,
    typer.Option(
        "--reason", metavar="REASON", help="Only letters with this reason; can be repeated. (default: any)"
    ),
]
_Since = Annotated[
    str | None, typer.Option(metavar="MOMENT", help="Only letters since then: 2h, or 2026-03-04T12:00:00Z.")
]
_Until = Annotated[str | None, typer.Option(metavar="MOMENT", help="Only letters from before then.")]
_All = Annotated[bool, typer.Option("--all", help="All letters.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would be done.")]
_Quiet = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0.1,
        help="Stop looking for more after so many seconds without a new letter.",
    ),
]
# The default of the library, which is not imported for a help text.
QUIET_SECONDS: Final = 5.0


@app.command(
    name="list",
    epilog=examples("dead-letters list --reason undecodable --since 24h", "dead-letters list --all -o jsonl"),
)
def list_(
    *,
    reason: _Reason = None,
    since: _Since = None,
    until: _Until = None,
    workflow: WorkflowOption = None,
    limit: Limit = 50,
    everything: _All = False,
    wait: _Quiet = QUIET_SECONDS,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List dead letters: since when, why, and of which run. Nothing is changed."""
    require("projector")
    from run_log.console.work.dead_letters import complete_or_stop, list_letters

    output = shape(output, wide=wide)
    choice = _choice(None, reason, since, until, workflow)
    most = None if everything else limit
    complete_or_stop(list_letters(choice, limit=most, quiet_seconds=wait, output=output))


@app.command(name="show", epilog=examples("dead-letters show 4711 -o json"))
def show_(
    message_id: Annotated[str, _ID], *, wait: _Quiet = QUIET_SECONDS, output: Output = OutputFormat.TABLE
) -> None:
    """Show one dead letter: its reason, its attributes, its body."""
    require("projector")
    from run_log.console.views.records import letter_record
    from run_log.console.views.tables import letter_sheet
    from run_log.console.work.dead_letters import complete_or_stop, find_letter

    letter = complete_or_stop(find_letter(message_id, quiet_seconds=wait))
    show(output, letter_record(letter), lambda: [letter_sheet(letter)])


@app.command(
    epilog=examples(
        "dead-letters redrive --reason unsupported_version --dry-run",
        "dead-letters redrive 4711 --body repaired.json",
        "dead-letters redrive --reason clock_ahead --earlier 3650d",
    )
)
def redrive(
    message_ids: Annotated[list[str] | None, _ID] = None,
    *,
    reason: _Reason = None,
    since: _Since = None,
    until: _Until = None,
    workflow: WorkflowOption = None,
    everything: _All = False,
    body: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Publish the event in this file instead of the letter's body. (default: as it is)",
        ),
    ] = None,
    earlier: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How far ahead the clock was, such as 3650d: letters with the reason clock_ahead are "
            "published with stamps so much earlier. (default: unchanged, once their time has come)",
        ),
    ] = None,
    dry_run: _DryRun = False,
    wait: _Quiet = QUIET_SECONDS,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Publish dead letters again, as the messages they were.

    A letter that would only come back is kept. Exits 1 if any is kept. You can repeat the command, also after
    a kill.
    """
    require("projector")
    from run_log.console.work.dead_letters import complete_or_stop, redrive_letters
    from run_log.core import InvalidArgumentError

    output = shape(output, wide=wide)
    choice = _choice(message_ids, reason, since, until, workflow, everything=everything)
    if body is not None and len(choice.ids) != 1:
        raise InvalidArgumentError("--body is for one dead letter; pass its id")
    work = redrive_letters(
        choice,
        repaired=None if body is None else body.read_bytes(),
        earlier=timedelta(0) if earlier is None else duration(earlier),
        dry_run=dry_run,
        quiet_seconds=wait,
        output=output,
    )
    complete_or_stop(work)


@app.command(
    epilog=examples(
        "dead-letters discard 4711", "dead-letters discard --reason unknown_type --into discarded.jsonl"
    )
)
def discard(
    message_ids: Annotated[list[str] | None, _ID] = None,
    *,
    reason: _Reason = None,
    since: _Since = None,
    until: _Until = None,
    workflow: WorkflowOption = None,
    everything: _All = False,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Append the letters to this file first, one JSON object on each line. (default: none)",
        ),
    ] = None,
    dry_run: _DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --all.")] = False,
    wait: _Quiet = QUIET_SECONDS,
    wide: Wide = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Throw dead letters away. Asks first with --all."""
    require("projector")
    from run_log.console.work import dead_letters as work
    from run_log.console.work.opening import complete

    output = shape(output, wide=wide)
    choice = _choice(message_ids, reason, since, until, workflow, everything=everything)
    if everything and not dry_run:
        # Asked before anything is leased, so that nothing is held while nobody answers, and only once Pub/Sub
        # answers, so that nobody is asked in vain. Outside of an event loop Ctrl-C ends the question.
        complete(work.reached_letters())
        work.agree_to_discard_all(into=into, yes=yes)
    work.complete_or_stop(
        work.discard_letters(choice, into=into, dry_run=dry_run, quiet_seconds=wait, output=output)
    )


def _choice(
    ids: list[str] | None,
    reasons: list[str] | None,
    since: str | None,
    until: str | None,
    workflow: str | None,
    *,
    everything: bool | None = None,
) -> LetterChoice:
    # Where *everything* is None, all are meant without --all.
    from run_log.core import InvalidArgumentError, utc_now
    from run_log.projector import LetterChoice

    now = utc_now()
    choice = LetterChoice(
        ids=frozenset(ids or ()),
        reasons=frozenset(reasons or ()),
        since=moment(since, now),
        until=moment(until, now),
        workflow_id=workflow,
    )
    if choice.ids and everything:
        raise InvalidArgumentError("name dead letters by their ids, or pass --all, not both")
    if everything is False and not choice.ids and not choice.filters:
        raise InvalidArgumentError("choose dead letters: pass ids, filters, or --all")
    return choice
