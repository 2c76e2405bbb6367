"""Calls that the delivery thread makes when they are due, so that no run needs a thread of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

_Reference = weakref.WeakMethod[Callable[[], None]]
_Calls = dict[int, tuple[float, _Reference]]


class _Forget:
    """Removes the call of an object that has gone: a run may end long before its heartbeat is due."""

    __slots__ = ("_calls", "_owner")

    def __init__(self, calls: _Calls, owner: int) -> None:
        self._calls = calls
        self._owner = owner

    def __call__(self, reference: _Reference) -> None:
        known = self._calls.get(self._owner)
        if known is not None and known[1] is reference:  # and not that of another one with its id
            self._calls.pop(self._owner, None)


class Timers:
    """At most one call for each object. What has gone is not called. Thread-safe, without a lock."""

    def __init__(self) -> None:
        # Single operations of a dict are atomic, so a signal's handler may come in between.
        self._calls: _Calls = {}

    def set(self, method: Callable[[], None], at: float) -> bool:
        """Have the bound *method* called at this monotonic time, unless it is to be earlier.

        Returns:
            Whether whoever waits for the next call has to look again.
        """
        owner: Any = getattr(method, "__self__")  # noqa: B009 - of a bound method, which its type does not say
        known = self._calls.get(id(owner))
        if known is not None and known[0] <= at and known[1]() is not None:
            return False
        self._calls[id(owner)] = (at, weakref.WeakMethod(method, _Forget(self._calls, id(owner))))
        return True

    def next(self) -> float | None:
        """Return the monotonic time of the first call; None if there is none."""
        return min((at for at, _ in list(self._calls.values())), default=None)

    def run(self, now: float) -> None:
        """Make each call that is due."""
        for owner, known in list(self._calls.items()):
            if known[0] <= now:
                # A call before this one may have let its owner go, and another one may have its id by now.
                # What is removed is called, early at worst.
                method = self._calls.pop(owner, known)[1]()
                if method is not None:
                    method()
