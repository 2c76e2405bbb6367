"""What becomes of a run log when Firestore, or the way there, fails."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from run_log.core import (
    ConfigurationError,
    Outcome,
    RunStatus,
    StoreUnavailableError,
)
from run_log.stores import FirestoreRunLogService
from run_log.stores.firestore.client import Patience
from run_log.testing import a_life, a_run, an_event

from .firestore_kit import (
    FINAL_ERRORS,
    NOT_DEPLOYED,
    OpenedService,
    Watch,
    WatchedService,
    vendor_error,
)

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

LOST = vendor_error("ServiceUnavailable")

Operation = Callable[[FirestoreRunLogService], Awaitable[object]]
QUERIES: dict[str, Operation] = {
    "list_runs": lambda service: service.list_runs("w"),
    "get_run": lambda service: service.get_run("w", "r"),
    "get_stats": lambda service: service.get_stats("w"),
    "get_pending_runs": lambda service: service.get_pending_runs(),
    "get_latest_run": lambda service: service.get_latest_run("w"),
    "get_history": lambda service: service.get_history("w", "r"),
}
OPERATIONS: dict[str, Operation] = {
    **QUERIES,
    "save_run": lambda service: service.save_run(a_run(workflow_id="w", id="r")),
    "apply": lambda service: service.apply([an_event(workflow_id="w", id="r")]),
}


@pytest.fixture
def slept() -> list[float]:
    """Return for how long `service` would have waited, each time as long as it might."""
    return []


@pytest.fixture
async def service(watch: Watch, slept: list[float]) -> AsyncIterator[WatchedService]:
    """Yield a service whose calls fail when told to, and that does not wait between its tries."""

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    service = WatchedService(watch, Patience(uniform=lambda low, high: high - low, sleep=sleep))
    yield service
    await service.close()


async def test_an_applied_commit_whose_answer_is_lost(service: WatchedService, watch: Watch) -> None:
    """A commit whose answer was lost is found done: nothing is counted twice."""
    events = [*a_life("w", "r"), *a_life("w", "r2", end=RunStatus.FAILED)]
    watch.after["commit"] = [LOST]

    outcomes = await service.apply(events)

    assert outcomes == [Outcome.DUPLICATE] * 4
    assert watch.calls == ["commit", "commit", "batch_get_documents"]
    assert await service.get_stats("w") == {"total": 2, "successful": 1}
    assert [event.version for event in events[:2]] == [
        item.version for item in await service.get_history("w", "r")
    ]


async def test_every_answer_of_a_run_is_lost(service: WatchedService, watch: Watch) -> None:
    """However often answers are lost, updates too, each event is in the run once."""
    statuses = (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.SUCCESS)
    for number, status in enumerate(statuses, 1):
        watch.after["commit"] = [LOST]
        run = a_run(workflow_id="w", id="r", status=status)
        await service.save_run(run)

        assert (run, number) == (await service.get_run("w", "r"), len(await service.get_history("w", "r")))

    assert await service.get_stats("w") == {"total": 1, "successful": 1}


@pytest.mark.parametrize("name", ["Aborted", "ServiceUnavailable", "DeadlineExceeded"])
@pytest.mark.parametrize("call", ["commit", "batch_get_documents"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_fault_at_any_call_counts_nothing_twice(
    service: WatchedService,
    watch: Watch,
    plain: OpenedService,
    *,
    name: str,
    call: str,
    moment: str,
    times: int,
) -> None:
    """Whatever fails at whichever call, before or after it took effect: state and stats are exact."""
    lives = [a_life("w", f"r{n}", end=RunStatus.FAILED if n % 2 else RunStatus.SUCCESS) for n in range(4)]
    await plain.apply([life[0] for life in lives[:2]])
    getattr(watch, moment)[call] = [vendor_error(name)] * times

    await service.apply([event for life in lives for event in life])
    await service.apply([event for life in lives for event in life])

    assert len(getattr(watch, moment)[call]) < times
    assert {"total": 4, "successful": 2} == await service.get_stats("w")
    for life in lives:
        run_id = life[0].run.id
        assert life[1].run == await service.get_run("w", run_id)
        versions = [line.version for line in await service.get_history("w", run_id)]
        assert [event.version for event in life] == versions


async def test_commits_are_metered(
    service: WatchedService, watch: Watch, metered: Callable[[], Counter[tuple[str, ...]]]
) -> None:
    """Commits are counted by how they ended, with how long and how large; retries by why."""
    before = metered()
    watch.after["commit"] = [LOST]

    await service.apply(a_life("w", "r"))
    await service.apply(a_life("w", "r2"))
    told = metered() - before

    for what in (
        ("run_log.store.commits", "failed"),
        ("run_log.store.commits", "guess_refused"),
        ("run_log.store.commits", "committed"),
        ("run_log.store.commit.duration", "committed"),
        ("run_log.store.commit.runs",),
        ("run_log.store.retries", "unavailable"),
        ("run_log.store.retries", "guess_refused"),
    ):
        assert 1 == told[what], what


@pytest.mark.parametrize(
    "error",
    [
        "ServiceUnavailable",
        "InternalServerError",
        "DeadlineExceeded",
        "ResourceExhausted",
        "Cancelled",
        "Aborted",
    ],
)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_passing_errors_are_retried(
    service: WatchedService, watch: Watch, operation: str, error: str
) -> None:
    """A passing error of any call is retried until the call succeeds."""
    watch.fail(error, times=3)

    await OPERATIONS[operation](service)

    assert len(watch.calls) >= 4


async def test_waits_grow_and_are_bounded(service: WatchedService, watch: Watch, slept: list[float]) -> None:
    """Between tries it waits a random time, up to a ceiling that doubles and stops at two seconds."""
    watch.fail("ServiceUnavailable", times=8)

    await service.get_run("w", "r")

    assert [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0] == slept


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_tries_are_bounded(watch: Watch, operation: str) -> None:
    """When its time is up, an operation that met nothing but passing errors raises one of ours."""
    service = WatchedService(watch, Patience(seconds=0))
    watch.fail("ServiceUnavailable", times=2)

    with pytest.raises(StoreUnavailableError, match="is it up and reachable"):
        await OPERATIONS[operation](service)

    await service.close()
    assert len(watch.calls) == 1


@pytest.mark.parametrize(
    ("operation", "error", "ours", "advice"),
    [
        *((name, *final) for name in OPERATIONS for final in FINAL_ERRORS),
        *((name, *missing) for name in QUERIES for missing in NOT_DEPLOYED),
    ],
)
async def test_final_errors_are_not_retried(
    service: WatchedService, watch: Watch, operation: str, error: str, ours: type[Exception], advice: str
) -> None:
    """A final error comes at once, as one of ours that says what to do, caused by the vendor's."""
    theirs = watch.fail(error, times=2)

    with pytest.raises(ours, match=advice) as caught:
        await OPERATIONS[operation](service)

    assert theirs is caught.value.__cause__
    assert len(watch.calls) == 1


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_nobody_at_the_port(monkeypatch: pytest.MonkeyPatch, watch: Watch, operation: str) -> None:
    """Where nobody listens, each operation ends in bounded time with where it went and what to do."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # it listens not, and nobody else can
        host = f"127.0.0.1:{holder.getsockname()[1]}"
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", host)
        service = WatchedService(watch, Patience(seconds=0.1))

        with pytest.raises(StoreUnavailableError, match=rf"{host}.*is it up and reachable\?"):
            await OPERATIONS[operation](service)

        await service.close()


@pytest.fixture
def no_environment(
    emulator_environment: object,  # noqa: ARG001 - set before it is taken away
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Take away every way to Google Cloud and to an emulator."""
    for name in ("FIRESTORE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


AUTHORIZED = '{"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}'


@pytest.mark.usefixtures("no_environment")
@pytest.mark.parametrize(
    ("emulator", "credentials", "advice"),
    [
        ("", "", r"gcloud auth application-default login.*FIRESTORE_EMULATOR_HOST"),
        ("127.0.0.1:1", "", "set GOOGLE_CLOUD_PROJECT to any name"),
        ("", AUTHORIZED, "set GOOGLE_CLOUD_PROJECT"),
    ],
    ids=["no credentials", "no project for the emulator", "credentials without a project"],
)
def test_what_a_service_needs(
    emulator: str, credentials: str, advice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without credentials or without a project the service is not made, and the error says what to set."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator)
    if credentials:
        (tmp_path / "missing.json").write_text(credentials)
        monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match=advice):
        FirestoreRunLogService()
