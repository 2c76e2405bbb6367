from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from run_log.core import SpoolError, encode_event
from run_log.producer._segment import SUFFIX, SpooledEvent, encode_record
from run_log.producer._spool import ASIDE_SECONDS, LOOK_AGAIN_SECONDS, MAX_SEGMENTS, Spool
from run_log.testing import ManualClock, an_event

from .transports import logged, run_script

_PREAMBLE: Final = """
import os, resource, signal, sys
from pathlib import Path
from run_log.core import SpoolError, encode_event
from run_log.producer._spool import Spool
from run_log.producer._segment import SUFFIX, SpooledEvent, encode_record
from run_log.testing import an_event

def spooled(run_id):
    event = an_event(id=run_id)
    return SpooledEvent(event.key, event.version, encode_event(event))

def ids(spool):
    return [event.key[1] for event in spool.next_batch(events=10_000, data_bytes=10**9)]

def limit(kind, most):
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))

def refused(call, *arguments):
    try:
        call(*arguments)
    except SpoolError:
        print("refused")

directory = Path(sys.argv[1])
"""


_AS_ROOT: Final = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices and gives files away")


def _spooled(
    run_id: str = "r", hlc: int | None = None, *, attempt: int = 1, padding: int = 0
) -> SpooledEvent:
    event = an_event(id=run_id, hlc=hlc, attempt=attempt, result={"": "x" * padding})
    return SpooledEvent(event.key, event.version, encode_event(event))


def _named(names: Sequence[str]) -> list[SpooledEvent]:
    """Return an event for each of *names*, which are a run and two digits: when."""
    return [_spooled(name[0], int(name[1:])) for name in names]


def _names(events: Sequence[SpooledEvent]) -> list[str]:
    return [f"{event.key[1]}{event.version.hlc}" for event in events]


_SIZE: Final = len(encode_record(_named(["a10"])[0].message))
"""What an event of `_named` takes on disk."""


def _batch(spool: Spool) -> list[SpooledEvent]:
    return spool.next_batch(events=10_000, data_bytes=10**9)


def _runs(spool: Spool) -> list[str]:
    return [event.key[1] for event in _batch(spool)]


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


SpoolMaker = Callable[..., Spool]


@pytest.fixture
def spool_in() -> Iterator[SpoolMaker]:
    """Make spools, and close them when the test ends."""
    made: list[Spool] = []

    def make(directory: Path, max_bytes: int = 10**9, clock: ManualClock | None = None) -> Spool:
        monotonic = (clock or ManualClock()).monotonic
        made.append(Spool(directory, max_bytes=max_bytes, monotonic=monotonic))
        return made[-1]

    yield make
    for spool in made:
        spool.close()


def _leave(directory: Path, events: Sequence[SpooledEvent]) -> None:
    """Have *events* be there, as of a process that has ended."""
    spool = Spool(directory)
    spool.append(events)
    spool.close()


def _assert_refused(raised: pytest.ExceptionInfo[SpoolError], directory: Path) -> None:
    """Check that the error says where, what was wrong, and what to do."""
    cause = raised.value.__cause__
    assert isinstance(cause, OSError)
    for text in (str(directory), str(cause), "RUN_LOG_SPOOL_DIR"):
        assert text in str(raised.value)


# The directory and its files


def test_making_a_spool_touches_nothing(tmp_path: Path) -> None:
    """A spool that is made, asked and closed has not made its directory."""
    spool = Spool(tmp_path / "spool", max_bytes=1000)

    seen = (spool.waiting, spool.lost, spool.corrupt, spool.room)
    spool.close()

    assert (0, 0, 0, 1000) == seen
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_made_when_it_is_needed(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """The first append makes the directory and those above; both it and its files are its user's own."""
    directory = tmp_path / "above" / "spool"

    spool_in(directory).append([_spooled()])

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())]
    assert [0o700, 0o600] == modes


