from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from run_log.core.models import RunKey
from run_log.projector.in_hand import Lanes


class Item(NamedTuple):
    """Something of a run."""

    key: RunKey
    size: int
    number: int


def _item(run: str, number: int = 0, size: int = 1) -> Item:
    return Item(("w", run), size, number)


def _keys(*runs: str) -> list[RunKey]:
    return [("w", run) for run in runs]


def _lanes(*items: Item) -> Lanes[Item]:
    lanes: Lanes[Item] = Lanes()
    for item in items:
        lanes.add(item)
    return lanes


def test_everything_of_a_run_is_taken_together() -> None:
    """A batch takes all that waits of the run that came first, before what came of others in between."""
    first, other, second = _item("a", 1), _item("b", 2), _item("a", 3)

    batch = _lanes(first, other, second).take(items=3, size=3)

    assert [first, second, other] == batch


def test_a_large_one_behind_others_waits_for_the_next_batch() -> None:
    """What does not fit any more ends the batch, and is not overtaken by what came later."""
    small, fits, large, later = _item("a", 1), _item("b", 2, size=8), _item("c", 3, size=10), _item("d", 4)
    lanes = _lanes(small, fits, large, later)

    batches = [lanes.take(items=10, size=10) for _ in range(2)]

    assert [[small, fits], [large]] == batches
    assert 1 == lanes.ready


def test_a_large_one_of_a_run_is_not_overtaken() -> None:
    """What does not fit any more waits behind the bar, with all that came after it in its run."""
    first, large, last = (_item("a", number, size) for number, size in enumerate([1, 10, 1]))
    lanes = _lanes(first, large, last)

    batches: list[list[Item]] = []
    while lanes.ready:
        batches.append(lanes.take(items=10, size=10))
        assert 0 == lanes.ready
        lanes.unbar(_keys("a"))

    assert [[first], [large], [last]] == batches


def test_unbarring_what_is_not_barred() -> None:
    """Runs that are not barred, known or not, are left as they are."""
    item = _item("a", 1)
    lanes = _lanes(item)

    lanes.unbar(_keys("a", "never-seen"))

    assert [item] == lanes.take(items=10, size=10)


class LanesMachine(RuleBasedStateMachine):
    """Arrivals, batches and their ends in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[Item] = Lanes()
        self.arrived: defaultdict[RunKey, list[Item]] = defaultdict(list)
        self.taken: defaultdict[RunKey, list[Item]] = defaultdict(list)
        self.under_way: list[set[RunKey]] = []
        self.count = 0

    # Several at once, or most batches would find lanes of one item.
    @rule(run=st.sampled_from("abcd"), sizes=st.lists(st.integers(0, 6), min_size=1, max_size=6))
    def arrive(self, run: str, sizes: list[int]) -> None:
        """Something of a run arrives."""
        for size in sizes:
            self.count += 1
            item = _item(run, self.count, size)
            self.arrived[item.key].append(item)
            self.lanes.add(item)

    @rule(items=st.integers(1, 5), size=st.integers(1, 8))
    def take(self, items: int, size: int) -> None:
        """A batch begins: within its limits, not empty where it need not be, of no run that is under way."""
        ready = self.lanes.ready
        batch = self.lanes.take(items=items, size=size)
        keys = {item.key for item in batch}
        assert len(batch) <= items
        assert len(batch) == 1 or sum(item.size for item in batch) <= size
        assert bool(batch) == bool(ready)
        assert not any(keys & others for others in self.under_way)
        for item in batch:
            self.taken[item.key].append(item)
        if keys:
            self.under_way.append(keys)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A batch ends."""
        if self.under_way:
            index = data.draw(st.integers(0, len(self.under_way) - 1))
            self.lanes.unbar(self.under_way.pop(index))

    @rule()
    def abandon(self) -> None:
        """All that waits is taken back."""
        for item in self.lanes.take_all():
            self.taken[item.key].append(item)
        assert not any(self._waiting(key) for key in self.arrived)

    @invariant()
    def order_is_kept(self) -> None:
        """Of each run a beginning of what arrived was taken, in order, nothing twice."""
        for key, items in self.taken.items():
            assert items == self.arrived[key][: len(items)]

    @invariant()
    def ready_is_told(self) -> None:
        """What could be taken is everything that waits, but of runs under way."""
        barred = {key for keys in self.under_way for key in keys}
        ready = sum(self._waiting(key) for key in self.arrived if key not in barred)
        assert ready == self.lanes.ready

    def teardown(self) -> None:
        """Nothing is lost."""
        for keys in self.under_way:
            self.lanes.unbar(keys)
        while batch := self.lanes.take(items=3, size=4):
            self.lanes.unbar(item.key for item in batch)
            for item in batch:
                self.taken[item.key].append(item)
        assert self.arrived == self.taken

    def _waiting(self, key: RunKey) -> int:
        return len(self.arrived[key]) - len(self.taken[key])


LanesMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
TestLanes: Any = LanesMachine.TestCase
