from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from run_log.core import Version
from run_log.core.models import RunKey
from run_log.producer._capture import Entry
from run_log.producer._held import BufferLimits, EventBuffer

from .core_strategies import examples


@dataclass(frozen=True)
class _Add:
    run: str
    hlc: int
    size: int
    is_twin: bool = False
    """Whether others have its version too: made by a publisher that is at fault."""


@dataclass(frozen=True)
class _Take:
    events: int
    data_bytes: int


_adds = st.builds(
    _Add,
    run=st.sampled_from("abc"),
    hlc=st.integers(0, 5),
    size=st.integers(min_value=1, max_value=20),
    is_twin=st.booleans(),
)
_takes = st.builds(_Take, events=st.integers(1, 4), data_bytes=st.integers(0, 40))
_limits = st.builds(BufferLimits, events=st.integers(0, 6), data_bytes=st.integers(0, 80))


def _size(entry: Entry) -> int:
    return entry.size


@dataclass
class _Watched:
    """A buffer beside a plain list of what has to be in it; every step is checked."""

    limits: BufferLimits
    waiting: list[Entry] = field(default_factory=list[Entry])
    superseded: set[int] = field(default_factory=set[int])
    newest: dict[RunKey, Version] = field(default_factory=dict[RunKey, Version])
    """Of each run of which any event waits; it may be of one that was taken."""
    added: int = 0
    dropped: int = 0
    taken: list[Entry] = field(default_factory=list[Entry])

    def __post_init__(self) -> None:
        self.buffer = EventBuffer(self.limits)

    def add(self, step: _Add) -> None:
        self.added += 1
        version = Version(1, step.hlc, "" if step.is_twin else f"{self.added:06}")
        entry = Entry(("w", step.run), version, step.size, None)
        entry.number = self.added
        dropped = self.buffer.add(entry)
        self.waiting.append(entry)
        newest = self.newest[entry.key] = max(version, self.newest.get(entry.key, version))
        siblings = [other for other in self.waiting if other.key == entry.key]
        self.superseded |= {other.number for other in siblings if other.version != newest}
        for lost in dropped:
            self._check_drop(lost)
            self._remove(lost)
        self.dropped += len(dropped)

    def take(self, step: _Take) -> None:
        taken = self.buffer.take(events=step.events, data_bytes=step.data_bytes)
        assert taken == self.waiting[: len(taken)]
        assert bool(taken) is bool(self.waiting)
        assert len(taken) <= step.events
        assert len(taken) <= 1 or sum(map(_size, taken)) <= step.data_bytes
        for entry in taken:
            self._remove(entry)
        self.taken += taken

    def _remove(self, entry: Entry) -> None:
        self.waiting.remove(entry)
        self.superseded.discard(entry.number)
        if entry.key not in {other.key for other in self.waiting}:
            del self.newest[entry.key]

    def _check_drop(self, lost: Entry) -> None:
        """Nothing goes while there is room, and no run's newest event while a superseded one waits."""
        total = sum(map(_size, self.waiting))
        assert len(self.waiting) > self.limits.events or total > self.limits.data_bytes
        if self.superseded:
            assert lost.number in self.superseded
        else:
            assert lost is self.waiting[0]


_NEWEST_TAKEN_FIRST: Final[list[_Add | _Take]] = [
    *(_Add("a", hlc, 1) for hlc in (0, 2, 1)),
    *(_Take(1, 0), _Take(1, 0)),
    *(_Add("b", 0, 17), _Add("a", 0, 2)),
]
"""The newest of a run is taken before an older one, then a still older one comes."""


@examples(150)
@example(BufferLimits(events=3, data_bytes=18), _NEWEST_TAKEN_FIRST)
@given(_limits, st.lists(st.one_of(_adds, _adds, _takes), max_size=60))
def test_what_is_lost_matters_least(limits: BufferLimits, steps: list[_Add | _Take]) -> None:
    """Under any adds and takes the counters add up, order is kept, and the newest of a run goes last."""
    watched = _Watched(limits)

    for step in steps:
        if isinstance(step, _Add):
            watched.add(step)
        else:
            watched.take(step)

        assert len(watched.waiting) == len(watched.buffer)
        assert watched.added == watched.dropped + len(watched.taken) + len(watched.buffer)
        assert (watched.waiting[0].number if watched.waiting else None) == watched.buffer.oldest()
        assert len(watched.buffer) <= limits.events
        assert sum(map(_size, watched.waiting)) <= limits.data_bytes
    numbers = [entry.number for entry in watched.taken]
    assert sorted(numbers) == numbers
