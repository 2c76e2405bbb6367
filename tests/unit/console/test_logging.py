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


def _logged_to(stderr: io.StringIO, level: int = logging.INFO) -> io.StringIO:
    with contextlib.redirect_stderr(stderr):
        log_to_stderr(level)
    return stderr


@pytest.fixture
def piped() -> io.StringIO:
    """Return what takes the place of stderr: a file that nobody watches."""
    return _logged_to(io.StringIO())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what takes the place of stderr: a terminal without colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    return _logged_to(_Terminal())


def _break(why: str) -> None:
    """Log that something broke."""
    try:
        raise ValueError(why)  # noqa: TRY301 - to have a traceback
    except ValueError:
        get_logger("run_log.test").exception("it_broke")


def _lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


@pytest.mark.parametrize("level", ["info", "warning", "error", "critical"])
def test_json_where_nobody_watches(piped: io.StringIO, level: str) -> None:
    """A log line is a JSON object with Cloud Logging's severity, message, time in UTC and its own fields."""
    begun = datetime.now(UTC)

    getattr(get_logger("run_log.test"), level)("something_happened", failures=3)

    (line,) = _lines(piped)
    time = datetime.fromisoformat(line.pop("time"))
    assert {"severity": level.upper(), "message": "something_happened", "failures": 3} == line
    assert begun <= time <= datetime.now(UTC)


def test_an_exception_is_one_line(piped: io.StringIO) -> None:
    """A traceback is a field of the one line that logs it."""
    _break("two\nlines")

    (line,) = _lines(piped)
    assert ("ERROR", "it_broke") == (line["severity"], line["message"])
    assert "ValueError: two\nlines" in line["exception"]


def test_what_json_cannot_hold(piped: io.StringIO) -> None:
    """A field that JSON cannot hold does not lose the line."""
    get_logger("run_log.test").info("it", **ODD_FIELDS)

    (line,) = _lines(piped)
    assert ("it", [1], "NaN") == (line["message"], line["field"], line["nan"])


def test_standard_loggers_are_shown_alike(piped: io.StringIO) -> None:
    """A line of the standard library's own logging under the same name looks the same."""
    logging.getLogger("run_log.test").warning("%s failed", "it", extra={"failures": 3})

    (line,) = _lines(piped)
    assert ("WARNING", "it failed", 3) == (line["severity"], line["message"], line["failures"])


def test_a_line_that_cannot_be_made(
    piped: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line with arguments that do not fit is reported by logging, and the command goes on."""
    monkeypatch.setattr(logging.getLogger("run_log"), "propagate", False)  # pytest's own handler would raise

    logging.getLogger("run_log.test").warning("%d", "it")

    assert "" == piped.getvalue()
    assert "--- Logging error ---" in capsys.readouterr().err


def test_what_is_not_shown(piped: io.StringIO) -> None:
    """Nothing below the level is written, by default no debugging; no other logger is configured."""
    before = list(logging.getLogger().handlers)

    get_logger("run_log.test").debug("quiet")
    _logged_to(piped, logging.ERROR)
    get_logger("run_log.test").warning("quiet")

    assert ("", before) == (piped.getvalue(), logging.getLogger().handlers)


def test_text_on_a_terminal(terminal: io.StringIO) -> None:
    """On a terminal a line is text for people, whatever its fields are; NO_COLOR is heeded."""
    get_logger("run_log.test").info("it", **ODD_FIELDS)
    logging.getLogger("run_log.test").info("%s", "two\nlines \x1b[2J")

    first, second = terminal.getvalue().splitlines()
    assert "nan='NaN'" in first
    assert "two\\nlines \\x1b[2J" in second
    assert "\x1b" not in terminal.getvalue()


def test_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal that has colours, a line has some."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = _logged_to(_Terminal())

    get_logger("run_log.test").warning("it", failures=3)

    assert "\x1b[" in coloured.getvalue()


def test_an_exception_on_a_terminal(terminal: io.StringIO) -> None:
    """On a terminal a traceback is shown as Python's own, without the values of local variables."""
    secret = "s3cret"[::-1]

    _break(f"{len(secret)} letters")

    assert "ValueError: 6 letters" in terminal.getvalue()
    assert secret not in terminal.getvalue()


@pytest.mark.parametrize("made", [_Terminal, io.StringIO], ids=["a terminal", "nobody watches"])
def test_what_others_wrote_is_shown_literally(made: type[io.StringIO]) -> None:
    """Ids and errors in a log line neither command the terminal nor begin a line of their own."""
    written = _logged_to(made())
    odd = "r1\x1b]0;owned\x07\u009b31m"

    get_logger("run_log.test").warning("something_happened", run_id=odd, why=f"{odd}\nrun_log_all_is_well")
    _break(odd)

    shown = written.getvalue()
    assert "owned" in shown
    assert not any(line.startswith("run_log_all_is_well") for line in shown.splitlines())
    assert not set("\x07\u009b") & set(shown)
    assert "\x1b]" not in shown
