"""``run-log doctor``: checks one part of a deployment after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Final

from run_log.console.checks import Check, Verdict
from run_log.console.exit_codes import missing_module
from run_log.console.views.tables import elapsed
from run_log.core import (
    RunLogError,
    RunRef,
    RunStatus,
    Settings,
    StoreUnavailableError,
    TransportUnavailableError,
    TriggerType,
    utc_now,
)
from run_log.core.install import how_to_install
from run_log.stores import RunLog
from run_log.stores.factory import backend_entry
from run_log.stores.listings import Order, RunFilters

from .emit import emit_state
from .opening import opened_run_log, reached, reached_broker

# Imported late: a missing extra is a finding of the doctor, and must not end it.
if TYPE_CHECKING:
    from run_log.pubsub import PubSubConnection
    from run_log.pubsub.inspection import SubscriptionState
    from run_log.stores.firestore import Connection

# With more difference between this machine's clock and Firestore's, states of one run that several machines
# emit may be merged in the wrong order.
MAX_SKEW: Final = timedelta(seconds=5)

# The alert has the same limit.
MAX_LAG: Final = timedelta(minutes=5)

# It has only the run of the probe. Which index a query needs does not depend on the runs.
_NOWHERE: Final = "run-log-doctor"

# They need rights that no other command needs.
_UNSEEN: Final = frozenset({"dead-letter rights", "expiry", "lag"})

_RECREATE: Final = "delete it, then run `run-log provision`, or deploy infra/terraform again"
_UPDATE: Final = "gcloud pubsub subscriptions update"
_SET_LEASE: Final = f"{_UPDATE} --clear-retry-policy --ack-deadline=20, or deploy infra/terraform again"
_SET_POLICY: Final = (
    f"{_UPDATE} --dead-letter-topic=... --max-delivery-attempts=50, or deploy infra/terraform again"
)

_PUBSUB: Final = "Pub/Sub"
_FIRESTORE: Final = "Firestore"
_UNREACHABLE: Final = "start it, or check the network, the proxy, and the emulator hosts that are set"


async def examine(
    settings: Settings, *, probe: float | None = None, now: Callable[[], datetime] = utc_now
) -> AsyncIterator[Check]:
    """Yield one check after the other. If one makes the rest pointless, it is the last.

    With *probe*, a new event is emitted, which queries must see within so many seconds.
    """
    first = _of_settings(settings)
    yield first
    if first.verdict is Verdict.WRONG:
        return
    if settings.backend not in {"firestore", "pubsub"}:
        yield await _looked("store", partial(_store, settings))
        return
    if (module := missing_module("projector")) is not None:
        yield _wrong(f"{module} is not installed", how_to_install("projector"), name="installation")
        return
    from run_log.pubsub import PubSubConnection
    from run_log.stores.firestore import Connection

    try:
        broker = PubSubConnection.from_settings(settings)
        database = Connection(settings.project, settings.database)
    except RunLogError as error:
        yield failed("credentials", error)
        return
    yield _ok(str(broker), name="credentials")
    try:
        silent = await _silent(settings, database)
        for check in silent.values():
            yield check
        for service, name, look in _looks(broker, database, settings, now):
            if service in silent:
                continue
            check = await _looked(name, look)
            # Short names: the check of the credentials says which project they belong to.
            brief = check.found.replace(broker.topic_path(""), "").replace(broker.subscription_path(""), "")
            yield replace(check, found=brief)
    finally:
        await database.close()
    if probe is not None and not silent:
        yield await _looked("probe", partial(_probe, probe))


def _of_settings(settings: Settings) -> Check:
    if settings.backend == "memory":
        found = "RUN_LOG_BACKEND is 'memory': runs are lost when their process ends"
        return _wrong(found, "set it to firestore, pubsub or sqlite", name="settings")
    try:
        backend_entry(settings.backend)
    except RunLogError as error:
        return _wrong(str(error), name="settings")
    return _ok(f"back end {settings.backend}", name="settings")


def _looks(
    broker: PubSubConnection, database: Connection, settings: Settings, now: Callable[[], datetime]
) -> Iterator[tuple[str, str, Callable[[], Awaitable[Check]]]]:
    yield _PUBSUB, "topic", partial(_topic, broker, settings.topic)
    yield _PUBSUB, "subscription", partial(_subscription, broker, settings)
    yield _PUBSUB, "dead-letter topic", partial(_topic, broker, settings.dead_letter_topic)
    yield _PUBSUB, "dead-letter policy", partial(_dead_letter_policy, broker, settings)
    yield _PUBSUB, "dead-letter subscription", partial(_dead_letter_subscription, broker, settings)
    yield _PUBSUB, "dead-letter rights", partial(_dead_letter_rights, broker, settings)
    yield _FIRESTORE, "store", partial(_store, settings)
    yield _FIRESTORE, "documents", partial(_documents, database, settings)
    yield _FIRESTORE, "clock", partial(_clock, database, settings, now)
    yield _FIRESTORE, "indexes", partial(_indexes, settings)
    yield _FIRESTORE, "expiry", partial(_expiry, database, settings)
    yield _PUBSUB, "lag", partial(_lag, broker, settings, now)


async def _silent(settings: Settings, database: Connection) -> dict[str, Check]:
    # No other check of a service can be made that does not answer: each would wait, and say the same again.
    async def asked(name: str, reaching: Awaitable[None]) -> Check | None:
        try:
            await reaching
        except (StoreUnavailableError, TransportUnavailableError) as error:
            return _wrong(str(error), _UNREACHABLE, name=name)
        except RunLogError:
            pass  # it answers, and the other checks find what is wrong
        return None

    reach = partial(database.reach, settings.root_collection)
    answers = await asyncio.gather(
        asked(_PUBSUB, reached_broker(settings)), asked(_FIRESTORE, reached(str(database), reach))
    )
    return {check.name: check for check in answers if check is not None}


async def _looked(name: str, look: Callable[[], Awaitable[Check]]) -> Check:
    try:
        check = await look()
    except RunLogError as error:
        return failed(name, error)
    return replace(check, name=name)


def failed(name: str, error: RunLogError) -> Check:
    """Return an error as a check: its text says what is wrong, what to do, and what a service answered."""
    found, _, rest = str(error).partition("; ")
    remedy, _, detail = rest.partition(" (")
    if detail and not found.endswith("is not there"):
        found += f" ({detail}"
    verdict = Verdict.UNKNOWN if name in _UNSEEN else Verdict.WRONG
    return Check(name=name, verdict=verdict, found=found, remedy=remedy)


def _check(verdict: Verdict, found: str, remedy: str = "", *, name: str = "") -> Check:
    return Check(name=name, verdict=verdict, found=found, remedy=remedy)


_ok: Final = partial(_check, Verdict.OK)
_wrong: Final = partial(_check, Verdict.WRONG)
_skipped: Final = partial(_check, Verdict.SKIPPED)


async def _topic(broker: PubSubConnection, topic: str) -> Check:
    from run_log.pubsub import topic_retention

    retention = await asyncio.to_thread(topic_retention, broker, topic)
    kept = f"retains {retention.days} days" if retention else "retains nothing"
    return _ok(f"{broker.topic_path(topic)}, {kept}")


async def _inspected(broker: PubSubConnection, subscription: str) -> tuple[str, SubscriptionState]:
    from run_log.pubsub.inspection import inspect_subscription

    name = broker.subscription_path(subscription)
    return name, await asyncio.to_thread(inspect_subscription, broker, name)


async def _subscription(broker: PubSubConnection, settings: Settings) -> Check:
    name, state = await _inspected(broker, settings.subscription)
    topic = broker.topic_path(settings.topic)
    if state.topic != topic:
        return _wrong(
            f"{name} belongs to {state.topic}, not to {topic}",
            "set RUN_LOG_SUBSCRIPTION to a subscription of the topic, or delete it",
        )
    if state.filter:
        return _wrong(f"{name} has the filter {state.filter!r}, which leaves out events", _RECREATE)
    if state.expires_after is not None:
        return _wrong(
            f"{name} is deleted after {state.expires_after.days} days without use",
            f"{_UPDATE} --expiration-period=never",
        )
    if state.has_retry_policy and not state.push_endpoint:
        return _wrong(
            f"{name} is pulled, and its retry policy delays the messages of a projector that was killed",
            _SET_LEASE,
        )
    way = f"pushes to {state.push_endpoint}" if state.push_endpoint else "is pulled"
    return _ok(f"{name}, {way}, leases for {state.lease.total_seconds():.0f} s")


async def _dead_letter_policy(broker: PubSubConnection, settings: Settings) -> Check:
    _, state = await _inspected(broker, settings.subscription)
    wanted = broker.topic_path(settings.dead_letter_topic)
    if state.dead_letter_topic is None:
        return _wrong("Pub/Sub delivers a bad message again and again", _SET_POLICY)
    if state.dead_letter_topic != wanted:
        return _wrong(
            f"Pub/Sub publishes dead letters to {state.dead_letter_topic}, not to {wanted}", _SET_POLICY
        )
    return _ok(f"messages become dead letters after {state.max_delivery_attempts} deliveries")


async def _dead_letter_subscription(broker: PubSubConnection, settings: Settings) -> Check:
    name, state = await _inspected(broker, settings.dead_letter_topic)
    if state.topic != broker.topic_path(settings.dead_letter_topic):
        return _wrong(f"{name} belongs to {state.topic}", _RECREATE)
    return _ok(f"{name} keeps dead letters")


async def _dead_letter_rights(broker: PubSubConnection, settings: Settings) -> Check:
    from run_log.pubsub.inspection import service_agent_may_publish

    if broker.is_emulator:
        return _skipped("the emulator checks no rights")
    topic = broker.topic_path(settings.dead_letter_topic)
    if await asyncio.to_thread(service_agent_may_publish, broker, topic):
        return _ok("Pub/Sub's service agent may publish to the dead-letter topic")
    return _wrong(
        "Pub/Sub's service agent may not publish to the dead-letter topic",
        "grant it roles/pubsub.publisher there, and roles/pubsub.subscriber on the subscription "
        "(infra/terraform does)",
    )


async def _store(settings: Settings) -> Check:
    async with opened_run_log(settings.backend) as log:
        workflows, _ = await log.list_workflows(limit=1)
    return _ok("answers" if workflows else "answers, and has no runs yet")


async def _documents(database: Connection, settings: Settings) -> Check:
    from run_log.stores.firestore.inspection import find_unseen

    looked_at, unseen = await find_unseen(database, settings.root_collection)
    if unseen is None:
        return _ok(f"queries see the runs of the first {looked_at} workflows")
    queries = "queries over all workflows" if unseen.of_all else "queries"
    return _wrong(
        f"{queries} do not see {unseen.count} documents or more of workflow {unseen.workflow_id!r}, such "
        f"as {unseen.path}: {unseen.fault}",
        f"copy all runs: run-log rebuild --from root:{settings.root_collection} --into NEW",
    )


async def _clock(database: Connection, settings: Settings, now: Callable[[], datetime]) -> Check:
    from run_log.stores.firestore.inspection import server_time

    # Half of the round trip is added: the server read its clock somewhere in between.
    before = now()
    theirs = await server_time(database, settings.root_collection)
    ours = before + (now() - before) / 2
    skew = (ours - theirs).total_seconds()
    found = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} Firestore's"
    if abs(skew) > MAX_SKEW.total_seconds():
        return _wrong(found, "synchronize this machine's clock with NTP")
    return _ok(found)


async def _indexes(settings: Settings) -> Check:
    shapes = 0
    async with opened_run_log(settings.backend) as log:
        for query in _queries(log):
            await query
            shapes += 1
    return _ok(f"{shapes} shapes of queries are answered")


def _queries(log: RunLog) -> Iterator[Awaitable[object]]:
    # One of each shape: a missing index makes those fail that need it.
    moment = utc_now()
    statuses = (None, RunStatus.FAILED, (RunStatus.FAILED, RunStatus.SUCCESS))
    for status, trigger, since, order in product(statuses, (None, TriggerType.MANUAL), (None, moment), Order):
        filters = RunFilters(status=status, trigger_type=trigger, since=since, order=order)
        yield log.list_runs(_NOWHERE, limit=1, **filters)
    added: list[RunFilters] = [
        {"status": RunStatus.FAILED},
        {"label": ("team", _NOWHERE)},
        {"parent": RunRef(_NOWHERE, _NOWHERE)},
        {"error_type": _NOWHERE},
    ]
    for workflow_id, order, one in product((None, _NOWHERE), Order, added):
        # Nothing has started since, so nothing is passed over.
        listed: RunFilters = {**one, "since": moment, "order": order}
        yield log.list_runs(workflow_id, limit=1, **listed)
    for workflow_id in (None, _NOWHERE):
        yield log.list_stale(timedelta(days=36_500), workflow_id=workflow_id, limit=1)
        for assignee, overdue in product((None, _NOWHERE), (None, True, False)):
            yield log.list_pending(assignee=assignee, overdue=overdue, workflow_id=workflow_id, limit=1)


async def _expiry(database: Connection, settings: Settings) -> Check:
    from run_log.stores.firestore.inspection import ttl_is_active

    if settings.retention_days is None:
        return _skipped("every run is kept (RUN_LOG_RETENTION_DAYS)")
    if database.is_emulator:
        return _skipped("the emulator does not delete expired runs")
    if await ttl_is_active(database):
        return _ok(f"Firestore deletes runs {settings.retention_days} days after they ended")
    return _wrong(
        "Firestore does not delete expired runs",
        "gcloud firestore fields ttls update expire_at --collection-group=runs --enable-ttl",
    )


async def _lag(broker: PubSubConnection, settings: Settings, now: Callable[[], datetime]) -> Check:
    from run_log.pubsub.inspection import oldest_unacknowledged

    if broker.is_emulator:
        return _skipped("the emulator does not report it; try --probe")
    age = await asyncio.to_thread(oldest_unacknowledged, broker, settings.subscription, now=now())
    if age is None:
        return _ok("Cloud Monitoring reports no message that waits")
    found = f"the oldest event waits for {elapsed(age)}"
    if age > MAX_LAG:
        return _wrong(found, "check that a projector runs, its logs, and /lag")
    return _ok(found)


async def _probe(seconds: float) -> Check:
    state = {"status": RunStatus.SUCCESS}
    run, took = await emit_state(_NOWHERE, "probe", state, wait=seconds, backend="pubsub")
    return _ok(f"queries saw attempt {run.attempt} of run {run.id!r} after {took or 0:.3f} s")
