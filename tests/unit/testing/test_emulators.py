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

import pytest
from tests.ports import unused_port

from run_log.testing import EmulatorError, EmulatorNotFoundError, FirestoreEmulator, PubSubEmulator
from run_log.testing._server import Server, running

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

SHORT = timedelta(milliseconds=300)
POLL = timedelta(milliseconds=5)

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
        program.write_text(f"#!{sys.executable}\n{source}")
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

    with kind(environ=machine.environ, poll_interval=POLL) as emulator:
        pid, host, environment = emulator.pid, emulator.host, emulator.environment
        address, port = host.split(":")
        socket.create_connection((address, int(port))).close()

    assert {kind.host_variable: host} == environment
    assert pid is not None
    assert not is_alive(pid)
    assert emulator.pid is None


@on_linux
def test_an_emulator_leaves_nothing_behind(machine: Machine) -> None:
    """The folder an emulator works in is gone when it has ended."""
    machine.install_emulators(ANSWERING)

    with PubSubEmulator(environ=machine.environ, poll_interval=POLL) as emulator:
        home = Path(f"/proc/{emulator.pid}/cwd").resolve()
        there = home.is_dir()

    assert there
    assert not home.exists()


def test_an_emulator_starts_again_after_its_end(machine: Machine) -> None:
    """One emulator object may be entered any number of times, each time with a new process."""
    machine.install_emulators(ANSWERING)
    emulator = PubSubEmulator(environ=machine.environ, poll_interval=POLL)

    pids: list[int | None] = []
    for _ in range(2):
        with emulator:
            pids.append(emulator.pid)

    assert 2 == len(set(pids) - {None})


def test_an_emulator_that_runs_already_is_used_and_left_alone(machine: Machine) -> None:
    """Where the host variable is set, nothing is looked for, started or ended."""
    machine.environ["FIRESTORE_EMULATOR_HOST"] = "firestore.test:8080"

    with FirestoreEmulator(environ=machine.environ) as emulator:
        host, pid = emulator.host, emulator.pid

    assert "firestore.test:8080" == host
    assert pid is None


def test_an_emulator_that_is_not_running_has_no_host(machine: Machine) -> None:
    """Asking for the host outside of the block says what to do."""
    emulator = FirestoreEmulator(environ=machine.environ)

    with pytest.raises(EmulatorError, match="start it with a `with` block"):
        _ = emulator.host


def test_without_java_the_error_says_so(machine: Machine) -> None:
    """A machine without Java gets an error that names Java and how to get what is needed."""
    machine.install_sdk()

    with pytest.raises(EmulatorNotFoundError, match=r"no java on the PATH.*gcloud components install"):
        FirestoreEmulator(environ=machine.environ).__enter__()


def test_without_an_sdk_the_error_says_what_was_looked_at(machine: Machine) -> None:
    """A machine without emulators gets an error that lists each place and how to get them."""
    machine.install_program("java", ANSWERING)
    machine.environ["RUN_LOG_EMULATOR_ROOT"] = ""

    with pytest.raises(EmulatorNotFoundError) as caught:
        PubSubEmulator(environ=machine.environ).__enter__()

    assert "RUN_LOG_EMULATOR_ROOT is not set" in str(caught.value)
    assert "gcloud is not on the PATH" in str(caught.value)
    assert "gcloud components install cloud-firestore-emulator pubsub-emulator" in str(caught.value)


def test_an_sdk_without_emulators_is_named(machine: Machine) -> None:
    """An SDK root without the emulator is named in the error, with the file that is missing."""
    machine.install_program("java", ANSWERING)
    machine.environ["RUN_LOG_EMULATOR_ROOT"] = str(machine.sdk)

    with pytest.raises(EmulatorNotFoundError) as caught:
        FirestoreEmulator(environ=machine.environ).__enter__()

    assert f"{machine.sdk / JARS[0]} is not there" in str(caught.value)


def test_gcloud_is_asked_where_its_sdk_is(machine: Machine) -> None:
    """Without a root in the environment, the emulators under gcloud's own SDK are used."""
    machine.install_program("java", ANSWERING)
    machine.install_program("gcloud", f"print({str(machine.sdk)!r})")
    machine.install_sdk()

    with PubSubEmulator(environ=machine.environ, poll_interval=POLL) as emulator:
        pid = emulator.pid

    assert pid is not None


@pytest.mark.parametrize("gcloud", ["raise SystemExit(1)", "print()"])
def test_a_gcloud_that_does_not_tell_is_named(machine: Machine, gcloud: str) -> None:
    """A gcloud that fails or says nothing is named in the error."""
    machine.install_program("java", ANSWERING)
    machine.install_program("gcloud", gcloud)

    with pytest.raises(EmulatorNotFoundError, match="gcloud does not say where its SDK is"):
        PubSubEmulator(environ=machine.environ).__enter__()


