"""Emit three runs and show them once they are projected: what `compose.yaml` runs as ``emit``."""

import asyncio
import contextlib
import sys

from run_log.core import RunStatus
from run_log.producer import RunHandle, default_emitter, record_run
from run_log.stores import RunLog, create_run_log_service

PATIENCE_SECONDS = 60


async def main() -> None:
    """Record a run that succeeds, one that waits and one that fails; then read them from Firestore."""
    emitted: list[RunHandle] = []
    async with record_run("invoices", trigger_data={"file": "may.csv"}) as run:
        emitted.append(run)
        run.set_result({"lines": 128})
    async with record_run("expenses") as run:
        emitted.append(run)
        run.pause("4,200 EUR for a machine: pay?", assignee="mei@example.com")
    with contextlib.suppress(OSError):
        async with record_run("reminders") as run:
            emitted.append(run)
            raise OSError("the mail server is away")
    await default_emitter().flush()

    log = create_run_log_service()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for run in emitted:
                await show(log, run.workflow_id, run.run_id)
    finally:
        await log.close()


async def show(log: RunLog, workflow_id: str, run_id: str) -> None:
    """Print a run as soon as a query sees what became of it."""
    while True:
        found = await log.get_run(workflow_id, run_id)
        if found is not None and found.status is not RunStatus.RUNNING:
            break
        await asyncio.sleep(0.2)
    sys.stdout.write(f"{found.workflow_id} {found.id} {found.status.value}\n")


if __name__ == "__main__":
    asyncio.run(main())
