"""The messages in hand: how many, for how long, how many more may come, which may be projected now."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from opentelemetry import metrics

from run_log.core import utc_now
from run_log.core.models import RunKey

meter: Final = metrics.get_meter("run_log.projector")
_returned: Final = meter.create_counter(
    "run_log.projector.returned", unit="{message}", description="Messages to be delivered again"
)
_in_hand: Final = meter.create_up_down_counter(
    "run_log.projector.in_hand", unit="{message}", description="Messages taken and not yet settled"
)


def count(counter: metrics.Counter | metrics.UpDownCounter, amount: int = 1, **labels: str) -> None:
    """Add to *counter*."""
    # An exporter may run any code. An exception from it must not change what becomes of a message.
    with contextlib.suppress(Exception):
        counter.add(amount, labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """How much is projected together, and how much is in hand."""

    batch: int = 500
    """Most messages projected together."""
    batch_bytes: int = 3 * 2**20
    """Most bytes of their bodies."""
    in_flight: int = 3
    """Most batches under way at a time."""
    gather_seconds: float = 0.02
    """How long messages wait for others while a batch is under way. With no batch under way, none waits."""
    messages: int = 2_000
    """No more messages are taken once so many are in hand: the batches under way, and one that waits. After
    a process is killed, nobody else gets these messages until their leases end."""
    data_bytes: int = 16 * 2**20
    """No more messages are taken once the bodies in hand have so many bytes."""
    decoded_bytes: int = 96 * 2**20
    """Most memory for decoded messages, as `decoded_size` estimates it. The others wait undecoded. A message
    larger than this is decoded alone."""
    deliveries: int = 45
    """A message with so many deliveries is dead-lettered without another try. It ends every projector that
    takes it, or nothing could be projected for hours. The number is below 50, at which Pub/Sub itself gives
    a message up, so that the letter says why."""


def decoded_size(body: bytes) -> int:
    """Return an upper estimate of the memory that *body*, JSON, takes once it is decoded."""
    # Decoded text takes up to four times its bytes, empty objects thirty times.
    return (
        4 * len(body)
        + 48 * body.count(b",")
        + 64 * (body.count(b"[") + body.count(b"{"))
        + 104 * body.count(b":")
    )


_LIMITS: Final = GroupLimits()


class _Held(NamedTuple):
    published_at: datetime | None
    size: int


class Progress:
    """Which messages are in hand, for how long, whether any of them gets settled, and how many more may come.

    Args:
        limits: How much may be in hand.
        now: Monotonic seconds.
        utc_now: The wall clock, to tell how old a message is.
    """

    def __init__(
        self,
        limits: GroupLimits = _LIMITS,
        *,
        now: Callable[[], float],
        utc_now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._limits = limits
        self._now = now
        self._utc_now = utc_now
        self._tokens = itertools.count()
        self._held: dict[int, _Held] = {}
        self._decoded: dict[int, int] = {}
        self._decoded_bytes = self._reserved = 0
        self._moved_at = now()
        self.in_hand_bytes = 0
        """Bytes of the bodies in hand."""
        _watched.add(self)

    @property
    def in_hand(self) -> int:
        """Messages taken and not yet settled."""
        return len(self._held)

    def taken(self, published_at: datetime | None, size: int) -> int:
        """Count a message as in hand from now on, and return a token that identifies it."""
        if not self._held:
            self._moved_at = self._now()
        token = next(self._tokens)
        self._held[token] = _Held(published_at, size)
        self.in_hand_bytes += size
        count(_in_hand)
        return token

    def settled(self, token: int, *, returned: bool) -> bool:
        """Count the message of *token* as no longer in hand; return False if it was not."""
        held = self._held.pop(token, None)
        if held is None:
            return False
        self.in_hand_bytes -= held.size
        self._moved_at = self._now()
        count(_in_hand, -1)
        if returned:
            count(_returned)
        return True

    def oldest_age(self) -> float:
        """Return the seconds since the oldest message in hand was published; 0 with nothing in hand."""
        # A reader of metrics calls this in a thread of its own, so the values are copied in one step first.
        published = [held.published_at for held in list(self._held.values()) if held.published_at is not None]
        if not published:
            return 0.0
        return max(0.0, (self._utc_now() - min(published)).total_seconds())

    def stuck_for(self) -> float:
        """Return for how many seconds something was in hand and nothing was settled."""
        return self._now() - self._moved_at if self._held else 0.0

    @property
    def is_full(self) -> bool:
        """Whether no more messages should come."""
        return 0 in self.room_left or self._decoded_bytes >= self._limits.decoded_bytes

    @property
    def room_left(self) -> tuple[int, int]:
        """Messages and bytes that may still come."""
        limits = self._limits
        return max(0, limits.messages - self.in_hand), max(0, limits.data_bytes - self.in_hand_bytes)

    @contextlib.contextmanager
    def reserving(self) -> Generator[Callable[[int], bool]]:
        """Reserve room for one body that is about to come, as `GroupCommit.reserving` does."""
        mine = 0

        def has_room(size: int) -> bool:
            nonlocal mine
            others = self._reserved - mine + self.in_hand_bytes
            # With nothing else in hand any size fits: otherwise a message above the limit could never come.
            if others and others + size > self._limits.data_bytes:
                return False
            self._reserved += size - mine
            mine = size
            return True

        try:
            yield has_room
        finally:
            self._reserved -= mine

    def decode(self, token: int, body: bytes) -> bool:
        """Count *body* as decoded from now on; return False if other messages have to be done first."""
        size = decoded_size(body)
        if self._decoded_bytes and self._decoded_bytes + size > self._limits.decoded_bytes:
            return False
        self._decoded[token] = size
        self._decoded_bytes += size
        return True

    def forget(self, token: int) -> None:
        """Count the message of *token* as no longer decoded, if it was."""
        self._decoded_bytes -= self._decoded.pop(token, 0)


_watched: Final[weakref.WeakSet[Progress]] = weakref.WeakSet()


def _observe_lag(_options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
    ages = [progress.oldest_age() for progress in list(_watched)]
    return [metrics.Observation(max(ages))] if ages else []


meter.create_observable_gauge(
    "run_log.projector.lag",
    [_observe_lag],
    unit="s",
    description="Age of the oldest message in hand, since it was published",
)


class Sized(Protocol):
    """What lanes hold: something about one run."""

    @property
    def key(self) -> RunKey:
        """The run."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


