"""Group commit: messages that arrive one by one are decoded, and projected many to a commit."""

from __future__ import annotations

import asyncio
import enum
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    EventDecodeError,
    Outcome,
    ReceivedMessage,
    RunEvent,
    RunLogError,
    StoreError,
    StoreUnavailableError,
    TransportError,
    TransportUnavailableError,
    decode_event,
)
from run_log.core.logs import get_logger
from run_log.core.models import RunKey
from run_log.core.wire import check_stamp

from .in_hand import GroupLimits, Lanes, Progress, Room, count_dead_letter
from .ports import DeadLetters
from .projector import Projector, where_from

_FIRST_BACKOFF_SECONDS: Final = 0.5
_LONGEST_BACKOFF_SECONDS: Final = 30.0
_LONGEST_LETTER_BACKOFF_SECONDS: Final = 5.0
_LETTERS_AT_A_TIME: Final = 32
_LIMITS: Final = GroupLimits()

_logger: Final = get_logger("run_log.projector")


class Fate(enum.StrEnum):
    """What became of a message."""

    DONE = "done"
    """It is durable in the projection, or kept among the dead letters: acknowledge it."""
    RETURNED = "returned"
    """A passing fault: it has to be delivered again."""


class _Taken(NamedTuple):
    """A message in hand."""

    token: int
    message: ReceivedMessage
    settled: Callable[[ReceivedMessage, Fate], None]


class _Item(NamedTuple):
    """A message in hand, decoded."""

    taken: _Taken
    event: RunEvent

    @property
    def key(self) -> RunKey:
        return self.event.key

    @property
    def size(self) -> int:
        return len(self.taken.message.data)


