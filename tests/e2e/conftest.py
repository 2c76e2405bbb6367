"""What the end-to-end tests share: a project with its topics, and what reads its projection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from run_log.core import Settings
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import FirestoreRunLogService


@pytest.fixture
def provisioned(emulator_environment: Mapping[str, str]) -> Settings:
    """Return the settings of a project that has its topics and subscriptions."""
    settings = Settings.from_env(emulator_environment)
    provision(PubSubConnection.from_settings(settings), settings)
    return settings


@pytest.fixture
async def store(emulator_environment: Mapping[str, str]) -> AsyncIterator[FirestoreRunLogService]:
    """Yield what reads the projection."""
    service = FirestoreRunLogService.from_settings(Settings.from_env(emulator_environment))
    yield service
    await service.close()
