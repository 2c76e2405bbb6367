"""One file of a spool directory: a row of records, each of which outlives damage to the others.

A record is a line: a mark (``+`` waiting, ``~`` waiting aside, ``-`` done), the CRC-32 of what follows the
header, its length, and then the message's attributes and body::

    +1c291ca3 000002a4 {"ce-id":"..."}<TAB>{"type":"run-log.run-state.v1",...}

The mark is outside of the checksum, so that one byte written in place settles a record: losing that byte
costs a repeat, never an event. Aside stands what was refused, and what cannot be read: a later process, or
version, may know better.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import uuid
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from run_log.core import Message, Version
from run_log.core.models import RunKey
from run_log.stores.files import check_own, open_own, open_private, sync_directory

try:
    _fcntl: Any = importlib.import_module("fcntl")
except ImportError:  # Windows
    _fcntl = None

CAN_LOCK: Final = _fcntl is not None
"""Whether segments can be locked on this platform, and so be used."""

SUFFIX: Final = ".run-log-v1"
"""How segments' names end; another format gets another number."""

_WAITING: Final = b"+"
_ASIDE: Final = b"~"
_DONE: Final = b"-"
_HEADER_BYTES: Final = 19
_BEGIN: Final = re.compile(rb"[+~-][0-9a-f]{8} [0-9a-f]{8} \{")


class SpooledEvent(NamedTuple):
    """An event as a record states it."""

    key: RunKey
    version: Version
    message: Message


class Record(NamedTuple):
    """An event, and where it stands in its segment, in bytes."""

    offset: int
    size: int
    event: SpooledEvent | None
    """None where it cannot be read: it is damaged, or nothing that this version knows."""
    is_aside: bool = False


class Segment:
    """A file that this process alone writes: it holds the file's lock for as long as it has it open.

    Every method raises `OSError` where the disk does not take it, or does not answer.

    Attributes:
        waiting: Records that are not settled, those aside and those that cannot be read among them.
    """

    __slots__ = ("_descriptor", "path", "size", "waiting")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.waiting = 0

    @classmethod
    def create(cls, directory: Path) -> Self:
        """Return a new, empty segment in *directory*."""
        while True:
            path = directory / f"{uuid.uuid4()}{SUFFIX}"
            segment = None
            try:
                segment = cls._locked(path, open_private(path, os.O_RDWR | os.O_EXCL))
                # None where another process found it before it was locked, and took it for one left behind.
                if segment is not None:
                    check_own(path.lstat(), path)  # else nobody would take it over
                    sync_directory(directory)
                    return segment
            except OSError:
                path.unlink(missing_ok=True)
                if segment is not None:
                    segment.close()
                raise

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """Return the segment at *path*; None where it is another process's, or it is gone."""
        try:
            return cls._locked(path, open_own(path, os.O_RDWR))
        except FileNotFoundError:
            return None

    @classmethod
    def _locked(cls, path: Path, descriptor: int) -> Self | None:
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:  # its last holder may have removed it meanwhile
                return cls(path, descriptor)
        except BlockingIOError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def append(self, records: Sequence[bytes]) -> list[int]:
        """Write *records* and return their offsets; all of them are durable, or absent where it raises."""
        begin = self.size
        *offsets, end = accumulate(map(len, records), initial=begin)
        try:
            _write(self._descriptor, b"".join(records), begin)
            os.fsync(self._descriptor)
        except BaseException:  # what a signal's handler raises, too
            os.ftruncate(self._descriptor, begin)
            raise
        self.size = end
        self.waiting += len(records)
        return offsets

    def scan(self) -> list[Record]:
        """Return each record that is not settled, those that cannot be read too, and count them."""
        # Not mapped: where the disk does not answer, or somebody cuts the file, that would end the process.
        with open(self._descriptor, "rb", buffering=0, closefd=False) as file:
            file.seek(0)
            records = list(records_in(file.read()))
        self.waiting = len(records)
        return records

    def read(self, offset: int, size: int) -> SpooledEvent | None:
        """Return the event of the record at *offset*; None where it is damaged."""
        record = self.read_bytes(offset, size)
        return _decoded(record) if _intact(record, 0) == size else None

    def read_bytes(self, offset: int, size: int) -> bytes:
        """Return the record at *offset* as it is, damaged or not."""
        return os.pread(self._descriptor, size, offset)

    def settle(self, offset: int) -> None:
        self.waiting -= 1
        os.pwrite(self._descriptor, _DONE, offset)

    def set_aside(self, offset: int) -> None:
        os.pwrite(self._descriptor, _ASIDE, offset)

    @property
    def is_deleted(self) -> bool:
        """Whether somebody has deleted the file: what is written there now is lost with the process."""
        return os.fstat(self._descriptor).st_nlink == 0

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file; what waits in it is the next start's. Twice is fine."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def encode_record(message: Message, *, is_aside: bool = False) -> bytes:
    """Return an event's *message* as a record that waits, aside or not."""
    mark = _ASIDE if is_aside else _WAITING
    attributes = json.dumps(dict(message.attributes), separators=(",", ":")).encode()
    content = b"%b\t%b\n" % (attributes, message.data)
    return b"%b%08x %08x %b" % (mark, zlib.crc32(content), len(content), content)


