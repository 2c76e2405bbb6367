"""A topic in memory that behaves like a real one: it delivers at least once, in any order, sometimes late."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from operator import itemgetter
from typing import Any, Final, NamedTuple

from run_log.core import InvalidArgumentError, Message, ReceivedMessage, TransportUnavailableError
from run_log.core.bell import Bell

# Least seconds between two looks of a waiting pull at a clock that may stand still.
_SHORTEST_WAIT: Final = 0.01

# A message that is held back is delivered at last.
_MAX_DELAYS: Final = 3

# A shuffled pull picks among so many times the messages it may take, so that a deep backlog stays cheap.
_SHUFFLE_WINDOW: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often a topic misbehaves. Each field is a probability from 0 (never) to 1 (always)."""

    duplicate: float = 0
    """A published message arrives twice, the second time with another message id."""
    reorder: float = 0
    """A pull returns messages in shuffled order."""
    delay: float = 0
    """A pull holds a message back for a later pull, at most three times for one message."""
    fail: float = 0
    """A publish takes nothing and raises `TransportUnavailableError`."""

    def __post_init__(self) -> None:
        """Refuse what is not a probability."""
        for field in fields(self):
            probability = getattr(self, field.name)
            if not 0 <= probability <= 1:
                raise InvalidArgumentError(f"{field.name}={probability!r} is not a probability; pass 0 to 1")


_NO_FAULTS: Final = Faults()


class _Chance:
    """Decides from one seed when a fault happens. Not thread-safe: the lock of its topic guards it."""

    def __init__(self, faults: Faults, *, seed: int) -> None:
        self.faults = faults
        self._random = random.Random(seed)  # noqa: S311  # decides faults in tests, no secret

    def strikes(self, probability: float) -> bool:
        return self._random.random() < probability

    def shuffle(self, items: MutableSequence[Any]) -> None:
        self._random.shuffle(items)


class _Waiting(NamedTuple):
    message_id: str
    message: Message
    deliveries: int = 0
    delays: int = 0


class _Out(NamedTuple):
    waiting: _Waiting
    deadline: float


class InMemoryTopic:
    """A topic in this process, with subscriptions. Thread-safe.

    It can be used as the transport of a producer. *faults* say how often it and its subscriptions misbehave.
    All randomness comes from *seed*: the same calls in the same order meet the same faults.
    """

    def __init__(self, *, faults: Faults = _NO_FAULTS, seed: int = 0) -> None:
        # One lock for the topic and its subscriptions: calls have one order, so the seed decides everything.
        self._lock = threading.Lock()
        self._chance = _Chance(faults, seed=seed)
        self._subscriptions: list[InMemorySubscription] = []
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
        subscription = InMemorySubscription(self._lock, self._chance, now=now, ack_deadline=ack_deadline)
        with self._lock:
            self._subscriptions.append(subscription)
        return subscription

    def _arrive(self, message: Message) -> None:
        self._arrived += 1
        for subscription in self._subscriptions:
            subscription.put(str(self._arrived), message)


