"""A message topic in memory with a real one's manners: at least once, in any order, sometimes not now."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from run_log.core import InvalidArgumentError, Message, ReceivedMessage, TransportUnavailableError
from run_log.core.bell import Bell

from ._deliveries import DeliveryQueue
from ._faults import NO_FAULTS, Chance, Faults

ACK_DEADLINE: Final = timedelta(seconds=60)
"""How long a delivered message waits for its acknowledgement, unless a subscription says otherwise."""

_SHORTEST_WAIT: Final = 0.01
"""Seconds that a waiting pull leaves between two looks at a clock that may stand still."""


class InMemoryTopic:
    """A topic that threads publish to and subscriptions read from, all in this process. Thread-safe.

    It fits where a producer's transport is expected. Everything random comes from *seed*: the same calls
    in the same order meet the same faults.

    Args:
        faults: How often the topic and its subscriptions misbehave.
        seed: Of all randomness.
    """

    def __init__(self, *, faults: Faults = NO_FAULTS, seed: int = 0) -> None:
        # One lock for the topic and its subscriptions: one order of calls, so one stream of chance.
        self._lock = threading.Lock()
        self._chance = Chance(faults, seed=seed)
        self._queues: list[DeliveryQueue] = []
        self._arrived = 0

    @property
    def faults(self) -> Faults:
        """How often it misbehaves; assign another value for an outage, and again for its end."""
        return self._chance.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._lock:
            self._chance.faults = faults

    def publish(self, messages: Sequence[Message]) -> None:
        """Put *messages* into every subscription there is.

        As with Pub/Sub, a message never reaches a subscription that is made later; without any
        subscription it is gone. Publishing a message again delivers it again.

        Args:
            messages: What to publish; none of it is taken where this raises.

        Raises:
            TransportUnavailableError: By chance, as often as `Faults.fail` says.
        """
        with self._lock:
            if self._chance.fails():
                raise TransportUnavailableError("the in-memory topic failed this publish: Faults.fail")
            for message in messages:
                self._arrive(message)
                if self._chance.duplicates():
                    self._arrive(message)

    def close(self) -> None:
        """Do nothing: there is no connection to end. Publishing goes on working."""

    def subscribe(
        self, *, now: Callable[[], float] = time.monotonic, ack_deadline: timedelta = ACK_DEADLINE
    ) -> InMemorySubscription:
        """Return a new subscription: it gets what is published from now on.

        Args:
            now: Seconds on a clock that never goes back; `ManualClock.monotonic` lets a test expire
                deliveries without waiting.
            ack_deadline: How long a delivered message waits for its acknowledgement.

        Raises:
            InvalidArgumentError: *ack_deadline* is not positive.
        """
        if ack_deadline <= timedelta(0):
            raise InvalidArgumentError(f"ack_deadline={ack_deadline} has to be positive")
        bell = Bell()
        queue = DeliveryQueue(self._chance, now=now, ack_deadline=ack_deadline, on_available=bell.ring)
        with self._lock:
            self._queues.append(queue)
        return InMemorySubscription(self._lock, queue, bell)

    def _arrive(self, message: Message) -> None:
        self._arrived += 1
        for queue in self._queues:
            queue.put(str(self._arrived), message)


class InMemorySubscription:
    """A subscription of an `InMemoryTopic`, which makes it with `subscribe`.

    Delivery is at least once: a message that is neither acknowledged nor released within the ack deadline
    is delivered again, with a new ack id and one delivery attempt more. Any number of coroutines, in any
    event loops and threads, may use it at once; each message is out to one of them at a time.
    """

    def __init__(self, lock: threading.Lock, queue: DeliveryQueue, bell: Bell) -> None:
        self._lock = lock
        self._queue = queue
        self._bell = bell
        self._closings = 0

    @property
    def backlog(self) -> int:
        """Messages not yet acknowledged."""
        with self._lock:
            return self._queue.backlog

    @property
    def outstanding(self) -> int:
        """Messages delivered and neither acknowledged nor released nor expired."""
        with self._lock:
            return self._queue.outstanding

    async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage]:
        """Take up to *max_messages*, waiting for the first one where there is none.

        Fewer than there are may come, and none at once where all are held back for a later pull
        (`Faults.delay`). Cancelling it while it waits takes nothing.

        Args:
            max_messages: At least 1.
            wait: Longest time to wait for a message, in seconds of the event loop, whatever clock the
                deadlines run on; 0 or less does not wait.

        Returns:
            The messages; none where none came in time, or the subscription was closed meanwhile.

        Raises:
            InvalidArgumentError: *max_messages* is less than 1.
        """
        if max_messages < 1:
            raise InvalidArgumentError(f"max_messages={max_messages} has to be at least 1")
        await asyncio.sleep(0)  # as with a real source, other coroutines get their turn
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        closings = self._closings
        while True:
            with self._lock:
                messages = self._queue.take(max_messages)
                expires_in = self._queue.expires_in
            left = end - loop.time()
            if messages is not None or left <= 0 or self._closings != closings:
                return messages or []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, max(expires_in, _SHORTEST_WAIT))):
                    await self._bell.wait(unless=lambda: self._is_available() or self._closings != closings)

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Take the messages delivered with *ack_ids* out of the subscription for good.

        Args:
            ack_ids: Of any pulls; expired and unknown ones are ignored, as by Pub/Sub.
        """
        await asyncio.sleep(0)
        with self._lock:
            self._queue.acknowledge(ack_ids)

    async def release(self, ack_ids: Sequence[str]) -> None:
        """Make the messages delivered with *ack_ids* available again at once.

        Args:
            ack_ids: Of any pulls; expired and unknown ones are ignored, as by Pub/Sub.
        """
        await asyncio.sleep(0)
        with self._lock:
            self._queue.release(ack_ids)

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Let the messages delivered with *ack_ids* expire *seconds* from now, whatever was said before.

        Args:
            ack_ids: Of any pulls; expired and unknown ones are ignored, as by Pub/Sub.
            seconds: 0 or less releases them.
        """
        await asyncio.sleep(0)
        with self._lock:
            self._queue.extend(ack_ids, seconds)

    async def close(self) -> None:
        """Let pulls that wait return empty.

        The subscription stays, as on a server: what is out comes back after its deadline, and a next
        reader may go on pulling.
        """
        await asyncio.sleep(0)
        with self._lock:
            self._closings += 1
        self._bell.ring()

    def _is_available(self) -> bool:
        with self._lock:
            return self._queue.is_available
