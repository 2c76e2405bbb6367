"""Tables and sheets as lines of text that fit a terminal, or are whole without one."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from typing import Final, NamedTuple, TypeVar

_T = TypeVar("_T")

_GAP: Final = "  "
# If names would get fewer columns, other cells go to a second line instead.
_SHORTEST_NAME: Final = 12

# Each is readable on light and on dark backgrounds. Dim, blue and yellow are not.
_CODES: Final = {"bold": 1, "red": 31, "green": 32, "magenta": 35, "cyan": 36}


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """The screen that lines are laid out for."""

    width: int | None = None  # None is unbounded: each row is one line, and nothing is left out
    encoding: str = "utf-8"  # characters that it lacks are escaped
    coloured: bool = False


class Styled(NamedTuple):
    """A text with a style: ``bold``, the name of a colour, or nothing."""

    text: str
    style: str = ""

    @property
    def width(self) -> int:
        """Columns that it takes on a terminal."""
        if self.text.isascii():
            return len(self.text)
        return sum(map(_columns, self.text))


Cell = str | Styled


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. The first column has the name of the row, which is never cut."""

    heading: str
    _: KW_ONLY
    right: bool = False  # aligned to the right
    stays: bool = False  # keeps its column even with little room; a long name then gets a line of its own
    spare: bool = False  # left out if there is no room
    prose: bool = False  # a text of any length, of which a terminal shows the first line, cut to fit
    wraps: bool = False  # such a text, shown whole on as many lines as needed
    labelled: bool = False  # its heading is repeated if it moves below the row


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells, the most important columns first."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""  # the line above the table on a terminal

    @classmethod
    def of(
        cls, things: Iterable[_T], *columns: tuple[Column, Callable[[_T], Cell]], title: str = ""
    ) -> Table:
        """Return a table with a row for each thing; each column has a function that returns its cell."""
        return cls(
            columns=[column for column, _ in columns],
            rows=[[cell(thing) for _, cell in columns] for thing in things],
            title=title,
        )

    def lines(self, screen: Screen, *, headed: bool = True) -> Iterator[str]:
        """Yield its lines: one for each row, and indented ones below for what does not fit."""
        cells = [
            [_shown(cell, column, screen) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]
        layout = _Layout(self.columns, cells, screen)
        if headed and self.title and screen.width is not None:
            yield painted(literal(self.title, screen.encoding), "bold", screen)
        if headed:
            yield painted(layout.headings(), "bold", screen)
        for row in cells:
            yield from layout.row(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Names and their values, one below the other. Names without a value are left out.

    A text is wrapped between words. The lines of a list are not wrapped.
    """

    rows: Sequence[tuple[str, Cell | list[str]]]

    def lines(self, screen: Screen) -> Iterator[str]:
        """Yield its lines. They are wrapped only between words, so that a long id can be copied."""
        rows = [(name, cell) for name, cell in self.rows if any(cell)]
        indent = max((len(name) for name, _ in rows), default=0) + len(_GAP)
        for label, cell in rows:
            for number, (text, style) in enumerate(_parts(cell, screen, indent)):
                shown = "" if number else label
                padding = " " * (indent - len(shown))
                yield f"{painted(shown, 'bold', screen)}{padding}{painted(text, style, screen)}".rstrip()


# rich would cut a long id, or break it over lines of its cell: neither can be copied. So a cell that does not
# fit moves to a line below its row, and importing rich would slow every command down.
class _Layout:
    """Decides which columns are aligned on the first line of a row, and which cells come after or below."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[Styled]], screen: Screen) -> None:
        self._columns = columns
        self._screen = screen
        self._room = sys.maxsize if screen.width is None else screen.width
        self._widths = [
            max([len(column.heading), *(row[number].width for row in rows)])
            for number, column in enumerate(columns)
        ]
        # A column that is empty in every row would only take room.
        self._aligned = [
            number
            for number in range(len(columns))
            if not number or not rows or any(row[number].text for row in rows)
        ]
        self._after: list[int] = []
        if self._width() > self._room:
            self._aligned = [number for number in self._aligned if not columns[number].spare]
            if self._width() > self._room:
                self._narrow([row[0].width for row in rows])

    def headings(self) -> str:
        cells = [Styled(column.heading.upper()) for column in self._columns]
        line = self._line(cells)
        for number in self._after[:1]:
            heading = _GAP + cells[number].text
            if self._columns[number].prose and self._width() + len(heading) <= self._room:
                line += heading
        return line.rstrip()

    def row(self, cells: Sequence[Styled]) -> Iterator[str]:
        name, *others = cells
        if name.width > self._widths[0]:
            yield painted(*name, self._screen)
            cells = [Styled(""), *others]
        line, used, is_below = self._line(cells), self._width(), False
        for number in self._after:
            column, cell = self._columns[number], self._labelled(number, cells[number])
            if not cell.text:
                continue
            if not self._goes_on(column, cell, used, is_below=is_below):
                if line.strip():
                    yield line.rstrip()
                line, used, is_below = "", 0, True
            *before, last = self._parts(column, cell, self._room - used - len(_GAP))
            yield from (_GAP + painted(*part, self._screen) for part in before)
            line += _GAP + painted(*last, self._screen)
            used += len(_GAP) + last.width
        if line.strip():
            yield line.rstrip()

    def _goes_on(self, column: Column, cell: Styled, used: int, *, is_below: bool) -> bool:
        left = self._room - used - len(_GAP)
        # On the row's first line it would stand below no heading.
        if not is_below and not column.prose:
            return False
        if column.wraps:
            return cell.width <= left and not is_below
        return cell.width <= left or (column.prose and left >= self._room // 2)

    def _parts(self, column: Column, cell: Styled, left: int) -> list[Styled]:
        if column.wraps:
            return [cell._replace(text=part) for part in wrapped(cell.text, left)]
        return [cut(cell, left, self._screen.encoding)] if column.prose else [cell]

    def _labelled(self, number: int, cell: Styled) -> Styled:
        column = self._columns[number]
        has_label = column.labelled and cell.text
        return cell._replace(text=f"{column.heading}: {cell.text}") if has_label else cell

    def _line(self, cells: Sequence[Styled]) -> str:
        parts: list[str] = []
        for number in self._aligned:
            padding = " " * (self._widths[number] - cells[number].width)
            text = painted(*cells[number], self._screen)
            parts.append(padding + text if self._columns[number].right else text + padding)
        return _GAP.join(parts)

    def _narrow(self, names: Sequence[int]) -> None:
        first, *others = self._aligned
        staying = [number for number in others if self._columns[number].stays]
        while staying and self._room - self._taken(staying) < _SHORTEST_NAME:
            staying.pop()
        most = self._room - self._taken(staying)
        self._widths[first] = max([len(self._columns[first].heading), *(n for n in names if n <= most)])
        self._aligned = [first, *staying]
        for number in others[len(staying) :]:
            if self._columns[number].prose or self._width() + self._taken([number]) > self._room:
                break
            self._aligned.append(number)
        self._after = others[len(self._aligned) - 1 :]

    def _taken(self, numbers: Sequence[int]) -> int:
        return sum(len(_GAP) + self._widths[number] for number in numbers)

    def _width(self) -> int:
        return self._taken(self._aligned) - len(_GAP)


def literal(text: str, encoding: str = "utf-8") -> str:
    """Return *text* on one line, as it is: nothing in it commands the terminal, or is not in *encoding*."""
    if text.isascii() and text.isprintable():
        return text
    # Late, for what is said before there is anything of anybody's.
    from run_log.core.logs import literal as escaped

    return escaped(text, encoding)


def wrapped(text: str, width: int) -> list[str]:
    """Return *text* as lines of *width* columns, broken between words only."""
    lines, used = [""], 0
    for number, word in enumerate(text.split(" ")):
        needed = Styled(word).width
        if lines[-1].strip() and used + 1 + needed > width:
            lines.append(word)
            used = needed
        else:
            lines[-1] += f" {word}" if number else word
            used += needed + bool(number)
    return lines


def cut(text: Styled, width: int, encoding: str = "utf-8") -> Styled:
    """Return *text*, or its beginning where it takes more than *width* columns."""
    if text.width <= width:
        return text
    dots = "..." if literal("…", encoding) != "…" else "…"
    kept = sum(taken <= width - len(dots) for taken in accumulate(map(_columns, text.text)))
    return text._replace(text=text.text[:kept] + dots)


def painted(text: str, style: str, screen: Screen) -> str:
    """Return *text* in its style, where *screen* has colours."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if text and style and screen.coloured else text


def _shown(cell: Cell, column: Column, screen: Screen) -> Styled:
    text, style = _styled(cell)
    if screen.width is None:
        return Styled(literal(text, screen.encoding) or "-", style)
    if column.wraps:
        text = " ".join(text.split())
    elif column.prose:
        text = text.strip().partition("\n")[0]
    return Styled(literal(text, screen.encoding), style)


def _styled(cell: Cell) -> Styled:
    return cell if isinstance(cell, Styled) else Styled(cell)


def _parts(cell: Cell | list[str], screen: Screen, indent: int) -> list[Styled]:
    if isinstance(cell, list):
        return [Styled(literal(line, screen.encoding)) for line in cell]
    text, style = _styled(cell)
    line = literal(text, screen.encoding)
    parts = [line] if screen.width is None else wrapped(line, screen.width - indent)
    return [Styled(part, style) for part in parts]


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1