class InMemorySubscription:
    """A subscription of an `InMemoryTopic`, which `InMemoryTopic.subscribe` returns.

    Delivery is at least once: a message that is not acknowledged or released within the ack deadline is
    delivered again, with a new ack id and one more delivery attempt. Any number of coroutines in any event
    loops and threads may use it at once. Each message is out to only one of them at a time. Ack ids that are
    expired or unknown are ignored, as by Pub/Sub.
    """

    def __init__(
        self, lock: threading.Lock, chance: _Chance, *, now: Callable[[], float], ack_deadline: timedelta
    ) -> None:
        self._lock = lock
        self._chance = chance
        self._now = now
        self._ack_seconds = ack_deadline.total_seconds()
        self._bell = Bell()
        self._waiting: deque[_Waiting] = deque()
        self._out: dict[str, _Out] = {}
        self._delivered = 0
        self._closings = 0

    @property
    def backlog(self) -> int:
        """Messages not yet acknowledged."""
        with self._lock:
            return len(self._waiting) + len(self._out)

    @property
    def outstanding(self) -> int:
        """Messages delivered and neither acknowledged nor released nor expired."""
        with self._lock:
            self._expire()
            return len(self._out)

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
                messages = self._take(max_messages)
                first = min((out.deadline for out in self._out.values()), default=math.inf)
            left = end - loop.time()
            if messages is not None or left <= 0 or self._closings != closings:
                return messages or []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, max(first - self._now(), _SHORTEST_WAIT))):
                    await self._bell.wait(unless=lambda: bool(self._waiting) or self._closings != closings)

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Remove the messages delivered with *ack_ids* for good."""
        await asyncio.sleep(0)
        with self._lock:
            self._expire()
            for ack_id in ack_ids:
                self._out.pop(ack_id, None)

    async def release(self, ack_ids: Sequence[str]) -> None:
        """Make the messages delivered with *ack_ids* available again at once."""
        await asyncio.sleep(0)
        with self._lock:
            self._expire()
            self._give_back(ack_ids)

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Let the messages delivered with *ack_ids* expire in so many *seconds*; 0 releases them."""
        await asyncio.sleep(0)
        with self._lock:
            self._expire()
            deadline = self._now() + seconds
            for ack_id in ack_ids:
                if ack_id in self._out:
                    self._out[ack_id] = self._out[ack_id]._replace(deadline=deadline)
            self._expire()

    async def close(self) -> None:
        """Make pulls that wait return empty. The subscription stays, as on a server, for another reader."""
        await asyncio.sleep(0)
        with self._lock:
            self._closings += 1
        self._bell.ring()

    def put(self, message_id: str, message: Message) -> None:
        """Make *message* available. Its topic calls this, and holds the lock."""
        self._waiting.append(_Waiting(message_id, message))
        self._bell.ring()

    def _take(self, max_messages: int) -> list[ReceivedMessage] | None:
        """Deliver up to *max_messages*. None of them if all were held back; None if none is available."""
        self._expire()
        if not self._waiting:
            return None
        taken: list[_Waiting] = []
        left: list[_Waiting] = []
        for waiting in self._candidates(max_messages):
            if len(taken) == max_messages:
                left.append(waiting)
            elif waiting.delays < _MAX_DELAYS and self._chance.strikes(self._chance.faults.delay):
                left.append(waiting._replace(delays=waiting.delays + 1))
            else:
                taken.append(waiting)
        self._waiting.extendleft(reversed(left))
        deadline = self._now() + self._ack_seconds
        return [self._deliver(waiting, deadline) for waiting in taken]

    def _candidates(self, max_messages: int) -> list[_Waiting]:
        reorders = self._chance.strikes(self._chance.faults.reorder)
        count = min(len(self._waiting), max_messages * (_SHUFFLE_WINDOW if reorders else 1))
        candidates = [self._waiting.popleft() for _ in range(count)]
        if reorders:
            self._chance.shuffle(candidates)
        return candidates

    def _deliver(self, waiting: _Waiting, deadline: float) -> ReceivedMessage:
        self._delivered += 1
        delivered = waiting._replace(deliveries=waiting.deliveries + 1)
        ack_id = f"ack-{self._delivered}"
        self._out[ack_id] = _Out(delivered, deadline)
        return ReceivedMessage(
            data=waiting.message.data,
            attributes=dict(waiting.message.attributes),
            message_id=waiting.message_id,
            ack_id=ack_id,
            delivery_attempt=delivered.deliveries,
        )

    def _expire(self) -> None:
        now = self._now()
        expired = [(out.deadline, ack_id) for ack_id, out in self._out.items() if out.deadline <= now]
        # By deadline alone: what was delivered together comes back in the same order.
        self._give_back([ack_id for _, ack_id in sorted(expired, key=itemgetter(0))])

    def _give_back(self, ack_ids: Sequence[str]) -> None:
        # To the back of the queue, so that a message that always fails does not hold up the others.
        returned = [out.waiting for ack_id in ack_ids if (out := self._out.pop(ack_id, None))]
        self._waiting.extend(returned)
        if returned:
            self._bell.ring()
