"""Graphs that run in LangGraph's own environment, with a handler that records them.

    python -m tests.adapters.langgraph.program THREADS first|second|docs

The file THREADS keeps the checkpoints of the first program for the second.
"""

from __future__ import annotations

import asyncio
import operator
import os
import pickle
import signal
import sys
import threading
import time
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

from tests.unit.docs.repository import blocks, read, run_example

from run_log.adapters.langgraph import RunLogHandler
from run_log.producer import current_run, default_emitter, record_run
from run_log.stores import create_run_log_service

adapter: Any = import_module("run_log.adapters.langgraph")
_graph: Any = import_module("langgraph.graph")
_types: Any = import_module("langgraph.types")
_func: Any = import_module("langgraph.func")
InMemorySaver: Any = import_module("langgraph.checkpoint.memory").InMemorySaver
Command = _types.Command
interrupt = _types.interrupt


class State(TypedDict):
    """What nodes have said."""

    said: Annotated[list[Any], operator.add]


PAY = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
WAY = {"enum": ["pay", "wait"], "type": "string"}
SAVER: Any = InMemorySaver()
HANDLERS: list[Any] = []


def graph(name: str, nodes: dict[str, Any], *edges: tuple[str, str], **options: Any) -> Any:
    """Return a recorded graph: *nodes* one after another, or with *edges*."""
    retry = _types.RetryPolicy(initial_interval=0.001, retry_on=ConnectionError, jitter=False)
    built = _graph.StateGraph(State)
    for node, does in nodes.items():
        built.add_node(node, does, retry_policy=retry)
    names = list(nodes)
    for edge in edges or zip([_graph.START, *names], names, strict=False):
        built.add_edge(*edge)
    handler = RunLogHandler(trigger_type="chat", heartbeat=timedelta(seconds=30))
    HANDLERS.append(handler)
    return built.compile(name=name, checkpointer=SAVER, **options).with_config(callbacks=[handler])


def says(*words: Any) -> Any:
    """Return a node that says *words*."""

    def node(_: State) -> dict[str, Any]:
        return {"said": list(words)}

    return node


def asks(value: Any, schema: Any = None) -> Any:
    """Return a node that asks, and says the answer."""

    def node(_: State) -> dict[str, Any]:
        return {"said": [interrupt(value, response_schema=schema)]}

    return node


def fails(times: int, error: Exception) -> Any:
    """Return a node that raises *error* so many times."""
    left = [error] * times

    def node(_: State) -> dict[str, Any]:
        if left:
            raise left.pop()
        return {"said": ["done"]}

    return node


def on(thread: str, **more: Any) -> dict[str, Any]:
    """Return the config of a thread."""
    return {"configurable": {"thread_id": thread}, **more}


def tried(call: Any, *arguments: Any) -> str:
    """Return the name of the error of a call."""
    try:
        call(*arguments)
    except BaseException as error:  # noqa: BLE001 - the last of them is a cancellation
        return type(error).__name__
    return "none"


START: dict[str, Any] = {"said": []}


def sync_graphs() -> None:
    """Run what ends by itself."""
    met = threading.Barrier(2, timeout=30)

    def meets(_: State) -> dict[str, Any]:
        met.wait()
        return {"said": ["met"]}

    built = _graph.StateGraph(State)
    built.add_node("deep", says("deep"))
    built.add_edge(_graph.START, "deep")
    inner = built.compile(name="inner")

    def calls(_: State) -> Any:
        return inner.invoke(START)

    whole = graph(
        "whole",
        {
            "first": says("first"),
            "left": meets,
            "right": meets,
            "sub": inner,
            "calls": calls,
        },
        (_graph.START, "first"),
        ("first", "left"),
        ("first", "right"),
        ("left", "sub"),
        ("sub", "calls"),
    )
    with record_run("around", run_id="around"):
        whole.invoke({"said": ["in"]}, on("whole"))
    tried(graph("fails", {"bad": fails(9, ValueError("no"))}).invoke, START, on("fails"))
    graph("retries", {"flaky": fails(2, ConnectionError("busy"))}).invoke(START, on("retries"))
    again = graph("again", {"good": says("good"), "bad": fails(1, ValueError("no"))})
    tried(again.invoke, START, on("again"))
    again.invoke(None, on("again"))
    tried(graph("nothing", {"good": says("good")}).invoke, None, on("nothing"))


