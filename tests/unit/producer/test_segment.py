from __future__ import annotations

import json
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from run_log.core import Message, Version, encode_event
from run_log.producer._segment import (
    SUFFIX,
    Record,
    Segment,
    SpooledEvent,
    encode_record,
)
from run_log.testing import an_event

from .transports import run_script

_PREAMBLE: Final = """
import os, sys
from pathlib import Path
from run_log.core import encode_event
from run_log.producer._segment import Segment, SUFFIX, encode_record
from run_log.testing import an_event

def record(run_id):
    return encode_record(encode_event(an_event(id=run_id)))

directory = Path(sys.argv[1])
"""

_DONE_MARK: Final = ord("-")
_ASIDE_MARK: Final = ord("~")


def _small(run_id: str, hlc: int) -> SpooledEvent:
    """Return what states an event and takes few bytes: tests damage each of them."""
    version = Version(1, hlc, f"e-{run_id}")
    body = {
        "event_id": version.event_id,
        "hlc": hlc,
        "run": {"id": run_id, "workflow_id": "w", "attempt": version.attempt},
    }
    message = Message(data=json.dumps(body).encode(), attributes={"ce-id": version.event_id})
    return SpooledEvent(("w", run_id), version, message)


_EVENTS: Final = [_small(run_id, hlc) for hlc, run_id in enumerate("abc", 1)]
_LINES: Final = [encode_record(event.message) for event in _EVENTS]
_CONTENT: Final = b"".join(_LINES)
_ENDS: Final = [sum(map(len, _LINES[:count])) for count in range(len(_LINES) + 1)]
_RECORDS: Final = [
    Record(offset, len(line), event) for offset, line, event in zip(_ENDS, _LINES, _EVENTS, strict=False)
]


def _whole(content: bytes) -> bytes:
    """Return a record of *content* whose header is right."""
    return b"+%08x %08x %b" % (zlib.crc32(content), len(content), content)


def _scanned(path: Path) -> list[Record | None]:
    """Return what a later process finds in the file at *path*; None for what cannot be read."""
    segment = Segment.adopt(path)
    assert segment is not None
    found = segment.scan()
    assert len(found) == segment.waiting
    segment.close()
    return [record if record.event else None for record in found]


def _intact(found: Sequence[Record | None]) -> list[Record]:
    return [record for record in found if record is not None]


