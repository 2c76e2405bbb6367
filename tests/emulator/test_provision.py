from __future__ import annotations

from datetime import timedelta

import pytest

from run_log.core import Settings
from run_log.pubsub import Provisioned, PubSubConnection, provision, topic_retention
from run_log.pubsub._provision import RETENTION

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]


def _names(project: str) -> list[str]:
    return [
        f"projects/{project}/topics/run-log-events",
        f"projects/{project}/topics/run-log-dead-letters",
        f"projects/{project}/subscriptions/run-log-projector",
        f"projects/{project}/subscriptions/run-log-dead-letters",
    ]


def test_everything_is_made_once(emulator_project: str) -> None:
    """The first call makes topics and subscriptions, every other one finds them and changes nothing."""
    settings = Settings.from_env()
    connection = PubSubConnection.from_settings(settings)

    calls = [provision(connection, settings) for _ in range(3)]

    assert calls == [
        [Provisioned(name=name, created=created) for name in _names(emulator_project)]
        for created in (True, False, False)
    ]


def test_what_is_missing_is_made(emulator_project: str) -> None:
    """Where a part is gone, the next call makes that part."""
    settings = Settings.from_env()
    connection = PubSubConnection.from_settings(settings)
    provision(connection, settings)
    with connection.subscriber() as subscriber:
        subscriber.delete_subscription(subscription=connection.subscription_path(settings.subscription))

    made = [item.name for item in provision(connection, settings) if item.created]

    assert made == [f"projects/{emulator_project}/subscriptions/run-log-projector"]


def test_the_event_topic_retains(emulator_project: str) -> None:
    """The event topic keeps what is published for a week, for a rebuild to hear it again."""
    assert emulator_project
    settings = Settings.from_env()
    connection = PubSubConnection.from_settings(settings)

    provision(connection, settings)

    assert RETENTION == topic_retention(connection, settings.topic)
    assert topic_retention(connection, settings.dead_letter_topic) is None


def test_the_projectors_subscription(emulator_project: str) -> None:
    """It never expires, holds back nothing that was leased to the dead, dead-letters after many tries."""
    settings = Settings.from_env()
    connection = PubSubConnection.from_settings(settings)

    provision(connection, settings)

    with connection.subscriber() as subscriber:
        made = subscriber.get_subscription(subscription=connection.subscription_path(settings.subscription))
    topic, dead_letters, *_ = _names(emulator_project)
    assert made.topic == topic
    assert made.dead_letter_policy.dead_letter_topic == dead_letters
    assert made.dead_letter_policy.max_delivery_attempts == 50
    assert "retry_policy" not in made
    assert made.ack_deadline_seconds == 20
    assert made.message_retention_duration == timedelta(days=7)
    assert not made.expiration_policy.ttl
    assert not made.enable_message_ordering


def test_dead_letters_are_kept(emulator_project: str) -> None:
    """The dead-letter topic has a subscription, without which it kept nothing, and it never expires."""
    settings = Settings.from_env()
    connection = PubSubConnection.from_settings(settings)

    provision(connection, settings)

    with connection.subscriber() as subscriber:
        made = subscriber.get_subscription(
            subscription=connection.subscription_path(settings.dead_letter_topic)
        )
    assert made.topic == _names(emulator_project)[1]
    assert made.message_retention_duration == timedelta(days=7)
    assert not made.expiration_policy.ttl


def test_names_are_settings(emulator_project: str) -> None:
    """Topics and subscriptions have the names that the settings give them."""
    settings = Settings(
        project=emulator_project, topic="my-topic", subscription="my-sub", dead_letter_topic="my-dead"
    )

    made = provision(PubSubConnection.from_settings(settings), settings)

    assert [item.name.removeprefix(f"projects/{emulator_project}/") for item in made] == [
        "topics/my-topic",
        "topics/my-dead",
        "subscriptions/my-sub",
        "subscriptions/my-dead",
    ]
