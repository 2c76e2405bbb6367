"""Reads the files of an archive one after another, a chunk at a time, from where one left off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from run_log.core import ConfigurationError, TransportError, TransportRefusedError

from .reading import ArchiveFile, storage_error
from .records import ArchiveRecord, read_records

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
