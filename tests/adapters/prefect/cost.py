"""What the hooks cost Prefect: CPU time of a flow's thread, with and without them in turn, as medians.

Run it in Prefect's environment: ``.venv-prefect/bin/python -m tests.adapters.prefect.cost [flows]``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.adapters.costs import Row, each_more, main, medians
from tests.adapters.prefect.environment import environ_in

TASKS = 10


def _flow() -> Any:
    prefect: Any = import_module("prefect")

    def nothing() -> None:
        pass

    task = prefect.task(nothing)

    def work(tasks: int) -> None:
        for _ in range(tasks):
            task()

    return prefect.flow(work)


def measure(flows: int) -> Iterable[Row]:
    """Return what a flow costs, and each task more."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(environ_in(Path(folder)))
        alone = _flow()
        program: Any = import_module("tests.adapters.prefect.program")  # which installs the adapter
        recorded = _flow()

        def prepared(tasks: int) -> Callable[[bool], Callable[[], object]]:
            return lambda is_recorded: lambda: (recorded if is_recorded else alone)(tasks)

        program.make_tables()
        with program.server():
            few, many = [medians(prepared(tasks), flows, warming=5) for tasks in (1, TASKS)]
        program.default_emitter().flush_sync(60)
    return (
        ("a flow of 1 task", *few),
        (f"a flow of {TASKS} tasks", *many),
        each_more("each task more", few, many, TASKS - 1),
    )


if __name__ == "__main__":
    main("Prefect", 15, measure)
