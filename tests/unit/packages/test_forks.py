from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest
from tests.unit.producer.transports import run_script

_SOURCES: Final = [
    path
    for folder in ("shared", "producer", "projector", "console")
    for path in (Path(__file__).parents[3] / folder).rglob("*.py")
    if "testing" not in path.parts  # its brokers and clocks live in one process
]

_MADE_IN: Final = {"threading", "_thread", "queue", "multiprocessing"}
_WAITED_FOR: Final = {
    *("Lock", "RLock", "allocate_lock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier"),
    *("Queue", "SimpleQueue", "LifoQueue", "PriorityQueue"),
}

_PREAMBLE: Final = """
import asyncio, os, signal, sys, threading, time
os.environ.update(RUN_LOG_BACKEND="memory")
from run_log.producer import default_emitter, record_run
from run_log.stores import get_run_log_service, reset_run_log_service
from run_log.testing import a_run, an_event

def children(rounds, work):
    failed = 0
    for _ in range(rounds):
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a hang is a fault
            try:
                os._exit(0 if work() else 1)
            finally:
                os._exit(2)
        failed += os.waitpid(child, 0)[1] != 0
    print(failed)
    sys.stdout.flush()
    os._exit(0)

def hammer(work, threads=3):
    def go():
        while True:
            work()
    for _ in range(threads):
        threading.Thread(target=go, daemon=True).start()
"""


@pytest.mark.process
def test_a_child_forked_in_the_middle_of_writes_goes_on() -> None:
    """A child forked while threads write to a run log in memory finds it whole, and goes on."""
    printed = run_script(
        _PREAMBLE
        + """
log = get_run_log_service()
sys.setswitchinterval(1e-5)

def write():
    pair = [an_event(workflow_id=name, id=f"{time.monotonic_ns()}") for name in "ab"]
    asyncio.run(log.apply(pair))
    asyncio.run(log.save_run(a_run(workflow_id="saved", id=f"{time.monotonic_ns()}")))

def in_child():
    a, b = (asyncio.run(log.get_stats(name))["total"] for name in "ab")
    asyncio.run(log.save_run(a_run(workflow_id="saved", id="of the child")))
    with record_run("recorded", run_id="of the child"):
        pass
    found = [asyncio.run(log.get_run(name, "of the child")) for name in ("saved", "recorded")]
    asyncio.run(log.close())
    return a == b and None not in found

write()
hammer(write)
children(25, in_child)
"""
    )

    assert "0\n" == printed


@pytest.mark.process
def test_a_child_forked_while_the_run_log_is_made_has_one() -> None:
    """A child that is forked while another thread is just making the process's run log gets its own."""
    printed = run_script(
        _PREAMBLE
        + """
def make():
    reset_run_log_service()
    get_run_log_service()

def in_child():
    log = get_run_log_service()
    with record_run("recorded", run_id="r"):
        pass
    return asyncio.run(log.get_run("recorded", "r")) is not None

make()
hammer(make)
children(25, in_child)
"""
    )

    assert "0\n" == printed


@pytest.mark.process
def test_threads_may_fork_at_once(tmp_path: Path) -> None:
    """Two threads that fork at the same moment, beside others that write, each get children that go on."""
    printed = run_script(
        _PREAMBLE
        + """
import sqlite3
from run_log.stores import create_run_log_service
os.environ["RUN_LOG_SQLITE_PATH"] = sys.argv[1]
logs = [get_run_log_service(), create_run_log_service("sqlite")]
statuses = []

def write():
    for log in logs:
        asyncio.run(log.save_run(a_run(id=f"{time.monotonic_ns()}")))

def fork():
    for _ in range(15):
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                write()
                os._exit(0)
            finally:
                os._exit(2)
        statuses.append(os.waitpid(child, 0)[1])

write()
hammer(write, 2)
forkers = [threading.Thread(target=fork) for _ in range(2)]
for forker in forkers:
    forker.start()
for forker in forkers:
    forker.join()
print(statuses == [0] * 30)
sys.stdout.flush()
os._exit(0)
""",
        str(tmp_path / "runs.db"),
    )

    assert "True\n" == printed


@pytest.mark.parametrize("path", _SOURCES, ids=lambda path: path.stem)
def test_every_lock_is_made_anew_in_a_child(path: Path) -> None:
    """What threads wait for is made by `renewed`, unless it lives in one call."""
    tree = ast.parse(path.read_text())
    names = _names_of_waited_for(tree)
    local = {
        id(node.value)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets)
    }
    made = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and id(node) not in local and ast.unparse(node.func) in names
    ]

    assert [] == made


def _names_of_waited_for(tree: ast.Module) -> set[str]:
    """Return how a module may spell what makes something that threads wait for."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [name for name in node.names if name.name in _MADE_IN]
            names |= {f"{name.asname or name.name}.{made}" for name in modules for made in _WAITED_FOR}
        elif isinstance(node, ast.ImportFrom) and node.module in _MADE_IN:
            names |= {name.asname or name.name for name in node.names if name.name in _WAITED_FOR}
    return names


@pytest.mark.process
def test_a_child_of_a_process_that_used_firestore_is_told() -> None:
    """A forked child is told where the client for Firestore would wait for ever: its parent has used it."""
    printed = run_script(
        """
        import asyncio, os, signal
        os.environ.update(FIRESTORE_EMULATOR_HOST="127.0.0.1:1", GOOGLE_CLOUD_PROJECT="p")
        from run_log.core import ConfigurationError
        from run_log.stores.firestore.client import Connection

        async def client(connection):
            return connection.client()

        connection = Connection(None, None)
        asyncio.run(client(connection))
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            for each in (connection, Connection(None, None)):
                try:
                    asyncio.run(client(each))
                except ConfigurationError as error:
                    print(error, flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1], asyncio.run(client(connection)) is not None)
        """
    )

    *told, parent = printed.splitlines()
    assert 2 == len(told)
    assert all("forked" in line and "RUN_LOG_BACKEND=pubsub" in line for line in told)
    assert "0 True" == parent
