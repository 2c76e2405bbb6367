"""Flows that run in Prefect's own environment, against a temporary server, and are recorded.

python -m tests.adapters.prefect.program
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from tests.unit.docs.repository import blocks, read, run_example

from run_log.adapters.prefect import install, pause_flow_run, suspend_flow_run
from run_log.producer import default_emitter, record_run
from run_log.stores import create_run_log_service

install()
install()  # once is enough

_adapter: Any = import_module("run_log.adapters.prefect")
_prefect: Any = import_module("prefect")
_client: Any = import_module("prefect.client.orchestration")
_context: Any = import_module("prefect.context")
_engine: Any = import_module("prefect.flow_engine")
_flow_runs: Any = import_module("prefect.flow_runs")
_run_input: Any = import_module("prefect.input")
_states: Any = import_module("prefect.states")
_runners: Any = import_module("prefect.task_runners")
_policies: Any = import_module("prefect.cache_policies")


def tried(call: Any, *arguments: Any) -> str:
    """Return the name of the error of a call."""
    try:
        call(*arguments)
    except BaseException as error:  # noqa: BLE001 - one of them is Ctrl-C
        return type(error).__name__
    return "none"


def fails(times: int, error: Exception) -> Any:
    """Return a function that raises *error* so many times."""
    left = [error] * times

    def once() -> None:
        if left:
            raise left.pop()

    return once


def named(kind: Any, name: str, function: Any, **options: Any) -> Any:
    """Return *function* as a flow or a task of that name."""
    more = {"task_run_name": name} if kind is _prefect.task else {}
    return kind(name=name, **more, **options)(function)


def calls(task: Any) -> Any:
    """Return a function that calls *task*."""

    def caller() -> Any:
        return task()

    return caller


def a_cached() -> int:
    """Return a number, from the cache the second time."""
    return 1


def double(number: int) -> int:
    """Return twice a number."""
    return 2 * number


def interrupts() -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def sync_flows() -> None:
    """Run flows that end by themselves, and one that is interrupted."""
    flow, task = _prefect.flow, _prefect.task
    flaky = named(task, "flaky", fails(1, ConnectionError("busy")), retries=1)
    inner = named(task, "inner", lambda: 2)
    outer = named(task, "outer", calls(inner))
    bad = named(task, "bad", fails(9, ValueError("no")))
    cached = named(task, "cached", a_cached, cache_policy=_policies.INPUTS, persist_result=True)
    sub = named(flow, "sub", calls(inner))
    once = fails(1, ValueError("once"))

    def main(x: int) -> dict[str, int]:
        flaky()
        outer.submit().result()
        cached()
        cached()
        sub()
        once()
        return {"x": x}

    named(flow, "main", main, retries=1).with_options(name="main")(3)
    tried(named(flow, "fails", calls(bad)))
    crashes = named(task, "crashes", interrupts)
    tried(named(flow, "crashes", calls(crashes)))
    tried(named(flow, "interrupted", interrupts))
    doubles = named(task, "doubles", double)
    named(flow, "maps", lambda: doubles.map([1, 2, 3]).result())()
    named(flow, "unanswered", lambda: tried(unanswered))()


def unanswered() -> None:
    """Pause for an answer that nobody gives."""
    pause_flow_run(timeout=1, poll_interval=1)


async def async_flows() -> None:
    """Run an async flow."""

    async def slow() -> int:
        await asyncio.sleep(0)
        return 1

    task = named(_prefect.task, "slow", slow)

    async def work() -> list[int]:
        return [await task(), await task()]

    await named(_prefect.flow, "async", work)()


class Payment(_run_input.RunInput):  # type: ignore[misc]  # untyped
    """What somebody fills in."""

    amount: int


def suspensions() -> None:
    """Suspend flows, and run them again as Prefect's runner does, while nothing of them is projected."""

    def pays(order: str) -> int:
        amount: int = suspend_flow_run(Payment, reason=f"{order}: pay?", timeout=3600).amount
        return amount

    async def pays_async(order: str) -> int:
        amount: int = (await suspend_flow_run(Payment, reason=f"{order}: pay?")).amount
        return amount

    projected = os.environ["RUN_LOG_SQLITE_PATH"]
    for name, function in (("suspended", pays), ("suspended-async", pays_async)):
        flow = named(_prefect.flow, name, function)
        with _client.get_client(sync_client=True) as client:
            deployment = client.create_deployment(client.create_flow(flow), name=name)
            flow_run = client.create_flow_run_from_deployment(deployment, parameters={"order": "o-1"})
            assert "Pause" == tried(run, flow, flow_run)
            assert flow_run.id not in _adapter._process.runs
            os.environ["RUN_LOG_SQLITE_PATH"] = f"{projected}-behind"
            _flow_runs.resume_flow_run(flow_run.id, run_input={"amount": 4200})
            run(flow, client.read_flow_run(flow_run.id))
            os.environ["RUN_LOG_SQLITE_PATH"] = projected