ItemT = TypeVar("ItemT", bound=Sized)


class Lanes(Generic[ItemT]):
    """One lane for each run. A batch takes all that waits in a lane, and bars the lane until it is done.

    So no two batches under way hold the same run, however many there are.
    """

    # Two commits in flight with one run would race for its document: one of them is refused, and its whole
    # batch is read and written again. A fixed number of lanes, to which runs are given by hash, was rejected:
    # a small pull would become one small commit for each lane, each with a write to the same stats (ADR 12).

    def __init__(self) -> None:
        self._waiting: dict[RunKey, deque[ItemT]] = {}
        self._barred: dict[RunKey, deque[ItemT]] = {}
        self.ready = 0
        """Items that a batch could take now."""

    def add(self, item: ItemT) -> None:
        """Put *item* at the end of its run's lane."""
        barred = self._barred.get(item.key)
        if barred is not None:
            barred.append(item)
            return
        self._waiting.setdefault(item.key, deque()).append(item)
        self.ready += 1

    def take(self, *, items: int, size: int) -> list[ItemT]:
        """Take a batch from the runs that have waited longest, and bar their lanes.

        Args:
            items: Most items.
            size: Most bytes. A first item that is larger is taken alone.
        """
        batch: list[ItemT] = []
        left = size
        # Dictionaries keep the order of insertion, and an unbarred lane is inserted again: the first key is
        # the run that has waited longest, so a busy run cannot starve the others.
        for key in list(self._first_keys(items)):
            lane = self._waiting[key]
            while lane and len(batch) < items and (lane[0].size <= left or not batch):
                left -= lane[0].size
                batch.append(lane.popleft())
            if batch[-1].key == key:
                # What did not fit waits behind the bar: it must not overtake what is in the batch.
                self._barred[key] = self._waiting.pop(key)
                self.ready -= len(self._barred[key])
            if lane:
                break
        self.ready -= len(batch)
        return batch

    def unbar(self, keys: Iterable[RunKey]) -> None:
        """Let batches take from the lanes of *keys* again."""
        for key in keys:
            lane = self._barred.pop(key, None)
            if lane:
                self._waiting[key] = lane
                self.ready += len(lane)

    def take_all(self) -> list[ItemT]:
        """Take all that waits, in barred lanes too."""
        items = [item for lanes in (self._waiting, self._barred) for lane in lanes.values() for item in lane]
        self._waiting.clear()
        # A barred lane stays: its batch is still under way, and will unbar it.
        for lane in self._barred.values():
            lane.clear()
        self.ready = 0
        return items

    def _first_keys(self, most: int) -> Iterable[RunKey]:
        return (key for key, _ in zip(self._waiting, range(most), strict=False))
