from __future__ import annotations

import logging

import pytest
import structlog

from run_log.core import get_logger

from .builders import run_python


def test_without_configuration_nothing_is_printed() -> None:
    """In a program that configures no logging, a warning of ours prints nothing at all."""
    printed = run_python(
        "from run_log.core import get_logger\n"
        "get_logger('run_log.test').warning('something_happened', run_id='r1')\n"
        "get_logger('run_log.test').error('something_failed', exc_info=True)\n"
    )

    assert (printed.stdout, printed.stderr) == ("", "")


def test_configured_logging_gets_name_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    """A program that configures logging gets the event's name as message and the fields as extras."""
    with caplog.at_level(logging.WARNING, logger="run_log"):
        get_logger("run_log.test").warning("something_happened", run_id="r1", attempts=3)
    (record,) = caplog.records

    assert (record.name, record.levelname) == ("run_log.test", "WARNING")
    assert record.getMessage() == "something_happened"
    assert (record.__dict__["run_id"], record.__dict__["attempts"]) == ("r1", 3)


def test_a_level_that_is_off_costs_no_record(caplog: pytest.LogCaptureFixture) -> None:
    """The standard library's levels decide."""
    with caplog.at_level(logging.ERROR, logger="run_log"):
        get_logger("run_log.test").warning("something_happened")

    assert caplog.records == []


def test_an_exception_comes_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """`exc_info` reaches the record."""
    with caplog.at_level(logging.WARNING, logger="run_log"):
        get_logger("run_log.test").warning("something_failed", exc_info=ValueError("why"))
    (record,) = caplog.records

    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


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
