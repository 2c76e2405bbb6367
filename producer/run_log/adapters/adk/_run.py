"""An invocation as it goes on in this process: its steps, and what its events tell."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from opentelemetry import context as otel

from run_log.producer import RunHandle, StepHandle

from ._requests import note_requests

_PLACE: Final = otel.create_key("run-log-adk-place")


@dataclass(eq=False)
class Place:
    """Where code runs: in a run, and in a step of it."""

    run: Run
    kind: str = "run"
    mark: object = None
    """What tells the step from others of its kind that are under way."""
    step: StepHandle | None = None
    around: Place | None = None
    is_agent_tool: bool = False
    tokens: dict[str, int] = field(default_factory=dict[str, int])
    """How many a call of a model took, by their kind."""

    def enter(self) -> None:
        """Have code from here on run in this place."""
        # It is not detached. As with its spans, ADK carries what is attached in a run, an agent or a tool for
        # as long as that is under way, and shows it to nobody else.
        otel.attach(otel.set_value(_PLACE, self))

    def outwards(self) -> Iterator[Place]:
        """Yield this place, and each one around it."""
        place: Place | None = self
        while place is not None:
            yield place
            place = place.around


def current_place() -> Place | None:
    """Return the place that this code runs in, which may have ended; None outside of any."""
    return cast("Place | None", otel.get_value(_PLACE))


@dataclass(eq=False)
class Run:
    """An invocation that is under way."""

    handle: RunHandle
    session_id: str
    root: str | None
    """The name of the agent that it runs; None if it runs a workflow."""
    requests: dict[str, Any]
    """The function calls that wait for an answer, by their ids."""
    in_agent_tool: bool
    handled: BaseException | None
    """The exception that whoever runs it was handling when it began."""
    context: weakref.ref[Any] | None = None
    """ADK's context of it; None once it has ended."""
    task: asyncio.Task[Any] | None = None
    """The task that drives it."""
    task_done: Callable[[asyncio.Task[Any]], None] | None = None
    """What is called when that task is done."""
    under_way: dict[Place, None] = field(default_factory=dict[Place, None])
    nodes: dict[str, Place] = field(default_factory=dict[str, Place])
    """The newest step of each node, by its path."""
    called: set[str] = field(default_factory=set[str])
    """The paths of nodes that callbacks tell of: agents and tools."""
    last: Any = None
    """The newest event."""
    result: dict[str, Any] = field(default_factory=dict[str, Any])

    def follow(self) -> None:
        """Note which task drives the run."""
        task = asyncio.current_task()
        if task is self.task or self.task_done is None:
            return
        if self.task is not None:
            self.task.remove_done_callback(self.task_done)
        self.task = task
        if task is not None:
            task.add_done_callback(self.task_done)

    def let_go(self, error: BaseException | None) -> None:
        """End the steps that are under way, and follow nothing any more."""
        if self.task is not None and self.task_done is not None:
            self.task.remove_done_callback(self.task_done)
        self.context = self.task = self.task_done = None
        for place in list(self.under_way):
            self.end(place, error)

    def begin(self, kind: str, name: str, mark: object, around: Place | None, **attributes: object) -> Place:
        """Begin a step within *around*."""
        step = self.handle.begin_step(name, parent=around.step.key if around and around.step else None)
        if kind != "model":  # of which there is more to tell at its end
            step.set(kind=kind, **attributes)
        place = Place(self, kind, mark, step, around)
        self.under_way[place] = None
        return place

    def innermost(self) -> Place | None:
        """Return the innermost step around this code that is under way."""
        place = current_place()
        return next((step for step in place.outwards() if step in self.under_way), None) if place else None

    def around(self, path: str) -> Place | None:
        """Return the step around an agent or a tool that begins here, as the node at *path* if it is one."""
        self.called.add(path)
        innermost = self.innermost()
        is_in_workflow = innermost is None and self.root is None
        return self._node(path.rpartition("/")[0]) if is_in_workflow else innermost

    def find(self, kind: str, mark: object = None) -> Place | None:
        """Return the step of that kind and mark that this code is in, or that was begun from here."""
        innermost = self.innermost()
        around = innermost.outwards() if innermost else ()
        begun = (place for place in reversed(self.under_way) if place.around is innermost)
        return next(
            (place for place in (*around, *begun) if (place.kind, place.mark) == (kind, mark)),
            None,
        )

    def end(self, place: Place | None, error: BaseException | str | None = None) -> None:
        """End a step, and first what is under way within it: ADK has called nothing at the end of that."""
        if place is None:
            return
        for inner in [step for step in reversed(self.under_way) if place in step.outwards()]:
            del self.under_way[inner]
            if inner.step is not None:
                if inner.kind == "model":
                    inner.step.set(kind=inner.kind, **inner.tokens)
                if isinstance(error, str):
                    inner.step.fail(error)
                inner.step.end(error if isinstance(error, BaseException) else None)

    def hear(self, event: Any, *, keeps_content: bool) -> None:
        """Note what an event tells."""
        self.last = event
        note_requests(self.requests, event)
        if keeps_content:
            self._keep(event)
        path: str = event.node_info.path
        if "/" in path and path not in self.called:
            self._hear_node(path, event)

    def _keep(self, event: Any) -> None:
        is_of_root = any("/" not in path for path in event.node_info.output_for or ())
        if is_of_root and event.output is not None:
            self.result = {"output": event.output}
        elif event.content is not None and event.is_final_response():
            text = text_of(event.content)
            if text:
                self.result = {"response": text}

    def _hear_node(self, path: str, event: Any) -> None:
        # Where an invocation goes on, ADK repeats the outputs that there were, for no node.
        has_output = event.node_info.output_for is not None or event.node_info.message_as_output
        has_ended = has_output or event.actions.route is not None or event.long_running_tool_ids
        if not (has_ended or event.error_code or event.content):
            return
        place = self._node(path)
        if event.error_code:
            self.end(place, error_of(event))
        elif has_ended:
            for ended in (path, *(event.node_info.output_for or ())):
                self.end(self.nodes.get(ended))

    def _node(self, path: str) -> Place | None:
        """Return the step of the node at *path*, begun if it is not under way, as those around it are."""
        around, _, name = path.rpartition("/")
        if "/" not in path or path in self.called:
            return None
        known = self.nodes.get(path)
        if known is None or known not in self.under_way:
            known = self.begin("node", name.partition("@")[0], path, self._node(around))
            self.nodes[path] = known
        return known


def text_of(content: Any) -> str:
    """Return the text of a content, with a word for each part that is none."""
    found: list[str] = []
    for part in (content.parts if content is not None else None) or ():
        blob = part.inline_data or part.file_data
        if part.text and not part.thought:
            found.append(part.text)
        elif blob is not None:
            found.append(f"[{blob.mime_type}]")
    return "\n".join(found)


def error_of(told: Any) -> str | None:
    """Return what an event, or a response of a model, says of an error; None if it says anything else."""
    if told is None or not told.error_code or (told.content is not None and told.content.parts):
        return None
    return f"{told.error_code}: {told.error_message}" if told.error_message else str(told.error_code)
