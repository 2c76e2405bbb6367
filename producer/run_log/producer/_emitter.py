"""The emitter, and the one that a process has when it asks for none."""

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

from ._capture import Capture, Entry, LeftRuns, Rejection, encode
from ._delivery import Delivery
from ._held import MAX_INTAKE, SMALL_ENTRY_BYTES, BufferLimits
from ._lifecycle import handle_sigterm, leave_sigterm, stand_down, track
from ._metrics import EmitterStats, FlushReport
from ._redaction import Redaction
from ._spool import Spool
from ._store_transport import StoreTransport
from ._transport import DeliveryPolicy, Transport

_DEFAULT_LIMITS: Final = BufferLimits()
_DEFAULT_POLICY: Final = DeliveryPolicy()


class RunEventEmitter:
    """Publishes run states in the background. One emitter a process is enough.

    The first `emit` starts one daemon thread, which delivers in batches. A slow or missing broker costs
    bounded memory: see `BufferLimits`. The emitter is thread-safe, and may be used from async code and from
    signal handlers. It is closed when the interpreter exits, and when it is garbage collected. A forked
    child starts with an empty one.

    Args:
        transport: Where messages go.
        limits: How much is held while the broker is slow or away.
        policy: When events are published, and when a failed call is repeated.
        spool: Keeps on disk what memory cannot hold, and what is left when the process ends. Without it,
            both are dropped.
        redaction: Which values are replaced before they leave the process.
        clock: Stamps events.
        new_id: Makes the ids of events.
        label_fields: Fields of a platform's own run that become labels.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that tests or a platform may set
        self,
        transport: Transport,
        *,
        limits: BufferLimits = _DEFAULT_LIMITS,
        policy: DeliveryPolicy = _DEFAULT_POLICY,
        spool: Spool | None = None,
        redaction: Redaction | None = None,
        clock: HybridLogicalClock = PROCESS_CLOCK,
        new_id: Callable[[], str] = uuid7,
        label_fields: Sequence[str] = (),
    ) -> None:
        secrets = Redaction() if redaction is None else redaction
        self._clock = clock
        self.left: Final = LeftRuns()
        """The runs that blocks left unfinished."""
        self._capture = Capture(tick=clock.tick, new_id=new_id, label_fields=label_fields)
        self._delivery = Delivery(
            transport,
            encode=lambda content: encode(content, secrets),
            limits=limits,
            policy=policy,
            spool=spool,
        )
        track(self._delivery)
        # Not at interpreter exit: `close_all` waits for delivery then, and a finalizer must not.
        weakref.finalize(self, _retire, weakref.ref(self._delivery)).atexit = False

    @classmethod
    def from_env(cls) -> Self:
        """Return an emitter to the Pub/Sub topic that the environment names.

        The first delivery connects and looks for the project and the credentials. If that fails, the log
        says why, and it is tried again.

        Raises:
            ConfigurationError: A setting is misspelt or unusable, or the extra ``producer`` is not
                installed.
        """
        settings = Settings.from_env()
        _pubsub_connector()
        return cls.from_settings(settings, pubsub_transport(settings))

    @classmethod
    def from_settings(cls, settings: Settings, transport: Transport) -> Self:
        """Return an emitter to *transport* that holds, keeps and redacts as *settings* say.

        Raises:
            ConfigurationError: ``RUN_LOG_REDACT_KEYS`` is unusable.
        """
        (handle_sigterm if settings.handle_sigterm else leave_sigterm)()
        directory = settings.spool_dir
        return cls(
            transport,
            policy=DeliveryPolicy(end_flush=settings.end_flush_seconds),
            limits=BufferLimits(events=settings.buffer_events, data_bytes=settings.buffer_bytes),
            spool=Spool(directory, max_bytes=settings.spool_max_bytes) if directory else None,
            redaction=Redaction.from_setting(settings.redact_keys, texts=settings.redact_text),
            label_fields=settings.label_fields,
        )

    def emit(self, run: object) -> None:
        """State that *run* is so now. Copies the run and returns. Never raises, never waits.

        Args:
            run: A `WorkflowRun`, any object with its fields, a mapping of them, or a `RunEvent`, which is
                published as it is. Anything else is counted as dropped and logged.
        """
        delivery = self._delivery
        item: Entry | Rejection
        try:
            item = self._capture(run)
        except BaseException as error:  # a run log must not break the workflow
            if not is_foreign(error):
                raise
            item = Rejection.of(run, error)
        intake = delivery.held.intake
        intake.append(item)
        if delivery.idle or item.size > SMALL_ENTRY_BYTES or len(intake) >= MAX_INTAKE:
            # This may fail, with too deep a stack for example. The intake has the event by now, and the next
            # one takes both on.
            with Contained():
                delivery.attend(item)

    def observe(self, hlc: int, run: RunKey | None = None) -> None:
        """Stamp everything that is emitted from now on later than *hlc*.

        If *hlc* is a minute or more ahead of this machine's clock, only states of *run* are stamped so; see
        `HybridLogicalClock.observe`.

        Args:
            hlc: A reading of a hybrid logical clock, from an event that somebody else made.
            run: The key of the run that the event is of.
        """
        self._clock.observe(hlc, run)

    def tick(self, run: RunKey) -> int:
        """Return the next reading of the clock that stamps events, for *run*."""
        return self._clock.tick(run)

    def seen(self, run: RunKey) -> int:
        """Return the reading of that clock that the next one for *run* will exceed."""
        return self._clock.seen(run)

    def call_at(self, at: float, method: Callable[[], None]) -> None:
        """Have the delivery thread call the bound *method* at this monotonic time, if its object still lives.

        Each object has one call: the earliest that it asked for.
        """
        self._delivery.call_at(at, method)

    @property
    def progress_interval(self) -> float:
        """How many seconds at least lie between two times that a run says how far it is."""
        return self._delivery.policy.progress

    def monotonic(self) -> float:
        """Return the time by which `call_at` goes."""
        return self._delivery.policy.monotonic()

    async def flush(self, timeout: float = 2.0) -> FlushReport:  # noqa: ASYNC109 - part of the contract
        """Wait until everything emitted so far is delivered, or *timeout* seconds have passed.

        A closed emitter does not wait.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The counters at that moment. What is pending is still being delivered.
        """
        await self.settled(timeout)
        return self._report()

    async def settled(self, seconds: float) -> bool:
        """Wait until everything emitted so far is delivered or dropped, or *seconds* have passed.

        Unlike the counters of `flush`, the answer does not depend on what others emit meanwhile.

        Returns:
            Whether it is. What stands aside in the spool directory is not waited for.
        """
        loop = asyncio.get_running_loop()
        settled = asyncio.Event()

        def notify() -> None:
            # The loop may be closed by now; then nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settled.set)

        waiter = self._delivery.wait(notify)
        try:
            async with asyncio.timeout(min(seconds, threading.TIMEOUT_MAX)):
                await settled.wait()
                return not self._delivery.has_given_up
        except TimeoutError:
            return False
        finally:
            self._delivery.held.forget(waiter)

    def flush_sync(self, timeout: float = 2.0) -> FlushReport:
        """Do what `flush` does, in code without an event loop. Blocks the calling thread.

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
            The counters. Events that were not delivered in time count as pending: they are in the spool
            directory, or are lost when the process ends.
        """
        self._delivery.close(timeout)
        return self._report()

    @property
    def stats(self) -> EmitterStats:
        """The counters now."""
        return self._delivery.held.stats

    async def await_end(self) -> None:
        """Wait as the end of a recorded run does: see `DeliveryPolicy.end_flush`."""
        for seconds in self._end_waits():
            if await self.settled(seconds):
                break
        stand_down()

    def await_end_sync(self) -> None:
        """Do what `await_end` does, in code without an event loop."""
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
        """Whether the last publish call failed. Waiting for delivery may then be in vain."""
        return self._delivery.failures > 0

    @property
    def is_behind(self) -> bool:
        """Whether the last publish call failed, and what it was to deliver still waits."""
        if not self.is_failing:
            return False
        stats = self.stats
        return stats.pending > stats.aside

    def _report(self) -> FlushReport:
        stats = self.stats
        return FlushReport(delivered=stats.delivered, pending=stats.pending, dropped=stats.dropped)


def _retire(reference: weakref.ref[Delivery]) -> None:
    # Weakly: the finalizer lives until the interpreter ends, and so would a program's own transport.
    delivery = reference()
    if delivery is not None:
        delivery.retire()


class LazyTransport:
    """Makes a transport when it is first used, and again in each forked child.

    The delivery thread makes it, because vendors' libraries load slowly. A child needs its own, because gRPC
    channels, event loops and database connections do not survive a fork.
    """

    def __init__(
        self, make: Callable[[], Transport], *, ends_with_process: bool = False, is_loaded: bool = False
    ) -> None:
        self.ends_with_process = ends_with_process
        self._is_loaded = is_loaded
        self._make = make
        self._made: list[Transport] = []
        self._owner = 0

    def publish(self, messages: Sequence[Message]) -> None:
        if self._owner == os.getpid():
            self._made[-1].publish(messages)
            return
        # The first call imports more: grpc loads what makes a channel, and Google's credentials what they
        # need. A child that was forked meanwhile would wait for the import for ever.
        with contextlib.nullcontext() if self._is_loaded else _own.loading:
            try:
                made = self._make()
            except ConfigurationError as error:
                raise TransportRefusedError(str(error)) from error
            # The parent's transport is kept, unused. If the garbage collector closed its event loop here,
            # the parent would no longer be woken: both processes share the loop's epoll instance.
            self._made.append(made)
            self._owner = os.getpid()
            made.publish(messages)

    def close(self) -> None:
        if self._owner == os.getpid():
            self._made[-1].close()


class _OwnEmitter:
    """This process's emitter.

    Attributes:
        is_misconfigured: Whether it refuses everything, because the environment is wrong.
        loading: Held while a transport is made. A fork waits for it.
    """

    def __init__(self) -> None:
        # Reentrant: a signal's handler may record a run in the middle of `default_emitter`.
        self.lock = renewed(self, "lock", threading.RLock)
        self.loading = renewed(self, "loading", threading.RLock, is_held=True)
        self.emitter: RunEventEmitter | None = None
        self.is_misconfigured = False


_own: Final = _OwnEmitter()


def default_emitter() -> RunEventEmitter:
    """Return this process's emitter. The first call makes it, for the back end in ``RUN_LOG_BACKEND``.

    With ``pubsub`` the emitter publishes events. With ``memory`` it applies them to the service that
    `get_run_log_service` returns, and with any other back end to a service of its own. If the environment
    is wrong, the first event that is emitted logs why, and the next call of this function tries again.
    """
    emitter = _own.emitter
    if emitter is not None and not _own.is_misconfigured:
        return emitter
    with logging_later(), _own.lock:
        if _own.emitter is None or _own.is_misconfigured:
            try:
                settings = Settings.from_env()
                made = RunEventEmitter.from_settings(settings, _transport(settings))
                # A signal's handler may have made one meanwhile.
                if _own.emitter is None or _own.is_misconfigured:
                    _own.emitter, _own.is_misconfigured = made, False
            except Exception as error:  # noqa: BLE001 - at the interpreter's end even an import fails
                if _own.emitter is None:
                    _own.emitter = RunEventEmitter(LazyTransport(_refusal(error)))
                _own.is_misconfigured = True
        return _own.emitter


def reset_default_emitter() -> None:
    """Close and forget this process's emitter, so that the next run makes a new one. For tests."""
    with _own.lock:
        emitter, _own.emitter, _own.is_misconfigured = _own.emitter, None, False
    if emitter is not None:
        emitter.close()


