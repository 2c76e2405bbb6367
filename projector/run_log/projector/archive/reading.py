"""Where an archive's files are: on this machine, or wherever fsspec reaches."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from run_log.core import ConfigurationError, TransportError, TransportRefusedError, TransportUnavailableError
from run_log.core.install import how_to_install

_MAGIC: Final = frozenset("*?[")

_REFUSALS: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """One file of an archive."""

    name: str
    """Its path or address: tells it from all others."""
    size: int
    """Bytes, when it was found."""
    opened: Callable[[], BinaryIO]
    """Opens it."""

    def open(self) -> BinaryIO:
        """Open it for reading.

        Raises:
            TransportUnavailableError: It cannot be read now.
            TransportRefusedError: It is not there any more, or may not be read.
        """
        try:
            return self.opened()
        except Exception as error:
            raise storage_error(error, self.name) from error


def find_files(place: str, *, without: Collection[Path] = ()) -> list[ArchiveFile]:
    """Return the files of an archive by name: those of its own writer then come in the order of writing.

    Hidden files, and those of hidden folders, are none.

    Args:
        place: A file, a folder, or a pattern with ``*``; one with ``://`` is read through fsspec.
        without: Files of this machine that are none.

    Raises:
        ConfigurationError: There are none, or what reads them is not installed.
        TransportUnavailableError: They cannot be listed now.
        TransportRefusedError: They may not be listed.
    """
    files = _remote_files(place) if "://" in place else _local_files(place, without)
    if not files:
        raise ConfigurationError(f"there is no file at {place}: pass a file, a folder, or a pattern with '*'")
    return sorted(files, key=lambda file: file.name)


def storage_error(error: Exception, name: str) -> TransportError:
    """Return *error*, raised by whatever holds the file *name*, as one of ours.

    Args:
        error: What a call raised; which kinds there are depends on the kind of storage.
        name: The file's, or the place's.
    """
    if isinstance(error, TransportError):
        return error
    code = getattr(error, "code", None)
    if isinstance(error, FileNotFoundError | PermissionError) or code in _REFUSALS:
        return TransportRefusedError(f"{name} is not there, or may not be read ({error})")
    return TransportUnavailableError(f"{name} cannot be read now ({error!r})")


def _local_files(place: str, without: Collection[Path]) -> list[ArchiveFile]:
    path = Path(place)
    if path.is_dir():
        found: Iterable[Path] = path.rglob("*")
        hidden = [each for each in found if any(part[0] == "." for part in each.relative_to(path).parts)]
        found = {*path.rglob("*")} - {*hidden}
    elif path.exists() or not _MAGIC & set(place):
        found = [path]
    else:
        found = map(Path, glob.glob(place, recursive=True))  # noqa: PTH207 - from any folder
    not_ours = {each.resolve() for each in without}
    return [_local_file(each) for each in found if each.is_file() and each.resolve() not in not_ours]


def _local_file(path: Path) -> ArchiveFile:
    return ArchiveFile(name=str(path), size=path.stat().st_size, opened=lambda: path.open("rb"))


def _remote_files(place: str) -> list[ArchiveFile]:
    try:
        fsspec: Any = import_module("fsspec")
    except ImportError as error:
        raise _not_installed(place, error) from error
    try:
        files, path = fsspec.core.url_to_fs(place)
        found = files.glob(path, detail=True) if _MAGIC & set(path) else files.find(path, detail=True)
    except ImportError as error:
        raise _not_installed(place, error) from error
    except ValueError as error:
        raise ConfigurationError(f"{place} names no place of files ({error})") from error
    except Exception as error:
        raise storage_error(error, place) from error
    return [
        ArchiveFile(
            name=files.unstrip_protocol(name), size=int(entry["size"] or 0), opened=_opener(files, name)
        )
        for name, entry in found.items()
        if entry["type"] == "file" and not os.path.basename(name).startswith(".")  # noqa: PTH119 - no path of ours
    ]


def _opener(files: Any, name: str) -> Callable[[], BinaryIO]:
    return lambda: cast("BinaryIO", files.open(name, "rb"))


def _not_installed(place: str, error: ImportError) -> ConfigurationError:
    return ConfigurationError(f"{place} cannot be read: {error}; {how_to_install('archive')}")
