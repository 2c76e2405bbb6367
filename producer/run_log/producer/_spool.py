"""The spool directory: undelivered events on disk, bounded, until this process or a later one sends them."""

from __future__ import annotations

import errno
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from run_log.core import Message, SpoolError, Version
from run_log.core.logs import get_logger
from run_log.core.models import RunKey
from run_log.stores.files import make_private_directory, why_others_may_change

from ._segment import CAN_LOCK, Segment, SpooledEvent, directory_bytes, encode_record, segment_paths

DEFAULT_MAX_BYTES: Final = 64 * 2**20

SEGMENTS: Final = 16
"""How many segments a full directory has, about: a settled one frees its room."""

ROOM_MADE: Final = 8
"""Making room rewrites what stays: so this part of what a process has there goes besides."""

MAX_SEGMENTS: Final = 64
"""Segments that are open at a time; those that other processes left are taken over as far."""

MAX_ASIDE_SEGMENTS: Final = 8
"""Of those, the ones in which all that waits stands aside: where there are more, they become one."""

LOOK_AGAIN_SECONDS: Final = 30.0
"""How often the directory is searched for segments of processes that have ended meanwhile."""

ASIDE_SECONDS: Final = 600.0
"""How long an event that was refused stands aside before it is tried again; a later process tries at once."""

# What a process is out of: no fault of the file's.
_OUT_OF: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_WAITING: Final = -math.inf
_NEVER: Final = math.inf

_Encoded: TypeAlias = tuple[SpooledEvent, bytes]
_logger: Final = get_logger("run_log.producer")


class _HasMessage(Protocol):
    """A `SpooledEvent`, or what was made of one."""

    @property
    def message(self) -> Message | None: ...


@dataclass(slots=True)
class _Place:
    """Where an event stands, and its order: without its id, which would take as much memory as all else."""

    attempt: int
    hlc: int
    segment: Segment
    offset: int
    size: int
    until: float = _WAITING
    """When it is tried again, where it stands aside; never, where it cannot be read."""

    @classmethod
    def of(
        cls, event: SpooledEvent | None, segment: Segment, offset: int, size: int, until: float = _WAITING
    ) -> _Place:
        attempt, hlc = (event.version.attempt, event.version.hlc) if event else (0, 0)
        return cls(attempt, hlc, segment, offset, size, until if event else _NEVER)

    def __lt__(self, other: _Place) -> bool:
        return (self.attempt, self.hlc) < (other.attempt, other.hlc)


