"""The kit as pytest fixtures. Name this module in ``pytest_plugins`` of your root ``conftest.py``.

Without an emulator, the tests that need it are skipped with the reason. With ``RUN_LOG_REQUIRE_EMULATORS=1``
they fail instead.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Generator, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import pytest

from run_log.testing import EmulatorNotFoundError, FirestoreEmulator, InMemoryTopic, PubSubEmulator

REQUIRE_VARIABLE: Final = "RUN_LOG_REQUIRE_EMULATORS"


@contextlib.contextmanager
def skipping_without_emulators(environ: Mapping[str, str] = os.environ) -> Generator[None]:
    """Skip the test if an emulator in the block cannot be found. For fixtures of your own."""
    try:
        yield
    except EmulatorNotFoundError as error:
        if environ.get(REQUIRE_VARIABLE, "").lower() in {"1", "true"}:
            pytest.fail(f"{error} ({REQUIRE_VARIABLE} is set)", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def firestore_emulator() -> Iterator[FirestoreEmulator]:
    """Return Google's Firestore emulator, one for the whole session."""
    with skipping_without_emulators(), FirestoreEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def pubsub_emulator() -> Iterator[PubSubEmulator]:
    """Return Google's Pub/Sub emulator, one for the whole session."""
    with skipping_without_emulators(), PubSubEmulator() as emulator:
        yield emulator


@pytest.fixture
def emulator_project() -> str:
    """Return a project id that no other test has, so that a test sees only its own data."""
    return f"run-log-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def emulator_environment(
    firestore_emulator: FirestoreEmulator,
    pubsub_emulator: PubSubEmulator,
    emulator_project: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Mapping[str, str]:
    """Point all Google clients to the emulators and to a project of the test, and return what is set."""
    environment = {
        **firestore_emulator.environment,
        **pubsub_emulator.environment,
        "GOOGLE_CLOUD_PROJECT": emulator_project,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return MappingProxyType(environment)


@pytest.fixture
def in_memory_topic() -> InMemoryTopic:
    """Return a new topic without faults; assign `InMemoryTopic.faults` to add some."""
    return InMemoryTopic()
