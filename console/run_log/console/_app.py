"""The commands, their options and their exit codes."""

from __future__ import annotations

import asyncio
import enum
import sys
from collections.abc import Callable
from typing import Annotated, Final

import typer


class ExitCode(enum.IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILED = 1
    """Something else went wrong, or a check did not hold."""
    USAGE = 2
    """An option, a setting, the project or credentials are missing or wrong."""
    REFUSED = 4
    """A resource is not there, or access is denied: somebody has to act."""
    UNAVAILABLE = 5
    """A service does not answer; the same command may work later."""
    INTERRUPTED = 130
    """Ended by a second signal, without finishing what was in hand."""


app: Final = typer.Typer(
    name="run-log",
    help="A durable, queryable history of workflow runs.",
    epilog="To rebuild what queries read, after an upgrade say: have 'projector pull' fold what Pub/Sub "
    "retains into a fresh RUN_LOG_ROOT_COLLECTION, then switch to that (docs/operations.md#upgrading).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
projector: Final = typer.Typer(
    help="Project events into Firestore.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.add_typer(projector, name="projector")


@app.command()
def demo() -> None:
    """Run three sample workflows on the embedded run log and show what was kept of them.

    No network, no Google service: events go through an in-memory topic that delivers some of them twice
    and in another order. Then the runs are kept in a temporary file, where another process finds them.
    Exits 1 if it does not, or the stats differ from a recount.
    """
    from ._demo import run_demo

    if not asyncio.run(run_demo()):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def provision() -> None:
    """Make the topics and subscriptions that the settings name. Repeats change nothing."""
    _require("producer")
    from run_log.core import Settings
    from run_log.pubsub import PubSubConnection
    from run_log.pubsub import provision as make

    settings = Settings.from_env()
    for resource in make(PubSubConnection.from_settings(settings), settings):
        typer.echo(f"{'created' if resource.created else 'exists '} {resource.name}")


@app.command()
def sweep(
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="How long ago the newest event has to be: 90m, 24h, 2d.")
    ],
    workflow: Annotated[
        str | None, typer.Option(metavar="ID", help="Only runs of this workflow. [default: all]")
    ] = None,
    mark: Annotated[bool, typer.Option("--mark", help="Mark them as failed. [default: only show]")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Show runs that began, did not end, and were not heard of for long; mark them as lost with --mark.

    A paused run is none of them. Each is read again before it is marked, and whatever it says afterwards
    beats the mark.
    """
    from rich.console import Console

    from run_log.core import ConfigurationError, Settings, utc_now

    from ._sweep import duration
    from ._sweep import sweep as run_sweep

    silence = duration(older_than)
    if Settings.from_env().backend == "memory":
        raise ConfigurationError("RUN_LOG_BACKEND is 'memory', which holds no run of another process")

    async def swept() -> str:
        from run_log.stores import create_run_log_service

        log = create_run_log_service()
        try:
            done = await run_sweep(
                log, Console(), older_than=silence, workflow_id=workflow, mark=mark, now=utc_now()
            )
        finally:
            await log.close()
        told = f"{done.marked} marked as lost" if mark else "none marked: run it with --mark for that"
        return f"{done.found} not heard of for {older_than}; {told}"

    typer.echo(asyncio.run(swept()))


@projector.command()
def pull(
    until_idle: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="Exit 0 once nothing has arrived for that long. [default: never]"
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=1, max=65_535, help="Serve /live, /ready and /lag there. [default: not]"
        ),
    ] = None,
    health_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the health endpoints listen.")
    ] = "127.0.0.1",
) -> None:
    """Pull events and project them until SIGTERM. A second signal ends at once."""
    _require("projector")
    from run_log.core import Settings

    from ._logging import log_to_stderr
    from ._projector import pull_until_signal

    log_to_stderr()
    health = None if health_port is None else (health_host, health_port)
    report = asyncio.run(pull_until_signal(Settings.from_env(), until_idle=until_idle, health=health))
    outcomes = ", ".join(f"{count} {outcome.value}" for outcome, count in report.outcomes.items())
    typer.echo(
        f"pulled {report.pulled}: {outcomes}; {report.dead_lettered} dead-lettered, "
        f"{report.released} given back"
    )


@projector.command()
def push(
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65_535, envvar="PORT", help="Where to listen.")
    ] = 8080,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "0.0.0.0",  # noqa: S104 - a container's
) -> None:
    """Take what Pub/Sub pushes and project it until SIGTERM. A second signal ends at once.

    RUN_LOG_PUSH_AUTH says who verifies that a push is Pub/Sub's. /live, /ready and /lag are served too.
    """
    _require("projector")
    from run_log.core import Settings

    from ._logging import log_to_stderr
    from ._projector import push_until_signal

    log_to_stderr()
    asyncio.run(push_until_signal(Settings.from_env(), host=host, port=port))


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with an `ExitCode`."""
    sys.exit(run(app))


def run(command: Callable[[], object]) -> ExitCode:
    """Return the exit code of *command*; an error of ours is one line on stderr.

    Args:
        command: Runs, raises a `RunLogError`, or exits by itself.
    """
    try:
        command()
    except Exception as error:
        from run_log import core

        if not isinstance(error, core.RunLogError):
            raise
        typer.secho(f"run-log: {error}", err=True, fg=typer.colors.RED)
        return _exit_code(error)
    return ExitCode.OK


def _exit_code(error: Exception) -> ExitCode:
    from run_log import core

    match error:
        case core.ConfigurationError() | core.InvalidArgumentError():
            return ExitCode.USAGE
        case core.TransportRefusedError():
            return ExitCode.REFUSED
        case core.TransportUnavailableError() | core.StoreUnavailableError():
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.FAILED


def _require(extra: str) -> None:
    from importlib.util import find_spec

    from run_log.core import ConfigurationError

    needed = {
        "producer": ["google.pubsub_v1"],
        "projector": ["google.pubsub_v1", "google.cloud.firestore", "fastapi", "uvicorn"],
    }
    for module in needed[extra]:
        try:
            found = find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise ConfigurationError(f"this command needs {module}; pip install 'run-log[{extra}]'")
