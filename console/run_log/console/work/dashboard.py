"""``run-log dashboard`` as a process that signals stop."""

from __future__ import annotations

from run_log.console.signals import stopped_by_signal
from run_log.console.views.output import note
from run_log.console.work.opening import opened_run_log
from run_log.core import ConfigurationError, Settings
from run_log.dashboard import create_app
from run_log.dashboard.access import authentication
from run_log.dashboard.paths import root_path_of
from run_log.http.serving import is_loopback, serving


async def serve_sample_until_signal(settings: Settings, *, host: str, port: int, root_path: str = "") -> None:
    """Serve a file of its own, in which sample workflows keep running; see `serve_until_signal`."""
    from .sample import sample_environment, sample_running

    with sample_environment():
        async with sample_running():
            await serve_until_signal(settings, host=host, port=port, root_path=root_path)


async def serve_until_signal(settings: Settings, *, host: str, port: int, root_path: str = "") -> None:
    """Serve the environment's run log at *host* and *port* until SIGTERM or SIGINT.

    *root_path* is the path under which a proxy serves it, which the proxy does not pass on.

    Raises:
        ConfigurationError: Somebody elsewhere could reach it, and nothing says who is let in; a setting is
            missing or wrong.
        InvalidArgumentError: *root_path* cannot be served.
    """
    if settings.dashboard_auth == "none" and not is_loopback(host):
        raise ConfigurationError(
            f"whoever reaches {host} could read the runs; set RUN_LOG_DASHBOARD_AUTH to iap, oidc or iam, or "
            "pass --host 127.0.0.1"
        )
    authenticate, root = authentication(settings), root_path_of(root_path)
    async with opened_run_log(saves=not settings.dashboard_read_only) as log:
        app = create_app(log, auth=authenticate, read_only=settings.dashboard_read_only)
        app.root_path = root
        stop = stopped_by_signal()
        async with serving(app, host=host, port=port) as listening:
            shown = f"[{host}]" if ":" in host else host
            note(f"dashboard  http://{shown}:{listening}{app.root_path}/")
            note(f"run log    {log.place}")
            await stop.wait()
            app.state.context.streams.close()
