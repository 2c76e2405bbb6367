from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Self

import pytest

from run_log.core import Version
from run_log.producer._capture import Entry
from run_log.producer._held import BufferLimits, EventBuffer, Held
from run_log.producer._metrics import DropReason


class _Entry(Entry):
    """One that can be looked for after it has gone."""


def _entry(number: int, *, hlc: int, run_id: str = "r", size: int = 1) -> Entry:
    entry = _Entry(("w", run_id), Version(1, hlc, str(number)), size, None)
    entry.number = number
    return entry


def test_an_outage_costs_no_memory_beyond_the_limits() -> None:
    """What a full buffer drops leaves nothing behind, neither of many runs nor of one."""
    buffer = EventBuffer(BufferLimits(events=10))
    dropped: list[weakref.ref[Entry]] = []
    lost: list[Entry] = []

    for number in range(2_000):
        for place, run_id in ((2 * number, str(number)), (2 * number + 1, "hot")):
            lost = buffer.add(_entry(place, hlc=number, run_id=run_id))
            dropped += [weakref.ref(entry) for entry in lost]
    del lost

    assert (len(buffer), len(dropped)) == (10, 3_990)
    assert [entry() for entry in dropped] == [None] * 3_990


def test_what_is_given_back_comes_first_again() -> None:
    """As many as just fit are taken; given back they are taken again before all others, in their order."""
    buffer = EventBuffer(BufferLimits())
    for number in range(4):
        buffer.add(_entry(number, hlc=number, run_id=str(number)))
    taken = buffer.take(events=9, data_bytes=3)

    lost = buffer.give_back(taken)

    assert (len(taken), lost) == (3, [])
    assert buffer.take(events=9, data_bytes=0, is_strict=True) == []
    assert [entry.number for entry in buffer.take(events=9, data_bytes=100)] == [0, 1, 2, 3]


def test_the_newest_that_is_given_back_supersedes_what_waited() -> None:
    """The newest state of a run, taken before an older one and given back, stays when there is no room."""
    buffer = EventBuffer(BufferLimits(events=2))
    for number, hlc in ((1, 2), (2, 1)):
        buffer.add(_entry(number, hlc=hlc))
    newest = buffer.take(events=1, data_bytes=100)
    buffer.add(_entry(3, hlc=0))

    assert [entry.number for entry in buffer.give_back(newest)] == [2]
    assert [entry.number for entry in buffer.add(_entry(4, hlc=1, run_id="other"))] == [3]


def test_what_is_given_back_may_be_superseded() -> None:
    """A state that was taken, and overtaken meanwhile, is the first to go when it is given back."""
    buffer = EventBuffer(BufferLimits(events=2))
    buffer.add(_entry(1, hlc=1))
    (taken,) = buffer.take(events=1, data_bytes=100)
    buffer.add(_entry(2, hlc=2))
    buffer.add(_entry(3, hlc=3, run_id="other"))

    assert [entry.number for entry in buffer.give_back([taken])] == [1]


def _interrupt() -> None:
    raise KeyboardInterrupt


class _Interrupted(str):
    """A run's id that runs a signal's *handler* when it is hashed for the time *at*."""

    __slots__ = ("_handler", "_left")
    _handler: Callable[[], None]
    _left: int

    def __new__(cls, at: int, handler: Callable[[], None] = _interrupt) -> Self:
        run_id = super().__new__(cls, "r")
        run_id._left, run_id._handler = at, handler
        return run_id

    def __hash__(self) -> int:
        self._left -= 1
        if not self._left:
            self._handler()
        return super().__hash__()


