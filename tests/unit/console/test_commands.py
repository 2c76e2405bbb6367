from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from run_log import core
from run_log.console.app import app, installed_version
from run_log.console.exit_codes import ExitCode, run
from run_log.core import (
    ConfigurationError,
    EventDecodeError,
    InvalidArgumentError,
    InvalidCursorError,
    InvalidRunError,
    MessageRefusedError,
    NotFoundError,
    NotPausedError,
    RunExpiredError,
    RunLogError,
    RunNotFoundError,
    SpoolError,
    StoreError,
    StoreUnavailableError,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
    UnreadableRunError,
    WaitTimeoutError,
    WriteRefusedError,
)
from run_log.core.errors import (
    EmulatorError,
    EmulatorNotFoundError,
    GuessRefusedError,
    PortTakenError,
    PushRefusedError,
)
from run_log.core.schema import event_schema_text

from .processes import run_log, run_python

REPOSITORY = Path(__file__).resolve().parents[3]

ERRORS: list[tuple[Callable[[], RunLogError], ExitCode]] = [
    (lambda: RunLogError("why"), ExitCode.FAILED),
    (lambda: ConfigurationError("why"), ExitCode.USAGE),
    (lambda: InvalidArgumentError("why"), ExitCode.USAGE),
    (lambda: InvalidCursorError("why"), ExitCode.USAGE),
    (lambda: NotPausedError("why"), ExitCode.USAGE),
    (lambda: InvalidRunError("why"), ExitCode.USAGE),
    (lambda: core.NotFoundError("why"), ExitCode.NOT_FOUND),
    (lambda: EventDecodeError("why", reason="undecodable"), ExitCode.FAILED),
    (lambda: UnreadableRunError("w", "r", "why"), ExitCode.FAILED),
    (lambda: StoreError("why"), ExitCode.FAILED),
    (lambda: StoreUnavailableError("why"), ExitCode.UNAVAILABLE),
    (lambda: WaitTimeoutError("why"), ExitCode.UNAVAILABLE),
    (lambda: WriteRefusedError("why"), ExitCode.FAILED),
    (lambda: RunExpiredError("why"), ExitCode.FAILED),
    (lambda: TransportError("why"), ExitCode.FAILED),
    (lambda: TransportUnavailableError("why"), ExitCode.UNAVAILABLE),
    (lambda: TransportRefusedError("why"), ExitCode.REFUSED),
    (lambda: MessageRefusedError("why"), ExitCode.FAILED),
    (lambda: SpoolError("why"), ExitCode.FAILED),
    (lambda: NotFoundError("why"), ExitCode.NOT_FOUND),
    (lambda: RunNotFoundError("w", "r"), ExitCode.NOT_FOUND),
    (lambda: GuessRefusedError("why"), ExitCode.UNAVAILABLE),
    (lambda: PushRefusedError("why", status=401), ExitCode.FAILED),
    (lambda: EmulatorError("why"), ExitCode.FAILED),
    (lambda: EmulatorNotFoundError("why"), ExitCode.FAILED),
    (lambda: PortTakenError("why"), ExitCode.FAILED),
]


def _kinds(root: type[RunLogError]) -> set[type[RunLogError]]:
    """Return *root* and every kind of it that the library defines."""
    below = [kind for kind in root.__subclasses__() if kind.__module__ == "run_log.core.errors"]
    return {root}.union(*map(_kinds, below))


