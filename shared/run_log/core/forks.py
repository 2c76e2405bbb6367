"""Locks that survive a fork.

A forked child inherits a lock that another thread of the parent holds, but not that thread. Nobody would
ever release the lock. So every lock of run-log is made by `renewed`, and made again in each child. A lock
whose data must be whole in the child is held over the fork instead.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypeVar

WAIT_SECONDS: Final = 10.0
"""How long a fork waits for the locks that are held over it, in all. The child gets new ones for the rest."""

_T = TypeVar("_T")


class TakesPart(Protocol):
    """An object that is called before each fork, and after it in both processes."""

    def before_fork(self) -> None:
        """Finish what the child must not inherit half done."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: all other threads stayed with the parent."""


class _Part(NamedTuple):
    owner: weakref.ref[Any]
    name: str
    make: Callable[[], Any]
    is_held: bool


class _Fork(NamedTuple):
    """A fork that is under way."""

    # Strong references: an object that was told of the fork must live until it is told of its end.
    takers: dict[int, TakesPart]
    held: list[tuple[_Part, Any]]


class _Forks(threading.local):
    """The forks of this thread. Another thread may fork at the same time."""

    def __init__(self) -> None:
        self.under_way: list[_Fork] = []


_numbers: Final = itertools.count()
_parts: Final[dict[int, _Part]] = {}
_takers: Final[dict[int, weakref.ref[TakesPart]]] = {}
_forks: Final = _Forks()


def renewed(owner: object, name: str, make: Callable[[], _T], *, is_held: bool = False) -> _T:
    """Return what *make* makes, for the attribute *name* of *owner*. A forked child gets another one there.

    *make* makes a lock, or another object that threads share. With *is_held*, the fork holds the value, a
    reentrant lock, so that the data that it guards is whole in the child too.
    """
    number = next(_numbers)
    _parts[number] = _Part(weakref.ref(owner, lambda _: _parts.pop(number, None)), name, make, is_held)
    return make()


def take_part(taker: TakesPart) -> None:
    """Call *taker* around each fork, for as long as somebody else references it."""
    number = next(_numbers)
    _takers[number] = weakref.ref(taker, lambda _: _takers.pop(number, None))


def _all(of: dict[int, _T]) -> list[tuple[int, _T]]:
    # No lock guards these two: a weak reference's callback may run inside any allocation, also of a thread
    # that has the lock.
    while True:
        try:
            return list(of.items())
        except RuntimeError:  # another thread, or the garbage collector, changed it meanwhile
            continue


def _hold(locks: list[Any], deadline: float) -> list[Any]:
    """Return those of *locks* that could be acquired together before *deadline*."""
    # Threads acquire these locks in orders of their own, so there is no order that cannot deadlock. We wait
    # for one lock only while we hold no other: for the one that was taken last time. The rest we only try.
    first: list[Any] = []
    while True:
        is_late = time.monotonic() >= deadline
        had = [lock for lock in first if lock.acquire(timeout=max(0.0, deadline - time.monotonic()))]
        for lock in locks:
            if lock in first:
                continue
            if lock.acquire(blocking=False):
                had.append(lock)
            elif not is_late:
                first = [lock]
                break
        else:
            return had
        for lock in had:
            lock.release()


def _before_fork() -> None:
    fork = _Fork({}, [])
    _forks.under_way.append(fork)
    # Before the locks: who takes part may need them to finish.
    _ask(fork)
    # A lock that another thread is just making may not be an attribute yet. Then nobody holds it.
    found = [(part, getattr(part.owner(), part.name, None)) for _, part in _all(_parts) if part.is_held]
    locks = [(part, lock) for part, lock in found if lock is not None]
    had = set(map(id, _hold([lock for _, lock in locks], time.monotonic() + WAIT_SECONDS)))
    fork.held.extend((part, lock) for part, lock in locks if id(lock) in had)
    # Again: some may have come while we waited for the locks.
    _ask(fork)


def _ask(fork: _Fork) -> None:
    for number, ref in _all(_takers):
        taker = ref()
        if taker is not None and number not in fork.takers:
            fork.takers[number] = taker
            taker.before_fork()


def _after_fork_in_parent() -> None:
    fork = _forks.under_way.pop()
    for _, lock in fork.held:
        lock.release()
    for taker in fork.takers.values():
        taker.after_fork_in_parent()


def _after_fork_in_child() -> None:
    fork = _forks.under_way.pop()
    # A lock that we hold belongs to the thread that forked, which is the one that goes on here. It can
    # release it. Every other lock may belong to a thread that this process does not have.
    whole = {id(part) for part, _ in fork.held}
    for _, part in _all(_parts):
        owner = part.owner()
        if owner is not None and id(part) not in whole:
            setattr(owner, part.name, part.make())
    for _, lock in fork.held:
        lock.release()
    for taker in fork.takers.values():
        taker.after_fork_in_child()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
