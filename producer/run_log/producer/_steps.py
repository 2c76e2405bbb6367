"""The steps of a run, as its workflow records them in this process."""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Protocol, cast

from run_log.core.ids import as_text, id_text
from run_log.core.nearest import Contained
from run_log.core.steps import MAX_STEPS, Step, StepStatus, fitted, fitted_name, is_step_key

from ._emitter import RunEventEmitter
from ._failure import Untouched, is_cancellation, is_good_exit, name_and_text

_KEY_BYTES: Final = 6


class Says(Protocol):
    """Says what there is to say."""

    def __call__(self, *, is_due: bool) -> bool:
        """Emit it, and return whether there was anything; *is_due* is whether anything has changed."""
        ...


class Pulse:
    """Says what a run has to say between its transitions: at most once in each interval, and as a heartbeat.

    Args:
        emitter: Calls this in its delivery thread.
        say: Emits what is to be said.
        heartbeat: Seconds after which a run that has been silent says that it is alive; None for never.
    """

    def __init__(self, emitter: RunEventEmitter, say: Says, *, heartbeat: float | None = None) -> None:
        self._emitter = emitter
        self._say = say
        self._heartbeat = heartbeat
        self._last = -math.inf
        self._is_due = False

    def tell(self) -> None:
        """Note that there is something to say."""
        # The call each time: a forked child begins without any.
        self._is_due = True
        earliest = self._last + self._emitter.progress_interval
        self._emitter.call_at(max(self._emitter.monotonic(), earliest), self._called)

    def begin(self) -> None:
        """Note that all that is known now is being said."""
        # Before the look at it: what changes after that has to be said once more.
        self._is_due = False

    def said(self) -> None:
        """Note that it was said just now."""
        self._last = self._emitter.monotonic()
        if self._heartbeat is not None:
            self._emitter.call_at(self._last + self._heartbeat, self._called)

    def finish(self) -> None:
        """Say now what is not said yet, because there will be no transition."""
        if self._is_due:
            self.begin()
            self._say(is_due=True)

    def _called(self) -> None:
        now, is_due = self._emitter.monotonic(), self._is_due
        wait = self._emitter.progress_interval if is_due else self._heartbeat
        if wait is None:
            return
        if now < self._last + wait:  # a transition came in between
            self._emitter.call_at(self._last + wait, self._called)
            return
        if self._emitter.is_behind:  # it would fill the buffer: what is said later tells the same, and more
            self._emitter.call_at(now + wait, self._called)
            return
        self.begin()
        is_said = True  # if it raises as well: the next time may do better
        with Contained():
            is_said = self._say(is_due=is_due)
        if is_said:
            self.said()


