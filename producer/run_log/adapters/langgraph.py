"""Runs of LangGraph graphs, recorded by a callback handler. It needs LangGraph 1.2 or newer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any, Final, cast
from uuid import UUID

from run_log.core import RunStatus, TriggerType
from run_log.core.ids import as_text
from run_log.core.logs import get_logger
from run_log.producer import RunHandle, StepHandle, record_run, resume_run
from run_log.producer.loops import is_in_loop, read_run_log, run_aside

# Untyped: LangGraph is not installed where this is checked.
GraphCallbackHandler: Any = import_module("langgraph.callbacks").GraphCallbackHandler
_errors: Any = import_module("langgraph.errors")
_Command: Any = import_module("langgraph.types").Command

THREAD: Final = "thread_id"
"""The label with the thread of a run. A run that is resumed is found by it."""

MAX_UNFINISHED: Final = 1_000
"""The most threads whose unfinished run is remembered, beside the run log."""

_READ_SECONDS: Final = 5.0
"""How long a graph that is resumed waits for its run, in all."""

_unfinished: Final[dict[tuple[str, str], str]] = {}
"""The runs that threads of graphs go on with here: the run log may not have them yet when that happens."""
# Single operations of a dict are atomic, so it needs no lock, and neither has a handler's.

_logger: Final = get_logger("run_log.adapters")


@dataclass(eq=False)
class _GraphRun:
    """A graph that is invoked, and the run that this is a part of."""

    workflow_id: str
    run_id: str
    thread: str | None
    input: Any
    begin: Callable[[Mapping[str, object]], RunHandle]
    """Opens a new run with labels."""
    handle: RunHandle | None = None
    interrupts: dict[str, Any] = field(default_factory=dict[str, Any])
    """What nodes have asked for, by the id of the question."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def resumes(self) -> bool:
        """Whether this goes on with what its thread has begun, if there is anything."""
        return self.thread is not None and (self.input is None or isinstance(self.input, _Command))

    def opened(self) -> RunHandle:
        """Return the run, which begins now if it has not."""
        with self.lock:  # several threads may begin its first nodes
            if self.handle is None:
                self.handle = self.begin({} if self.thread is None else {THREAD: self.thread})
            return self.handle

    def pause(self, interrupts: Sequence[Any]) -> None:
        """State that the run waits for answers to *interrupts*; without any, for somebody to go on."""
        self.opened().pause(
            "\n".join(as_text(interrupt.value) for interrupt in interrupts), **_asked_for(interrupts)
        )


@dataclass(eq=False)
class _Place:
    """Where a callback of LangChain's stands: within a graph, and within a step of it."""

    run: _GraphRun
    key: str | None = None
    """The key of the step around it."""
    step: StepHandle | None = None
    """The step that it is itself."""


