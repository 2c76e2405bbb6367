from __future__ import annotations

import io
import logging
import logging.handlers
import queue
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from run_log.core import Settings, TransportRefusedError, TransportUnavailableError
from run_log.core.logs import LINES_AT_ONCE
from run_log.producer import RunEventEmitter, default_emitter, record_run, reset_default_emitter
from run_log.producer._held import BufferLimits
from run_log.producer._spool import Spool
from run_log.stores import get_run_log_service, reset_run_log_service
from run_log.testing import a_run

from .conftest import EmitterMaker
from .transports import PATIENCE, SOON, ScriptedTransport

MOST_LINES = 4 * LINES_AT_ONCE


class Board(logging.Handler):
    """An incident board: does something for each line, and gives up where that does not end."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act
        self.lines: list[str] = []

    def handle(self, record: logging.LogRecord) -> bool:
        """Act for *record*, under no lock of a handler's own: it is what run-log holds that is tried."""
        self.lines.append(record.getMessage())
        if len(self.lines) < MOST_LINES:
            self._act()
        return True


@contextmanager
def _watched(board: logging.Handler, level: int = logging.WARNING) -> Generator[None]:
    logger = logging.getLogger("run_log")
    before = logger.level
    logger.addHandler(board)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(board)
        logger.setLevel(before)


def _in_time(work: Callable[[], object]) -> bool:
    """Return whether *work* ends: it runs in a thread, which is left behind where it hangs."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not thread.is_alive()


def _here(work: Callable[[], object]) -> Callable[[], object]:
    return work


def _elsewhere(work: Callable[[], object]) -> Callable[[], None]:
    """Return what does *work* in another thread, and waits for it."""

    def act() -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    return act


def _records(emitter: RunEventEmitter, result: Any) -> Callable[[], None]:
    def act() -> None:
        with record_run("incidents", emitter=emitter) as run:
            run.set_result(result)

    return act


@pytest.mark.parametrize("result", [7, {"log": "x" * 3_000_000}], ids=["left out", "cut"])
def test_a_board_that_records_runs(result: Any, emitter: RunEventEmitter) -> None:
    """A handler that records a run for each line ends, also where the run's own value is a line."""
    record = _records(emitter, result)
    board = Board(record)

    with _watched(board):
        assert _in_time(record)
        emitter.close(PATIENCE)

    assert 1 <= len(board.lines) <= LINES_AT_ONCE


def test_a_board_behind_a_queue(emitter: RunEventEmitter) -> None:
    """The same through a queue, where each handled line makes the next on another thread."""
    record = _records(emitter, 7)
    board = Board(record)
    lines: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(lines, board)
    listener.start()
    try:
        with _watched(logging.handlers.QueueHandler(lines)):
            record()
            lines.join()
    finally:
        listener.stop()

    assert LINES_AT_ONCE == len(board.lines)


def test_a_board_that_makes_emitters() -> None:
    """A handler that makes an emitter of its own for each line, and loses its run, ends too."""

    def lose() -> None:
        emitter = RunEventEmitter(ScriptedTransport(), policy=SOON)
        emitter.emit("no run")
        emitter.close(PATIENCE)

    board = Board(_elsewhere(lose))

    with _watched(board):
        lose()

    assert 1 <= len(board.lines) <= LINES_AT_ONCE


@pytest.mark.parametrize("call", ["emit", "flush", "close", "stats"])
@pytest.mark.parametrize("where", [_here, _elsewhere])
def test_a_board_that_asks_the_emitter(
    where: Callable[[Callable[[], object]], Callable[[], object]], call: str, emitter_to: EmitterMaker
) -> None:
    """Whatever of the emitter's a handler calls while it logs, from whichever thread, comes back."""
    emitter = emitter_to(ScriptedTransport([TransportRefusedError("no such topic")]))
    calls: dict[str, Callable[[], object]] = {
        "emit": lambda: emitter.emit(a_run(id="incident")),
        "flush": lambda: emitter.flush_sync(0.01),
        "close": lambda: emitter.close(0.01),
        "stats": lambda: emitter.stats,
    }
    board = Board(where(calls[call]))

    with _watched(board):
        emitter.emit(a_run())
        emitter.emit("no run")
        assert _in_time(lambda: emitter.close(PATIENCE))

    assert board.lines


