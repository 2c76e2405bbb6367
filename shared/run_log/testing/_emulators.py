"""Google's own emulators for tests: found, started on a free port, and ended with all that they wrote."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, TracebackType
from typing import ClassVar, Final, Self
from urllib.parse import quote

from run_log.core.errors import EmulatorError, EmulatorNotFoundError, PortTakenError

# Another process may take a port between the choice and the start of the emulator.
_PORT_TRIES: Final = 5

# How long the emulator may take to delete the documents of a project.
_CLEAR_SECONDS: Final = 60

# Names the root of a Google Cloud SDK, for a machine without ``gcloud`` on the PATH.
_ROOT_VARIABLE: Final = "RUN_LOG_EMULATOR_ROOT"

# It usually answers within a second.
_GCLOUD_SECONDS: Final = 60

_HOW_TO_GET: Final = (
    "get them with `gcloud components install cloud-firestore-emulator pubsub-emulator` "
    "and put Java 11 or later on the PATH"
)

# How long one request may take while the server starts.
_ANSWER_SECONDS: Final = 5

_POLL_SECONDS: Final = 0.05
_QUOTED_LINES: Final = 15

# Texts in a server's output if its port is taken: Java's, in any language, and the system's.
_PORT_TAKEN: Final = ("BindException", "Address already in use")

# PR_SET_PDEATHSIG kills the server when its parent dies, so that a test run that is killed leaves none
# behind. Not in a preexec_fn: that runs between fork and exec, and can deadlock in a process with threads. So
# another Python sets it, and then becomes the server. The 9 is SIGKILL, a name that Windows does not have.
_DIE_WITH_PARENT: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent has ended already")
os.execv(sys.argv[2], sys.argv[2:])
"""


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Emulator:
    """One of Google's emulators, which runs while a ``with`` block lasts. Not thread-safe.

    An emulator that runs already (its host variable is set) is used and left running. Otherwise it is
    searched in the Google Cloud SDK that ``RUN_LOG_EMULATOR_ROOT`` names, then in that of ``gcloud``, and
    started as a child process with the Java on the PATH. If it was started from the main thread on Linux, it
    ends with this process, even if that is killed.

    Args:
        environ: The environment variables to search with and to start it with.
        start_timeout: Longest time until it answers.
        choose_port: Proposes a port of 127.0.0.1. It is called again if the port is taken.
        memory: Size of its Java heap, as for ``-Xmx``, such as ``8g``. It holds all data there. None for
            2 GiB (Firestore) and 1 GiB (Pub/Sub), which is enough for about 100,000 runs.
    """

    host_variable: ClassVar[str]
    """The environment variable that points clients at it."""
    _name: ClassVar[str]
    _jar: ClassVar[str]
    _memory: ClassVar[str]
    _main_class: ClassVar[str]

    def __init__(
        self,
        *,
        environ: Mapping[str, str] = os.environ,
        start_timeout: timedelta = timedelta(seconds=60),
        choose_port: Callable[[], int] = free_port,
        memory: str | None = None,
    ) -> None:
        self._environ = environ
        self._start_timeout = start_timeout
        self._choose_port = choose_port
        self._heap = memory or self._memory
        self._host: str | None = None
        self._pid: int | None = None
        self._until_exit = contextlib.ExitStack()

    @property
    def host(self) -> str:
        """Where it listens, such as ``127.0.0.1:8080``. EmulatorError if it is not running."""
        if self._host is None:
            raise EmulatorError(f"the {self._name} is not running; start it with a `with` block")
        return self._host

    @property
    def pid(self) -> int | None:
        """The id of the process that was started; None if none was, or it has ended."""
        return self._pid

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables that point clients at it. EmulatorError if it is not running."""
        return MappingProxyType({self.host_variable: self.host})

    def __enter__(self) -> Self:
        """Start it unless it runs already, and wait until it answers.

        Raises:
            EmulatorNotFoundError: It, or Java, is not on this machine.
            EmulatorError: It did not start. The message quotes its last output.
        """
        self._host = self._environ.get(self.host_variable) or self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process that was started, and delete all that it wrote."""
        self._host = self._pid = None
        self._until_exit.close()

    def _start(self) -> str:
        java = _find_java(self._environ)
        jar = _find_jar(self._jar, self._environ)
        options = [
            f"-Xmx{self._heap}",
            "-XX:-UsePerfData",  # its file would lie outside of the folder
            "-Dfile.encoding=UTF-8",  # a bare container's locale would make it ASCII
        ]
        main = ["-cp", str(jar), self._main_class, "--host=127.0.0.1"]
        for _ in range(_PORT_TRIES):
            port = self._choose_port()
            command = partial(_command, java, options, [*main, f"--port={port}"])
            server = running(
                self._name, command, port, environ=self._environ, start_timeout=self._start_timeout
            )
            with contextlib.suppress(PortTakenError):
                self._pid = self._until_exit.enter_context(server)
                return f"127.0.0.1:{port}"
        raise EmulatorError(f"the {self._name} found each of {_PORT_TRIES} ports taken; try again")


def _command(java: str, options: Sequence[str], main: Sequence[str], folder: Path) -> list[str]:
    return [java, *options, f"-Djava.io.tmpdir={folder}", *main]


