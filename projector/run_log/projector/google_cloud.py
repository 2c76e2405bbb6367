"""The projector on Google Cloud, wired from settings. Needs the extra ``projector``."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI

from run_log.core import ConfigurationError, Settings, StoreUnavailableError
from run_log.core.backoff import Backoff
from run_log.core.logs import get_logger
from run_log.core.settings import is_cloud_run_service
from run_log.pubsub import PubSubConnection
from run_log.stores import FirestoreRunLogService

from .dead_letters.leased import QUIET_SECONDS, LeasedLetters
from .group_commit import GroupCommit
from .ports import EventTopic
from .projector import Projector
from .pubsub import PubSubDeadLetters, PubSubEvents, PubSubSource
from .pull import PullReport, PullWorker, cancel
from .push.app import Authenticate, create_push_app
from .push.oidc import Certificates, TokenVerifier
from .serving import health_routes, serving

DRAIN_SECONDS: Final = 2.0
"""How long what is in hand may take once the last request is answered: nothing should be left by then."""

_PROBED_WORKFLOW: Final = "run-log-probe"
_REACH_SECONDS: Final = 3.0
_BACKOFF: Final = Backoff(2.0, 30.0)

_logger: Final = get_logger("run_log.projector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a projector's events come from and go to, by full names."""

    source: str
    """The subscription, or the address that is listened at."""
    into: str
    """The collection that holds the projection."""
    dead_letters: str
    """The topic that keeps what cannot be projected."""
    pubsub: str
    """Where Pub/Sub is: ``emulator at HOST:PORT``, or ``Google Cloud``."""
    firestore: str
    """Where Firestore is, likewise."""


async def pull(
    settings: Settings,
    *,
    stop: asyncio.Event,
    until_idle: float | None = None,
    health: tuple[str, int] | None = None,
    watch: Callable[[Route, PullWorker], Coroutine[Any, Any, None]] | None = None,
) -> PullReport:
    """Project what arrives at the settings' subscription into the settings' Firestore.

    Args:
        settings: Where to pull, and where to project.
        stop: Ends the work; see `PullWorker.run`.
        until_idle: Seconds without a message that end it too; None for never. What is leased to a process
            that was killed comes later, unless that is as long as `silence_after_kill`.
        health: The address and port of the health endpoints; None for none.
        watch: Runs beside the work, to tell how it goes; None for nothing.

    Raises:
        ConfigurationError: The project or credentials are missing, Firestore does not let us in, or the
            port cannot be had.
        TransportRefusedError: The subscription is not there, or denied.
    """
    connection = PubSubConnection.from_settings(settings)
    store = FirestoreRunLogService.from_settings(settings)
    source = PubSubSource(connection, settings.subscription)
    dead_letters = PubSubDeadLetters(connection, settings.dead_letter_topic)
    try:
        worker = PullWorker(source, Projector(store), dead_letters)
        route = _route(connection.subscription_path(settings.subscription), connection, settings, store)
        async with _healthy(worker, health), _beside(watch and watch(route, worker)):
            # What only somebody's action mends ends this before anything is leased: each start of a process
            # that cannot write would count as a delivery of all it takes.
            with contextlib.suppress(StoreUnavailableError):
                await store.reach(_REACH_SECONDS)
            return await worker.run(stop=stop, until_idle=until_idle)
    finally:
        await asyncio.gather(source.close(), dead_letters.close(), store.close())


async def push(
    settings: Settings,
    *,
    host: str,
    port: int,
    stop: asyncio.Event,
    started: Callable[[Route], None] | None = None,
) -> None:
    """Project what Pub/Sub pushes to *host* and *port* into the settings' Firestore, until *stop* is set.

    Requests under way by then are finished.

    Args:
        settings: Who may push, and where to project.
        host: The address to listen at.
        port: The port.
        stop: Ends the work.
        started: Called once the port is listened at; None for nothing.

    Raises:
        ConfigurationError: It is not said who may push, the project or credentials are missing, Firestore
            is not there or does not let us in, or the port cannot be had.
    """
    authenticate = authentication(settings, host=host)
    connection = PubSubConnection.from_settings(settings)
    store = FirestoreRunLogService.from_settings(settings)
    dead_letters = PubSubDeadLetters(connection, settings.dead_letter_topic)
    group = GroupCommit(Projector(store), dead_letters)
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
        for task in (probe, stopping):
            task.cancel()
        await asyncio.gather(probe, stopping, return_exceptions=True)
        await group.close(0)
        await asyncio.gather(dead_letters.close(), store.close())