class Spool:
    """A directory that keeps undelivered events. Not thread-safe; several processes may share a directory.

    Every file in it has one writer, which holds its lock; the bound is the directory's. What an ended process
    left is taken over by whoever looks next. Events come back in the order of their versions, at least once:
    an event is forgotten once it is settled, and a crash in between repeats it. What is refused stands aside
    and holds up nothing; it comes back after a while, when nothing else waits. What cannot be read stays on
    disk, for a version that can, until its room is needed. What is no file of this user's own is left alone.
    Nothing touches the disk before it is needed. On a platform without ``fcntl``, such as Windows, every use
    raises `SpoolError`.

    The directory is made when it is needed, and takes *max_bytes* in all. Events hold payloads: files are the
    user's own (mode 600). What is refused stands aside for *aside_seconds*.

    Attributes:
        lost: Events that there was no room for, so far.
        corrupt: Records found that cannot be read, so far; none that an earlier process had found.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
        aside_seconds: float = ASIDE_SECONDS,
    ) -> None:
        self._directory = Path(directory)
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._aside_seconds = aside_seconds
        self._foreign: set[str] = set()
        self._is_known = False
        self.lost = 0
        self.corrupt = 0
        self._start_empty()

    def _start_empty(self) -> None:
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._waiting: list[_Place] = []
        self._aside: list[_Place] = []
        self._taken: list[tuple[SpooledEvent, _Place]] = []
        self._look_at: float | None = None

    @property
    def waiting(self) -> int:
        """Events on disk that are to be sent, as far as this process has taken them over."""
        return len(self._waiting) + len(self._taken)

    @property
    def aside(self) -> int:
        """Events on disk that were refused and stand aside, likewise."""
        return sum(place.until < _NEVER for place in self._aside)

    @property
    def room(self) -> int:
        """Bytes that can be written without losing anything; 0 where the directory cannot be read."""
        try:
            return max(0, self._max_bytes - directory_bytes(self._directory))
        except FileNotFoundError:
            return self._max_bytes
        except OSError:
            return 0

    def append(
        self,
        events: Sequence[SpooledEvent],
        *,
        newer: Callable[[], Mapping[RunKey, Version]] = dict[RunKey, Version],
        is_aside: bool = False,
    ) -> None:
        """Write *events*; they are durable when this returns, and none of them is on disk when it raises.

        Where the directory is full, events that a newer one of the same run supersedes go first, then the
        oldest, of these and of those on disk alike; `lost` counts them.

        Args:
            events: In any order.
            newer: Returns the newest version of each run that is held elsewhere: it supersedes, too.
            is_aside: Whether they were refused, and stand aside.

        Raises:
            SpoolError: The disk does not take them.
        """
        with self._errors():
            self._make_directory()
            new = [(event, encode_record(event.message, is_aside=is_aside)) for event in events]
            # What never fits displaces nothing.
            new = [(event, record) for event, record in new if len(record) <= self._max_bytes]
            size = sum(len(record) for _, record in new)
            excess = directory_bytes(self._directory) + size - self._max_bytes
            if excess > 0:
                new = self._make_room(new, excess, newer)
            if new:
                until = self._monotonic() + self._aside_seconds if is_aside else _WAITING
                segment, offsets = self._write([record for _, record in new])
                for (event, record), offset in zip(new, offsets, strict=True):
                    self._keep(_Place.of(event, segment, offset, len(record), until))
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
            self._bring_back()
            batch: list[SpooledEvent] = []
            while self._waiting and len(batch) < events:
                data_bytes -= self._waiting[0].size
                if batch and data_bytes < 0:
                    break
                event = self._take()
                if event is not None:
                    batch.append(event)
            return batch

    def settle(self, events: Iterable[_HasMessage] | None = None) -> None:
        """Forget what the last batch returned: it is delivered, or given up.

        Args:
            events: Those of the batch that are, with the very messages; None for all.

        Raises:
            SpoolError: The disk does not take it; after a restart those events come again.
        """
        places = self._untaken(events)
        with self._errors():
            for place in places:
                self._settle(place)

    def set_aside(self, events: Iterable[_HasMessage]) -> None:
        """Have some of the last batch stand aside: they are refused, and hold up no other any more.

        Args:
            events: Those of the batch that are, with the very messages.

        Raises:
            SpoolError: The disk does not take it; only this process knows that they stand aside.
        """
        places = self._untaken(events)
        for place in places:
            place.until = self._monotonic() + self._aside_seconds
        self._aside += places
        with self._errors():
            for place in places:
                place.segment.set_aside(place.offset)
            self._gather_aside()

    def _untaken(self, events: Iterable[_HasMessage] | None) -> list[_Place]:
        """Return where *events* stand, which are of the last batch no more; None is all of it."""
        taken, self._taken = self._taken, []
        if events is not None:
            leaving = {id(event.message) for event in events}
            self._taken = [one for one in taken if id(one[0].message) not in leaving]
            taken = [one for one in taken if id(one[0].message) in leaving]
        return [place for _, place in taken]

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
        foreign: dict[str, str] = {}
        for path in segment_paths(self._directory):
            if len(self._segments) >= MAX_SEGMENTS:
                self._look_at = now
                break
            if path not in own:
                try:
                    self._adopt(path)
                except OSError as error:
                    if error.errno in _OUT_OF:
                        raise
                    foreign[path.name] = str(error.strerror or error)
        self._gather_aside()
        self._tell_foreign(foreign)

    def _tell_foreign(self, foreign: Mapping[str, str]) -> None:
        """Say once of each file that it is left alone; one line, however many somebody has put there."""
        news = sorted(foreign.keys() - self._foreign)
        self._foreign = set(foreign)
        if news:
            _logger.warning(
                "run_log_spool_files_left_alone",
                directory=str(self._directory),
                count=len(news),
                first=news[0],
                why=foreign[news[0]],
                hint="only regular files of this user's own are opened, which nobody else may write; "
                "see who put them there, then delete them or give them back to their owner",
            )

    def _make_directory(self) -> None:
        make_private_directory(self._directory)
        if not self._is_known:
            self._is_known = True
            why = why_others_may_change(self._directory.stat())
            if why:
                _logger.warning(
                    "run_log_spool_directory_open",
                    directory=str(self._directory),
                    why=why,
                    hint="whoever may change it may delete what is in it; give it to this user alone",
                )

    def _adopt(self, path: Path) -> None:
        segment = Segment.adopt(path)
        if segment is None:
            return
        try:
            records = segment.scan()
        except OSError:
            segment.close()  # for whoever looks next
            raise
        self._segments.append(segment)
        for record in records:
            until = self._monotonic() if record.is_aside else _WAITING
            place = _Place.of(record.event, segment, record.offset, record.size, until)
            if record.event is None and not record.is_aside:
                self._find_damaged(place)
            self._keep(place)
        self._remove_if_settled(segment)

    def _keep(self, place: _Place) -> None:
        if place.until == _WAITING:
            heappush(self._waiting, place)
        else:
            self._aside.append(place)

    def _find_damaged(self, place: _Place) -> None:
        """Count what cannot be read, and have it stay where it is: no later process counts it again."""
        place.until = _NEVER
        self.corrupt += 1
        with suppress(OSError):  # then the next process counts it again
            place.segment.set_aside(place.offset)

    def _bring_back(self) -> None:
        """Have what stood aside long enough be tried again, once nothing else waits."""
        if not self._waiting:
            now = self._monotonic()
            self._waiting = [place for place in self._aside if place.until <= now]
            self._aside = [place for place in self._aside if place.until > now]
            heapify(self._waiting)

    def _gather_aside(self) -> None:
        """Have what stands aside be in few files: those that hold nothing else are in the way of others."""
        alone = Counter(id(place.segment) for place in self._aside)
        files = [
            segment
            for segment in self._segments
            if alone[id(segment)] == segment.waiting and segment.size * SEGMENTS < self._max_bytes
        ]
        if len(files) > MAX_ASIDE_SEGMENTS:
            with suppress(OSError):  # then they stay where they are
                for segment in files:
                    self._rewrite(segment)

    def _take(self) -> SpooledEvent | None:
        place = self._waiting[0]
        event = place.segment.read(place.offset, place.size)
        heappop(self._waiting)
        if event is None:
            self._find_damaged(place)
            self._aside.append(place)
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

    def _make_room(
        self, new: list[_Encoded], excess: int, newer: Callable[[], Mapping[RunKey, Version]]
    ) -> list[_Encoded]:
        """Free *excess* bytes, and return which of the *new* ones are to be written."""
        # Rewriting alone frees what is settled.
        settled = sum(segment.size for segment in self._segments) - sum(_sizes(self._places()))
        if excess > settled:
            new = self._lose(new, excess - settled, dict(newer()))
        places = self._places()
        for segment in list(self._segments):
            if sum(_sizes(place for place in places if place.segment is segment)) < segment.size:
                self._rewrite(segment)
        return new

    def _lose(self, new: list[_Encoded], short: int, newest: dict[RunKey, Version]) -> list[_Encoded]:
        """Forget what matters least, of *short* bytes and more, and return which of the *new* ones stay."""
        # Without the messages: they would take as much memory as the directory takes disk.
        candidates: list[tuple[RunKey, Version, int, _Place | int]] = [
            (event.key, event.version, len(record), number) for number, (event, record) in enumerate(new)
        ]
        for place in (*self._waiting, *self._aside):
            event = place.segment.read(place.offset, place.size)
            if event is not None:
                candidates.append((event.key, event.version, place.size, place))
            elif place.until < _NEVER:
                self._find_damaged(place)
        gone = [place for place in (*self._waiting, *self._aside) if place.until == _NEVER]
        short -= sum(_sizes(gone))
        for key, version, *_ in candidates:
            newest[key] = max(version, newest.get(key, version))
        candidates.sort(key=lambda one: (one[1] == newest[one[0]], one[1]))
        if short > 0:
            short += min(self._max_bytes, sum(size for _, _, size, _ in candidates)) // ROOM_MADE
        lost: set[int] = set()
        for _, _, size, source in candidates:
            if short <= 0:
                break
            short -= size
            if isinstance(source, int):
                lost.add(source)
            else:
                self.lost += 1
                gone.append(source)
        self._forget(gone)
        return [one for number, one in enumerate(new) if number not in lost]

    def _forget(self, places: Sequence[_Place]) -> None:
        gone = set(map(id, places))
        self._waiting = [place for place in self._waiting if id(place) not in gone]
        heapify(self._waiting)
        self._aside = [place for place in self._aside if id(place) not in gone]
        for place in places:
            self._settle(place)

    def _places(self) -> list[_Place]:
        return [*self._waiting, *(place for _, place in self._taken), *self._aside]

    def _rewrite(self, segment: Segment) -> None:
        """Have what waits in *segment* stand in another one, without what is settled in between."""
        places = [place for place in self._places() if place.segment is segment]
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


def _sizes(places: Iterable[_Place]) -> list[int]:
    return [place.size for place in places]
