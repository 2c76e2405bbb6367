"""Files that only their owner can read, written so that a crash loses nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, cast

from run_log.stores.files import open_private


def open_unbuffered(path: Path, mode: str) -> BinaryIO:
    """Open a private file. Without a buffer, nothing is written again after a failed write."""
    return cast("BinaryIO", open(path, mode, buffering=0, opener=open_private))


def write_durably(file: BinaryIO, data: bytes) -> None:
    """Write *data* to an unbuffered file. It is on the disk when this returns."""
    left = memoryview(data)
    # One unbuffered write may take only a part.
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


def whole_lines(content: bytes) -> bytes:
    """Return *content* without a last line that a crash cut off."""
    return content[: content.rfind(b"\n") + 1]
