"""What becomes of a run log when Firestore, or the way there, fails."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from run_log.core import (
    ConfigurationError,
    Outcome,
    RunStatus,
    StoreError,
    StoreUnavailableError,
    WriteRefusedError,
)
from run_log.stores import FirestoreRunLogService
from run_log.stores.firestore.client import Patience
from run_log.testing import ManualClock, a_life, a_run, an_event

from .firestore_kit import Watch, WatchedService, vendor_error

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

LOST = vendor_error("ServiceUnavailable")

QUERIES: dict[str, Callable[[FirestoreRunLogService], Awaitable[object]]] = {
    "list_runs": lambda service: service.list_runs("w"),
    "get_run": lambda service: service.get_run("w", "r"),
    "get_stats": lambda service: service.get_stats("w"),
    "get_pending_runs": lambda service: service.get_pending_runs(),
    "get_latest_run": lambda service: service.get_latest_run("w"),
    "get_history": lambda service: service.get_history("w", "r"),
}
OPERATIONS: dict[str, Callable[[FirestoreRunLogService], Awaitable[object]]] = {
    **QUERIES,
    "save_run": lambda service: service.save_run(a_run(workflow_id="w", id="r")),
    "apply": lambda service: service.apply([an_event(workflow_id="w", id="r")]),
}


class Waits:
    """Remembers for how long was waited, without waiting."""

    def __init__(self) -> None:
        self.ceilings: list[float] = []
        self.slept: list[float] = []
        self._clock = ManualClock()

    def uniform(self, low: float, high: float) -> float:
        """Return the longest of the waits there could be."""
        assert low == 0
        self.ceilings.append(high)
        return high

    async def sleep(self, seconds: float) -> None:
        """Wait no time."""
        self.slept.append(seconds)
        await self._clock.sleep(seconds)


@pytest.fixture
def watch() -> Watch:
    """Return what sees the calls of `service`."""
    return Watch()


@pytest.fixture
def waits() -> Waits:
    """Return what sees the waits of `service`."""
    return Waits()


@pytest.fixture
async def service(watch: Watch, waits: Waits) -> AsyncIterator[WatchedService]:
    """Yield a service whose calls fail when told to, and that does not wait between its tries."""
    service = WatchedService(watch, Patience(uniform=waits.uniform, sleep=waits.sleep))
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


async def test_a_save_whose_answer_is_lost(service: WatchedService, watch: Watch) -> None:
    """A save whose answer was lost is found done, once in the history."""
    run = a_run(workflow_id="w", id="r")
    watch.after["commit"] = [LOST]

    await service.save_run(run)

    assert run == await service.get_run("w", "r")
    assert await service.get_stats("w") == {"total": 1, "successful": 1}
    assert len(await service.get_history("w", "r")) == 1


async def test_every_answer_of_a_run_is_lost(service: WatchedService, watch: Watch) -> None:
    """However often answers are lost, updates too, each event is in the run once."""
    for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.SUCCESS):
        watch.after["commit"] = [LOST]
        await service.save_run(a_run(workflow_id="w", id="r", status=status))

    assert await service.get_stats("w") == {"total": 1, "successful": 1}
    assert len(await service.get_history("w", "r")) == 4


@pytest.mark.parametrize("name", ["Aborted", "ServiceUnavailable", "DeadlineExceeded"])
@pytest.mark.parametrize("call", ["commit", "batch_get_documents"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_fault_at_any_call_counts_nothing_twice(
    service: WatchedService, watch: Watch, *, name: str, call: str, moment: str, times: int
) -> None:
    """Whatever fails at whichever call, before or after it took effect: state and stats are exact."""
    other = FirestoreRunLogService()
    lives = [a_life("w", f"r{n}", end=RunStatus.FAILED if n % 2 else RunStatus.SUCCESS) for n in range(4)]
    await other.apply([life[0] for life in lives[:2]])
    await other.close()
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

    assert 1 == told["run_log.store.commits", "failed"]
    assert 1 == told["run_log.store.commits", "guess_refused"]
    assert 1 == told["run_log.store.commits", "committed"]
    assert 1 == told["run_log.store.commit.duration", "committed"]
    assert 1 == told["run_log.store.commit.runs",]
    assert 1 == told["run_log.store.retries", "unavailable"]
    assert 1 == told["run_log.store.retries", "guess_refused"]


@pytest.mark.parametrize(
    "error",
    [
        vendor_error("ServiceUnavailable"),
        vendor_error("InternalServerError"),
        vendor_error("DeadlineExceeded"),
        vendor_error("ResourceExhausted"),
        vendor_error("Cancelled"),
        vendor_error("Aborted"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_passing_errors_are_retried(
    service: WatchedService,
    watch: Watch,
    operation: Callable[[FirestoreRunLogService], Awaitable[object]],
    error: Exception,
) -> None:
    """A passing error of any call is retried until the call succeeds."""
    for name in ("commit", "batch_get_documents", "run_query"):
        watch.before[name] = [error] * 3

    await operation(service)

    assert len(watch.calls) >= 4


async def test_waits_grow_and_are_bounded(service: WatchedService, watch: Watch, waits: Waits) -> None:
    """Between tries it waits a random time, up to a ceiling that doubles and stops at two seconds."""
    watch.before["batch_get_documents"] = [vendor_error("ServiceUnavailable")] * 8

    await service.get_run("w", "r")

    assert [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0] == waits.ceilings == waits.slept


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_tries_are_bounded(
    watch: Watch,
    operation: Callable[[FirestoreRunLogService], Awaitable[object]],
) -> None:
    """When its time is up, an operation that met nothing but passing errors raises one of ours."""
    service = WatchedService(watch, Patience(seconds=0))
    for name in ("commit", "batch_get_documents", "run_query"):
        watch.before[name] = [vendor_error("ServiceUnavailable")] * 2

    with pytest.raises(StoreUnavailableError, match="is it up and reachable"):
        await operation(service)

    await service.close()
    assert len(watch.calls) == 1


@pytest.mark.parametrize(
    ("error", "ours", "advice"),
    [
        (vendor_error("PermissionDenied"), ConfigurationError, "grant roles/datastore.user"),
        (vendor_error("Unauthenticated"), ConfigurationError, "grant roles/datastore.user"),
        (vendor_error("InvalidArgument"), WriteRefusedError, "for good"),
        (vendor_error("OutOfRange"), StoreError, "failed"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_final_errors_are_not_retried(
    service: WatchedService,
    watch: Watch,
    operation: Callable[[FirestoreRunLogService], Awaitable[object]],
    error: Exception,
    ours: type[Exception],
    advice: str,
) -> None:
    """A final error comes at once, as one of ours that says what to do, caused by the vendor's."""
    for name in ("commit", "batch_get_documents", "run_query"):
        watch.before[name] = [error] * 2

    with pytest.raises(ours, match=advice) as caught:
        await operation(service)

    assert error is caught.value.__cause__
    assert len(watch.calls) == 1


