from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from run_log.console.app import app, asked_of, installed_version
from run_log.console.exit_codes import ExitCode, run
from run_log.core import errors
from run_log.core.errors import RunLogError
from run_log.core.schema import event_schema_text
from run_log.stores import SQLiteRunLogService
from run_log.testing import a_run

from .processes import run_log, run_python

REPOSITORY = Path(__file__).resolve().parents[3]

CODES = {
    "USAGE": (
        "ConfigurationError InvalidArgumentError InvalidCursorError NotPausedError AlreadyAnsweredError "
        "InvalidRunError"
    ),
    "NOT_FOUND": "NotFoundError RunNotFoundError",
    "REFUSED": "TransportRefusedError",
    "UNAVAILABLE": ("StoreUnavailableError WaitTimeoutError TransportUnavailableError GuessRefusedError"),
    "FAILED": (
        "RunLogError EventDecodeError UnreadableRunError StoreError WriteRefusedError RunExpiredError "
        "TransportError MessageRefusedError SpoolError PushRefusedError EmulatorError EmulatorNotFoundError "
        "PortTakenError"
    ),
}
"""The exit code of each kind of error."""

OTHER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "AlreadyAnsweredError": {"answered_by": "mei"},
    "EventDecodeError": {"reason": "undecodable"},
    "PushRefusedError": {"status": 401},
}
TWO_IDS = {"RunNotFoundError": ("w", "r"), "UnreadableRunError": ("w", "r", "why")}

PROVISION_AND_PULL = pytest.mark.parametrize("command", [("provision",), ("projector", "pull")], ids=" ".join)


def _kinds(root: type[RunLogError]) -> set[type[RunLogError]]:
    """Return *root* and every kind of it that the library defines."""
    below = [kind for kind in root.__subclasses__() if kind.__module__ == "run_log.core.errors"]
    return {root}.union(*map(_kinds, below))


@pytest.mark.parametrize("kind", sorted(kind.__name__ for kind in _kinds(RunLogError)))
def test_an_error_of_ours_has_its_exit_code(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An error of ours is one line on stderr, which commands no terminal, and the exit code of its kind."""
    (code,) = [code for code, kinds in CODES.items() if kind in kinds.split()]
    arguments = TWO_IDS.get(kind, ("why: \x1b[2J\n  of 2 lines",))
    error = getattr(errors, kind)(*arguments, **OTHER_ARGUMENTS.get(kind, {}))

    def fail() -> None:
        raise error

    assert ExitCode[code] is run(fail)
    told = " ".join(str(error).split()).replace("\x1b", "\\x1b")
    assert ("", f"run-log: {told}\n") == capsys.readouterr()


def test_what_else_ends_a_command() -> None:
    """A command that ends without an error exits 0, one that Ctrl-C ends 130; a fault of ours goes on."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    def fail() -> None:
        raise ZeroDivisionError

    assert ExitCode.OK is run(lambda: None)
    assert ExitCode.INTERRUPTED is run(interrupted)
    with pytest.raises(ZeroDivisionError):
        run(fail)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Usage: run-log [OPTIONS] COMMAND"),
        (["no-such-command"], "No such command"),
        (["projector", "pull", "--until-idle", "-1"], "--until-idle"),
        (["projector", "pull", "--until-idle", "soon"], "--until-idle"),
        (["projector", "pull", "--no-such-option"], "No such option"),
    ],
)
def test_what_is_mistyped_exits_2(arguments: list[str], told: str, tmp_path: Path) -> None:
    """A mistyped command or option exits 2 and is told on stderr; without a command, that is the help."""
    ended = run_log(*arguments, folder=tmp_path)

    assert (2, "") == (ended.code, ended.out)
    assert told in ended.err


@PROVISION_AND_PULL
@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (
            {"RUN_LOG_TOPC": "t"},
            "RUN_LOG_TOPC is no setting of run-log: did you mean RUN_LOG_TOPIC?",
        ),
        ({"RUN_LOG_TOPIC": "no/topic"}, "RUN_LOG_TOPIC='no/topic'"),
        ({}, "run-log: no Google Cloud credentials"),
        ({}, "PUBSUB_EMULATOR_HOST"),
        ({"PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}, "set GOOGLE_CLOUD_PROJECT"),
    ],
    ids=["misspelt", "impossible", "no credentials", "no emulator", "no project"],
)
@pytest.mark.process
def test_what_is_set_wrongly(
    command: tuple[str, ...], environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    """A setting that is misspelt, impossible or missing exits 2, and the message says what to set."""
    ended = run_log(*command, folder=tmp_path, **environment)

    assert (2, "") == (ended.code, ended.out)
    assert told in ended.err


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


A_LISTING = """
import sys
from run_log.console import main

unwanted = (
    "google", "grpc", "jsonschema", "rich", "structlog", "fastapi", "opentelemetry.sdk",
    "run_log.pubsub", "run_log.producer", "run_log.projector",
    "run_log.stores.audit", "run_log.stores.firestore",
)
sys.argv = ["run-log", "runs", "list"]
try:
    main()
finally:
    print(sorted(name for name in sys.modules if name.startswith(unwanted)))
"""


@pytest.mark.process
async def test_a_listing_loads_only_what_it_needs(tmp_path: Path) -> None:
    """A listing of a file loads no other store, no audit, no projector and no library that only they need."""
    file = tmp_path / "runs.db"
    log = SQLiteRunLogService(path=file)
    await log.save_run(a_run(id="run-1"))
    await log.close()

    ended = run_python(A_LISTING, folder=tmp_path, RUN_LOG_BACKEND="sqlite", RUN_LOG_SQLITE_PATH=str(file))

    heading, row, loaded = ended.out.splitlines()
    assert (0, "RUN", "run-1", "[]") == (ended.code, heading.split()[0], row.split()[0], loaded)


@pytest.mark.parametrize("command", [*_calls((), app)], ids=" ".join)
def test_only_the_command_that_is_asked_for_is_made(command: tuple[str, ...]) -> None:
    """Words that name a command leave that one, those that name a group leave all of it."""
    asked = asked_of(app, [*command, "something-else"])

    expected = [
        call for call in _calls((), app) if call == command[: len(call)] or command == call[: len(command)]
    ]
    assert expected == [*_calls((), asked)]


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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run-log ru", {"runs"}),
        ("run-log runs st", {"stats", "steps"}),
        ("run-log projector pu", {"pull", "push"}),
    ],
)
@pytest.mark.process
def test_the_shell_completes_commands(words: str, expected: set[str], tmp_path: Path) -> None:
    """The shell is told which commands begin with what was typed."""
    position = str(len(words.split()) - 1)
    ended = run_log(folder=tmp_path, _RUN_LOG_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=position)

    assert expected == set(ended.out.split())


def test_the_help_says_how_to_rebuild(tmp_path: Path) -> None:
    """The help says how to have the projection made anew, and where that is described."""
    outer = " ".join(run_log("--help", folder=tmp_path).out.split())

    assert "a new root collection beside the live one; then you switch to that one" in outer
    assert "(docs/operations.md#rebuild)" in outer
    assert "## Rebuild" in (REPOSITORY / "docs" / "operations.md").read_text()


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
