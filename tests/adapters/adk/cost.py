"""What the plugin costs ADK: CPU time of the event loop's thread, with and without it in turn, as medians.

Run it in ADK's environment: ``.venv-adk/bin/python -m tests.adapters.adk.cost [invocations]``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Any

from tests.adapters.adk.scripts import agent, calls, events_of, runner_of, says, sessions_in, weather
from tests.adapters.costs import Row, each_more, main, medians

_adk: Any = import_module("run_log.adapters.adk")
CALLS = 10
LOOP = asyncio.Runner()


def _invocation(steps: int, is_recorded: bool) -> Callable[[], object]:  # noqa: FBT001
    lines = [calls(("weather", {"city": f"c{number}"})) for number in range(steps)]
    root = agent("clerk", *lines, says("done"), tools=[weather])
    plugins = [_adk.RunLogPlugin()] if is_recorded else []
    runner = runner_of(root, "cost", *plugins, sessions=sessions_in(None))
    return lambda: LOOP.run(events_of(runner))


def measure(invocations: int) -> Iterable[Row]:
    """Return what an invocation costs, and each event more."""
    few, many = [medians(partial(_invocation, steps), invocations) for steps in (0, CALLS)]
    events = 2 * CALLS  # a call and its response
    return (
        ("an invocation of 1 event", *few),
        (f"an invocation of {events + 1} events", *many),
        each_more("each event more", few, many, events),
    )


if __name__ == "__main__":
    logging.getLogger("google_adk").setLevel(logging.CRITICAL)
    main("ADK", 300, measure)
