"""Ends of a process that run no exit hook of ours, or run it too early."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from run_log.producer._spool import Spool

from .transports import run_script

pytestmark = pytest.mark.process

Backend = Callable[[str], None]


@pytest.fixture
def file(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the processes of a test record in a file, with no setting that says how they end."""
    backend("sqlite")
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", str(tmp_path / "runs"))
    return tmp_path / "runs"


def _statuses(file: Path) -> dict[str, str]:
    connection = sqlite3.connect(file)
    found = dict(connection.execute("SELECT id, status FROM runs").fetchall())
    connection.close()
    return found


def _ended(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run *script* in a fresh interpreter, however it ends."""
    return subprocess.run(  # noqa: S603 - this interpreter, a script of the test's own
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_forked_child_may_end_at_once(file: Path) -> None:
    """What a forked child has recorded is stored, though os._exit ends it as soon as the run has ended."""
    run_script(
        """
        import asyncio, multiprocessing, os

        def record(run_id):
            from run_log.producer import record_run
            with record_run("w", run_id=run_id):
                pass
            os._exit(0)

        def forked(run_id, again=False):
            child = os.fork()
            if child:
                os.waitpid(child, 0)
            elif again:
                forked(run_id)
                os._exit(0)
            else:
                record(run_id)

        async def record_async():
            async with record_run("w", run_id="async"):
                pass
            os._exit(0)

        forked("imported in the child")
        from run_log.producer import record_run
        forked("never used by the parent")
        with record_run("w", run_id="parent"):
            pass
        for number in range(5):
            forked(f"child {number}")
        forked("grandchild", again=True)
        child = multiprocessing.get_context("fork").Process(target=record, args=("of multiprocessing",))
        child.start()
        child.join()
        if not os.fork():
            asyncio.run(record_async())
        os.wait()
        """
    )

    expected = {"imported in the child", "never used by the parent", "parent", "grandchild", "async"}
    expected |= {"of multiprocessing", *(f"child {number}" for number in range(5))}
    assert dict.fromkeys(expected, "success") == _statuses(file)


def test_how_long_a_forked_child_waits() -> None:
    """The end of a run waits in a forked child, unless the setting says otherwise or publishing fails."""
    printed = run_script(
        """
        import os
        from run_log.core import Settings, TransportUnavailableError
        from run_log.producer import RunEventEmitter, record_run
        from run_log.producer._transport import DeliveryPolicy

        class Dead:
            def publish(self, messages):
                raise TransportUnavailableError("down")
            def close(self):
                pass

        print(*RunEventEmitter(Dead())._end_waits())
        if os.fork():
            os.wait()
        else:
            print(*RunEventEmitter.from_settings(Settings(end_flush_seconds=0), Dead())._end_waits())
            emitter = RunEventEmitter(Dead(), policy=DeliveryPolicy(linger=0))
            print(sum(emitter._end_waits()))
            with record_run("w", emitter=emitter):
                pass
            print(emitter.is_failing, *emitter._end_waits(), flush=True)
            os._exit(0)
        """
    )

    assert printed.splitlines() == ["", "", "10.0", "True"]


_RECORDER = """
import json, os, signal, sys, threading
from run_log.core import decode_event
from run_log.producer import RunEventEmitter, record_run
from run_log.producer._spool import Spool
from run_log.testing import a_run

class FileTransport:
    def publish(self, messages):
        with open(sys.argv[1], "a") as file:
            for message in messages:
                print(json.dumps(decode_event(message).run.id), file=file)

    def close(self):
        pass
"""


@pytest.mark.parametrize("broker", ["alive", "dead"])
def test_a_sigterm_after_a_first_emit_in_a_thread(broker: str, tmp_path: Path) -> None:
    """A SIGTERM delivers, or keeps in the spool, also what was emitted in other threads than the main one."""
    out = tmp_path / "out" if broker == "alive" else tmp_path / "nowhere" / "out"

    done = _ended(
        _RECORDER
        + """
from run_log.producer import _lifecycle
_lifecycle.SIGTERM_SECONDS = 5 if sys.argv[3] == "alive" else 0.2
emitter = RunEventEmitter(FileTransport(), spool=Spool(sys.argv[2]))

def work():
    for number in range(40):
        emitter.emit(a_run(id=str(number)))
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=work).start()
threading.Event().wait()
""",
        str(out),
        str(tmp_path / "spool"),
        broker,
    )

    assert -signal.SIGTERM == done.returncode
    if broker == "alive":
        assert 40 == len(out.read_text().splitlines())
    else:
        spool = Spool(tmp_path / "spool")
        assert 40 == len(spool.next_batch(events=1_000, data_bytes=10**7))
        spool.close()


@pytest.mark.parametrize("value", [None, "false", "perhaps"])
def test_a_sigterm_with_nothing_to_deliver(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing held, or turned off, a SIGTERM ends the process at once and starts no thread."""
    monkeypatch.delenv("RUN_LOG_HANDLE_SIGTERM", raising=False)
    if value is not None:
        monkeypatch.setenv("RUN_LOG_HANDLE_SIGTERM", value)

    done = _ended(
        """
        import _thread, signal
        import run_log.producer
        _thread.start_new_thread = print
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
        signal.raise_signal(signal.SIGTERM)
        print("still here", flush=True)
        """
    )

    assert (-signal.SIGTERM, f"{value == 'false'}\n", "") == (done.returncode, done.stdout, done.stderr)


