"""Where commands show things: tables for people, JSON for programs, both on stdout; the rest on stderr."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_T = TypeVar("_T")

_UNBOUNDED_COLUMNS: Final = 100_000
"""The width of what nobody looks at: no cell is cut or wrapped there."""


class OutputFormat(enum.StrEnum):
    """What a command prints its results as."""

    TABLE = "table"
    JSON = "json"
    """One document."""
    JSONL = "jsonl"
    """One document a line: each thing by itself, as soon as it is there."""


class Listing(Generic[_T]):
    """Prints things page by page, and where the next page begins.

    Args:
        output: As what.
        name: What the things are called in the one JSON document.
        table: Makes a table of a page.
        record: Makes the JSON of one thing.
    """

    def __init__(
        self,
        output: OutputFormat,
        name: str,
        *,
        table: Callable[[Sequence[_T]], Table],
        record: Callable[[_T], Mapping[str, Any]],
    ) -> None:
        self._output = output
        self._name = name
        self._table = table
        self._record = record
        self._kept: list[Mapping[str, Any]] = []
        self._shown = 0

    def add(self, page: Sequence[_T]) -> None:
        """Show one page, or keep it for the one document."""
        self._shown += len(page)
        if self._output is OutputFormat.JSON:
            self._kept += map(self._record, page)
        elif self._output is OutputFormat.JSONL:
            for thing in page:
                print_line(self._record(thing))
        elif page:
            stdout().print(self._table(page))

    async def walk(
        self,
        fetch: Callable[[str | None], Awaitable[tuple[Sequence[_T], str | None]]],
        *,
        after: str | None,
        all_pages: bool,
    ) -> None:
        """Show one page, or all that are left.

        Args:
            fetch: Returns the page after a cursor, and the next one's.
            after: Where to begin; None at the start.
            all_pages: Whether to go on until nothing is left.
        """
        cursor = after
        while True:
            page, cursor = await fetch(cursor)
            self.add(page)
            if cursor is None or not all_pages:
                break
        self.end(cursor)

    def end(self, next_cursor: str | None = None) -> None:
        """Show what there is to say once there are no more pages.

        Args:
            next_cursor: Where one would go on; None where nothing is left.
        """
        if self._output is OutputFormat.JSON:
            print_document({self._name: self._kept, "next_cursor": next_cursor})
        elif not self._shown:
            note(f"no {self._name.replace('_', ' ')}")
        if next_cursor is not None and self._output is not OutputFormat.JSON:
            note(f"more: --after {next_cursor}")


def show(output: OutputFormat, record: Mapping[str, Any], render: Callable[[], Any]) -> None:
    """Print one thing.

    Args:
        output: As what.
        record: It as JSON.
        render: Makes what people see of it.
    """
    if output is OutputFormat.TABLE:
        stdout().print(render())
    elif output is OutputFormat.JSON:
        print_document(record)
    else:
        print_line(record)


def stdout() -> Console:
    """Return the console of results: coloured and as wide as a terminal, else plain and never cut."""
    from rich.console import Console

    is_seen = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return Console(soft_wrap=False, width=None if is_seen else _UNBOUNDED_COLUMNS, highlight=False)


def print_line(record: Mapping[str, Any]) -> None:
    """Print JSON on one line."""
    sys.stdout.write(json.dumps(record, default=str) + "\n")
    sys.stdout.flush()


def print_document(record: Mapping[str, Any]) -> None:
    """Print JSON for whoever looks at it too."""
    sys.stdout.write(json.dumps(record, indent=2, default=str) + "\n")


def note(text: str) -> None:
    """Say something that is no result, on stderr."""
    sys.stderr.write(f"{text}\n")
