"""The API is asked whatever its document allows, and what it does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks

from run_log.core import RunStatus
from run_log.dashboard.streams import StreamTimes
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run

from .streaming import app_of

pytestmark = pytest.mark.search

LOG = InMemoryRunLogService()
APP = app_of(LOG, StreamTimes(longest=timedelta(0)), linger=0)

# Their annotations leave much open.
_checks: Any = checks
schema: Any = schemathesis.openapi.from_asgi("/api/v1/openapi.json", APP)


@pytest.fixture(autouse=True)
def filled() -> None:
    """Save some runs, under ids that are likely to be tried."""

    async def save() -> None:
        for status in RunStatus:
            for workflow_id in ("0", "a"):
                await LOG.save_run(a_run(workflow_id=workflow_id, id=status.value[0], status=status))

    asyncio.run(save())


@schema.parametrize()  # type: ignore[untyped-decorator]  # see above
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)
def test_the_api_is_what_its_document_says(case: Any) -> None:
    """No request makes the server fail, and every answer has a status, a type and a shape of the document."""
    # No schema says which texts are filters, and which are cursors.
    case.call_and_validate(
        headers={"origin": "http://testserver"}, excluded_checks=[_checks.positive_data_acceptance]
    )