def test_an_import_in_a_thread() -> None:
    """Imported in a thread, it says once that SIGTERM is not handled; an emit in the main thread mends it."""
    printed = run_script(
        """
        import logging, signal, sys, threading
        logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)

        def work():
            global RunEventEmitter, InMemoryTopic, a_run
            from run_log.producer import RunEventEmitter
            from run_log.testing import InMemoryTopic, a_run
            for _ in range(2):
                emitter = RunEventEmitter(InMemoryTopic())
                emitter.emit(a_run())
                emitter.close(30)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        RunEventEmitter(InMemoryTopic()).emit(a_run())
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        """
    )

    assert [True] == ["run_log_sigterm_unhandled" in line for line in printed.splitlines()[:-2]]
    assert printed.splitlines()[-2:] == ["True", "False"]


def test_a_sigterm_before_a_child_knows_that_it_is_one() -> None:
    """A child that a SIGTERM meets before it has run any fork hook dies of it, whatever its parent holds."""
    printed = run_script(
        """
        import os, signal, sys, threading

        def meet():
            # As a pool does that is left while its workers start.
            print(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)

        os.register_at_fork(after_in_child=meet)
        from run_log.producer import RunEventEmitter
        from run_log.testing import InMemoryTopic, a_run

        gate = threading.Event()

        class Held(InMemoryTopic):
            def publish(self, messages):
                gate.wait()

        emitter = RunEventEmitter(Held())
        emitter.emit(a_run())
        for module in (None, "multiprocessing.popen_fork"):
            if module:
                __import__(module)
            child = os.fork()
            if not child:
                threading.Event().wait(20)
                os._exit(1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        gate.set()
        """
    )

    # Blocked, since CPython itself forgets a signal that comes a moment earlier.
    assert printed.splitlines() == ["True", "-15", "True", "-15", "set()"]


def test_fork_pools(file: Path) -> None:
    """Pools of forked workers end whenever they are left, and what their workers recorded is stored."""
    printed = run_script(
        """
        import multiprocessing, signal, threading
        from run_log.producer import record_run

        def record(run_id):
            with record_run("w", run_id=run_id):
                pass

        thread = threading.Thread(target=record, args=("first",))
        thread.start()
        thread.join()
        for number in range(100):
            with multiprocessing.get_context("fork").Pool(2) as pool:
                if number % 4 == 0:
                    pool.map(record, [f"{number} {job}" for job in range(3)])
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        """
    )

    assert printed == "False\n"
    expected = {"first", *(f"{number} {job}" for number in range(0, 100, 4) for job in range(3))}
    assert dict.fromkeys(expected, "success") == _statuses(file)


