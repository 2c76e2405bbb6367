from __future__ import annotations

import io
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from run_log.core import ConfigurationError, Message, RunStatus, decode_event, encode_event
from run_log.projector.archive import ArchiveRecord, find_files, read_records
from run_log.projector.archive.records import MAX_LINE_BYTES
from run_log.testing import an_event

from .archives import lines, write_avro, write_gzip

EVENTS = [
    an_event(id=f"r{number}", status=status, result={"text": "á\n\u2028 😀", "n": number})
    for number in range(20)
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS)
]
MESSAGES = [encode_event(event) for event in EVENTS]


def read(path: Path, *, after: int = 0) -> list[ArchiveRecord]:
    """Return all records of a file."""
    with path.open("rb") as file:
        return list(read_records(file, after=after))


def write(path: Path, kind: str) -> None:
    """Write the events as a file of that kind."""
    if kind == "lines":
        path.write_bytes(lines(EVENTS))
    elif kind == "gzip":
        write_gzip(path, lines(EVENTS))
    else:
        write_avro(path, MESSAGES, codec=kind)


KINDS = ["lines", "gzip", "null", "deflate"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.jsonl", "without-an-ending"])
def test_every_form_is_read(kind: str, name: str, tmp_path: Path) -> None:
    """Lines, compressed lines and Avro give back what was published, from any record, whatever the name."""
    write(tmp_path / name, kind)

    records = read(tmp_path / name)

    assert [message.data for message in MESSAGES] == [record.data for record in records]
    assert list(range(1, 41)) == [record.number for record in records]
    bodies = [Message(data=record.data) for record in records]
    assert EVENTS == [decode_event(body) for body in bodies]
    assert records[25:] == read(tmp_path / name, after=25)
    if kind in {"null", "deflate"}:
        assert [message.attributes for message in MESSAGES] == [one.attributes for one in records]


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_how_lines_end(ending: str, tmp_path: Path) -> None:
    """Lines may end as on any system, the last one not at all, and empty ones are passed over."""
    texts = ['{"a": 1}', "", "  ", '{"b": 2}']
    (tmp_path / "a").write_bytes((ending or "\n").join(texts).encode() + ending.encode())

    records = read(tmp_path / "a")

    assert [(1, b'{"a": 1}'), (4, b'{"b": 2}')] == [(one.number, one.data) for one in records]
    assert [None, None] == [one.fault for one in records]


def test_a_line_that_was_cut_off(tmp_path: Path) -> None:
    """A file that ends in the middle of a line, wherever that is, gives what comes before, then says so."""
    content = lines(EVENTS[:3])
    last = content.rindex(b"\n", 0, -1) + 1
    for cut in range(last + 1, len(content) - 1, 97):
        (tmp_path / "a").write_bytes(content[:cut])

        *whole, torn = read(tmp_path / "a")

        assert [message.data for message in MESSAGES[:2]] == [one.data for one in whole]
        assert (3, content[last:cut], True) == (torn.number, torn.data, torn.is_end)
        assert "middle of a line" in str(torn.fault)


@pytest.mark.parametrize("kind", ["gzip", "null", "deflate"])
def test_a_file_that_was_cut_off(kind: str, tmp_path: Path) -> None:
    """Compressed lines and Avro that were cut off give what can be read, in order, then say so."""
    write(tmp_path / "a", kind)
    content = (tmp_path / "a").read_bytes()
    for cut in range(5, len(content) - 1, max(1, len(content) // 50)):
        (tmp_path / "b").write_bytes(content[:cut])

        records = read(tmp_path / "b")

        whole = [one for one in records if one.fault is None]
        assert [message.data for message in MESSAGES[: len(whole)]] == [one.data for one in whole]
        assert [True] * (len(records) - len(whole)) == [one.is_end for one in records[len(whole) :]]
        assert len(records) - len(whole) <= 1
        assert records[-1].fault is not None or len(whole) < len(MESSAGES)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_never_raises(kind: str, tmp_path: Path) -> None:
    """Whatever byte of a file is wrong, reading it ends by itself, and records are in order."""
    write(tmp_path / "a", kind)
    content = (tmp_path / "a").read_bytes()
    chance = random.Random(4)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(4, len(damaged))] ^= chance.randrange(1, 256)

        records = list(read_records(io.BytesIO(bytes(damaged))))

        numbers = [record.number for record in records]
        assert sorted(set(numbers)) == numbers
        assert not any(record.is_end for record in records[:-1])


class FailsAfter(io.BytesIO):
    """A file that cannot be read any more after so many bytes, with an error of its file system's own."""

    def __init__(self, content: bytes, good: int) -> None:
        super().__init__(content)
        self._good = good

    def read(self, size: int | None = -1) -> bytes:
        """Read, or fail."""
        if self.tell() >= self._good:
            raise LookupError("the vendor's own")
        return super().read(min(size or 0, self._good - self.tell()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_fails_is_not_damaged(kind: str, tmp_path: Path) -> None:
    """Where a file system fails with an error of its own, reading fails, so that it is tried again."""
    write(tmp_path / "file", kind)
    content = (tmp_path / "file").read_bytes()

    with pytest.raises(OSError, match="the vendor's own"):
        list(read_records(FailsAfter(content, len(content) // 2)))


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    """A line longer than any message is one fault, of which the beginning is held, and the next is read."""
    (tmp_path / "a").write_bytes(b"x" * (2 * MAX_LINE_BYTES + 5) + b"\n" + lines(EVENTS[:1]))

    long, event = read(tmp_path / "a")

    assert "more than 10000000 bytes" in str(long.fault)
    assert not long.is_end
    assert len(long.data) < MAX_LINE_BYTES
    assert (2, MESSAGES[0].data, None) == (event.number, event.data, event.fault)


@pytest.mark.parametrize(
    "line",
    [
        b'{"run-log-message":',
        b'{"run-log-message":{}}',
        b'{"run-log-message":[1]}',
        b'{"run-log-message":{"attributes": {}, "data": "!"}}',
        b'{"run-log-message":{"attributes": [], "data": ""}}',
        b'{"run-log-message":' + b"[" * 100_000,
    ],
    ids=lambda line: str(line)[:60],
)
def test_a_line_that_only_begins_as_a_whole_message(line: bytes, tmp_path: Path) -> None:
    """A line that begins as one that keeps a message, and keeps none, is a fault of its own."""
    (tmp_path / "a").write_bytes(line + b"\n" + lines(EVENTS[:1]))

    fault, event = read(tmp_path / "a")

    assert "does not hold one" in str(fault.fault)
    assert (line, False) == (fault.data, fault.is_end)
    assert MESSAGES[0].data == event.data


def test_an_archive_of_the_version_before(tmp_path: Path) -> None:
    """A line to which an earlier version gave the type that stood in an attribute is read as it was."""
    body = MESSAGES[0].data.replace(b'{"type":"run-log.run-state.v1",', b"{")
    (tmp_path / "a").write_bytes(b'{"type":"run-log.run-state.v1",' + body[1:] + b"\n")

    (record,) = read(tmp_path / "a")

    assert EVENTS[0] == decode_event(Message(data=record.data, attributes=record.attributes))


def test_avro_of_something_else(tmp_path: Path) -> None:
    """An Avro record of another schema is a fault of its own."""
    fastavro: Any = import_module("fastavro")
    schema = {"type": "record", "name": "other", "fields": [{"name": "n", "type": "int"}]}
    with (tmp_path / "a").open("wb") as file:
        fastavro.writer(file, schema, [{"n": 1}, {"n": 2}])

    first, second = read(tmp_path / "a")

    assert (1, 2) == (first.number, second.number)
    assert "no 'data' of type bytes" in str(first.fault)


def test_files_are_found(tmp_path: Path) -> None:
    """A folder gives all its files by name, with those of inner folders, and without hidden ones."""
    names = ["b.jsonl", "a.jsonl", "2026/c.avro", ".hidden", ".inner/d.jsonl", "e.state"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")

    found = find_files(str(tmp_path), without=[tmp_path / "e.state"])

    expected = [str(tmp_path / name) for name in ("2026/c.avro", "a.jsonl", "b.jsonl")]
    assert expected == [file.name for file in found]
    assert {5} == {file.size for file in found}
    assert [str(tmp_path / "a.jsonl")] == [file.name for file in find_files(str(tmp_path / "a.jsonl"))]
    assert expected[1:] == [file.name for file in find_files(f"{tmp_path}/*.jsonl")]


@pytest.mark.parametrize("place", ["none", "none/*.jsonl", "no-such-kind://bucket/x", "memory://none"])
def test_no_files(place: str, tmp_path: Path) -> None:
    """Where nothing is, or nothing can be, that is a setting at fault, which the error names."""
    where = place if "://" in place else f"{tmp_path}/{place}"

    with pytest.raises(ConfigurationError, match=r"there is no file at|is not an address") as failed:
        find_files(where)

    assert where in str(failed.value)


@pytest.mark.parametrize("place", ["memory://bucket/run-log", "memory://bucket/run-log/*.jsonl"])
def test_files_elsewhere_are_read(place: str) -> None:
    """What fsspec reaches is found and read as files of this machine are."""
    fsspec: Any = import_module("fsspec")
    files = fsspec.filesystem("memory")
    try:
        files.pipe("/bucket/run-log/b.jsonl", lines(EVENTS[3:]))
        files.pipe("/bucket/run-log/a.jsonl", lines(EVENTS[:3]))
        files.pipe("/bucket/other/c.jsonl", b"other")

        found = find_files(place)
        data: list[bytes] = []
        for one in found:
            with one.open() as file:
                data += [record.data for record in read_records(file)]

        assert ["memory:///bucket/run-log/a.jsonl", "memory:///bucket/run-log/b.jsonl"] == [
            one.name for one in found
        ]
        assert [message.data for message in MESSAGES] == data
    finally:
        files.rm("/bucket", recursive=True)
