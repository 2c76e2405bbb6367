from __future__ import annotations

import logging
import logging.handlers
import math
import queue
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest
import structlog

from run_log.core.logs import (
    LINES_AT_ONCE,
    _Allowance,  # pyright: ignore[reportPrivateUsage] - its clock is a parameter
    _allowances,  # pyright: ignore[reportPrivateUsage]
    caught_events,
    get_logger,
    logging_later,
)

from .builders import run_python


@pytest.mark.process
def test_without_configuration_nothing_is_printed() -> None:
    """In a program that configures no logging, a warning of ours prints nothing at all."""
    printed = run_python(
        "from run_log.core.logs import get_logger\n"
        "get_logger('run_log.test').warning('something_happened', run_id='r1')\n"
        "get_logger('run_log.test').error('something_failed', exc_info=True)\n"
    )

    assert (printed.stdout, printed.stderr) == ("", "")


def test_configured_logging_gets_name_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    """A program that configures logging gets the event and its fields as text, and each as an extra."""
    with caplog.at_level(logging.WARNING, logger="run_log"):
        get_logger("run_log.test").info("nobody_asks")
        get_logger("run_log.test").warning("something_happened", run_id="r1", attempts=3)
    (record,) = caplog.records

    assert (record.name, record.levelname) == ("run_log.test", "WARNING")
    assert record.getMessage() == "something_happened run_id='r1' attempts=3"
    assert record.__dict__["event"] == "something_happened"
    assert (record.__dict__["run_id"], record.__dict__["attempts"]) == ("r1", 3)


@pytest.mark.parametrize("name", ["name", "message", "module", "args", "thread", "asctime", "created"])
def test_a_field_named_like_the_records_own_never_raises(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A field, or a context variable of the host, that a log record has itself gets an underscore."""
    with (
        caplog.at_level(logging.WARNING, logger="run_log"),
        structlog.contextvars.bound_contextvars(**{name: "host's"}),
    ):
        get_logger("run_log.test").warning("something_happened")
    (record,) = caplog.records

    assert record.__dict__[f"{name}_"] == "host's"


class _Calls(logging.Handler):
    """Calls what it is given for each line, and counts the lines."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call = call
        self.lines = 0

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - the signature is logging's
        self.lines += 1
        self._call()


@contextmanager
def _handled_by(handler: logging.Handler) -> Generator[None]:
    logger = logging.getLogger("run_log.test")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _warn_twice() -> None:
    for number in range(2):
        get_logger("run_log.test").warning("something_happened", number=number)


def _fail() -> None:
    try:
        int("why")
    except ValueError:
        get_logger("run_log.test").exception("second")
        raise


def _left_out(metered: Callable[[], Counter[tuple[str, ...]]], reason: str) -> float:
    return metered()["run_log.logs.left_out", reason]


def test_the_text_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """What others wrote neither begins a line nor commands a terminal, and its length is bounded."""
    get_logger("run_log.test").warning("it", error="a\nb\x1b[2J\u2028" + "x" * 100_000, share="50 %")

    text = caplog.records[0].getMessage()
    assert text.startswith(r"it error='a\nb\x1b[2J\u2028xxx")
    assert text.endswith("share='50 %'")
    assert len(text) < 2_000


def test_the_hosts_context_is_not_in_the_text(caplog: pytest.LogCaptureFixture) -> None:
    """Context variables of the host are extras alone: how they are shown is its own affair."""
    with structlog.contextvars.bound_contextvars(request="host's"):
        get_logger("run_log.test").warning("it", run_id="r")

    assert "it run_id='r'" == caplog.records[0].getMessage()
    assert "host's" == vars(caplog.records[0])["request"]


def test_a_handler_that_logs_ends(metered: Callable[[], Counter[tuple[str, ...]]]) -> None:
    """What a handler of a line makes us log is counted, and ends there; the next line is handled again."""
    handler = _Calls(_warn_twice)
    before = _left_out(metered, "reentrant")

    with _handled_by(handler):
        _warn_twice()

    assert 2 == handler.lines
    assert 4 == _left_out(metered, "reentrant") - before


def test_a_loop_through_a_queue_ends(metered: Callable[[], Counter[tuple[str, ...]]]) -> None:
    """Where each handled line makes others on another thread, that ends too, and the next line says so."""
    lines: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
    handler = _Calls(_warn_twice)
    before = _left_out(metered, "rate")
    listener = logging.handlers.QueueListener(lines, handler)

    with _handled_by(logging.handlers.QueueHandler(lines)):
        _warn_twice()
        while (record := lines.get()) is not None:
            listener.handle(record)
            if lines.empty():
                lines.put(None)

    assert LINES_AT_ONCE == handler.lines
    assert 2 + 2 * LINES_AT_ONCE - LINES_AT_ONCE == _left_out(metered, "rate") - before


def test_lines_that_were_left_out_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Of one event so many lines are logged at once, then one a minute, which says how many are missing."""
    allowance = _Allowance()
    at_once = [allowance.take(0.0) for _ in range(LINES_AT_ONCE + 7)]
    later = [allowance.take(seconds) for seconds in (59.0, 61.0, 62.0)]

    assert ([True] * LINES_AT_ONCE + [False] * 7, [False, True, False]) == (at_once, later)
    assert 9 == allowance.left_out

    _allowances["it"] = _Allowance(at=math.inf, left_out=9)
    get_logger("run_log.test").warning("it")
    get_logger("run_log.test").warning("it")
    assert ["it lines_left_out=9", "it"] == [record.getMessage() for record in caplog.records]


def test_a_level_that_is_off_is_not_counted(metered: Callable[[], Counter[tuple[str, ...]]]) -> None:
    """A line that nobody would see costs no other its place."""
    handler = _Calls(lambda: None)
    before = _left_out(metered, "rate")

    with _handled_by(handler):
        for _ in range(2 * LINES_AT_ONCE):
            get_logger("run_log.test").debug("something_happened")
        get_logger("run_log.test").warning("something_happened")

    assert 1 == handler.lines
    assert before == _left_out(metered, "rate")


def test_events_can_be_caught(caplog: pytest.LogCaptureFixture) -> None:
    """What a block would log is told to its caller instead, however often, also if the block fails."""
    caught: list[str] = []

    def fail() -> None:
        with caught_events(caught):
            for _ in range(2 * LINES_AT_ONCE):
                get_logger("run_log.test").warning("caught")
            _fail()

    with pytest.raises(ValueError, match="why"):
        fail()
    get_logger("run_log.test").warning("logged")

    assert ["caught", "second"] == sorted(set(caught))
    assert 2 * LINES_AT_ONCE + 1 == len(caught)
    assert ["logged"] == [record.getMessage() for record in caplog.records]


def test_no_handler_runs_while_a_lock_is_held(caplog: pytest.LogCaptureFixture) -> None:
    """Lines of a block that holds a lock come after it, in order, with the exceptions of their time.

    So they do if the block fails.
    """
    lock = threading.Lock()
    free: list[bool] = []
    handler = _Calls(lambda: free.append(not lock.locked()))

    held: list[bool] = []

    def fail_with_lock() -> None:
        with logging_later(), lock, logging_later():
            get_logger("run_log.test").warning("first")
            try:
                _fail()
            finally:
                held.extend(free)

    with _handled_by(handler), pytest.raises(ValueError, match="why"):
        fail_with_lock()

    assert ([], [True, True]) == (held, free)
    assert ["first", "second"] == [record.getMessage() for record in caplog.records]
    assert caplog.records[1].exc_info is not None
    assert ValueError is caplog.records[1].exc_info[0]
