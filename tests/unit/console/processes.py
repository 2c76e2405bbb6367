"""The command line, and processes of our own Python, without a cloud, an emulator, a proxy or a setting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.command_line import Ended, called

_LEADING: Final = ("RUN_LOG_", "GOOGLE_", "GCLOUD_", "FIRESTORE_", "PUBSUB_", "CLOUDSDK_", "COVERAGE")


def run_log(*arguments: str, folder: Path, encoding: str = "utf-8", **environment: str) -> Ended:
    """Call ``run-log`` with *arguments*, at home in *folder*, and return how it ended."""
    with pytest.MonkeyPatch.context() as patched:
        for name in os.environ.keys() - _kept().keys():
            patched.delenv(name)
        variables = {**_own(folder), **environment}
        return called(*arguments, folder=folder, encoding=encoding, environment=variables)


def run_python(code: str, *arguments: str, folder: Path, told: str = "", **environment: str) -> Ended:
    """Run *code* in a fresh interpreter, at home in *folder*, and return how it ended; stdin is *told*."""
    process = subprocess.run(  # noqa: S603 - our own interpreter on our own text
        [sys.executable, "-c", code, *arguments],
        input=told,
        cwd=folder,
        env={**_kept(), **_own(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return Ended(code=process.returncode, out=process.stdout, err=process.stderr)


def _kept() -> dict[str, str]:
    """Return the variables that lead to no cloud, emulator, proxy or setting."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_LEADING) and not name.lower().endswith("_proxy")
    }


def _own(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "NO_GCE_CHECK": "true", "COLUMNS": "110", "TERM": "dumb"}