def functional() -> None:
    """Run a workflow of functions."""

    def double(number: int) -> int:
        return 2 * number

    task = _func.task(double)

    def doubles(numbers: list[int]) -> list[int]:
        return [future.result() for future in [task(number) for number in numbers]]

    _func.entrypoint()(doubles).with_config(callbacks=[RunLogHandler()]).invoke([1, 2])


def streams() -> None:
    """Leave streams midway."""
    for name, second in (("left", says("second")), ("left-asking", asks("go on?"))):
        stream = graph(name, {"first": says("first"), "second": second}).stream(START, on(name))
        for part in stream:
            if name == "left" or "__interrupt__" in part:
                break
        stream.close()


def pauses() -> None:
    """Pause, and go on in this process or in the second."""
    chat = graph("chat", {"hears": says("heard")})
    asking = graph("chat", {"asks": asks("Send it?", WAY)})
    chat.invoke(START, on("chat"))
    asking.invoke(START, on("chat"))
    asking.invoke(Command(resume="pay"), on("chat"))
    chat.invoke(START, on("chat"))

    before = graph("before", {"first": says(1), "second": says(2)}, interrupt_before=["second"])
    before.invoke(START, on("before"))
    before.invoke(None, on("before"))

    two = graph(
        "two",
        {"one": asks("One?"), "other": asks({"Other?": 1}, PAY)},
        ("__start__", "one"),
        ("__start__", "other"),
    )
    paused = two.invoke(START, on("two"))
    two.invoke(
        Command(
            resume={
                each.id: {"amount": 3} if "Other" in str(each.value) else "yes"
                for each in paused["__interrupt__"]
            }
        ),
        on("two"),
    )
    behind()
    later().invoke(START, on("later", run_id="5ce0dee1-6a3c-4d3a-9d55-5b4a9e4f2b1a"))
    later().invoke(START, on("nobody"))


def behind() -> None:
    """Pause, fail and go on at once, while what is read has nothing of that yet."""
    failing = fails(1, ValueError("no"))
    asking = {"asks": asks("Send it?", WAY), "fails": failing}
    with record_run("around", run_id="around-behind"):
        graph("behind", asking).invoke({"said": ["in"]}, on("behind"))
    projected = os.environ["RUN_LOG_SQLITE_PATH"]
    os.environ["RUN_LOG_SQLITE_PATH"] = f"{projected}-behind"
    tried(graph("behind", asking).invoke, Command(resume="pay"), on("behind"))
    graph("behind", asking).invoke(None, on("behind"))  # each handler goes on with what another has left
    os.environ["RUN_LOG_SQLITE_PATH"] = projected


def later() -> Any:
    """Return the graph that the second program goes on with."""
    built = _graph.StateGraph(State)
    built.add_node("pay", asks("4,200 EUR: pay?", PAY))
    built.add_edge(_graph.START, "pay")
    return graph("later", {"first": says("first"), "inner": built.compile()})


async def async_graphs() -> None:
    """Run, pause and cancel in an event loop."""

    async def sleeps(_: State) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"said": ["slept"]}

    begun = asyncio.Event()

    async def hangs(_: State) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    asking = graph("async", {"sleeps": sleeps, "asks": asks("Go on?")})
    await asking.ainvoke(START, on("async"))
    await asking.ainvoke(Command(resume="yes"), on("async"))
    hanging = asyncio.create_task(graph("hangs", {"hangs": hangs}).ainvoke(START, on("hangs")))
    await begun.wait()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


class Awkward:
    """An object that nothing can be made of."""

    def __repr__(self) -> str:
        """Have no text."""
        raise RuntimeError("no text")

    __str__ = __repr__


