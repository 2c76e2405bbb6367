"""Opens the run log, or Pub/Sub, that a command works with, and waits until it answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from run_log.console.exit_codes import require
from run_log.console.views.output import note
from run_log.core import (
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    Settings,
    TransportRefusedError,
    TransportUnavailableError,
    UnreadableRunError,
)
from run_log.core.ids import document_id
from run_log.stores import RunLog, create_run_log_service
from run_log.stores.telemetry import skipped_runs

if TYPE_CHECKING:
    from run_log.stores import FirestoreRunLogService, SQLiteRunLogService

    AuditedStore = FirestoreRunLogService | SQLiteRunLogService

# For events to be published, before a command gives up.
FLUSH_SECONDS: Final = 30.0

# For the first answer of a service: long enough for a lost packet. Later the library's patience applies.
REACH_SECONDS: Final = 3.0
TOLD_AFTER_SECONDS: Final = 1.0

_T = TypeVar("_T")


@contextlib.asynccontextmanager
async def opened_run_log(
    backend: str | None = None, *, queries: bool = True, saves: bool = False, makes: bool = False
) -> AsyncGenerator[RunLog]:
    """Yield the run log that the environment names, or that of another *backend*, once it answers; close it.

    *queries* and *saves* say what the command does with it: without saves nothing is created, neither a file
    nor a spool. *makes* is whether it may be created if it does not exist.
    """
    settings = Settings.from_env()
    name = backend or settings.backend
    if name == "memory":
        raise _own_process_only(name)
    publishes = saves and name == "pubsub"
    if publishes:
        await reached_broker(settings)
    # Queries of the back end pubsub read Firestore. Opened like this, no emitter and no spool are created.
    log = create_run_log_service("firestore" if name == "pubsub" and not saves else name)
    is_made = False
    try:
        if queries or not publishes:
            try:
                await reached(log.place, log.reach)
            except NotFoundError:
                if not makes:
                    raise
                is_made = True
        yield log
        if is_made:
            note(f"made {log.place}")
    finally:
        await log.close()


async def reached(
    place: str,
    reach: Callable[[float], Awaitable[None]],
    *,
    told_after: float = TOLD_AFTER_SECONDS,
) -> None:
    """Wait until *reach* returns; it raises an error if the service does not answer in time.

    If that takes longer than *told_after* seconds, stderr says that *place* is waited for.
    """
    waiting = f"waiting for {place}, {REACH_SECONDS:g} s at most"
    telling = asyncio.get_running_loop().call_later(told_after, note, waiting)
    try:
        await reach(REACH_SECONDS)
    finally:
        telling.cancel()


async def reached_broker(settings: Settings, *, subscription: str | None = None) -> None:
    """Wait until Pub/Sub answers that *subscription* exists, or the event topic if it is None."""
    require("producer")
    from run_log.pubsub import PubSubConnection

    broker = PubSubConnection.from_settings(settings)
    used = broker.subscription_path(subscription) if subscription else broker.topic_path(settings.topic)
    await reached(str(broker), lambda seconds: asyncio.to_thread(broker.reach, used, seconds))


async def idle_seconds(
    settings: Settings, subscription: str, until_idle: float | None, *, extends: bool = True
) -> float | None:
    """Return *until_idle*, raised to the silence after which no process that was killed holds a lease.

    Leases of *subscription* are as long as it says, or longer if the command *extends* them.
    """
    if until_idle is None:
        return None
    from run_log.projector.pubsub import silence_after_kill
    from run_log.projector.pull import LEASE_SECONDS
    from run_log.pubsub import PubSubConnection
    from run_log.pubsub.inspection import inspect_subscription

    broker = PubSubConnection.from_settings(settings)
    lease = None
    # The right to pull does not include the right to look. If it does not exist, the pull says so.
    with contextlib.suppress(TransportRefusedError):
        path = broker.subscription_path(subscription)
        lease = (await asyncio.to_thread(inspect_subscription, broker, path)).lease
    return max(until_idle, silence_after_kill(lease, extended=LEASE_SECONDS if extends else 0.0))


@contextlib.asynccontextmanager
async def opened_store(root: str | None = None) -> AsyncGenerator[AuditedStore]:
    """Yield the environment's store once it answers, or that of another root or file; close it."""
    settings = Settings.from_env()
    # A third party's back end has no audit, whatever it keeps.
    is_file = settings.backend == "sqlite"
    if not is_file and settings.backend not in {"firestore", "pubsub"}:
        raise _own_process_only(settings.backend)
    setting = "sqlite_path" if is_file else "root_collection"
    if root is not None:
        if root == getattr(settings, setting):
            raise InvalidArgumentError(f"{root!r} is RUN_LOG_{setting.upper()} itself; pass another one")
        settings = settings.model_copy(update={setting: root})
    try:
        from run_log import stores

        kind: Any = stores.SQLiteRunLogService if is_file else stores.FirestoreRunLogService
    except ImportError as error:
        raise ConfigurationError(str(error)) from error
    service: AuditedStore = kind.from_settings(settings)
    try:
        await reached(service.place, service.reach)
        yield service
    finally:
        await service.close()


def _own_process_only(backend: str) -> ConfigurationError:
    return ConfigurationError(
        f"RUN_LOG_BACKEND is {backend!r}, which only its own process can read; set it to 'firestore' or "
        "'pubsub', or to 'sqlite' and RUN_LOG_SQLITE_PATH to the file"
    )


def asked(ask: Callable[[RunLog], Awaitable[_T]], *, saves: bool = False) -> _T:
    """Return what the environment's run log answers; *saves* is that of `opened_run_log`."""

    async def answered() -> _T:
        async with opened_run_log(saves=saves) as log:
            return await ask(log)

    return complete(answered())


def complete(work: Coroutine[Any, Any, _T]) -> _T:
    """Run *work* on an event loop of its own, and return its result.

    At the end, stderr says how many stored runs it could not read.
    """
    with skipped_runs() as skipped:
        try:
            return asyncio.run(work)
        finally:
            if skipped:
                note(_left_out(skipped))


def _left_out(skipped: Sequence[UnreadableRunError]) -> str:
    count = len({(error.workflow_id, error.run_id) for error in skipped})
    first = skipped[0]
    settings = Settings.from_env()
    if settings.backend == "sqlite":
        place = f"run {first.run_id!r} of workflow {first.workflow_id!r} in {settings.sqlite_path}"
        remedy = "save them again"
    else:
        root = settings.root_collection
        place = f"{root}/{document_id(first.workflow_id)}/runs/{document_id(first.run_id)}"
        remedy = f"save them again, or copy all with `run-log rebuild --from root:{root} --into NEW`"
    return f"left out because they cannot be read: {count} stored runs, the first {place}; {remedy}"


async def delivered(log: RunLog) -> None:
    """Wait until what was saved is durable, or raise a `TransportUnavailableError`."""
    if not await log.flush(FLUSH_SECONDS):
        raise TransportUnavailableError(
            f"it was not published within {FLUSH_SECONDS:.0f} s; try again: an event counts only once"
        )
