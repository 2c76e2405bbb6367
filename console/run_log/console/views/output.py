"""Where commands show things: tables for people, JSON for programs, both on stdout; the rest on stderr."""

from __future__ import annotations

import enum
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, Generic, TextIO, TypeVar, cast

from .layout import Screen, Sheet, Styled, Table, cut, literal, painted

_T = TypeVar("_T")

_USUAL_COLUMNS: Final = 80
"""The width of a terminal that does not tell it."""

_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")
"""What `painted`, and the renderer of logs, put around a text; in anybody's text it is escaped by then."""

_DEEPEST_INDENT: Final = 20
"""Levels of JSON that are set on lines of their own; what is deeper would be mostly spaces."""


class OutputFormat(enum.StrEnum):
    """What a command prints its results as."""

    TABLE = "table"
    """Rows that fit the terminal, or whole where there is none."""
    WIDE = "wide"
    """One line a row, with all of it."""
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
        self._kept: list[str] = []
        self._shown = 0
        self.is_read = True
        """Whether anybody still reads stdout."""

    def add(self, page: Sequence[_T]) -> None:
        """Show one page, or keep it for the one document."""
        if self._output is OutputFormat.JSON:
            self._kept += (json_text(self._record(thing), indent=2) for thing in page)
        elif self._output is OutputFormat.JSONL:
            for thing in page:
                self.is_read &= print_line(self._record(thing))
        elif page:
            seen = screen(wide=self._output is OutputFormat.WIDE)
            headed = seen.width is not None or not self._shown
            self.is_read &= print_lines(self._table(page).lines(seen, headed=headed))
        self._shown += len(page)

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
            if cursor is None or not all_pages or not self.is_read:
                break
        self.end(cursor)

    def end(self, next_cursor: str | None = None) -> None:
        """Show what there is to say once there are no more pages.

        Args:
            next_cursor: Where one would go on; None where nothing is left.
        """
        if self._output is OutputFormat.JSON:
            things = ",\n".join(textwrap.indent(text, "    ") for text in self._kept)
            listed = f"[\n{things}\n  ]" if things else "[]"
            cursor = json.dumps(next_cursor)
            write(["{", *f'  "{self._name}": {listed},'.split("\n"), f'  "next_cursor": {cursor}', "}"])
        elif not self._shown:
            note(f"no {self._name.replace('_', ' ')}")
        if next_cursor is not None and self._output is not OutputFormat.JSON and self.is_read:
            note(f"more: --after {next_cursor}")


def show(
    output: OutputFormat, record: Mapping[str, Any], render: Callable[[], Iterable[Table | Sheet]]
) -> None:
    """Print one thing.

    Args:
        output: As what.
        record: It as JSON.
        render: Makes what people see of it.
    """
    if output is OutputFormat.JSON:
        write(json_text(record, indent=2).split("\n"))
    elif output is OutputFormat.JSONL:
        print_line(record)
    else:
        seen = screen(wide=output is OutputFormat.WIDE)
        lines = (("", *part.lines(seen)) for part in render())
        write([*chain.from_iterable(lines)][1:])


def prepare_streams() -> None:
    """Have stdout and stderr take any text, whatever the terminal's encoding is, and wherever they go.

    What an encoding lacks is shown as its escape, and so is what would command the terminal, whoever writes
    it. A stream that was closed before we began takes all, and keeps the first file that is opened from being
    taken for it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as we run
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Border(cast("TextIO", stream)))


def screen(*, wide: bool = False, stream: TextIO | None = None) -> Screen:
    """Return what results are laid out for: the terminal, or the width that COLUMNS names, or no bound.

    Args:
        wide: Whether there is no bound in any case.
        stream: Where they go; None for stdout.
    """
    target = sys.stdout if stream is None else stream
    # Windows sets no TERM, and its older consoles do not know the codes.
    is_dumb = os.environ.get("TERM", "dumb" if os.name == "nt" else "") in {"dumb", "unknown"}
    return Screen(
        width=None if wide else _columns(target),
        encoding=target.encoding or "utf-8",
        coloured=target.isatty() and not is_dumb and not os.environ.get("NO_COLOR"),
    )


def _columns(stream: TextIO) -> int | None:
    """Return how wide a terminal is, or what is no terminal has to be by COLUMNS; else None."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS


