"""What an emitter needs of a transport, and when it calls it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from run_log.core import Message
from run_log.core.backoff import Backoff
from run_log.core.settings import is_cloud_run_service

from ._lifecycle import is_forked

MAX_BATCH_EVENTS: Final = 1_000
"""Pub/Sub's limit for one publish call (https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_BATCH_BYTES: Final = 5 * 2**20
"""Most bytes of bodies and attributes in a call. Half of Pub/Sub's 10 MB, so that a slow line can carry them
within the call's timeout."""

MIN_BATCH_BYTES: Final = 65_536
"""What a call's bytes shrink to after many timeouts, unless its first event alone is larger."""

MAX_REFUSALS: Final = 64
"""Refusals in a row after which the search for the event at fault stops for now: it may be the topic."""

END_FLUSH_SECONDS: Final = 1.0
"""How long the end of a recorded run waits where the CPU may stop: a publish takes tens of milliseconds."""

FORKED_FLUSHES: Final = 10
"""How many times as long it waits in a forked process, which may have to load the vendor's library first."""


class Transport(Protocol):
    """Takes messages from the emitter's background thread. Calls of `publish` never overlap.

    A transport does not retry. The emitter does, and two layers of retries would multiply.
    """

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand over *messages*. They are durable when this returns. May block, for a bounded time.

        Args:
            messages: At least one.

        Raises:
            TransportUnavailableError: None or some were taken. All will be handed over again.
            TransportRefusedError: None will be taken until somebody acts.
            MessageRefusedError: None was taken, because one of them never will be. The others may be taken
                without it.
        """
        ...

    def close(self) -> None:
        """Let go of connections, from any thread. A `publish` under way may fail.

        At the end of the process another `publish` and `close` may follow. It connects again, or raises.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """When events are published, and when a failed call is repeated. All times are seconds.

    The vendor's own retries are off: one layer retries, this one.
    """

    linger: float = 0.01
    """How long the first event of a batch waits for others: a short run's start and end travel together."""
    first_retry: float = 0.2
    """The longest wait after the first failure; it doubles with each further one."""
    longest_retry: float = 10.0
    """The longest wait of all."""
    refused_retry: float = 30.0
    """The longest wait when only somebody's action can help: no such topic, permission denied. The shortest
    is half of it."""
    deadline: float = 60.0
    """How long a batch is retried in all. Then it makes room: it goes to the spool directory if there is
    one, or back into the buffer, whose rules decide what is kept of a long outage."""
    end_flush: float | None = None
    """How long the end of a recorded run waits for delivery. None waits `END_FLUSH_SECONDS` where the
    platform may stop the CPU after a response. In a forked process, which may end by ``os._exit``, it waits
    `FORKED_FLUSHES` times as long. Elsewhere it does not wait."""
    progress: float = 2.0
    """How long at least lies between two times that a run says, between its transitions, how far it is."""
    uniform: Callable[[float, float], float] = random.uniform
    """Returns a random number between two. Waits are spread, so that emitters do not return all at once."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds on a clock that never goes back."""

    @property
    def end_waits(self) -> Sequence[float]:
        """How long the end of a recorded run waits: after each piece it sees whether more is in vain."""
        if self.end_flush is not None:
            return (self.end_flush,)
        if is_cloud_run_service():
            return (END_FLUSH_SECONDS,)
        return (END_FLUSH_SECONDS,) * FORKED_FLUSHES if is_forked() else ()

    def wait(self, failures: int, *, refused: bool) -> float:
        """Return how long to wait before the next call."""
        if refused:
            return self.uniform(self.refused_retry / 2, self.refused_retry)
        return Backoff(self.first_retry, self.longest_retry).seconds(failures, self.uniform)
