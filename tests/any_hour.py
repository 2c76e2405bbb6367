"""Run the suite at awkward moments: ``python -m tests.any_hour [pytest's arguments]``.

Each test of a session finds the same moment when it begins, whatever passed before. Emulators take no clock
that goes back: sessions with them start at the moment, and go on from there.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

MOMENTS: Final = (
    ("2028-02-29T00:00:00.000Z", "Pacific/Chatham"),
    ("2026-12-31T23:59:59.990Z", "UTC"),
    ("2028-02-28T23:59:59.900Z", "America/New_York"),
    ("2027-04-30T20:35:00.000Z", "Asia/Kolkata"),
)
"""When sessions take place, and the zone that the machine says it is in."""

DEFAULT: Final = (
    *("-q", "-m", "not emulator and not browser"),  # a browser keeps its own time
    "--ignore=tests/e2e/test_packaging.py",  # certificates of package indexes have dates
    "--ignore=tests/simulation",  # its time is virtual
)
"""What is run where nothing is said."""

_PLUGIN: Final = "tests.any_hour"
_FILE: Final = "CLOCK_FILE"
_MOMENT: Final = "CLOCK_MOMENT"
_WITH_EMULATORS: Final = pytest.StashKey[bool]()
_LIBRARY: Final = Path(__file__).with_name("clock.c")


def pytest_sessionstart() -> None:
    """Set the clock."""
    _set_clock()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note whether an emulator goes by the clock."""
    session.config.stash[_WITH_EMULATORS] = any(map(_needs_emulator, session.items))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Set the clock again, unless an emulator goes by it."""
    if not item.config.stash[_WITH_EMULATORS]:
        _set_clock()


def _needs_emulator(item: pytest.Item) -> bool:
    return item.get_closest_marker("emulator") is not None


def _set_clock() -> None:
    wanted = datetime.fromisoformat(os.environ[_MOMENT]).timestamp()
    with Path(os.environ[_FILE]).open("r+b") as file, mmap.mmap(file.fileno(), 8) as shift:
        (ahead,) = struct.unpack("q", shift[:])
        shift[:] = struct.pack("q", ahead + round(wanted * 1e9) - time.time_ns())


def main(arguments: Sequence[str]) -> int:
    """Run the suite at each moment and return 0 if it passed at all of them."""
    compiler = shutil.which("cc")
    if compiler is None:
        sys.stderr.write(
            "cc is not on PATH: install a C compiler, which makes the clock (Debian: apt-get install gcc)\n"
        )
        return 2
    with TemporaryDirectory(prefix="run-log-clock-") as folder:
        library = Path(folder) / "clock.so"
        build: list[str | Path] = [compiler, "-O2", "-shared", "-fPIC", "-o", library, _LIBRARY, "-ldl"]
        subprocess.run(build, check=True)  # noqa: S603 - our own source
        failed = [moment for moment in MOMENTS if _session(*moment, library, arguments)]
    for moment, zone in failed:
        sys.stderr.write(f"the suite fails at {moment} in {zone}\n")
    return int(bool(failed))


def _session(moment: str, zone: str, library: Path, arguments: Sequence[str]) -> int:
    file = library.with_suffix(".shift")
    file.write_bytes(bytes(8))
    environment: Mapping[str, str] = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "TZ": zone,
        _FILE: str(file),
        _MOMENT: moment,
    }
    sys.stdout.write(f"at {moment} in {zone}\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "pytest", "-p", _PLUGIN, *arguments]
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - ourselves


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or DEFAULT))
