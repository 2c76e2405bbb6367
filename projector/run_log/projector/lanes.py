"""Which events may be projected now: never two batches at a time with events of the same run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from run_log.core.models import RunKey


class Sized(Protocol):
    """What lanes hold: something of one run."""

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
    """One lane a run: a batch takes everything that waits in a lane, and bars it until it is done.

    Batches that are under way together so never hold the same run, whatever their number.
    """

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
        """Take a batch, from the runs that have waited longest, and bar their lanes.

        Args:
            items: Most items.
            size: Most bytes of them, unless the first alone is larger.
        """
        batch: list[ItemT] = []
        left = size
        for key in list(self._first_keys(items)):
            lane = self._waiting[key]
            while lane and len(batch) < items and (lane[0].size <= left or not batch):
                left -= lane[0].size
                batch.append(lane.popleft())
            if batch and batch[-1].key == key:
                # What did not fit waits behind the bar.
                self._barred[key] = self._waiting.pop(key)
                self.ready -= len(self._barred[key])
            if len(batch) == items or lane:
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
        """Take everything that waits, barred or not."""
        items = [item for lanes in (self._waiting, self._barred) for lane in lanes.values() for item in lane]
        self._waiting.clear()
        for lane in self._barred.values():
            lane.clear()
        self.ready = 0
        return items

    def _first_keys(self, most: int) -> Iterable[RunKey]:
        return (key for key, _ in zip(self._waiting, range(most), strict=False))