@pytest.mark.parametrize("change", ["add", "give back"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_change_that_is_cut_short_is_made_good(change: str, at: int) -> None:
    """After an interrupt anywhere in it the next change keeps to bounds, order and what is superseded."""
    buffer = EventBuffer(BufferLimits(events=9, data_bytes=30))
    for number, run_id in ((1, "r"), (2, "other")):
        buffer.add(_entry(number, hlc=number, run_id=run_id, size=10))
    newest = _entry(3, hlc=3, run_id=_Interrupted(at), size=10)

    with pytest.raises(KeyboardInterrupt):
        _ = buffer.add(newest) if change == "add" else buffer.give_back([newest])

    assert [entry.number for entry in buffer.add(_entry(4, hlc=4, run_id="last", size=10))] == [1]
    order = [2, 3, 4] if change == "add" else [3, 2, 4]
    assert [entry.number for entry in buffer.take(events=9, data_bytes=100)] == order
    assert (buffer.newest(), buffer.oldest()) == ({}, None)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_an_interrupt_leaves_in_the_intake_is_taken_once(at: int) -> None:
    """An event whose absorption a handler cut short comes again, and is held and counted once."""
    held = Held(BufferLimits(), keeps_shed=False)
    held.intake.append(_entry(0, hlc=1, run_id=_Interrupted(at)))
    held.intake.append(_entry(5, hlc=2))  # has its number, but was not added any more

    with pytest.raises(KeyboardInterrupt):
        held.absorb()
    held.absorb()

    held.take(events=9, data_bytes=100)
    assert (len(held.in_flight()), held.stats.pending, held.stats.dropped) == (2, 2, 0)
    held.settle(held.in_flight())
    assert (held.newest(), held.stats.delivered, held.stats.pending) == ({}, 2, 0)


def test_a_handler_that_emits_in_an_absorb_comes_after_it() -> None:
    """An event of a signal's handler, in the middle of another's absorption, is held once and behind it."""
    held = Held(BufferLimits(), keeps_shed=False)
    late = _entry(0, hlc=2, run_id="late")

    def emit() -> None:
        held.intake.append(late)
        held.absorb()

    early = _entry(0, hlc=1, run_id=_Interrupted(1, emit))
    held.intake.append(early)
    held.absorb()

    assert held.stats.pending == 2
    held.take(events=9, data_bytes=100)
    assert held.in_flight() == [early, late]


def test_what_the_directory_really_holds_corrects_the_counters() -> None:
    """What is found on disk counts as emitted, what is missing there as corrupt, what made room as such."""
    held = Held(BufferLimits(), keeps_shed=True)

    held.found_on_disk(5, aside=1, corrupt=2, lost=1)
    first = held.stats
    held.found_on_disk(3, aside=1, corrupt=0, lost=0)

    assert (first.emitted, first.spooled, first.aside) == (9, 6, 1)
    assert first.dropped_by_reason == {DropReason.SPOOL_CORRUPT: 2, DropReason.SPOOL_FULL: 1}
    assert (held.stats.emitted, held.stats.spooled) == (9, 4)
    assert held.stats.dropped_by_reason == {DropReason.SPOOL_CORRUPT: 4, DropReason.SPOOL_FULL: 1}


def test_twins_are_superseded_together() -> None:
    """Events of one version, made by a publisher at fault, are all the newest, until a newer one comes."""
    buffer = EventBuffer(BufferLimits(events=4))
    twins = [_entry(number, hlc=1) for number in (1, 3, 4)]
    for entry in twins:
        entry.version = Version(1, 1, "same")
    lost: list[Entry] = []

    for entry in (twins[0], _entry(2, hlc=1, run_id="other"), *twins[1:]):
        lost += buffer.add(entry)
    taken = buffer.take(events=1, data_bytes=1)
    for number, run_id in ((5, "fourth"), (6, "fifth")):
        lost += buffer.add(_entry(number, hlc=1, run_id=run_id))
    for number in (7, 8, 9):
        lost += buffer.add(_entry(number, hlc=number))

    assert taken == twins[:1]
    assert [entry.number for entry in lost] == [2, 3, 4, 7]


@pytest.mark.parametrize(
    ("events", "size", "half_full"), [(5, 1, True), (4, 1, False), (1, 50, True), (1, 49, False)]
)
def test_half_full(events: int, size: int, half_full: bool) -> None:  # noqa: FBT001
    """A buffer is half full by events or by bytes."""
    buffer = EventBuffer(BufferLimits(events=10, data_bytes=100))

    for number in range(events):
        buffer.add(_entry(number, hlc=number, run_id=str(number), size=size))

    assert half_full == buffer.is_half_full
