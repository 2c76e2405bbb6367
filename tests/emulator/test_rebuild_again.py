"""Rebuilds that are run again, or from what is not there, or from documents of another service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from run_log.console import main
from run_log.console.checks import Verdict
from run_log.console.views.output import OutputFormat
from run_log.console.work.doctor import _documents, _indexes  # pyright: ignore[reportPrivateUsage]
from run_log.console.work.verify import compare_roots
from run_log.core import (
    ConfigurationError,
    NotFoundError,
    RunStatus,
    Settings,
    TransportRefusedError,
    TriggerType,
)
from run_log.projector.rebuild import FromRoot, FromSubscription, RebuildState
from run_log.projector.rebuild.sources import replay_name
from run_log.stores.audit import verify
from run_log.stores.firestore import Connection, FirestoreRoot
from run_log.stores.firestore._foreign import NAIVE_TIME, OTHER_TRIGGER
from run_log.testing import an_event

from .rebuild_kit import ANEW, LIVE, differences, lives, rebuilt, service
from .test_rebuild import retaining, run_rebuild, subscriptions

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)


def reference_run(run_id: str, status: str, **fields: Any) -> dict[str, Any]:
    """Return a run's document as the service stores it that run-log began from."""
    return {
        "id": run_id,
        "workflow_id": "bank_to_ynab",
        "status": status,
        "trigger_type": "scheduled",
        "trigger_data": {"file": {"name": "may.csv", "pages": [1, {"of": 2}]}},
        "result": {},
        "error": None,
        "started_at": "2026-03-04T12:00:00Z",
        "completed_at": None,
        "duration_ms": 0.0,
        **fields,
    }


DOCUMENTS: Final[Mapping[str, dict[str, Any]]] = {
    "ended": reference_run(
        "ended",
        "success",
        started_at="2026-03-04T13:00:00.5+01:00",
        completed_at="2026-03-04T12:00:02",
        duration_ms=1_500.0,
    ),
    "waits": reference_run("waits", "paused", started_at="2026-03-04T11:00:00"),
    "odd words": reference_run("odd words", "RunStatus.FAILED", trigger_type="every night", error="no"),
    "bare": {"status": "running", "started_at": "1969-07-20T20:17:40Z"},
    "no time": reference_run("no time", "success", started_at="yesterday"),
}


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    """Yield the vendor's client of the environment's database."""
    connection = Connection(Settings.from_env().project, None)
    yield connection.client()
    await connection.close()


async def test_a_root_goes_on_from_what_changed(tmp_path: Path) -> None:
    """A copy run again brings over what is new or has changed, all of it, and says how much it was."""
    live, anew = service(LIVE), service(ANEW)
    await live.apply(lives(40, steps=(RunStatus.PENDING,)))

    first = await run_rebuild(FromRoot(name=LIVE), tmp_path)
    again = await run_rebuild(FromRoot(name=LIVE), tmp_path)
    late = an_event(workflow_id="w/0", id="r00000", status=RunStatus.RUNNING, hlc=5)
    await live.apply([late, *(an_event(workflow_id=name, id="new") for name in ("w/1", "w/9"))])
    third = await run_rebuild(FromRoot(name=LIVE), tmp_path)
    fourth = await run_rebuild(FromRoot(name=LIVE), tmp_path)

    assert [(True, 40, 40), (True, 0, 40), (True, 3, 42), (True, 0, 42)] == [
        (done.complete, done.folded, done.runs) for done in (first, again, third, fourth)
    ]
    assert [False, True, True, True] == [done.went_on for done in (first, again, third, fourth)]
    assert [] == await differences(LIVE, ANEW)
    # Its paused runs without a deadline stand at the end of year 9999, also those of the other root.
    assert Verdict.OK is (await _indexes(Settings(backend="firestore"))).verdict
    await live.close()
    await anew.close()


async def test_a_state_of_an_earlier_version(tmp_path: Path) -> None:
    """Where an earlier version was complete, all is gone through once more, and only news count."""
    live = service(LIVE)
    await live.apply(lives(8))
    await run_rebuild(FromRoot(name=LIVE), tmp_path)
    state = tmp_path / f"{ANEW}-root.state"
    kept = [line for line in state.read_text().splitlines(keepends=True) if '"walk"' not in line]
    state.write_text("".join(kept))
    await live.apply([an_event(workflow_id="w/1", id="new")])

    again = await run_rebuild(FromRoot(name=LIVE), tmp_path)

    assert (True, 1, 9) == (again.complete, again.folded, again.runs)
    await live.close()


async def test_expiry_follows_what_came_later(tmp_path: Path) -> None:
    """What is brought over later expires too; where nothing was, nobody looks for it again."""
    settings = Settings.from_env().model_copy(update={"retention_days": 30})
    live = service(LIVE)
    await live.apply(lives(4))

    done = [await run_rebuild(FromRoot(name=LIVE), tmp_path, settings=settings)]
    await live.apply([an_event(workflow_id="w/1", id="new")])
    done += [await run_rebuild(FromRoot(name=LIVE), tmp_path, settings=settings) for _ in range(2)]

    assert [(4, 3), (1, 1), (0, 0)] == [(one.folded, one.expired) for one in done]
    await live.close()


async def test_a_page_of_changes(client: Any) -> None:
    """Of a root collection only what was written since a moment is on its pages, whoever wrote it."""
    await service(LIVE).apply(lives(7))
    root = FirestoreRoot(Connection(Settings.from_env().project, None), LIVE, page=3)
    since = await root.now() + timedelta(seconds=11)
    path = f"{LIVE}/bank/runs/theirs"

    none = [run async for run in _runs(root, since)]
    await client.document(path).set(reference_run("theirs", "success", workflow_id="bank"))
    written = (await client.document(path).get()).update_time
    found = [run async for run in _runs(root, written + timedelta(seconds=10))]
    everything = [run async for run in _runs(root, written - timedelta(days=1))]

    assert ([], 8) == (none, len(everything))
    assert [("bank", "theirs")] == found
    await root.close()


