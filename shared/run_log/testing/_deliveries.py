"""The messages of one subscription: those that wait, and those that are delivered and not acknowledged."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
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
    """The messages of a subscription. Not thread-safe, and never waits: the subscription adds both.

    Args:
        chance: Decides what is shuffled and held back.
        now: Monotonic seconds.
        ack_deadline: How long a delivered message stays out.
        on_available: Called whenever messages become available.
    """

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
        # A heap. Deadlines that were extended or acknowledged stay in it until they are due. The turn keeps
        # equal deadlines in order of delivery.
        self._deadlines: list[tuple[float, int, str]] = []
        self._turns = itertools.count()
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
        while self._deadlines and not self._holds(self._deadlines[0]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] - self._now() if self._deadlines else math.inf

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
            out = self._out.get(ack_id)
            if out is not None:
                self._put_out(ack_id, out._replace(deadline=deadline))
        self.expire()

    def expire(self) -> None:
        """Make messages available that were not acknowledged in time."""
        expired: list[str] = []
        while self.expires_in <= 0:
            expired.append(heapq.heappop(self._deadlines)[-1])
        self._give_back(expired)

    def _put_out(self, ack_id: str, out: _Out) -> None:
        self._out[ack_id] = out
        heapq.heappush(self._deadlines, (out.deadline, next(self._turns), ack_id))

    def _holds(self, said: tuple[float, int, str]) -> bool:
        deadline, _, ack_id = said
        out = self._out.get(ack_id)
        return out is not None and out.deadline == deadline

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
        self._put_out(ack_id, _Out(delivered, deadline))
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
