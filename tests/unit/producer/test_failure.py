from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from run_log.producer._failure import MAX_SUMMARY, MAX_TRACEBACK, describe


def _raise(*_: object) -> NoReturn:
    raise SystemExit("from a property")


class _NoTracebackError(Exception):
    __traceback__ = property(_raise)  # pyright: ignore[reportAssignmentType]


class _NoClassError(Exception):
    __class__ = property(_raise)  # pyright: ignore[reportIncompatibleMethodOverride]


class _NoTextError(Exception):
    def __str__(self) -> str:
        raise SystemExit


class _NoCauseError(Exception):
    __cause__ = property(_raise)  # pyright: ignore[reportAssignmentType]


class _NoNotesError(Exception):
    __notes__ = property(_raise)  # pyright: ignore[reportAssignmentType]


def _noted(*notes: str) -> Exception:
    error = ValueError("noted")
    for note in notes:
        error.add_note(note)
    return error


def _chained(length: int) -> Exception:
    error = ValueError("first")
    for number in range(length):
        later = ValueError(number)
        later.__cause__ = error
        error = later
    return error


def _group(members: int) -> Exception:
    return ExceptionGroup("group", [ValueError(number) for number in range(members)])


def _groups(levels: int) -> Exception:
    error: Exception = ValueError("innermost")
    for _ in range(levels):
        members: list[Exception] = [error, error]
        error = ExceptionGroup("group", members)
    return error


def _in_a_circle() -> Exception:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def _doubled(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value, value]
    return value


def _raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("make", "summary"),
    [
        (_NoTracebackError, f"{__name__}._NoTracebackError"),
        (_NoClassError, f"{__name__}._NoClassError"),
        (_NoTextError, f"{__name__}._NoTextError: <exception str() failed>"),
        (_NoCauseError, f"{__name__}._NoCauseError"),
        (_NoNotesError, f"{__name__}._NoNotesError"),
        (lambda: _chained(100_000), "ValueError: 99999"),
        (lambda: _group(10_000), "ExceptionGroup: group (10000 sub-exceptions)"),
        (lambda: _groups(60), "ExceptionGroup: group (2 sub-exceptions)"),
        (lambda: _noted(*["note"] * 1_000), "ValueError: noted"),
        (lambda: _noted("n" * 5_000_000), "ValueError: noted"),
        (lambda: ValueError("x" * 5_000_000), f"ValueError: {'x' * MAX_SUMMARY}"[:MAX_SUMMARY] + " [...]"),
        (lambda: ValueError(_doubled(60)), None),
        (GeneratorExit, "closed: GeneratorExit"),
    ],
)
def test_whatever_an_exception_holds(make: Callable[[], BaseException], summary: str | None) -> None:
    """An exception that raises where it is read, or holds no end of things, is told by its own frames."""
    told = describe(_raised(make()))
    what, where = told.split("\n\n", 1)

    assert summary is None or summary == what
    assert where.startswith("Traceback")
    assert "raise error" in where or where.endswith("x")
    assert len(told) < MAX_SUMMARY + MAX_TRACEBACK + 100


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: _chained(3), "ValueError: first"),
        (lambda: _group(3), "ValueError: 2"),
        (lambda: _groups(2), "ValueError: innermost"),
        (_in_a_circle, "ValueError: other"),
        (lambda: _noted("try again"), "try again"),
    ],
)
def test_causes_members_and_notes(make: Callable[[], Exception], told: str) -> None:
    """Where they are few, causes, members of groups and notes are told."""
    assert told in describe(_raised(make()))


def test_an_exception_that_was_not_raised() -> None:
    """Without a traceback an exception is one line."""
    assert "ValueError: ('a', 1)" == describe(ValueError("a", 1))
