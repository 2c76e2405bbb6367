"""What the handler costs LangGraph: CPU time of the calling thread, with and without it in turn, as medians.

Run it in its environment: ``.venv-langgraph/bin/python -m tests.adapters.langgraph.cost [invocations]``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Any

from tests.adapters.costs import Row, each_more, main, medians
from tests.adapters.langgraph.program import START, State, says

from run_log.adapters.langgraph import RunLogHandler

NODES = 20
LOOP = asyncio.Runner()
StateGraph: Any = import_module("langgraph.graph").StateGraph
_graphs: dict[int, Any] = {}


def _graph(nodes: int) -> Any:
    if nodes not in _graphs:
        built = StateGraph(State)
        for number in range(nodes):
            built.add_node(f"n{number}", says())
            built.add_edge(f"n{number - 1}" if number else "__start__", f"n{number}")
        _graphs[nodes] = built.compile(name="cost")
    return _graphs[nodes]


def _invocation(nodes: int, is_async: bool, is_recorded: bool) -> Callable[[], object]:  # noqa: FBT001
    graph = _graph(nodes)
    config = {"callbacks": [RunLogHandler()] if is_recorded else []}

    if is_async:
        return lambda: LOOP.run(graph.ainvoke(START, config))
    return lambda: graph.invoke(START, config)


def measure(invocations: int) -> Iterable[Row]:
    """Return what an invocation costs, and each node more."""
    rows: list[Row] = []
    for word, is_async in (("", False), (" in async code", True)):
        few, many = [medians(partial(_invocation, nodes, is_async), invocations) for nodes in (1, NODES)]
        rows += [
            (f"an invocation of 1 node{word}", *few),
            (f"an invocation of {NODES} nodes{word}", *many),
            each_more(f"each node more{word}", few, many, NODES - 1),
        ]
    return rows


if __name__ == "__main__":
    main("LangGraph", 100, measure)
