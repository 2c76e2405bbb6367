"""Beam's own environment, and its pipeline as a process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.frameworks import SECONDS, Framework

BEAM: Final = Framework("beam", ("--extra", "beam"))


class BeamProcess:
    """A program that runs in Beam's environment.

    Args:
        arguments: For its Python.
        environ: Variables besides those of this process that lead nowhere else.
    """

    def __init__(self, *arguments: str | Path, environ: Mapping[str, str]) -> None:
        self._process = BEAM.start(*arguments, environ=environ)
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
