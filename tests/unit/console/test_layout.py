from __future__ import annotations

import pytest

from run_log.console.views.layout import Cell, Column, Screen, Sheet, Styled, Table, cut, painted, wrapped

WIDE = "\N{CJK UNIFIED IDEOGRAPH-5B57}"


def _lines(*rows: tuple[str | Styled, ...], width: int | None, coloured: bool = False) -> list[str]:
    columns = [Column("name"), Column("count", right=True), Column("note", prose=True)]
    return list(Table(columns=columns, rows=rows).lines(Screen(width=width, coloured=coloured)))


def test_columns_are_aligned_as_they_are_seen() -> None:
    """Wide characters take two columns, and those that are set over another one none."""
    lines = _lines((WIDE * 3, "1", "x"), ("e\u0301bcdef", "22", "y"), width=40)

    assert ["NAME    COUNT  NOTE", f"{WIDE * 3}      1  x", "e\u0301bcdef     22  y"] == lines


def test_columns_without_anything_are_left_out() -> None:
    """On a screen, a column in which no row has anything is left out; elsewhere it is kept."""
    rows = [("a", "", "x"), ("b", "", "y")]

    assert ["NAME  NOTE", "a     x", "b     y"] == _lines(*rows, width=40)
    assert ["NAME  COUNT  NOTE", "a         -  x", "b         -  y"] == _lines(*rows, width=None)


@pytest.mark.parametrize(
    ("row", "lines"),
    [
        (("n" * 50, "1", "x"), ["n" * 50, "              1  x"]),
        (("n" * 50, "", ""), ["n" * 50]),
        (("n" * 8, "1", "x" * 50), ["nnnnnnnn      1", f"  {'x' * 27}…"]),
        (("n", "1", "\n x  \ny"), ["n             1  x"]),
        (("n" * 50, "1", "x" * 50), ["n" * 50, "              1", f"  {'x' * 27}…"]),
    ],
)
def test_what_does_not_fit(row: tuple[str, ...], lines: list[str]) -> None:
    """A name is whole, if on a line of its own; a text that does not fit is cut on the next line."""
    broad = ("a" * 8, "2", "y" * 40)

    assert lines == _lines(row, broad, width=30)[1 : 1 + len(lines)]


@pytest.mark.parametrize(
    ("row", "width", "lines"),
    [
        (("n", "1", "x" * 50), 41, ["NAME  COUNT  NOTE", f"n         1  {'x' * 27}…"]),
        (("n" * 50, "", ""), 30, ["NAME", "n" * 50]),
    ],
    ids=["a text that has half the screen", "nothing but a long name"],
)
def test_what_stays_on_the_first_line(row: tuple[str, ...], width: int, lines: list[str]) -> None:
    """A text is cut on the row's line where there is much room; a name of which nothing is said is alone."""
    assert lines == _lines(row, width=width)


@pytest.mark.parametrize(
    ("width", "name", "state"),
    [(30, "n" * 28, "       ok"), (18, "n" * 15, "  ok")],
    ids=["stays", "no room"],
)
def test_a_column_that_stays(width: int, name: str, state: str) -> None:
    """A column that stays is beside the names, of which long ones have their own line, if there is room."""
    columns = [Column("name"), Column("state", stays=True)]
    table = Table(columns=columns, rows=[(name, "ok"), ("short", "failed")])

    assert [name, state] == list(table.lines(Screen(width=width)))[1:3]


def test_cells_that_move_below_share_a_line() -> None:
    """What moves below a row stands there side by side, as far as it fits."""
    columns = [Column(name) for name in ("name", "one", "two", "three")]
    table = Table(columns=columns, rows=[("n" * 16, "aaaa", "bbbb", "c" * 9)])

    assert ["n" * 16, "  aaaa  bbbb", f"  {'c' * 9}"] == list(table.lines(Screen(width=20)))[1:]


def test_a_style_takes_no_room() -> None:
    """Colours change no column, and end where the text does."""
    lines = _lines((Styled("a", "red"), "1", "x"), ("bb", "2", "y"), width=40, coloured=True)

    assert ["\x1b[31ma\x1b[0m         1  x", "bb        2  y"] == lines[1:]
    codes = {"bold": 1, "red": 31, "green": 32, "magenta": 35, "cyan": 36}
    assert [f"\x1b[{code}mx\x1b[0m" for code in codes.values()] == [
        painted("x", style, Screen(coloured=True)) for style in codes
    ]


def test_sheets() -> None:
    """What there is to say of a name is broken between words; what is verbatim never, nor what is piped."""
    rows: list[tuple[str, Cell | list[str]]] = [
        ("name", "one two three four"),
        ("empty", ""),
        ("json", ["{ 1, 2, 3, 4, 5 }", "", "[]"]),
    ]

    assert [
        "name  one two",
        "      three",
        "      four",
        "json  { 1, 2, 3, 4, 5 }",
        "",
        "      []",
    ] == list(Sheet(rows=rows).lines(Screen(width=13)))
    assert "name  one two three four" == next(Sheet(rows=rows).lines(Screen()))


def test_long_words_stay_whole() -> None:
    """Lines are broken between words only, and keep how far they are indented."""
    assert ["  a", "longer-than-that", "b c"] == wrapped("  a longer-than-that b c", 5)


@pytest.mark.parametrize(
    ("text", "width", "encoding", "shown"),
    [
        ("abcdef", 6, "utf-8", "abcdef"),
        ("abcdefg", 6, "utf-8", "abcde…"),
        ("abcdefg", 6, "ascii", "abc..."),
        (WIDE * 4, 6, "utf-8", f"{WIDE * 2}…"),
    ],
)
def test_what_is_cut(text: str, width: int, encoding: str, shown: str) -> None:
    """What is cut takes no more than its room, and ends in dots that its encoding has."""
    assert shown == cut(Styled(text, "red"), width, encoding).text