class GroupCommit:
    """Projects messages that arrive one by one, many to a commit; batches under way share no run.

    Nothing waits for a timer when nothing is under way, so that a message alone is projected at once.
    While a batch is under way others gather: for a full batch, or for `GroupLimits.gather_seconds`.

    Args:
        projector: Where events go.
        dead_letters: Where messages go that are no events, or that the store refuses.
        limits: How much is projected together, and how much is in hand.
        now: Monotonic seconds.
        utc_now: The wall clock, to tell the lag.
        sleep: Waits that many seconds.
        uniform: Returns a random number between two, to spread retries.
    """

    def __init__(
        self,
        projector: Projector,
        dead_letters: DeadLetters,
        *,
        limits: GroupLimits = _LIMITS,
        now: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._projector = projector
        self._dead_letters = dead_letters
        self._limits = limits
        self._sleep = sleep
        self._uniform = uniform
        self._lanes: Lanes[_Item] = Lanes()
        self._undecoded: deque[_Taken] = deque()
        self._tokens = itertools.count()
        self._batches: dict[asyncio.Task[None], list[_Item]] = {}
        self._keeping: dict[asyncio.Task[None], _Taken] = {}
        self._gathering: asyncio.Task[None] | None = None
        self._backing_off: asyncio.Task[None] | None = None
        self._failures = self._letter_failures = 0
        self._letters = asyncio.Semaphore(_LETTERS_AT_A_TIME)
        self._room = asyncio.Event()
        self._room.set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()
        self._is_closed = self._is_unforeseen = False
        self.progress = Progress(now=now, utc_now=utc_now)
        self._memory = Room(limits, self.progress)
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.dead_lettered = 0
        self.store_trouble: RunLogError | None = None
        """What the last batch failed with; None once one has succeeded."""
        self.dead_letter_trouble: TransportError | None = None
        """What the dead letters failed with last; None once they have taken one."""

    def settle(self, message: ReceivedMessage) -> Coroutine[Any, Any, Fate]:
        """Take *message* in hand, to be projected together with whatever else is; return what tells its fate.

        Raises:
            ConfigurationError: The store is not there, or does not let us in.
        """
        future: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()

        def settled(_message: ReceivedMessage, fate: Fate) -> None:
            if not future.done():
                future.set_result(fate)

        self.submit([message], settled)
        return self._fate(future)

    async def _fate(self, future: asyncio.Future[Fate]) -> Fate:
        fate = await future
        if fate is Fate.RETURNED:
            self.raise_failure()
        return fate

    def submit(
        self, messages: Iterable[ReceivedMessage], settled: Callable[[ReceivedMessage, Fate], None]
    ) -> None:
        """Take *messages* in hand; *settled* is called with each and what became of it.

        Args:
            messages: As they were delivered.
            settled: Called in the event loop, once for each message; what it raises is logged.
        """
        for message in messages:
            taken = _Taken(next(self._tokens), message, settled)
            self.progress.taken(taken.token, message.published_at, len(message.data))
            self._quiet.clear()
            if self._is_closed or self._failure is not None:
                self._settle(taken, Fate.RETURNED)
            elif message.delivery_attempt >= self._limits.deliveries:
                error = f"delivered {message.delivery_attempt} times and never settled"
                self._keep(taken, DeadLetterReason.TOO_MANY_DELIVERIES, error)
            else:
                self._undecoded.append(taken)
        self._go_on()

    @contextmanager
    def reserving(self) -> Generator[Callable[[int], bool]]:
        """Reserve room for the body of one message that is about to come, until the block is left.

        Yields:
            Takes how large the body is, or is at least, and returns whether there is room for it: always
            where nothing else is in hand or has room reserved. Call it again as the body turns out larger.
        """
        try:
            with self._memory.reserving() as has_room:
                yield lambda size: not self.is_full and has_room(size)
        finally:
            self._update_room()

    @property
    def is_full(self) -> bool:
        """Whether as much is in hand as is allowed, or the store is away: more should come later."""
        return self._backing_off is not None or self._memory.is_full

    @property
    def is_backing_off(self) -> bool:
        """Whether the store has failed, and what is in hand waits for the next try."""
        return self._backing_off is not None

    @property
    def is_failed(self) -> bool:
        """Whether projecting has failed as nobody foresaw, and has not been taken up again yet."""
        return (self._backing_off is not None and self._is_unforeseen) or (
            self._failure is not None and not isinstance(self._failure, ConfigurationError)
        )

    async def room(self) -> None:
        """Wait until it is not full."""
        await self._room.wait()

    @property
    def room_left(self) -> tuple[int, int]:
        """Messages and bytes that may still come."""
        return self._memory.left

    def raise_failure(self) -> None:
        """Raise what ended all work, if anything did."""
        if self._failure is not None:
            raise self._failure

    async def failed(self) -> None:
        """Wait until something has ended all work, and raise it."""
        await self._failed.wait()
        self.raise_failure()

    async def wait_quiet(self) -> None:
        """Wait until nothing is in hand, or all work has ended."""
        await self._quiet.wait()

    def open(self) -> None:
        """Take messages again, after `close` or a failure."""
        self._is_closed = False
        self._failure = None
        self._failed.clear()
        self._update_room()

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - what is left by then is given back
        """Finish what is in hand, *timeout* seconds at most; the rest, and what comes now, is returned."""
        is_waiting_for_store = self._backing_off is not None and not self._batches
        if self._failure is None and not is_waiting_for_store:
            quiet = asyncio.ensure_future(self.wait_quiet())
            await asyncio.wait({quiet}, timeout=timeout)
            quiet.cancel()
        self._is_closed = True
        await self._abandon()

    def _go_on(self) -> None:
        """Decode what there is memory for, and project what there is to project."""
        while self._undecoded and not self._is_closed:
            taken = self._undecoded[0]
            if not self._memory.decode(taken.token, taken.message.data):
                break
            self._undecoded.popleft()
            self._decode(taken)
        self._update_room()
        self._start_batches()

    def _decode(self, taken: _Taken) -> None:
        reason, told = DeadLetterReason.INVALID_EVENT, ""
        try:
            event = decode_event(taken.message)
            check_stamp(event, self._projector.now(), taken.message.published_at)
            self._lanes.add(_Item(taken, event))
        except EventDecodeError as error:
            told = str(error)
            with suppress(ValueError):
                reason = DeadLetterReason(error.reason)
        except Exception as error:  # noqa: BLE001 - whatever a body provokes, it is no reason to stop
            told = f"not an event: {type(error).__name__}"
        else:
            return
        self._memory.forget(taken.token)
        self._keep(taken, reason, told)

    def _start_batches(self, *, gathered: bool = False) -> None:
        limits = self._limits
        while (
            self._lanes.ready
            and self._backing_off is None
            and self._failure is None
            and not self._is_closed
            and self._under_way < limits.in_flight
        ):
            if self._under_way and self._lanes.ready < limits.batch and not gathered:
                if self._gathering is None:
                    self._gathering = asyncio.create_task(self._gather())
                return
            gathered = False
            self._start_batch()

    @property
    def _under_way(self) -> int:
        # One that has just ended is still there until the loop comes to its callback.
        return sum(not task.done() for task in self._batches)

    def _start_batch(self) -> None:
        items = self._lanes.take(items=self._limits.batch, size=self._limits.batch_bytes)
        task = asyncio.create_task(self._project(items))
        self._batches[task] = items
        task.add_done_callback(self._batch_done)

    async def _gather(self) -> None:
        await self._sleep(self._limits.gather_seconds)
        self._gathering = None
        self._start_batches(gathered=True)

    async def _project(self, items: Sequence[_Item]) -> None:
        try:
            projected = await self._projector.project([item.event for item in items])
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - what nobody foresaw ends this try, not the projector
            self._failures += 1
            is_away = isinstance(error, StoreUnavailableError)
            # One that was not foreseen may quote anything, and holds on to what it came from.
            unforeseen = f"projecting failed with {type(error).__name__}; see the log"
            why = error if isinstance(error, StoreUnavailableError) else StoreError(unforeseen)
            self.store_trouble, self._is_unforeseen = why, not is_away
            tell = _logger.warning if is_away else _logger.error
            tell(
                "run_log_store_unavailable" if is_away else "run_log_projector_failed",
                failures=self._failures,
                error=str(why),
                message_id=items[0].taken.message.message_id,
            )
            for item in items:
                self._settle(item.taken, Fate.RETURNED)
            if self._backing_off is None:
                self._backing_off = asyncio.create_task(self._back_off())
            return
        self._failures = 0
        self.store_trouble = None
        for item, result in zip(items, projected, strict=True):
            self.outcomes[result.outcome] += 1
            if result.reason is None:
                self._settle(item.taken, Fate.DONE)
            else:
                self._keep(item.taken, result.reason, str(result.error), item.key)

    def _batch_done(self, task: asyncio.Task[None]) -> None:
        items = self._batches.pop(task)
        self._lanes.unbar({item.key: None for item in items})
        batch = [item.taken for item in items]
        # What is decoded next must not meet these in memory, whoever still holds the batch.
        items.clear()
        for taken in batch:
            self._memory.forget(taken.token)
        if task.cancelled():
            for taken in batch:
                self._settle(taken, Fate.RETURNED)
        elif (failure := task.exception()) is not None:
            self._fail(failure, batch)
        self._go_on()

    def _fail(self, failure: BaseException, batch: Sequence[_Taken]) -> None:
        """End all work: the store is not there, or something is wrong with us."""
        self._failure = self._failure or failure
        if isinstance(failure, RunLogError):
            self.store_trouble = failure
        self._failed.set()
        for taken in (*batch, *self._take_waiting()):
            self._settle(taken, Fate.RETURNED)
        self._quiet.set()
        self._room.set()

    async def _back_off(self) -> None:
        self._update_room()
        # What nobody foresaw is told to health checks for as long as this takes.
        shortest = _FIRST_BACKOFF_SECONDS if self.is_failed else 0
        await self._sleep(self._backoff(self._failures, _LONGEST_BACKOFF_SECONDS, shortest))
        self._backing_off = None
        self._go_on()

    def _backoff(self, failures: int, longest: float, shortest: float = 0) -> float:
        return self._uniform(shortest, min(longest, _FIRST_BACKOFF_SECONDS * 2 ** min(failures, 16)))

    def _settle(self, taken: _Taken, fate: Fate) -> None:
        if not self.progress.has(taken.token):
            return  # what failed after it had its fate changes that no more
        self.progress.settled(taken.token, len(taken.message.data), returned=fate is Fate.RETURNED)
        if not self.progress.in_hand:
            self._quiet.set()
        try:
            taken.settled(taken.message, fate)
        except Exception as error:  # noqa: BLE001 - it is out of hand, and others are too
            # It comes again when its lease ends.
            _logger.error(  # noqa: TRY400 - what it says may be anything
                "run_log_projector_failed",
                error=f"telling what became of a message failed with {type(error).__name__}",
                message_id=taken.message.message_id,
                where=where_from(error),
            )

    def _keep(self, taken: _Taken, reason: DeadLetterReason, error: str, key: RunKey | None = None) -> None:
        """Put a message to the dead letters, beside everything else that is going on."""
        task = asyncio.create_task(self._put(taken, reason, error, key))
        self._keeping[task] = taken
        task.add_done_callback(self._kept)

    async def _put(self, taken: _Taken, reason: DeadLetterReason, error: str, key: RunKey | None) -> None:
        details = {"message_id": taken.message.message_id}
        if key is not None:
            details |= {"workflow_id": key[0], "run_id": key[1]}
        try:
            async with self._letters:
                await self._dead_letters.put(taken.message, reason=reason, error=error)
        except Exception as failure:  # noqa: BLE001 - a letter that cannot be written stops nobody else
            self.dead_letter_trouble = (
                failure
                if isinstance(failure, TransportError)
                else TransportUnavailableError(f"the dead letters failed with {type(failure).__name__}")
            )
            self._letter_failures += 1
            _logger.warning("run_log_dead_letter_failed", error=str(self.dead_letter_trouble), **details)
            # Given back at once, it might come back at once, for ever.
            await self._sleep(self._backoff(self._letter_failures, _LONGEST_LETTER_BACKOFF_SECONDS))
            self._settle(taken, Fate.RETURNED)
            return
        self.dead_letter_trouble = None
        self._letter_failures = 0
        self.dead_lettered += 1
        count_dead_letter(reason)
        _logger.warning("run_log_dead_lettered", reason=reason.value, error=error, **details)
        self._settle(taken, Fate.DONE)

    def _kept(self, task: asyncio.Task[None]) -> None:
        taken = self._keeping.pop(task)
        if task.cancelled():
            self._settle(taken, Fate.RETURNED)
        elif (failure := task.exception()) is not None:
            self._settle(taken, Fate.RETURNED)
            self._fail(failure, [])
        self._update_room()

    async def _abandon(self) -> None:
        """Return everything that is still in hand."""
        tasks = [*self._batches, *self._keeping]
        tasks += [task for task in (self._gathering, self._backing_off) if task is not None]
        self._gathering = self._backing_off = None
        for task in tasks:
            task.cancel()
        # Each returns what it has as it ends, even where this wait is interrupted.
        await asyncio.gather(*tasks, return_exceptions=True)
        for taken in self._take_waiting():
            self._settle(taken, Fate.RETURNED)

    def _take_waiting(self) -> Iterable[_Taken]:
        decoded = [item.taken for item in self._lanes.take_all()]
        for taken in decoded:
            self._memory.forget(taken.token)
        waiting = [*decoded, *self._undecoded]
        self._undecoded.clear()
        return waiting

    def _update_room(self) -> None:
        if self.is_full and self._failure is None:
            self._room.clear()
        else:
            self._room.set()
