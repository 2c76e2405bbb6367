"""Exit codes of commands, and which error has which."""

from __future__ import annotations

import enum
import io
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .views.layout import literal
from .views.output import note, write


class ExitCode(enum.IntEnum):
    """The exit code of a command."""

    OK = 0
    FAILED = 1  # a check did not hold, or something else failed
    USAGE = 2  # an option, a setting, the project or credentials are missing or wrong
    NOT_FOUND = 3  # nothing has the id or path that was given
    REFUSED = 4  # a resource does not exist, or access is denied; somebody has to act
    UNAVAILABLE = 5  # a service does not answer in time; the same command may work later
    INTERRUPTED = 130  # Ctrl-C or a second signal ended it before it was finished


def run(command: Callable[[], object]) -> int:
    """Run *command*, and return its exit code, or 0. Errors of run-log and of its usage go to stderr."""
    try:
        code = command()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message"):
            return _tell_usage(error)
        from run_log import core

        if not isinstance(error, core.RunLogError):
            raise
        note(f"run-log: {' '.join(str(error).split())}", style="red")
        return _exit_code(error)
    return code if isinstance(code, int) else ExitCode.OK


def _tell_usage(error: Any) -> int:
    # An error of the command line's parser.
    told = io.StringIO()
    error.show(told)
    # What comes before is the parser's own. The message is not taken from the text, for some versions of the
    # parser strip from that what a terminal obeys, and then it is not found in it.
    before, start, _ = told.getvalue().rstrip("\n").partition("Error: ")
    lines = before.split("\n")
    if start:
        lines[-1] += start + literal(" ".join(error.format_message().split()))
    # Without a command, the parser's text is the help itself.
    write(lines, sys.stderr)
    return int(error.exit_code)


def require(extra: str) -> None:
    """Check that an extra is installed. If not, the error says what to install."""
    if (module := missing_module(extra)) is not None:
        from run_log.core import ConfigurationError
        from run_log.core.install import how_to_install

        raise ConfigurationError(f"this command needs {module}; {how_to_install(extra)}")


def missing_module(extra: str) -> str | None:
    """Return the first module of an extra that is missing; None if the extra is installed."""
    from importlib.util import find_spec

    needed = {
        "producer": ["google.pubsub_v1"],
        "stores": ["google.cloud.firestore"],
        "import": ["sqlalchemy"],
        "dashboard": ["fastapi", "jinja2", "python_multipart", "uvicorn"],
        "openlineage": ["fastapi", "google.auth", "uvicorn"],
        "projector": ["google.pubsub_v1", "google.cloud.firestore", "fastapi", "uvicorn"],
    }
    for module in needed[extra]:
        with suppress(ModuleNotFoundError):  # where the package around it is missing
            if find_spec(module) is not None:
                continue
        return module
    return None


def _exit_code(error: Exception) -> ExitCode:
    from run_log import core

    match error:
        case core.NotFoundError():
            return ExitCode.NOT_FOUND
        case core.ConfigurationError() | core.InvalidArgumentError():
            return ExitCode.USAGE
        case core.TransportRefusedError():
            return ExitCode.REFUSED
        case core.TransportUnavailableError() | core.StoreUnavailableError() | core.WaitTimeoutError():
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.FAILED
