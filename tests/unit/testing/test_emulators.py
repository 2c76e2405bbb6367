import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.ports import unused_port

from run_log.testing import EmulatorError, EmulatorNotFoundError, FirestoreEmulator, PubSubEmulator
from run_log.testing._emulators import running

pytestmark = pytest.mark.process

JARS = (
    "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar",
    "platform/pubsub-emulator/lib/cloud-pubsub-emulator-0.8.0-all.jar",
)

ANSWERING = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200)

    def do_DELETE(self):
        self.answer(500)

    def answer(self, status):
        self.send_response(status)
        self.end_headers()

port = int(sys.argv[-1].removeprefix("--port="))
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
print("listening on", port, flush=True)
server.serve_forever()
"""
"""Stands for Java with an emulator: it answers, or says that its port is taken and ends."""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")


class Machine:
    """A machine with just the programs and the SDK that a test puts on it."""

    def __init__(self, folder: Path) -> None:
        self.sdk = folder / "sdk"
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.environ = {"PATH": str(self.programs)}

    def install_program(self, name: str, source: str) -> None:
        """Put a Python program on the PATH."""
        program = self.programs / name
        program.write_text(source if source.startswith("#!") else f"#!{sys.executable}\n{source}")
        program.chmod(0o755)

    def install_sdk(self) -> None:
        """Make an SDK with both emulators, which nothing points at."""
        for jar in JARS:
            (self.sdk / jar).parent.mkdir(parents=True)
            (self.sdk / jar).touch()

    def install_emulators(self, java: str) -> None:
        """Put *java* on the PATH and point at an SDK with both emulators."""
        self.install_program("java", java)
        self.install_sdk()
        self.environ["RUN_LOG_EMULATOR_ROOT"] = str(self.sdk)

    def runs_java(self, **options: Any) -> contextlib.AbstractContextManager[int]:
        """Run what is called java on the PATH as a server, with *options* of `running`."""
        port = unused_port()
        command = [str(self.programs / "java"), f"--port={port}"]
        return running(
            "a server", lambda _: command, port, environ={}, start_timeout=timedelta(seconds=30), **options
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with nothing on it."""
    return Machine(tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Yield a port that somebody has and nobody listens on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize("kind", [FirestoreEmulator, PubSubEmulator])
def test_an_emulator_is_there_for_as_long_as_the_block_lasts(
    machine: Machine, kind: type[FirestoreEmulator | PubSubEmulator]
) -> None:
    """Within the block the emulator answers at its host; afterwards its process is gone."""
    machine.install_emulators(ANSWERING)

    with kind(environ=machine.environ) as emulator:
        pid, host, environment = emulator.pid, emulator.host, emulator.environment
        address, port = host.split(":")
        socket.create_connection((address, int(port))).close()

    assert {kind.host_variable: host} == environment
    assert pid is not None
    assert not is_alive(pid)
    assert emulator.pid is None


@on_linux
def test_an_emulator_leaves_nothing_behind_and_starts_again(machine: Machine) -> None:
    """An emulator may be entered any number of times, each with a process and a folder, gone at the end."""
    machine.install_emulators(ANSWERING)
    emulator = PubSubEmulator(environ=machine.environ)
    homes: set[Path] = set()
    for _ in range(2):
        with emulator:
            home = Path(f"/proc/{emulator.pid}/cwd").resolve()
            assert home.is_dir()
        assert not home.exists()
        homes.add(home)

    assert 2 == len(homes)


def test_an_emulator_that_runs_already_is_used_and_left_alone(machine: Machine) -> None:
    """Where the host variable is set, nothing is started or ended. Outside of the block there is no host."""
    machine.environ["FIRESTORE_EMULATOR_HOST"] = "firestore.test:8080"

    with FirestoreEmulator(environ=machine.environ) as emulator:
        assert ("firestore.test:8080", None) == (emulator.host, emulator.pid)

    with pytest.raises(EmulatorError, match="start it with a `with` block"):
        _ = emulator.host


def test_what_is_missing_is_named(machine: Machine) -> None:
    """Without Java or an SDK, the error lists what was looked at and says how to get what is needed."""

    def said(kind: type[FirestoreEmulator | PubSubEmulator]) -> str:
        with pytest.raises(EmulatorNotFoundError, match="gcloud components install") as caught:
            kind(environ=machine.environ).__enter__()
        return str(caught.value)

    machine.install_sdk()
    assert "no java on the PATH" in said(FirestoreEmulator)

    machine.install_program("java", ANSWERING)
    machine.environ["RUN_LOG_EMULATOR_ROOT"] = ""
    assert "RUN_LOG_EMULATOR_ROOT is not set; gcloud is not on the PATH" in said(PubSubEmulator)

    machine.environ["RUN_LOG_EMULATOR_ROOT"] = str(machine.programs)
    assert f"{machine.programs / JARS[0]} is not there" in said(FirestoreEmulator)


def test_gcloud_is_asked_where_its_sdk_is(machine: Machine) -> None:
    """Without a root in the environment, the emulators under gcloud's own SDK are used."""
    machine.install_program("java", ANSWERING)
    machine.install_program("gcloud", f"print({str(machine.sdk)!r})")
    machine.install_sdk()

    with PubSubEmulator(environ=machine.environ) as emulator:
        pid = emulator.pid

    assert pid is not None


@pytest.mark.parametrize(
    "gcloud",
    [f"#!{sys.executable}\nraise SystemExit(1)", f"#!{sys.executable}\nprint()", "#!/no/such/interpreter\n"],
    ids=["fails", "says nothing", "cannot run"],
)
def test_a_gcloud_that_does_not_tell_is_named(machine: Machine, gcloud: str) -> None:
    """A gcloud that fails, says nothing, or that the system refuses to run, is named in the error."""
    machine.install_program("java", ANSWERING)
    machine.install_program("gcloud", gcloud)

    with pytest.raises(EmulatorNotFoundError, match="gcloud does not say where its SDK is"):
        PubSubEmulator(environ=machine.environ).__enter__()


def test_a_port_taken_meanwhile_is_given_up_for_another(machine: Machine, taken_port: int) -> None:
    """Where somebody took the port in between, the emulator starts on the next one; not for ever."""
    machine.install_emulators(ANSWERING)
    proposed: list[int] = []

    def choose_port() -> int:
        proposed.append(unused_port() if proposed else taken_port)
        return proposed[-1]

    with PubSubEmulator(environ=machine.environ, choose_port=choose_port) as emulator:
        host = emulator.host

    assert taken_port == proposed[0]
    assert f"127.0.0.1:{proposed[-1]}" == host
    with pytest.raises(EmulatorError, match="ports taken"):
        PubSubEmulator(environ=machine.environ, choose_port=lambda: taken_port).__enter__()


def test_an_emulator_that_ends_at_its_start_is_quoted(machine: Machine) -> None:
    """The error for an emulator that ends by itself holds its status and its last words."""
    machine.install_emulators("import sys; print('no memory', file=sys.stderr); sys.exit(3)")

    with pytest.raises(EmulatorError, match=r"status 3:\nno memory"):
        FirestoreEmulator(environ=machine.environ).__enter__()


@pytest.mark.parametrize(
    ("java", "said"),
    [
        ("", "it said nothing"),
        ("print(sys.argv[-1], flush=True)", "--port="),
    ],
    ids=["silent", "not listening"],
)
def test_an_emulator_that_does_not_answer_is_not_waited_for_for_ever(
    machine: Machine, java: str, said: str
) -> None:
    """An emulator that does not answer in time is ended, and the error quotes what it said."""
    is_up = machine.programs / "is up"
    seen: list[bool] = []

    def now() -> float:
        seen.append(is_up.exists())
        # Its time is over once it has said all that it will, and that was read.
        return 31.0 if seen[-2:] == [True, True] else 0.0

    machine.install_program(
        "java", f"import pathlib, signal, sys; {java}\npathlib.Path({str(is_up)!r}).touch()\nsignal.pause()"
    )

    with pytest.raises(EmulatorError, match=rf"did not answer .*\n.*{said}"), machine.runs_java(now=now):
        raise AssertionError


def test_a_server_that_does_not_end_when_asked_is_killed(machine: Machine) -> None:
    """A server that ignores the request to end is killed after the timeout."""
    machine.install_program(
        "java", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + ANSWERING
    )

    with machine.runs_java(end_timeout=timedelta(milliseconds=5)) as pid:
        pass

    assert not is_alive(pid)


def test_an_emulator_outlives_the_thread_that_started_it(machine: Machine) -> None:
    """An emulator started by a thread that has ended since is still there, until its block ends."""
    machine.install_emulators(ANSWERING)
    emulator = PubSubEmulator(environ=machine.environ)
    starter = threading.Thread(target=emulator.__enter__)
    starter.start()
    starter.join()

    with contextlib.ExitStack() as ending:
        ending.push(emulator)
        address, port = emulator.host.split(":")
        socket.create_connection((address, int(port))).close()
        pid = emulator.pid

    assert pid is not None
    assert not is_alive(pid)


@on_linux
def test_an_emulator_ends_with_a_process_that_is_killed(machine: Machine) -> None:
    """A killed process, which cannot clean up, takes its emulator with it."""
    machine.install_emulators(ANSWERING)
    source = (
        "import sys; from run_log.testing import PubSubEmulator\n"
        "with PubSubEmulator() as emulator: print(emulator.pid, flush=True); sys.stdin.read()"
    )
    # The killed process's temporary files go where pytest removes them.
    environ = {**os.environ, **machine.environ, "TMPDIR": str(machine.programs)}
    environ.pop("PUBSUB_EMULATOR_HOST", None)
    with subprocess.Popen(  # noqa: S603  # this Python, and the source above
        [sys.executable, "-c", source], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        emulator = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)

    # A process file descriptor becomes readable when its process has ended.
    ended, _, _ = select.select([emulator], [], [], 30)
    os.close(emulator)

    assert [emulator] == ended


def test_clearing_that_fails_is_an_error(machine: Machine, taken_port: int) -> None:
    """Where the emulator does not answer, or does not delete the documents, the caller learns so."""
    machine.install_emulators(ANSWERING)

    emulator = FirestoreEmulator(environ=machine.environ)
    with emulator, pytest.raises(EmulatorError, match="answered with 500"):
        emulator.clear("a-project")
    machine.environ["FIRESTORE_EMULATOR_HOST"] = f"127.0.0.1:{taken_port}"
    with emulator, pytest.raises(EmulatorError, match="does not answer"):
        emulator.clear("a-project")


def is_alive(pid: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
