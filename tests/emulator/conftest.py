"""The services that tests of Firestore share, each of an empty project."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from run_log.stores.firestore.client import Patience

from .firestore_kit import OpenedService, Watch, WatchedService


@pytest.fixture
def watch() -> Watch:
    """Return what sees the calls of `service`."""
    return Watch()


@pytest.fixture
async def service(watch: Watch) -> AsyncIterator[WatchedService]:
    """Yield a service whose calls are counted, and fail when told to."""
    service = WatchedService(watch, Patience())
    yield service
    await service.close()


@pytest.fixture
async def plain() -> AsyncIterator[OpenedService]:
    """Yield a service whose calls nobody sees."""
    service = OpenedService.from_env()
    yield service
    await service.close()
