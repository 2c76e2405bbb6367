"""A server as a child process: started, waited for, and ended with all that it wrote."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from run_log.core.errors import EmulatorError, PortTakenError

_ANSWER_SECONDS: Final = 5
"""How long one request may take while the server starts."""

_QUOTED_LINES: Final = 15
"""Lines of the server's output that an error quotes."""

_PORT_TAKEN: Final = ("BindException", "Address already in use")
"""Texts in a server's output if its port is taken: Java's, in any language, and the system's."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server to start."""

    name: str
    """Its name in errors."""
    command: Callable[[Path, int], Sequence[str]]
    """Returns the command line for a folder for temporary files and a port of 127.0.0.1. The path of the
    program is absolute."""
    environ: Mapping[str, str]
    """Its environment variables."""
    start_timeout: timedelta
    """Longest time until it answers."""
    poll_interval: timedelta
    """Time between two looks whether it answers."""
    end_timeout: timedelta = timedelta(seconds=10)
    """Time from asking it to end until it is killed."""
    now: Callable[[], float] = time.monotonic
    """Monotonic seconds."""


@contextlib.contextmanager
def running(server: Server, port: int) -> Generator[int]:
    """Start *server* on *port*, yield its process id once it answers, and end it.

    Raises:
        PortTakenError: The port is taken.
        EmulatorError: It ended by itself, or does not answer in time.
    """
    with TemporaryDirectory(prefix="run-log-emulator-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        output = home / "output.txt"
        with output.open("wb") as sink:
            process = subprocess.Popen(  # noqa: S603  # the Java and the jar that were found
                _tied_to_this_process(server.command(home, port)),
                cwd=home,
                env=dict(server.environ),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_for(process, server, port, output)
            yield process.pid
        finally:
            _end(process, server.end_timeout)


def _tied_to_this_process(command: Sequence[str]) -> list[str]:
    # The kernel ties it to the thread that forks. Any thread but the main one may end while the server is
    # used.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


def _wait_for(process: subprocess.Popen[bytes], server: Server, port: int, output: Path) -> None:
    deadline = server.now() + server.start_timeout.total_seconds()
    while True:
        ended = process.poll() is not None
        said = output.read_text(encoding="utf-8", errors="replace")
        if any(sign in said for sign in _PORT_TAKEN):
            # Not every emulator ends by itself then, and the server that has the port may answer instead.
            raise PortTakenError(f"{server.name} cannot have port {port}: it is taken")
        if ended:
            raise EmulatorError(f"{server.name} ended with status {process.returncode}:\n{_tail(said)}")
        if str(port) in said and _answers(port):
            return
        if server.now() >= deadline:
            raise EmulatorError(
                f"{server.name} did not answer on port {port} within {server.start_timeout}:\n{_tail(said)}"
            )
        time.sleep(server.poll_interval.total_seconds())


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


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-_QUOTED_LINES:]) or "(it said nothing)"
