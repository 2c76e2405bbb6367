"""Ctrl-C at every place at which CPython takes it, while a step or a run begins or ends."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any

import pytest

from run_log.core import Step
from run_log.core.clock import utc_now
from run_log.producer import RunHandle, current_run, current_step, record_run
from run_log.producer._steps import StepBook, StepScope

from .transports import States


class CtrlC:
    """A trace function that raises at one of the places at which CPython calls signals' handlers.

    Those are where a function begins, and after a call.
    """

    def __init__(self, file: str, at: int) -> None:
        self._file = file
        self._left = at
        self._last: dict[FrameType, str] = {}

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:
        """Follow *frame* if it is of the watched module."""
        if frame.f_code.co_filename != self._file:
            return None
        frame.f_trace_opcodes = True
        is_place = event == "call"
        if event == "opcode":
            is_place = self._last.get(frame, "").startswith("CALL")
            self._last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        self._left -= is_place
        if is_place and self._left == 0:
            raise KeyboardInterrupt
        return self


def interrupted(work: Callable[[], object], file: str, at: int) -> bool:
    """Do *work*, with Ctrl-C at the place number *at* within the module; return whether it came there."""
    before = sys.gettrace()
    sys.settrace(CtrlC(file, at))
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def a_book() -> StepBook:
    """Return a book of no steps."""
    readings = count(1)
    return StepBook(tick=lambda: next(readings), now=utc_now, told=lambda: None)


def told(steps: tuple[Step, ...]) -> list[tuple[str, int, str | None]]:
    """Return the status, the attempt and the error of each of *steps*."""
    return [(step.status.value, step.attempt, step.error) for step in steps]


@pytest.mark.parametrize("is_tried_again", [False, True])
def test_while_a_step_begins(is_tried_again: bool) -> None:  # noqa: FBT001 - pytest passes it so
    """A step that Ctrl-C keeps from beginning is not there or has failed, and is around nothing."""
    places = 0
    came = True
    while came:
        places += 1
        book = a_book()
        scope = StepScope(book, "load", None)
        if is_tried_again:
            with scope as tried:
                tried.fail("busy")
        before = told(book.all(0))

        came = interrupted(scope.__enter__, inspect.getfile(StepScope), places)

        failed = [("failed", 1 + is_tried_again, "KeyboardInterrupt: ")]
        if came:
            assert told(book.all(0)) in (before, failed)
        else:
            scope.__exit__(None, None, None)
        assert current_step() is None
        with scope:
            pass
        assert "success" == book.all(0)[-1].status.value
    assert places > 20


@pytest.mark.parametrize(("call", "status"), [(1, "failed"), (2, "failed"), (3, "success")])
def test_where_a_step_is_told_of(call: int, status: str) -> None:
    """Ctrl-C goes on, and the step has ended and is around nothing any more."""
    calls = count(1)

    def interrupt() -> int:
        number = next(calls)
        if number == call:
            raise KeyboardInterrupt
        return number

    def tell() -> None:
        interrupt()

    # A reading and a change for the begin, and so for the end.
    book = StepBook(tick=interrupt, now=utc_now, told=tell)
    with pytest.raises(KeyboardInterrupt), StepScope(book, "load", None):
        pass

    assert current_step() is None
    assert [status] * (call > 1) == [step.status.value for step in book.all(9)]


def test_where_a_run_is_told_of() -> None:
    """A run whose first state Ctrl-C keeps back has failed, and is around nothing."""

    class Interrupts(States):
        def emit(self, run: object) -> None:
            """Keep a copy of *run*, and raise the first time."""
            super().emit(run)
            if len(self.runs) == 1:
                raise KeyboardInterrupt

    states = Interrupts()
    with pytest.raises(KeyboardInterrupt), record_run("w", emitter=states):
        raise AssertionError

    assert current_run() is None
    assert ["running", "failed"] == states.statuses
    assert "interrupted: KeyboardInterrupt" in str(states.runs[-1].error)


def test_while_a_run_begins() -> None:
    """A run that Ctrl-C keeps from beginning was not told of or has failed, and is around nothing."""
    places = 0
    came = True
    while came:
        places += 1
        states = States()
        recorder = record_run("w", emitter=states)

        came = interrupted(recorder.__enter__, inspect.getfile(RunHandle), places)

        if came:
            assert states.statuses in ([], ["failed"], ["running", "failed"])
        else:
            recorder.__exit__(None, None, None)
        assert current_run() is None
        with recorder:
            pass
        assert ["running", "success"] == states.statuses[-2:]
    assert places > 20