class StepBook:
    """The steps of one run that this process knows. Threads may share it.

    Args:
        tick: Returns the next reading of the clock by which steps are ordered.
        now: The time.
        told: Called when a step has changed.
    """

    def __init__(
        self, *, tick: Callable[[], int], now: Callable[[], datetime], told: Callable[[], None]
    ) -> None:
        self._tick = tick
        self._now = now
        self._told = told
        # Single operations of a dict are atomic, so it needs no lock.
        self._steps: dict[str, Step] = {}
        # A thousand steps may be under way at once: none of them is looked for among the others.
        self._ended: dict[str, None] = {}  # those that have ended, the oldest first
        self._newest: dict[tuple[str, str | None], str] = {}  # of each name and step around it
        self._processes: dict[str, int] = {}  # in which each step that is under way was begun

    def new(
        self,
        name: object,
        key: object,
        parent: str | None,
        attempt: int | None = None,
        started_at: datetime | None = None,
    ) -> Step:
        """Return a step that starts. One that failed before, by its key or its name, is tried again."""
        # As it is kept, since a step that failed is found by that.
        text = fitted_name(as_text(name) if type(name) is not str else name)
        own_key = uuid.uuid4().hex[: 2 * _KEY_BYTES] if key is None else _own_key(key)
        known = self._failed(text, parent) if key is None else self._steps.get(own_key)
        return fitted(
            Step(
                key=known.key if known else own_key,
                parent=parent,
                name=text,
                attempt=attempt or (known.attempt + 1 if known else 1),
                status=StepStatus.RUNNING,
                started_at=self._now() if started_at is None else started_at.astimezone(UTC),
                version=self._tick(),
            )
        )

    def _failed(self, name: str, parent: str | None) -> Step | None:
        """Return the last step of that name there, if it failed."""
        last = self._steps.get(self._newest.get((name, parent), ""))
        return last if last and last.status in (StepStatus.FAILED, StepStatus.CANCELLED) else None

    def change(self, key: str, **changes: Any) -> None:
        """Note *changes* of a step. One that has given way to others stays forgotten."""
        while (step := self._steps.get(key)) is not None:
            changed = replace(step, version=self._tick(), **changes)
            if self._put_after(step, fitted(changed, is_detached="attributes" not in changes)):
                break

    def _put_after(self, before: Step, step: Step) -> bool:
        """Put *step* in place of *before*. Return False if another thread has changed it meanwhile."""
        # An attribute must not undo the end of a step. CPython switches threads, and calls signals' handlers,
        # at calls and loops only, of which there are none between the comparison and the assignment.
        steps, key = self._steps, step.key
        with suppress(KeyError):  # it has given way to others
            if steps[key] is before:
                steps[key] = step
                self._has_changed(step)
                return True
        return False

    def end(self, key: str, attempt: int, status: StepStatus, error: str | None) -> None:
        """Note that a step ends now, unless it was not begun yet in this *attempt*."""
        step = self._steps.get(key)
        if step is not None and step.attempt >= attempt:
            self.change(key, status=status, error=error, ended_at=max(self._now(), step.started_at))
        self._processes.pop(key, None)

    def begin(self, step: Step) -> None:
        """Note a `new` step."""
        self._processes[step.key] = os.getpid()
        self._steps[step.key] = step
        self._has_changed(step)

    def _has_changed(self, step: Step) -> None:
        self._ended.pop(step.key, None)
        if step.status is not StepStatus.RUNNING:
            self._ended[step.key] = None
        self._newest[step.name, step.parent] = step.key
        if len(self._steps) > MAX_STEPS:
            self._forget_oldest()
        self._told()

    def _forget_oldest(self) -> None:
        with suppress(StopIteration, RuntimeError):  # all are under way, or another thread changes them
            key = next(iter(self._ended))
            self._ended.pop(key, None)
            step = self._steps.pop(key, None)
            if step is not None and self._newest.get((step.name, step.parent)) == key:
                self._newest.pop((step.name, step.parent), None)

    def all(self, hlc: int) -> tuple[Step, ...]:
        """Return all steps. *hlc* is a reading of the clock from before this call."""
        # The newest are kept where there are too many. A step that runs for long must not give way to those
        # that end meanwhile. By a reading from before the look: a step that ends after it is later.
        # A forked child does not know what has become of the steps of its parent.
        own = os.getpid()
        return tuple(
            replace(step, version=hlc)
            if step.status is StepStatus.RUNNING
            and step.version < hlc
            and self._processes.get(step.key) == own
            else step
            for step in list(self._steps.values())
        )

    def __bool__(self) -> bool:
        return bool(self._steps)


def _own_key(value: object) -> str:
    text = id_text(value) or ""
    return text if is_step_key(text) else hashlib.sha256(text.encode()).hexdigest()[:32]


