"""The compose file against the code and the Dockerfile: no Docker is needed to find a name that is none."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from .command_line import EMULATORS, SETTINGS, health_paths, options
from .dockerfile import REPOSITORY, stages

FOLDER = REPOSITORY / "infra"
OURS = ("provision", "projector", "dashboard", "emit")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return found


def test_environment(services: dict[str, Any]) -> None:
    """Every variable is a setting or an emulator, and both emulators are used by whatever is ours."""
    for name in OURS:
        environment = services[name]["environment"]
        assert set(environment) <= SETTINGS | EMULATORS
        assert EMULATORS < set(environment)
    for name in ("dashboard", "emit"):
        assert "pubsub" == services[name]["environment"]["RUN_LOG_BACKEND"]


def test_emulators(services: dict[str, Any]) -> None:
    """Each emulator listens where the variable says, and in the project that is named."""
    environment = services["projector"]["environment"]

    for variable in EMULATORS:
        host, port = environment[variable].split(":")
        assert variable == f"{host.upper()}_EMULATOR_HOST"
        assert f"--host-port=0.0.0.0:{port}" in services[host]["command"]
        assert [f"127.0.0.1:{port}:{port}"] == services[host]["ports"]
        assert f"/127.0.0.1/{port}" in services[host]["healthcheck"]["test"][-1]
        assert f"127.0.0.1:{port}" == services["dashboard"]["environment"][variable]
    assert f"--project={environment['GOOGLE_CLOUD_PROJECT']}" in services["pubsub"]["command"]


def test_commands(services: dict[str, Any]) -> None:
    """The command line takes each command, and the projector's health is asked where it answers."""
    assert {} == options(services["provision"]["command"])
    pull = options(services["projector"]["command"])

    port = pull["health_port"]
    assert "0.0.0.0" == pull["health_host"]  # noqa: S104 - a container's
    assert [f"127.0.0.1:{port}:{port}"] == services["projector"]["ports"]
    asked = re.search(rf"http://127\.0\.0\.1:{port}(/\w+)", services["projector"]["healthcheck"]["test"][-1])
    assert asked
    assert asked[1] in health_paths()


def test_the_dashboard(services: dict[str, Any]) -> None:
    """The dashboard is on the network of this machine, and listens where only this machine reaches it."""
    dashboard = services["dashboard"]

    assert ("host", None) == (dashboard["network_mode"], dashboard.get("ports"))
    assert "127.0.0.1" == options(dashboard["command"])["host"]


def test_the_image(services: dict[str, Any]) -> None:
    """What is ours is the image that the Dockerfile builds, and uses the Python in it; others are pinned."""
    _, final = stages()
    (entry,) = final.named("ENTRYPOINT")
    python = entry.words[0].replace("run-log", "python")

    for name in OURS:
        assert {"context": "..", "dockerfile": "infra/Dockerfile"} == services[name]["build"]
        assert "build" == services[name]["pull_policy"]
    assert python == services["emit"]["entrypoint"][0]
    assert python == services["projector"]["healthcheck"]["test"][1]
    source, target, mode = services["emit"]["volumes"][0].split(":")
    assert (FOLDER / source).is_file()
    assert (target, "ro") == (services["emit"]["entrypoint"][1], mode)
    for name in set(services) - set(OURS):
        assert re.search(r":\d+\.\d+\.\d+-\w+$", services[name]["image"])


def test_the_order(services: dict[str, Any]) -> None:
    """What waits for a service waits for one that there is, and for health only where there is a check."""
    waits = [
        (other, how["condition"])
        for one in services.values()
        for other, how in one.get("depends_on", {}).items()
    ]

    assert waits
    for other, condition in waits:
        assert condition != "service_healthy" or "healthcheck" in services[other]
