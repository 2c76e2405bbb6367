from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from run_log.console.log_lines import log_to_stderr
from run_log.core.logs import get_logger


class _Broken:
    def __repr__(self) -> str:
        raise ValueError


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


ODD_FIELDS: dict[str, Any] = {
    "field": {1},
    "nan": math.nan,
    "text": "\ud800 \x1b[2J\n",
    "keys": {(1, 2): 3, "\ud800": b"\xff"},
    "broken": _Broken(),
    "deep": _nested(3_000),
    "large": 2**200,
}
"""Fields that JSON cannot hold, or that are hard to show."""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the library's logging as it was."""
    logger = logging.getLogger("run_log")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def stderr() -> io.StringIO:
    """Return what takes the place of stderr: a file that nobody watches."""
    return io.StringIO()


def _log_to(stderr: io.StringIO, level: int = logging.INFO) -> None:
    with contextlib.redirect_stderr(stderr):
        log_to_stderr(level)


def _break(why: str) -> None:
    raise ValueError(why)


def _lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_json_where_nobody_watches(stderr: io.StringIO) -> None:
    """A log line is a JSON object with severity, message, time in UTC and the event's own fields."""
    _log_to(stderr)
    begun = datetime.now(UTC)

    get_logger("run_log.test").warning("something_happened", failures=3)

    (line,) = _lines(stderr)
    time = datetime.fromisoformat(line.pop("time"))
    assert {"severity": "WARNING", "message": "something_happened", "failures": 3} == line
    assert begun <= time <= datetime.now(UTC)


@pytest.mark.parametrize("level", ["info", "warning", "error", "critical"])
def test_severities_are_cloud_loggings(stderr: io.StringIO, level: str) -> None:
    """A level becomes the severity of the same name in capitals, as Cloud Logging has it."""
    _log_to(stderr)

    getattr(get_logger("run_log.test"), level)("it")

    assert [level.upper()] == [line["severity"] for line in _lines(stderr)]


def test_an_exception_is_one_line(stderr: io.StringIO) -> None:
    """A traceback is a field of the one line that logs it."""
    _log_to(stderr)

    try:
        _break("two\nlines")
    except ValueError:
        get_logger("run_log.test").exception("it_broke")

    (line,) = _lines(stderr)
    assert ("ERROR", "it_broke") == (line["severity"], line["message"])
    assert "ValueError: two\nlines" in line["exception"]


def test_what_json_cannot_hold(stderr: io.StringIO) -> None:
    """A field that JSON cannot hold does not lose the line."""
    _log_to(stderr)

    get_logger("run_log.test").info("it", **ODD_FIELDS)

    (line,) = _lines(stderr)
    assert ("it", [1], "NaN") == (line["message"], line["field"], line["nan"])


def test_standard_loggers_are_shown_alike(stderr: io.StringIO) -> None:
    """A line of the standard library's own logging under the same name looks the same."""
    _log_to(stderr)

    logging.getLogger("run_log.test").warning("%s failed", "it", extra={"failures": 3})

    (line,) = _lines(stderr)
    assert ("WARNING", "it failed", 3) == (line["severity"], line["message"], line["failures"])


def test_less_than_the_level_is_silent(stderr: io.StringIO) -> None:
    """What is below the level is not written; by default that is debugging."""
    _log_to(stderr)
    get_logger("run_log.test").debug("quiet")
    _log_to(stderr, logging.ERROR)
    get_logger("run_log.test").warning("quiet")

    assert "" == stderr.getvalue()


def test_other_loggers_are_left_alone(stderr: io.StringIO) -> None:
    """Only the library's own logger is configured."""
    before = list(logging.getLogger().handlers)

    _log_to(stderr)

    assert before == logging.getLogger().handlers


def test_text_on_a_terminal() -> None:
    """On a terminal a line is text for people."""
    written = _Terminal()
    _log_to(written)

    get_logger("run_log.test").warning("something_happened", failures=3)

    (line,) = written.getvalue().splitlines()
    assert "something_happened" in line
    assert "failures" in line
    with pytest.raises(json.JSONDecodeError):
        json.loads(line)


def test_what_a_terminal_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal too, a field of any kind does not lose the line; NO_COLOR is heeded."""
    monkeypatch.setenv("NO_COLOR", "1")
    written = _Terminal()
    _log_to(written)

    get_logger("run_log.test").info("it", **ODD_FIELDS)
    logging.getLogger("run_log.test").info("%s", "two\nlines \x1b[2J")

    first, second = written.getvalue().splitlines()
    assert "nan='NaN'" in first
    assert "two\\nlines \\x1b[2J" in second
    assert "\x1b" not in written.getvalue()


def test_an_exception_on_a_terminal() -> None:
    """On a terminal a traceback is shown as Python's own, without the values of local variables."""
    written = _Terminal()
    _log_to(written)
    secret = "s3cret"[::-1]

    try:
        _break(f"{len(secret)} letters")
    except ValueError:
        get_logger("run_log.test").exception("it_broke")

    assert "ValueError: 6 letters" in written.getvalue()
    assert secret not in written.getvalue()


@pytest.mark.parametrize("made", [_Terminal, io.StringIO], ids=["a terminal", "nobody watches"])
def test_what_others_wrote_is_shown_literally(made: type[io.StringIO]) -> None:
    """Ids and errors in a log line neither command the terminal nor begin a line of their own."""
    written = made()
    _log_to(written)
    odd = "r1\x1b]0;owned\x07\u009b31m"

    get_logger("run_log.test").warning("something_happened", run_id=odd, why=f"{odd}\nrun_log_all_is_well")
    try:
        _break(odd)
    except ValueError:
        get_logger("run_log.test").exception("it_broke")

    shown = written.getvalue()
    assert "owned" in shown
    assert not any(line.startswith("run_log_all_is_well") for line in shown.splitlines())
    assert not set("\x07\u009b") & set(shown)
    assert "\x1b]" not in shown
