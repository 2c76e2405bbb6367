"""Pub/Sub as far as a projector sees it: at least once, in any order, with leases that end."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from run_log.core import DeadLetterReason, Message, ReceivedMessage, TransportUnavailableError
from run_log.core.wire import message_fault
from run_log.projector import DeadLetter
from run_log.pubsub import PubSubConnection

from .process import Process
from .record import Record, ViolationError

_T = TypeVar("_T")

ACK_DEADLINE = 15.0
_A_MOMENT = 0.001
"""A lease holds until its end; only then is it over."""


@dataclass(slots=True)
class _Kept:
    """A message at the broker."""

    message_id: str
    message: Message
    deliveries: int = 0
    is_acknowledged: bool = False
    leases: dict[str, float] = field(default_factory=dict[str, float])
    """Until when each delivery is leased, by ack id."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pull:
    """A pull that has found nothing yet. Who asked may be gone by the time that something comes."""

    most: int
    answer: asyncio.Future[list[ReceivedMessage]]


class Broker:
    """One subscription."""

    def __init__(
        self,
        chance: random.Random,
        record: Record,
        now: Callable[[], float],
        on_acknowledged: Callable[[Message], None],
    ) -> None:
        self._chance = chance
        self._record = record
        self._now = now
        self._on_acknowledged = on_acknowledged
        self._kept: list[_Kept] = []
        self._ack_ids = itertools.count(1)
        self._by_ack_id: dict[str, _Kept] = {}
        self._pulls: list[_Pull] = []
        self.duplicates = 0.0
        """How likely a leased message is delivered to somebody else all the same."""

    def publish(self, message: Message) -> None:
        """Keep *message* for the subscription."""
        self._kept.append(_Kept(str(len(self._kept) + 1), message))
        self._serve_after(self._chance.uniform(0, 1))

    @property
    def backlog(self) -> int:
        """Messages that are not acknowledged."""
        return sum(not kept.is_acknowledged for kept in self._kept)

    def pull(self, most: int, wait: float) -> asyncio.Future[list[ReceivedMessage]]:
        """Return what will be some of what waits, in no order; nothing where nothing comes for so long."""
        loop = asyncio.get_running_loop()
        pull = _Pull(most, loop.create_future())
        self._pulls.append(pull)
        self._serve()
        if pull in self._pulls:
            nothing: list[ReceivedMessage] = []
            loop.call_later(wait, self._answer, pull, nothing)
        return pull.answer

    def _serve(self) -> None:
        while self._pulls:
            waiting = [kept for kept in self._kept if self._is_waiting(kept)]
            if not waiting:
                return
            pull = self._chance.choice(self._pulls)
            self._chance.shuffle(waiting)
            self._answer(
                pull, [self._delivered(kept) for kept in waiting[: self._chance.randint(1, pull.most)]]
            )

    def _answer(self, pull: _Pull, messages: list[ReceivedMessage]) -> None:
        if pull in self._pulls:
            self._pulls.remove(pull)
            pull.answer.set_result(messages)

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Take the deliveries as done with; one whose lease has ended counts now and then."""
        for ack_id in ack_ids:
            kept = self._by_ack_id[ack_id]
            is_late = kept.leases.get(ack_id, 0.0) < self._now()
            if kept.is_acknowledged or (is_late and self._chance.random() < 0.5):
                continue
            kept.is_acknowledged = True
            self._record.note("acknowledged", kept.message_id)
            self._on_acknowledged(kept.message)

    def release(self, ack_ids: Sequence[str]) -> None:
        """End the leases of these deliveries."""
        for ack_id in ack_ids:
            self._by_ack_id[ack_id].leases.pop(ack_id, None)
        self._serve_after(self._chance.uniform(0, 1))

    def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Have these deliveries leased from now on, unless their leases have ended."""
        for ack_id in ack_ids:
            leases = self._by_ack_id[ack_id].leases
            if leases.get(ack_id, 0.0) >= self._now():
                leases[ack_id] = self._now() + seconds
                self._serve_after(seconds + _A_MOMENT)

    def _serve_after(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._serve)

    def _is_waiting(self, kept: _Kept) -> bool:
        if kept.is_acknowledged:
            return False
        leased = any(until >= self._now() for until in kept.leases.values())
        return not leased or self._chance.random() < self.duplicates

    def _delivered(self, kept: _Kept) -> ReceivedMessage:
        kept.deliveries += 1
        if kept.deliveries > 1:
            self._record.note("delivered again", kept.message_id)
        ack_id = f"ack-{next(self._ack_ids)}"
        kept.leases[ack_id] = self._now() + ACK_DEADLINE
        self._serve_after(ACK_DEADLINE + _A_MOMENT)
        self._by_ack_id[ack_id] = kept
        return ReceivedMessage(
            data=kept.message.data,
            attributes=kept.message.attributes,
            message_id=kept.message_id,
            ack_id=ack_id,
        )


