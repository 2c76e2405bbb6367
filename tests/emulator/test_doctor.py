"""What the doctor finds of a deployment on the emulators, whole and with one thing wrong at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from run_log.console.checks import Check, Verdict
from run_log.console.views.layout import Screen
from run_log.console.views.tables import checks_table
from run_log.console.work.doctor import examine
from run_log.core import Settings, utc_now
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import FirestoreRunLogService

from .projector_kit import projecting

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

NAMES = [
    "settings",
    "credentials",
    "topic",
    "subscription",
    "dead-letter topic",
    "dead-letter policy",
    "dead-letter subscription",
    "dead-letter rights",
    "store",
    "documents",
    "clock",
    "indexes",
    "expiry",
    "lag",
]
"""Every check, in its order."""

SKIPPED = {"dead-letter rights", "expiry", "lag"}
"""What the emulators have none of."""


class Deployment:
    """What is deployed on the emulators, to be spoiled."""

    def __init__(self) -> None:
        self.settings = Settings(backend="firestore")
        self.connection = PubSubConnection.from_settings(self.settings)
        provision(self.connection, self.settings)

    def delete(self, kind: str, name: str) -> None:
        """Delete a topic or a subscription."""
        if kind == "topic":
            with self.connection.publisher() as client:
                client.delete_topic(topic=self.connection.topic_path(name))
        else:
            with self.connection.subscriber() as client:
                client.delete_subscription(subscription=self.connection.subscription_path(name))

    def set_up_projector(self, topic: str, **fields: Any) -> None:
        """Make the projector's subscription another one."""
        self.delete("subscription", "run-log-projector")
        name = self.connection.subscription_path("run-log-projector")
        request = {"name": name, "topic": self.connection.topic_path(topic), **fields}
        with self.connection.subscriber() as client:
            client.create_subscription(request=request)

    async def checks(self, **options: Any) -> dict[str, Check]:
        """Return what the doctor finds, by name."""
        return {check.name: check async for check in examine(self.settings, **options)}


@pytest.fixture
def deployment() -> Deployment:
    """Return a deployment that has all it needs."""
    return Deployment()


async def test_a_deployment_that_can_work(deployment: Deployment) -> None:
    """Where everything is there, each check is fine, or has nothing to look at on the emulators."""
    checks = await deployment.checks()

    assert NAMES == list(checks)
    verdicts = {name: check.verdict for name, check in checks.items()}
    assert {name: Verdict.SKIPPED if name in SKIPPED else Verdict.OK for name in NAMES} == verdicts
    assert {""} == {check.remedy for check in checks.values()}


MISSING = [
    ("topic", "run-log-events", "topic"),
    ("subscription", "run-log-projector", "subscription"),
    ("topic", "run-log-dead-letters", "dead-letter topic"),
    ("subscription", "run-log-dead-letters", "dead-letter subscription"),
]


@pytest.mark.parametrize(("kind", "name", "wrong"), MISSING)
async def test_what_is_missing(deployment: Deployment, kind: str, name: str, wrong: str) -> None:
    """What is missing is found, and what makes it is said."""
    deployment.delete(kind, name)

    check = (await deployment.checks())[wrong]

    assert Verdict.WRONG is check.verdict
    assert "run-log provision" in check.remedy


NEVER: dict[str, Any] = {"expiration_policy": {}}
FIVE_TIMES: dict[str, Any] = {"max_delivery_attempts": 5}
BACKS_OFF = {"minimum_backoff": timedelta(seconds=10), "maximum_backoff": timedelta(seconds=600)}


@pytest.mark.parametrize(
    ("topic", "fields", "wrong", "told"),
    [
        ("dead-letters", {}, "subscription", "RUN_LOG_SUBSCRIPTION"),
        ("events", {"filter": 'attributes.type = "x"'}, "subscription", "run-log provision"),
        (
            "events",
            {"expiration_policy": {"ttl": timedelta(days=3)}},
            "subscription",
            "--expiration-period=never",
        ),
        (
            "events",
            {**NEVER, "retry_policy": BACKS_OFF},
            "subscription",
            "--clear-retry-policy --ack-deadline=20",
        ),
        ("events", NEVER, "dead-letter policy", "--dead-letter-topic"),
        ("events", {**NEVER, "dead_letter_policy": FIVE_TIMES}, "dead-letter policy", "--dead-letter-topic"),
    ],
    ids=["another topic's", "filtered", "expiring", "backing off", "no policy", "another policy"],
)
async def test_what_is_set_up_otherwise(
    deployment: Deployment, topic: str, fields: dict[str, Any], wrong: str, told: str
) -> None:
    """What is set up otherwise is found, and what to do is said."""
    if policy := fields.get("dead_letter_policy"):
        policy["dead_letter_topic"] = deployment.connection.topic_path("run-log-events")
    deployment.set_up_projector(f"run-log-{topic}", **fields)

    check = (await deployment.checks())[wrong]

    assert Verdict.WRONG is check.verdict
    assert told in check.remedy


async def test_it_fits_a_screen(deployment: Deployment) -> None:
    """Where nothing of what is deployed is there, all of it fits 80 columns and 24 lines, with what to do."""
    for kind, name, _ in MISSING:
        deployment.delete(kind, name)

    checks = list((await deployment.checks()).values())
    lines = list(checks_table(checks).lines(Screen(width=80)))

    wrong = [check for check in checks if check.verdict is Verdict.WRONG]
    assert [5, 5] == [len(wrong), sum("run-log provision" in check.remedy for check in wrong)]
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("minutes", "word"), [(1, "ahead of"), (-1, "behind")])
async def test_a_clock_that_is_wrong(deployment: Deployment, minutes: int, word: str) -> None:
    """A clock that differs from Firestore's is found, with by how much and in which direction."""
    clock = (await deployment.checks(now=lambda: utc_now() + timedelta(minutes=minutes)))["clock"]

    assert Verdict.WRONG is clock.verdict
    assert word in clock.found
    assert "NTP" in clock.remedy


async def test_a_probe(deployment: Deployment) -> None:
    """A probe goes all the way through; each is another attempt of the one run that it leaves."""
    async with projecting():
        probes = [(await deployment.checks(probe=50.0))["probe"] for _ in range(2)]
    store = FirestoreRunLogService.from_env()
    run = await store.get_run("run-log-doctor", "probe")
    stats = await store.get_stats("run-log-doctor")
    history = await store.get_history("run-log-doctor", "probe")
    await store.close()

    assert [Verdict.OK] * 2 == [probe.verdict for probe in probes]
    assert run is not None
    assert (2, {"total": 1, "successful": 1}) == (run.attempt, stats)
    assert not any(transition.anomaly for transition in history)


async def test_a_probe_that_nobody_projects(deployment: Deployment) -> None:
    """A probe that queries do not see in time is wrong."""
    probe = (await deployment.checks(probe=0.3))["probe"]

    assert Verdict.WRONG is probe.verdict
    assert "check the projector" in probe.remedy