@contextlib.asynccontextmanager
async def leased_letters(
    settings: Settings, *, quiet_seconds: float = QUIET_SECONDS
) -> AsyncGenerator[LeasedLetters]:
    """Yield the settings' dead letters, leased while the block lasts; see `LeasedLetters`.

    Args:
        settings: Where they are: at the subscription that has the dead-letter topic's name.
        quiet_seconds: How long nothing new has to come until all are taken to be seen.

    Raises:
        ConfigurationError: The project or credentials are missing.
    """
    source = PubSubSource(PubSubConnection.from_settings(settings), settings.dead_letter_topic)
    try:
        async with LeasedLetters(source, quiet_seconds=quiet_seconds) as letters:
            yield letters
    finally:
        await source.close()


@contextlib.asynccontextmanager
async def event_topic(settings: Settings) -> AsyncGenerator[EventTopic]:
    """Yield the settings' event topic, to publish to.

    Args:
        settings: Where it is.

    Raises:
        ConfigurationError: The project or credentials are missing.
    """
    topic = PubSubEvents(PubSubConnection.from_settings(settings), settings.topic)
    try:
        yield topic
    finally:
        await topic.close()


def authentication(settings: Settings, *, host: str) -> Authenticate:
    """Return what lets a push in, as *settings* say.

    Args:
        settings: Who verifies, and what.
        host: The address that is listened at.

    Raises:
        ConfigurationError: They do not say, or what they say would leave the endpoint open.
    """
    match settings.push_auth:
        case "oidc":
            if not settings.push_audience or not settings.push_service_account:
                raise ConfigurationError(
                    "RUN_LOG_PUSH_AUTH=oidc needs RUN_LOG_PUSH_AUDIENCE and RUN_LOG_PUSH_SERVICE_ACCOUNT: "
                    "what the subscription's push configuration names"
                )
            return TokenVerifier(
                audience=settings.push_audience,
                service_account=settings.push_service_account,
                certificates=Certificates(),
            )
        case "iam":
            if not (is_cloud_run_service() or _is_loopback(host)):
                raise ConfigurationError(
                    f"RUN_LOG_PUSH_AUTH=iam leaves it to Cloud Run who may push, and this is none (K_SERVICE "
                    f"is not set): anybody could reach {host}; set it to oidc, or listen at --host 127.0.0.1"
                )
            return _let_in
        case None:
            raise ConfigurationError(
                "set RUN_LOG_PUSH_AUTH: oidc verifies each push's token here; iam leaves that to Cloud Run, "
                "which must then require authentication"
            )


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


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None] | None) -> AsyncGenerator[None]:
    """Have *work* go on while the block lasts."""
    tasks = [asyncio.create_task(work)] if work is not None else []
    try:
        yield
    finally:
        await cancel(tasks)


async def _let_in(_authorization: str | None) -> None:
    """Let in whom the platform has let in."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


async def _until_it_answers(
    store: FirestoreRunLogService,
    *,
    uniform: Callable[[float, float], float] = random.uniform,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Wait until *store* answers, and say so while it does not.

    Raises:
        ConfigurationError: It is not there, or does not let us in.
    """
    failures = 0
    while True:
        try:
            await store.get_stats(_PROBED_WORKFLOW)
        except StoreUnavailableError as error:
            failures += 1
            _logger.warning("run_log_store_unavailable", failures=failures, error=str(error))
            await sleep(_BACKOFF.seconds(failures, uniform))
        else:
            return