def awkward() -> None:
    """Run with what is large or has no text, fail in a branch, and have nodes say where to go."""

    def branch_fails(_: State) -> dict[str, Any]:
        raise ValueError(Awkward())

    def goes(_: State) -> Any:
        return Command(goto="end", update={"said": ["went"]})

    def leaves(_: State) -> Any:
        return Command(goto="end", update={"said": ["left"]}, graph=Command.PARENT)

    state = {"said": ["x" * 10_000_000, Awkward()]}
    handler = RunLogHandler()
    HANDLERS.append(handler)
    plain = _graph.StateGraph(State)
    plain.add_node("says", says(Awkward(), "y" * 10_000_000))
    plain.add_edge(_graph.START, "says")
    plain.compile(name="large").invoke(state, {"callbacks": [handler]})
    branches = {"start": says(1), "good": says(2), "bad": branch_fails}
    edges = ((_graph.START, "start"), ("start", "good"), ("start", "bad"))
    tried(graph("branches", branches, *edges).invoke, START, on("branches"))
    inner = _graph.StateGraph(State)
    inner.add_node("leaves", leaves)
    inner.add_edge(_graph.START, "leaves")
    nodes = {"goes": goes, "never": says("never"), "end": says("end")}
    graph("goes", nodes, (_graph.START, "goes")).invoke(START, on("goes"))
    graph("parent", {"sub": inner.compile(), "end": says("end")}, (_graph.START, "sub")).invoke(
        START, on("parent")
    )
    graph("goes", nodes, (_graph.START, "goes")).invoke(Command(goto="end"), on("goes"))


async def async_streams() -> None:
    """Leave async streams midway, read events, run many at once, and answer one of two questions."""
    two = {"first": says("first"), "second": says("second")}
    async for _ in graph("left-async", two).astream(START, on("left-async")):
        break
    events = graph("left-events", two).astream_events(START, on("left-events"), version="v2")
    async for event in events:
        if event["event"] == "on_chain_stream":
            break
    await events.aclose()
    async for _ in graph("events", two).astream_events(START, on("events"), version="v2"):
        pass
    many = graph("many", {**two, "asks": asks("Go on?")})
    await asyncio.gather(*(many.ainvoke(START, on(f"many-{number}")) for number in range(20)))
    await asyncio.gather(
        *(many.ainvoke(Command(resume=number), on(f"many-{number}")) for number in range(20))
    )
    assert current_run() is None


def killed() -> None:
    """End in the midst of a node, without warning."""

    def kills(_: State) -> dict[str, Any]:
        default_emitter().flush_sync(30)
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    graph("killed", {"kills": kills}).invoke(START, on("killed"))


async def second() -> None:
    """Go on with what the first program left paused."""
    log = create_run_log_service()
    run = await log.get_run("later", "5ce0dee1-6a3c-4d3a-9d55-5b4a9e4f2b1a")
    assert run is not None
    assert run.pause is not None
    left: list[float] = []
    clock = iter((0.0, 3.0, 4.0))

    def resume_run(*arguments: Any, timeout: float, **more: Any) -> Any:
        left.append(timeout)
        return adapter_resume_run(*arguments, **more)

    adapter_resume_run, adapter.resume_run = adapter.resume_run, resume_run
    adapter.time = SimpleNamespace(monotonic=lambda: next(clock))
    await later().ainvoke(Command(resume=run.pause.values), on(run.labels["thread_id"]))
    assert [1.0] == left  # of five seconds, when delivery and the search have taken four
    adapter.time, adapter.resume_run = time, adapter_resume_run
    await log.close()
    os.environ["RUN_LOG_SQLITE_PATH"] = str(Path.cwd())  # no file: where runs are read from now on
    await later().ainvoke(Command(resume={"amount": 1}), on("nobody"))


async def document() -> None:
    """Run the blocks of the page."""
    names: dict[str, Any] = {}
    for block in blocks(read("docs/langgraph.md"), "python"):
        await run_example(block, names)
        await default_emitter().flush(30)


if __name__ == "__main__":
    threads = Path(sys.argv[1])
    if sys.argv[2] == "first":
        sync_graphs()
        functional()
        streams()
        pauses()
        awkward()
        asyncio.run(async_graphs())
        asyncio.run(async_streams())
        assert [] == [handler for handler in HANDLERS if handler._places]
        threads.write_bytes(
            pickle.dumps(
                (
                    dict(SAVER.blobs),
                    {k: {n: dict(c) for n, c in v.items()} for k, v in SAVER.storage.items()},
                    dict(SAVER.writes),
                )
            )
        )
        killed()
    elif sys.argv[2] == "second":
        held, storage, writes = pickle.loads(threads.read_bytes())  # noqa: S301 - the first program's
        SAVER.blobs.update(held)
        SAVER.writes.update(writes)
        for thread, spaces in storage.items():
            for space, checkpoints in spaces.items():
                SAVER.storage[thread][space].update(checkpoints)
        asyncio.run(second())
    else:
        asyncio.run(document())
