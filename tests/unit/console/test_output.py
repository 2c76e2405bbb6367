from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from rich.table import Table

from run_log.console._output import Listing, OutputFormat, show, stdout

PAGES: list[list[int]] = [[1, 2], [3], []]
"""What there is to list, in pages."""


def _table(page: Sequence[int]) -> Table:
    table = Table("n")
    for number in page:
        table.add_row(str(number))
    return table


def _listing(output: OutputFormat, name: str = "odd_numbers") -> Listing[int]:
    return Listing(output, name, table=_table, record=lambda number: {"n": number})


async def _fetch(cursor: str | None) -> tuple[Sequence[int], str | None]:
    number = int(cursor or 0)
    return PAGES[number], str(number + 1) if number + 1 < len(PAGES) else None


@pytest.mark.parametrize(("all_pages", "expected"), [(False, [1, 2]), (True, [1, 2, 3])])
async def test_one_document(
    capsys: pytest.CaptureFixture[str], *, all_pages: bool, expected: list[int]
) -> None:
    """As JSON a listing is one document, with what is listed and where to go on."""
    await _listing(OutputFormat.JSON).walk(_fetch, after=None, all_pages=all_pages)

    printed = capsys.readouterr()
    next_cursor = None if all_pages else "1"
    assert {"odd_numbers": [{"n": n} for n in expected], "next_cursor": next_cursor} == json.loads(
        printed.out
    )
    assert "" == printed.err


async def test_a_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON lines each thing is a line of its own; where to go on is told on stderr."""
    await _listing(OutputFormat.JSONL).walk(_fetch, after="0", all_pages=False)

    assert ('{"n": 1}\n{"n": 2}\n', "more: --after 1\n") == capsys.readouterr()


async def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """For people each page is a table, and an empty one is none."""
    await _listing(OutputFormat.TABLE).walk(_fetch, after=None, all_pages=True)

    printed = capsys.readouterr()
    assert 2 == printed.out.count("┏")
    assert "" == printed.err


@pytest.mark.parametrize("output", [OutputFormat.TABLE, OutputFormat.JSONL])
async def test_nothing_to_list(capsys: pytest.CaptureFixture[str], output: OutputFormat) -> None:
    """Where there is nothing to list, stderr says so and stdout is empty."""
    await _listing(output).walk(_fetch, after="2", all_pages=True)

    assert ("", "no odd numbers\n") == capsys.readouterr()


async def test_an_empty_document(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON nothing is an empty list."""
    await _listing(OutputFormat.JSON).walk(_fetch, after="2", all_pages=True)

    assert {"odd_numbers": [], "next_cursor": None} == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OutputFormat.TABLE, "seen\n"),
        (OutputFormat.JSON, '{\n  "n": 1\n}\n'),
        (OutputFormat.JSONL, '{"n": 1}\n'),
    ],
)
def test_one_thing(capsys: pytest.CaptureFixture[str], output: OutputFormat, expected: str) -> None:
    """One thing is shown to people, and is a document for programs."""
    show(output, {"n": 1}, lambda: "seen")

    assert (expected, "") == capsys.readouterr()


def test_nothing_is_cut_where_nobody_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is piped has no colour, and no cell of it is cut or wrapped."""
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "x" * 5_000
    table = Table()
    table.add_column("n", no_wrap=True)
    table.add_row(f"[red]{long}[/red]")

    stdout().print(table)

    printed = capsys.readouterr().out
    assert long in printed
    assert "\x1b" not in printed


def test_a_width_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a width is asked for by COLUMNS, tables keep to it."""
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("n")
    table.add_row("x " * 500)

    stdout().print(table)

    assert all(len(line) <= 40 for line in capsys.readouterr().out.splitlines())
