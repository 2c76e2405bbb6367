from __future__ import annotations

import io
import json
import math
import os
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from run_log.console.views.layout import Column, Screen, Sheet, Styled, Table
from run_log.console.views.output import (
    Listing,
    OutputFormat,
    StatusLine,
    json_text,
    note,
    prepare_streams,
    screen,
    show,
    write,
)
from run_log.core import RunLogError

PAGES: list[list[int]] = [[1, 2], [3], []]
"""What there is to list, in pages."""


class _Terminal(io.StringIO):
    encoding = "cp437"

    def isatty(self) -> bool:
        return True


def _table(page: Sequence[int]) -> Table:
    return Table(columns=[Column("n")], rows=[(str(number),) for number in page])


def _listing(output: OutputFormat, name: str = "odd_numbers") -> Listing[int]:
    return Listing(output, name, table=_table, record=lambda number: {"n": number})


async def _fetch(cursor: str | None) -> tuple[Sequence[int], str | None]:
    number = int(cursor or 0)
    return PAGES[number], str(number + 1) if number + 1 < len(PAGES) else None


@pytest.mark.parametrize(
    ("after", "all_pages", "expected", "next_cursor"),
    [(None, False, [1, 2], "1"), (None, True, [1, 2, 3], None), ("2", True, [], None)],
)
async def test_one_document(
    capsys: pytest.CaptureFixture[str],
    after: str | None,
    expected: list[int],
    next_cursor: str | None,
    *,
    all_pages: bool,
) -> None:
    """As JSON a listing is one document, with what is listed and where to go on."""
    await _listing(OutputFormat.JSON).walk(_fetch, after=after, all_pages=all_pages)

    document: dict[str, Any] = {"odd_numbers": [{"n": n} for n in expected]}
    if next_cursor is not None:
        document["next_page_token"] = next_cursor
    assert (f"{json.dumps(document, indent=2)}\n", "") == capsys.readouterr()


async def test_a_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON lines each thing is a line of its own; where to go on is told on stderr."""
    await _listing(OutputFormat.JSONL).walk(_fetch, after="0", all_pages=False)

    assert ('{"n": 1}\n{"n": 2}\n', "more: --after 1\n") == capsys.readouterr()


@pytest.mark.parametrize(
    ("output", "columns", "expected"),
    [
        (OutputFormat.TABLE, "80", "N\n1\n2\nN\n3\n"),
        (OutputFormat.TABLE, "", "N\n1\n2\n3\n"),
        (OutputFormat.WIDE, "80", "N\n1\n2\n3\n"),
    ],
    ids=["people", "piped", "wide"],
)
async def test_tables(
    output: OutputFormat,
    columns: str,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For people each page is a table; where nobody looks or rows are whole, the headings are told once."""
    monkeypatch.setenv("COLUMNS", columns)

    await _listing(output).walk(_fetch, after=None, all_pages=True)

    assert (expected, "") == capsys.readouterr()


@pytest.mark.parametrize("output", [OutputFormat.TABLE, OutputFormat.JSONL])
async def test_nothing_to_list(capsys: pytest.CaptureFixture[str], output: OutputFormat) -> None:
    """Where there is nothing to list, stderr says so and stdout is empty."""
    await _listing(output).walk(_fetch, after="2", all_pages=True)

    assert ("", "no odd numbers\n") == capsys.readouterr()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OutputFormat.TABLE, "n  1\n\nN\n1\n"),
        (OutputFormat.WIDE, "n  1\n\nN\n1\n"),
        (OutputFormat.JSON, '{\n  "n": 1\n}\n'),
        (OutputFormat.JSONL, '{"n": 1}\n'),
    ],
)
def test_one_thing(capsys: pytest.CaptureFixture[str], output: OutputFormat, expected: str) -> None:
    """One thing is shown to people, and is a document for programs."""
    show(output, {"n": 1}, lambda: [Sheet(rows=[("n", "1"), ("nothing", "")]), _table([1])])

    assert (expected, "") == capsys.readouterr()


@pytest.mark.parametrize(
    ("columns", "wide", "width"),
    [("", False, None), ("40", False, 40), ("40", True, None), ("0", False, None), ("x", False, None)],
)
def test_the_width_where_nobody_looks(
    columns: str, width: int | None, monkeypatch: pytest.MonkeyPatch, *, wide: bool
) -> None:
    """What is piped has no bound, unless COLUMNS says one."""
    monkeypatch.setenv("COLUMNS", columns)

    assert Screen(width=width, encoding="utf-8") == screen(wide=wide, stream=io.StringIO())


