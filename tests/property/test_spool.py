"""A spool directory beside a plain model: a list of what has to be on disk."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from run_log.core import Message, Version
from run_log.producer._segment import SUFFIX, SpooledEvent, encode_record
from run_log.producer._spool import LOOK_AGAIN_SECONDS, ROOM_MADE, Spool
from run_log.testing import ManualClock

from .core_strategies import examples, scaled

_ALL: Final = 10**9


class _New(NamedTuple):
    """What an event is made of."""

    run: str
    attempt: int
    hlc: int
    padding: int


_news: Final = st.builds(
    _New,
    run=st.sampled_from("abc"),
    attempt=st.integers(1, 2),
    hlc=st.integers(0, 9),
    padding=st.sampled_from([0, 1, 50, 400]),
)
_batches: Final = st.lists(_news, max_size=6)
_bounds: Final = st.sampled_from([0, 300, 1_000, 3_000, 6_000, _ALL])
_versions: Final = st.builds(Version, st.integers(1, 2), st.integers(0, 9), st.just(""))


def _event(new: _New, number: int) -> SpooledEvent:
    version = Version(new.attempt, new.hlc, f"{number:06}")
    body = {
        "event_id": version.event_id,
        "hlc": version.hlc,
        "run": {"id": new.run, "workflow_id": "w", "attempt": version.attempt, "result": "x" * new.padding},
    }
    message = Message(data=json.dumps(body).encode(), attributes={"ce-id": version.event_id})
    return SpooledEvent(("w", new.run), version, message)


def _size(event: SpooledEvent) -> int:
    return len(encode_record(event.message))


def _place(event: SpooledEvent) -> tuple[int, int]:
    return event.version.attempt, event.version.hlc


def _ids(events: Sequence[SpooledEvent]) -> list[str]:
    return sorted(event.version.event_id for event in events)


class _Directory:
    """Reads the directory as it is, without a spool."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def contents(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self._path.glob(f"*{SUFFIX}")}

    def waiting(self) -> list[str]:
        """Return the ids of the events that are on disk and not settled."""
        lines = (line for text in self.contents().values() for line in text.splitlines(keepends=True))
        waiting = [line for line in lines if line.startswith(b"+") and line.endswith(b"\n")]
        return sorted(json.loads(line.rpartition(b"\t")[2])["event_id"] for line in waiting)

    def torn(self) -> int:
        """Return how many files end in the middle of a record of which nobody has taken notice."""
        ends = [content.rpartition(b"\n")[2] for content in self.contents().values()]
        return sum(end.startswith(b"+") for end in ends)

    def size(self) -> int:
        return sum(map(len, self.contents().values()))


