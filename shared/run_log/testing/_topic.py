"""A topic in memory that behaves like a real one: it delivers at least once, in any order, sometimes late."""

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

# Least seconds between two looks of a waiting pull at a clock that may stand still.
_SHORTEST_WAIT: Final = 0.01


class InMemoryTopic:
    """A topic in this process, with subscriptions. Thread-safe.

    It can be used as the transport of a producer. *faults* say how often it and its subscriptions misbehave.
    All randomness comes from *seed*: the same calls in the same order meet the same faults.
    """

    def __init__(self, *, faults: Faults = NO_FAULTS, seed: int = 0) -> None:
        # One lock for the topic and its subscriptions: calls have one order, so the seed decides everything.
        self._lock = threading.Lock()
        self._chance = Chance(faults, seed=seed)
        self._queues: list[DeliveryQueue] = []
        self._arrived = 0

    @property
    def faults(self) -> Faults:
        """How often it misbehaves. Assign another value to begin or end an outage."""
        return self._chance.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._lock:
            self._chance.faults = faults

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish *messages* to all subscriptions.

        As with Pub/Sub, a subscription that is created later does not get them, and without any subscription
        they are lost. A message that is published again is delivered again.

        Raises:
            TransportUnavailableError: By chance, as often as `Faults.fail` says. Then no message is taken.
        """
        with self._lock:
            if self._chance.strikes(self._chance.faults.fail):
                raise TransportUnavailableError("the in-memory topic failed this publish: Faults.fail")
            for message in messages:
                self._arrive(message)
                if self._chance.strikes(self._chance.faults.duplicate):
                    self._arrive(message)

    def close(self) -> None:
        """Do nothing: there is no connection. Publishing still works."""

    def subscribe(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        ack_deadline: timedelta = timedelta(seconds=60),
    ) -> InMemorySubscription:
        """Return a new subscription. It gets what is published from now on.

        Args:
            now: Monotonic seconds; with `ManualClock.monotonic`, deliveries expire without a wait.
            ack_deadline: How long a delivered message waits for its acknowledgement.

        Raises:
            InvalidArgumentError: *ack_deadline* is not positive.
        """
        if ack_deadline <= timedelta(0):
            raise InvalidArgumentError(f"ack_deadline={ack_deadline} is not positive; pass more than 0")
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
    """A subscription of an `InMemoryTopic`, which `InMemoryTopic.subscribe` returns.

    Delivery is at least once: a message that is not acknowledged or released within the ack deadline is
    delivered again, with a new ack id and one more delivery attempt. Any number of coroutines in any event
    loops and threads may use it at once. Each message is out to only one of them at a time.
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
        """Take up to *max_messages*. If there is none, wait for the first one.

        Fewer messages than there are may come. None come, without a wait, if all are held back for a later
        pull (`Faults.delay`). A pull that is cancelled while it waits takes nothing.

        Args:
            max_messages: At least 1.
            wait: Most seconds to wait for a message, by the clock of the event loop; 0 or less does not wait.

        Returns:
            The messages; none if none came in time, or the subscription was closed meanwhile.

        Raises:
            InvalidArgumentError: *max_messages* is less than 1.
        """
        if max_messages < 1:
            raise InvalidArgumentError(f"max_messages={max_messages} is too small; pass at least 1")
        await asyncio.sleep(0)  # as with a real broker, other coroutines get a turn
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
        """Remove the messages delivered with *ack_ids* for good. Expired and unknown ones are ignored."""
        await asyncio.sleep(0)
        with self._lock:
            self._queue.acknowledge(ack_ids)

    async def release(self, ack_ids: Sequence[str]) -> None:
        """Make the messages delivered with *ack_ids* available at once. Unknown ids are ignored."""
        await asyncio.sleep(0)
        with self._lock:
            self._queue.release(ack_ids)

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Set the deadline of the messages delivered with *ack_ids* to *seconds* from now; 0 releases them.

        Expired and unknown ids are ignored, as by Pub/Sub.
        """
        await asyncio.sleep(0)
        with self._lock:
            self._queue.extend(ack_ids, seconds)

    async def close(self) -> None:
        """Make pulls that wait return empty. The subscription stays, as on a server, for another reader."""
        await asyncio.sleep(0)
        with self._lock:
            self._closings += 1
        self._bell.ring()

    def _is_available(self) -> bool:
        with self._lock:
            return self._queue.is_available