def run(flow: Any, flow_run: Any) -> None:
    """Run a flow as in the process that Prefect's runner starts."""
    running = _engine.run_flow(flow, flow_run)
    if asyncio.iscoroutine(running):
        asyncio.run(running)


def joins_many() -> None:
    """Run tasks of more flows of other processes than are remembered, as a worker of a task runner does."""
    for number in range(_adapter.MAX_JOINED + 1):
        flow_run = SimpleNamespace(id=UUID(int=number))
        with _context.FlowRunContext.model_construct(flow=SimpleNamespace(name="far"), flow_run=flow_run):
            _adapter._join(flow_run.id)
    assert [UUID(int=number + 1) for number in range(_adapter.MAX_JOINED)] == list(_adapter._process.joined)


def ended_elsewhere() -> None:
    """Call the hook of a flow whose process is gone, as Prefect's runner does."""
    flow = named(_prefect.flow, "elsewhere", lambda: None)
    with _client.get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(flow)
    for hook in flow.on_cancellation_hooks:
        hook(flow, flow_run, _states.Cancelling(message="no longer needed"))


def a_far() -> int:
    """Run in a process of its own."""
    # Its end has two seconds to deliver: too few to load the store as well, on a machine that is busy.
    with record_run("by the way"):
        pass
    default_emitter().flush_sync(60)
    return 1


far = named(_prefect.task, "far", a_far)


def processes() -> None:
    """Run a task in a process of a task runner."""
    runner = _runners.ProcessPoolTaskRunner(max_workers=1)
    named(_prefect.flow, "processes", lambda: far.submit().result(), task_runner=runner)()


async def document() -> None:
    """Run the blocks of the page, with the flow that pauses in a thread of its own."""
    names: dict[str, Any] = {"__name__": "document"}
    first, second, third = blocks(read("docs/prefect.md"), "python")
    await asyncio.to_thread(exec, compile(first, "first", "exec"), names)
    await run_example(second, names)
    flow = threading.Thread(target=names["expense"], args=(4200,))
    flow.start()
    log = create_run_log_service()
    async with asyncio.timeout(60):
        while not (await log.list_pending(workflow_id="expense"))[0]:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.05)
    await log.close()
    await run_example(third, names)
    await asyncio.to_thread(flow.join, 60)


def killed() -> None:
    """End in the midst of a flow, without warning."""

    def kills() -> None:
        default_emitter().flush_sync(30)
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    named(_prefect.flow, "killed", kills)()


def make_tables() -> None:
    """Make the tables of Prefect's server as its models are, without its hundred migrations."""
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(exist_ok=True)
    sqlalchemy: Any = import_module("sqlalchemy")
    base: Any = import_module("prefect.server.database.orm_models").Base
    engine = sqlalchemy.create_engine(f"sqlite:///{home / 'prefect.db'}")
    with engine.begin() as connection:
        for table in base.metadata.sorted_tables:
            connection.execute(sqlalchemy.schema.CreateTable(table))
            for index in table.indexes:  # one is declared twice
                connection.execute(sqlalchemy.schema.CreateIndex(index, if_not_exists=True))
    engine.dispose()


@contextlib.contextmanager
def server() -> Generator[None]:
    """Run Prefect's server in a thread: a process of its own would import it all once more."""
    uvicorn: Any = import_module("uvicorn")
    app = import_module("prefect.server.api.server").create_app(ephemeral=True)
    port = int(os.environ["PREFECT_API_URL"].partition(":")[2].partition(":")[2].removesuffix("/api"))
    running = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.02)
    yield
    running.should_exit = True
    thread.join()


def main() -> None:
    """Run all flows."""
    sync_flows()
    asyncio.run(async_flows())
    suspensions()
    joins_many()
    ended_elsewhere()
    processes()
    asyncio.run(document())
    assert not _adapter._process.runs
    assert not _adapter._process.steps
    killed()


if __name__ == "__main__":
    make_tables()
    with server():
        main()