class SpoolMachine(RuleBasedStateMachine):
    """Drives one spool after another in a directory, and a list of what has to be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = _Directory(Path(self.temporary.name))
        self.made = 0
        self.left: list[SpooledEvent] = []
        self.bound = _ALL
        self.open(_ALL)

    def open(self, bound: int) -> None:
        """Have a new spool, which has not looked at what is there."""
        self.spool = Spool(self.temporary.name, max_bytes=bound)
        self.bound = bound
        self.known: list[SpooledEvent] = []
        self.taken: list[SpooledEvent] = []
        self.has_looked = False
        self.lost = self.corrupt = 0

    def events(self, news: Sequence[_New]) -> list[SpooledEvent]:
        """Return new events, none of which is another one's."""
        self.made += len(news)
        return [_event(new, self.made - number) for number, new in enumerate(news)]

    def on_disk(self) -> list[SpooledEvent]:
        """Return what the model has on disk."""
        return [*self.left, *self.known]

    @rule(news=_batches, elsewhere=st.dictionaries(st.sampled_from("abc"), _versions))
    def append(self, news: list[_New], elsewhere: dict[str, Version]) -> None:
        """What is written is there, but for what had to make room, which is what mattered least."""
        events = self.events(news)
        before = self.directory.size()

        self.spool.append(events, newer=lambda: {("w", run): version for run, version in elsewhere.items()})

        there = set(self.directory.waiting())
        gone = [event for event in (*self.known, *events) if event.version.event_id not in there]
        self.known = [event for event in (*self.known, *events) if event.version.event_id in there]
        self.lost += len(gone)
        self.check_loss(gone, events, before, dict(elsewhere))
        # What is left and what is being delivered is all that may stand in the way.
        kept = [event for event in self.known if event not in self.taken]
        assert self.directory.size() <= (self.bound if kept else max(self.bound, before))

    def check_loss(
        self,
        gone: Sequence[SpooledEvent],
        new: Sequence[SpooledEvent],
        before: int,
        newest: dict[str, Version],
    ) -> None:
        """Check that no more is lost than has to be, and nothing before what matters less."""
        candidates = [event for event in (*self.known, *gone) if event not in self.taken]
        # What never fits goes alone.
        candidates = [event for event in candidates if _size(event) <= self.bound or event not in new]
        for event in candidates:
            newest[event.key[1]] = max(event.version, newest.get(event.key[1], event.version))
        candidates.sort(key=lambda event: (event.version == newest[event.key[1]], event.version))
        lost = [event for event in candidates if event in gone]
        assert candidates[: len(lost)] == lost
        if lost:
            excess = before + sum(_size(event) for event in new if event in candidates) - self.bound
            more = min(self.bound, sum(map(_size, candidates))) // ROOM_MADE
            assert excess > 0
            assert sum(map(_size, lost[:-1])) < excess + more

    @rule(events=st.integers(0, 8), data_bytes=st.sampled_from([0, 300, 1_000, _ALL]))
    def next_batch(self, events: int, data_bytes: int) -> None:
        """A batch is the earliest of all there is, in order, and as much of it as is asked for."""
        if not self.has_looked:
            self.has_looked = True
            self.corrupt += self.directory.torn()
            self.known, self.left = self.on_disk(), []

        self.taken = self.spool.next_batch(events=events, data_bytes=data_bytes)

        order = sorted(map(_place, self.known))
        count = len(self.taken)
        assert order[:count] == [*map(_place, self.taken)]
        assert set(_ids(self.taken)) <= set(_ids(self.known))
        assert count <= events
        assert count <= 1 or sum(map(_size, self.taken)) <= data_bytes
        if events:
            assert bool(self.taken) is bool(self.known)

    @rule(part=st.none() | st.sets(st.integers(0, 7)))
    def settle(self, part: set[int] | None) -> None:
        """What is settled is gone for good; what is not of a batch is still being delivered."""
        events = [event for number, event in enumerate(self.taken) if part is None or number in part]

        self.spool.settle(None if part is None else events)

        settled = _ids(events)
        self.known = [event for event in self.known if event.version.event_id not in settled]
        self.taken = [event for event in self.taken if event.version.event_id not in settled]

    @rule(bound=_bounds)
    def close_and_reopen(self, bound: int) -> None:
        """Another spool, with more room or less, finds what the last one leaves, settled or not."""
        left = self.on_disk()
        self.spool.close()

        self.open(bound)
        self.left = left

    @precondition(lambda self: self.bound == _ALL)
    @rule(news=st.lists(_news, min_size=1, max_size=6), share=st.floats(0, 1))
    def crash_in_an_append(self, news: list[_New], share: float) -> None:
        """A process that dies while it writes, after any byte, loses what it had not written."""
        events = self.events(news)
        before = self.directory.contents()
        self.spool.append(events)
        (path, content), *_ = self.directory.contents().items() - before.items()
        size = len(before.get(path, b""))
        cut = size + round(share * (len(content) - size))
        self.spool.close()
        path.write_bytes(content[:cut])

        left = [*self.on_disk(), *events]
        there = set(self.directory.waiting())
        for event in events:
            size += _size(event)
            assert (size <= cut) is (event.version.event_id in there)
        self.open(self.bound)
        self.left = [event for event in left if event.version.event_id in there]

    @invariant()
    def nothing_else_is_lost_or_there(self) -> None:
        """On disk is what was written and neither settled nor counted as lost or damaged, each once."""
        assert _ids(self.on_disk()) == self.directory.waiting()
        assert (len(self.known), self.lost, self.corrupt) == (
            self.spool.waiting,
            self.spool.lost,
            self.spool.corrupt,
        )

    def teardown(self) -> None:
        """All that was left comes back in one order, and leaves nothing but what cannot be read."""
        self.spool.close()
        spool = Spool(self.temporary.name)
        found: list[SpooledEvent] = []
        while batch := spool.next_batch(events=5, data_bytes=_ALL):
            found += batch
            spool.settle()

        assert sorted(map(_place, found)) == [*map(_place, found)]
        assert _ids(self.on_disk()) == _ids(found)
        contents = self.directory.contents()
        self.temporary.cleanup()
        assert [content for content in contents.values() if content.endswith(b"\n")] == []


