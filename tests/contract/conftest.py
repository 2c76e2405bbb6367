"""Every test of this folder that asks for `harness` runs once for each store, or as its decorator says."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from run_log.stores import RunLog

from .adapters import STORES
from .audited import AuditedStore, OpenPair, firestore_pair, sqlite_pair
from .harness import Harness, OpenHarness

Skipped = Callable[[], int]


@pytest.fixture
def sqlite_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a file that is not there yet."""
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", str(tmp_path / "runs.sqlite3"))


@pytest.fixture(params=STORES)
def open_harness(request: pytest.FixtureRequest) -> OpenHarness:
    """Return each store's factory, with the environment it needs; see `every_adapter` and `memory_alone`."""
    open_one: OpenHarness
    open_one, environment = request.param
    if environment is not None:
        request.getfixturevalue(environment)
    return open_one


@pytest.fixture
async def harness(open_harness: OpenHarness) -> AsyncIterator[Harness]:
    """Yield one adapter, empty."""
    opened = await open_harness()
    yield opened
    await opened.close()


@pytest.fixture(
    params=[
        pytest.param((sqlite_pair, "sqlite_environment"), id="sqlite"),
        pytest.param((firestore_pair, "emulator_environment"), id="firestore", marks=pytest.mark.emulator),
    ]
)
def open_pair(request: pytest.FixtureRequest) -> OpenPair:
    """Return what opens two stores of each kind that can be audited, each time the same ones."""
    open_one: OpenPair
    open_one, environment = request.param
    request.getfixturevalue(environment)
    return open_one


@pytest.fixture
async def pair(open_pair: OpenPair) -> AsyncIterator[tuple[AuditedStore, AuditedStore]]:
    """Yield two stores that can be audited, empty."""
    opened = await open_pair()
    yield opened
    for store in opened:
        await store.close()


@pytest.fixture
def store(pair: tuple[AuditedStore, AuditedStore]) -> AuditedStore:
    """Return one of them."""
    return pair[0]


@pytest.fixture
def service(harness: Harness) -> RunLog:
    """Return what callers of the adapter use."""
    return harness.service


@pytest.fixture
def skipped(metered: Callable[[], Counter[tuple[str, ...]]]) -> Skipped:
    """Return how many unreadable runs this process has skipped so far, at each call."""
    return lambda: metered()["run_log.store.unreadable_runs",]
