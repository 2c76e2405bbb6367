from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from run_log.console.views.output import Listing, OutputFormat, own_json
from run_log.console.views.tables import stale_table
from run_log.console.work.sweep import PAGE, Swept, sweep
from run_log.core import PauseRequest, RunNotFoundError, RunStatus, TransportUnavailableError
from run_log.core.clock import MAX_HLC
from run_log.stores import InMemoryRunLogService
from run_log.stores.inbox import BY_DEFAULT
from run_log.testing import a_run, an_event

from .files import in_file
from .processes import run_log

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class _Undelivered(InMemoryRunLogService):
    """A run log whose saves are not durable in time."""

    async def flush(self, timeout: float = 2.0) -> bool:  # noqa: ASYNC109 - see `RunLog.flush`
        return timeout < 0


async def _filled(log: InMemoryRunLogService, count: int) -> InMemoryRunLogService:
    """Store so many running runs of several workflows, and one paused, all silent for a day."""
    statuses = [RunStatus.RUNNING] * count + [RunStatus.PAUSED]
    await log.apply(
        [
            an_event(workflow_id=f"w{n % 3}", id=f"r{n:03}", status=status, started_at=NOON - 24 * HOUR)
            for n, status in enumerate(statuses)
        ]
    )
    return log


async def _sweep(
    log: InMemoryRunLogService, *, mark: bool, workflow_id: str | None = None, running_only: bool = False
) -> Swept:
    listing = Listing(OutputFormat.TABLE, "stale_runs", table=stale_table, record=own_json)
    return await sweep(
        log,
        listing,
        older_than=HOUR,
        workflow_id=workflow_id,
        running_only=running_only,
        mark=mark,
        now=NOON,
    )


async def test_what_waits_in_a_queue(capsys: pytest.CaptureFixture[str]) -> None:
    """With running_only, a run that nobody has begun is neither shown nor marked, however long it waits."""
    log = await _filled(InMemoryRunLogService(), 1)
    waits = a_run(workflow_id="w0", id="waits", status=RunStatus.PENDING, started_at=NOON - 24 * HOUR)
    await log.apply([an_event(waits)])

    swept = await _sweep(log, mark=True, running_only=True)

    assert Swept(found=1, marked=1) == swept
    assert "waits" not in capsys.readouterr().out
    assert waits == await log.get_run("w0", "waits")
    assert Swept(found=1, marked=0) == await _sweep(log, mark=False)


async def test_a_dry_run_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without being told to mark, a sweep shows what is stale, of one workflow if asked, and leaves it."""
    log = await _filled(InMemoryRunLogService(), 4)

    one = await _sweep(log, mark=False, workflow_id="w1")
    assert (1, True) == (one.found, "r000" not in capsys.readouterr().out)
    swept = await _sweep(log, mark=False)

    printed = capsys.readouterr().out
    assert Swept(found=4, marked=0) == swept
    assert all(word in printed for word in ("w0", "r003", "running", "03-03 12:00:00 ", "1d 00:00:00"))
    assert "r004" not in printed
    assert 4 == len((await log.list_stale(HOUR, now=NOON))[0])


async def test_marking_walks_all_pages(capsys: pytest.CaptureFixture[str]) -> None:
    """All that is stale is marked as lost, on however many pages; what is paused goes on waiting."""
    log = await _filled(InMemoryRunLogService(), PAGE + 50)

    swept = await _sweep(log, mark=True)

    printed = capsys.readouterr().out
    assert Swept(found=PAGE + 50, marked=PAGE + 50) == swept
    assert PAGE + 50 == printed.count("running")
    assert ([], None) == await log.list_stale(HOUR, now=NOON)
    assert 1 == len(await log.get_pending_runs())
    assert Swept(found=0, marked=0) == await _sweep(log, mark=True)
    assert ("", "no stale runs\n") == capsys.readouterr()


class _Expiring(InMemoryRunLogService):
    """A run log of which a run expires between the listing and the mark."""

    async def mark_lost(self, workflow_id: str, run_id: str, **how: Any) -> bool:
        if run_id == "r001":
            raise RunNotFoundError(workflow_id, run_id)
        return await super().mark_lost(workflow_id, run_id, **how)


async def test_a_run_that_has_expired_meanwhile() -> None:
    """A run that is gone when it is to be marked is not, and the others are."""
    log = await _filled(_Expiring(), 4)

    assert Swept(found=4, marked=3) == await _sweep(log, mark=True)


async def test_what_cannot_be_marked_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that cannot be marked is named on stderr and counted, and the others are marked."""
    log = await _filled(InMemoryRunLogService(), 4)
    last = an_event(
        workflow_id="w",
        id="last",
        status=RunStatus.RUNNING,
        started_at=NOON - 48 * HOUR,
        hlc=MAX_HLC - 1,
        event_id="~" * 128,
    )
    await log.apply([last])

    swept = await _sweep(log, mark=True)

    assert Swept(found=5, marked=4, refused=1) == swept
    assert "run 'last' of workflow 'w' cannot be marked as lost" in capsys.readouterr().err


