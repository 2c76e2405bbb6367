"""The pull worker: lease, project, and only then acknowledge."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from run_log.core import (
    ConfigurationError,
    Outcome,
    ReceivedMessage,
    RunLogError,
    TransportRefusedError,
    TransportUnavailableError,
)
from run_log.core.backoff import Backoff
from run_log.core.logs import get_logger

from .group_commit import Fate, GroupCommit
from .in_hand import GroupLimits, Progress
from .ports import DeadLetters, MessageSource
from .projector import Projector, told

LEASE_SECONDS: Final = 20.0
"""How long an extended lease lasts. After a process is killed, nobody gets its messages for as long."""

FIRST_EXTENSION_SECONDS: Final = 5.0
"""A lease is first extended once its message has been in hand for so long. Nearly all messages are settled
by then. A subscription may lease for as little as 10 s
(https://cloud.google.com/pubsub/docs/lease-management)."""

LONGEST_SECONDS: Final = 3_600.0
"""A lease is no longer extended once its message has been in hand for so long: another process may succeed
with it. Google's client has the same limit."""

_LOOK_SECONDS: Final = 2.0
_BACKOFF: Final = Backoff(1.0, 30.0)
_SHORTEST_PAUSE_SECONDS: Final = 0.05
_SHORTEST_PULL_SECONDS: Final = 0.5
_PROMPT_RETURNS: Final = 10
_ABSENCE: Final = Backoff(10.0, 600.0)
# Bytes that a message is assumed to have before any has come, and again after a silence. Pub/Sub bounds a
# pull by the number of messages alone, so a pull asks for few until messages are known to be small.
_FIRST_SIZE: Final = 2**20

_logger: Final = get_logger("run_log.projector")


class _Lease(NamedTuple):
    taken_at: float
    due_at: float
    """When it is to be extended."""


class Leases:
    """Extends the leases of what is in hand, so that it is not delivered again while it waits."""

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
        """Stop extending the lease of a delivery."""
        self._held.pop(ack_id, None)

    async def keep(self) -> None:
        """Extend the leases that are held, until cancelled."""
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
        except Exception as error:  # noqa: BLE001 - the next look tries again, whatever the error was
            _logger.warning("run_log_extend_failed", messages=len(due), error=told(error))
            return
        for ack_id, lease in due.items():
            # It may have been settled during the call.
            if ack_id in self._held:
                # At half of the lease, so that after a failed call there is time for another one.
                self._held[ack_id] = lease._replace(due_at=now + self._seconds / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """How much a pull worker has in hand."""

    pulls: int = 4
    """Pulls that wait at once. With one alone, the worker would be idle for a round trip after each."""
    messages: int = 1_000
    """Most messages that a pull asks for. Pub/Sub returns no more."""
    group: GroupLimits = field(default_factory=GroupLimits)
    """How much is in hand, and how much is projected together."""
    pull_seconds: float = 2.5
    """How long a pull waits for a first message. A worker that stops waits for it. The pulls of a worker that
    was killed go on taking messages for as long."""
    stop_seconds: float = 4.0
    """How long pulls under way may take once the worker stops. It has to be longer than a pull with its
    answer: a pull that is cut off goes on at the broker, which leases its messages to nobody."""
    drain_seconds: float = 3.5
    """How long projecting what is in hand may take after that."""
    settle_seconds: float = 1.5
    """How long the last acknowledgements may take after that."""
    answer_seconds: float = 5.0
    """How long the broker may take to answer. A silence that is shorter means that there are no messages only
    once a pull came back empty."""
    lease_seconds: float = LEASE_SECONDS
    """How long an extended lease lasts. If this process dies, nobody gets its messages for as long."""


@dataclass(slots=True, kw_only=True)
class PullReport:
    """What a pull worker has done."""

    pulled: int = 0
    """Messages leased."""
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    """Decoded messages by what became of them."""
    dead_lettered: int = 0
    """Messages that became dead letters."""
    released: int = 0
    """Messages given back, to be delivered again."""


class PullWorker:
    """Moves messages from a source into a projection, and loses none.

    Pulling, decoding, projecting and acknowledging go on at the same time. `PullLimits` bounds what is in
    hand, and its leases are extended. A message is acknowledged once its event is durable, or once it is a
    dead letter. On a fault that will pass it is given back. After a crash at any point it is delivered
    again, and changes nothing twice.

    Args:
        source: Where messages come from.
        projector: Projects the events.
        dead_letters: Keeps messages that are not events, or that the store refuses.
        limits: How much is in hand.
        now: Monotonic seconds.
        sleep: Waits so many seconds.
        uniform: Returns a random number between two, to spread retries.
    """

    def __init__(
        self,
        source: MessageSource,
        projector: Projector,
        dead_letters: DeadLetters,
        *,
        limits: PullLimits = PullLimits(),
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._source = source
        self._limits = limits
        self._now = now
        self._sleep = sleep
        self._uniform = uniform
        self._group = GroupCommit(
            projector, dead_letters, limits=limits.group, now=now, sleep=sleep, uniform=uniform
        )
        self._leases = Leases(source.extend, seconds=limits.lease_seconds, now=now, sleep=sleep)
        self._settled: dict[Fate, list[ReceivedMessage]] = {fate: [] for fate in Fate}
        self._absent: dict[str, float] = {}
        self._is_stopping = False
        self._settling: dict[asyncio.Task[None], None] = {}
        self._size = float(_FIRST_SIZE)
        self._asked_bytes = 0
        self._came_back = asyncio.Event()
        self._silent_since = 0.0
        self._may_have_more = True
        self._until_idle: float | None = None
        self._pull_trouble: TransportUnavailableError | None = None
        self._pulled = self._released = 0

    @property
    def report(self) -> PullReport:
        """What it has done so far."""
        return PullReport(
            pulled=self._pulled,
            outcomes=dict(self._group.outcomes),
            dead_lettered=self._group.dead_lettered,
            released=self._released,
        )

    @property
    def progress(self) -> Progress:
        """What is in hand, for how long, and whether anything gets settled; for health checks."""
        return self._group.progress

    @property
    def trouble(self) -> RunLogError | None:
        """The error that keeps it from working now; None if there is none."""
        group = self._group
        return self._pull_trouble or group.store_trouble or group.dead_letter_trouble

    @property
    def has_failed(self) -> bool:
        """Whether projecting has failed with an unexpected error. It begins again by itself after a pause."""
        return self._group.is_failed

    async def run(self, *, stop: asyncio.Event, until_idle: float | None = None) -> PullReport:
        """Work until *stop* is set, or until nothing has arrived for *until_idle* seconds, if that is given.

        What is in hand by then is finished, or given back. Seconds in which the broker did not answer, or in
        which something was in hand, do not count as idle; see `PullLimits.answer_seconds`.

        Raises:
            TransportRefusedError: The subscription or the dead-letter topic does not exist, or access to it
                is denied.
            ConfigurationError: The store does not exist, or denies access.
            TransportUnavailableError: It became idle because the broker did not answer.
            StoreUnavailableError: It became idle because the store did not answer.
        """
        self._silent_since = self._now()
        self._may_have_more = True
        self._until_idle = until_idle
        self._is_stopping = False
        self._group.open()
        stopping = asyncio.Event()
        watch = asyncio.create_task(self._watch(stop, stopping))
        pulls = [asyncio.create_task(self._pull_until(stopping)) for _ in range(self._limits.pulls)]
        failing = asyncio.create_task(self._group.failed())
        keeping = asyncio.create_task(self._leases.keep())
        try:
            done, _ = await asyncio.wait([watch, failing, *pulls], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self._is_stopping = True
            # Pulls end before the group closes, so that what they still bring is projected too.
            await let_end(pulls, self._limits.stop_seconds)
            await self._group.close(self._limits.drain_seconds)
        finally:
            # After an error or a cancellation too: nothing may stay leased to a worker that has ended.
            self._is_stopping = True
            stopping.set()
            await let_end(pulls, self._limits.stop_seconds)
            await cancel([watch, failing, keeping])
            await self._group.close(0)
            await self._finish_settling()
        self._group.raise_failure()
        if not stop.is_set() and self.trouble is not None:
            # Nothing arrived because something is broken, not because all is done.
            raise self.trouble
        return self.report

    async def _watch(self, stop: asyncio.Event, stopping: asyncio.Event) -> None:
        """Set *stopping* once *stop* is set, or once the worker is idle."""
        if self._until_idle is None:
            await stop.wait()
        while not stop.is_set() and not self._is_idle():
            await wait_unless(stop, self._sleep(max(self._until_due(), _SHORTEST_PAUSE_SECONDS)))
        stopping.set()

    def _until_due(self) -> float:
        """Return the seconds until the silence has lasted for long enough."""
        if self._until_idle is None:
            return math.inf
        return self._silent_since + self._until_idle - self._now()

    def _is_idle(self) -> bool:
        # If the last acknowledgements fail, their messages come again, so they are waited for.
        if self._until_due() > 0 or self._settling:
            return False
        # What waits for the store to answer is no arrival: it came before the silence.
        if self._group.progress.in_hand and not self._group.is_backing_off:
            return False
        if self._still_absent():
            # While nothing can be projected, returned messages are waited for no longer than a silence.
            longest = math.inf if self.trouble is None else self._until_idle or 0.0
            if min(self._absent.values()) - self._now() <= longest:
                return False
        # A broker that is busy, or was only just connected to, may take longer to answer than until_idle.
        is_silent = self._may_have_more and self._pull_trouble is None
        return not is_silent or self._now() - self._silent_since >= self._limits.answer_seconds

    async def _pull_until(self, stopping: asyncio.Event) -> None:
        failures = 0
        while True:
            # Nothing is leased here, so this wait may be cut off at any time; a pull may not, as it would go
            # on at the broker and take messages that nobody gets until their leases end (ADR 20).
            await wait_unless(stopping, self._group.room())
            if self._is_asking_enough() and not stopping.is_set():
                self._came_back.clear()
                await wait_unless(stopping, self._came_back.wait())
                continue
            if self._is_idle():
                stopping.set()
            if stopping.is_set():
                return
            try:
                await self._pull()
                self._pull_trouble = None
                failures = 0
            except (TransportRefusedError, ConfigurationError):
                raise
            except Exception as error:  # noqa: BLE001 - an unexpected error is tried again as well
                failures += 1
                unforeseen = TransportUnavailableError(f"pulling failed with {told(error)}")
                self._pull_trouble = error if isinstance(error, TransportUnavailableError) else unforeseen
                _logger.warning("run_log_pull_failed", failures=failures, error=str(self._pull_trouble))
                await wait_unless(stopping, self._sleep(_BACKOFF.seconds(failures, self._uniform)))

    async def _pull(self) -> None:
        # A pull must not outlast the silence that ends the worker, which waits for its pulls.
        wait = min(self._limits.pull_seconds, max(self._until_due(), _SHORTEST_PULL_SECONDS))
        wanted = self._wanted()
        # Counted during the call: pulls that wait at once must not each fill the same room.
        asked_bytes = wanted * math.ceil(self._size)
        self._asked_bytes += asked_bytes
        try:
            messages = await self._source.pull(wanted, wait=wait)
        finally:
            self._asked_bytes -= asked_bytes
            self._came_back.set()
        if messages:
            self._arrived(messages)
            return
        # After a silence the next messages may have any size.
        self._size = min(2 * self._size, _FIRST_SIZE)
        if messages is not None:
            self._may_have_more = False

    def _is_asking_enough(self) -> bool:
        """Return whether the pulls under way may fill all the room that is left."""
        _, data_bytes = self._group.progress.room_left
        return self._asked_bytes > 0 and self._asked_bytes + self._size > data_bytes

    def _wanted(self) -> int:
        """Return how many messages a pull may ask for, so that all pulls together fit into the room left."""
        messages, data_bytes = self._group.progress.room_left
        fitting = min(messages, int(data_bytes / self._size)) // self._limits.pulls
        return max(1, min(self._limits.messages, fitting))

    def _arrived(self, messages: Sequence[ReceivedMessage]) -> None:
        if self._group.store_trouble is None and self._group.dead_letter_trouble is None:
            # While something is broken, what comes has been given back before: it is no arrival.
            self._silent_since = self._now()
            self._may_have_more = True
        self._pulled += len(messages)
        size = sum(len(message.data) for message in messages) / len(messages)
        # A larger size counts at once, a smaller one gradually: guessing too low could exceed the memory.
        self._size = max(size, (self._size + size) / 2, 1.0)
        # Held before they are submitted: a group that is closed returns them at once, which drops the leases.
        self._leases.hold(message.ack_id for message in messages)
        self._group.submit(messages, self._on_settled)

    def _on_settled(self, message: ReceivedMessage, fate: Fate) -> None:
        self._leases.drop(message.ack_id)
        if fate is Fate.DONE:
            # While there was no room nothing could arrive, so that time was no silence.
            self._silent_since = self._now()
        if not any(self._settled.values()):
            # One call acknowledges all that is settled in this turn of the loop.
            asyncio.get_running_loop().call_soon(self._settle)
        self._settled[fate].append(message)

    def _settle(self) -> None:
        source, settled = self._source, self._settled
        self._settled = {fate: [] for fate in Fate}
        self._released += len(settled[Fate.RETURNED])
        if done := [message.ack_id for message in settled[Fate.DONE]]:
            self._settle_beside(Fate.DONE, done, source.acknowledge(done))
        by_absence: defaultdict[float, list[str]] = defaultdict(list)
        for message in settled[Fate.RETURNED]:
            by_absence[0.0 if self._is_stopping else absence(message.delivery_attempt)].append(message.ack_id)
        for seconds, ack_ids in by_absence.items():
            if seconds:
                self._absent |= dict.fromkeys(ack_ids, self._now() + seconds)
            released = source.extend(ack_ids, seconds) if seconds else source.release(ack_ids)
            self._settle_beside(Fate.RETURNED, ack_ids, released)

    def _still_absent(self) -> list[str]:
        """Return the deliveries that were given back, and are to come again later than now."""
        now = self._now()
        self._absent = {ack_id: until for ack_id, until in self._absent.items() if until > now}
        return [*self._absent]

    def _settle_beside(self, fate: Fate, ack_ids: Sequence[str], settling: Awaitable[None]) -> None:
        async def settle() -> None:
            try:
                await settling
            except Exception as error:  # noqa: BLE001 - the messages come again, and change nothing
                if fate is Fate.DONE:
                    _logger.warning("run_log_acknowledge_failed", messages=len(ack_ids), error=told(error))
                else:
                    _logger.warning("run_log_release_failed", messages=len(ack_ids), error=told(error))

        # In a task: a slow acknowledgement must not hold up the next batch. The event loop holds tasks
        # weakly, so the dictionary keeps it alive.
        task = asyncio.create_task(settle())
        self._settling[task] = None
        task.add_done_callback(self._settling.pop)

    async def _finish_settling(self) -> None:
        if any(self._settled.values()):
            self._settle()
        if absent := self._still_absent():
            # They were to come again later, to this worker or another one. Without this one, at once is
            # better.
            self._absent.clear()
            self._settle_beside(Fate.RETURNED, absent, self._source.release(absent))
        if self._settling:
            await let_end([*self._settling], self._limits.settle_seconds)


def absence(deliveries: int) -> float:
    """Return the seconds after which a message that is given back should come again; 0 is at once.

    *deliveries* is how often it was delivered; 0 if that is not counted.
    """
    # Pub/Sub gives a message up after too many deliveries, which an outage of hours must not cause. A retry
    # policy was rejected: it also delays what a killed process had in hand (ADR 25).
    if deliveries <= _PROMPT_RETURNS:
        return 0.0
    return _ABSENCE.limit(deliveries - _PROMPT_RETURNS)


async def wait_unless(event: asyncio.Event, awaitable: Awaitable[object]) -> None:
    """Wait for *awaitable*, or cancel it once *event* is set."""
    waiting = [asyncio.ensure_future(awaitable), asyncio.ensure_future(event.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(waiting)


async def let_end(tasks: Sequence[asyncio.Task[Any]], seconds: float) -> None:
    """Wait until *tasks* have ended, and cancel those that have not after *seconds*."""
    try:
        await asyncio.wait(tasks, timeout=seconds)
    finally:
        await cancel(tasks)


async def cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel *tasks*, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