def test_a_gcloud_that_cannot_run_is_named(machine: Machine) -> None:
    """A gcloud that the system refuses to run counts as one that does not tell."""
    machine.install_program("java", ANSWERING)
    (machine.programs / "gcloud").write_text("#!/no/such/interpreter\n")
    (machine.programs / "gcloud").chmod(0o755)

    with pytest.raises(EmulatorNotFoundError, match="gcloud does not say where its SDK is"):
        PubSubEmulator(environ=machine.environ).__enter__()


def test_a_port_taken_meanwhile_is_given_up_for_another(machine: Machine, taken_port: int) -> None:
    """Where somebody took the port in between, the emulator starts on the next one proposed."""
    machine.install_emulators(ANSWERING)
    proposed: list[int] = []

    def choose_port() -> int:
        proposed.append(unused_port() if proposed else taken_port)
        return proposed[-1]

    with PubSubEmulator(environ=machine.environ, poll_interval=POLL, choose_port=choose_port) as emulator:
        host = emulator.host

    assert taken_port == proposed[0]
    assert f"127.0.0.1:{proposed[-1]}" == host


def test_the_search_for_a_port_is_bounded(machine: Machine, taken_port: int) -> None:
    """Where every port proposed is taken, starting ends in an error."""
    machine.install_emulators(ANSWERING)
    emulator = PubSubEmulator(environ=machine.environ, poll_interval=POLL, choose_port=lambda: taken_port)

    with pytest.raises(EmulatorError, match="ports taken"):
        emulator.__enter__()


def test_an_emulator_that_ends_at_its_start_is_quoted(machine: Machine) -> None:
    """The error for an emulator that ends by itself holds its status and its last words."""
    machine.install_emulators("import sys; print('no memory', file=sys.stderr); sys.exit(3)")

    with pytest.raises(EmulatorError, match=r"status 3:\nno memory"):
        FirestoreEmulator(environ=machine.environ, poll_interval=POLL).__enter__()


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
    server = Server(
        name="mute server",
        command=lambda _, port: [str(machine.programs / "java"), f"--port={port}"],
        environ={},
        start_timeout=timedelta(seconds=30),
        poll_interval=POLL,
        now=now,
    )

    with pytest.raises(EmulatorError, match=rf"did not answer .*\n.*{said}"), running(server, unused_port()):
        raise AssertionError


def test_the_time_to_start_is_the_callers(machine: Machine) -> None:
    """An emulator is given as long to answer as the caller says."""
    machine.install_emulators("import signal; signal.pause()")
    emulator = FirestoreEmulator(environ=machine.environ, start_timeout=SHORT, poll_interval=POLL)

    with pytest.raises(EmulatorError, match=rf"did not answer on port \d+ within {SHORT}"):
        emulator.__enter__()


def test_a_server_that_does_not_end_when_asked_is_killed(machine: Machine) -> None:
    """A server that ignores the request to end is killed after the timeout."""
    machine.install_program(
        "java", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + ANSWERING
    )
    server = Server(
        name="stubborn server",
        command=lambda _, port: [str(machine.programs / "java"), f"--port={port}"],
        environ={},
        start_timeout=timedelta(seconds=30),
        poll_interval=POLL,
        end_timeout=POLL,
    )

    with running(server, unused_port()) as pid:
        pass

    assert not is_alive(pid)


def test_an_emulator_outlives_the_thread_that_started_it(machine: Machine) -> None:
    """An emulator started by a thread that has ended since is still there, until its block ends."""
    machine.install_emulators(ANSWERING)
    emulator = PubSubEmulator(environ=machine.environ, poll_interval=POLL)
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


def test_clearing_an_emulator_that_refuses_is_an_error(machine: Machine) -> None:
    """Where the emulator does not delete the documents, the caller learns the answer."""
    machine.install_emulators(ANSWERING)

    with (
        FirestoreEmulator(environ=machine.environ, poll_interval=POLL) as emulator,
        pytest.raises(EmulatorError, match="answered with 500"),
    ):
        emulator.clear("a-project")


def test_clearing_an_emulator_that_does_not_answer_is_an_error(taken_port: int) -> None:
    """Where nothing answers at the emulator's host, the caller learns so."""
    host = f"127.0.0.1:{taken_port}"

    with (
        FirestoreEmulator(environ={"FIRESTORE_EMULATOR_HOST": host}) as emulator,
        pytest.raises(EmulatorError, match="does not answer"),
    ):
        emulator.clear("a-project")


def is_alive(pid: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
