"""``run-log demo``, ``run-log provision`` and ``run-log projector``."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Final

import typer

from run_log.console.exit_codes import ExitCode, require
from run_log.console.options import examples, group
from run_log.console.views.output import say

projector: Final = group("Project events into Firestore.")


def demo() -> None:
    """Run sample workflows, and show what is kept of them.

    Needs no network and no Google service. Events go through an in-memory topic that delivers some of them
    twice and out of order. At the end the runs are written to a temporary file, where another process reads
    them. Exits 1 if it does not find them, or if the stats differ from a recount.
    """
    from run_log.console.work.demo import run_demo
    from run_log.console.work.opening import complete

    if not complete(run_demo()):
        raise typer.Exit(ExitCode.FAILED)


def provision() -> None:
    """Create the topics and subscriptions that the settings name. It is safe to repeat."""
    require("producer")
    from run_log.console.work.opening import complete, reached_broker
    from run_log.core import Settings, TransportRefusedError
    from run_log.pubsub import PubSubConnection
    from run_log.pubsub import provision as make

    settings = Settings.from_env()
    with suppress(TransportRefusedError):  # the topic does not exist yet
        complete(reached_broker(settings))
    for resource in make(PubSubConnection.from_settings(settings), settings):
        say(f"{'created' if resource.created else 'exists '} {resource.name}")


@projector.command(epilog=examples("projector pull --health-port 8080", "projector pull --until-idle 5"))
def pull(
    until_idle: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Exit 0 after so many seconds without a message, but not before all leases have ended. "
            "(default: never)",
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65_535,
            help="Serve /live, /ready and /lag at this port. (default: do not)",
        ),
    ] = None,
    health_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address of the health endpoints.")
    ] = "127.0.0.1",
) -> None:
    """Pull events and project them until SIGTERM. A second signal ends the process at once."""
    require("projector")
    from run_log.console.log_lines import log_to_stderr
    from run_log.console.work.opening import complete
    from run_log.console.work.projector import pull_until_signal
    from run_log.core import Settings

    log_to_stderr()
    health = None if health_port is None else (health_host, health_port)
    report = complete(pull_until_signal(Settings.from_env(), until_idle=until_idle, health=health))
    outcomes = ", ".join(f"{count} {outcome.value}" for outcome, count in report.outcomes.items())
    say(
        f"pulled {report.pulled}: {outcomes}; {report.dead_lettered} dead-lettered, "
        f"{report.released} given back"
    )


@projector.command(epilog=examples("projector push"))
def push(
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65_535, envvar="PORT", help="The port to listen at.")
    ] = 8080,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen at.")] = "0.0.0.0",  # noqa: S104 - a container's
) -> None:
    """Project what Pub/Sub pushes until SIGTERM. A second signal ends the process at once.

    Set RUN_LOG_PUSH_AUTH to oidc or iam: it says who checks that a push comes from Pub/Sub. /live, /ready
    and /lag are served too.
    """
    require("projector")
    from run_log.console.log_lines import log_to_stderr
    from run_log.console.work.opening import complete
    from run_log.console.work.projector import push_until_signal
    from run_log.core import Settings

    log_to_stderr()
    complete(push_until_signal(Settings.from_env(), host=host, port=port))