class FirestoreEmulator(Emulator):
    """Google's Firestore emulator, which runs while a ``with`` block lasts."""

    host_variable = "FIRESTORE_EMULATOR_HOST"
    _name = "Firestore emulator"
    _jar = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
    _memory = "2g"
    _main_class = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"

    def clear(self, project: str) -> None:
        """Delete every document of the project's default database. EmulatorError if it cannot."""
        path = f"/emulator/v1/projects/{quote(project, safe='')}/databases/(default)/documents"
        with contextlib.closing(http.client.HTTPConnection(self.host, timeout=_CLEAR_SECONDS)) as connection:
            try:
                connection.request("DELETE", path)
                with connection.getresponse() as response:
                    status, answer = response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                raise EmulatorError(f"the {self._name} at {self.host} does not answer: {error}") from error
        if status != HTTPStatus.OK:
            raise EmulatorError(
                f"DELETE {path} was answered with {status}: {answer.decode(errors='replace')}"
            )


class PubSubEmulator(Emulator):
    """Google's Pub/Sub emulator, which runs while a ``with`` block lasts."""

    host_variable = "PUBSUB_EMULATOR_HOST"
    _name = "Pub/Sub emulator"
    _jar = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"
    _memory = "1g"
    _main_class = "com.google.cloud.pubsub.testing.v1.Main"


def _find_java(environ: Mapping[str, str]) -> str:
    java = shutil.which("java", path=environ.get("PATH", ""))
    if java is None:
        raise EmulatorNotFoundError(f"no java on the PATH to run emulators with; {_HOW_TO_GET}")
    return str(Path(java).absolute())


def _find_jar(pattern: str, environ: Mapping[str, str]) -> Path:
    """Return the newest file that *pattern* matches under the root of a Google Cloud SDK."""
    looked_at: list[str] = []
    for root in _roots(environ, looked_at):
        jars = sorted(root.glob(pattern))
        if jars:
            return jars[-1]
        looked_at.append(f"{root / pattern} is not there")
    raise EmulatorNotFoundError(f"{'; '.join(looked_at)}: {_HOW_TO_GET}")


def _roots(environ: Mapping[str, str], looked_at: list[str]) -> Iterator[Path]:
    """Yield possible roots of an SDK, and note in *looked_at* what leads to none."""
    named = environ.get(_ROOT_VARIABLE)
    if named:
        yield Path(named).absolute()
    else:
        looked_at.append(f"{_ROOT_VARIABLE} is not set")
    gcloud = shutil.which("gcloud", path=environ.get("PATH", ""))
    if gcloud is None:
        looked_at.append("gcloud is not on the PATH")
        return
    root = _ask_gcloud(gcloud, environ)
    if root:
        yield Path(root)
    else:
        looked_at.append(f"{gcloud} does not say where its SDK is")


def _ask_gcloud(gcloud: str, environ: Mapping[str, str]) -> str:
    """Return the root of the SDK according to *gcloud*; empty if it does not tell."""
    # gcloud always writes settings and logs. They are deleted with this folder.
    with TemporaryDirectory(prefix="run-log-gcloud-") as settings:
        try:
            answer = subprocess.run(  # noqa: S603  # the gcloud on the PATH, with fixed arguments
                [gcloud, "info", "--format=value(installation.sdk_root)"],
                env={**environ, "CLOUDSDK_CONFIG": settings},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_GCLOUD_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
    return answer.stdout.strip()


@contextlib.contextmanager
def running(
    name: str,
    command: Callable[[Path], Sequence[str]],
    port: int,
    *,
    environ: Mapping[str, str],
    start_timeout: timedelta,
    end_timeout: timedelta = timedelta(seconds=10),
    now: Callable[[], float] = time.monotonic,
) -> Generator[int]:
    """Start a server, yield its process id once it answers on *port* of 127.0.0.1, and end it.

    *command* returns its command line, with an absolute path, for a folder for temporary files. Asked to end,
    it has *end_timeout* until it is killed.

    Raises:
        PortTakenError: The port is taken.
        EmulatorError: It ended by itself, or does not answer in time.
    """
    with TemporaryDirectory(prefix="run-log-emulator-", ignore_cleanup_errors=True) as folder:
        output = Path(folder) / "output.txt"
        with output.open("wb") as sink:
            process = subprocess.Popen(  # noqa: S603  # the Java and the jar that were found
                _tied_to_this_process(command(Path(folder))),
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = now() + start_timeout.total_seconds()
            while not _has_started(name, process, port, output):
                if now() >= deadline:
                    raise EmulatorError(
                        f"{name} did not answer on port {port} within {start_timeout}:\n{_tail(output)}"
                    )
                time.sleep(_POLL_SECONDS)
            yield process.pid
        finally:
            _end(process, end_timeout)


def _tied_to_this_process(command: Sequence[str]) -> list[str]:
    # The kernel ties it to the thread that forks. Any thread but the main one may end while the server is
    # used.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


def _has_started(name: str, process: subprocess.Popen[bytes], port: int, output: Path) -> bool:
    # First, so that the output of one that has ended is whole when it is read.
    ended = process.poll() is not None
    said = output.read_text(encoding="utf-8", errors="replace")
    if any(sign in said for sign in _PORT_TAKEN):
        # Not every emulator ends by itself then, and the server that has the port may answer instead.
        raise PortTakenError(f"{name} cannot have port {port}: it is taken")
    if ended:
        raise EmulatorError(f"{name} ended with status {process.returncode}:\n{_tail(output)}")
    return str(port) in said and _answers(port)


def _answers(port: int) -> bool:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    ) as connection:
        try:
            connection.request("GET", "/")
            with connection.getresponse() as response:
                return response.status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _end(process: subprocess.Popen[bytes], timeout: timedelta) -> None:
    process.terminate()
    try:
        process.wait(timeout.total_seconds())
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(output: Path) -> str:
    said = output.read_text(encoding="utf-8", errors="replace")
    return "\n".join(said.splitlines()[-_QUOTED_LINES:]) or "(it said nothing)"
