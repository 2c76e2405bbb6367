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
from run_log.core.logs import get_logger

from .group_commit import Fate, GroupCommit
from .in_hand import GroupLimits, Progress
from .ports import DeadLetters, MessageSource
from .projector import Projector, told

LEASE_SECONDS: Final = 20.0
"""For how long a lease is extended, from then on, unless it is told otherwise: what a killed process has
extended comes to nobody for as long."""

FIRST_EXTENSION_SECONDS: Final = 5.0
"""Seconds in hand after which a message's lease is extended first: a subscription may lease for as little as
10 s (https://cloud.google.com/pubsub/docs/lease-management). Nearly all are settled by then."""

LONGEST_SECONDS: Final = 3_600.0
"""Seconds in hand after which a lease is left to end: others may do better. Google's client has the same."""

_LOOK_SECONDS: Final = 2.0
_FIRST_BACKOFF_SECONDS: Final = 0.5
_LONGEST_BACKOFF_SECONDS: Final = 30.0
_SHORTEST_PAUSE_SECONDS: Final = 0.05
_SHORTEST_PULL_SECONDS: Final = 0.5
_PROMPT_RETURNS: Final = 10
_FIRST_ABSENCE_SECONDS: Final = 10.0
_LONGEST_ABSENCE_SECONDS: Final = 600.0
_FIRST_SIZE: Final = 2**20
"""Bytes a message is taken to have before any has come, and by and by in a silence. A pull is bounded by the
number of messages alone, so it asks for few until they are known to be small."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """How much a pull worker has in hand."""

    pulls: int = 4
    """Pulls waiting at once: one alone leaves the worker idle for a round trip after each."""
    messages: int = 1_000
    """Most messages a pull asks for: the most Pub/Sub returns."""
    group: GroupLimits = field(default_factory=GroupLimits)
    """How much is in hand, and projected together."""
    pull_seconds: float = 2.5
    """How long a pull waits for a first message. What ends the worker waits for it, and the pulls of one that
    is killed take messages for as long."""
    stop_seconds: float = 4.0
    """How long pulls under way may take once the worker stops: longer than a pull, answer included. One that
    is cut off goes on at the broker, and what it takes is leased to nobody."""
    drain_seconds: float = 3.5
    """How long what is in hand may take to be projected after that."""
    settle_seconds: float = 1.5
    """How long the last acknowledgements may take after that."""
    answer_seconds: float = 5.0
    """How long a silent broker may still be on its way to an answer: a shorter silence means that nothing is
    there only once a pull came back with nothing."""
    lease_seconds: float = LEASE_SECONDS
    """For how long the leases of what is in hand are extended: as long as others wait where this one dies."""


@dataclass(slots=True, kw_only=True)
class PullReport:
    """What a pull worker has done."""

    pulled: int = 0
    """Messages leased."""
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    """Decoded messages by what became of them."""
    dead_lettered: int = 0
    """Messages put to the dead letters."""
    released: int = 0
    """Messages given back, to be delivered again."""


class PullWorker:
    """Moves messages from a source into a projection, losing none.

    Pulling, decoding, projecting and acknowledging go on beside each other, each bounded by what is in
    hand, and what is in hand for long stays leased. A message is acknowledged after its event is durable,
    or after it is kept among the dead letters. On a passing fault it is given back. Crash at any point: it
    is delivered again, and changes nothing twice.

    Args:
        source: Where messages come from.
        projector: Where events go.
        dead_letters: Where messages go that are no events, or that the store refuses.
        limits: How much is in hand.
        now: Monotonic seconds.
        sleep: Waits that many seconds.
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
        """What is in hand, for how long, and whether anything moves: what health checks look at."""
        return self._group.progress

    @property
    def trouble(self) -> RunLogError | None:
        """What keeps it from working now; None where nothing does, as far as it knows."""
        group = self._group
        return self._pull_trouble or group.store_trouble or group.dead_letter_trouble

    @property
    def has_failed(self) -> bool:
        """Whether projecting has failed as nobody foresaw. It begins again by itself, after a while."""
        return self._group.is_failed

    async def run(self, *, stop: asyncio.Event, until_idle: float | None = None) -> PullReport:
        """Work until *stop* is set, or until nothing has arrived for *until_idle* seconds.

        What is in hand by then is finished, or given back. Seconds in which the broker has not answered, or
        in which there was something in hand, are none without a message; see `PullLimits.answer_seconds`.

        Args:
            stop: Ends the work.
            until_idle: Seconds without a message; None works until stopped.

        Raises:
            TransportRefusedError: The subscription is not there, or denied; or it was idle only because
                the dead-letter topic is.
            ConfigurationError: The store is not there, or does not let us in.
            TransportUnavailableError: It was idle only because the broker did not answer.
            StoreUnavailableError: It was idle only because the store did not take what came.
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
            await _first_ended([watch, failing, *pulls])
            self._is_stopping = True
            await let_end(pulls, self._limits.stop_seconds)
            await self._group.close(self._limits.drain_seconds)
        finally:
            self._is_stopping = True
            stopping.set()
            await let_end(pulls, self._limits.stop_seconds)
            await cancel([watch, failing, keeping])
            await self._group.close(0)
            await self._finish_settling()
        self._group.raise_failure()
        if not stop.is_set() and self.trouble is not None:
            # Silence then does not mean that all is done.
            raise self.trouble
        return self.report

    async def _watch(self, stop: asyncio.Event, stopping: asyncio.Event) -> None:
        """Set *stopping* when it is time to stop."""
        if self._until_idle is None:
            await stop.wait()
        while not stop.is_set() and not self._is_idle():
            await self._pause(max(self._until_due(), _SHORTEST_PAUSE_SECONDS), unless=stop)
        stopping.set()

    def _until_due(self) -> float:
        """Return the seconds until the silence has lasted for long enough."""
        if self._until_idle is None:
            return math.inf
        return self._silent_since + self._until_idle - self._now()

    def _is_idle(self) -> bool:
        if self._until_due() > 0 or self._settling:
            return False
        # What waits for another try of the store is no news: it has come in trouble, or before the silence.
        if self._group.progress.in_hand and not self._group.is_backing_off:
            return False
        if self._still_absent():
            # While nothing can be projected, what comes again is not waited for longer than a silence.
            longest = math.inf if self.trouble is None else self._until_idle or 0.0
            if min(self._absent.values()) - self._now() <= longest:
                return False
        # One that was only just connected to, or is busy, may take longer to answer than we may be idle.
        is_silent = self._may_have_more and self._pull_trouble is None
        return not is_silent or self._now() - self._silent_since >= self._limits.answer_seconds

    async def _pull_until(self, stopping: asyncio.Event) -> None:
        failures = 0
        while True:
            # Nothing is leased while there is no room, so this may be left at once.
            await wait_unless(stopping, asyncio.ensure_future(self._group.room()))
            if self._is_asking_enough() and not stopping.is_set():
                self._came_back.clear()
                await wait_unless(stopping, asyncio.ensure_future(self._came_back.wait()))
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
            except Exception as error:  # noqa: BLE001 - what nobody foresaw is tried again as well
                failures += 1
                unforeseen = TransportUnavailableError(f"pulling failed with {told(error)}")
                self._pull_trouble = error if isinstance(error, TransportUnavailableError) else unforeseen
                _logger.warning("run_log_pull_failed", failures=failures, error=str(self._pull_trouble))
                await self._pause(self._backoff(failures), unless=stopping)

    async def _pull(self) -> None:
        # No longer than until it may be idle, or an idle worker would have to wait for it.
        wait = min(self._limits.pull_seconds, max(self._until_due(), _SHORTEST_PULL_SECONDS))
        wanted = self._wanted()
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
        # What comes next may be of any size.
        self._size = min(2 * self._size, _FIRST_SIZE)
        if messages is not None:
            self._may_have_more = False

    def _is_asking_enough(self) -> bool:
        """Return whether the pulls under way may bring all that there is room for."""
        _, data_bytes = self._group.room_left
        return self._asked_bytes > 0 and self._asked_bytes + self._size > data_bytes

    def _wanted(self) -> int:
        """Return how many messages a pull may ask for, so that all pulls together fit in what is left."""
        messages, data_bytes = self._group.room_left
        fitting = min(messages, int(data_bytes / self._size)) // self._limits.pulls
        return max(1, min(self._limits.messages, fitting))

    def _arrived(self, messages: Sequence[ReceivedMessage]) -> None:
        if self._group.store_trouble is None and self._group.dead_letter_trouble is None:
            # What comes back only because it was given back is no arrival.
            self._silent_since = self._now()
            self._may_have_more = True
        self._pulled += len(messages)
        size = sum(len(message.data) for message in messages) / len(messages)
        # Larger ones count at once, smaller ones by and by.
        self._size = max(size, (self._size + size) / 2, 1.0)
        self._leases.hold(message.ack_id for message in messages)
        self._group.submit(messages, self._on_settled)

    def _on_settled(self, message: ReceivedMessage, fate: Fate) -> None:
        self._leases.drop(message.ack_id)
        if fate is Fate.DONE:
            # With no room for more nothing could arrive, which is no silence.
            self._silent_since = self._now()
        if not any(self._settled.values()):
            # Once for all that are settled in this turn of the loop.
            asyncio.get_running_loop().call_soon(self._settle)
        self._settled[fate].append(message)

    def _settle(self) -> None:
        done, returned = self._settled[Fate.DONE], self._settled[Fate.RETURNED]
        self._settled = {fate: [] for fate in Fate}
        self._released += len(returned)
        if done:
            self._settle_beside(self._acknowledge([message.ack_id for message in done]))
        by_absence: defaultdict[float, list[str]] = defaultdict(list)
        for message in returned:
            by_absence[0.0 if self._is_stopping else absence(message.delivery_attempt)].append(message.ack_id)
        for seconds, ack_ids in by_absence.items():
            if seconds:
                self._absent |= dict.fromkeys(ack_ids, self._now() + seconds)
            self._settle_beside(self._release(ack_ids, seconds))

    def _still_absent(self) -> list[str]:
        """Return the deliveries that were given back to come again later than now."""
        now = self._now()
        self._absent = {ack_id: until for ack_id, until in self._absent.items() if until > now}
        return [*self._absent]

    def _settle_beside(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(telling)
        self._settling[task] = None
        task.add_done_callback(self._settling.pop)

    async def _acknowledge(self, ack_ids: Sequence[str]) -> None:
        try:
            await self._source.acknowledge(ack_ids)
        except Exception as error:  # noqa: BLE001 - they come again, and change nothing
            _logger.warning("run_log_acknowledge_failed", messages=len(ack_ids), error=told(error))

    async def _release(self, ack_ids: Sequence[str], seconds: float = 0.0) -> None:
        try:
            if seconds:
                await self._source.extend(ack_ids, seconds)
            else:
                await self._source.release(ack_ids)
        except Exception as error:  # noqa: BLE001 - they come again all the same, when their lease ends
            _logger.warning("run_log_release_failed", messages=len(ack_ids), error=told(error))

    async def _finish_settling(self) -> None:
        if any(self._settled.values()):
            self._settle()
        if absent := self._still_absent():
            self._absent.clear()
            self._settle_beside(self._release(absent))
        if self._settling:
            await asyncio.wait([*self._settling], timeout=self._limits.settle_seconds)
            await cancel([*self._settling])

    def _backoff(self, failures: int) -> float:
        return self._uniform(
            0, min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures, 16))
        )

    async def _pause(self, seconds: float, *, unless: asyncio.Event) -> None:
        await wait_unless(unless, asyncio.ensure_future(self._sleep(seconds)))


def absence(deliveries: int) -> float:
    """Return the seconds until a message that was given back comes again; 0 is at once.

    Pub/Sub counts deliveries, and gives up what was delivered too often: an outage of hours must not come to
    that. A retry policy would do the same, and hold back what a killed process had in hand too.

    Args:
        deliveries: How often it was delivered; 0 where that is not counted.
    """
    if deliveries <= _PROMPT_RETURNS:
        return 0.0
    doublings = min(deliveries - _PROMPT_RETURNS - 1, 16)
    return min(_LONGEST_ABSENCE_SECONDS, _FIRST_ABSENCE_SECONDS * 2.0**doublings)


async def wait_unless(event: asyncio.Event, future: asyncio.Future[Any]) -> None:
    """Wait until *future* is done, or cancel it once *event* is set."""
    signal: asyncio.Future[Any] = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({future, signal}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel([signal, future])


async def let_end(tasks: Sequence[asyncio.Task[Any]], seconds: float) -> None:
    """Wait *seconds* at most until *tasks* have ended, and cancel those that have not."""
    try:
        await asyncio.wait(tasks, timeout=seconds)
    finally:
        await cancel(tasks)


async def _first_ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until one of *tasks* has ended, and raise its error."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel *tasks*, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
