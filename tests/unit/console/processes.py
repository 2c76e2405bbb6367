"""Processes of our own Python, without a cloud, an emulator, a proxy or a setting in their environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_LEADING: Final = ("RUN_LOG_", "GOOGLE_", "GCLOUD_", "FIRESTORE_", "PUBSUB_", "CLOUDSDK_", "COVERAGE")


def run_python(
    code: str, *arguments: str, folder: Path, told: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run *code* with *arguments* in a fresh interpreter, at home in *folder*, and return how it ended.

    Args:
        code: What to run.
        arguments: Its arguments.
        folder: Its home, and where it works.
        told: What it reads from stdin.
        environment: Variables beside those that are kept.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_LEADING) and not name.lower().endswith("_proxy")
    }
    own = {"HOME": str(folder), "NO_GCE_CHECK": "true", "COLUMNS": "110", "TERM": "dumb"}
    return subprocess.run(  # noqa: S603 - our own interpreter on our own text
        [sys.executable, "-c", code, *arguments],
        input=told,
        cwd=folder,
        env={**kept, **own, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def run_log(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``run-log`` with *arguments* and return how it ended."""
    return run_python("from run_log.console import main; main()", *arguments, folder=folder, **environment)
