"""What the command line makes of the arguments that a deployment gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from run_log.console.app import app
from run_log.core import Settings
from run_log.core.settings import variable
from run_log.projector import Progress
from run_log.projector.health import health_routes

SETTINGS = frozenset(variable(name) for name in Settings.model_fields)
"""Every variable that a deployment may set."""

EMULATORS = frozenset({"FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST"})


def options(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options of the command that *arguments* name; what the command line refuses raises."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    with command.make_context("run-log", rest) as context:
        return dict(context.params)


def health_paths() -> set[str]:
    """Return the paths of the health endpoints."""
    routes: list[Any] = health_routes(Progress(now=lambda: 0.0), lambda: None).routes
    return {route.path for route in routes}
