"""``run-log demo``: in one process, workflows emit, a projector folds, and queries answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from run_log.console.views.layout import Screen, Table, painted
from run_log.console.views.output import say, screen, write
from run_log.console.views.tables import history_table, pending_table, runs_table, workflows_table
from run_log.core import DeadLetterReason, ReceivedMessage, RunEvent, TriggerType, WorkflowRun, utc_now
from run_log.core.stats import count_statuses
from run_log.producer import RunEventEmitter, record_run
from run_log.projector import Outcome, Projector, PullLimits, PullWorker
from run_log.stores import InMemoryRunLogService, SQLiteRunLogService
from run_log.testing import Faults, InMemoryTopic

# Without a terminal. A demo is for people, so its tables are never unbounded.
COLUMNS: Final = 80

INVOICES: Final = "invoices/sync"
MAILS: Final = "mails/triage"
EXPENSES: Final = "expenses/pay"
WORKFLOWS: Final = (INVOICES, MAILS, EXPENSES)

# What another process runs on the file, once this one has closed it.
READ_AGAIN: Final = "from run_log.console import main; main()"


async def run_demo() -> bool:
    """Run and print the demo; return whether another process found the runs and the stats equal a recount."""
    topic = InMemoryTopic(faults=Faults(duplicate=0.4, reorder=1.0, delay=0.3), seed=7)
    subscription = topic.subscribe()
    emitter = RunEventEmitter(topic)
    store = InMemoryRunLogService()

    _head("Three workflows run, and forget")
    await _workflows(emitter)
    delivered = await emitter.flush(60)
    emitter.close()
    say(f"emitted {emitter.stats.emitted} events, delivered {delivered.delivered} to the topic")

    _head("A projector folds what arrives: twice, late, in any order")
    worker = PullWorker(subscription, Projector(store), _NoDeadLetters(), limits=PullLimits(pull_seconds=0.3))
    report = await worker.run(stop=asyncio.Event(), until_idle=0.5)
    counts = ", ".join(f"{report.outcomes[outcome]} {outcome.value}" for outcome in Outcome)
    say(f"pulled {report.pulled} messages: {counts}")

    runs = [run for workflow in WORKFLOWS for run in (await store.list_runs(workflow))[0]]
    await _queries(store, runs)
    recount = {
        workflow: count_statuses(run.status for run in runs if run.workflow_id == workflow)
        for workflow in WORKFLOWS
    }
    expected = {name: {"total": one.total, "successful": one.successful} for name, one in recount.items()}

    _head("With RUN_LOG_BACKEND=sqlite, one file outlives the process")
    found = await _read_again(runs)
    for workflow, stats in found.items():
        say(f"another process finds {stats['total']} runs of {workflow}, {stats['successful']} successful")
    if found != expected:
        _tell("Another process does not find the same runs!", style="red")

    is_exact = expected == {workflow: await store.get_stats(workflow) for workflow in WORKFLOWS}
    await store.close()
    if is_exact:
        _tell("Stats equal a recount of the runs.", style="green")
    else:
        _tell("Stats differ from a recount of the runs!", style="red")
    return is_exact and found == expected


class _NoDeadLetters:
    # A worker wants somewhere to put them. Every event of the demo can be projected.
    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        raise AssertionError(f"{message.message_id}: {reason.value}: {error}")


def _screen() -> Screen:
    seen = screen()
    return replace(seen, width=seen.width or COLUMNS)


def _tell(text: str, *, style: str) -> None:
    write([painted(text, style, _screen())])


def _head(text: str) -> None:
    say("")
    _tell(text, style="bold")


def _show(title: str, table: Table) -> None:
    write(["", *replace(table, title=title).lines(_screen())])


async def _queries(store: InMemoryRunLogService, runs: Sequence[WorkflowRun]) -> None:
    _show("Runs", runs_table(runs))
    workflows, _ = await store.list_workflows()
    _show("Workflows", workflows_table(workflows))
    pending, _ = await store.list_pending()
    _show("Waiting for an answer", pending_table(pending))
    answered = "expense-1"
    _show(f"History of {answered}", history_table(await store.get_history(EXPENSES, answered)))


async def _read_again(runs: Sequence[WorkflowRun]) -> dict[str, dict[str, int]]:
    """Write *runs* to a file, and return the stats that another process finds there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run-log.sqlite3"
        log = SQLiteRunLogService(path=path)
        await log.apply([RunEvent(run=run) for run in runs])
        await log.close()
        # No setting of this process's environment has to do with the file.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUN_LOG_")}
        environment |= {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(path)}
        command = [sys.executable, "-c", READ_AGAIN, "workflows", "-o", "jsonl"]
        reading = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await reading.communicate()
    found = [json.loads(line) for line in printed.splitlines()]
    return {one["workflow_id"]: {name: one[name] for name in ("total", "successful")} for one in found}


async def _workflows(emitter: RunEventEmitter) -> None:
    sync = partial(record_run, INVOICES, trigger_type=TriggerType.SCHEDULED, emitter=emitter)
    for number in range(1, 4):
        async with sync(run_id=f"invoice-{number}") as run:
            run.set_result({"synced": 10 * number})

    triage = partial(record_run, MAILS, trigger_type=TriggerType.GMAIL_PUSH, emitter=emitter)
    with triage(run_id="mail-1", trigger_data={"subject": "Offer"}):
        pass
    # record_run passes the error on, so the workflow handles it as it would without.
    with contextlib.suppress(TimeoutError), triage(run_id="mail-2", trigger_data={"subject": "Invoice 4711"}):
        raise TimeoutError("no answer in 30 s")

    upload = partial(record_run, EXPENSES, trigger_type=TriggerType.FILE_UPLOAD, emitter=emitter)
    with upload(trigger_data={"amount": 80}, run_id="expense-1") as run:
        run.pause("80 EUR for books: pay?", assignee="mei@example.com")
        run.resume(answered_by="mei@example.com")
        run.set_result({"paid": True})
    with upload(trigger_data={"amount": 4_200}, run_id="expense-2") as run:
        deadline = utc_now() + timedelta(days=2)
        run.pause("4,200 EUR for a machine: pay?", assignee="mei@example.com", deadline=deadline)
