"""What makes environments: tools/bootstrap, and what the Makefile has it make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.docs.repository import REPOSITORY

pytestmark = pytest.mark.process

UV = Path(sys.executable).with_name("uv")
TOLD = '#!/bin/sh\necho "$0 $UV_PROJECT_ENVIRONMENT $UV_SYSTEM_CERTS $PIP_INDEX_URL: $*" >>{log}\n'

NEEDED = ("sh", "dirname", "make", "mkdir", "touch", "cat", "cp")


class Machine:
    """A checkout, and programs of which each only notes how it is called."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.checkout, self._log = folder / "bin", folder / "checkout", folder / "log"
        self.programs.mkdir()
        for name in NEEDED:
            found = shutil.which(name)
            if found is None:
                pytest.skip(f"{name} is not on PATH")
            (self.programs / name).symlink_to(found)
        tools = ("tools/bootstrap", "tools/base.txt", "tools/dashboard.txt")
        for name in ("Makefile", "pyproject.toml", "uv.lock", *tools):
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, self.checkout / name)

    def install(self, name: str) -> None:
        """Put a program on the PATH. A Python's venv has it as its own Python, and as everything in it."""
        program = self.programs / name
        program.write_text(
            TOLD.format(log=self._log)
            + '[ "$1 $2" = "-m venv" ] || [ "$1" = sync ] || exit 0\n'
            + 'mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"\n'
            + 'for name in python uv run-log; do cp "$0" "$UV_PROJECT_ENVIRONMENT/bin/$name"; done\n'
        )
        program.chmod(0o755)

    def run(self, *command: str) -> list[str]:
        """Return how programs were called by *command*, in order."""
        self._log.write_text("")
        done = subprocess.run(  # noqa: S603 - our own script
            [self.programs / command[0] if "/" not in command[0] else command[0], *command[1:]],
            cwd=self.checkout,
            env={"PATH": str(self.programs), "PIP_INDEX_URL": "https://mirror"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert 0 == done.returncode, done.stderr
        calls = self._log.read_text().replace(f"{self.programs}/", "").splitlines()
        return [call for call in calls if "sys.exit" not in call]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without any Python."""
    return Machine(tmp_path)


def test_uv_trusts_what_pip_trusts(machine: Machine) -> None:
    """Where uv is installed it makes either environment, with the machine's certificates."""
    machine.install("uv")

    made = machine.run("make", "demo", "emulators"), machine.run("./tools/bootstrap")

    sync = "true https://mirror: sync --quiet --locked"
    assert [f"uv .venv-base {sync} --no-dev"] == made[0][:1]
    assert [".venv-base/bin/run-log", ".venv-base/bin/python"] == [call.split()[0] for call in made[0][1:]]
    assert [f"uv .venv {sync} --all-extras --no-extra beam"] == made[1]


def test_python_alone(machine: Machine) -> None:
    """With nothing but Python, the newest makes the demo's environment by venv and pip, as pip is set."""
    for name in ("python3", "python3.13", "python3.14"):
        machine.install(name)

    made = machine.run("make", "demo")

    settings = ".venv-base true https://mirror"
    pip = "-m pip --disable-pip-version-check install --quiet --no-compile"
    assert [
        f"python3.14 {settings}: -m venv .venv-base",
        f".venv-base/bin/python {settings}: {pip} --require-hashes --requirement tools/base.txt",
        f".venv-base/bin/python {settings}: {pip} --no-deps --editable .",
    ] == made[:3]
    assert ".venv-base/bin/run-log" == made[3].split()[0]


def test_the_dashboard_adds_to_the_demo(machine: Machine) -> None:
    """The dashboard runs in the demo's environment, to which only it adds what it needs."""
    machine.install("python3.14")
    machine.run("make", "demo")

    made = machine.run("make", "dashboard")

    settings = ".venv-base true https://mirror"
    pip = "-m pip --disable-pip-version-check install --quiet --no-compile"
    assert [
        f".venv-base/bin/python {settings}: {pip} --require-hashes --requirement tools/dashboard.txt",
        f".venv-base/bin/python {settings}: {pip} --no-deps --editable .",
        ".venv-base/bin/run-log   https://mirror: dashboard --sample",
    ] == made


def test_the_demo_after_the_suite(machine: Machine) -> None:
    """Where developers' own environment is there, the demo runs in it, and nothing else is made."""
    machine.install("uv")
    machine.run("./tools/bootstrap")
    (machine.checkout / ".venv/.ready").touch()

    made = machine.run("make", "demo")

    assert [".venv/bin/run-log"] == [call.split()[0] for call in made]


def _exported(certificates: str, *extras: str) -> subprocess.CompletedProcess[str]:
    only_needed = ("--no-dev", "--no-emit-project", "--no-header", "--no-annotate")
    return subprocess.run(  # noqa: S603 - the uv of our own lock
        [UV, "export", "--quiet", "--frozen", "--offline", *only_needed, *extras],
        cwd=REPOSITORY,
        env={**os.environ, "UV_SYSTEM_CERTS": certificates},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_pip_installs_is_locked() -> None:
    """What pip installs for the demo and the dashboard is what uv.lock pins: `make base` writes it."""
    base, dashboard = _exported("true"), _exported("true", "--extra", "dashboard")

    assert (REPOSITORY / "tools/base.txt").read_text() == base.stdout
    assert (REPOSITORY / "tools/dashboard.txt").read_text() == dashboard.stdout


def test_the_locked_uv_knows_the_setting() -> None:
    """The setting by which certificates are the machine's is one that the locked uv reads."""
    refused = _exported("perhaps")

    assert 2 == refused.returncode
    assert "UV_SYSTEM_CERTS" in refused.stderr