def test_an_empty_directory_holds_nothing(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """Where nothing was left there is nothing to deliver, and settling that is fine."""
    spool = spool_in(tmp_path)

    batches = [_batch(spool), _batch(spool)]
    spool.settle()
    spool.append([])

    assert batches == [[], []]
    assert list(tmp_path.iterdir()) == []


def test_foreign_files_are_left_alone(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """What is no segment is neither read nor deleted, and takes none of the room."""
    foreign = [tmp_path / name for name in ("notes.txt", f"x{SUFFIX}.gz", "x.run-log-v2")]
    for path in foreign:
        path.write_bytes(encode_record(_spooled("foreign").message))
    (tmp_path / f"directory{SUFFIX}").mkdir()
    spool = spool_in(tmp_path, max_bytes=5000)
    room = spool.room

    spool.append([_spooled("own")])

    assert room == 5000
    assert ["own"] == _runs(spool)
    spool.settle()
    assert sorted([*foreign, tmp_path / f"directory{SUFFIX}"]) == sorted(tmp_path.iterdir())


@pytest.mark.process
def test_another_users_segments_are_left_alone(tmp_path: Path) -> None:
    """A segment that this user may not open holds up none of those that he may."""
    printed = run_script(
        _PREAMBLE
        + """
os.chdir(directory)
os.chmod(".", 0o777)
Path("another" + SUFFIX).write_bytes(encode_record(spooled("another").message))
os.chmod("another" + SUFFIX, 0)
if os.geteuid() == 0:
    os.seteuid(65534)  # root may open any
spool = Spool(".")
print(ids(spool))
spool.append([spooled("own")])
print(ids(spool))
spool.settle()
print(os.listdir("."))
spool.close()
""",
        str(tmp_path),
    )

    assert ["[]", "['own']", "['another.run-log-v1']"] == printed.splitlines()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_made_says_so(name: str, tmp_path: Path, spool_in: SpoolMaker) -> None:
    """Where the directory is a file, or below one, every use says what is wrong and what to do."""
    (tmp_path / "file").write_text("in the way")
    spool = spool_in(tmp_path / name)

    with pytest.raises(SpoolError) as on_append:
        spool.append([_spooled()])
    with pytest.raises(SpoolError) as on_read:
        _batch(spool)

    _assert_refused(on_append, tmp_path / name)
    _assert_refused(on_read, tmp_path / name)
    assert (0, 0, 0) == (spool.room, spool.waiting, spool.lost)


# What comes back


def test_few_segments_are_open_at_a_time(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """Leftovers are taken over as far as the limit goes, and the rest as soon as those are settled."""
    clock = ManualClock()
    for number in range(MAX_SEGMENTS + 6):
        _leave(tmp_path, [_spooled(str(number))])
    spool = spool_in(tmp_path, clock=clock)

    sizes: list[int] = []
    while batch := _batch(spool):
        sizes.append(len(batch))
        spool.settle()

    assert [MAX_SEGMENTS, 6] == sizes
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_searched_now_and_then(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """What ends meanwhile is found after a while, and not while there is something else to deliver."""
    clock = ManualClock()
    spool = spool_in(tmp_path, clock=clock)
    spool.append(_named(["a20"]))
    batches = [_batch(spool)]
    _leave(tmp_path, _named(["b10"]))

    clock.advance(LOOK_AGAIN_SECONDS)
    batches.append(_batch(spool))
    spool.settle()
    batches.append(_batch(spool))
    spool.settle()
    _leave(tmp_path, _named(["c30"]))
    clock.advance(LOOK_AGAIN_SECONDS - 1)
    batches.append(_batch(spool))
    clock.advance(1)
    batches.append(_batch(spool))

    assert [["a20"], ["a20"], ["b10"], [], ["c30"]] == [*map(_names, batches)]


# Damage


def _damage(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("when", ["before it was taken over", "since then"])
def test_a_damaged_record_holds_up_no_other(when: str, tmp_path: Path, spool_in: SpoolMaker) -> None:
    """A damaged record is counted once and stays where it is; all others come back."""
    _leave(tmp_path, _named(["a10", "b11", "c12"]))
    (path,) = _segments(tmp_path)
    spool = spool_in(tmp_path)
    if when == "since then":
        spool.next_batch(events=1, data_bytes=1)
    _damage(path, _SIZE + 40)

    batch = _batch(spool)

    assert ["a10", "c12"] == _names(batch)
    assert (1, 0, 2) == (spool.corrupt, spool.lost, spool.waiting)
    spool.settle()
    spool.close()
    later = spool_in(tmp_path)
    assert [] == _batch(later)
    assert 0 == later.corrupt
    _damage(path, _SIZE + 40)
    later.close()
    assert ["b11"] == _names(_batch(spool_in(tmp_path)))


@pytest.mark.parametrize("when", ["while room is made", "before"])
def test_damage_is_found_while_room_is_made(when: str, tmp_path: Path, spool_in: SpoolMaker) -> None:
    """A full directory first lets go of what is damaged, counted once, and then of no more than it has to."""
    spool = spool_in(tmp_path, max_bytes=4 * _SIZE)
    spool.append(_named(["a10", "b11", "c12", "d13"]))
    for path in _segments(tmp_path):
        _damage(path, _SIZE + 40)
    if when == "before":
        assert ["a10", "c12", "d13"] == _names(_batch(spool))

    spool.append(_named(["e14"]))

    assert (1, 0, 4) == (spool.corrupt, spool.lost, spool.waiting)
    assert ["a10", "c12", "d13", "e14"] == _names(_batch(spool))


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"junk\n+-\n" * 99], ids=["empty", "zeros", "text"])
def test_a_file_without_an_event_gives_way(content: bytes, tmp_path: Path, spool_in: SpoolMaker) -> None:
    """A segment in which nothing can be read is counted as damaged, and deleted once its room is needed."""
    (tmp_path / f"junk{SUFFIX}").write_bytes(content)
    spool = spool_in(tmp_path, max_bytes=max(len(content), _SIZE))

    batch = _batch(spool)

    assert batch == []
    assert bool(content) == spool.corrupt
    assert bool(content) == (tmp_path / f"junk{SUFFIX}").exists()
    spool.append(_named(["a10"]))
    assert not (tmp_path / f"junk{SUFFIX}").exists()
    assert (0, ["a10"]) == (spool.lost, _names(_batch(spool)))


# What stands aside


def test_what_is_refused_stands_aside(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """What is refused stays on disk and comes back after a while, once nothing else waits."""
    clock = ManualClock()
    spool = spool_in(tmp_path, clock=clock)
    spool.append(_named(["a10", "b11", "c12"]))
    batch = _batch(spool)

    spool.set_aside(batch[:2])

    assert (["c12"], 1, 2) == (_names(_batch(spool)), spool.waiting, spool.aside)
    clock.advance(ASIDE_SECONDS)
    assert ["c12"] == _names(_batch(spool))
    spool.settle()
    assert ["a10", "b11"] == _names(_batch(spool))
    spool.set_aside(_batch(spool)[:1])
    spool.settle()
    assert ([], 1) == (_batch(spool), spool.aside)
    clock.advance(ASIDE_SECONDS)
    assert ["a10"] == _names(_batch(spool))
    spool.settle()
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["close", "crash"])
def test_a_later_process_tries_what_stands_aside_last(
    ending: str, tmp_path: Path, spool_in: SpoolMaker
) -> None:
    """What one process found refused comes at once in the next one, after all else."""
    spool = spool_in(tmp_path)
    spool.append(_named(["a10", "b11"]))
    spool.set_aside(_batch(spool)[:1])
    spool.append([*_named(["c12"])], is_aside=True)
    if ending == "close":
        spool.close()
        later = spool_in(tmp_path)
    else:
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in _segments(tmp_path):
            (copy / path.name).write_bytes(path.read_bytes())
            (copy / path.name).chmod(0o600)
        later = spool_in(copy)

    first = _names(_batch(later))
    later.settle()

    assert (["b11"], ["a10", "c12"]) == (first, _names(_batch(later)))


def test_what_stands_aside_in_many_files_is_in_nobodys_way(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """However many files hold nothing but what is refused or damaged, those behind them are taken over."""
    for number in range(2 * MAX_SEGMENTS):
        _leave(tmp_path, _named([f"a{number:02}"]))
        if number % 2:
            _damage(_newest(tmp_path), 40)
    _leave(tmp_path, [_spooled("last", 10**6)])
    spool = spool_in(tmp_path)

    found: list[str] = []
    for _ in range(4):
        batch = _batch(spool)
        spool.set_aside([event for event in batch if event.key[1] == "a"])
        found += [event.key[1] for event in batch if event.key[1] != "a"]
        spool.settle()

    assert ["last"] == found
    assert (MAX_SEGMENTS, MAX_SEGMENTS) == (spool.aside, spool.corrupt)
    assert len(_segments(tmp_path)) < MAX_SEGMENTS


def _newest(directory: Path) -> Path:
    return max(_segments(directory), key=lambda path: path.stat().st_mtime_ns)


def test_what_stands_aside_gives_way_as_the_rest_does(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """Where the directory is full the oldest go, aside or not, and are counted."""
    spool = spool_in(tmp_path, max_bytes=4 * _SIZE)
    spool.append(_named(["a10", "b11", "c12", "d13"]))
    spool.set_aside(_batch(spool)[:2])

    spool.append(_named(["e14"]))

    assert (2, 0, ["c12", "d13", "e14"]) == (spool.lost, spool.aside, _names(_batch(spool)))


# What is not ours


_PLANTED: Final = """
def plant(kind, path, content):
    other = path + ".elsewhere"
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        held.append(socket.socket(socket.AF_UNIX))
        os.chdir(directory)
        held[-1].bind(os.path.basename(path))
    elif kind == "a directory":
        os.mkdir(path)
    elif kind == "a link to itself":
        os.symlink(path, path)
    elif kind == "a link to nothing":
        os.symlink(other, path)
    elif kind == "a device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: what reads it never ends
    else:
        target = path if kind in ("another's", "open to all", "open to the group") else other
        with open(target, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
        if kind == "a link to a file":
            os.symlink(other, path)
        elif kind == "a hard link":
            os.link(other, path)
        elif kind == "another's":
            os.chmod(path, 0o666)
            os.chown(path, 12345, -1)
        else:
            os.chmod(path, 0o666 if kind == "open to all" else 0o660)
"""


@pytest.mark.parametrize(
    "kind",
    [
        "a FIFO",
        "a socket",
        "a directory",
        "a link to itself",
        "a link to nothing",
        "a link to a file",
        "a hard link",
        "open to all",
        "open to the group",
        pytest.param("another's", marks=_AS_ROOT),
        pytest.param("a device", marks=_AS_ROOT),
    ],
)
@pytest.mark.process
def test_what_somebody_plants_is_never_opened(kind: str, tmp_path: Path) -> None:
    """Only regular files of our own user, which nobody else writes, are opened; the rest is named once."""
    printed = run_script(
        _PREAMBLE
        + _PLANTED
        + f"""
import logging, socket, stat
lines, held, opened = [], [], []

class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.event)

def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(str(directory)):
        opened.append(os.path.basename(str(arguments[0])))

logging.getLogger("run_log").addHandler(Lines())
left = Spool(directory)
left.append([spooled("left")])
left.close()
for number in range(3):
    plant({kind!r}, f"{{directory}}/{{number}}{{SUFFIX}}", encode_record(spooled("planted").message))
sys.addaudithook(watch)
now = [0.0]
spool = Spool(directory, monotonic=lambda: now[0])
room = spool.room
while batch := ids(spool):
    print(batch)
    spool.settle()
spool.append([spooled("own")])
spool.settle()
now[0] += 1e6
print(ids(spool), spool.waiting, spool.corrupt, spool.aside)
print(lines.count("run_log_spool_files_left_alone"), [name for name in opened if name[1:] == SUFFIX])
""",
        str(tmp_path),
    )

    assert ["['left']", "['own'] 1 0 0", "1 []"] == printed.splitlines()


@pytest.mark.parametrize(
    ("mode", "owner"),
    [(0o777, None), (0o1777, None), (0o700, None), pytest.param(0o700, 12345, marks=_AS_ROOT)],
)
def test_a_directory_that_others_may_change_is_said(
    mode: int, owner: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where others may delete what is in the directory that is said once; it is used all the same."""
    directory = tmp_path / "spool"
    directory.mkdir()
    directory.chmod(mode)
    if owner:
        os.chown(directory, owner, -1)
    spool = Spool(directory)

    spool.append(_named(["a10"]))
    spool.append(_named(["b11"]))
    found = _names(_batch(spool))
    spool.close()

    assert ["a10", "b11"] == found
    assert (mode == 0o777 or owner is not None) == len(logged(caplog, "run_log_spool_directory_open"))


def test_somebody_may_delete_the_files(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """Where the files are deleted under a spool, what is written from then on is durable all the same."""
    spool = spool_in(tmp_path)
    spool.append(_named(["a10"]))
    for path in _segments(tmp_path):
        path.unlink()

    spool.append(_named(["b11"]))
    spool.close()

    assert ["b11"] == _names(_batch(spool_in(tmp_path)))


# The bound


def test_a_directory_may_be_filled_to_its_bound(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """Nothing is lost while all fits: room says how much."""
    spool = spool_in(tmp_path, max_bytes=4 * _SIZE)

    rooms = [spool.room]
    for name in ("a10", "a11", "a12", "a13"):
        spool.append(_named([name]))
        rooms.append(spool.room)

    assert [4 * _SIZE, 3 * _SIZE, 2 * _SIZE, _SIZE, 0] == rooms
    assert (4, 0) == (spool.waiting, spool.lost)


def test_what_is_settled_is_room(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """A full directory takes as much as was settled without losing anything, whatever stands around it."""
    spool = spool_in(tmp_path, max_bytes=8 * _SIZE)
    spool.append(_named([f"{run}{when}" for run, when in zip("abcdefgh", range(10, 18), strict=True)]))
    spool.next_batch(events=2, data_bytes=10**6)
    spool.settle()

    spool.append(_named(["i18", "j19"]))

    assert (8, 0) == (spool.waiting, spool.lost)
    assert 8 * _SIZE >= sum(path.stat().st_size for path in _segments(tmp_path))


def test_the_bound_is_the_directorys(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """Where others fill the directory a process gives up events of its own, as few as in one of its own."""
    others, own = (spool_in(tmp_path, max_bytes=64 * _SIZE) for _ in range(2))
    others.append(_named([f"o{when}" for when in range(10, 58)]))
    own.append(_named([f"r{when}" for when in range(20, 36)]))
    full = (own.room, others.room)

    own.append(_named(["r40"]))

    assert (0, 0) == full
    assert 64 * _SIZE >= sum(path.stat().st_size for path in _segments(tmp_path))
    assert [f"r{when}" for when in (*range(24, 36), 40)] == _names(_batch(own))
    assert (4, 0, 48) == (own.lost, others.lost, others.waiting)


# The disk


@pytest.mark.process
def test_a_full_disk_refuses_an_append_as_a_whole(tmp_path: Path) -> None:
    """An append that the disk takes in part raises, leaves none of its events, and counts none as lost."""
    printed = run_script(
        _PREAMBLE
        + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(directory)
limit(resource.RLIMIT_FSIZE, 2000)
refused(spool.append, [spooled(f"a{number}") for number in range(10)])
print(os.listdir(directory))
spool.append([spooled("b")])
refused(spool.append, [spooled(f"c{number}") for number in range(10)])
spool.append([spooled("d")])
print(ids(spool), spool.waiting, spool.lost, spool.corrupt)
spool.close()
later = Spool(directory)
print(ids(later), later.corrupt)
later.close()
""",
        str(tmp_path),
    )

    assert ["refused", "[]", "refused", "['b', 'd'] 2 0 0", "['b', 'd'] 0"] == printed.splitlines()


@pytest.mark.process
def test_a_disk_that_is_full_while_room_is_made_loses_what_it_says(tmp_path: Path) -> None:
    """Where making room fails the append raises; lost counts what is gone from disk, and nothing else."""
    printed = run_script(
        _PREAMBLE
        + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(directory, max_bytes=8_000)
spool.append([spooled(str(number)) for number in range(10)])
limit(resource.RLIMIT_FSIZE, 100)
refused(spool.append, [spooled("new") for number in range(4)])
limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
left = ids(spool)
print("new" in left, 10 - len(left) == spool.lost)
spool.append([spooled("newer")])
print(ids(spool)[-1])
spool.close()
""",
        str(tmp_path),
    )

    assert ["refused", "False True", "newer"] == printed.splitlines()


@pytest.mark.process
def test_what_cannot_be_settled_comes_again(tmp_path: Path) -> None:
    """A batch that the disk does not let settle raises, and comes again after a restart."""
    printed = run_script(
        _PREAMBLE
        + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(directory)
spool.append([spooled(run_id) for run_id in "abc"])
print(ids(spool))
limit(resource.RLIMIT_FSIZE, 1)
refused(spool.settle)
limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
print(ids(spool), spool.waiting)
spool.close()
later = Spool(directory)
print(ids(later))
later.settle()
print(os.listdir(directory))
""",
        str(tmp_path),
    )

    assert ["['a', 'b', 'c']", "refused", "[] 0", "['b', 'c']", "[]"] == printed.splitlines()


@pytest.mark.process
def test_a_process_out_of_descriptors_loses_nothing(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """A process out of descriptors is told so; once it has some again all goes its way, leftovers too."""
    _leave(tmp_path, _named(["a10"]))

    printed = run_script(
        _PREAMBLE
        + """
now = [0.0]
spool = Spool(directory, max_bytes=3_000, monotonic=lambda: now[0])
limit(resource.RLIMIT_NOFILE, 64)
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(3):
    refused(ids, spool)
    refused(spool.append, [spooled("b")])
    now[0] += 100
    os.close(held.pop())
for descriptor in held:
    os.close(descriptor)
empty = sum(not path.stat().st_size for path in directory.iterdir())
print(ids(spool), spool.lost, spool.corrupt, empty)
spool.append([spooled("c")])
spool.close()
""",
        str(tmp_path),
    )

    lines = printed.splitlines()
    assert {"refused"} == set(lines[:-1])
    last = json.loads(lines[-1].rpartition(" 0 0 0")[0].replace("'", '"'))
    assert "a" in last
    assert {*last, "c"} == set(_runs(spool_in(tmp_path)))


# Several in one directory


@pytest.mark.parametrize("lines", [2, 30])
@pytest.mark.process
def test_a_killed_process_loses_nothing_it_had_acknowledged(
    lines: int, tmp_path: Path, spool_in: SpoolMaker
) -> None:
    """Whenever a process is killed, what it had written and not settled comes back, once, in order."""
    script = f"""{_PREAMBLE}
import itertools
spool = Spool(directory)
for number in itertools.count():
    events = [spooled(f"{{number}}-{{one}}") for one in range(5)]
    spool.append(events)
    print("written", *[event.version.event_id for event in events], flush=True)
    batch = spool.next_batch(events=3, data_bytes=10**6)
    print("settled", *[event.version.event_id for event in batch], flush=True)
    spool.settle()
"""
    with _started(script, tmp_path) as process:
        printed = _read_lines(process, lines)
        process.kill()
        printed += process.stdout or ()
    spool = spool_in(tmp_path)

    found = _batch(spool)

    told: dict[str, set[str]] = {"written": set(), "settled": set()}
    for line in printed:
        what, *ids = line.split()
        told[what] |= set(ids)
    back = [event.version.event_id for event in found]
    assert told["written"] - told["settled"] <= set(back)
    assert len(back) == len(set(back))
    # Only the last batch was neither told as written nor as settled, or both are still under way.
    assert len(set(back) - told["written"]) <= 5
    assert spool.corrupt <= 1
    assert sorted(event.version for event in found) == [event.version for event in found]


@pytest.mark.process
def test_many_processes_lose_and_repeat_nothing(tmp_path: Path, spool_in: SpoolMaker) -> None:
    """Processes that write, deliver and end in one directory deliver every event of each of them once."""
    script = f"""{_PREAMBLE}
spool = Spool(directory, max_bytes=200_000)
for number in range(20):
    spool.append([spooled(f"{{os.getpid()}}-{{number}}-{{one}}") for one in range(3)])
    for event in spool.next_batch(events=4, data_bytes=10**6):
        print(event.key[1])
    spool.settle()
print(spool.lost, spool.corrupt)
"""
    processes = [_started(script, tmp_path) for _ in range(4)]

    delivered: list[str] = []
    for process in processes:
        with process:
            printed = list(process.stdout or ())
            delivered += [line.strip() for line in printed[:-1]]
            assert printed[-1] == "0 0\n"
    spool = spool_in(tmp_path)
    while batch := _runs(spool):
        delivered += batch
        spool.settle()

    expected = {
        f"{process.pid}-{number}-{one}"
        for process, number, one in itertools.product(processes, range(20), range(3))
    }
    assert sorted(expected) == sorted(delivered)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_forked_child_lets_go_alone(tmp_path: Path) -> None:
    """A forked child that closes its copy takes neither file nor lock from its parent, and sees nothing."""
    printed = run_script(
        _PREAMBLE
        + """
spool = Spool(directory)
spool.append([spooled("a"), spooled("b")])
spool.next_batch(events=1, data_bytes=1)
child = os.fork()
if child == 0:
    spool.close()
    print(spool.waiting, ids(spool), flush=True)
    spool.append([spooled("of the child")])
    print(ids(spool), flush=True)
    spool.settle()
    os._exit(0)
os.waitpid(child, 0)
print(len(os.listdir(directory)), ids(Spool(directory)), ids(spool), spool.waiting)
spool.settle()
print(os.listdir(directory))
""",
        str(tmp_path),
    )

    assert ["0 []", "['of the child']", "1 [] ['a', 'b'] 2", "[]"] == printed.splitlines()


def _started(script: str, *arguments: Path) -> subprocess.Popen[str]:
    """Start *script* in a fresh interpreter that can be talked to; leaving the context waits for it."""
    return subprocess.Popen(  # noqa: S603 - this interpreter, a script of the test's own
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _read_lines(process: subprocess.Popen[str], lines: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(lines)]
