"""How often strangers are answered: a bucket for each address, of which there are only so many."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final

BURST: Final = 60
"""How many requests of one address are refused one by one before it is told to wait."""

PER_SECOND: Final = 1.0
"""How many more are each second."""

MAX_ADDRESSES: Final = 4_096
"""How many addresses are remembered; the one that was refused longest ago is forgotten first."""


class RefusalRate:
    """Counts the refused requests of each address. *now* returns the time, aware."""

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        burst: int = BURST,
        per_second: float = PER_SECOND,
        most: int = MAX_ADDRESSES,
    ) -> None:
        self._now = now
        self._burst = burst
        self._per_second = per_second
        self._most = most
        # What is left of each bucket, and when that was so.
        self._buckets: OrderedDict[str, tuple[float, datetime]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._buckets)

    def wait(self, address: str) -> float:
        """Count one refused request of *address*; return the seconds it has to wait, 0 if it need not."""
        # Who has an IPv6 address has 2 to the 64 of them.
        key = _network(address)
        now = self._now()
        left, since = self._buckets.pop(key, (float(self._burst), now))
        passed = max(0.0, (now - since).total_seconds())
        left = min(self._burst, left + passed * self._per_second)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left), now
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._per_second


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address  # noqa: PLR2004
