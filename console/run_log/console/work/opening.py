"""The run log that a command asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

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
from run_log.stores.audit import Audit
from run_log.stores.telemetry import skipped_runs

FLUSH_SECONDS: Final = 30.0
"""How long a command waits until what it saved is published."""

REACH_SECONDS: Final = 3.0
"""How long a command waits for the first answer of what it is about to use, though a packet is lost. Then it
is as patient as the library."""

TOLD_AFTER_SECONDS: Final = 1.0

_T = TypeVar("_T")


@contextlib.asynccontextmanager
async def opened_run_log(
    backend: str | None = None, *, queries: bool = True, saves: bool = False, makes: bool = False
) -> AsyncGenerator[RunLog]:
    """Yield the run log that the environment names, once it answers, and close it.

    Args:
        backend: Another back end than the environment's; None is that.
        queries: Whether it is asked anything.
        saves: Whether anything is saved: else nothing is made, be it a file or a spool directory.
        makes: Whether it may be made where it is not there.

    Raises:
        ConfigurationError: It is one that no other process can look into, or cannot be made.
        NotFoundError: It is not there, and may not be made.
        StoreUnavailableError: It does not answer.
        TransportUnavailableError: It is to be published to, and Pub/Sub does not answer.
    """
    settings = Settings.from_env()
    name = backend or settings.backend
    if name == "memory":
        raise ConfigurationError(
            "RUN_LOG_BACKEND is 'memory', which holds no run of another process; set it to 'firestore' or "
            "'pubsub', or to 'sqlite' and RUN_LOG_SQLITE_PATH to the file"
        )
    publishes = saves and name == "pubsub"
    if publishes:
        await reached_broker(settings)
    # Where saves are published, queries ask Firestore: no emitter, and no spool, is needed for that.
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
    seconds: float = REACH_SECONDS,
    told_after: float = TOLD_AFTER_SECONDS,
) -> None:
    """Wait until something answers, and say on stderr what that is, where it takes longer than a moment.

    Args:
        place: What it is, and where.
        reach: Asks it; raises what there is to say if it does not answer within so many seconds.
        seconds: How long it may take.
        told_after: How long nothing is said.
    """
    telling = asyncio.get_running_loop().call_later(
        told_after, note, f"waiting for {place}, {seconds:g} s at most"
    )
    try:
        await reach(seconds)
    finally:
        telling.cancel()


async def reached_broker(settings: Settings, *, subscription: str | None = None) -> None:
    """Wait until Pub/Sub answers that what is about to be used is there; see `reached`.

    Args:
        settings: Where it is.
        subscription: The id of the subscription that is used; None for the event topic.

    Raises:
        ConfigurationError: There is no project, there are no credentials, or the extra is not installed.
        TransportUnavailableError: It does not answer.
        TransportRefusedError: It is not there.
    """
    require("producer")
    from run_log.pubsub import PubSubConnection

    broker = PubSubConnection.from_settings(settings)
    used = broker.subscription_path(subscription) if subscription else broker.topic_path(settings.topic)
    await reached(str(broker), lambda seconds: asyncio.to_thread(broker.reach, used, seconds))


async def shortest_silence(settings: Settings, subscription: str, *, extends: bool = True) -> float:
    """Return the seconds without a message after which nothing is leased to a process that was killed.

    Args:
        settings: Where Pub/Sub is.
        subscription: The id of what is pulled.
        extends: Whether who pulls it extends leases.

    Raises:
        TransportUnavailableError: Pub/Sub does not answer.
    """
    from run_log.projector.pubsub import silence_after_kill
    from run_log.projector.pull import LEASE_SECONDS
    from run_log.pubsub import PubSubConnection
    from run_log.pubsub.inspection import inspect_subscription

    broker = PubSubConnection.from_settings(settings)
    lease = None
    # Who may pull need not be one who may look; one that is not there is told by the pull.
    with contextlib.suppress(TransportRefusedError):
        path = broker.subscription_path(subscription)
        lease = (await asyncio.to_thread(inspect_subscription, broker, path)).lease
    return silence_after_kill(lease, extended=LEASE_SECONDS if extends else 0.0)


@contextlib.asynccontextmanager
async def opened_audit(root: str | None = None) -> AsyncGenerator[Audit]:
    """Yield what checks the store that the environment names, once it answers, and close it.

    Args:
        root: Another root collection in its database, or another file; None for its own.

    Raises:
        ConfigurationError: No other process can look into that store, or it cannot be opened.
        InvalidArgumentError: *root* is its own.
        NotFoundError: There is no such file.
        StoreUnavailableError: It does not answer.
    """
    settings = Settings.from_env()
    setting = "sqlite_path" if settings.backend == "sqlite" else "root_collection"
    if root is not None:
        if root == getattr(settings, setting):
            raise InvalidArgumentError(f"{root!r} is what RUN_LOG_{setting.upper()} names; pass another one")
        settings = settings.model_copy(update={setting: root})
    service = _audited_service(settings)
    try:
        await reached(service.place, service.reach)
        yield service.audit()
    finally:
        await service.close()


def _audited_service(settings: Settings) -> Any:
    match settings.backend:
        case "sqlite":
            from run_log.stores import SQLiteRunLogService

            return SQLiteRunLogService.from_settings(settings)
        case "firestore" | "pubsub":
            try:
                from run_log.stores import FirestoreRunLogService
            except ImportError as error:
                raise ConfigurationError(str(error)) from error
            return FirestoreRunLogService.from_settings(settings)
        case backend:
            raise ConfigurationError(
                f"RUN_LOG_BACKEND is {backend!r}, which cannot be looked into from here; set it to "
                "'firestore' or 'pubsub', or to 'sqlite' and RUN_LOG_SQLITE_PATH to the file"
            )


def complete(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* comes to, done on an event loop of its own.

    Stored runs that it meets and cannot show are counted on stderr at its end.
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
    return f"left out, for they cannot be read: {count} stored runs, the first {place}; {remedy}"


async def delivered(log: RunLog) -> None:
    """Wait until what was saved is durable.

    Raises:
        TransportUnavailableError: It is not, in bounded time.
    """
    if not await log.flush(FLUSH_SECONDS):
        raise TransportUnavailableError(
            f"it was not published in {FLUSH_SECONDS:.0f} s; try again: what arrives twice counts once"
        )