class StepHandle:
    """A step under way, as its workflow sees it. Its methods never raise and never wait.

    Attributes:
        key: The step's key, unique within its run.
        name: What it is called.
        attempt: Which try of it this is, from 1.
    """

    def __init__(self, book: StepBook, step: Step | None, around: StepHandle | None = None) -> None:
        self.key: str = step.key if step else ""
        self.name: str = step.name if step else ""
        self.attempt: int = step.attempt if step else 1
        self._book = book
        self._step = step
        self._around = around
        self._is_left = False
        self._attributes: dict[str, Any] = {}
        self._end: tuple[StepStatus, str | None] = (StepStatus.SUCCESS, None)

    def begin(self) -> None:
        """State that the step is running. Its block does that, and so does `RunHandle.begin_step`."""
        if self._step is not None:
            with Contained():
                self._book.begin(self._step)

    def set(self, **attributes: Any) -> None:
        """Set what is to be known of the step, besides what was set before.

        A step takes at most `MAX_STEP_BYTES` of JSON in all. What does not fit is cut, or left out.
        """
        with Contained():
            self._attributes |= attributes
            self._book.change(self.key, attributes=dict(self._attributes))

    def fail(self, error: str | BaseException = "") -> None:
        """Have the step end as failed when its block ends, without an exception.

        Args:
            error: What went wrong: a text, or an exception that the workflow has handled.
        """
        is_exception = issubclass(type(error), BaseException)  # isinstance would run its code
        text = name_and_text(cast("BaseException", error)) if is_exception else as_text(error)
        self._end = StepStatus.FAILED, text

    @property
    def innermost(self) -> StepHandle | None:
        """This step, or the innermost one around it that is still under way."""
        handle: StepHandle | None = self
        while handle is not None and handle._is_left:  # noqa: SLF001 - its own kind
            handle = handle._around  # noqa: SLF001 - its own kind
        return handle

    def is_of(self, book: StepBook) -> bool:
        """Return whether this is a step in *book*."""
        return self._book is book

    def end(self, error: BaseException | None = None) -> None:
        """State that the step has ended. Leaving its block does that, so it is for `RunHandle.begin_step`.

        Args:
            error: What ended it: an exception, or a cancellation.
        """
        self._is_left = True
        if error is not None and is_cancellation(error):
            self._end = StepStatus.CANCELLED, name_and_text(error)
        elif error is not None and not is_good_exit(error):
            self.fail(error)
        self._book.end(self.key, self.attempt, *self._end)


_current: Final[ContextVar[StepHandle | None]] = ContextVar("run_log_current_step", default=None)


def current_step() -> StepHandle | None:
    """Return the handle of the innermost step around this code, or None."""
    handle = _current.get()
    # A generator that is left late may bring back a step that has ended.
    return None if handle is None else handle.innermost


def new_step(
    book: StepBook,
    name: object,
    key: object,
    parent: str | None,
    around: StepHandle | None = None,
    attempt: int | None = None,
    started_at: datetime | None = None,
) -> StepHandle:
    """Return the handle of a new step in *book*, which is to begin.

    Args:
        book: The run's steps.
        name: What people call it.
        key: What tells it from others; None makes a new one.
        parent: The key of the step around it.
        around: The handle of the step around this code.
        attempt: Which try of it this is; None counts those in the book.
        started_at: When it started; None for now.
    """
    step: Step | None = None
    with Contained():  # there may be no memory left
        step = book.new(name, key, parent, attempt, started_at)
    return StepHandle(book, step, around)


class StepScope:
    """What `RunHandle.step` returns: a context manager, sync and async, for one block at a time."""

    def __init__(
        self,
        book: StepBook,
        name: object,
        key: object,
        attempt: int | None = None,
        started_at: datetime | None = None,
    ) -> None:
        self._book = book
        self._name = name
        self._key = key
        self._attempt = attempt
        self._started_at = started_at
        self._entered: dict[StepHandle, Token[StepHandle | None]] = {}

    def __enter__(self) -> StepHandle:
        """State that the step is running."""
        before, around = _current.get(), current_step()
        parent = around.key if around and around.is_of(self._book) else None
        handle = new_step(self._book, self._name, self._key, parent, around, self._attempt, self._started_at)
        try:
            handle.begin()
            self._entered[handle] = _current.set(handle)
        except BaseException as error:  # Ctrl-C came in between, and nobody will leave the block
            _current.set(before)
            self._entered.pop(handle, None)
            with Contained():
                handle.end(error)
            raise
        return handle

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """State how the step ended. An exception goes on."""
        if not self._entered:
            return  # left twice: raising would hide the exception of the block
        handle, token = self._entered.popitem()
        try:
            with Untouched(error), Contained():
                handle.end(error)
        except BaseException:  # Ctrl-C came in between, and the step has ended all the same
            with Contained():
                handle.end(error)
            raise
        finally:
            # A generator may leave in another context than it entered.
            with suppress(ValueError):
                _current.reset(token)

    async def __aenter__(self) -> StepHandle:
        """Do what `__enter__` does: it never waits."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do what `__exit__` does: it never waits."""
        self.__exit__(kind, error, trace)
