"""Finds Google's emulators, and the Java to run them, on this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from run_log.core.errors import EmulatorNotFoundError

# Names the root of a Google Cloud SDK, for a machine without ``gcloud`` on the PATH.
_ROOT_VARIABLE: Final = "RUN_LOG_EMULATOR_ROOT"

# It usually answers within a second.
_GCLOUD_SECONDS: Final = 60

_HOW_TO_GET: Final = (
    "get them with `gcloud components install cloud-firestore-emulator pubsub-emulator` "
    "and put Java 11 or later on the PATH"
)


def find_java(environ: Mapping[str, str]) -> str:
    """Return the Java on the PATH. EmulatorNotFoundError if there is none."""
    java = shutil.which("java", path=environ.get("PATH", ""))
    if java is None:
        raise EmulatorNotFoundError(f"no java on the PATH to run emulators with; {_HOW_TO_GET}")
    return str(Path(java).absolute())


def find_jar(pattern: str, environ: Mapping[str, str]) -> Path:
    """Return the newest file that *pattern* matches under the root of a Google Cloud SDK.

    Raises:
        EmulatorNotFoundError: No file matches.
    """
    looked_at: list[str] = []
    for root in _roots(environ, looked_at):
        jars = sorted(root.glob(pattern))
        if jars:
            return jars[-1]
        looked_at.append(f"{root / pattern} is not there")
    raise EmulatorNotFoundError(f"{'; '.join(looked_at)}: {_HOW_TO_GET}")


def _roots(environ: Mapping[str, str], looked_at: list[str]) -> Iterator[Path]:
    """Yield possible roots of an SDK, and note in *looked_at* what leads to none."""
    named = environ.get(_ROOT_VARIABLE)
    if named:
        yield Path(named).absolute()
    else:
        looked_at.append(f"{_ROOT_VARIABLE} is not set")
    gcloud = shutil.which("gcloud", path=environ.get("PATH", ""))
    if gcloud is None:
        looked_at.append("gcloud is not on the PATH")
        return
    root = _ask_gcloud(gcloud, environ)
    if root:
        yield Path(root)
    else:
        looked_at.append(f"{gcloud} does not say where its SDK is")


def _ask_gcloud(gcloud: str, environ: Mapping[str, str]) -> str:
    """Return the root of the SDK according to *gcloud*; empty if it does not tell."""
    # gcloud always writes settings and logs. They are deleted with this folder.
    with TemporaryDirectory(prefix="run-log-gcloud-") as settings:
        try:
            answer = subprocess.run(  # noqa: S603  # the gcloud on the PATH, with fixed arguments
                [gcloud, "info", "--format=value(installation.sdk_root)"],
                env={**environ, "CLOUDSDK_CONFIG": settings},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_GCLOUD_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
    return answer.stdout.strip()
