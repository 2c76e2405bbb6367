"""Other frameworks, each in an environment of its own that the lock pins, and programs that run there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from tests.e2e.installing import UNREACHABLE, clean_environment, is_required

REPOSITORY = Path(__file__).resolve().parents[1]

SECONDS = 100
"""How long a program may take, on a machine that is busy."""


@dataclass(frozen=True)
class Framework:
    """An environment beside that of the tests. It is kept from run to run: some are hundreds of megabytes."""

    name: str
    words: tuple[str, ...]
    """What uv is told to put into it, besides run-log itself."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        return REPOSITORY / f".venv-{self.name}"

    def make(self) -> None:
        """Make it from the lock; where there is no package index, skip, or fail where that must not be."""
        uv = Path(sys.executable).with_name("uv")
        result = subprocess.run(  # noqa: S603 - the uv of our own lock
            [uv, "sync", "--quiet", "--locked", "--no-dev", *self.words],
            cwd=REPOSITORY,
            env={
                **clean_environment(),
                "UV_PROJECT_ENVIRONMENT": str(self.folder),
                "UV_PYTHON": sys.executable,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if not result.returncode:
            return
        reason = f"the environment of {self.name} cannot be made: {result.stderr.strip()[-500:]}"
        if is_required() or not any(words in result.stderr for words in UNREACHABLE):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    def start(
        self,
        *arguments: str | Path,
        environ: Mapping[str, str],
        output: IO[str] | int = subprocess.PIPE,
        given: int | None = None,
    ) -> subprocess.Popen[str]:
        """Start its Python with *arguments*. The caller ends the process.

        Args:
            arguments: For Python.
            environ: Variables besides those of this process that lead nowhere else.
            output: Where stdout goes; stderr always goes into a pipe.
            given: Where stdin comes from, if not from that of this process.
        """
        return subprocess.Popen(  # noqa: S603 - its own Python
            [self.folder / "bin" / "python", *arguments],
            env={**clean_environment(), "PYTHONPATH": str(REPOSITORY), **environ},
            stdin=given,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run its Python with *arguments* until it ends, and return what it printed and its exit code."""
        with self.start(*arguments, environ=environ) as process:
            try:
                stdout, stderr = process.communicate(timeout=SECONDS)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def framework(name: str) -> Framework:
    """Return the environment of the dependency group *name*, with what emits to Pub/Sub."""
    return Framework(name, ("--extra", "producer", "--group", name))
