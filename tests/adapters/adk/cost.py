"""What the plugin costs ADK: CPU time of the event loop's thread, with and without it in turn, as medians.

Run it in ADK's environment: ``.venv-adk/bin/python -m tests.adapters.adk.cost [invocations]``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
import warnings
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from tests.adapters.adk.program import events_of, weather
from tests.adapters.adk.scripts import agent, calls, runner_of, says, sessions_in

from run_log.producer import default_emitter

_adk: Any = import_module("run_log.adapters.adk")
INVOCATIONS = 300


async def measured(steps: int, invocations: int) -> tuple[int, list[float]]:
    """Return how many events an invocation has, and the median of its microseconds: without, and with."""
    lines = [calls(("weather", {"city": f"c{number}"})) for number in range(steps)]
    taken: tuple[list[float], list[float]] = ([], [])
    events = 0
    for number in range(invocations + 20):
        for has_plugin in (number % 2, 1 - number % 2):
            root = agent("clerk", *lines, says("done"), tools=[weather])
            plugins = [_adk.RunLogPlugin()] if has_plugin else []
            runner = runner_of(root, "cost", *plugins, sessions=sessions_in(None))
            begun = time.thread_time()
            events = len(await events_of(runner))
            if number >= 20:  # the first ones import and connect
                taken[has_plugin].append((time.thread_time() - begun) * 1e6)
    return events, [median(part) for part in taken]


async def main(invocations: int) -> None:
    """Print what an invocation costs, and each event more."""
    few, (few_without, few_with) = await measured(0, invocations)
    many, (many_without, many_with) = await measured(10, invocations)
    more = many - few
    rows = [f"| medians of {invocations} | ADK alone | with the plugin | it adds |", "|---|---|---|---|"]
    for name, without, with_it in (
        (f"an invocation of {few} event", few_without, few_with),
        (f"an invocation of {many} events", many_without, many_with),
        ("each event more", (many_without - few_without) / more, (many_with - few_with) / more),
    ):
        share = f"{(with_it - without) / without:.0%}"
        rows.append(
            f"| {name} | {without:,.0f} us | {with_it:,.0f} us | {with_it - without:,.0f} us, {share} |"
        )
    await default_emitter().flush(60)
    print(*rows, sep="\n")  # noqa: T201 - for who runs it


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("google_adk").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(RUN_LOG_BACKEND="sqlite", RUN_LOG_SQLITE_PATH=str(Path(folder, "runs.sqlite3")))
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else INVOCATIONS))