class SimulatedSource:
    """The subscription as one process sees it. See `MessageSource`."""

    def __init__(self, broker: Broker, process: Process, chance: random.Random) -> None:
        self._broker = broker
        self._process = process
        self._chance = chance
        self.faults = 0.0
        """How likely a call fails."""

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        answer = await self._call(lambda: self._broker.pull(max_messages, wait))
        # Shielded: Pub/Sub learns nothing of one who does not wait any more.
        return await self._process.hear(asyncio.shield(answer))

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        await self._call(lambda: self._broker.acknowledge(ack_ids))

    async def release(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.release`."""
        await self._call(lambda: self._broker.release(ack_ids))

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """See `MessageSource.extend`."""
        await self._call(lambda: self._broker.extend(ack_ids, seconds))

    async def close(self) -> None:
        """See `MessageSource.close`."""

    async def _call(self, serve: Callable[[], _T]) -> _T:
        return await _call(self._process, serve, self._chance, self.faults)


class SimulatedLetters(PubSubConnection):
    """The dead-letter topic as one process sees it, with Pub/Sub's limits, for `PubSubDeadLetters` itself."""

    def __init__(
        self, kept: list[tuple[Message, DeadLetterReason]], process: Process, chance: random.Random
    ) -> None:
        self.project = "simulated"
        self._kept = kept
        self._process = process
        self._chance = chance
        self.faults = 0.0
        """How likely a call fails."""

    def async_publisher(self) -> Any:
        """See `PubSubConnection.async_publisher`."""
        return self

    async def publish(self, *, messages: Sequence[Mapping[str, Any]], **_options: object) -> None:
        """See Pub/Sub's own client."""
        await _call(self._process, lambda: self._keep(messages), self._chance, self.faults)

    def _keep(self, letters: Sequence[Mapping[str, Any]]) -> None:
        for each in letters:
            letter = Message(data=each["data"], attributes=each["attributes"])
            if fault := message_fault(letter):
                raise ViolationError(f"no dead letter that Pub/Sub takes: {fault}")
            read = DeadLetter.from_message(
                ReceivedMessage(data=letter.data, attributes=letter.attributes, message_id="1", ack_id="1")
            )
            if read.left_out or read.cut or not read.error:
                raise ViolationError(f"a dead letter that is not whole: {read}")
            self._kept.append(
                (Message(data=read.data, attributes=read.attributes), DeadLetterReason(read.reason))
            )


async def _call(process: Process, serve: Callable[[], _T], chance: random.Random, faults: float) -> _T:
    fault = chance.choice(("never arrives", "answer lost")) if chance.random() < faults else None

    def faulty() -> _T:
        if fault == "never arrives":
            raise TransportUnavailableError(fault)
        answer = serve()
        if fault == "answer lost":
            raise TransportUnavailableError(fault)
        return answer

    return await process.ask(faulty)