@pytest.mark.search
def test_a_spool_is_like_the_model() -> None:
    """Whatever callers do, and wherever they crash, a spool holds what a plain list would."""
    run_state_machine_as_test(
        SpoolMachine,
        settings=settings(
            max_examples=scaled(50),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@dataclass(frozen=True)
class _Write:
    news: list[_New]


@dataclass(frozen=True)
class _Deliver:
    events: int


@dataclass(frozen=True)
class _End:
    """A process ends, in the middle of a delivery, and another one starts."""


_Step = _Write | _Deliver | _End
_steps: Final = st.one_of(
    st.builds(_Write, _batches),
    st.builds(_Deliver, st.integers(1, 5)),
    st.builds(_End),
)


@dataclass
class _Process:
    directory: Path
    bound: int
    clock: ManualClock
    lost: int = 0

    def __post_init__(self) -> None:
        self.spool = Spool(self.directory, max_bytes=self.bound, monotonic=self.clock.monotonic)

    def deliver(self, events: int) -> list[SpooledEvent]:
        batch = self.spool.next_batch(events=events, data_bytes=_ALL)
        self.spool.settle()
        return batch

    def end(self) -> None:
        self.spool.next_batch(events=2, data_bytes=_ALL)
        self.spool.close()
        self.lost += self.spool.lost
        self.__post_init__()


@examples(100)
@given(
    st.lists(st.tuples(st.integers(0, 2), _steps), max_size=40),
    st.sampled_from([1_000, 3_000, _ALL]),
    st.sampled_from([0.0, LOOK_AGAIN_SECONDS]),
)
def test_processes_share_a_directory(steps: list[tuple[int, _Step]], bound: int, wait: float) -> None:
    """Whatever several processes do in one directory, each event is delivered once, or lost and counted."""
    with tempfile.TemporaryDirectory() as name:
        clock = ManualClock()
        processes = [_Process(Path(name), bound, clock) for _ in range(3)]
        written: list[SpooledEvent] = []
        delivered: list[SpooledEvent] = []
        for number, step in steps:
            process = processes[number]
            clock.advance(wait)
            match step:
                case _Write(news):
                    events = [_event(new, len(written) + index) for index, new in enumerate(news)]
                    written += events
                    process.spool.append(events)
                case _Deliver(events):
                    delivered += process.deliver(events)
                case _End():
                    process.end()

            assert _Directory(Path(name)).size() <= bound
        for process in processes:
            process.end()
        # Those that started last hold nothing yet; one of them takes over what the others left.
        while batch := processes[0].deliver(100):
            delivered += batch
        for process in processes:
            process.spool.close()

        ids = _ids(delivered)
        assert len(ids) == len(set(ids))
        assert set(ids) <= set(_ids(written))
        assert len(written) == len(ids) + sum(process.lost for process in processes)
        assert list(Path(name).iterdir()) == []