def pubsub_transport(settings: Settings) -> LazyTransport:
    """Return the transport to the Pub/Sub topic in *settings*. Nothing is imported before its use."""
    return LazyTransport(lambda: _pubsub_connector()(settings))


def _pubsub_connector() -> Callable[[Settings], Transport]:
    """Return what connects to Pub/Sub."""
    try:
        from ._pubsub import PubSubTransport  # noqa: PLC0415 - the vendor's library is an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"publishing needs {error.name}; {how_to_install('producer')}") from error
    return PubSubTransport.from_settings


def _transport(settings: Settings) -> Transport:
    if settings.backend == "pubsub":
        return pubsub_transport(settings)
    if settings.backend == "memory":
        return LazyTransport(_to_memory, ends_with_process=True)
    if settings.backend == "sqlite":
        # Imported here and not in the delivery thread: these modules have fork hooks of their own, and a
        # fork in the middle of the import would run half of them.
        with contextlib.suppress(RuntimeError):  # the interpreter is ending, and starts no thread anyway
            importlib.import_module("concurrent.futures.thread")
        importlib.import_module("run_log.stores.sqlite")
    return LazyTransport(lambda: _to_store(settings.backend), is_loaded=settings.backend == "sqlite")


def _to_memory() -> Transport:
    get_run_log_service()  # imports it
    return StoreTransport(lambda: cast("ProjectionStore", get_run_log_service()))


def _to_store(backend: str) -> Transport:
    # Not the process's service: that one may be bound to another event loop.
    service = create_run_log_service(backend)
    return StoreTransport(lambda: cast("ProjectionStore", service), close_store=service.close)


def _refusal(error: Exception) -> Callable[[], NoReturn]:
    def refuse() -> NoReturn:
        raise ConfigurationError(str(error))

    return refuse
