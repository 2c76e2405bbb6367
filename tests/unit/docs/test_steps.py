from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from run_log.core import RunStatus, StepStatus
from run_log.core.steps import MAX_ERROR_BYTES, MAX_NAME_BYTES, MAX_STEP_BYTES, MAX_STEPS
from run_log.producer import default_emitter, reset_default_emitter
from run_log.producer._transport import DeliveryPolicy
from run_log.stores import get_run_log_service, reset_run_log_service

from .repository import blocks, one_line, read, run_example

STEPS = read("docs/steps.md")


async def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The examples run one after another as they stand, and leave the steps that the text says."""
    reset_default_emitter()
    reset_run_log_service()
    names: dict[str, Any] = {}

    for block in blocks(STEPS, "python"):
        await run_example(block, names)
        await default_emitter().flush(30)
    log = get_run_log_service()
    may, june, july = [await log.get_steps("invoices", run) for run in ("may", "june", "july")]
    run = await log.get_run("invoices", "may")
    nightly = await log.get_run("nightly", "n1")
    await asyncio.to_thread(reset_default_emitter)
    reset_run_log_service()

    download, listing, parse = may
    assert (download.attributes, download.key) == ({"files": 7}, listing.parent)
    assert StepStatus.SUCCESS is parse.status
    assert ["download", "list", "parse"] == [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert run is not None
    assert run.progress is not None
    assert (0.5, "3 of 7 files") == (run.progress.fraction, run.progress.text)
    assert [{"month": "june"}] == [step.attributes for step in june]
    call, render = july
    assert ("call", 3, StepStatus.SUCCESS, None) == (call.name, call.attempt, call.status, call.error)
    assert ({"host": "worker-3"}, 2) == (render.attributes, render.attempt)
    assert nightly is not None
    assert RunStatus.SUCCESS is nightly.status


def test_the_limits_are_true() -> None:
    """The numbers in the text are those of the code."""
    text = one_line(STEPS)

    assert (100, 640, 100, 160) == (MAX_STEPS, MAX_STEP_BYTES, MAX_NAME_BYTES, MAX_ERROR_BYTES)
    assert "| steps of a run | 100: the newest." in text
    assert "640 bytes of JSON" in text
    assert "| 100 and 160 bytes |" in text
    assert timedelta(seconds=2) == timedelta(seconds=DeliveryPolicy().progress)
    assert "at most every 2 seconds for each run" in text
