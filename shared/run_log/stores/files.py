"""Files that hold what workflows were given: their owner's only, and whole after a crash.

Every function raises `OSError` where the file system does not allow it, or the disk fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final, cast

_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISREG, ""),
)


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file as `os.open` does; one that is made is its owner's only (mode 600). An opener for `open`.

    One that is there keeps its mode: whoever gave it that one may want others to read it.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return os.open(path, flags, 0o600)
    if hasattr(os, "fchmod"):  # not on Windows
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o600)  # a umask may have taken from the owner, too
    return descriptor


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


def open_own(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file that others may have put there: only a regular one, of this user's own. Never waits.

    Raises:
        PermissionError: It is something else; the error says what.
    """
    # Looked at before it is opened, since opening alone does something to a device or a FIFO; and after.
    check_own(os.lstat(path), path)
    unfollowed = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | unfollowed)
    try:
        check_own(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_own(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Return where what was *found* at *path* is a regular file that this user alone may have written.

    Raises:
        PermissionError: It is not; the error says why.
    """
    kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "a device")
    if kind:
        why = f"it is {kind}, not a file"
    elif hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        why = f"it is another user's (uid {found.st_uid})"
    elif found.st_nlink > 1:
        why = f"it has {found.st_nlink} names (hard links)"
    elif hasattr(os, "geteuid") and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"others may write it (mode {stat.S_IMODE(found.st_mode):03o})"
    else:
        return
    raise PermissionError(errno.EPERM, why, os.fspath(path))


def make_private_directory(path: Path) -> None:
    """Make a directory, and what is missing above it, for their owner only (mode 700).

    One that is there keeps its mode.
    """
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_private_directory(path.parent)
        make_private_directory(path)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(0o700)


def why_others_may_change(found: os.stat_result) -> str:
    """Return why others may delete and replace what is in the directory that was *found*; empty if not."""
    if not hasattr(os, "geteuid"):
        return ""
    if found.st_uid not in {0, os.geteuid()}:
        return f"it is another user's (uid {found.st_uid})"
    is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    return f"everybody may write it (mode {stat.S_IMODE(found.st_mode):03o})" if is_open else ""


def sync_directory(path: Path) -> None:
    """Make the names of new files durable, which their own fsync does not."""
    if os.name == "nt":  # it opens no directory
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
