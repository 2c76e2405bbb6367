"""Group commit: messages that arrive one by one are decoded, and projected together."""

from __future__ import annotations

import asyncio
import enum
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
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
    utc_now,
)
from run_log.core.backoff import Backoff
from run_log.core.logs import get_logger
from run_log.core.models import RunKey
from run_log.core.wire import check_stamp

from .in_hand import GroupLimits, Lanes, Progress, count, meter
from .ports import DeadLetters
from .projector import Projector, where_from

_STORE_BACKOFF: Final = Backoff(1.0, 30.0)
_LETTER_BACKOFF: Final = Backoff(1.0, 5.0)
# Least pause after an unexpected failure. Health checks report the failure while the pause lasts.
_SHORTEST_FAILED_SECONDS: Final = 0.5

# Dead letters that are published at once. Each may have 10 MB.
_LETTERS_AT_A_TIME: Final = 32

_LIMITS: Final = GroupLimits()

_logger: Final = get_logger("run_log.projector")
_dead_letters: Final = meter.create_counter(
    "run_log.projector.dead_letters", unit="{message}", description="Messages dead-lettered, by reason"
)


class Fate(enum.StrEnum):
    """What became of a message."""

    DONE = "done"
    """It is durable, in the projection or among the dead letters: acknowledge it."""
    RETURNED = "returned"
    """A fault that will pass: it has to be delivered again."""


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
    """Projects messages that arrive one by one, many in one commit. No two batches under way share a run.

    A message that arrives alone is projected at once. While a batch is under way, the next one waits until
    it is full, or for `GroupLimits.gather_seconds`.

    Args:
        projector: Projects the events.
        dead_letters: Keeps messages that are not events, or that the store refuses.
        limits: How much is projected together, and how much is in hand.
        now: Monotonic seconds.
        utc_now: The wall clock, for the lag.
        sleep: Waits so many seconds.
        uniform: Returns a random number between two, to spread retries.
    """

    # All state belongs to one event loop, and no method awaits between looking at it and changing it. So
    # there are no locks; what could race are the callbacks of tasks, and each says below how it is safe.

    def __init__(
        self,
        projector: Projector,
        dead_letters: DeadLetters,
        *,
        limits: GroupLimits = _LIMITS,
        now: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = utc_now,
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
        self.progress = Progress(limits, now=now, utc_now=utc_now)
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.dead_lettered = 0
        self.store_trouble: RunLogError | None = None
        """Why the last batch failed; None once a batch has succeeded."""
        self.dead_letter_trouble: TransportError | None = None
        """Why the last dead letter could not be kept; None once one has been."""

    def settle(self, message: ReceivedMessage) -> Coroutine[Any, Any, Fate]:
        """Take *message* in hand at once; return an awaitable of its fate.

        Raises:
            ConfigurationError: The store does not exist, or denies access.
        """
        future: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()

        def settled(_message: ReceivedMessage, fate: Fate) -> None:
            if not future.done():
                future.set_result(fate)

        async def fate() -> Fate:
            if await future is Fate.RETURNED:
                self.raise_failure()
            return future.result()

        self.submit([message], settled)
        return fate()

    def submit(
        self, messages: Iterable[ReceivedMessage], settled: Callable[[ReceivedMessage, Fate], None]
    ) -> None:
        """Take *messages* in hand. Each is given to *settled* once, with its fate, in the event loop."""
        for message in messages:
            token = self.progress.taken(message.published_at, len(message.data))
            taken = _Taken(token, message, settled)
            self._quiet.clear()
            if self._is_closed or self._failure is not None:
                self._settle(taken, Fate.RETURNED)
            elif message.delivery_attempt >= self._limits.deliveries:
                # Before it is decoded: decoding may be what ends each process that takes it.
                error = f"delivered {message.delivery_attempt} times, and never acknowledged"
                self._keep(taken, DeadLetterReason.TOO_MANY_DELIVERIES, error)
            else:
                self._undecoded.append(taken)
        self._go_on()

    @contextmanager
    def reserving(self) -> Generator[Callable[[int], bool]]:
        """Reserve room for the body of one message that is about to come, until the block is left.

        Yields:
            A function that takes the size of the body, as far as it is known, and returns whether there is
            room. With nothing else in hand or reserved, there is always room.
        """
        try:
            with self.progress.reserving() as has_room:
                yield lambda size: not self.is_full and has_room(size)
        finally:
            self._update_room()

    @property
    def is_full(self) -> bool:
        """Whether no more messages should come now: the limits are reached, or the store does not answer."""
        return self.is_backing_off or self.progress.is_full

    @property
    def is_backing_off(self) -> bool:
        """Whether the store has failed, and the next try is waited for."""
        return self._backing_off is not None

    @property
    def is_failed(self) -> bool:
        """Whether projecting has failed with an unexpected error, and has not begun again yet."""
        if self._failure is not None:
            return not isinstance(self._failure, ConfigurationError)
        return self.is_backing_off and self._is_unforeseen

    async def room(self) -> None:
        """Wait while it is full."""
        await self._room.wait()

    def raise_failure(self) -> None:
        """Raise the error that ended all work, if there was one."""
        if self._failure is not None:
            raise self._failure

    async def failed(self) -> None:
        """Wait until an error ends all work, and raise it."""
        await self._failed.wait()
        self.raise_failure()

    async def wait_quiet(self) -> None:
        """Wait until nothing is in hand, or all work has ended."""
        await self._quiet.wait()

    def open(self) -> None:
        """Accept messages again after `close` or a failure."""
        self._is_closed = False
        self._failure = None
        self._failed.clear()
        self._update_room()

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - what is left by then is returned
        """Finish what is in hand within *timeout* seconds; return the rest, and what comes later."""
        # While the store does not answer, the timeout would pass for nothing.
        is_waiting_for_store = self._backing_off is not None and not self._batches
        if self._failure is None and not is_waiting_for_store:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.wait_quiet()
        self._is_closed = True
        tasks = [*self._batches, *self._keeping]
        tasks += [task for task in (self._gathering, self._backing_off) if task is not None]
        self._gathering = self._backing_off = None
        # A commit that is cancelled may happen all the same. Its events come again then, as duplicates.
        for task in tasks:
            task.cancel()
        # Each task returns its messages from its callback, even if this wait is cancelled.
        await asyncio.gather(*tasks, return_exceptions=True)
        for taken in self._take_waiting():
            self._settle(taken, Fate.RETURNED)

    def _go_on(self) -> None:
        """Decode as much as there is memory for, and start the batches that may start."""
        while self._undecoded and not self._is_closed:
            taken = self._undecoded[0]
            if not self.progress.decode(taken.token, taken.message.data):
                # In order of arrival: smaller ones behind it would otherwise overtake a large one for ever.
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
        except Exception as error:  # noqa: BLE001 - one body must not end the projector, whatever it raises
            told = f"not an event: {type(error).__name__}"
        else:
            return
        self.progress.forget(taken.token)
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
            # Each commit writes the stats of its workflows once, however many runs it has. So while one is
            # under way, the next one waits to become full; with none under way, a wait would only delay the
            # event.
            if self._under_way and self._lanes.ready < limits.batch and not gathered:
                if self._gathering is None:
                    self._gathering = asyncio.create_task(self._gather())
                return
            # The wait was for one batch. The next one has to be full, or to gather too.
            gathered = False
            self._start_batch()

    @property
    def _under_way(self) -> int:
        # A task that has just ended stays in the dictionary until the loop calls its callback.
        return sum(not task.done() for task in self._batches)

    def _start_batch(self) -> None:
        items = self._lanes.take(items=self._limits.batch, size=self._limits.batch_bytes)
        task = asyncio.create_task(self._project(items))
        # The event loop holds tasks weakly, so this keeps them alive too.
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
            raise  # no retry helps, so `_batch_done` ends all work
        except Exception as error:  # noqa: BLE001 - an unexpected error ends this try, not the projector
            self._failures += 1
            details = {"failures": self._failures, "message_id": items[0].taken.message.message_id}
            self._is_unforeseen = not isinstance(error, StoreUnavailableError)
            if isinstance(error, StoreUnavailableError):
                self.store_trouble = error
                _logger.warning("run_log_store_unavailable", error=str(error), **details)
            else:
                # Its own text may quote a payload, and its traceback keeps the batch alive.
                why = f"projecting failed with {type(error).__name__}; see the log"
                self.store_trouble = StoreError(why)
                _logger.error("run_log_projector_failed", error=why, **details)  # noqa: TRY400 - see above
            # Returned at once, and not held for the next try: another projector may reach the store.
            for item in items:
                self._settle(item.taken, Fate.RETURNED)
            # Several batches fail together in an outage, and share one pause.
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
        # The commit has ended, whatever came of it: a next batch may hold the same runs.
        self._lanes.unbar({item.key: None for item in items})
        batch = [item.taken for item in items]
        # The ended task still refers to this list: without its items the decoded events are freed now, before
        # others are decoded in their place.
        items.clear()
        for taken in batch:
            self.progress.forget(taken.token)
        if task.cancelled():
            for taken in batch:
                self._settle(taken, Fate.RETURNED)
        elif (failure := task.exception()) is not None:
            self._fail(failure, batch)
        self._go_on()

    def _fail(self, failure: BaseException, batch: Sequence[_Taken]) -> None:
        """End all work: the store does not exist or denies access, or there is a bug here."""
        self._failure = self._failure or failure
        if isinstance(failure, RunLogError):
            self.store_trouble = failure
        self._failed.set()
        for taken in (*batch, *self._take_waiting()):
            self._settle(taken, Fate.RETURNED)
        # Whoever waits for one of these has to wake up, and to see the failure.
        self._quiet.set()
        self._room.set()

    async def _back_off(self) -> None:
        self._update_room()
        shortest = _SHORTEST_FAILED_SECONDS if self.is_failed else 0.0
        await self._sleep(_STORE_BACKOFF.seconds(self._failures, self._uniform, shortest=shortest))
        self._backing_off = None
        self._go_on()

    def _settle(self, taken: _Taken, fate: Fate) -> None:
        if not self.progress.settled(taken.token, returned=fate is Fate.RETURNED):
            return  # it is settled already, and a later failure does not change that
        if not self.progress.in_hand:
            self._quiet.set()
        try:
            taken.settled(taken.message, fate)
        except Exception as error:  # noqa: BLE001 - the caller's error must not end the other messages
            # The message is not acknowledged, so it comes again when its lease ends.
            _logger.error(  # noqa: TRY400 - the error's text may quote a payload
                "run_log_projector_failed",
                error=f"reporting the fate of a message failed with {type(error).__name__}",
                message_id=taken.message.message_id,
                where=where_from(error),
            )

    def _keep(self, taken: _Taken, reason: DeadLetterReason, error: str, key: RunKey | None = None) -> None:
        """Make a dead letter of a message, while batches go on."""
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
        except Exception as failure:  # noqa: BLE001 - one dead letter must not stop the others
            self.dead_letter_trouble = (
                failure
                if isinstance(failure, TransportError)
                else TransportUnavailableError(f"the dead letters failed with {type(failure).__name__}")
            )
            self._letter_failures += 1
            _logger.warning("run_log_dead_letter_failed", error=str(self.dead_letter_trouble), **details)
            # Returned without a pause, the message would come again at once, and loop.
            await self._sleep(_LETTER_BACKOFF.seconds(self._letter_failures, self._uniform))
            return  # `_kept` gives it back
        self.dead_letter_trouble = None
        self._letter_failures = 0
        self.dead_lettered += 1
        count(_dead_letters, reason=reason.value)
        _logger.warning("run_log_dead_lettered", reason=reason.value, error=error, **details)
        self._settle(taken, Fate.DONE)

    def _kept(self, task: asyncio.Task[None]) -> None:
        # If it was not kept, or this was cancelled, the message is not settled yet.
        self._settle(self._keeping.pop(task), Fate.RETURNED)
        self._update_room()

    def _take_waiting(self) -> Iterable[_Taken]:
        decoded = [item.taken for item in self._lanes.take_all()]
        for taken in decoded:
            self.progress.forget(taken.token)
        waiting = [*decoded, *self._undecoded]
        self._undecoded.clear()
        return waiting

    def _update_room(self) -> None:
        if self.is_full and self._failure is None:
            self._room.clear()
        else:
            self._room.set()
