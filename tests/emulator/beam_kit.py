"""Beam's own environment, and its pipeline as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from run_log.testing.pytest_plugin import REQUIRE_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / ".venv-beam"
"""Kept from run to run: Beam and all it brings are 600 MB."""

SECONDS = 100
"""How long one run of the pipeline may take, on a machine that is busy."""


def clean_environment() -> dict[str, str]:
    """Return this process's variables without those that lead to another Python, or set run-log."""
    leading = ("PYTHON", "RUN_LOG_", "VIRTUAL_ENV", "UV_PROJECT_", "COVERAGE", "COV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(leading)}


def make_environment() -> None:
    """Make Beam's environment from the lock; where that cannot be done, skip, or fail where it must be."""
    result = subprocess.run(  # noqa: S603 - the uv of our own lock
        [Path(sys.executable).with_name("uv"), "sync", "--quiet", "--locked", "--no-dev", "--extra", "beam"],
        cwd=REPOSITORY,
        env={**clean_environment(), "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT), "UV_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if not result.returncode:
        return
    reason = f"the environment of the extra beam cannot be made: {result.stderr.strip()[-500:]}"
    if os.environ.get(REQUIRE_VARIABLE, "").lower() in {"1", "true"}:
        pytest.fail(f"{reason} ({REQUIRE_VARIABLE} is set)", pytrace=False)
    pytest.skip(reason)


class BeamProcess:
    """A program that runs in Beam's environment.

    Args:
        arguments: For its Python.
        environ: Variables besides those of this process that lead nowhere else.
    """

    def __init__(self, *arguments: str | Path, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - Beam's own Python
            [ENVIRONMENT / "bin" / "python", *arguments],
            env={**clean_environment(), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stdout = self.stderr = ""

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        try:
            self.stdout, self.stderr = self._process.communicate(timeout=SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        return self._process.returncode

    def counts(self) -> dict[str, Any]:
        """Return what it printed, as the program of the pipeline does at its end."""
        counts: dict[str, Any] = json.loads(self.stdout)
        return counts


def pipeline(files: Path | str, into: str, rejects: Path, environ: Mapping[str, str]) -> BeamProcess:
    """Start the program of the pipeline on Beam's runner for tests.

    Not the one that is named ``DirectRunner``: that looks for another one's program on the network first.
    """
    options = {
        "--input": str(files),
        "--into": into,
        "--rejects": str(rejects),
        "--runner": "FnApiRunner",
    }
    words = [word for option in options.items() for word in option]
    return BeamProcess("-m", "run_log.projector.beam", *words, environ=environ)
