"""The messages of one subscription: those that wait, and those that are delivered and not acknowledged."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import Final, NamedTuple

from run_log.core import Message, ReceivedMessage

from ._faults import Chance

# A message that is held back is delivered at last.
_MAX_DELAYS: Final = 3

# A shuffled pull picks among so many times the messages it may take, so that a deep backlog stays cheap.
_SHUFFLE_WINDOW: Final = 10


class _Waiting(NamedTuple):
    message_id: str
    message: Message
    deliveries: int = 0
    delays: int = 0


class _Out(NamedTuple):
    waiting: _Waiting
    deadline: float


class DeliveryQueue:
    """The messages of a subscription. Not thread-safe, and never waits: the subscription adds both."""

    def __init__(
        self,
        chance: Chance,
        *,
        now: Callable[[], float],
        ack_deadline: timedelta,
        on_available: Callable[[], None],
    ) -> None:
        self._chance = chance
        self._now = now
        self._ack_seconds = ack_deadline.total_seconds()
        self._on_available = on_available
        self._waiting: deque[_Waiting] = deque()
        self._out: dict[str, _Out] = {}
        self._delivered = 0

    @property
    def backlog(self) -> int:
        """Number of messages not yet acknowledged."""
        return len(self._waiting) + len(self._out)

    @property
    def is_available(self) -> bool:
        """Whether a message waits to be delivered."""
        return bool(self._waiting)

    @property
    def outstanding(self) -> int:
        """Number of messages delivered and not acknowledged, released or expired."""
        self.expire()
        return len(self._out)

    @property
    def expires_in(self) -> float:
        """Seconds until the next delivery expires; infinite if none is out."""
        return min((out.deadline for out in self._out.values()), default=math.inf) - self._now()

    def put(self, message_id: str, message: Message) -> None:
        """Make *message* available."""
        self._waiting.append(_Waiting(message_id, message))
        self._on_available()

    def take(self, max_messages: int) -> list[ReceivedMessage] | None:
        """Deliver up to *max_messages*, at least 1, each with a new ack id.

        No messages if all were held back for a later call; None if none is available.
        """
        self.expire()
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

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Remove the messages delivered with *ack_ids*. Expired and unknown ones are ignored."""
        self.expire()
        for ack_id in ack_ids:
            self._out.pop(ack_id, None)

    def release(self, ack_ids: Sequence[str]) -> None:
        """Make the messages delivered with *ack_ids* available. Expired and unknown ones are ignored."""
        self.expire()
        self._give_back(ack_ids)

    def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Set the deadline of the messages delivered with *ack_ids* to *seconds* from now."""
        self.expire()
        deadline = self._now() + seconds
        for ack_id in ack_ids:
            if ack_id in self._out:
                self._out[ack_id] = self._out[ack_id]._replace(deadline=deadline)
        self.expire()

    def expire(self) -> None:
        """Make messages available that were not acknowledged in time."""
        now = self._now()
        expired = [(out.deadline, ack_id) for ack_id, out in self._out.items() if out.deadline <= now]
        # By deadline alone: what was delivered together comes back in the same order.
        self._give_back([ack_id for _, ack_id in sorted(expired, key=itemgetter(0))])

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

    def _give_back(self, ack_ids: Sequence[str]) -> None:
        # To the back of the queue, so that a message that always fails does not hold up the others.
        returned = [out.waiting for ack_id in ack_ids if (out := self._out.pop(ack_id, None))]
        self._waiting.extend(returned)
        if returned:
            self._on_available()
