"""``run-log dashboard``."""

from __future__ import annotations

from typing import Annotated

import typer

from run_log.console.exit_codes import require


def dashboard(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(metavar="PORT", min=0, max=65_535, envvar="PORT", help="The port to listen at; 0: any."),
    ] = 8484,
    *,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Answer no paused run. (default: RUN_LOG_DASHBOARD_READ_ONLY)")
    ] = False,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="The path under which a proxy serves it, such as /runs.")
    ] = "",
    sample: Annotated[
        bool,
        typer.Option("--sample", help="Show sample workflows that keep running, in a file of their own."),
    ] = False,
) -> None:
    """Serve the dashboard until SIGTERM. A second signal ends the process at once.

    Anyone on this machine is let in, and nobody else. To let others in, set RUN_LOG_DASHBOARD_AUTH to iap,
    oidc or iam: it says who checks who they are.
    """
    require("dashboard")
    import logging

    from run_log.console.log_lines import log_to_stderr
    from run_log.console.work.dashboard import serve_sample_until_signal, serve_until_signal
    from run_log.console.work.opening import complete
    from run_log.core import Settings

    log_to_stderr(logging.WARNING)
    settings = Settings.from_env()
    if read_only:
        settings = settings.model_copy(update={"dashboard_read_only": True})
    serve = serve_sample_until_signal if sample else serve_until_signal
    complete(serve(settings, host=host, port=port, root_path=root_path))
