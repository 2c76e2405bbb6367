from __future__ import annotations

import json
from pathlib import Path

from .transports import run_script

_FILE_TRANSPORT = """
import json, os, sys, threading
from run_log.core import decode_event
from run_log.producer import RunEventEmitter
from run_log.testing import a_run

class FileTransport:
    def publish(self, messages):
        with open(sys.argv[1], "a") as file:
            for message in messages:
                print(json.dumps([os.getpid(), decode_event(message).run.id]), file=file)

    def close(self):
        pass

"""


def _lines(path: Path) -> list[list[object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_importing_the_producer_is_cheap() -> None:
    """Importing run_log.producer loads no Google library, opens no event loop and starts no thread."""
    printed = run_script(
        """
        import sys, threading
        before = set(sys.modules)
        import run_log.producer
        heavy = ("google", "grpc", "tenacity")
        print([name for name in set(sys.modules) - before if name.split(".")[0] in heavy])
        print(threading.active_count())
        """
    )

    assert printed.splitlines() == ["[]", "1"]


def test_interpreter_exit_delivers(tmp_path: Path) -> None:
    """A program that ends without close has its events delivered."""
    run_script(
        f"{_FILE_TRANSPORT}\nemitter = RunEventEmitter(FileTransport())\nemitter.emit(a_run(id='last'))",
        str(tmp_path / "out"),
    )

    assert [run_id for _, run_id in _lines(tmp_path / "out")] == ["last"]


def test_an_exit_by_exception_delivers(tmp_path: Path) -> None:
    """A program that ends by sys.exit within a recorded run delivers how the run ended."""
    out = tmp_path / "out"

    run_script(
        _FILE_TRANSPORT
        + "from run_log.producer import record_run\n"
        + "with record_run('w', run_id='r', emitter=RunEventEmitter(FileTransport())):\n    sys.exit(0)",
        str(out),
    )

    assert [run_id for _, run_id in _lines(out)] == ["r", "r"]


def test_interpreter_exit_is_bounded_with_a_dead_broker() -> None:
    """A program whose broker is dead ends all the same."""
    printed = run_script(
        _FILE_TRANSPORT
        + "emitter = RunEventEmitter(FileTransport())\n"
        + "emitter.emit(a_run())\nprint('over')",
        "/nowhere/out",
    )

    assert printed == "over\n"


def test_a_forked_child_starts_empty(tmp_path: Path) -> None:
    """After a fork the child's emitter works and is empty, and the parent's events are sent once."""
    out = tmp_path / "out"

    printed = run_script(
        _FILE_TRANSPORT
        + """
class HeldInParent(FileTransport):
    parent, gate = os.getpid(), threading.Event()

    def publish(self, messages):
        if os.getpid() == self.parent:
            self.gate.wait()
        super().publish(messages)

transport = HeldInParent()
emitter = RunEventEmitter(transport)
for number in range(3):
    emitter.emit(a_run(id=f"parent-{number}"))
child = os.fork()
if child == 0:
    empty = emitter.stats
    emitter.emit(a_run(id="child"))
    report = emitter.close(30)
    print(empty.emitted, report.delivered, flush=True)
    os._exit(0)
os.waitpid(child, 0)
transport.gate.set()
print(emitter.close(30).delivered, os.getpid(), child)
""",
        str(out),
    )

    in_child, in_parent = printed.splitlines()
    delivered, parent, child = map(int, in_parent.split())
    assert in_child == "0 1"
    assert delivered == 3
    assert [[child, "child"], *([parent, f"parent-{number}"] for number in range(3))] == _lines(out)


def test_a_forked_child_applies_to_its_own_memory() -> None:
    """With the back end memory, a child that is forked in the middle of a batch records on its own."""
    printed = run_script(
        """
        import asyncio, os, threading
        from run_log.producer import RunEventEmitter
        from run_log.producer._store_transport import StoreTransport
        from run_log.stores import InMemoryRunLogService
        from run_log.testing import a_run

        parent, inside, gate = os.getpid(), threading.Event(), threading.Event()

        class Held(InMemoryRunLogService):
            async def apply(self, events):
                if os.getpid() == parent:
                    inside.set()
                    await asyncio.to_thread(gate.wait)
                return await super().apply(events)

        store = Held()
        emitter = RunEventEmitter(StoreTransport(lambda: store))
        emitter.emit(a_run(id="parent"))
        inside.wait()
        child = os.fork()
        emitter.emit(a_run(id="child"))
        gate.set()
        emitter.close(30)
        runs, _ = asyncio.run(store.list_runs("workflow-1"))
        if child:
            os.waitpid(child, 0)
        print(bool(child), [run.id for run in runs], flush=True)
        os._exit(0)
        """
    )

    assert printed.splitlines() == ["False ['child']", "True ['parent', 'child']"]
