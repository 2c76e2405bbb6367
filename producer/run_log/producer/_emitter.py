"""The emitter: takes a run's state in passing. What happens then is `_delivery`'s."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NoReturn, Self, cast

from run_log.core import ConfigurationError, Message, Settings, TransportRefusedError
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.core.forks import renewed
from run_log.core.ids import uuid7
from run_log.core.install import how_to_install
from run_log.core.logs import logging_later
from run_log.core.models import RunKey
from run_log.core.nearest import Contained, is_foreign
from run_log.stores import ProjectionStore, create_run_log_service, get_run_log_service

from ._capture import Capture, Entry, encode
from ._delivery import Delivery
from ._held import MAX_INTAKE, SMALL_ENTRY_BYTES, BufferLimits, Rejection
from ._lifecycle import handle_sigterm, leave_sigterm, stand_down, track
from ._metrics import EmitterStats, FlushReport
from ._redaction import Redaction
from ._spool import Spool
from ._store_transport import StoreTransport
from ._transport import DeliveryPolicy, Transport

_DEFAULT_LIMITS: Final = BufferLimits()
_DEFAULT_POLICY: Final = DeliveryPolicy()


class RunEventEmitter:
    """Publishes run states, fire-and-forget. One a process is enough.

    Nothing starts before the first `emit`; then one daemon thread delivers in batches. A broker that is
    slow or away costs bounded memory: see `BufferLimits`. Thread-safe, and usable from async code and from
    signal handlers. Normal interpreter exit closes it, and so does the garbage collector; a forked child
    starts empty.

    Args:
        transport: Where messages go.
        limits: How much is held for a broker that is slow or away.
        policy: When events are published, and when a call that failed is repeated.
        spool: Keeps on disk what memory cannot, and what is left when the process ends; None drops it.
        redaction: Which values are replaced before they leave the process.
        clock: Stamps events.
        new_id: Makes events' identities.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        limits: BufferLimits = _DEFAULT_LIMITS,
        policy: DeliveryPolicy = _DEFAULT_POLICY,
        spool: Spool | None = None,
        redaction: Redaction | None = None,
        clock: HybridLogicalClock = PROCESS_CLOCK,
        new_id: Callable[[], str] = uuid7,
    ) -> None:
        secrets = Redaction() if redaction is None else redaction
        self._clock = clock
        self._capture = Capture(tick=clock.tick, new_id=new_id)
        self._delivery = Delivery(
            transport,
            encode=lambda captured: encode(captured, secrets),
            limits=limits,
            policy=policy,
            spool=spool,
        )
        track(self._delivery)
        # At interpreter exit there is time to wait for delivery, which a finalizer must not.
        weakref.finalize(self, _retire, weakref.ref(self._delivery)).atexit = False

    @classmethod
    def from_env(cls) -> Self:
        """Return an emitter to the Pub/Sub topic that the environment describes.

        Connecting, and looking for the project and the credentials, is left to the first delivery: what is
        wrong with them is logged, and tried again.

        Raises:
            ConfigurationError: A setting is misspelt or cannot be used, or the extra ``producer`` is not
                installed.
        """
        settings = Settings.from_env()
        return cls.from_settings(settings, pubsub_transport(settings))

    @classmethod
    def from_settings(cls, settings: Settings, transport: Transport) -> Self:
        """Return an emitter to *transport* that holds, keeps and redacts as *settings* say.

        Raises:
            ConfigurationError: ``RUN_LOG_REDACT_KEYS`` cannot be used.
        """
        (handle_sigterm if settings.handle_sigterm else leave_sigterm)()
        directory = settings.spool_dir
        return cls(
            transport,
            policy=DeliveryPolicy(end_flush=settings.end_flush_seconds),
            limits=BufferLimits(events=settings.buffer_events, data_bytes=settings.buffer_bytes),
            spool=Spool(directory, max_bytes=settings.spool_max_bytes) if directory else None,
            redaction=Redaction.from_setting(settings.redact_keys, texts=settings.redact_text),
        )

    def emit(self, run: object) -> None:
        """State that *run* is so now. Copies it and returns; never raises, never waits.

        Args:
            run: A `WorkflowRun`, any object with its fields, a mapping of them, or a `RunEvent` to
                publish as it is. What is none of these is counted as dropped and logged.
        """
        delivery = self._delivery
        item: Entry | Rejection
        try:
            item = self._capture(run)
        except BaseException as error:  # a workflow never notices
            if not is_foreign(error):
                raise
            item = Rejection.of(run, error)
        delivery.intake.append(item)
        if delivery.idle or item.size > SMALL_ENTRY_BYTES or len(delivery.intake) >= MAX_INTAKE:
            # Too deep a stack, say. The event is in the intake: the next one brings it on its way.
            with Contained():
                delivery.attend(item)

    def observe(self, hlc: int, run: RunKey | None = None) -> None:
        """Have everything emitted from now on be later than *hlc*, by version.

        Where that is a minute or more ahead of this machine's clock, only states of *run* are; see
        `HybridLogicalClock.observe`.

        Args:
            hlc: A reading of a hybrid logical clock, of an event that somebody else made.
            run: The key of the run that the event is of.
        """
        self._clock.observe(hlc, run)

    async def flush(self, timeout: float = 2.0) -> FlushReport:  # noqa: ASYNC109 - part of the contract
        """Wait until everything emitted so far is delivered, or *timeout* seconds have passed.

        On a closed emitter it does not wait.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The emitter's counters then: whatever `pending` counts goes on being delivered.
        """
        await self._settled(timeout)
        return self._report()

    async def _settled(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        settled = asyncio.Event()

        def notify() -> None:
            # The loop may have been closed meanwhile: then nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settled.set)

        waiter = self._delivery.wait(notify)
        try:
            async with asyncio.timeout(min(seconds, threading.TIMEOUT_MAX)):
                return await settled.wait()
        except TimeoutError:
            return False
        finally:
            self._delivery.held.forget(waiter)

    def flush_sync(self, timeout: float = 2.0) -> FlushReport:
        """Do what `flush` does, for code without an event loop: it blocks the calling thread.

        Args:
            timeout: Seconds to wait at most.
        """
        self._delivery.settled(timeout)
        return self._report()

    def close(self, timeout: float = 2.0) -> FlushReport:
        """Deliver what is held, for *timeout* seconds at most, and stop. Closing twice is fine.

        What is emitted afterwards is counted as dropped.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The emitter's counters. What was not delivered in time is counted as pending: it is in the spool
            directory, or lost when the process ends.
        """
        self._delivery.close(timeout)
        return self._report()

    @property
    def stats(self) -> EmitterStats:
        """The counters now."""
        return self._delivery.stats

    @property
    def end_flush_seconds(self) -> float:
        """How long the end of a recorded run waits for delivery: not at all where that would be in vain."""
        return 0.0 if self.is_failing else self._delivery.policy.end_flush_seconds

    async def await_end(self) -> None:
        """Wait as the end of a recorded run does: see `DeliveryPolicy.end_flush`."""
        for seconds in self._end_waits():
            if await self._settled(seconds):
                break
        stand_down()

    def await_end_sync(self) -> None:
        """Do what `await_end` does, for code without an event loop."""
        for seconds in self._end_waits():
            if self._delivery.settled(seconds):
                break
        stand_down()

    def _end_waits(self) -> Iterator[float]:
        for seconds in self._delivery.policy.end_waits:
            if self.is_failing or not seconds:
                return
            yield seconds

    @property
    def is_failing(self) -> bool:
        """Whether the last publish call failed: waiting for delivery may be in vain."""
        return self._delivery.is_failing

    def _report(self) -> FlushReport:
        stats = self.stats
        return FlushReport(delivered=stats.delivered, pending=stats.pending, dropped=stats.dropped)


def _retire(reference: weakref.ref[Delivery]) -> None:
    # Weakly: a transport of the program's own would keep the program's objects until the interpreter is gone.
    delivery = reference()
    if delivery is not None:
        delivery.retire()


def pubsub_transport(settings: Settings) -> Transport:
    """Return the transport to Pub/Sub that *settings* describe.

    Raises:
        ConfigurationError: The extra ``producer`` is not installed.
    """
    try:
        from ._pubsub import create_transport  # noqa: PLC0415 - the vendor's library is an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"publishing needs {error.name}; {how_to_install('producer')}") from error
    return create_transport(settings)


class LazyTransport:
    """Makes the transport when it is used, in the delivery thread: vendors' libraries load slowly.

    Args:
        make: Makes it.
        ends_with_process: Whether what it takes does, so that nothing is lost which it has not got by then.
        is_loaded: Whether what it needs is imported already, so that a fork need not wait for it.
    """

    def __init__(
        self, make: Callable[[], Transport], *, ends_with_process: bool = False, is_loaded: bool = False
    ) -> None:
        self.ends_with_process = ends_with_process
        self._is_loaded = is_loaded
        self._make = make
        self._made: Transport | None = None
        self._owner = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        if self._made is not None and self._owner == os.getpid():
            self._made.publish(messages)
            return
        # The first call imports, too: grpc what makes a channel, Google's credentials what they need.
        with contextlib.nullcontext() if self._is_loaded else _process.loading:
            try:
                self._made, self._owner = self._make(), os.getpid()
            except ConfigurationError as error:
                raise TransportRefusedError(str(error)) from error
            self._made.publish(messages)

    def close(self) -> None:
        """See `Transport.close`."""
        if self._made is not None and self._owner == os.getpid():
            self._made.close()


class _Process:
    """This process's emitter, and why it is not the one that was asked for, where that is so."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may record a run in the middle of it.
        self.lock = renewed(self, "lock", threading.RLock)
        # A child would inherit the lock of a module that is being imported, and wait for it for ever.
        self.loading = renewed(self, "loading", threading.RLock, is_held=True)
        self.emitter: RunEventEmitter | None = None
        self.is_misconfigured = False


_process: Final = _Process()


def default_emitter() -> RunEventEmitter:
    """Return this process's emitter, made at the first call, by ``RUN_LOG_BACKEND``.

    ``pubsub`` publishes events; every other back end has them applied directly: ``memory`` to the
    service that `get_run_log_service` returns, any other to one of the emitter's own. Where the environment
    is wrong, the log says so once something is emitted, and the next call tries again.
    """
    emitter = _process.emitter
    if emitter is not None and not _process.is_misconfigured:
        return emitter
    with logging_later(), _process.lock:
        if _process.emitter is None or _process.is_misconfigured:
            try:
                settings = Settings.from_env()
                made = RunEventEmitter.from_settings(settings, _transport(settings))
                if _process.emitter is None or _process.is_misconfigured:
                    _process.emitter, _process.is_misconfigured = made, False
            except Exception as error:  # noqa: BLE001 - at the interpreter's end even an import fails
                if _process.emitter is None:
                    _process.emitter = RunEventEmitter(LazyTransport(_refusal(error)))
                _process.is_misconfigured = True
        return _process.emitter


def reset_default_emitter() -> None:
    """Close and forget this process's emitter, so that the next run makes a new one. For tests."""
    with _process.lock:
        emitter, _process.emitter, _process.is_misconfigured = _process.emitter, None, False
    if emitter is not None:
        emitter.close()


def _transport(settings: Settings) -> Transport:
    if settings.backend == "pubsub":
        return LazyTransport(lambda: pubsub_transport(settings))
    if settings.backend == "sqlite":
        # Not in the delivery thread: a fork that met it would run half of these modules' own hooks.
        with contextlib.suppress(RuntimeError):  # the interpreter is ending: there is no thread then, either
            importlib.import_module("concurrent.futures.thread")
        importlib.import_module("run_log.stores.sqlite")
        return LazyTransport(lambda: _own_store(settings.backend), is_loaded=True)
    if settings.backend == "memory":
        return LazyTransport(_own_memory, ends_with_process=True)
    return LazyTransport(lambda: _own_store(settings.backend))


def _own_memory() -> Transport:
    get_run_log_service()  # imports it
    return StoreTransport(lambda: cast("ProjectionStore", get_run_log_service()))


def _own_store(backend: str) -> Transport:
    # A service of its own: the background thread has an event loop of its own.
    own = create_run_log_service(backend)
    return StoreTransport(lambda: cast("ProjectionStore", own), close_store=own.close)


def _refusal(error: Exception) -> Callable[[], NoReturn]:
    def refuse() -> NoReturn:
        raise ConfigurationError(str(error))

    return refuse