def test_an_exit_hook_that_runs_after_ours(file: Path) -> None:
    """A run of an exit hook that is older than the import is told, also where no other run was."""
    run_script(
        """
        import atexit

        def late():
            from run_log.producer import record_run
            for number in range(2):
                with record_run("w", run_id=f"late {number}"):
                    pass

        atexit.register(late)
        import run_log.producer
        """
    )

    assert {"late 0": "success", "late 1": "success"} == _statuses(file)
    assert ["runs"] == [path.name for path in file.parent.iterdir()]


def test_an_exit_where_no_thread_starts(file: Path) -> None:
    """Where the ending interpreter starts no thread any more, its exit delivers by itself."""
    run_script(
        """
        import atexit, threading
        from run_log.producer import record_run

        def refuse(thread):
            raise RuntimeError("can't create new thread at interpreter shutdown")

        def record():
            threading.Thread.start = refuse
            with record_run("w", run_id="last"):
                pass

        atexit.register(record)
        """
    )

    assert {"last": "success"} == _statuses(file)


@pytest.mark.parametrize("spools", [True, False])
def test_a_generator_that_the_interpreter_closes(
    spools: bool,  # noqa: FBT001
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that ends while the interpreter is torn down is kept in the spool; without one a loss is said."""
    if spools:
        monkeypatch.setenv("RUN_LOG_SPOOL_DIR", str(tmp_path / "spool"))

    done = _ended(
        """
        from run_log.producer import record_run

        def rows():
            with record_run("w", run_id="r"):
                yield

        kept = rows()
        next(kept)
        """
    )

    assert {"r": "running"} == _statuses(file)
    if spools:
        spool = Spool(tmp_path / "spool")
        (event,) = spool.next_batch(events=10, data_bytes=10**7)
        spool.close()
        assert json.loads(event.message.data)["run"]["status"] == "failed"
        assert done.stderr == ""
    else:
        assert "run-log: runs of this process are not recorded: a run ended when" in done.stderr
        assert "RUN_LOG_SPOOL_DIR" in done.stderr


def test_an_exec(file: Path) -> None:
    """A run that ends just before the process becomes another program is told; if it fails, all goes on."""
    printed = run_script(
        """
        import os, sys
        from run_log.producer import record_run

        def record(run_id):
            with record_run("w", run_id=run_id):
                pass

        record("before one that fails")
        try:
            os.execvp("no such program", ["no such program"])
        except FileNotFoundError:
            record("after one that fails")
        print(os.execve in os.supports_fd, flush=True)
        os.execlp(sys.executable, "python", "-c", "print('another program')")
        """
    )

    assert printed == "True\nanother program\n"
    assert {"before one that fails": "success", "after one that fails": "success"} == _statuses(file)


def test_a_fork_while_the_delivery_thread_imports(tmp_path: Path) -> None:
    """A fork waits while the delivery thread imports: a child would wait for that import for ever."""
    (tmp_path / "slow.py").write_text("import builtins\nbuiltins.inside.set()\nbuiltins.gate.wait()\n")

    printed = run_script(
        """
        import builtins, importlib, os, sys, threading
        from run_log.producer import RunEventEmitter
        from run_log.producer._emitter import LazyTransport
        from run_log.testing import InMemoryTopic, a_run

        sys.path.insert(0, sys.argv[1])
        builtins.inside, builtins.gate = threading.Event(), threading.Event()
        # The newest hook is the first: ours finds an import that ends before it gives up.
        os.register_at_fork(before=threading.Timer(0.2, builtins.gate.set).start)

        def make():
            importlib.import_module("slow")
            return InMemoryTopic()

        emitter = RunEventEmitter(LazyTransport(make))
        emitter.emit(a_run())
        builtins.inside.wait()
        child = os.fork()
        if not child:
            emitter.emit(a_run())
            os._exit(emitter.close(20).pending)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), emitter.close(20).pending)
        """,
        str(tmp_path),
    )

    assert printed == "0 0\n"
