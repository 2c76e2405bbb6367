"""The files of an archive: found on this machine or through fsspec, and read in chunks."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from run_log.core import ConfigurationError, TransportError, TransportRefusedError, TransportUnavailableError
from run_log.core.install import how_to_install

from .records import ArchiveRecord, read_records

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


MAX_FAILURES: Final = 8
"""Tries to read at one place of a file after which somebody has to act."""

_CHUNK_BYTES: Final = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePlace:
    """How far one file has been read."""

    file: str
    """Its name."""
    after: int
    """Lines or records that are done with."""
    size: int | None
    """Its size where all of it is done with; None while there is more."""


@dataclass(slots=True, kw_only=True)
class Chunk:
    """What was read next."""

    records: list[tuple[int, ArchiveRecord]] = field(default_factory=list[tuple[int, ArchiveRecord]])
    """With the number of their file."""
    ends: dict[int, int] = field(default_factory=dict[int, int])
    """Files that were read to their end, by number, and how many lines or records they have."""
    is_last: bool = False
    """Whether nothing is left."""


class ArchiveReader:
    """Reads *files* in their order, without those that are done.

    Args:
        files: The archive.
        done: By name, how far files have been read before.
    """

    def __init__(self, files: Sequence[ArchiveFile], done: Mapping[str, ArchivePlace]) -> None:
        self.files: Final = [file for file in files if not _is_done(file, done)]
        self._after = [done[file.name].after if file.name in done else 0 for file in self.files]
        self._number = 0
        self._file: BinaryIO | None = None
        self._records: Iterator[ArchiveRecord] | None = None
        self._failures = 0

    def read(self, most: int) -> Chunk:
        """Read at most so many records.

        Raises:
            TransportUnavailableError: They cannot be read now; the next call goes on where this one began.
            TransportRefusedError: They cannot be read until somebody acts.
        """
        chunk = Chunk()
        size = 0
        while len(chunk.records) < most and size < _CHUNK_BYTES and not chunk.is_last:
            try:
                record = self._next()
            except TransportError:
                if chunk.records or chunk.ends:
                    break
                raise
            if record is not None:
                chunk.records.append((self._number, record))
                size += len(record.data)
            elif self._number < len(self.files):
                chunk.ends[self._number] = self._after[self._number]
                self._number += 1
            chunk.is_last = self._number == len(self.files)
        return chunk

    def close(self) -> None:
        """Close the file that is open."""
        file, self._file, self._records = self._file, None, None
        if file is not None:
            file.close()

    def _next(self) -> ArchiveRecord | None:
        """Return the next record of the current file; None at its end."""
        if self._number == len(self.files):
            return None
        source = self.files[self._number]
        try:
            if self._records is None:
                self._file = source.open()
                self._records = read_records(self._file, after=self._after[self._number])
            record = next(self._records, None)
        except ConfigurationError:
            raise
        except Exception as error:
            self.close()
            self._failures += 1
            if self._failures == MAX_FAILURES:
                raise TransportRefusedError(f"{source.name} cannot be read: {error}") from error
            raise storage_error(error, source.name) from error
        self._failures = 0
        if record is None:
            self.close()
        elif not record.is_end:
            self._after[self._number] = record.number
        return record


def _is_done(file: ArchiveFile, done: Mapping[str, ArchivePlace]) -> bool:
    return file.name in done and done[file.name].size == file.size
