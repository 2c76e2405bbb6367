"""The spool directory: undelivered events on disk, bounded, until this process or a later one sends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from run_log.core import RunKey, SpoolError, Version

from ._segment import CAN_LOCK, Segment, SpooledEvent, directory_bytes, encode_record, segment_paths

DEFAULT_MAX_BYTES: Final = 64 * 2**20

SEGMENTS: Final = 16
"""How many segments a full directory has, about: a settled one frees its room."""

ROOM_MADE: Final = 8
"""Making room rewrites what stays: so this part of what a process has there goes besides."""

MAX_SEGMENTS: Final = 64
"""Segments that are open at a time; those that other processes left are taken over as far."""

LOOK_AGAIN_SECONDS: Final = 30.0
"""How often the directory is searched for segments of processes that have ended meanwhile."""

_Encoded: TypeAlias = tuple[SpooledEvent, bytes]


@dataclass(slots=True)
class _Place:
    """Where an event stands, and its order: without its id, which would take as much memory as all else."""

    attempt: int
    hlc: int
    segment: Segment
    offset: int
    size: int

    def __lt__(self, other: _Place) -> bool:
        return (self.attempt, self.hlc) < (other.attempt, other.hlc)


_Newer = Callable[[], Mapping[RunKey, Version]]


class _Candidate(NamedTuple):
    """An event that may have to go for others to fit."""

    key: RunKey
    version: Version
    size: int
    source: _Place | int
    """Where it is on disk, or which one it is of those that are to be written."""


class Spool:
    """A directory that keeps undelivered events. Not thread-safe; several processes may share a directory.

    Every file in it has one writer, which holds its lock; the bound is the directory's. What an ended process
    left is taken over by whoever looks next. Events come back in the order of their versions, at least once:
    an event is forgotten once it is settled, and a crash in between repeats it. A damaged record is lost
    alone. Nothing touches the disk before it is needed. On a platform without ``fcntl``, such as Windows,
    every use raises `SpoolError`.

    Args:
        directory: Made when it is needed, where it is not there. Events hold payloads: files are the
            user's own (mode 600).
        max_bytes: Most bytes of all files in it.
        monotonic: Seconds on a clock that never goes back.

    Attributes:
        lost: Events that there was no room for, so far.
        corrupt: Records found damaged, so far.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = Path(directory)
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self.lost = 0
        self.corrupt = 0
        self._start_empty()

    def _start_empty(self) -> None:
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._waiting: list[_Place] = []
        self._taken: list[tuple[SpooledEvent, _Place]] = []
        self._look_at: float | None = None

    @property
    def waiting(self) -> int:
        """Events on disk that are not settled, as far as this process has taken them over."""
        return len(self._waiting) + len(self._taken)

    @property
    def room(self) -> int:
        """Bytes that can be written without losing anything; 0 where the directory cannot be read."""
        try:
            return max(0, self._max_bytes - directory_bytes(self._directory))
        except FileNotFoundError:
            return self._max_bytes
        except OSError:
            return 0

    def append(self, events: Sequence[SpooledEvent], *, newer: _Newer = dict[RunKey, Version]) -> None:
        """Write *events*; they are durable when this returns, and none of them is on disk when it raises.

        Where the directory is full, events that a newer one of the same run supersedes go first, then the
        oldest, of these and of those on disk alike; `lost` counts them.

        Args:
            events: In any order.
            newer: Returns the newest version of each run that is held elsewhere: it supersedes, too.

        Raises:
            SpoolError: The disk does not take them.
        """
        with self._errors():
            self._make_directory()
            new = [(event, encode_record(event.message)) for event in events]
            # What never fits displaces nothing.
            new = [(event, record) for event, record in new if len(record) <= self._max_bytes]
            size = sum(len(record) for _, record in new)
            excess = directory_bytes(self._directory) + size - self._max_bytes
            if excess > 0:
                new = self._make_room(new, excess, newer)
            if new:
                segment, offsets = self._write([record for _, record in new])
                for (event, record), offset in zip(new, offsets, strict=True):
                    self._place(event.version, segment, offset, len(record))
            self.lost += len(events) - len(new)  # not before: where this raises, they are the caller's still

    def next_batch(self, *, events: int, data_bytes: int) -> list[SpooledEvent]:
        """Return the earliest events on disk, which stay there until `settle`; the same ones until then.

        Args:
            events: Most of them.
            data_bytes: Most bytes of them, unless the first alone is larger.

        Raises:
            SpoolError: The disk does not answer.
        """
        with self._errors():
            self._put_back()
            self._look()
            batch: list[SpooledEvent] = []
            while self._waiting and len(batch) < events:
                data_bytes -= self._waiting[0].size
                if batch and data_bytes < 0:
                    break
                event = self._take()
                if event is not None:
                    batch.append(event)
            return batch

    def settle(self, events: Iterable[SpooledEvent] | None = None) -> None:
        """Forget what the last batch returned: it is delivered, or given up.

        Args:
            events: Those of the batch that are, the very objects; None for all.

        Raises:
            SpoolError: The disk does not take it; after a restart those events come again.
        """
        settled = None if events is None else set(map(id, events))
        taken, self._taken = self._taken, []
        places: list[_Place] = []
        for event, place in taken:
            if settled is None or id(event) in settled:
                places.append(place)
            else:
                self._taken.append((event, place))
        with self._errors():
            for place in places:
                self._settle(place)

    def close(self) -> None:
        """Let go of the directory; what is there stays, for the next start. Twice is fine."""
        for segment in self._segments:
            segment.close()
        self._start_empty()

    def _look(self) -> None:
        """Take over what ended processes left: at first, and now and then while there is nothing else."""
        now = self._monotonic()
        if self._look_at is not None and (self._waiting or now < self._look_at):
            return
        self._make_directory()
        self._look_at = now + LOOK_AGAIN_SECONDS
        own = {segment.path for segment in self._segments}
        for path in segment_paths(self._directory):
            if len(self._segments) >= MAX_SEGMENTS:
                self._look_at = now
                return
            if path not in own:
                self._adopt(path)

    def _make_directory(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _adopt(self, path: Path) -> None:
        segment = Segment.adopt(path)
        if segment is None:
            return
        try:
            for record in segment.scan():
                if record is None:
                    self.corrupt += 1
                else:
                    self._place(record.event.version, segment, record.offset, record.size)
        except OSError:
            segment.close()  # for whoever looks next
            raise
        self._segments.append(segment)
        self._remove_if_settled(segment)

    def _place(self, version: Version, segment: Segment, offset: int, size: int) -> None:
        heappush(self._waiting, _Place(version.attempt, version.hlc, segment, offset, size))

    def _take(self) -> SpooledEvent | None:
        place = self._waiting[0]
        event = place.segment.read(place.offset, place.size)
        heappop(self._waiting)
        if event is None:
            self.corrupt += 1
            self._settle(place)
        else:
            self._taken.append((event, place))
        return event

    def _put_back(self) -> None:
        self._waiting += (place for _, place in self._taken)
        self._taken.clear()
        heapify(self._waiting)

    def _settle(self, place: _Place) -> None:
        place.segment.settle(place.offset)
        self._remove_if_settled(place.segment)

    def _remove_if_settled(self, segment: Segment) -> None:
        if segment.waiting:
            return
        self._segments.remove(segment)
        if segment is self._current:
            self._current = None
        segment.remove()

    def _write(self, records: Sequence[bytes]) -> tuple[Segment, list[int]]:
        segment = self._current
        if segment is None or segment.is_deleted or segment.size * SEGMENTS >= self._max_bytes:
            self._current = segment = Segment.create(self._directory)
            self._segments.append(segment)
        try:
            return segment, segment.append(records)
        finally:
            self._remove_if_settled(segment)  # a new one that nothing could be written to

    def _make_room(self, new: list[_Encoded], excess: int, newer: _Newer) -> list[_Encoded]:
        """Free *excess* bytes, and return which of the *new* ones are to be written."""
        short = excess - self._settled_bytes()
        if short > 0:
            new = self._lose(new, short, dict(newer()))
        for segment in list(self._segments):
            self._rewrite(segment)
        return new

    def _lose(self, new: list[_Encoded], short: int, newest: dict[RunKey, Version]) -> list[_Encoded]:
        """Forget what matters least, of *short* bytes and more, and return which of the *new* ones stay."""
        candidates = [
            _Candidate(event.key, event.version, len(record), number)
            for number, (event, record) in enumerate(new)
        ]
        damaged: list[_Place] = []
        for place in self._waiting:
            event = place.segment.read(place.offset, place.size)
            if event is None:
                damaged.append(place)
                short -= place.size
            else:
                candidates.append(_Candidate(event.key, event.version, place.size, place))
        more = min(self._max_bytes, sum(candidate.size for candidate in candidates)) // ROOM_MADE
        gone = _least(candidates, short + more, newest) if short > 0 else []
        places = [source for source in gone if isinstance(source, _Place)]
        numbers = {source for source in gone if isinstance(source, int)}
        self.corrupt += len(damaged)
        self.lost += len(places)
        self._forget([*damaged, *places])
        return [one for number, one in enumerate(new) if number not in numbers]

    def _forget(self, places: Sequence[_Place]) -> None:
        gone = set(map(id, places))
        self._waiting = [place for place in self._waiting if id(place) not in gone]
        heapify(self._waiting)
        for place in places:
            self._settle(place)

    def _settled_bytes(self) -> int:
        """Return the bytes that rewriting would free."""
        held = sum(segment.size for segment in self._segments)
        return held - sum(place.size for place in self._places())

    def _places(self) -> list[_Place]:
        return [*self._waiting, *(place for _, place in self._taken)]

    def _rewrite(self, segment: Segment) -> None:
        """Have what waits in *segment* stand in another one, without what is settled in between."""
        places = [place for place in self._places() if place.segment is segment]
        if sum(place.size for place in places) == segment.size:
            return
        if segment is self._current:
            self._current = None
        other, offsets = self._write([place.segment.read_bytes(place.offset, place.size) for place in places])
        for place, offset in zip(places, offsets, strict=True):
            place.segment, place.offset = other, offset
        segment.waiting = 0
        self._remove_if_settled(segment)

    @contextmanager
    def _errors(self) -> Generator[None]:
        if not CAN_LOCK:
            raise SpoolError(
                f"the spool directory {self._directory} cannot be used: it needs file locks (fcntl), which "
                "this platform does not have; unset RUN_LOG_SPOOL_DIR"
            )
        try:
            yield
        except OSError as error:
            raise SpoolError(
                f"the spool directory {self._directory} cannot be used: {error}; "
                "make it writable, free space, or set RUN_LOG_SPOOL_DIR to another one"
            ) from error


def _least(candidates: list[_Candidate], excess: int, newest: dict[RunKey, Version]) -> list[_Place | int]:
    """Return those of *candidates* that matter least, of *excess* bytes together: all, if it takes all."""
    for candidate in candidates:
        newest[candidate.key] = max(candidate.version, newest.get(candidate.key, candidate.version))
    candidates.sort(key=lambda candidate: (candidate.version == newest[candidate.key], candidate.version))
    gone: list[_Place | int] = []
    for candidate in candidates:
        if excess <= 0:
            break
        excess -= candidate.size
        gone.append(candidate.source)
    return gone
