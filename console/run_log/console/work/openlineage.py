"""``run-log openlineage`` as a process that signals stop."""

from __future__ import annotations

import asyncio

from run_log.adapters.openlineage import create_app
from run_log.adapters.openlineage.access import authentication
from run_log.console.signals import stopped_by_signal
from run_log.console.views.output import note
from run_log.console.work.opening import FLUSH_SECONDS, opened_run_log, reached_broker
from run_log.core import ConfigurationError, Settings
from run_log.http.serving import is_loopback, serving
from run_log.producer import default_emitter


async def serve_until_signal(settings: Settings, *, host: str, port: int) -> None:
    """Take events of OpenLineage at *host* and *port* until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: Somebody elsewhere could send events, and nothing says who may; or a setting is
            missing or wrong.
    """
    if settings.openlineage_auth == "none" and not is_loopback(host):
        raise ConfigurationError(
            f"whoever reaches {host} could record runs; set RUN_LOG_OPENLINEAGE_AUTH to oidc or iam, or pass "
            "--host 127.0.0.1"
        )
    authenticate = authentication(settings)
    if settings.backend == "pubsub":
        await reached_broker(settings)
    async with opened_run_log(makes=True) as log:
        emitter = default_emitter()
        stop = stopped_by_signal()
        try:
            app = create_app(log, emitter=emitter, auth=authenticate)
            async with serving(app, host=host, port=port) as listening:
                shown = f"[{host}]" if ":" in host else host
                note(f"OPENLINEAGE_URL  http://{shown}:{listening}")
                note(f"run log          {log.place}")
                await stop.wait()
        finally:
            await asyncio.to_thread(emitter.close, FLUSH_SECONDS)
