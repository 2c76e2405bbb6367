"""Recorded logs of every schema version in the warehouse."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.warehouse import Warehouse, check

from run_log.core import Message

from .replay import FOLDER, read

LOGS = sorted(FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_recorded_log_is_folded_alike(log: Path) -> None:
    """The views make of every log ever recorded what the library makes of it."""
    # BigQuery's JSON has no NaN, so a body with one is left out.
    messages = [Message(data=data) for data in read(log) if b"NaN" not in data]
    warehouse = Warehouse()

    check(warehouse, messages * 2, published_at=datetime(2030, 1, 1, tzinfo=UTC))
    warehouse.close()
