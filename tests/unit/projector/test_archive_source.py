from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from run_log.core import (
    DeadLetterReason,
    TransportRefusedError,
    TransportUnavailableError,
    encode_event,
)
from run_log.projector.archive import ArchiveFile, find_files
from run_log.projector.archive.reading import MAX_FAILURES, ArchivePosition
from run_log.testing import an_event

from .archives import Opened, Rejects, lines, write_avro

EVENTS = [an_event(id=f"r{number}") for number in range(30)]
BODIES = [encode_event(event).data for event in EVENTS]


def write_files(folder: Path) -> list[str]:
    """Write the events into files of ten, one of them empty, and return the names."""
    (folder / "a").write_bytes(lines(EVENTS[:10]))
    (folder / "b").write_bytes(b"")
    write_avro(folder / "c", [encode_event(event) for event in EVENTS[10:20]])
    (folder / "d").write_bytes(lines(EVENTS[20:]))
    return [str(folder / name) for name in "abcd"]


async def test_it_delivers_all_in_order(tmp_path: Path) -> None:
    """Pulls give every body once, in the order of the files, each with where it is."""
    names = write_files(tmp_path)
    opened = Opened.at(tmp_path)

    messages = await opened.pull_all()

    assert BODIES == [message.data for message in messages]
    assert [f"{names[0]}:1", f"{names[3]}:10"] == [messages[0].message_id, messages[-1].message_id]
    assert 30 == len({message.ack_id for message in messages})
    assert not opened.is_finished


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_goes_on_leaves_nothing_out(tmp_path: Path, seed: int) -> None:
    """After acknowledgements in any order, a source that goes on from what was told has all that is left."""
    chance = random.Random(seed)
    write_files(tmp_path)
    first = Opened.at(tmp_path)
    messages = [message for _ in range(chance.randrange(6)) for message in await first.source.pull(6, wait=0)]
    done = chance.sample(messages, chance.randrange(len(messages) + 1))
    for message in done:
        await first.source.acknowledge([message.ack_id])
    await first.source.close()

    second = Opened.at(tmp_path, done=first.places.values())
    left = [message.message_id for message in await second.pull_all()]

    acknowledged = {message.message_id for message in done}
    everything = [message.message_id for message in await Opened.at(tmp_path).pull_all()]
    assert [each for each in everything if each not in acknowledged] == [
        each for each in left if each not in acknowledged
    ]
    assert everything[-len(left) :] == left or not left


async def test_a_finished_archive(tmp_path: Path) -> None:
    """Once all is acknowledged it is finished, and another source finds nothing left but what is new."""
    names = write_files(tmp_path)
    first = Opened.at(tmp_path)
    await first.source.acknowledge([message.ack_id for message in await first.pull_all()])

    counts = dict(zip(names, (10, 0, 10, 10), strict=True))
    expected = [
        ArchivePosition(file=file.name, after=counts[file.name], size=file.size)
        for file in find_files(str(tmp_path))
    ]
    assert expected == list(first.places.values())
    assert (True, 4, 4) == (first.is_finished, first.source.done_files, first.source.total_files)

    assert Opened.at(tmp_path, done=expected).is_finished

    with (tmp_path / "a").open("ab") as file:
        file.write(lines([an_event(id="later")]))
    (tmp_path / "e").write_bytes(lines([an_event(id="new")]))
    grown = Opened.at(tmp_path, done=expected)
    assert [f"{names[0]}:11", f"{tmp_path}/e:1"] == [one.message_id for one in await grown.pull_all()]


async def test_a_torn_line_that_becomes_whole(tmp_path: Path) -> None:
    """A line that was cut off is rejected; once its file has grown, it is read as what it has become."""
    content = lines(EVENTS[:2])
    (tmp_path / "a").write_bytes(content[:-50])
    first = Opened.at(tmp_path)
    await first.source.acknowledge([message.ack_id for message in await first.pull_all()])
    (tmp_path / "a").write_bytes(content)
    second = Opened.at(tmp_path, done=first.places.values())

    messages = await second.pull_all()

    assert [f"{tmp_path}/a:2"] == [place for place, _, _ in first.rejects.kept]
    assert first.is_finished
    assert BODIES[1:2] == [message.data for message in messages]


