from __future__ import annotations

import asyncio
import errno
import io
import json
import os
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import pytest

from run_log.core import (
    ConfigurationError,
    Message,
    ReceivedMessage,
    StoreUnavailableError,
    TransportRefusedError,
    TransportUnavailableError,
    decode_event,
    encode_event,
)
from run_log.projector import PullLimits
from run_log.projector.archive import ArchiveWorker, ArchiveWriter, read_records
from run_log.testing import an_event

from .archives import Opened
from .doubles import CountedSource, WatchedSource, down, eventually, nearly_zero, published

QUICK = PullLimits(pulls=2, pull_seconds=0.01)
EVENTS = [an_event(id=f"r{number}", result={"text": "á\n"}) for number in range(10)]


def received(data: bytes, **attributes: str) -> ReceivedMessage:
    """Return a message as it is pulled."""
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    return ReceivedMessage(data=data, attributes=named, message_id="m", ack_id="a")


def written(folder: Path) -> list[bytes]:
    """Return all lines of the files of a folder, in their order."""
    return [line for path in sorted(folder.iterdir()) for line in path.read_bytes().splitlines(keepends=True)]


@pytest.mark.parametrize(
    ("data", "attributes"),
    [
        (b'{\n "type": "x",\r\n "a": "1"\n}\n', {}),
        (b'{"a": 1}', {"ce_type": "t"}),
        (b'{"a": 1, "type": "own"}', {"ce_type": "t", "b": "é"}),
        (b' {"a": 1}', {}),
        (b"\x1f\x8b", {}),
        (b"no\njson", {}),
        (b"\xff\n\xfe", {"ce_type": "t"}),
        (b"x" * 10_000_000, {"ce_type": "t"}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_one_line_does_not_say_is_kept_whole(
    data: bytes, attributes: dict[str, str], tmp_path: Path
) -> None:
    """A message that is more than a line of JSON is a line that keeps each byte of it, and its attributes."""
    message = received(data, **attributes)
    writer = ArchiveWriter(tmp_path)

    count = writer.append([message])
    writer.close()
    (line,) = written(tmp_path)
    (record,) = read_records(io.BytesIO(line))

    assert (1, message.data, message.attributes) == (count, record.data, record.attributes)
    assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("data", [b'{"a": 1}', b'{"type":"x"}', b'{"a":"%b"}' % (b"x" * 9_999_992)])
def test_a_line_of_json_is_written_as_it_is(data: bytes, tmp_path: Path) -> None:
    """A body of one line is that line, byte for byte, up to the largest that can be published."""
    writer = ArchiveWriter(tmp_path)
    writer.append([received(data)])
    writer.close()

    (line,) = written(tmp_path)
    (record,) = read_records(io.BytesIO(line))

    assert (data + b"\n", data, None) == (line, record.data, record.fault)


@pytest.mark.parametrize("data", [b"", b" \n"])
def test_no_body_is_no_line(data: bytes, tmp_path: Path) -> None:
    """A message without a body states nothing, and is left out."""
    assert 0 == ArchiveWriter(tmp_path).append([received(data, ce_type="t")])


def test_a_version_0_body_typed_by_its_attribute(tmp_path: Path) -> None:
    """What only the attributes say of an event is in the archive, so the event reads back equal."""
    attributes = {"ce-type": "run-log.run-state.v0"}
    body = {
        "id": "r",
        "workflow_id": "w",
        "status": "success",
        "trigger_type": "manual",
        "started_at": "2026-03-04T12:00:00+00:00",
    }
    message = ReceivedMessage(
        data=json.dumps(body).encode(), attributes=attributes, message_id="m", ack_id="a"
    )
    writer = ArchiveWriter(tmp_path)
    writer.append([message])
    writer.close()

    (line,) = written(tmp_path)
    (record,) = read_records(io.BytesIO(line))

    assert decode_event(message) == decode_event(Message(data=record.data, attributes=record.attributes))


def test_files_are_bounded(tmp_path: Path) -> None:
    """A file that has as many bytes as it may is left, and the files' names are in the order of writing."""
    writer = ArchiveWriter(tmp_path, segment_bytes=1_000)

    for event in EVENTS:
        writer.append([received(encode_event(event).data)])
    writer.close()

    assert 1 < len(list(tmp_path.iterdir())) <= 10
    assert {".jsonl"} == {path.suffix for path in tmp_path.iterdir()}
    assert [encode_event(event).data + b"\n" for event in EVENTS] == written(tmp_path)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a line cannot be made durable that is an error, and the next try writes to another file."""
    writer = ArchiveWriter(tmp_path)
    writer.append([received(b'{"n":1}')])
    real = os.fsync

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailableError, match="no room"):
        writer.append([received(b'{"n":2}')])
    monkeypatch.setattr(os, "fsync", real)
    writer.append([received(b'{"n":2}')])
    writer.close()

    assert 2 == len(list(tmp_path.iterdir()))
    assert b'{"n":2}\n' == written(tmp_path)[-1]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """Where files cannot be made at all, the folder is named as the setting at fault."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ConfigurationError, match="cannot be written"):
        ArchiveWriter(tmp_path / "file" / "folder").append([received(b"{}")])


class WrittenFirst(WatchedSource):
    """Sees what was on the disk when it was told that messages are done with."""

    folder: Path
    on_disk: list[int]

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        self.on_disk.append(len(written(self.folder)) - len(self.acknowledged) - len(ack_ids))
        await super().acknowledge(ack_ids)


async def test_nothing_is_acknowledged_before_it_is_written(tmp_path: Path) -> None:
    """When a message is acknowledged its line is in a file as it was published; faults pass."""
    source = WrittenFirst(published(*EVENTS), pull_errors=[down(), down()])
    source.folder, source.on_disk = tmp_path / "new" / "folder", []
    worker = ArchiveWorker(source, ArchiveWriter(source.folder), limits=QUICK, uniform=nearly_zero)

    report = await worker.run(stop=asyncio.Event(), until_idle=0.2)

    assert (10, 10, 10) == (report.pulled, report.written, len(source.acknowledged))
    assert min(source.on_disk) >= 0
    assert sorted(encode_event(event).data + b"\n" for event in EVENTS) == sorted(written(source.folder))
    assert 10 == len(await Opened.at(source.folder).pull_all())


async def test_what_cannot_be_acknowledged_comes_again(tmp_path: Path) -> None:
    """Where the broker cannot be told, messages come again, and are there twice rather than not at all."""
    source = WatchedSource(published(EVENTS[0]), answer_errors=[down()])
    worker = ArchiveWorker(source, ArchiveWriter(tmp_path), limits=QUICK, uniform=nearly_zero)

    await worker.run(stop=asyncio.Event(), until_idle=0.1)

    assert [encode_event(EVENTS[0]).data + b"\n"] == written(tmp_path)
    assert [] == source.acknowledged


async def test_a_broker_that_does_not_answer_is_not_idle(tmp_path: Path) -> None:
    """Where the last pulls fail, nobody knows whether something is left; one that is stopped ends well."""
    source = WatchedSource(published(*EVENTS), pull_errors=repeat(down()))
    worker = ArchiveWorker(source, ArchiveWriter(tmp_path), limits=QUICK, uniform=nearly_zero)

    with pytest.raises(TransportUnavailableError, match="down"):
        await worker.run(stop=asyncio.Event(), until_idle=0.05)
    stop = asyncio.Event()
    stopped = asyncio.create_task(worker.run(stop=stop, until_idle=60))
    stop.set()

    assert 0 == (await stopped).pulled


@pytest.mark.parametrize("end", ["stop", "idle", "refused"])
async def test_no_pull_is_cut_off(end: str, tmp_path: Path) -> None:
    """However it ends, pulls under way end by themselves: cut off, they would go on at the broker."""
    refused = [down(), TransportRefusedError("gone")] if end == "refused" else []
    source = CountedSource(published(), pull_errors=refused)
    limits = PullLimits(pulls=2, pull_seconds=0.05, stop_seconds=60)
    worker = ArchiveWorker(source, ArchiveWriter(tmp_path), limits=limits, uniform=nearly_zero)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop=stop, until_idle=0.01 if end == "idle" else None))
    await eventually(lambda: source.begun >= 2)
    if end == "stop":
        stop.set()
    await asyncio.wait({running})

    assert 0 == source.cut_off
    assert (end == "refused") == isinstance(running.exception(), TransportRefusedError)


async def test_what_cannot_be_written_is_given_back(tmp_path: Path) -> None:
    """Messages that the disk does not take are given back: whoever comes next has them at once."""
    (tmp_path / "file").write_text("")
    subscription = published(*EVENTS)
    source = WatchedSource(subscription)
    worker = ArchiveWorker(source, ArchiveWriter(tmp_path / "file"), limits=QUICK)

    with pytest.raises(ConfigurationError, match="cannot be written"):
        await worker.run(stop=asyncio.Event())

    assert [] == source.acknowledged
    assert (10, 0) == (subscription.backlog, subscription.outstanding)
