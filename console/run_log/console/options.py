"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, cast

import typer

from .views.output import OutputFormat

Output = Annotated[
    OutputFormat,
    typer.Option(
        "--output",
        "-o",
        help="A table for people, or for programs one JSON document, or one a line; alone on stdout.",
    ),
]
Wide = Annotated[
    bool,
    typer.Option("--wide", help="One line a row, with all of it. (default: as it fits the terminal)"),
]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=1_000, help="Most to show.")]
After = Annotated[
    str | None,
    typer.Option(
        metavar="CURSOR", help="Go on after the page that gave this cursor. (default: from the start)"
    ),
]
All = Annotated[bool, typer.Option("--all", help="Every page. (default: one page)")]
WorkflowOption = Annotated[
    str | None, typer.Option("--workflow", metavar="ID", help="Only of this workflow. (default: all)")
]
WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", show_default=False, help="The workflow's id.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="The run's id.")]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")


def group(text: str) -> typer.Typer:
    """Return an empty group of commands, of which the help says *text*."""
    # Plain help: rich's takes twice as long to load, and takes brackets for markup.
    return typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def examples(*calls: str) -> str:
    """Return what the help of a command ends with: how *calls* of it may look."""
    heading = "Examples:" if len(calls) > 1 else "Example:"
    # Without the first line, the lines would be filled to one paragraph.
    return "\n".join(("\b", heading, *(f"  run-log {call}" for call in calls)))


def shape(output: OutputFormat, *, wide: bool) -> OutputFormat:
    """Return what to print results as, where ``--wide`` is given or not."""
    return OutputFormat.WIDE if wide and output is OutputFormat.TABLE else output


def duration(text: str) -> timedelta:
    """Return the time that *text* says, such as ``90m``.

    Raises:
        InvalidArgumentError: It says none.
    """
    from run_log.core import InvalidArgumentError

    found = _duration(text)
    if found is None:
        raise InvalidArgumentError(
            f"{text!r} is no time; pass a whole number with s, m, h or d, such as 90m or 2d"
        )
    return found


def moment(text: str | None, now: datetime) -> datetime | None:
    """Return the moment that *text* says: ``2h`` is so long before *now*, else it is a date or a time.

    A time without an offset is in UTC.

    Raises:
        InvalidArgumentError: It says none.
    """
    from run_log.core import InvalidArgumentError

    if text is None:
        return None
    ago = _duration(text)
    if ago is not None:
        try:
            return now - ago
        except OverflowError as error:
            raise InvalidArgumentError(f"{text!r} is longer ago than any run; leave it out") from error
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgumentError(
            f"{text!r} is no moment; pass how long ago it was, such as 90m or 2d, or a time, such as "
            "2026-03-04T12:00:00Z"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def json_object(text: str | None, option: str) -> dict[str, Any]:
    """Return the JSON object that *text* is; an empty one for None.

    Raises:
        InvalidArgumentError: It is none.
    """
    import json

    from run_log.core import InvalidArgumentError

    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{option} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgumentError(
            f"{option} is a JSON {type(found).__name__}; pass an object, such as '{{}}'"
        )
    return cast("dict[str, Any]", found)


def _duration(text: str) -> timedelta | None:
    match = _DURATION.fullmatch(text)
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