class Border:
    """A stream for whoever writes to it: a traceback, a library's warning, the parser of the command line.

    What could command the terminal is shown as its escape. Our own lines come past it, through `write`.

    Args:
        stream: The interpreter's own.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream: Final = stream

    def write(self, text: str) -> int:
        """Show *text*, whose lines and tabs stay."""
        encoding = self.stream.encoding
        parts: list[str] = re.split(r"([\n\t])", text)
        shown = (part if number % 2 else literal(part, encoding) for number, part in enumerate(parts))
        self.stream.write("".join(shown))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Show each of *lines*."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the stream has, but what would go round this."""
        if name in {"buffer", "detach", "reconfigure"}:
            raise AttributeError(name)
        return getattr(self.stream, name)


def print_lines(lines: Iterable[str]) -> bool:
    """Print what was made for the `screen`; return whether anybody reads stdout."""
    return write(lines)


def print_line(record: Mapping[str, Any]) -> bool:
    """Print JSON on one line; return whether anybody reads stdout."""
    return write([json_text(record)])


def json_text(value: object, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """Return *value* as JSON text that gives the same value back; what JSON lacks is in its nearest form.

    Args:
        value: JSON types, but for what a damaged document may hold.
        indent: Spaces a level; None for one line, which very deep values are in any case.
        ascii_only: Whether other characters are escaped, which every encoding can take.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        from run_log.core.payload import decode_json, encode_json

        value = decode_json(encode_json(value))
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    if indent is not None and f"\n{' ' * indent * _DEEPEST_INDENT}" in text:
        return json_text(value, ascii_only=ascii_only)
    return text


def say(text: str) -> None:
    """Print a line of text on stdout."""
    write([literal(text, sys.stdout.encoding or "utf-8")])


def note(text: str, *, style: str = "") -> None:
    """Say something that is no result, on stderr.

    Args:
        text: One line, whatever is in it.
        style: Of a `Styled`.
    """
    seen = screen(stream=sys.stderr)
    write([painted(literal(text, seen.encoding), style, seen)], sys.stderr)


def ask(text: str) -> None:
    """Put a question on stderr, and leave the line open for its answer."""
    _put(literal(text, sys.stderr.encoding), sys.stderr)


class StatusLine:
    """One line on stderr that says how far work is, overwritten in place. Only a terminal shows it."""

    def __init__(self) -> None:
        self.is_shown: Final = sys.stderr.isatty()
        self._room = (_columns(sys.stderr) or _USUAL_COLUMNS) - 1
        self._taken = 0

    def tell(self, text: str) -> None:
        """Say *text*, as far as it fits, in place of what was said before."""
        if not self.is_shown:
            return
        told = Styled(literal(text, sys.stderr.encoding))
        told = cut(told, self._room, sys.stderr.encoding)
        _put(f"\r{told.text}{' ' * (self._taken - told.width)}", sys.stderr)
        self._taken = told.width

    def clear(self) -> None:
        """Take it away, so that something else can be shown."""
        if self._taken:
            self.tell("")
            _put("\r", sys.stderr)


def write(lines: Iterable[str], stream: TextIO | None = None) -> bool:
    """Write *lines* at once and return whether anybody reads them. Once nobody does, what follows is dropped.

    This is where all that we say leaves: a line is a line, and commands nothing but a colour.

    Args:
        lines: Without their ends.
        stream: Where to; None for stdout.

    Raises:
        RunLogError: A result cannot be written, as where the disk is full.
    """
    target = sys.stdout if stream is None else stream
    encoding = target.encoding or "utf-8"
    shown = (
        "".join(
            part if number % 2 else literal(part, encoding) for number, part in enumerate(_COLOUR.split(line))
        )
        for line in lines
    )
    return _put("".join(f"{line}\n" for line in shown), target)


def _put(text: str, stream: TextIO) -> bool:
    target = stream.stream if isinstance(stream, Border) else stream
    try:
        target.write(text)
        target.flush()
    except OSError as error:
        # What is held would be tried again, and fail, when Python ends.
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), target.fileno())
        if stream is sys.stderr or isinstance(error, BrokenPipeError):
            return False
        from run_log.core import RunLogError

        raise RunLogError(f"cannot write to {target.name}: {error.strerror}") from error
    return True
