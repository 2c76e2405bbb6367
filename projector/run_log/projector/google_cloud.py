"""The projector on Google Cloud, wired from settings. Needs the extra ``projector``.

Whatever opens a connection raises `ConfigurationError` where the project or credentials are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI

from run_log.core import ConfigurationError, Settings, StoreUnavailableError
from run_log.core.backoff import Backoff
from run_log.core.logs import get_logger
from run_log.core.settings import is_cloud_run_service
from run_log.http.serving import is_loopback, serving
from run_log.http.tokens import Certificates
from run_log.pubsub import PubSubConnection
from run_log.stores import FirestoreRunLogService

from .dead_letters.leased import QUIET_SECONDS, LeasedLetters
from .dead_letters.noted import LetterNotices, NotedDeadLetters
from .dead_letters.redrive import Publish
from .group_commit import GroupCommit
from .health import health_routes
from .projector import Projector
from .pubsub import PubSubDeadLetters, PubSubEvents, opened_source
from .pull import PullReport, PullWorker, cancel
from .push.app import Authenticate, create_push_app
from .push.oidc import TokenVerifier

DRAIN_SECONDS: Final = 2.0
"""How long projecting may take once the last request is answered. Nothing should be in hand by then."""

_REACH_SECONDS: Final = 3.0
_BACKOFF: Final = Backoff(2.0, 30.0)

_logger: Final = get_logger("run_log.projector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where the events of a projector come from and go to, by full names."""

    source: str
    """The subscription, or the address that the server listens at."""
    into: str
    """The collection that holds the projection."""
    dead_letters: str
    """The topic of the dead letters."""
    pubsub: str
    """Where Pub/Sub is: ``emulator at HOST:PORT``, or ``Google Cloud``."""
    firestore: str
    """Where Firestore is, in the same form."""


async def pull(
    settings: Settings,
    *,
    stop: asyncio.Event,
    until_idle: float | None = None,
    health: tuple[str, int] | None = None,
    watch: Callable[[Route, PullWorker], Coroutine[Any, Any, None]] | None = None,
) -> PullReport:
    """Project what arrives at the settings' subscription into the settings' Firestore.

    *stop* and *until_idle* end the work as in `PullWorker.run`. If *until_idle* is shorter than
    `silence_after_kill`, messages leased to a process that was killed may be left. *health* is the address
    and port of the health endpoints. *watch* runs beside the work, for example to log its progress.

    Raises:
        ConfigurationError: The project or credentials are missing, Firestore denies access, or the port is
            taken.
        TransportRefusedError: The subscription does not exist, or access is denied.
    """
    async with (
        _opened(settings) as (connection, store, dead_letters),
        opened_source(connection, settings.subscription) as source,
    ):
        worker = PullWorker(source, Projector(store), dead_letters)
        route = _route(connection.subscription_path(settings.subscription), connection, settings, store)
        beside = [asyncio.create_task(watch(route, worker))] if watch is not None else []
        try:
            async with _healthy(worker, health):
                # Before anything is leased: a process that cannot write, and is started again and again,
                # would count as one more delivery of each message it takes.
                with contextlib.suppress(StoreUnavailableError):
                    await store.reach(_REACH_SECONDS)
                return await worker.run(stop=stop, until_idle=until_idle)
        finally:
            await cancel(beside)