async def _runs(root: FirestoreRoot, since: datetime) -> AsyncIterator[tuple[str, str]]:
    after: str | None = ""
    while after is not None:
        page = await root.page(after, since=since)
        for run in page.runs:
            yield run.event.key
        after = page.after


async def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    """A copy of what is not there is an error with its name and an exit code, and leaves nothing behind."""
    with pytest.raises(NotFoundError, match="no root collection 'nothing'"):
        await run_rebuild(FromRoot(name="nothing"), tmp_path / "..")

    copied = await rebuilt(tmp_path, "--from", "root:nothing", "--into", ANEW)

    assert (3, {}) == (copied.code, copied.record)
    assert "to switch" not in copied.err
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - nobody else waits


async def test_a_subscription_that_is_not_there(tmp_path: Path) -> None:
    """A rebuild whose subscription, or a part of what it missed, is gone is an error that says what to do."""
    raw = retaining()
    now = datetime.now(UTC)
    path = tmp_path / f"{ANEW}-subscription.state"

    def noted(**replay: str | None) -> None:
        path.unlink(missing_ok=True)
        with closing(RebuildState(path, source="subscription", into=ANEW)) as state:
            state.note({"replay": replay})

    noted(subscription=replay_name(ANEW), since=now.isoformat(), heard=None)
    with pytest.raises(TransportRefusedError, match=r"delete .*\.state to begin again"):
        await run_rebuild(FromSubscription(until_idle=3), tmp_path)
    noted(subscription=None, heard=(now - timedelta(days=8)).isoformat())
    with pytest.raises(ConfigurationError, match="no longer retains all"):
        await run_rebuild(FromSubscription(until_idle=3), tmp_path)

    assert replay_name(ANEW) not in subscriptions(raw)


async def test_another_root_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison with what is not there is an error, where all runs would seem to be missing."""
    monkeypatch.setenv("RUN_LOG_BACKEND", "firestore")

    with pytest.raises(NotFoundError, match="the projection 'nothing' does not exist"):
        await compare_roots(None, against="nothing", output=OutputFormat.JSON)


async def test_what_a_command_leaves_out(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that meets documents which it cannot show counts them on stderr, once each, and names one."""
    monkeypatch.setenv("RUN_LOG_BACKEND", "firestore")
    for number in range(3):
        reference = client.document(f"{LIVE}/bank_to_ynab/runs/r{number}")
        await reference.set(reference_run(f"r{number}", "success"))

    code = await asyncio.to_thread(_listed)

    out, err = capsys.readouterr()
    assert (0, "[]") == (code, json.dumps(json.loads(out)["runs"]))
    assert 1 == err.count("3 stored runs, the first autopilot_runs/bank_to_ynab/runs/r2; save them again")


def _listed() -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["run-log", "runs", "list", "bank_to_ynab", "--limit", "1", "-o", "json"])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


async def test_documents_of_the_reference(client: Any, tmp_path: Path) -> None:
    """Documents of the service that run-log began from are told of, copied, and followed as they change."""
    workflow = client.document(f"{LIVE}/bank_to_ynab")
    await workflow.set({"total": 5, "successful": 2})
    for run_id, fields in DOCUMENTS.items():
        await workflow.collection("runs").document(run_id).set(fields)
    settings = Settings(backend="firestore")
    connection = Connection(Settings.from_env().project, None)
    found = await _documents(connection, settings)
    live = service(LIVE)
    unreadable = [run.run_id async for one in verify(live.audit()) for run in one.run_findings]
    await live.close()

    first = await run_rebuild(FromRoot(name=LIVE), tmp_path)
    await workflow.collection("runs").document("waits").update({"status": "running"})
    again = await run_rebuild(FromRoot(name=LIVE), tmp_path)
    after = await _documents(connection, settings.model_copy(update={"root_collection": ANEW}))

    assert (Verdict.WRONG, Verdict.OK) == (found.verdict, after.verdict)
    assert "5 documents" in found.found
    assert sorted(DOCUMENTS) == sorted(unreadable)
    assert (4, 4, 1) == (first.folded, first.runs, first.rejects)
    assert {NAIVE_TIME: 2, OTHER_TRIGGER: 1} == first.assumed
    assert (1, 4, 1) == (again.folded, again.runs, again.rejects)
    reject = json.loads((tmp_path / f"{ANEW}-root.rejects").read_text())
    assert "bank_to_ynab/runs/no time" == reject["place"]
    assert DOCUMENTS["no time"] == json.loads(reject["body"])
    log = service(ANEW)
    runs = {run.id: run for run in (await log.list_runs("bank_to_ynab"))[0]}
    await log.close()
    await connection.close()
    assert ["ended", "odd words", "waits", "bare"] == list(runs)
    assert NOON + timedelta(milliseconds=500) == runs["ended"].started_at
    assert NOON + timedelta(seconds=2) == runs["ended"].completed_at
    assert DOCUMENTS["ended"]["trigger_data"] == runs["ended"].trigger_data
    odd, waits = runs["odd words"], runs["waits"]
    assert (RunStatus.FAILED, TriggerType.MANUAL) == (odd.status, odd.trigger_type)
    assert (RunStatus.RUNNING, NOON - timedelta(hours=1)) == (waits.status, waits.started_at)
    assert (RunStatus.RUNNING, {}) == (runs["bare"].status, runs["bare"].trigger_data)
