from __future__ import annotations

import asyncio
import json
import signal
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest

from run_log.core import RunStatus, utc_now
from run_log.producer._spool import Spool
from run_log.stores import SQLiteRunLogService

from .transports import PATIENCE, run_script, start_script

pytestmark = pytest.mark.process

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
    """A program whose broker is dead ends all the same, and says that it has lost something."""
    printed = run_script(
        "import os, sys\nsys.stderr = sys.stdout\ndel os.environ['RUN_LOG_STDERR_NOTICE']\n"
        + _FILE_TRANSPORT
        + "emitter = RunEventEmitter(FileTransport())\n"
        + "emitter.emit(a_run())\nprint('over')",
        "/nowhere/out",
    )

    over, *said = printed.splitlines()
    assert over == "over"
    assert [True] == ["runs of this process are not recorded" in line for line in said]


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
        from run_log.producer._emitter import LazyTransport
        from run_log.producer._store_transport import StoreTransport
        from run_log.stores import InMemoryRunLogService
        from run_log.testing import a_run

        parent, inside, gate = os.getpid(), threading.Event(), threading.Event()

        def hold():
            # Told from within the thread: CPython's own fork hooks complain of a fork that meets its start.
            inside.set()
            gate.wait()

        class Held(InMemoryRunLogService):
            async def apply(self, events):
                if os.getpid() == parent:
                    await asyncio.to_thread(hold)
                return await super().apply(events)

        store = Held()
        emitter = RunEventEmitter(LazyTransport(lambda: StoreTransport(lambda: store)))
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


def test_a_child_that_delivers_leaves_its_parent_delivering() -> None:
    """A forked child that applies events to a store of its own does not hold up the parent's store."""
    printed = run_script(
        """
        import asyncio, os, time
        from run_log.producer import RunEventEmitter
        from run_log.producer._emitter import LazyTransport
        from run_log.producer._store_transport import StoreTransport
        from run_log.stores import InMemoryRunLogService
        from run_log.testing import a_run

        class Threaded(InMemoryRunLogService):
            async def apply(self, events):
                await asyncio.to_thread(time.sleep, 0.001)  # the loop has to be woken
                return await super().apply(events)

        def make():
            store = Threaded()
            return StoreTransport(lambda: store)

        emitter = RunEventEmitter(LazyTransport(make))
        emitter.emit(a_run(id="before"))
        emitter.flush_sync(30)
        child = os.fork()
        emitter.emit(a_run(id="in the child"))
        print(emitter.flush_sync(30).pending, flush=True)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        emitter.emit(a_run(id="after"))
        print(emitter.flush_sync(30).pending, flush=True)
        """
    )

    assert printed.split() == ["0", "0", "0"]