@pytest.mark.parametrize(("make", "code"), ERRORS, ids=lambda item: getattr(item, "name", ""))
def test_an_error_of_ours_has_its_exit_code(
    make: Callable[[], RunLogError], code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of ours is one line on stderr and the exit code of its kind."""
    error = make()

    def fail() -> None:
        raise error

    ended = run(fail)

    assert code is ended
    assert ("", f"run-log: {error}\n") == capsys.readouterr()


def test_every_kind_of_error_is_looked_at() -> None:
    """No kind of error is without a test of its exit code."""
    assert _kinds(RunLogError) == {type(make()) for make, _ in ERRORS}


def test_a_fault_of_our_own_is_not_hidden() -> None:
    """An exception that is not ours goes on, with its traceback."""

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail)


def test_a_command_that_returns_is_done() -> None:
    """A command that ends without an error exits 0."""
    assert run(lambda: None) is ExitCode.OK


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such-command"], "No such command"),
        (["projector", "pull", "--until-idle", "-1"], "--until-idle"),
        (["projector", "pull", "--until-idle", "soon"], "--until-idle"),
        (["projector", "pull", "--no-such-option"], "No such option"),
    ],
)
def test_what_is_mistyped_exits_2(arguments: list[str], told: str, tmp_path: Path) -> None:
    """A mistyped command or option exits 2 and is told on stderr."""
    ended = run_log(*arguments, folder=tmp_path)

    assert (2, "") == (ended.code, ended.out)
    assert told in ended.err


@pytest.mark.parametrize("command", [("provision",), ("projector", "pull")])
@pytest.mark.process
def test_a_misspelt_variable(command: tuple[str, ...], tmp_path: Path) -> None:
    """A misspelt RUN_LOG_ variable exits 2, and the message says which one was probably meant."""
    ended = run_log(*command, folder=tmp_path, RUN_LOG_TOPC="t")

    told = "run-log: RUN_LOG_TOPC is no setting of run-log: did you mean RUN_LOG_TOPIC?\n"
    assert (2, "", told) == (ended.code, ended.out, ended.err)


@pytest.mark.parametrize("command", [("provision",), ("projector", "pull")])
@pytest.mark.process
def test_a_setting_that_cannot_be_used(command: tuple[str, ...], tmp_path: Path) -> None:
    """A setting with an impossible value exits 2, and the message names its variable."""
    ended = run_log(*command, folder=tmp_path, RUN_LOG_TOPIC="no/topic")

    assert (2, "") == (ended.code, ended.out)
    assert "RUN_LOG_TOPIC='no/topic'" in ended.err


@pytest.mark.parametrize("command", [("provision",), ("projector", "pull")])
@pytest.mark.process
def test_missing_credentials(command: tuple[str, ...], tmp_path: Path) -> None:
    """Without credentials and without an emulator a command exits 2 and says what to do."""
    ended = run_log(*command, folder=tmp_path)

    assert (2, "") == (ended.code, ended.out)
    assert "run-log: no Google Cloud credentials" in ended.err
    assert "PUBSUB_EMULATOR_HOST" in ended.err


@pytest.mark.parametrize("command", [("provision",), ("projector", "pull")])
@pytest.mark.process
def test_a_missing_project(command: tuple[str, ...], tmp_path: Path) -> None:
    """On the emulators, a missing project exits 2 and the message names its variable."""
    ended = run_log(*command, folder=tmp_path, PUBSUB_EMULATOR_HOST="127.0.0.1:1")

    assert (2, "") == (ended.code, ended.out)
    assert "set GOOGLE_CLOUD_PROJECT" in ended.err


def _calls(path: tuple[str, ...], group: typer.Typer) -> Iterator[tuple[str, ...]]:
    """Yield every command and every group of *group*, each as it is called."""
    yield path
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*path, command.name or command.callback.__name__)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _calls((*path, str(inner.name)), inner.typer_instance)


ALL_HELP = """
import sys
from run_log.console import main

heavy = ("google", "grpc", "opentelemetry", "structlog", "run_log.core")
for call in sys.stdin:
    sys.argv = ["run-log", *call.split(), "--help"]
    try:
        main()
    except SystemExit as ended:
        loaded = sorted(name for name in sys.modules if name.startswith(heavy))
        print(call.strip(), ended.code, loaded, file=sys.stderr)
"""


@pytest.mark.process
def test_help_is_quick(tmp_path: Path) -> None:
    """The help of every command exits 0 and loads neither Google's libraries nor the run log's own core.

    What typer loads by itself is not ours: it may describe options with pydantic.
    """
    calls = [" ".join(call) for call in _calls((), app)]

    ended = run_python(ALL_HELP, folder=tmp_path, told="\n".join(calls) + "\n")

    assert [f"{call} 0 []".strip() for call in calls] == [line.strip() for line in ended.err.splitlines()]
    assert all(f"Usage: run-log {call}".strip() in ended.out for call in calls)


@pytest.mark.parametrize("command", [call for call in _calls((), app) if call], ids=" ".join)
def test_help_has_examples(command: tuple[str, ...], tmp_path: Path) -> None:
    """The help of every command fits 80 columns, and ends with examples that call it or with its commands."""
    ended = run_log(*command, "--help", folder=tmp_path, COLUMNS="80")

    lines = ended.out.splitlines()
    examples = [line.strip() for line in lines if line.startswith("    run-log ")]
    called = " ".join(["run-log", *command])
    assert 0 == ended.code
    assert max(map(len, lines)) < 80
    assert "Commands:" in lines or examples
    assert all(line == called or line.startswith(f"{called} ") for line in examples)


def test_the_version(tmp_path: Path) -> None:
    """``--version`` names the version that runs, which in a checkout is the checkout's."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    ended = run_log("--version", folder=tmp_path)

    assert (0, f"run-log {project['version']}\n", "") == (ended.code, ended.out, ended.err)


@pytest.mark.parametrize("beside", [(), ("other",)])
def test_the_version_of_an_installation(
    beside: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Beside no project's description, or another one's, the version is what was installed."""
    for name in beside:
        (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "7"\n')
    monkeypatch.setattr("run_log.console.app.__file__", str(tmp_path / "a" / "b" / "c" / "app.py"))

    assert importlib.metadata.version("run-log") == installed_version()


def test_ctrl_c() -> None:
    """A command that is interrupted exits 130, without a traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    assert ExitCode.INTERRUPTED is run(interrupted)


def test_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked for by its id and is not there exits 3, on one line of stderr."""

    def fail() -> None:
        raise NotFoundError("there is no run: \x1b[2J\n  of 2 lines")

    assert ExitCode.NOT_FOUND is run(fail)
    assert ("", "run-log: there is no run: \\x1b[2J of 2 lines\n") == capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "expected"),
    [("run-log ru", {"runs"}), ("run-log runs st", {"stats"}), ("run-log projector pu", {"pull", "push"})],
)
@pytest.mark.process
def test_the_shell_completes_commands(words: str, expected: set[str], tmp_path: Path) -> None:
    """The shell is told which commands begin with what was typed."""
    ended = run_log(
        folder=tmp_path,
        _RUN_LOG_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )

    assert expected == set(ended.out.split())


@pytest.mark.process
def test_the_help_says_how_to_rebuild(tmp_path: Path) -> None:
    """The help says how to have the projection made anew, and where that is described."""
    outer = " ".join(run_log("--help", folder=tmp_path).out.split())

    assert "a new root collection beside the live one; then you switch to that one" in outer
    assert "(docs/operations.md#rebuild)" in outer
    assert "## Rebuild" in (REPOSITORY / "docs" / "operations.md").read_text()


@pytest.mark.process
def test_what_the_help_lists(tmp_path: Path) -> None:
    """The help lists every command, and the projector's says what its option does."""
    outer = run_log("--help", folder=tmp_path).out
    inner = run_log("projector", "pull", "--help", folder=tmp_path).out

    assert [True] * 3 == [command in outer for command in ("demo", "provision", "projector")]
    assert "--until-idle" in inner
    assert "Exit 0 after so many seconds without a message" in " ".join(inner.split())


def test_the_schema(tmp_path: Path) -> None:
    """``schema export`` prints the schema of an event, or writes it to a file."""
    shown = run_log("schema", "export", folder=tmp_path)
    written = run_log("schema", "export", "--into", "schema.json", folder=tmp_path)
    refused = run_log("schema", "export", "--into", "no/schema.json", folder=tmp_path)

    assert event_schema_text() == shown.out
    assert (0, "") == (written.code, written.out)
    assert event_schema_text() == (tmp_path / "schema.json").read_text()
    assert 2 == refused.code
    assert "pass another file" in refused.err


def test_what_a_call_leaves(tmp_path: Path) -> None:
    """What a command sets for its process, such as its log handler, does not outlive a call in a test."""
    logger = logging.getLogger("run_log")
    before = [*logger.handlers], logger.level, gc.get_freeze_count(), sys.stdout, dict(os.environ)

    ended = run_log("projector", "pull", folder=tmp_path)

    assert 2 == ended.code
    assert before == ([*logger.handlers], logger.level, gc.get_freeze_count(), sys.stdout, dict(os.environ))
