"""Where an emitter's messages go."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from run_log.core import Message
from run_log.core.settings import is_cloud_run_service

from ._lifecycle import is_forked

MAX_BATCH_EVENTS: Final = 1_000
"""Pub/Sub's limit for one publish call (https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_BATCH_BYTES: Final = 5 * 2**20
"""Of bodies and attributes. Half of Pub/Sub's 10 MB for one publish call: a slow line has to manage it within
the call's time."""

MIN_BATCH_BYTES: Final = 65_536
"""A call's bytes after many that were not answered in time, unless its first event alone is larger."""

MAX_REFUSALS: Final = 64
"""Refusals in a row after which a batch is not looked through further for now: it may be the topic's."""


class Transport(Protocol):
    """Takes messages from the emitter's background thread. Calls never overlap.

    A call is not repeated inside: the emitter retries, and one layer is enough.
    """

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand over *messages*; when this returns they are durable. May block, for a bounded time.

        Args:
            messages: At least one.

        Raises:
            TransportUnavailableError: None or some were taken; all will be handed over again.
            TransportRefusedError: Nothing will be taken until somebody acts.
            MessageRefusedError: None was taken, since one of them never will be; the others may be taken
                without it.
        """
        ...

    def close(self) -> None:
        """Let go of connections, from any thread; a `publish` under way may fail.

        At the end of the process another `publish` and `close` may follow: it connects again, or raises.
        """
        ...


END_FLUSH_SECONDS: Final = 1.0
"""How long the end of a recorded run waits where the CPU may stop: a publish takes tens of milliseconds."""

FORKED_FLUSHES: Final = 10
"""How many times as long it waits in a forked process: there the vendor's library may have to be loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """When events are published, and when a call that failed is repeated. All times are seconds.

    The vendor's own retries are off: one layer retries, this one.
    """

    linger: float = 0.01
    """How long the first event of a batch waits for others: a short run's start and end travel together."""
    first_retry: float = 0.2
    """The longest wait after the first failure; it doubles with each further one."""
    longest_retry: float = 10.0
    """The longest wait of all."""
    refused_retry: float = 30.0
    """The longest wait when only somebody's action can help (no such topic, permission denied); the shortest
    is half of it."""
    deadline: float = 60.0
    """How long a batch is retried in all. Then it makes room: it goes to the spool directory where there is
    one, else back into the buffer, whose rules decide what is kept of a long outage."""
    end_flush: float | None = None
    """How long the end of a recorded run waits for delivery. None waits `END_FLUSH_SECONDS` where the
    platform may stop the CPU after a response, `FORKED_FLUSHES` times as long in a process that was forked,
    which may end by ``os._exit``, and nowhere else."""
    uniform: Callable[[float, float], float] = random.uniform
    """Returns a random number between two: waits are spread, so that emitters do not return all at once."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds on a clock that never goes back."""

    @property
    def end_flush_seconds(self) -> float:
        """How long the end of a recorded run waits for delivery, on this platform."""
        return sum(self.end_waits)

    @property
    def end_waits(self) -> Sequence[float]:
        """The same in pieces: after each it is seen whether waiting on is in vain."""
        if self.end_flush is not None:
            return (self.end_flush,)
        if is_cloud_run_service():
            return (END_FLUSH_SECONDS,)
        return (END_FLUSH_SECONDS,) * FORKED_FLUSHES if is_forked() else ()

    def wait(self, failures: int, *, refused: bool) -> float:
        """Return how long to wait before the next call.

        Args:
            failures: Calls that failed in a row, from 1.
            refused: Whether only somebody's action can help.
        """
        if refused:
            return self.uniform(self.refused_retry / 2, self.refused_retry)
        return self.uniform(0, min(self.longest_retry, self.first_retry * 2 ** min(failures - 1, 16)))
