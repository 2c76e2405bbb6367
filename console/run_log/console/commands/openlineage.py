"""``run-log openlineage``."""

from __future__ import annotations

from typing import Annotated

import typer

from run_log.console.exit_codes import require


def openlineage(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(metavar="PORT", min=0, max=65_535, envvar="PORT", help="The port to listen at; 0: any."),
    ] = 8485,
) -> None:
    """Record the runs that events of OpenLineage tell of, until SIGTERM. Clients need its address only.

    Any program on this machine may send events, and nobody else. To let others, set RUN_LOG_OPENLINEAGE_AUTH
    to oidc or iam: it says who checks who they are.
    """
    require("openlineage")
    import logging

    from run_log.console.log_lines import log_to_stderr
    from run_log.console.work.opening import complete
    from run_log.console.work.openlineage import serve_until_signal
    from run_log.core import Settings

    log_to_stderr(logging.WARNING)
    complete(serve_until_signal(Settings.from_env(), host=host, port=port))
