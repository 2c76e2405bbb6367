from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from run_log.core import RunEvent
from run_log.producer import RunEventEmitter, reset_default_emitter
from run_log.producer._transport import DeliveryPolicy, Transport
from run_log.stores import reset_run_log_service

from .transports import PATIENCE, ScriptedTransport, States, soon

EmitterMaker = Callable[..., RunEventEmitter]
Published = Callable[..., list[RunEvent]]


@pytest.fixture
def emitter_to() -> Iterator[EmitterMaker]:
    """Make emitters that retry soon, and close them when the test ends."""
    others = set(threading.enumerate())
    made: list[RunEventEmitter] = []

    def make(
        transport: Transport, *, uniform: Callable[[float, float], float] = soon, **options: Any
    ) -> RunEventEmitter:
        given: dict[str, Any] = {"policy": DeliveryPolicy(uniform=uniform, linger=0), **options}
        emitter = RunEventEmitter(transport, **given)
        made.append(emitter)
        return emitter

    yield make
    for emitter in made:
        emitter.close(0)
    for thread in set(threading.enumerate()) - others:
        if thread.name == "run-log-emitter":
            thread.join(PATIENCE)


@pytest.fixture
def transport() -> ScriptedTransport:
    """Return what takes everything."""
    return ScriptedTransport()


@pytest.fixture
def emitter(emitter_to: EmitterMaker, transport: ScriptedTransport) -> RunEventEmitter:
    """Make an emitter to *transport*."""
    return emitter_to(transport)


@pytest.fixture
def states() -> States:
    """Return what stands for an emitter."""
    return States()


@pytest.fixture
def published(transport: ScriptedTransport, emitter: RunEventEmitter) -> Published:
    """Emit what is given, close the emitter, and return the events that were published."""

    def publish(*runs: object) -> list[RunEvent]:
        for run in runs:
            emitter.emit(run)
        emitter.close(PATIENCE)
        return transport.events

    return publish


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set ``RUN_LOG_BACKEND`` for a process that has neither an emitter nor a service yet."""
    reset_default_emitter()
    reset_run_log_service()
    yield lambda name: monkeypatch.setenv("RUN_LOG_BACKEND", name)
    reset_default_emitter()
    reset_run_log_service()