def _run_ids(found: Sequence[Record | None]) -> list[str]:
    return [record.event.key[1] for record in _intact(found) if record.event]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a segment of an ended process may be."""
    return tmp_path / f"left{SUFFIX}"


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "line\nend\ttab\r\x00",
        "\U0001f600\u2028",
        '"{}\\',
        "\n+0b7101bd 000002d9 {",
        "+00000000 -0000001 {",
    ],
)
def test_a_record_comes_back_as_it_was(text: str, tmp_path: Path) -> None:
    """What is appended is what the next process finds, whatever stands in its texts."""
    event = an_event(id=text, workflow_id=text, attempt=7, trigger_data={text: [text]}, error=text)
    message = encode_event(event)
    segment = Segment.create(tmp_path)

    offsets = segment.append([encode_record(message), _LINES[0]])
    segment.close()

    first, second = _intact(_scanned(segment.path))
    assert SpooledEvent(event.key, event.version, message) == first.event
    assert _EVENTS[0] == second.event
    assert offsets == [first.offset, second.offset]


def test_a_segment_is_its_users_own(tmp_path: Path) -> None:
    """Nobody but its user may read a segment: events hold payloads."""
    segment = Segment.create(tmp_path)

    assert stat.S_IMODE(segment.path.stat().st_mode) == 0o600
    segment.close()


def test_a_file_may_end_anywhere(path: Path) -> None:
    """Wherever a process was killed, the records it had written come back, and a torn one is damaged."""
    for size in range(len(_CONTENT) + 1):
        path.write_bytes(_CONTENT[:size])

        found = _scanned(path)

        whole = sum(end <= size for end in _ENDS[1:])
        assert _RECORDS[:whole] + [None] * (size not in _ENDS) == found


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_harms_no_other_record(bit: int, path: Path) -> None:
    """A flipped bit anywhere loses at most the record it is in, which is then found damaged."""
    for position in range(len(_CONTENT)):
        content = bytearray(_CONTENT)
        content[position] ^= 1 << bit
        path.write_bytes(content)
        touched = sum(end <= position for end in _ENDS[1:])

        found = _scanned(path)

        assert found in (_RECORDS, [*_RECORDS[:touched], None, *_RECORDS[touched + 1 :]])


@pytest.mark.search
def test_any_byte_may_be_put_into_a_header(path: Path) -> None:
    """A header may hold any byte anywhere: it costs its record at most, and always ends."""
    begin = _RECORDS[1].offset
    for position in range(begin + 1, begin + 19):
        for byte in range(256):
            path.write_bytes(_CONTENT[:position] + bytes([byte]) + _CONTENT[position + 1 :])

            found = _scanned(path)

            assert found in (_RECORDS, [_RECORDS[0], None, _RECORDS[2]])


def test_a_lost_mark_costs_a_repeat(path: Path) -> None:
    """A record whose mark is any byte but that of a settled one waits; by one of them, aside."""
    for byte in set(range(256)) - {_DONE_MARK}:
        path.write_bytes(_LINES[0] + bytes([byte]) + _LINES[1][1:] + _LINES[2])
        second = _RECORDS[1]._replace(is_aside=byte == _ASIDE_MARK)

        assert [_RECORDS[0], second, _RECORDS[2]] == _scanned(path)


@pytest.mark.parametrize("records", [1, 2])
def test_neighbours_that_are_damaged_count_each(records: int, path: Path) -> None:
    """Damaged records side by side are each lost alone, and each is found."""
    content = bytearray(_CONTENT)
    for end in _ENDS[1 : records + 1]:
        content[end - 3] ^= 1
    path.write_bytes(content)

    assert [*[None] * records, *_RECORDS[records:]] == _scanned(path)


_JUNK: Final = {
    "zeros": b"\0" * 4096,
    "text": b"nothing of ours\n" * 20,
    "line ends": b"\n" * 40,
    "binary": bytes(range(256)) * 4,
    "marks": b"+-\n" * 40,
    "a header alone": b"+00000000 00000000 ",
    "a length of nothing": b"+00000000 00000000 {",
    "a length beyond the end": b"+00000000 7fffffff {",
    "a length below zero": b"+00000000 -0000100 {}\t{}\n",
    "a length that stays": b"+00000000 -0000013 {}\t{}\n",
    "digits that are none": b"+0x000000 0_0_0_0_ {}\t{}\n",
    "half a record": _LINES[0][: len(_LINES[0]) // 2],
}


@pytest.mark.parametrize("junk", _JUNK.values(), ids=_JUNK)
def test_junk_harms_nothing_around_it(junk: bytes, path: Path) -> None:
    """Whatever stands before, between or after records, they come back, and it is found damaged."""
    for number in range(len(_LINES) + 1):
        path.write_bytes(b"".join([*_LINES[:number], junk, *_LINES[number:]]))

        found = _scanned(path)

        assert _run_ids(found) == ["a", "b", "c"]
        assert [None] == [record for record in found if record is None]


_BODY: Final = b'{"run":{"id":"r","workflow_id":"w","attempt":1},"hlc":1,"event_id":"e"}\n'
_NO_EVENTS: Final = {
    "nothing": b"\n",
    "no message": b"text\n",
    "no body": b"{}\t\n",
    "no object": b"{}\t[]\n",
    "null": b"{}\tnull\n",
    "no run": b'{}\t{"hlc":1,"event_id":"e"}\n',
    "a run of nothing": b'{}\t{"run":null,"hlc":1,"event_id":"e"}\n',
    "no version": b'{}\t{"run":{"id":"r","workflow_id":"w","attempt":1}}\n',
    "no attributes": b"\t" + _BODY,
    "attributes that are a list": b"[]\t" + _BODY,
    "an attribute that is a number": b'{"a":1}\t' + _BODY,
    "an id that is a list": b"{}\t" + _BODY.replace(b'"r"', b"[]"),
    "a text for a version": b"{}\t" + _BODY.replace(b'"hlc":1', b'"hlc":"1"'),
    "a truth for a version": b"{}\t" + _BODY.replace(b'"hlc":1', b'"hlc":true'),
    "no text": b"{}\t\xff\xfe\xfd\n",
    "a nest": b"{}\t" + b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("content", _NO_EVENTS.values(), ids=_NO_EVENTS)
def test_a_whole_record_may_be_no_event(content: bytes, path: Path) -> None:
    """A record that is whole, but states no event, is damaged as any other."""
    path.write_bytes(_LINES[0] + _whole(content) + _LINES[1])

    found = _scanned(path)

    assert len(found) == 3
    assert found[1] is None
    assert _run_ids(found) == ["a", "b"]


@pytest.mark.process
def test_a_segment_has_one_writer(tmp_path: Path) -> None:
    """Nobody takes over a segment that is open, in this process or another; once it is closed one can."""
    segment = Segment.create(tmp_path)
    script = f"{_PREAMBLE}\nsegment = Segment.adopt(Path(sys.argv[2]))\nprint(segment is None)"

    here = Segment.adopt(segment.path)
    elsewhere = run_script(script, str(tmp_path), str(segment.path))
    segment.close()

    assert here is None
    assert elsewhere == "True\n"
    assert run_script(script, str(tmp_path), str(segment.path)) == "False\n"


def test_what_is_not_there_is_not_adopted(tmp_path: Path) -> None:
    """A segment that is gone is nothing to take over."""
    assert Segment.adopt(tmp_path / f"gone{SUFFIX}") is None


def test_removing_a_segment_lets_go_of_it(tmp_path: Path) -> None:
    """A removed segment is gone; closing it again, or removing a file that somebody deleted, is fine."""
    removed, deleted = Segment.create(tmp_path), Segment.create(tmp_path)
    there = deleted.is_deleted
    deleted.path.unlink()

    gone = deleted.is_deleted
    removed.remove()
    deleted.remove()
    removed.close()

    assert [False, True] == [there, gone]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_an_append_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    """An append that a signal's handler interrupts leaves the file as it was."""
    printed = run_script(
        _PREAMBLE
        + """
def interrupt(_frame, event, function):
    if event == "c_call" and function is os.fsync:
        sys.setprofile(None)
        raise KeyboardInterrupt

segment = Segment.create(directory)
segment.append([record("before")])
size = segment.size
sys.setprofile(interrupt)
try:
    segment.append([record(str(number)) for number in range(10)])
except KeyboardInterrupt as error:
    print(type(error).__name__)
print(segment.size == size == segment.path.stat().st_size, segment.waiting)
segment.append([record("after")])
print([record.event.key[1] for record in segment.scan()])
""",
        str(tmp_path),
    )

    assert ["KeyboardInterrupt", "True 1", "['before', 'after']"] == printed.splitlines()


@pytest.mark.process
def test_a_file_that_is_cut_while_it_is_read_harms_no_process(tmp_path: Path) -> None:
    """Whoever reads a segment that somebody has cut meanwhile goes on, with what is left of it."""
    printed = run_script(
        _PREAMBLE
        + """
segment = Segment.create(directory)
segment.append([record(str(number)) for number in range(100)])
os.truncate(segment.path, 100)
print(len(segment.scan()), segment.read(0, 100), segment.read(200, 100))
""",
        str(tmp_path),
    )

    assert printed == "1 None None\n"
