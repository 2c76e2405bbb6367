"""What an archive's files hold: lines of JSON, compressed or not, or Avro of a Cloud Storage subscription.

The first bytes of a file tell its format, whatever its name is. Rebuilds and pipelines both read with this.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, BinaryIO, Final, cast

from run_log.core import ConfigurationError
from run_log.core.install import how_to_install

MAX_LINE_BYTES: Final = 10_000_000
"""Largest message that Pub/Sub takes (https://cloud.google.com/pubsub/quotas#resource_limits)."""

WRAPPED: Final = b'{"run-log-message":'
"""Beginning of a line that holds a whole message: its attributes, and its body in base64."""

# More than the largest message takes, in base64 and with its attributes as JSON.
_MAX_WRAPPED_BYTES: Final = 2 * MAX_LINE_BYTES

_GZIP: Final = b"\x1f\x8b"
_AVRO: Final = b"Obj\x01"
_KEPT_OF_OVERLONG: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRecord:
    """One message of an archive, or a fault in its place."""

    number: int
    """Number of the line or Avro record in its file, from 1."""
    data: bytes
    """The message's body."""
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    """The message's attributes, if the archive keeps them."""
    fault: str | None = None
    """Why it is not a message; None if it is one."""
    is_end: bool = False
    """Whether the rest of the file cannot be read."""


def read_records(file: BinaryIO, *, after: int = 0) -> Iterator[ArchiveRecord]:
    """Yield the records of *file* in order. Damage ends them with a record that has a fault.

    Empty lines are skipped.

    Args:
        file: At its beginning.
        after: How many lines or records to skip.

    Raises:
        OSError: It cannot be read.
        ConfigurationError: It is Avro, and fastavro is not installed.
    """
    # A file of this machine raises OSError already. Not isinstance: subclasses of remote storage may not.
    steady: Any = file if type(file) is io.BufferedReader else io.BufferedReader(cast("Any", _Steady(file)))
    begins = steady.peek(len(_AVRO))
    if begins.startswith(_AVRO):
        yield from _avro(steady, after)
    elif begins.startswith(_GZIP):
        yield from _lines(cast("BinaryIO", gzip.GzipFile(fileobj=steady)), after)
    else:
        yield from _lines(steady, after)


def wrapped(data: bytes, attributes: Mapping[str, str]) -> bytes:
    """Return a message as a line, without the line's end, that keeps every byte of body and attributes."""
    content = json.dumps({"attributes": dict(attributes), "data": base64.b64encode(data).decode()})
    return b"%b%b}" % (WRAPPED, content.encode())


def _unwrapped(number: int, line: bytes) -> ArchiveRecord:
    try:
        message = json.loads(line)["run-log-message"]
        return ArchiveRecord(
            number=number,
            data=base64.b64decode(message["data"], validate=True),
            attributes={str(name): str(value) for name, value in message["attributes"].items()},
        )
    except Exception as error:  # noqa: BLE001 - somebody else's line may have anything there
        fault = f"the line begins like a whole message, but does not hold one ({error!r})"
        return ArchiveRecord(number=number, data=line, fault=fault)


class _Steady(io.RawIOBase):
    """A file that raises only `OSError`: any other error would be taken for damage in its content."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data: bytes = self._file.read(len(buffer))
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"it cannot be read ({error!r})") from error
        buffer[: len(data)] = data
        return len(data)


def _lines(file: BinaryIO, after: int) -> Iterator[ArchiveRecord]:
    number = 0
    while True:
        try:
            line, is_overlong = _line(file)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            fault = f"the compressed file is damaged after line {number} ({error})"
            yield ArchiveRecord(number=number + 1, data=b"", fault=fault, is_end=True)
            return
        if not line:
            return
        number += 1
        data = line.strip(b"\r\n")
        if is_overlong:
            fault = f"the line has more than {MAX_LINE_BYTES} bytes, the most that a message may have"
            record = ArchiveRecord(number=number, data=data, fault=fault)
        elif not line.endswith(b"\n") and not _is_json(data):
            fault = "the file ends in the middle of a line"
            record = ArchiveRecord(number=number, data=data, fault=fault, is_end=True)
        elif data.startswith(WRAPPED):
            record = _unwrapped(number, data)
        else:
            record = ArchiveRecord(number=number, data=data)
        if number > after and data.strip():
            yield record


def _line(file: BinaryIO) -> tuple[bytes, bool]:
    """Return the next line, and whether it is too long; of a line that is, only the beginning."""
    line = file.readline(_MAX_WRAPPED_BYTES)
    is_overlong = len(line.rstrip(b"\r\n")) > MAX_LINE_BYTES and not line.startswith(WRAPPED)
    more = line
    while len(more) == _MAX_WRAPPED_BYTES and not more.endswith(b"\n"):
        is_overlong = True
        more = file.readline(_MAX_WRAPPED_BYTES)
    return (line[:_KEPT_OF_OVERLONG], True) if is_overlong else (line, False)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _avro(file: BinaryIO, after: int) -> Iterator[ArchiveRecord]:
    try:
        fastavro: Any = import_module("fastavro")
    except ImportError as error:
        raise ConfigurationError(f"Avro cannot be read: {error}; {how_to_install('archive')}") from error
    number = 0
    try:
        for number, record in enumerate(fastavro.reader(file), start=1):
            if number > after:
                yield _avro_record(number, record)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - fastavro raises errors of any type for a damaged file
        fault = f"the Avro file is damaged after record {number} ({error!r})"
        yield ArchiveRecord(number=number + 1, data=b"", fault=fault, is_end=True)


def _avro_record(number: int, record: Any) -> ArchiveRecord:
    fields = cast("dict[str, Any]", record) if isinstance(record, dict) else {}
    data = fields.get("data")
    if not isinstance(data, bytes):
        fault = "the Avro record has no 'data' of type bytes: it was not written by Pub/Sub"
        return ArchiveRecord(number=number, data=b"", fault=fault)
    attributes: dict[str, Any] = fields.get("attributes") or {}
    return ArchiveRecord(number=number, data=data, attributes={str(k): str(v) for k, v in attributes.items()})