async def test_what_is_given_back_comes_again(tmp_path: Path) -> None:
    """What is released is delivered again, also to a pull that waits already."""
    (tmp_path / "a").write_bytes(lines(EVENTS[:2]))
    opened = Opened.at(tmp_path)
    messages = await opened.pull_all()
    waiting = asyncio.create_task(opened.source.pull(5, wait=60))
    await asyncio.sleep(0)

    await opened.source.release([message.ack_id for message in messages])
    again = await waiting
    await opened.source.acknowledge([message.ack_id for message in again])

    assert messages == again
    assert opened.is_finished


async def test_faults_hold_nothing_up(tmp_path: Path) -> None:
    """What is no message is rejected with where it is and why; its neighbours are delivered."""
    (tmp_path / "a").write_bytes(lines(EVENTS[:1]) + b"torn")
    write_avro(tmp_path / "b", [encode_event(event) for event in EVENTS[1:3]])
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-1])
    (tmp_path / "c").write_bytes(lines(EVENTS[3:4]))
    opened = Opened.at(tmp_path)

    messages = await opened.pull_all()
    await opened.source.acknowledge([message.ack_id for message in messages])

    assert {BODIES[0], BODIES[3]} <= {message.data for message in messages}
    kept = {place: (reason, error) for place, reason, error in opened.rejects.kept}
    assert [f"{tmp_path}/a:2"] == [place for place in kept if "/a:" in place]
    assert (DeadLetterReason.UNDECODABLE, "the file ends in the middle of a line") == kept[f"{tmp_path}/a:2"]
    assert opened.is_finished


async def test_rejects_that_cannot_be_kept(tmp_path: Path) -> None:
    """Where a reject cannot be kept the pull fails, nothing is lost, and the next one tries again."""
    (tmp_path / "a").write_bytes(lines(EVENTS[:2]) + b"torn")
    (tmp_path / "b").write_bytes(lines(EVENTS[2:3]))
    opened = Opened.at(tmp_path)
    opened.rejects = Rejects([TransportUnavailableError("full")])
    opened.source._rejects = opened.rejects  # pyright: ignore[reportPrivateUsage]

    before = await opened.source.pull(9, wait=0)
    with pytest.raises(TransportUnavailableError):
        await opened.source.pull(9, wait=0)
    after = await opened.source.pull(9, wait=0)
    await opened.source.acknowledge([message.ack_id for message in (*before, *after)])

    assert BODIES[:3] == [message.data for message in (*before, *after)]
    assert 1 == len(opened.rejects.kept)
    assert opened.is_finished


def failing(path: Path, errors: list[Exception]) -> ArchiveFile:
    """Return a file that cannot be opened as often as there are errors."""

    def opened() -> BinaryIO:
        if errors:
            raise errors.pop(0)
        return path.open("rb")

    return ArchiveFile(name=str(path), size=path.stat().st_size, opened=opened)


async def test_a_file_that_cannot_be_read_for_a_while(tmp_path: Path) -> None:
    """A passing fault of the storage fails the pull, and the next one goes on."""
    (tmp_path / "a").write_bytes(lines(EVENTS[:2]))
    opened = Opened([failing(tmp_path / "a", [OSError("line cut"), RuntimeError("no answer")])])

    for _ in range(2):
        with pytest.raises(TransportUnavailableError, match="cannot be read now"):
            await opened.source.pull(9, wait=0)

    assert BODIES[:2] == [message.data for message in await opened.pull_all()]


def forbidden() -> Exception:
    """Return what a storage raises that does not let us in."""
    error = RuntimeError("forbidden")
    error.code = 403  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    return error


@pytest.mark.parametrize(
    "make", [lambda: FileNotFoundError("gone"), lambda: PermissionError("no"), forbidden]
)
async def test_a_file_that_may_not_be_read(tmp_path: Path, make: Callable[[], Exception]) -> None:
    """A file that is gone, or may not be read, is refused at once: trying again would not help."""
    (tmp_path / "a").write_bytes(b"")

    with pytest.raises(TransportRefusedError, match="does not exist, or may not be read"):
        await Opened([failing(tmp_path / "a", [make()])]).source.pull(9, wait=0)


async def test_a_file_that_can_never_be_read(tmp_path: Path) -> None:
    """A file that cannot be read time and again ends it: somebody has to look."""
    (tmp_path / "a").write_bytes(b"")
    opened = Opened([failing(tmp_path / "a", [OSError("disk")] * MAX_FAILURES)])

    for _ in range(MAX_FAILURES - 1):
        with pytest.raises(TransportUnavailableError):
            await opened.source.pull(9, wait=0)
    with pytest.raises(TransportRefusedError):
        await opened.source.pull(9, wait=0)