@pytest.mark.parametrize(("columns", "width"), [(66, 66), (0, 80)])
def test_the_width_of_a_terminal(columns: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal has the width that it tells; one that does not is taken to have 80 columns."""
    monkeypatch.delenv("COLUMNS", raising=False)
    end, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, columns))

    with os.fdopen(terminal, "w") as stream:
        assert width == screen(stream=stream).width
    os.close(end)
    assert 80 == screen(stream=_Terminal()).width


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_the_width_and_colours_of_a_terminal(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, *, coloured: bool
) -> None:
    """A terminal has its width, its encoding, and colours unless NO_COLOR or TERM say that it has none."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "66")

    seen = screen(stream=_Terminal())

    table = Table(columns=[Column("n")], rows=[(Styled("1", "red"),)])
    assert (66, "cp437", coloured) == (seen.width, seen.encoding, seen.coloured)
    assert coloured is ("\x1b[31m1\x1b[0m" in list(table.lines(seen)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"n": 2**200, "\ud800": "\U0001f600"}, f'{{"n": {2**200}, "\\ud800": "\\ud83d\\ude00"}}'),
        ({"n": math.nan, "m": -math.inf}, '{"n": "NaN", "m": "-Infinity"}'),
        ({"n": {1}}, '{"n": [1]}'),
    ],
)
def test_json_is_valid(value: Any, text: str) -> None:
    """JSON is ASCII, holds integers and texts of any kind as they are, and the names of what it lacks."""
    assert text == json_text(value)


def test_deep_json() -> None:
    """JSON nested as deep as a store keeps is told whole; deeper JSON is told in its nearest form."""
    kept: Any = "x"
    for _ in range(500):
        kept = [kept]
    damaged: Any = "x"
    for _ in range(100_000):
        damaged = [damaged]

    assert {"a": kept} == json.loads(json_text({"a": kept}, indent=2))
    assert "run-log: cut" in json_text({"a": damaged}, indent=2)


def test_notes_command_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What is written is one line, and nothing in it but a colour commands the terminal."""
    note("one \x1b[2J\ntwo\r")
    write(["\x1b[31mred\x1b[0m \x1b[2J\n"])

    assert ("\x1b[31mred\x1b[0m \\x1b[2J\\n\n", "one \\x1b[2J\\ntwo\\r\n") == capsys.readouterr()


@pytest.mark.parametrize("output", [OutputFormat.TABLE, OutputFormat.JSONL])
async def test_a_reader_that_leaves(monkeypatch: pytest.MonkeyPatch, output: OutputFormat) -> None:
    """Once nobody reads, a listing fetches no more pages, and what is written is dropped in silence."""
    reading, writing = os.pipe()
    os.close(reading)
    listing = _listing(output)

    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        await listing.walk(_fetch, after=None, all_pages=True)

        assert not listing.is_read
        assert write(["more"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stdout takes nothing more, the error says so; what was held does not fail again at the end."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)

        with pytest.raises(RunLogError, match="cannot write to /dev/full: No space left"):
            write(["text"])


def test_streams_that_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started without stdout or stderr goes on without them."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    prepare_streams()

    with sys.stdout, sys.stderr:
        assert write(["text"])
        note("text")


def test_streams_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for stdout is left as it is; a stream itself escapes what its encoding lacks or obeys."""
    taken = io.BytesIO()
    own = io.TextIOWrapper(taken, encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", own)

    prepare_streams()
    write(["\u5b57\ud800"], own)
    sys.stderr.writelines(["a\x1b\tb\n", "c\r\n"])
    sys.stderr.flush()

    assert b"\\u5b57\\ud800\na\\x1b\tb\nc\\r\n" == taken.getvalue()


@pytest.mark.parametrize(
    ("stderr", "shown"), [(_Terminal(), "\r\\x1b 1 ...\r2         \r \r"), (io.StringIO(), "")]
)
def test_a_status_line(stderr: io.StringIO, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far work is stands on one line of a terminal, as much as fits, and is gone in the end."""
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("COLUMNS", "11")

    with StatusLine() as line:
        for text in ("\x1b 1 of 2", "2"):
            line.tell(text)
    cleared = stderr.getvalue()
    line.clear()

    assert (shown, shown) == (cleared, stderr.getvalue())