class RunLogHandler(GraphCallbackHandler):  # type: ignore[misc]  # untyped
    """A callback handler that records graphs: each invocation is a run, each node a step.

    One handler serves all graphs, threads and event loops of a process. It never raises and never waits, with
    two exceptions: a graph that is resumed waits for its run to be read, at most five seconds, and the end
    of a run may wait, as `record_run` does. In async code neither blocks the event loop.

    Args:
        trigger_type: What starts the graphs: see `record_run`.
        heartbeat: See `record_run`.
    """

    run_inline = True  # else async graphs would hand each event to a thread
    ignore_llm = True
    ignore_chat_model = True
    ignore_retriever = True
    ignore_agent = True

    def __init__(
        self,
        *,
        trigger_type: TriggerType | str = TriggerType.MANUAL,
        heartbeat: timedelta | None = None,
    ) -> None:
        self._trigger_type = trigger_type
        self._heartbeat = heartbeat
        self._places: dict[UUID, _Place] = {}

    def on_chain_start(
        self,
        _serialized: object,
        inputs: object,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **_: object,
    ) -> None:
        """Begin a run, or a step if it is a node that starts."""
        around = self._places.get(parent_run_id) if parent_run_id else None
        own = metadata or {}
        if around is None:
            self._begin_run(name or "LangGraph", inputs, run_id, own.get(THREAD))
            return
        # All that is called within a node or a task has its namespace, which ends in its id.
        key = str(own.get("langgraph_checkpoint_ns", "")).rpartition(":")[2]
        if not key or key == around.key:
            self._places[run_id] = _Place(around.run, around.key)
            return
        step = around.run.opened().begin_step(name or "", key=key, parent=around.key)
        self._places[run_id] = _Place(around.run, step.key, step)

    def _begin_run(self, workflow_id: str, inputs: object, run_id: UUID, thread: object) -> None:
        def begin(labels: Mapping[str, object]) -> RunHandle:
            return record_run(
                workflow_id,
                run_id=str(run_id),
                trigger_type=self._trigger_type,
                trigger_data=cast("Mapping[str, Any]", inputs),
                labels=labels,
                heartbeat=self._heartbeat,
            ).open()

        text = None if thread is None else as_text(thread)
        run = _GraphRun(workflow_id, str(run_id), text, inputs, begin)
        self._places[run_id] = _Place(run)
        if not run.resumes:
            _unfinished.pop((workflow_id, text or ""), None)
            run.opened()

    def on_tool_start(
        self, *_: object, run_id: UUID, parent_run_id: UUID | None = None, **__: object
    ) -> None:
        """Note where a tool stands, for it may invoke graphs."""
        around = self._places.get(parent_run_id) if parent_run_id else None
        if around is not None:
            self._places[run_id] = _Place(around.run, around.key)

    def on_tool_end(self, *_: object, run_id: UUID, **__: object) -> None:
        """Forget the tool."""
        self._places.pop(run_id, None)

    def on_tool_error(self, *_: object, run_id: UUID, **__: object) -> None:
        """Forget the tool."""
        self._places.pop(run_id, None)

    @property
    def on_chain_end(self) -> Callable[..., Any]:
        """End a step, or the run. LangChain awaits it in async code, so that this does not block the loop."""
        return self._end_async if is_in_loop() else self._end

    @property
    def on_chain_error(self) -> Callable[..., Any]:
        """End a step, or the run, as failed, unless the error is one by which LangGraph controls its flow."""
        return self._fail_async if is_in_loop() else self._fail

    def _end(self, outputs: object, *, run_id: UUID, **_: object) -> None:
        run = self._leave(run_id, None, outputs)
        if run is not None:
            run.close()

    async def _end_async(self, outputs: object, *, run_id: UUID, **_: object) -> None:
        run = self._leave(run_id, None, outputs)
        if run is not None:
            await run.close_async()

    def _fail(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        run = self._leave(run_id, error, None)
        if run is not None:
            run.close(_failure(error))

    async def _fail_async(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        run = self._leave(run_id, error, None)
        if run is not None:
            await run.close_async(_failure(error))

    def _leave(self, run_id: UUID, error: BaseException | None, outputs: object) -> RunHandle | None:
        """End a step. Return the run if it is that which is to be closed."""
        place = self._places.pop(run_id, None)
        if place is None:
            return None
        if place.step is not None and error is not None and isinstance(error, _errors.GraphInterrupt):
            # It waits, and begins anew when it is resumed.
            place.run.interrupts |= {each.id: each for args in error.args for each in args}
        elif place.step is not None:
            place.step.end(_failure(error))
        return self._finished(place.run, error, outputs) if str(run_id) == place.run.run_id else None

    def _finished(self, run: _GraphRun, error: BaseException | None, outputs: object) -> RunHandle:
        """Say how a run ends, and return it."""
        handle = run.handle
        if handle is None:
            # LangGraph has refused to go on. Without the label: the thread's run is still the one before.
            return run.begin({})
        is_closed = isinstance(error, GeneratorExit)  # by the caller, who has left the stream
        if is_closed and run.interrupts and handle.status is not RunStatus.PAUSED:
            run.pause(tuple(run.interrupts.values()))  # at a question, which LangGraph has not told of yet
        if error is None and handle.status is not RunStatus.PAUSED:
            handle.set_result(cast("Mapping[str, Any]", outputs))
            return handle
        if run.thread is not None:
            while len(_unfinished) >= MAX_UNFINISHED:
                _unfinished.pop(next(iter(_unfinished)), None)
            _unfinished[run.workflow_id, run.thread] = handle.run_id
        if handle.status is not RunStatus.PAUSED and _failure(error) is None:
            # Drained, maybe: it goes on when its thread is resumed.
            handle.cancel("its stream was closed before its end" if is_closed else as_text(str(error)))
        return handle

    def on_interrupt(self, event: Any) -> None:
        """State that the run is paused."""
        place = self._places.get(event.run_id)
        if place is not None and place.key is None:  # a graph within a node pauses its own thread only
            place.run.pause(event.interrupts)

    async def on_resume(self, event: Any) -> None:
        """Go on with the run of the thread, if it has not succeeded."""
        place = self._places.get(event.run_id)
        if place is None or place.key is not None or place.run.handle is not None:
            return
        run, thread = place.run, place.run.thread or ""
        deadline = time.monotonic() + _READ_SECONDS
        known = _unfinished.pop((run.workflow_id, thread), None)
        if known is None:
            known = await _newest_unfinished(run.workflow_id, thread, deadline - time.monotonic())
        if known is not None:
            left = max(deadline - time.monotonic(), 0.0)
            recorder = resume_run(
                run.workflow_id, known, timeout=left, heartbeat=self._heartbeat, **_answer(run.input)
            )
            run.handle = await recorder.open_async()


async def _newest_unfinished(workflow_id: str, thread: str, seconds: float) -> str | None:
    """Return the id of the newest run of *thread*, unless it has succeeded."""

    async def newest(run_log: Any) -> str | None:
        found, _ = await run_log.list_runs(workflow_id, limit=1, label=(THREAD, thread), payloads=False)
        return found[0].id if found and found[0].status is not RunStatus.SUCCESS else None

    try:
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(run_aside(lambda: read_run_log(newest)))
    except Exception as error:
        _logger.exception(
            "run_log_run_not_read", workflow_id=workflow_id, thread_id=thread, error=repr(error)
        )
        return None


def _asked_for(interrupts: Sequence[Any]) -> dict[str, Any]:
    """Return the choices or the form of a pause at *interrupts*."""
    schemas: list[dict[str, Any]] = [
        getattr(interrupt, "response_schema", None) or {} for interrupt in interrupts
    ]
    if len(schemas) > 1:  # as LangGraph takes several answers: by the ids of the questions
        titled: dict[str, Any] = {
            interrupt.id: {"title": as_text(interrupt.value), **(schema or {"type": "string"})}
            for interrupt, schema in zip(interrupts, schemas, strict=True)
        }
        return {"form": {"type": "object", "properties": titled, "required": list(titled)}}
    (schema,) = schemas or [{}]
    if schema.get("type") == "object":
        return {"form": schema}
    return {"choices": schema["enum"]} if "enum" in schema else {}


def _answer(command: Any) -> dict[str, Any]:
    """Return the answer that a graph is resumed with, as `resume_run` takes it."""
    value = getattr(command, "resume", None)
    if isinstance(value, Mapping):
        return {"values": cast("Mapping[str, Any]", value)}
    return {} if value is None or value is True else {"comment": as_text(value)}


def _failure(error: BaseException | None) -> BaseException | None:
    """Return *error*, unless LangGraph controls its flow by it, or a stream was closed."""
    return None if isinstance(error, (_errors.GraphBubbleUp, GeneratorExit)) else error
