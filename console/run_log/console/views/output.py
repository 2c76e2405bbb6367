"""Prints results on stdout, as tables for people or JSON for programs, and all else on stderr."""

from __future__ import annotations

import enum
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TextIO, TypeVar, cast

from .layout import Screen, Sheet, Styled, Table, cut, literal, painted

if TYPE_CHECKING:
    from run_log.stores.listings import HasJson

_T = TypeVar("_T")

# Of a terminal that does not report its width.
_USUAL_COLUMNS: Final = 80

# Codes of `painted` and of the log renderer. Any such code in the text itself is escaped before.
_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")

# Levels of JSON that are indented. Deeper ones would be mostly spaces.
_DEEPEST_INDENT: Final = 20


class OutputFormat(enum.StrEnum):
    """The format in which a command prints its results."""

    TABLE = "table"  # rows that fit the terminal; without a terminal, whole rows
    WIDE = "wide"  # each row whole, on one line
    JSON = "json"  # one document
    JSONL = "jsonl"  # one document on each line, as soon as it is available


class Listing(Generic[_T]):
    """Prints things page by page, and the cursor of the next page.

    *name* is the key of the things in the JSON document.
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
        """Print one page, or keep it for the JSON document."""
        if self._output is OutputFormat.JSON:
            self._kept += (json_text(self._record(thing), indent=2) for thing in page)
        elif self._output is OutputFormat.JSONL:
            self.is_read &= write(json_text(self._record(thing)) for thing in page)
        elif page:
            seen = screen(wide=self._output is OutputFormat.WIDE)
            # A program that reads rows wants the headings once, not again with each page.
            headed = seen.width is not None or not self._shown
            self.is_read &= write(self._table(page).lines(seen, headed=headed))
        self._shown += len(page)

    async def walk(
        self,
        fetch: Callable[[str | None], Awaitable[tuple[Sequence[_T], str | None]]],
        *,
        after: str | None,
        all_pages: bool,
    ) -> None:
        """Print a page, or all that are left. *fetch* returns the page after a cursor, and the next one."""
        cursor = after
        while True:
            page, cursor = await fetch(cursor)
            self.add(page)
            if cursor is None or not all_pages or not self.is_read:
                break
        self.end(cursor)

    def end(self, next_cursor: str | None = None) -> None:
        """Finish the listing after the last page. Without *next_cursor* nothing is left."""
        if self._output is OutputFormat.JSON:
            write(self._document(next_cursor).split("\n"))
        elif not self._shown:
            note(f"no {self._name.replace('_', ' ')}")
        if next_cursor is not None and self._output is not OutputFormat.JSON and self.is_read:
            note(f"more: --after {next_cursor}")

    def _document(self, next_cursor: str | None) -> str:
        from run_log.stores import page_json

        things = ",\n".join(textwrap.indent(text, "    ") for text in self._kept)
        parts = {name: json.dumps(part) for name, part in page_json(self._name, (), next_cursor).items()}
        # Each thing is text already, for a very deep one is one line, and those beside it are not.
        parts[self._name] = f"[\n{things}\n  ]" if things else "[]"
        return "{\n" + ",\n".join(f'  "{name}": {part}' for name, part in parts.items()) + "\n}"


def own_json(thing: HasJson) -> Mapping[str, Any]:
    """Return *thing*, which a query returned, as JSON: the record of most listings."""
    return thing.to_json()


def show(
    output: OutputFormat, record: Mapping[str, Any], render: Callable[[], Iterable[Table | Sheet]]
) -> None:
    """Print one thing: *record* for programs, or what *render* returns for people."""
    if output is OutputFormat.JSON:
        write(json_text(record, indent=2).split("\n"))
    elif output is OutputFormat.JSONL:
        write([json_text(record)])
    else:
        seen = screen(wide=output is OutputFormat.WIDE)
        lines = (("", *part.lines(seen)) for part in render())
        write([*chain.from_iterable(lines)][1:])


def prepare_streams() -> None:
    """Make stdout and stderr accept any text, whatever their encoding is.

    Characters that an encoding lacks are escaped, and so are characters that could control the terminal.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # It was closed before the process began. The next file that is opened would get its descriptor,
            # and all that is printed.
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Border(cast("TextIO", stream)))