async def test_what_was_not_published_is_told() -> None:
    """Marks that could not be published in time are an error that says what to do; a dry run has none."""
    log = await _filled(_Undelivered(), 1)

    await _sweep(log, mark=False)
    with pytest.raises(TransportUnavailableError, match="sweep again"):
        await _sweep(log, mark=True)


@pytest.mark.parametrize(
    ("age", "told"), [("soon", "'soon' is not a duration"), ("1h", "only its own process can read")]
)
def test_what_cannot_be_swept(age: str, told: str, tmp_path: Path) -> None:
    """A time that is none exits 2, and so does the embedded back end: what another process held is gone."""
    ended = run_log("sweep", "--older-than", age, folder=tmp_path)

    assert (2, "") == (ended.code, ended.out)
    assert told in ended.err


def test_a_file_is_swept(tmp_path: Path) -> None:
    """Runs that another process left in a file are shown, marked as lost, and then none are left."""
    left = an_event(id="r1", status=RunStatus.RUNNING, started_at=NOON)
    in_file(tmp_path / "runs", lambda log: log.apply([left]))
    settings = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(tmp_path / "runs")}

    swept = [run_log("sweep", "--older-than", "0s", "--mark", folder=tmp_path, **settings) for _ in range(2)]

    assert [0, 0] == [one.code for one in swept]
    assert ["1 without an event for 0s; 1 marked as lost", "0 without an event for 0s; 0 marked as lost"] == [
        one.err.splitlines()[-1] for one in swept
    ]
    run = in_file(tmp_path / "runs", lambda log: log.get_run(*left.key))
    assert run is not None
    assert RunStatus.FAILED is run.status


async def test_defaults_that_are_due_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep counts the pauses past their deadline that have a default, and takes it only if told to."""
    log = InMemoryRunLogService()
    offers: list[dict[str, Any]] = [
        {"choices": ("a", "b"), "default_choice": "b", "deadline": NOON - HOUR},
        {"choices": ("a", "b"), "default_choice": "b", "deadline": NOON + HOUR},
        {"choices": ("a", "b"), "deadline": NOON - HOUR},
        {"choices": ("a", "b"), "default_choice": "b"},
    ]
    await log.apply(
        [
            an_event(workflow_id="w", id=f"p{n}", status=RunStatus.PAUSED, pause=PauseRequest(**offer))
            for n, offer in enumerate(offers)
        ]
    )

    assert Swept(found=0, marked=0, due=1) == await _sweep(log, mark=False)
    assert Swept(found=0, marked=0) == await _sweep(log, mark=True, workflow_id="other")
    assert 4 == len(await log.get_pending_runs())
    assert Swept(found=0, marked=0, due=1, taken=1) == await _sweep(log, mark=True)
    assert Swept(found=0, marked=0) == await _sweep(log, mark=True)

    capsys.readouterr()
    run = await log.get_run("w", "p0")
    assert run is not None
    assert run.pause is not None
    assert (RunStatus.RUNNING, "b", BY_DEFAULT) == (run.status, run.pause.choice, run.pause.answered_by)
    assert {"p1", "p2", "p3"} == {one.id for one in await log.get_pending_runs()}


async def test_a_default_that_cannot_be_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A pause after whose version nothing comes is named on stderr and counted, and the others go on."""
    log = InMemoryRunLogService()
    pause = PauseRequest(choices=("a",), default_choice="a", deadline=NOON - HOUR)
    await log.apply(
        [
            an_event(
                workflow_id="w", id="last", status=RunStatus.PAUSED, pause=pause, hlc=MAX_HLC - 1
            ).model_copy(update={"event_id": "z" * 128}),
            an_event(workflow_id="w", id="other", status=RunStatus.PAUSED, pause=pause),
        ]
    )

    assert Swept(found=0, marked=0, refused=1, due=2, taken=1) == await _sweep(log, mark=True)

    assert "run 'last' of workflow 'w' cannot be answered by default" in capsys.readouterr().err


@pytest.mark.process
def test_the_command_says_which_defaults_are_due(tmp_path: Path) -> None:
    """The command says how many defaults are due, and with ``--mark`` how many runs go on with it."""
    settings = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(tmp_path / "runs")}
    pause = PauseRequest(choices=("a",), default_choice="a", deadline=NOON - HOUR)
    paused = a_run(status=RunStatus.PAUSED, pause=pause)
    in_file(tmp_path / "runs", lambda log: log.save_run(paused))

    swept = [
        run_log("sweep", "--older-than", "1h", *mark, folder=tmp_path, **settings).err.splitlines()[-1]
        for mark in ((), ("--mark",), ())
    ]

    what = "1 paused past their deadline with a default choice"
    assert [f"{what}; pass --mark to take it", f"{what}; 1 go on with it"] == swept[:2]
    assert "default" not in swept[2]