@pytest.mark.parametrize("pid_1", [False, True], ids=["a process", "where the signal is ignored"])
def test_a_sigterm_delivers(pid_1: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """A SIGTERM that nobody handles delivers what is held, then ends the process as it would have."""
    out = tmp_path / "out"

    done = start_script(
        _FILE_TRANSPORT
        + """
import signal, time
from run_log.core import Settings
emitter = RunEventEmitter.from_settings(Settings(), FileTransport())
if len(sys.argv) > 2:
    # The first process of a container: the kernel ends it by no signal that it does not handle.
    kill, os.kill = os.kill, lambda *_: threading.Timer(0.1, kill, (os.getpid(), signal.SIGKILL)).start()
for number in range(100):
    emitter.emit(a_run(id=str(number)))
signal.raise_signal(signal.SIGTERM)
emitter.emit(a_run(id="last"))
threading.Event().wait()
""",
        str(out),
        *(["1"] if pid_1 else []),
    )
    code = done.wait(60)

    assert code == (-signal.SIGKILL if pid_1 else -signal.SIGTERM)
    assert {*map(str, range(100)), "last"} >= {run_id for _, run_id in _lines(out)} >= {*map(str, range(100))}


def test_a_sigterm_is_bounded_and_keeps_on_disk(tmp_path: Path) -> None:
    """With a dead broker a SIGTERM ends the process all the same, and the spool has what was held."""
    done = start_script(
        _FILE_TRANSPORT
        + """
import signal
from run_log.producer import _lifecycle
from run_log.producer._spool import Spool
_lifecycle.SIGTERM_SECONDS = 0.2
_lifecycle.handle_sigterm()
emitter = RunEventEmitter(FileTransport(), spool=Spool(sys.argv[2]))
for number in range(100):
    emitter.emit(a_run(id=str(number)))
signal.raise_signal(signal.SIGTERM)
threading.Event().wait()
""",
        "/nowhere/out",
        str(tmp_path),
    )

    assert -signal.SIGTERM == done.wait(60)
    spool = Spool(tmp_path)
    assert 100 == len(spool.next_batch(events=1_000, data_bytes=10**7))
    spool.close()


def test_a_handler_of_the_hosts_own_stays(tmp_path: Path) -> None:
    """Where the host handles SIGTERM its handler is left alone."""
    printed = run_script(
        _FILE_TRANSPORT
        + """
import signal
from run_log.core import Settings
signal.signal(signal.SIGTERM, lambda *_: print("the host's own"))
emitter = RunEventEmitter.from_settings(Settings(), FileTransport())
emitter.emit(a_run())
signal.raise_signal(signal.SIGTERM)
""",
        str(tmp_path / "out"),
    )

    assert printed == "the host's own\n"


def test_sigterm_can_be_left_alone(tmp_path: Path) -> None:
    """With RUN_LOG_HANDLE_SIGTERM off no handler is installed."""
    printed = run_script(
        _FILE_TRANSPORT
        + """
import signal
from run_log.core import Settings
RunEventEmitter.from_settings(Settings(handle_sigterm=False), FileTransport()).emit(a_run())
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
RunEventEmitter.from_settings(Settings(), FileTransport())
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
""",
        str(tmp_path / "out"),
    )

    assert printed.splitlines() == ["True", "False"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_delivers(method: str, tmp_path: Path) -> None:
    """A process that multiprocessing starts delivers at its end, however it was started."""
    module = tmp_path / "work.py"
    module.write_text(
        textwrap.dedent(
            _FILE_TRANSPORT
            + """
emitter = RunEventEmitter(FileTransport())

def work(number):
    emitter.emit(a_run(id=f"child-{number}"))

if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context(sys.argv[2])
    emitter.emit(a_run(id="parent"))
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print([child.exitcode for child in children])
"""
        )
    )

    printed = run_script(
        f"import runpy, sys; sys.argv[0] = {str(module)!r}; sys.path.insert(0, {str(tmp_path)!r}); "
        f"runpy.run_path({str(module)!r}, run_name='__main__')",
        str(tmp_path / "out"),
        method,
    )

    assert printed == "[0, 0, 0]\n"
    assert ["child-0", "child-1", "child-2", "parent"] == sorted(
        str(run_id) for _, run_id in _lines(tmp_path / "out")
    )


def test_emitters_that_nobody_holds_deliver_and_end(tmp_path: Path) -> None:
    """A thousand emitters, made, used and forgotten, deliver and leave no thread and no memory behind."""
    printed = run_script(
        _FILE_TRANSPORT
        + """
import gc, weakref
alive = weakref.WeakSet()
for number in range(1_000):
    transport = FileTransport()
    alive.add(transport)
    emitter = RunEventEmitter(transport)
    emitter.emit(a_run(id=str(number)))
    thread = emitter._delivery._thread
    del emitter, transport
    thread.join(30)
    del thread
gc.collect()
print(len(alive), threading.active_count())
""",
        str(tmp_path / "out"),
    )

    assert printed == "0 1\n"
    assert 1_000 == len(_lines(tmp_path / "out"))


def test_emitters_that_were_never_used_leave_nothing() -> None:
    """Making an emitter starts no thread, opens no socket and is forgotten with it."""
    printed = run_script(
        """
        import gc, os, threading
        from run_log.producer import RunEventEmitter, _lifecycle
        from run_log.producer._emitter import LazyTransport
        before = len(os.listdir("/proc/self/fd"))
        emitters = [RunEventEmitter(LazyTransport(lambda: 1 / 0)) for _ in range(100)]
        print(threading.active_count(), len(os.listdir("/proc/self/fd")) - before, len(_lifecycle._live))
        del emitters
        gc.collect()
        print(len(_lifecycle._live))
        """
    )

    assert printed.splitlines() == ["1 0 100", "0"]


def test_an_exit_shares_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many emitters with dead brokers cost an exit the time of one."""
    monkeypatch.setenv("RUN_LOG_STDERR_NOTICE", "false")

    printed = run_script(
        _FILE_TRANSPORT
        + """
import time
from run_log.producer import _lifecycle
_lifecycle.EXIT_SECONDS = 2  # one after the other they would take longer than the script may
emitters = [RunEventEmitter(FileTransport()) for _ in range(100)]
for emitter in emitters:
    emitter.emit(a_run())
_lifecycle.close_all()
print(sum(emitter.stats.pending for emitter in emitters))
""",
        "/nowhere/out",
    )

    assert printed == "100\n"


def test_a_signal_handler_may_emit(tmp_path: Path) -> None:
    """A signal handler that emits while its thread is emitting neither hangs nor loses anything."""
    run_script(
        _FILE_TRANSPORT
        + """
import signal
emitter = RunEventEmitter(FileTransport())
signal.signal(signal.SIGALRM, lambda *_: emitter.emit(a_run(id="from the handler")))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for number in range(5_000):
    emitter.emit(a_run(id=str(number)))
    emitter.stats
signal.setitimer(signal.ITIMER_REAL, 0)
report = emitter.close(30)
print(report.pending, report.dropped)
""",
        str(tmp_path / "out"),
    )

    lines = [run_id for _, run_id in _lines(tmp_path / "out")]
    assert {*map(str, range(5_000)), "from the handler"} == set(lines)


def test_interrupts_leave_an_emitter_sound(tmp_path: Path) -> None:
    """A signal's handler that raises in the middle of anything leaves an emitter that works and adds up."""
    printed = run_script(
        _FILE_TRANSPORT
        + """
import signal
from run_log.producer._held import BufferLimits

class Interrupt(Exception):
    pass

left = 0

def interrupt(_signal, frame):
    global left
    # Not between two calls, nor in the handler of one that came there: nothing would catch it.
    if left and frame.f_code.co_name not in ("<module>", "interrupt"):
        left -= 1
        raise Interrupt

# One that hits a finalizer can only be told.
told = sys.unraisablehook
sys.unraisablehook = lambda about: None if about.exc_type is Interrupt else told(about)

class Failing(FileTransport):
    broken = True
    def publish(self, messages):
        if self.broken:
            raise TransportUnavailableError("down")
        super().publish(messages)

from run_log.core import TransportUnavailableError
signal.signal(signal.SIGALRM, interrupt)
Failing.broken = True
emitters = []
for _ in range(50):
    emitter = RunEventEmitter(Failing(), limits=BufferLimits(events=50))
    emitters.append(emitter)
    emitter.emit(a_run(id="first"))  # CPython itself does not bear an interrupt while a thread starts
    left = 25
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
    while left:
        try:
            emitter.emit(a_run(id="next"))
            emitter.stats
        except Interrupt:
            pass
    signal.setitimer(signal.ITIMER_REAL, 0)
Failing.broken = False
for emitter in emitters:
    emitter.emit(a_run(id="last"))
    report = emitter.close(30)
    stats = emitter.stats
    assert report.pending == 0, report
    assert stats.emitted == stats.delivered + stats.dropped
for thread in threading.enumerate():
    if thread.name == "run-log-emitter":
        thread.join(30)
print(threading.active_count())
""",
        str(tmp_path / "out"),
    )

    assert printed == "1\n"
    assert 50 <= [run_id for _, run_id in _lines(tmp_path / "out")].count("last")


def test_an_emitter_of_the_last_moment(tmp_path: Path) -> None:
    """An emitter made after interpreter exit has closed all others delivers at once."""
    printed = run_script(
        """
        import atexit

        def late():
            from run_log.producer import RunEventEmitter
            from run_log.testing import InMemoryTopic, a_run
            emitter = RunEventEmitter(InMemoryTopic())
            emitter.emit(a_run())
            print(emitter.stats.emitted, emitter.stats.delivered)

        atexit.register(late)
        from run_log.producer import RunEventEmitter
        """,
        str(tmp_path / "out"),
    )

    assert printed == "1 1\n"


def test_a_sigterm_ends_the_process_whatever_is_in_the_way() -> None:
    """A SIGTERM ends the process also where delivery, the log and the machine's threads are broken."""
    done = start_script(
        _FILE_TRANSPORT
        + """
import logging, signal
from run_log.producer import _lifecycle
_lifecycle.SIGTERM_SECONDS = 0.2
_lifecycle.handle_sigterm()

class Loud(logging.Handler):
    def handle(self, record):
        raise RuntimeError
logging.getLogger("run_log").addHandler(Loud())
emitter = RunEventEmitter(FileTransport())
emitter.emit(a_run())
emitter.emit(None)
signal.raise_signal(signal.SIGTERM)
threading.Event().wait()
""",
        "/nowhere/out",
    )

    assert -signal.SIGTERM == done.wait(60)


async def test_a_killed_run_with_a_heartbeat_is_found(tmp_path: Path) -> None:
    """A process that is killed within a run is heard of until then, and is stale after two missed beats."""
    path = tmp_path / "runs.sqlite3"
    process = start_script(
        """
        import sys, threading
        from datetime import timedelta
        from run_log.producer import record_run

        with record_run("w", run_id="r", heartbeat=timedelta(seconds=2)):
            threading.Event().wait()
        """,
        environ={"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(path)},
    )
    log = SQLiteRunLogService(path=path)
    try:
        async with asyncio.timeout(PATIENCE):
            heard = None
            while heard is None or len(heard) < 2:
                stale, _ = await log.list_stale(timedelta(0), now=utc_now() + timedelta(days=1))
                heard = {*(heard or ()), *(one.heard_at for one in stale)}
                await asyncio.sleep(0.05)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
    last = max(one.heard_at for one in (await log.list_stale(timedelta(0), now=utc_now()))[0])
    beat = timedelta(seconds=30)
    fresh, _ = await log.list_stale(2 * beat, now=last + 2 * beat - timedelta(seconds=1))
    found, _ = await log.list_stale(2 * beat, now=last + 3 * beat)
    history = await log.get_history("w", "r")
    await log.close()

    assert ([], ["r"]) == (fresh, [one.run.id for one in found])
    assert [RunStatus.RUNNING] == [line.status for line in history]
