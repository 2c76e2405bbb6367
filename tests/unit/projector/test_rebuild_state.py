from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    ReceivedMessage,
    StoreUnavailableError,
    TransportUnavailableError,
)
from run_log.projector.rebuild import RebuildState, RejectsFile

REASON = DeadLetterReason.UNDECODABLE


def opened(path: Path, *, source: str = "root:a", into: str = "b") -> RebuildState:
    """Return the state in a file."""
    return RebuildState(path, source=source, into=into)


def test_what_was_noted_is_known_again(tmp_path: Path) -> None:
    """What was noted is there when the state is opened again: of each thing what was noted last."""
    with closing(opened(tmp_path / "s")) as state:
        assert state.is_new
        state.note({"file:a": {"after": 1, "size": None}, "total": {"events": 1}})
        state.note({"file:a": {"after": 7, "size": 3}})

    with closing(opened(tmp_path / "s")) as state:
        assert not state.is_new
        assert {"after": 7, "size": 3} == state.get("file:a")
        assert {"events": 1} == state.get("total")
        assert {} == state.get("file:b")


def test_a_kill_at_any_byte(tmp_path: Path) -> None:
    """Cut off at any byte, a state is one that was there before, and goes on from there."""
    path = tmp_path / "s"
    with closing(opened(path)) as state:
        for number in range(5):
            state.note({"total": {"events": number}})
    content = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        with closing(opened(path)) as state:
            whole = sum(end <= cut for end in ends)
            assert (None if whole < 2 else whole - 2) == state.get("total").get("events")
            state.note({"total": {"events": 99}})

        with closing(opened(path)) as state:
            assert 99 == state.get("total")["events"]


def test_a_state_of_another_rebuild(tmp_path: Path) -> None:
    """A state goes with one source and one destination; with others it is refused, and stays as it is."""
    opened(tmp_path / "s").close()
    before = (tmp_path / "s").read_bytes()

    for other in ({"source": "root:x"}, {"into": "x"}):
        with pytest.raises(ConfigurationError, match="from root:a into b, not from"):
            opened(tmp_path / "s", **other)

    assert before == (tmp_path / "s").read_bytes()


def test_two_at_once(tmp_path: Path) -> None:
    """Two rebuilds cannot share a state; once the first has ended the second can have it."""
    with (
        closing(opened(tmp_path / "s")),
        pytest.raises(ConfigurationError, match="in use by another rebuild"),
    ):
        opened(tmp_path / "s")

    opened(tmp_path / "s").close()


@pytest.mark.parametrize("content", [b"no state\n", b"[]\n", b'{"a": 1}\n', b'{"rebuild": 1}\n'])
def test_a_file_that_is_no_state(content: bytes, tmp_path: Path) -> None:
    """What is no state is refused and left as it is, so that no file is lost by a wrong option."""
    (tmp_path / "s").write_bytes(content)

    with pytest.raises(ConfigurationError, match="is not the state of a rebuild"):
        opened(tmp_path / "s")

    assert content == (tmp_path / "s").read_bytes()


def test_a_state_that_cannot_be_written(tmp_path: Path) -> None:
    """A place that cannot be written is a setting at fault; a disk that fails later is passing."""
    with pytest.raises(ConfigurationError, match="cannot be written"):
        opened(tmp_path)

    state = opened(tmp_path / "s")
    state.close()
    state.file = (tmp_path / "s").open("rb", buffering=0)
    with closing(state), pytest.raises(StoreUnavailableError, match="cannot be written"):
        state.note({"total": {"events": 1}})


def message(place: str, data: bytes = b"{}") -> ReceivedMessage:
    """Return a message that was at a place."""
    return ReceivedMessage(data=data, message_id=place, ack_id="a")


async def test_rejects_are_kept_once(tmp_path: Path) -> None:
    """A reject is kept with where it was, why, and its body, once, also by whoever goes on."""
    first = RejectsFile(tmp_path / "r", goes_on=False)
    await first.put(message("a:1", b"caf\xc3\xa9"), reason=REASON, error="no JSON")
    await first.put(message("a:1", b"caf\xc3\xa9"), reason=REASON, error="no JSON")
    second = RejectsFile(tmp_path / "r", goes_on=True)
    await second.put(message("a:1", b"caf\xc3\xa9"), reason=REASON, error="no JSON")
    await second.put(message("a:2", b"\xff"), reason=REASON, error="no JSON")

    kept = [json.loads(line) for line in (tmp_path / "r").read_bytes().splitlines()]
    common = {"reason": "undecodable", "error": "no JSON"}
    assert [
        {"place": "a:1", **common, "body": "café"},
        {"place": "a:2", **common, "body_base64": "/w=="},
    ] == kept
    assert (1, 2) == (len(first), len(second))


async def test_rejects_have_their_attributes(tmp_path: Path) -> None:
    """A reject keeps the attributes that its message had: its type may stand there alone."""
    rejects = RejectsFile(tmp_path / "r", goes_on=False)
    attributes = {"ce-type": "é"}
    await rejects.put(replace(message("a:1"), attributes=attributes), reason=REASON, error="no JSON")

    (kept,) = [json.loads(line) for line in (tmp_path / "r").read_bytes().splitlines()]
    assert attributes == kept["attributes"]


async def test_rejects_cut_off(tmp_path: Path) -> None:
    """A reject that was cut off by a kill is kept again, whole."""
    first = RejectsFile(tmp_path / "r", goes_on=False)
    for place in ("a:1", "a:2"):
        await first.put(message(place), reason=REASON, error="no JSON")
    content = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(content[:-3])

    await RejectsFile(tmp_path / "r", goes_on=True).put(message("a:2"), reason=REASON, error="no JSON")

    assert content == (tmp_path / "r").read_bytes()


async def test_rejects_of_another_rebuild(tmp_path: Path) -> None:
    """A file that holds something is not added to by a rebuild that begins, nor taken for what it is not."""
    (tmp_path / "r").write_bytes(b"precious\n")

    with pytest.raises(ConfigurationError, match="the rejects of another rebuild"):
        RejectsFile(tmp_path / "r", goes_on=False)
    with pytest.raises(ConfigurationError, match="is not a file of rejects"):
        RejectsFile(tmp_path / "r", goes_on=True)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        RejectsFile(tmp_path, goes_on=True)

    assert b"precious\n" == (tmp_path / "r").read_bytes()


async def test_rejects_that_cannot_be_written(tmp_path: Path) -> None:
    """Where a reject cannot be kept that is said, and it counts for none."""
    folder = tmp_path / "gone"
    folder.mkdir()
    rejects = RejectsFile(folder / "r", goes_on=False)
    folder.rmdir()

    with pytest.raises(TransportUnavailableError):
        await rejects.put(message("a:1"), reason=REASON, error="no JSON")

    assert 0 == len(rejects)