async def push(
    settings: Settings,
    *,
    host: str,
    port: int,
    stop: asyncio.Event,
    started: Callable[[Route], None] | None = None,
) -> None:
    """Project what Pub/Sub pushes to *host* and *port* into the settings' Firestore, until *stop* is set.

    Requests under way by then are finished. *started* is called once the server listens.

    Raises:
        ConfigurationError: RUN_LOG_PUSH_AUTH is not set or does not fit, the project or credentials are
            missing, Firestore does not exist or denies access, or the port is taken.
    """
    authenticate = authentication(settings, host=host)
    async with _opened(settings) as (connection, store, dead_letters):
        group = GroupCommit(Projector(store), dead_letters)
        # Beside the server, which has to listen at once: Cloud Run ends a container that does not.
        probe = asyncio.create_task(_until_it_answers(store))
        stopping = asyncio.create_task(stop.wait())

        def trouble() -> str | None:
            if not probe.done():
                return "the store has not answered yet"
            why = group.store_trouble or group.dead_letter_trouble
            return "stopping" if stop.is_set() else type(why).__name__ if why else None

        try:
            async with serving(create_push_app(group, authenticate, trouble=trouble), host=host, port=port):
                if started is not None:
                    started(_route(f"pushes to {host}:{port}", connection, settings, store))
                await asyncio.wait({probe, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if probe.done():
                    probe.result()
                    await stopping
            await group.close(DRAIN_SECONDS)
        finally:
            await cancel([probe, stopping])
            await group.close(0)


@contextlib.asynccontextmanager
async def leased_letters(
    settings: Settings, *, quiet_seconds: float = QUIET_SECONDS
) -> AsyncGenerator[LeasedLetters]:
    """Yield the settings' dead letters, leased while the block lasts. See `LeasedLetters`.

    They are in the subscription with the name of the dead-letter topic. The notices of those that are taken
    out are removed from Firestore.
    """
    connection = PubSubConnection.from_settings(settings)
    stores: list[FirestoreRunLogService] = []

    async def opened() -> FirestoreRunLogService:
        # In a thread: credentials are looked up, perhaps over the network, and leases have to be extended.
        stores.append(await asyncio.to_thread(FirestoreRunLogService.from_settings, settings))
        return stores[0]

    try:
        async with (
            opened_source(connection, settings.dead_letter_topic) as source,
            LeasedLetters(
                source, quiet_seconds=quiet_seconds, taken_out=LetterNotices(opened).forget
            ) as letters,
        ):
            yield letters
    finally:
        for store in stores:
            await store.close()


@contextlib.asynccontextmanager
async def event_topic(settings: Settings) -> AsyncGenerator[Publish]:
    """Yield what publishes to the settings' event topic."""
    topic = PubSubEvents(PubSubConnection.from_settings(settings), settings.topic)
    try:
        yield topic.publish
    finally:
        await topic.close()


def authentication(settings: Settings, *, host: str) -> Authenticate:
    """Return the check of each push that RUN_LOG_PUSH_AUTH asks for, for a server that listens at *host*.

    Raises:
        ConfigurationError: RUN_LOG_PUSH_AUTH is not set, needs more settings, or would let anybody push.
    """
    match settings.push_auth:
        case "oidc":
            if not settings.push_audience or not settings.push_service_account:
                raise ConfigurationError(
                    "RUN_LOG_PUSH_AUTH=oidc needs RUN_LOG_PUSH_AUDIENCE and RUN_LOG_PUSH_SERVICE_ACCOUNT; "
                    "set both to the values in the subscription's push configuration"
                )
            return TokenVerifier(
                audience=settings.push_audience,
                service_account=settings.push_service_account,
                certificates=Certificates(),
            )
        case "iam":
            if not (is_cloud_run_service() or is_loopback(host)):
                raise ConfigurationError(
                    "RUN_LOG_PUSH_AUTH=iam needs Cloud Run to check who pushes, and this process is not "
                    f"there (K_SERVICE is not set), so anybody could push to {host}; set "
                    "RUN_LOG_PUSH_AUTH=oidc, or pass --host 127.0.0.1"
                )
            return _let_in
        case None:
            raise ConfigurationError(
                "set RUN_LOG_PUSH_AUTH to oidc or iam: with oidc the token of each push is verified here; "
                "with iam Cloud Run does that, and must require authentication"
            )


@contextlib.asynccontextmanager
async def _opened(
    settings: Settings,
) -> AsyncGenerator[tuple[PubSubConnection, FirestoreRunLogService, NotedDeadLetters]]:
    """Yield Pub/Sub, Firestore and the dead-letter topic; close them at the end of the block."""
    connection = PubSubConnection.from_settings(settings)
    store = FirestoreRunLogService.from_settings(settings)
    letters = PubSubDeadLetters(connection, settings.dead_letter_topic)
    noted = NotedDeadLetters(letters, store)
    try:
        yield connection, store, noted
    finally:
        await noted.close()
        await asyncio.gather(letters.close(), store.close())


def _route(
    source: str, connection: PubSubConnection, settings: Settings, store: FirestoreRunLogService
) -> Route:
    return Route(
        source=source,
        into=store.path,
        dead_letters=connection.topic_path(settings.dead_letter_topic),
        pubsub=connection.where,
        firestore=store.where,
    )


async def _let_in(_authorization: str | None) -> None:
    """Accept every push: the platform has checked it."""


@contextlib.asynccontextmanager
async def _healthy(worker: PullWorker, health: tuple[str, int] | None) -> AsyncGenerator[None]:
    if health is None:
        yield
        return

    def trouble() -> str | None:
        return type(worker.trouble).__name__ if worker.trouble else None

    app = FastAPI(openapi_url=None)
    app.include_router(health_routes(worker.progress, trouble, failed=lambda: worker.has_failed))
    host, port = health
    async with serving(app, host=host, port=port):
        yield


async def _until_it_answers(store: FirestoreRunLogService) -> None:
    """Wait until *store* answers. Raises `ConfigurationError` if it does not exist, or denies access."""
    failures = 0
    while True:
        try:
            await store.reach(_REACH_SECONDS)
        except StoreUnavailableError as error:
            failures += 1
            _logger.warning("run_log_store_unavailable", failures=failures, error=str(error))
            await asyncio.sleep(_BACKOFF.seconds(failures))
        else:
            return
