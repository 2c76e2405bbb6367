"""The files of an archive: found on this machine or through fsspec, and read in chunks."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from run_log.core import ConfigurationError, TransportError, TransportRefusedError, TransportUnavailableError
from run_log.core.install import how_to_install

from .records import ArchiveRecord, read_records

_MAGIC: Final = frozenset("*?[")

_REFUSALS: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """One file of an archive."""

    name: str
    """Its path or address, which identifies it."""
    size: int
    """Its bytes when it was found."""
    opened: Callable[[], BinaryIO]
    """Opens it; may raise whatever the storage raises."""

    def open(self) -> BinaryIO:
        """Open it for reading.

        Raises:
            TransportUnavailableError: It cannot be read now.
            TransportRefusedError: It does not exist any more, or may not be read.
        """
        try:
            return self.opened()
        except Exception as error:
            raise storage_error(error, self.name) from error


def find_files(where: str, *, without: Collection[Path] = ()) -> list[ArchiveFile]:
    """Return the files of an archive, sorted by name: files of `ArchiveWriter` are then in order of time.

    Hidden files and hidden folders are left out.

    Args:
        where: A file, a folder, or a pattern with ``*``. An address with ``://`` is read through fsspec.
        without: Files of this machine to leave out.

    Raises:
        ConfigurationError: There are no files, or the library to read them is not installed.
        TransportUnavailableError: They cannot be listed now.
        TransportRefusedError: They may not be listed.
    """
    files = _remote_files(where) if "://" in where else _local_files(where, without)
    if not files:
        raise ConfigurationError(f"there is no file at {where}: pass a file, a folder, or a pattern with '*'")
    return sorted(files, key=lambda file: file.name)


def storage_error(error: Exception, name: str) -> TransportError:
    """Return *error*, which a storage library raised at the file or folder *name*, as an error of run-log."""
    if isinstance(error, TransportError):
        return error
    code = getattr(error, "code", None)
    if isinstance(error, FileNotFoundError | PermissionError) or code in _REFUSALS:
        return TransportRefusedError(f"{name} does not exist, or may not be read ({error})")
    return TransportUnavailableError(f"{name} cannot be read now ({error!r})")


def _local_files(where: str, without: Collection[Path]) -> list[ArchiveFile]:
    path = Path(where)
    if path.is_dir():
        found: Iterable[Path] = [
            each
            for each in path.rglob("*")
            if not any(part[0] == "." for part in each.relative_to(path).parts)
        ]
    elif path.exists() or not _MAGIC & set(where):
        found = [path]
    else:
        found = map(Path, glob.glob(where, recursive=True))  # noqa: PTH207 - from any folder
    not_ours = {each.resolve() for each in without}
    return [
        ArchiveFile(name=str(each), size=each.stat().st_size, opened=partial(_opened, each))
        for each in found
        if each.is_file() and each.resolve() not in not_ours
    ]


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _remote_files(where: str) -> list[ArchiveFile]:
    try:
        fsspec: Any = import_module("fsspec")
    except ImportError as error:
        raise _not_installed(where, error) from error
    try:
        files, path = fsspec.core.url_to_fs(where)
        found = files.glob(path, detail=True) if _MAGIC & set(path) else files.find(path, detail=True)
    except ImportError as error:
        raise _not_installed(where, error) from error
    except ValueError as error:
        raise ConfigurationError(f"{where} is not an address of files ({error})") from error
    except Exception as error:
        raise storage_error(error, where) from error
    return [
        ArchiveFile(
            name=files.unstrip_protocol(name),
            size=int(entry["size"] or 0),
            opened=partial(files.open, name, "rb"),
        )
        for name, entry in found.items()
        if entry["type"] == "file" and not os.path.basename(name).startswith(".")  # noqa: PTH119 - no path of ours
    ]


def _not_installed(where: str, error: ImportError) -> ConfigurationError:
    return ConfigurationError(f"{where} cannot be read: {error}; {how_to_install('archive')}")


MAX_FAILURES: Final = 8
"""Failures in a row at one position of a file after which somebody has to act."""

_CHUNK_BYTES: Final = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePosition:
    """How far one file has been read."""

    file: str
    """Its name."""
    after: int
    """Number of lines or records that are done."""
    size: int | None
    """Its size if all of it is done; None while there is more."""


class Chunk(NamedTuple):
    """What was read next."""

    records: list[tuple[int, ArchiveRecord]]
    """Records, each with the number of its file."""
    ends: dict[int, int]
    """Lines or records of each file that was read to its end, by the number of the file."""
    is_last: bool
    """Whether nothing is left."""


class ArchiveReader:
    """Reads *files* in order, each from where it is done, and leaves out those that are done completely."""

    def __init__(self, files: Sequence[ArchiveFile], done: Mapping[str, ArchivePosition]) -> None:
        self.files: Final = [
            file for file in files if file.name not in done or done[file.name].size != file.size
        ]
        self._after = [done[file.name].after if file.name in done else 0 for file in self.files]
        self._number = 0
        self._file: BinaryIO | None = None
        self._records: Iterator[ArchiveRecord] | None = None
        self._failures = 0

    def read(self, most: int) -> Chunk:
        """Read at most so many records.

        Raises:
            TransportUnavailableError: They cannot be read now. The next call goes on where this one began.
            TransportRefusedError: They cannot be read until somebody acts.
        """
        records: list[tuple[int, ArchiveRecord]] = []
        ends: dict[int, int] = {}
        size = 0
        while len(records) < most and size < _CHUNK_BYTES and self._number < len(self.files):
            try:
                record = self._next()
            except TransportError:
                # What was read before is not lost: the next call fails at the same record again.
                if records or ends:
                    break
                raise
            if record is not None:
                records.append((self._number, record))
                size += len(record.data)
            else:
                ends[self._number] = self._after[self._number]
                self._number += 1
        return Chunk(records, ends, self._number == len(self.files))

    def close(self) -> None:
        """Close the file that is open."""
        file, self._file, self._records = self._file, None, None
        if file is not None:
            file.close()

    def _next(self) -> ArchiveRecord | None:
        """Return the next record of the current file; None at its end."""
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
