"""Hand-written transports, and what the producer's tests look at."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from run_log.core import Message, RunEvent, WorkflowRun, decode_event
from run_log.core.models import snapshot
from run_log.producer._transport import DeliveryPolicy

PATIENCE = 30.0
"""Seconds after which a test gives up waiting; nothing takes that long."""


def soon(_shortest: float, _longest: float) -> float:
    """Return a retry's wait that is short whatever it is drawn from."""
    return 0.001


SOON = DeliveryPolicy(uniform=soon, linger=0)
"""Delivers at once, and retries soon."""


class ScriptedTransport:
    """Raises the errors it is given, one a call, then takes what comes; may be held meanwhile."""

    def __init__(self, errors: Iterable[Exception] = (), *, held: bool = False) -> None:
        self._errors = iter(errors)
        self._gate = threading.Event()
        if not held:
            self._gate.set()
        self.entered = threading.Event()
        self.batches: list[Sequence[Message]] = []
        self.closings = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        self.entered.set()
        self._gate.wait()
        error = next(self._errors, None)
        if error is not None:
            raise error
        self.batches.append(list(messages))

    def close(self) -> None:
        """See `Transport.close`."""
        self.closings += 1
        self._gate.set()

    def let_go(self) -> None:
        """Hold no call any more."""
        self._gate.set()

    @property
    def messages(self) -> list[Message]:
        """All messages taken."""
        return [message for batch in self.batches for message in batch]

    @property
    def events(self) -> list[RunEvent]:
        """All events taken."""
        return [decode_event(message) for message in self.messages]


class States:
    """Stands for an emitter: keeps a copy of each state it is given."""

    def __init__(self) -> None:
        self.runs: list[WorkflowRun] = []

    def emit(self, run: object) -> None:
        """Keep a copy of *run*."""
        self.runs.append(snapshot(run))

    @property
    def statuses(self) -> list[str]:
        """The statuses stated, in order."""
        return [run.status.value for run in self.runs]


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """Return the fields of every log record of *event*."""
    return [vars(record) for record in caplog.records if vars(record).get("event") == event]


def awaited(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """Return what `logged` does, once there is a record."""
    deadline = time.monotonic() + PATIENCE
    while not (found := logged(caplog, event)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def run_script(script: str, *arguments: str) -> str:
    """Run *script* in a fresh interpreter and return what it printed."""
    # From 3.12 on CPython warns of any fork beside threads: forking there is what these scripts test.
    forks = "ignore:This process:DeprecationWarning"
    done = subprocess.run(  # noqa: S603  # this interpreter, a script of the test's own
        [sys.executable, "-W", forks, "-c", textwrap.dedent(script), *arguments],
        env={**os.environ, "RUN_LOG_STDERR_NOTICE": "false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"exit {done.returncode}: {done.stderr}"
    return done.stdout


def start_script(
    script: str, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start *script* in a fresh interpreter, with *environ* besides; whoever starts it waits for it."""
    return subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, "-c", textwrap.dedent(script), *arguments], env={**os.environ, **(environ or {})}
    )
