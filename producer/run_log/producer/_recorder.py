"""The scope a workflow wraps a run in."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Token
from datetime import timedelta
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from opentelemetry.trace import format_trace_id

from run_log.core import RunRef, TriggerType, utc_now
from run_log.core.events import current_span_context

from ._emitter import default_emitter
from ._failure import Untouched
from ._functions import recorded
from ._handle import Emits, RunHandle, current_run, innermost
from ._triggers import known_trigger, tell_unknown

_P = ParamSpec("_P")
_T = TypeVar("_T")


class RunRecorder:
    """What `record_run` returns: a context manager, sync and async, and a decorator.

    As a context manager it records one block at a time. As a decorator it records each call of the function,
    sync or async, as a run, whose handle `current_run` returns.

    Args:
        handle: Returns the run's handle. It is called on entry, so that the run starts then.
        handle_async: The same for async code; None calls *handle*.
        keeps_result: Whether what a decorated function returns becomes its run's result.
    """

    def __init__(
        self,
        handle: Callable[[], RunHandle],
        handle_async: Callable[[], Awaitable[RunHandle]] | None = None,
        *,
        keeps_result: bool = False,
    ) -> None:
        self._handle = handle
        self._handle_async = handle_async
        self._keeps_result = keeps_result
        self._entered: dict[RunHandle, Token[RunHandle | None]] = {}

    def __enter__(self) -> RunHandle:
        """State that the run is running."""
        return self._enter(self._handle())

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """State how the run ended. An exception goes on.

        This waits briefly for delivery where the CPU may stop, or the process may end without warning.
        """
        handle = self._leave(error)
        if handle is not None:
            handle._await_end(error)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half

    async def __aenter__(self) -> RunHandle:
        """State that the run is running."""
        return self._enter(self._handle() if self._handle_async is None else await self._handle_async())

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Do what `__exit__` does, without blocking the event loop."""
        handle = self._leave(error)
        if handle is not None:
            await handle._await_end_async(error)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half

    def open(self) -> RunHandle:
        """State that the run is running, where no block can stand: a framework calls back at its end.

        End it by `RunHandle.close`. `current_run` does not return it.
        """
        return _opened(self._handle())

    async def open_async(self) -> RunHandle:
        """Do what `open` does, in async code: for `resume_run`, which reads the run."""
        return _opened(self._handle() if self._handle_async is None else await self._handle_async())

    def __call__(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Return *function*, with each of its calls recorded as a run.

        Args:
            function: Sync or async. What it returns is recorded only with ``result=True``. A sync function
                that returns a coroutine is recorded until it returns.

        Raises:
            InvalidArgumentError: It is a generator function, whose calls return before its work begins, or
                a ``classmethod`` or ``staticmethod`` object: decorate the function below them.
        """
        handle, handle_async, keeps_result = self._handle, self._handle_async, self._keeps_result

        def keep(run: RunHandle, value: Any) -> None:
            if keeps_result and value is not None:
                run.set_result(value)

        return recorded(function, lambda: RunRecorder(handle, handle_async), keep)

    def _enter(self, handle: RunHandle) -> RunHandle:
        before = innermost.get()
        try:
            self._entered[handle] = innermost.set(handle)
            handle._enter()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
        except BaseException as error:  # Ctrl-C came in between, and nobody will leave the block
            innermost.set(before)
            self._entered.pop(handle, None)
            handle._leave(error)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
            raise
        return handle

    def _leave(self, error: BaseException | None) -> RunHandle | None:
        """State the end of the block's run, and return it."""
        entered = self._entry()
        if entered is None:
            return None  # left twice, or never entered: raising would hide the exception of the block
        handle, token = entered
        with Untouched(error):
            handle._leave(error)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
        # A fixture or a generator may leave in another context than it entered, with runs of its own.
        with contextlib.suppress(ValueError):
            innermost.reset(token)
        return handle

    def _entry(self) -> tuple[RunHandle, Token[RunHandle | None]] | None:
        """Remove and return the run that is left: this context's, if several blocks share the recorder."""
        current = current_run()
        token = self._entered.pop(current, None) if current is not None else None
        if current is not None and token is not None:
            return current, token
        return self._entered.popitem() if self._entered else None


def _opened(handle: RunHandle) -> RunHandle:
    try:
        handle._enter()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
    except BaseException as error:  # Ctrl-C came in between, and nobody will end the run
        handle._leave(error)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
        raise
    return handle


def record_run(  # noqa: PLR0913 - each names one thing about the run
    workflow_id: str,
    *,
    trigger_type: TriggerType | str = TriggerType.MANUAL,
    trigger_data: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    attempt: int = 1,
    labels: Mapping[str, object] | None = None,
    parent: RunRef | None = None,
    heartbeat: timedelta | None = None,
    result: bool = False,
    emitter: Emits | None = None,
) -> RunRecorder:
    """Record a block as one run of *workflow_id*, by ``with`` or ``async with``; or a function, by ``@``.

    The run is running when the block is entered, and ends when it is left: as success, or as failed if an
    exception leaves the block, or as cancelled if its task is cancelled. The exception goes on. ``sys.exit``
    without an error code is success. The handle can set a result, pause, resume, skip, fail or cancel.

    Recording never raises, whatever happens to the network. It waits in two places only, at the end of the
    block and briefly (see ``RUN_LOG_END_FLUSH_SECONDS``): where the platform may stop the CPU once the
    response is sent, and in a forked process, which may end by ``os._exit``. In async code use
    ``async with``, so that only this task waits.

    Args:
        workflow_id: The workflow's name.
        trigger_type: What started the run: a `TriggerType` or any other word, at most 64 of
            ``a-z 0-9 _ . -``, a letter first. Another text is recorded as ``manual``, and logged once.
        trigger_data: What the run was started with, in any form that `RunHandle.set_result` takes.
        run_id: The run's id; None makes a random one. A number, a UUID, a path or bytes become their text.
            An id longer than `MAX_ID_BYTES` is recorded with a digest: see `RunHandle.run_id`. To continue
            a run, use `resume_run`.
        attempt: Which try of the run this is, where a scheduler counts them: from 1. States of a later try
            win, whenever they arrive.
        labels: What the run is found by: at most `MAX_LABELS` keys of ``a-z 0-9 _ . -`` with texts of at most
            128 characters. What cannot be a label is left out, and logged.
        parent: The run that started this one; None takes the run around this code, if there is one.
        heartbeat: After how long a silence the run says that it is alive, at least 2 seconds; None for never.
            `list_stale` goes by it. It comes from the emitter's own thread.
        result: Whether what a decorated function returns becomes the run's result. A block sets its own.
        emitter: Where states go; None takes `default_emitter`.
    """

    def open_handle() -> RunHandle:
        begun = time.perf_counter()
        known = known_trigger(trigger_type)
        tell_unknown()
        around = current_run()
        span = current_span_context()
        return RunHandle(
            {
                # Random rather than time-ordered: neighbouring keys would heat one range of the store.
                "id": str(uuid.uuid4()) if run_id is None else run_id,
                "workflow_id": workflow_id,
                "attempt": attempt,
                "trigger_type": known,
                "trigger_data": trigger_data,
                "started_at": utc_now(),
                "labels": {} if labels is None else labels,
                "parent": around.ref if parent is None and around else parent,
                "trace_id": format_trace_id(span.trace_id) if span else None,
            },
            emitter=default_emitter() if emitter is None else emitter,
            elapsed=lambda: time.perf_counter() - begun,
            heartbeat=heartbeat,
        )

    return RunRecorder(open_handle, keeps_result=result)
