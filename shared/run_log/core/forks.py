"""What a forked child gets anew: it would wait for ever for a lock of a thread that stayed with the parent.

So every lock of run-log is made by `renewed`, and made again in each child. What would be of no use half done
is held over the fork instead.
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
"""How long a fork waits, in all, for locks that are held over it; then the child gets others."""

_T = TypeVar("_T")


class TakesPart(Protocol):
    """What is asked before a fork, and told in both processes."""

    def before_fork(self) -> None:
        """Have nothing under way that the child must not inherit."""
        ...

    def after_fork_in_parent(self) -> None:
        """Go on."""
        ...

    def after_fork_in_child(self) -> None:
        """Begin anew: all other threads stayed with the parent."""
        ...


class _Part(NamedTuple):
    owner: weakref.ref[Any]
    name: str
    make: Callable[[], Any]
    is_held: bool


class _Fork(NamedTuple):
    """A fork under way: nothing else may let go of what takes part meanwhile."""

    takers: dict[int, TakesPart]
    held: list[tuple[_Part, Any]]


class _Forks(threading.local):
    """Those of this thread: another one may fork at the same time."""

    def __init__(self) -> None:
        self.under_way: list[_Fork] = []


_numbers: Final = itertools.count()
_parts: Final[dict[int, _Part]] = {}
_takers: Final[dict[int, weakref.ref[TakesPart]]] = {}
_forks: Final = _Forks()


def renewed(owner: object, name: str, make: Callable[[], _T], *, is_held: bool = False) -> _T:
    """Return what *make* returns, for an attribute of *owner*: a forked child finds another one there.

    Args:
        owner: Whose it is; it is held weakly.
        name: The attribute's.
        make: Makes a lock, or what threads share by one.
        is_held: Whether it is a reentrant lock that nobody else has while the process forks, so that what it
            guards is whole in the child too.
    """
    number = next(_numbers)
    _parts[number] = _Part(weakref.ref(owner, lambda _: _parts.pop(number, None)), name, make, is_held)
    return make()


def take_part(taker: TakesPart) -> None:
    """Have *taker* called around each fork, for as long as somebody holds it."""
    number = next(_numbers)
    _takers[number] = weakref.ref(taker, lambda _: _takers.pop(number, None))


def _all(of: dict[int, _T]) -> list[tuple[int, _T]]:
    while True:
        try:
            return list(of.items())
        except RuntimeError:  # another thread, or the garbage collector, changes it meanwhile
            continue


def _hold(locks: list[Any], deadline: float) -> list[Any]:
    """Return those of *locks* that could be had together: in no order, so that nobody waits in a circle."""
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
    _ask(fork)
    # One that another thread is just making may have no attribute yet: nobody has its lock then.
    found = [(part, getattr(part.owner(), part.name, None)) for _, part in _all(_parts) if part.is_held]
    locks = [(part, lock) for part, lock in found if lock is not None]
    had = set(map(id, _hold([lock for _, lock in locks], time.monotonic() + WAIT_SECONDS)))
    fork.held.extend((part, lock) for part, lock in locks if id(lock) in had)
    _ask(fork)  # those that came meanwhile


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
    whole = {id(part) for part, _ in fork.held}
    for _, part in _all(_parts):
        owner = part.owner()
        if owner is not None and id(part) not in whole:
            setattr(owner, part.name, part.make())
    for _, lock in fork.held:
        lock.release()
    for taker in fork.takers.values():
        taker.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
