"""Options that several commands share, and how their values are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, cast

import typer

from .views.output import OutputFormat

Output = Annotated[
    OutputFormat,
    typer.Option(
        "--output",
        "-o",
        help="A table for people; for programs one JSON document, or one on each line.",
    ),
]
Wide = Annotated[
    bool,
    typer.Option("--wide", help="Show each row whole, on one line. (default: fit the terminal)"),
]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=1_000, help="Show at most so many.")]
After = Annotated[
    str | None,
    typer.Option(
        metavar="CURSOR", help="Continue after the page that ended with this cursor. (default: start)"
    ),
]
All = Annotated[bool, typer.Option("--all", help="Show every page. (default: one page)")]
WorkflowOption = Annotated[
    str | None, typer.Option("--workflow", metavar="ID", help="Only runs of this workflow. (default: all)")
]
WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", show_default=False, help="The workflow's id.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="The run's id.")]


def group(text: str) -> typer.Typer:
    """Return an empty group of commands with the help *text*."""
    # Without rich: it takes twice as long to load, and reads brackets as markup.
    return typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def examples(*calls: str) -> str:
    """Return the end of a command's help: *calls* as examples."""
    heading = "Examples:" if len(calls) > 1 else "Example:"
    # The backspace keeps the lines: without it they would be filled to one paragraph.
    return "\n".join(("\b", heading, *(f"  run-log {call}" for call in calls)))


def shape(output: OutputFormat, *, wide: bool) -> OutputFormat:
    """Return the format to print in: *output*, or wide rows if *wide* is given with a table."""
    return OutputFormat.WIDE if wide and output is OutputFormat.TABLE else output


def duration(text: str) -> timedelta:
    """Parse a duration such as ``90m``; see `words.duration`."""
    from run_log.core import words

    return words.duration(text)


def moment(text: str | None, now: datetime) -> datetime | None:
    """Parse a moment such as ``2h`` before *now*; see `words.moment`. None is none."""
    from run_log.core import words

    return None if text is None else words.moment(text, now)


def label_pair(text: str) -> tuple[str, str]:
    """Parse a label such as ``customer=acme``; see `words.label_pair`."""
    from run_log.core import words

    return words.label_pair(text)


def json_object(text: str | None, option: str) -> dict[str, Any]:
    """Parse a JSON object; None is an empty one. Anything else is an `InvalidArgumentError`."""
    import json

    from run_log.core import InvalidArgumentError

    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{option} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgumentError(
            f"{option} is a JSON {type(found).__name__}; pass an object, such as '{{}}'"
        )
    return cast("dict[str, Any]", found)


def labels(texts: Sequence[str]) -> dict[str, str]:
    """Parse labels, each ``KEY=VALUE``. Anything else is an `InvalidArgumentError`."""
    from run_log.core import InvalidArgumentError
    from run_log.core.fields import LABEL_HINT, is_label

    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not is_label(key, value):
            raise InvalidArgumentError(f"{text!r} is no label KEY=VALUE: {LABEL_HINT}")
        found[key] = value
    return found