def records_in(content: bytes) -> Iterator[Record]:
    """Yield what stands in a segment's *content* and is not settled, whatever its bytes are."""
    position = 0
    while position < len(content):
        offset, size = position, _intact(content, position)
        position = offset + size if size else _after_damage(content, offset)
        mark = content[offset : offset + 1]
        if not size or mark != _DONE:
            event = _decoded(content[offset : offset + size])
            yield Record(offset, position - offset, event, is_aside=mark == _ASIDE)


def directory_bytes(directory: Path) -> int:
    """Return how many bytes the segments in *directory* take, whoever has them."""
    total = 0
    for path in segment_paths(directory):
        # Settled meanwhile, by another process; or nothing of ours, which is to take none of our room.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            found = path.lstat()
            check_own(found, path)
            total += found.st_size
    return total


def segment_paths(directory: Path) -> list[Path]:
    """Return the segments in *directory*, whoever has them."""
    return sorted(path for path in directory.iterdir() if path.name.endswith(SUFFIX))


def _intact(content: bytes, position: int) -> int:
    """Return the size of the record at *position*; 0 where there is none, or it is damaged."""
    header = content[position : position + _HEADER_BYTES]
    try:
        checksum, length = int(header[1:9], 16), int(header[10:18], 16)
    except ValueError:
        return 0
    begin = position + _HEADER_BYTES
    rest = content[begin : begin + length]
    # Damage may have made the length reach beyond the end, or have given it a sign.
    is_whole = len(rest) == length and zlib.crc32(rest) == checksum
    return _HEADER_BYTES + length if is_whole and length else 0


def _after_damage(content: bytes, damaged: int) -> int:
    """Return where the record after the *damaged* one begins."""
    # Not after the line's end: that may be what is damaged, and damage may have put others into the line.
    begin = _BEGIN.search(content, damaged + 1)
    return begin.start() if begin else len(content)


def _decoded(record: bytes) -> SpooledEvent | None:
    """Return the event that a record's bytes state, whatever they are; None where they state none."""
    attributes, _, data = record[_HEADER_BYTES:-1].partition(b"\t")
    try:
        body, named = json.loads(data), json.loads(attributes)
        run = body["run"]
        key = (run["workflow_id"], run["id"])
        version = Version(run["attempt"], body["hlc"], body["event_id"])
        texts = [*key, version.event_id, *named.values()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # whole, but no event: nothing this version wrote
    is_event = {*map(type, texts)} == {str} and {type(version.attempt), type(version.hlc)} == {int}
    return SpooledEvent(key, version, Message(data=data, attributes=named)) if is_event else None


def _write(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
