"""What a benchmark hands back, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.table import Table

Sample = Mapping[str, float]
"""One repetition: figures by name, ratios included, each beside a baseline of the same repetition."""


Case = TypeVar("Case")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for."""

    quick: bool = False
    """Fewer repetitions and less load: to see that it works, not to quote."""
    full: bool = False
    """More load than fits into a coffee break."""

    @property
    def repetitions(self) -> int:
        """How often a figure is measured; its median is shown."""
        return 1 if self.quick else 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table."""

    what: str
    figures: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def medians(samples: Sequence[Sample]) -> dict[str, float]:
    """Return each figure's median over *samples*: of a ratio, the median of the ratios."""
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def in_rounds(
    cases: Sequence[Case], repetitions: int, sample: Callable[[Case], Sample]
) -> dict[Case, dict[str, float]]:
    """Sample every case in every round, and return each case's medians.

    Each round begins at another case: what warms up or slows down meanwhile favours none of them.
    """
    samples: dict[Case, list[Sample]] = {case: [] for case in cases}
    for turn in range(repetitions):
        start = turn * len(cases) // repetitions
        for case in (*cases[start:], *cases[:start]):
            samples[case].append(sample(case))
    return {case: medians(taken) for case, taken in samples.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that *percent* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def number(value: float) -> str:
    """Return *value* with three significant digits, or as a whole number from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(console: Console, report: Report) -> None:
    """Print *report*."""
    table = Table(title=report.title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in report.columns:
        table.add_column(column, justify="right")
    for row in report.rows:
        table.add_row(row.what, *row.figures)
    console.print(table)
    for note in report.notes:
        console.print(f"  {note}", style="dim")
    console.print()
