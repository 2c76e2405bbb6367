from __future__ import annotations

import asyncio
import json
from array import array
from collections import ChainMap
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from run_log.core.models import snapshot
from run_log.producer import Redaction, default_emitter, reset_default_emitter
from run_log.producer._lifecycle import EXIT_SECONDS, SIGTERM_SECONDS
from run_log.producer._metrics import TELL_AGAIN_SECONDS
from run_log.producer._secret_names import SECRET_NAMES
from run_log.producer._transport import END_FLUSH_SECONDS, DeliveryPolicy
from run_log.stores import get_run_log_service, reset_run_log_service
from run_log.testing import a_run

from .repository import blocks, codes, one_line, read, run_example, section, table

PRODUCER = read("docs/producer.md")


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "kept"), [(codes(row[0])[0], codes(row[1])[0]) for row in table(PRODUCER, "value")]
)
def test_values(value: str, kept: str) -> None:
    """Each documented value is kept as the document says."""
    names = {kind.__name__: kind for kind in (date, timedelta, UUID, Decimal, Path, array, ChainMap, Point)}
    run = snapshot({**dict(a_run()), "result": eval(value, names)})  # noqa: S307 - our own document

    assert json.loads(kept) == run.result


async def test_the_examples_run() -> None:
    """The examples run one after another as they stand, and leave the runs that the text says."""
    reset_default_emitter()
    reset_run_log_service()
    names: dict[str, Any] = {}

    for block in blocks(PRODUCER, "python"):
        await run_example(block, names)
        await default_emitter().flush(30)
    await asyncio.to_thread(names["work"])
    await asyncio.to_thread(names["sync"], "may")
    await default_emitter().flush(30)

    log = get_run_log_service()
    desk = await log.get_history("expenses", "4712")
    answers = [(line.answered_by, line.choice, line.values) for line in desk if line.choice]
    assert ("mei@example.com", "pay", {"amount": 4200}) == answers[0]
    assert ("bob@example.com", "oak", None) == answers[1]
    expense, night = await log.get_run("expenses", "4711"), await log.get_latest_run("nightly")
    assert expense is not None
    assert expense.pause is not None
    assert (expense.status.value, expense.pause.answered_by) == ("success", "mei@example.com")
    assert night is not None
    assert night.result == {"done": True}
    synced, download = await log.get_latest_run("invoices"), await log.get_latest_run("invoices.download")
    assert synced is not None
    assert download is not None
    assert ("cron", {"team": "billing", "region": "eu"}) == (synced.trigger_type, synced.labels)
    assert ({"lines": 128}, synced.key) == (synced.result, download.parent)
    await asyncio.to_thread(reset_default_emitter)
    reset_run_log_service()


def test_times_are_true() -> None:
    """The times that the text names are those of the code."""
    policy = DeliveryPolicy(uniform=lambda _shortest, longest: longest)
    shortest = DeliveryPolicy(uniform=lambda shortest, _longest: shortest)
    text = one_line(PRODUCER)

    assert [0.2, 0.4, 10] == [policy.wait(failures, refused=False) for failures in (1, 2, 9)]
    assert "backoff of up to 0.2, 0.4, ... 10 s" in text
    assert (15, 30) == (shortest.wait(1, refused=True), policy.wait(1, refused=True))
    assert "every 15 to 30 s" in text
    assert (60, 60) == (policy.deadline, TELL_AGAIN_SECONDS)
    assert "failed for a minute" in text
    assert "logged once a minute at most" in text
    assert (1, 5, 2) == (END_FLUSH_SECONDS, SIGTERM_SECONDS, EXIT_SECONDS)
    assert "waits up to a second" in text
    assert "at most five seconds" in text
    assert "at most two seconds" in text


def test_the_named_secrets_are_secrets() -> None:
    """Every key that the text names as a secret is replaced, and the one it excludes is not."""
    secrets, exception = codes(section(PRODUCER, "## Secrets").split("Under")[0])[1:], "max_tokens"
    payload: dict[str, Any] = {**dict.fromkeys(secrets, "x"), exception: 7}

    Redaction().apply(payload)

    assert {**dict.fromkeys(secrets, "[redacted]"), exception: 7} == payload
    assert "cookie" in SECRET_NAMES