@pytest.mark.parametrize("name", ["batch_get_documents", "run_query"])
@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (vendor_error("NotFound"), "set RUN_LOG_DATABASE"),
        (vendor_error("FailedPrecondition"), "firestore.indexes.json"),
    ],
    ids=["NotFound", "FailedPrecondition"],
)
async def test_what_is_not_deployed_is_named(
    service: WatchedService, watch: Watch, name: str, error: Exception, advice: str
) -> None:
    """A query where the database or an index is missing says what to create."""
    watch.before[name] = [error]
    query = QUERIES["get_run" if name == "batch_get_documents" else "list_runs"]

    with pytest.raises(ConfigurationError, match=advice):
        await query(service)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_nobody_at_the_port(
    monkeypatch: pytest.MonkeyPatch,
    watch: Watch,
    operation: Callable[[FirestoreRunLogService], Awaitable[object]],
) -> None:
    """Where nobody listens, each operation ends in bounded time with where it went and what to do."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # it listens not, and nobody else can
        host = f"127.0.0.1:{holder.getsockname()[1]}"
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", host)
        service = WatchedService(watch, Patience(seconds=0.1))

        with pytest.raises(StoreUnavailableError, match=rf"{host}.*is it up and reachable\?"):
            await operation(service)

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


@pytest.mark.usefixtures("no_environment")
def test_no_credentials() -> None:
    """Without credentials and emulator the service is not made, and the error says how to get either."""
    with pytest.raises(ConfigurationError, match=r"gcloud auth application-default login.*EMULATOR_HOST"):
        FirestoreRunLogService(project="p")


@pytest.mark.usefixtures("no_environment")
def test_no_project_for_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a project for the emulator the service is not made, and the error says what to set."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")

    with pytest.raises(ConfigurationError, match="set GOOGLE_CLOUD_PROJECT"):
        FirestoreRunLogService()


@pytest.mark.usefixtures("no_environment")
def test_credentials_without_a_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where neither the environment nor the credentials name a project, the error says what to set."""
    credentials = tmp_path / "credentials.json"
    credentials.write_text(
        '{"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}'
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match="set GOOGLE_CLOUD_PROJECT"):
        FirestoreRunLogService()
