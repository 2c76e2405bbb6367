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
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from run_log.core.errors import EmulatorError, PortTakenError

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
