"""The command line: its commands, groups and options."""

from __future__ import annotations

import atexit
import copy
import gc
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from typer.models import CommandInfo, TyperInfo

from .commands import checking, dead_letters, events, imports, pipeline, runs
from .commands.dashboard import dashboard
from .commands.openlineage import openlineage
from .commands.rebuild import archive, rebuild
from .exit_codes import run
from .options import examples
from .views.output import prepare_streams, say

app: Final = typer.Typer(
    name="run-log",
    epilog="'rebuild' creates the data that queries read again, for example after an upgrade. It folds all "
    "known events into a new root collection beside the live one; then you switch to that one "
    "(docs/operations.md#rebuild). Exit codes: 0 done, 1 failed or a check did not hold, 2 wrong usage, "
    "3 not found, 4 refused, 5 unavailable, 130 interrupted. Each command has --help with examples; see also "
    "docs/operations.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(epilog=examples("demo"))(pipeline.demo)
app.add_typer(runs.app, name="runs")
app.command(epilog=examples("workflows", "workflows --all -o jsonl"))(runs.workflows)
app.command(epilog=examples("emit smoke-test", "emit smoke-test --status running --wait 10"))(events.emit)
app.command(epilog=examples("dashboard", "dashboard --port 8000 --read-only"))(dashboard)
app.command(epilog=examples("openlineage", "openlineage --port 5000"))(openlineage)
app.add_typer(pipeline.projector, name="projector")
app.command(epilog=examples("provision"))(pipeline.provision)
app.command(epilog=examples("doctor", "doctor --probe 30 -o json"))(checking.doctor)
app.add_typer(dead_letters.app, name="dead-letters")
app.command(epilog=examples("sweep --older-than 24h", "sweep --older-than 24h --mark"))(checking.sweep)
app.command(epilog=examples("verify", "verify invoices --repair", "verify --against runs_2 -o jsonl"))(
    checking.verify
)
app.command(
    epilog=examples(
        "rebuild --from archive:gs://bucket/run-log --into runs_2",
        "rebuild --from subscription --into runs_2",
        "rebuild --from root:runs --into runs_2",
    )
)(rebuild)
app.command(epilog=examples("archive --into /var/lib/run-log/archive"))(archive)
app.add_typer(imports.app, name="import")
app.add_typer(events.schema, name="schema")


def _say_version(is_asked: bool) -> None:  # noqa: FBT001 - typer passes it so
    if is_asked:
        say(f"run-log {installed_version()}")
        raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A durable, queryable history of workflow runs."""


def installed_version() -> str:
    """Return the version. In a checkout that is the version of the checkout, which may be newer."""
    import tomllib
    from importlib.metadata import version

    pyproject = Path(__file__).parents[3] / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == "run-log":
            return str(project["version"])
    return version("run-log")


def asked_of(group: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """Return *group* with only the command that *words* begin with, or whole if that is none."""
    # Typer converts every command that a group has before it runs one.
    if not words:
        return group
    one = copy.copy(group)
    one.registered_commands = [each for each in group.registered_commands if _name(each) == words[0]]
    one.registered_groups = [
        _asked_of(each, words[1:]) for each in group.registered_groups if each.name == words[0]
    ]
    return one if one.registered_commands or one.registered_groups else group


def _asked_of(group: TyperInfo, words: Sequence[str]) -> TyperInfo:
    one = copy.copy(group)
    one.typer_instance = group.typer_instance and asked_of(group.typer_instance, words)
    return one


def _name(command: CommandInfo) -> str | None:
    return command.name or (command.callback and command.callback.__name__.replace("_", "-"))


def main() -> None:
    """Run the command in ``sys.argv``, and exit with an `ExitCode`."""
    prepare_streams()
    # As it ends, Python looks for garbage in all that was imported, which takes a quarter of `runs list`.
    atexit.register(gc.freeze)
    sys.exit(run(partial(asked_of(app, sys.argv[1:]), standalone_mode=False)))
