"""The leases of messages in hand, extended for as long as those are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

from run_log.core.logs import get_logger

from .projector import told

LEASE_SECONDS: Final = 20.0
"""For how long a lease is extended, from then on, unless it is told otherwise: what a killed process has
extended comes to nobody for as long."""

FIRST_EXTENSION_SECONDS: Final = 5.0
"""Seconds in hand after which a message's lease is extended first: a subscription may lease for as little as
10 s (https://cloud.google.com/pubsub/docs/lease-management). Nearly all are settled by then."""

LONGEST_SECONDS: Final = 3_600.0
"""Seconds in hand after which a lease is left to end: others may do better. Google's client has the same."""

_LOOK_SECONDS: Final = 2.0

_logger: Final = get_logger("run_log.projector")


class _Lease(NamedTuple):
    taken_at: float
    due_at: float
    """When it is to be extended."""


class Leases:
    """Keeps what is in hand from being delivered again while it waits: for the store, or a long commit.

    Args:
        extend: Has deliveries leased for so many seconds from now on; see `MessageSource.extend`.
        seconds: For how long.
        now: Monotonic seconds.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        extend: Callable[[Sequence[str], float], Awaitable[None]],
        *,
        seconds: float = LEASE_SECONDS,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._extend = extend
        self._seconds = seconds
        self._now = now
        self._sleep = sleep
        self._held: dict[str, _Lease] = {}
        self._holding = asyncio.Event()

    def hold(self, ack_ids: Iterable[str]) -> None:
        """Extend the leases of these deliveries from now on."""
        now = self._now()
        lease = _Lease(now, now + FIRST_EXTENSION_SECONDS)
        self._held.update(dict.fromkeys(ack_ids, lease))
        self._holding.set()

    def drop(self, ack_id: str) -> None:
        """Extend this one no more."""
        self._held.pop(ack_id, None)

    async def keep(self) -> None:
        """Extend what is held, until cancelled."""
        while True:
            await self._holding.wait()
            await self._sleep(_LOOK_SECONDS)
            await self._extend_due()
            if not self._held:
                self._holding.clear()

    async def _extend_due(self) -> None:
        now = self._now()
        due = {ack_id: lease for ack_id, lease in self._held.items() if lease.due_at <= now}
        for ack_id, lease in list(due.items()):
            if now >= lease.taken_at + LONGEST_SECONDS:
                del due[ack_id], self._held[ack_id]
        if not due:
            return
        try:
            await self._extend([*due], self._seconds)
        except Exception as error:  # noqa: BLE001 - tried again at the next look, whatever it was
            _logger.warning("run_log_extend_failed", messages=len(due), error=told(error))
            return
        for ack_id, lease in due.items():
            if ack_id in self._held:
                self._held[ack_id] = lease._replace(due_at=now + self._seconds / 2)
