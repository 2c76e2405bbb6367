"""Tables of text: CSV and JSON lines, read row by row in bounded memory."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, TextIO, cast

from run_log.core import ConfigurationError, InvalidArgumentError, NotFoundError
from run_log.core.nearest import MAX_DEPTH
from run_log.core.payload import decode_foreign_json, is_deeper

from .errors import LeftOut
from .found import Found, Redact, imported_event
from .mapping import FieldMapping

MAX_LINE: Final = 10_000_000
"""The most characters of a line, and of a field: ten times what a run's document holds."""

STDIN: Final = "-"

_DELIMITERS: Final = {";": "';'", "\t": "'\\t'", ",": "','"}

_UTF8: Final = "utf-8-sig"  # with a byte order mark or without


def csv_runs(
    file: str, mapping: FieldMapping, *, delimiter: str = ",", encoding: str | None = None, redact: Redact
) -> Generator[Found]:
    """Yield the runs of a CSV file, ``-`` for stdin, whose first line names the columns.

    Raises:
        NotFoundError: There is no such file.
        ConfigurationError: It cannot be read.
        InvalidArgumentError: A column is missing, or *delimiter* or *encoding* cannot be used.
    """
    with _opened(file, encoding) as text, _long_fields():
        lines = _Lines(text)
        try:
            # Strictly: a quote that is never closed would take all rows below it into its field.
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"--delimiter {delimiter!r} is not one character") from error
        names: list[str] = []
        for place, row in _rows(rows, lines):
            if not names and isinstance(row, LeftOut):
                raise InvalidArgumentError(f"the first line of {file} does not name columns: {row}")
            if isinstance(row, list) and not names:
                names = [name.strip() for name in row]
                _check_head(names, file, delimiter)
                mapping.check_columns(names, file)
            elif isinstance(row, LeftOut) or row:
                size = 0 if isinstance(row, LeftOut) else sum(map(len, row))
                yield _found(place, lambda: _named(names, row), mapping, redact, size)  # noqa: B023 - called at once
        if not names:
            raise InvalidArgumentError(f"{file} is empty: its first line has to name the columns")


def jsonl_runs(
    file: str, mapping: FieldMapping, *, encoding: str | None = None, redact: Redact
) -> Generator[Found]:
    """Yield the runs of a file of JSON lines, ``-`` for stdin. Raises as `csv_runs` does."""
    with _opened(file, encoding) as text:
        lines = _Lines(text)
        while True:
            try:
                line: str | LeftOut = next(lines).strip()
            except StopIteration:
                return
            except LeftOut as error:
                line = error
            if line:
                size = 0 if isinstance(line, LeftOut) else len(line)
                yield _found(f"line {lines.number}", lambda: _json_object(line), mapping, redact, size)  # noqa: B023


def _found(
    place: str, read: Callable[[], Mapping[str, Any]], mapping: FieldMapping, redact: Redact, size: int
) -> Found:
    record: Mapping[str, Any] | None = None
    without = list[str]()
    try:
        record = read()
        event = imported_event(mapping.fields(record), without, redact=redact)
        return Found(place=place, what=event, size=size, without=tuple(without))
    except LeftOut as why:
        return Found(place=place, what=why, record=record, size=size)


def _check_head(names: list[str], file: str, delimiter: str) -> None:
    """Check that the first line was read as it was written: else columns would be missing that are there."""
    try:
        for name in names:
            _check_decoded(name)
    except LeftOut as why:
        raise InvalidArgumentError(f"the first line of {file} does not name columns: {why}") from why
    if len(names) == 1:
        for other, shown in _DELIMITERS.items():
            if other != delimiter and other in names[0]:
                raise InvalidArgumentError(
                    f"the first line of {file} names one column, {names[0]:.100}; pass --delimiter {shown}"
                )


def _named(names: list[str], row: list[str] | LeftOut) -> Mapping[str, Any]:
    if isinstance(row, LeftOut):
        raise row
    if len(row) != len(names):
        raise LeftOut("its line has more or fewer cells than the first", f"{len(row)}, not {len(names)}")
    for cell in row:
        _check_decoded(cell)
    return dict(zip(names, row, strict=True))


def _json_object(line: str | LeftOut) -> Mapping[str, Any]:
    if isinstance(line, LeftOut):
        raise line
    _check_decoded(line)
    try:
        if is_deeper(line, MAX_DEPTH):
            raise LeftOut(f"it nests more than {MAX_DEPTH} levels")
        found = decode_foreign_json(line)
    except (ValueError, RecursionError) as error:
        raise LeftOut("its line is not JSON", str(error)[:100]) from error
    if not isinstance(found, dict):
        raise LeftOut("its line is JSON, but not an object (jq -c '.[]' makes lines of an array)")
    return cast("dict[str, Any]", found)


def _check_decoded(text: str) -> None:
    # What the encoding does not have was kept as half of a surrogate pair.
    if text.isascii():
        return
    for letter in text:
        if "\udc80" <= letter <= "\udcff":
            raise LeftOut(
                "its text is not in this encoding (pass --encoding, such as cp1252 or utf-16)",
                f"byte 0x{ord(letter) - 0xDC00:x}",
            )


class _Lines(Iterator[str]):
    """The lines of a text. One that is too long is left out, and the next call goes on after it."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self.number = 0
        """The number of the line that was read last."""

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) < MAX_LINE or line.endswith("\n"):
            return line
        while (more := self._text.readline(MAX_LINE)) and not more.endswith("\n"):
            pass
        raise LeftOut(f"its line has more than {MAX_LINE:,} characters")


def _rows(rows: Iterator[list[str]], lines: _Lines) -> Iterator[tuple[str, list[str] | LeftOut]]:
    while True:
        begins = lines.number + 1
        row: list[str] | LeftOut
        try:
            row = next(rows)
        except StopIteration:
            return
        except LeftOut as why:
            row = why
        except csv.Error as error:
            row = LeftOut("its line is not CSV (is a quote missing?)", str(error))
        yield f"line {begins}" if begins == lines.number else f"lines {begins} to {lines.number}", row


@contextmanager
def _long_fields() -> Generator[None]:
    # The limit is the whole process's.
    before = csv.field_size_limit(MAX_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


@contextmanager
def _opened(file: str, encoding: str | None) -> Generator[TextIO]:
    try:
        codecs.lookup(encoding or _UTF8)
        binary: BinaryIO = sys.stdin.buffer if file == STDIN else open(file, "rb")  # noqa: SIM115, PTH123
        text = io.TextIOWrapper(binary, encoding or _UTF8, errors="surrogateescape", newline="")
    except LookupError as error:
        raise InvalidArgumentError(f"--encoding {encoding!r} is none; pass utf-8, cp1252, ...") from error
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {file}") from error
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror})") from error
    try:
        yield text
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror})") from error
    except UnicodeError as error:
        raise InvalidArgumentError(
            f"{file} is not in {encoding}: {error}; pass another --encoding"
        ) from error
    finally:
        if file == STDIN:
            text.detach()
        else:
            text.close()