def test_a_flush_on_the_delivery_thread_waits_for_nothing(emitter_to: EmitterMaker) -> None:
    """A handler that flushes on the thread that delivers is answered at once: waiting would be in vain."""
    emitter = emitter_to(ScriptedTransport([TransportUnavailableError("down")]))
    board = Board(lambda: emitter.flush_sync(10 * PATIENCE))

    with _watched(board):
        emitter.emit(a_run())
        report = emitter.flush_sync(PATIENCE)

    assert board.lines
    assert 1 == report.delivered


def test_a_board_that_closes_a_spool_that_fails(tmp_path: Path, emitter_to: EmitterMaker) -> None:
    """A handler of a spool's failure may close the emitter, from whichever thread."""
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file" / "spool")
    emitter = emitter_to(ScriptedTransport(), spool=spool, limits=BufferLimits(events=1))
    board = Board(_elsewhere(lambda: emitter.close(0.01)))

    with _watched(board):
        for number in range(3):
            emitter.emit(a_run(id=str(number)))
        assert _in_time(lambda: emitter.close(PATIENCE))

    assert any("run_log_spool_failed" in line for line in board.lines)


def test_a_board_that_wants_the_processs_own(
    backend: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the process's emitter and service are made, a handler in another thread may ask for them."""
    backend("memory")
    monkeypatch.setattr("run_log.core.settings._told", set[str]())
    monkeypatch.setenv("RUN_LOG_LEVEL", "debug")

    def ask() -> None:
        with record_run("incidents"):
            get_run_log_service()

    board = Board(_elsewhere(ask))

    with _watched(board, logging.INFO):
        assert _in_time(default_emitter)
        monkeypatch.setattr("run_log.core.settings._told", set[str]())
        assert _in_time(get_run_log_service)
    reset_default_emitter()
    reset_run_log_service()

    assert any("RUN_LOG_LEVEL" in line for line in board.lines)


def test_a_stderr_that_records_runs(emitter_to: EmitterMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stderr that records a run for each text that a broken handler or a notice writes to it ends."""
    monkeypatch.setattr("run_log.producer._metrics._unsaid", [True])
    monkeypatch.delenv("RUN_LOG_STDERR_NOTICE", raising=False)
    emitter = emitter_to(ScriptedTransport([TransportRefusedError("no such topic")]))
    record = _records(emitter, 7)
    written: list[str] = []

    class Recording(io.StringIO):
        def write(self, text: str, /) -> int:
            written.append(text)
            if len(written) < 1_000 * MOST_LINES:
                record()
            return len(text)

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                int(record.getMessage())
            except ValueError:
                self.handleError(record)

    monkeypatch.setattr(sys, "stderr", Recording())
    with _watched(Broken()):
        assert _in_time(record)
        assert _in_time(lambda: emitter.close(PATIENCE))

    assert any("no such topic" in text for text in written)
    assert len(written) < 1_000 * MOST_LINES


@pytest.fixture
def recording_metric(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Have the counter of dropped events call whatever is put into the list."""
    calls: list[Callable[[], object]] = []

    class Counter:
        def add(self, _amount: int, _labels: object = None) -> None:
            for call in calls:
                call()

    monkeypatch.setattr("run_log.producer._metrics._dropped", Counter())
    return calls


def test_a_metric_that_asks_the_emitter(
    recording_metric: list[Callable[[], object]], emitter: RunEventEmitter
) -> None:
    """A metric's exporter may emit, flush and close while the emitter counts."""
    recording_metric += [
        lambda: emitter.emit(a_run(id="incident")),
        lambda: emitter.flush_sync(0.01),
        lambda: emitter.close(0.01),
    ]

    emitter.emit("no run")
    assert _in_time(lambda: emitter.close(PATIENCE))

    assert 1 <= emitter.stats.dropped


def test_settings_read_in_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of the warning of a variable may read the settings itself."""
    monkeypatch.setattr("run_log.core.settings._told", set[str]())
    board = Board(lambda: Settings.from_env({"RUN_LOG_LEVEL": "debug"}))

    with _watched(board):
        Settings.from_env({"RUN_LOG_LEVEL": "debug"})

    assert 1 == len(board.lines)