def screen(*, wide: bool = False, stream: TextIO | None = None) -> Screen:
    """Return the screen of *stream*, which is stdout if it is None: bounded by COLUMNS or the terminal.

    *wide* makes it unbounded in any case.
    """
    target = sys.stdout if stream is None else stream
    # Windows sets no TERM, and its older consoles do not know colour codes.
    is_dumb = os.environ.get("TERM", "dumb" if os.name == "nt" else "") in {"dumb", "unknown"}
    return Screen(
        width=None if wide else _columns(target),
        encoding=target.encoding or "utf-8",
        coloured=target.isatty() and not is_dumb and not os.environ.get("NO_COLOR"),
    )


def _columns(stream: TextIO) -> int | None:
    """Return the width by COLUMNS, or of the terminal; None without either."""
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
    """A stream for text of others: tracebacks, warnings of libraries, errors of the command line's parser.

    It escapes characters that could control the terminal. Lines of commands bypass it, through `write`.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream: Final = stream

    def write(self, text: str) -> int:
        """Write *text*; its line ends and tabs are kept."""
        encoding = self.stream.encoding
        parts: list[str] = re.split(r"([\n\t])", text)
        shown = (part if number % 2 else literal(part, encoding) for number, part in enumerate(parts))
        self.stream.write("".join(shown))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of *lines*."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the stream, except those that would bypass this."""
        if name in {"buffer", "detach", "reconfigure"}:
            raise AttributeError(name)
        return getattr(self.stream, name)


def json_text(value: object, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """Return *value* as JSON text. What JSON does not have is replaced by its nearest form.

    Very deep values are one line, whatever *indent* is. With *ascii_only* any encoding can take the text.
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
    """Print a line on stderr that is not a result, in a style of `Styled`."""
    seen = screen(stream=sys.stderr)
    write([painted(literal(text, seen.encoding), style, seen)], sys.stderr)


def ask(text: str) -> None:
    """Print a question on stderr, without a line end."""
    _put(literal(text, sys.stderr.encoding), sys.stderr)


class StatusLine(AbstractContextManager["StatusLine"]):
    """A line of progress on stderr: overwritten in place, removed at the end, shown on terminals only."""

    def __init__(self) -> None:
        self.is_shown: Final = sys.stderr.isatty()
        self._room = (_columns(sys.stderr) or _USUAL_COLUMNS) - 1
        self._taken = 0

    def tell(self, text: str) -> None:
        """Show as much of *text* as fits, in place of the last text."""
        if not self.is_shown:
            return
        told = Styled(literal(text, sys.stderr.encoding))
        told = cut(told, self._room, sys.stderr.encoding)
        _put(f"\r{told.text}{' ' * (self._taken - told.width)}", sys.stderr)
        self._taken = told.width

    def __exit__(self, *_: object) -> None:
        """Remove the line."""
        self.clear()

    def clear(self) -> None:
        """Remove the line, so that something else can be printed."""
        if self._taken:
            self.tell("")
            _put("\r", sys.stderr)


def write(lines: Iterable[str], stream: TextIO | None = None) -> bool:
    """Write *lines*, and return whether anybody still reads them. If not, later lines are dropped.

    All output of commands goes through this. It escapes line ends and all terminal codes except colours.
    *stream* is stdout if it is None.

    Raises:
        RunLogError: A result cannot be written, for example because the disk is full.
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
        # The buffer still holds the text. Python would write it again when it exits, and fail again.
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), target.fileno())
        if stream is sys.stderr or isinstance(error, BrokenPipeError):
            return False
        from run_log.core import RunLogError

        raise RunLogError(f"cannot write to {target.name}: {error.strerror}") from error
    return True
