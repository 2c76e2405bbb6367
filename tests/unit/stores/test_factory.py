"""Back ends by name: known ones are made, unknown ones are errors, never a silent fallback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

import run_log.stores
from run_log.core import ConfigurationError, Settings
from run_log.producer import PubSubRunLogService
from run_log.stores import (
    FirestoreRunLogService,
    InMemoryRunLogService,
    RunLog,
    RunLogService,
    SQLiteRunLogService,
    create_run_log_service,
    get_run_log_service,
    reset_run_log_service,
)
from run_log.stores.firestore import create_service
from run_log.stores.sqlite import create_service as create_sqlite
from run_log.testing import a_run

VARIABLES = (
    "RUN_LOG_BACKEND",
    "RUN_LOG_ROOT_COLLECTION",
    "RUN_LOG_DATABASE",
    "RUN_LOG_SQLITE_PATH",
    "GCLOUD_PROJECT",
)


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Set an environment with emulators that nobody calls; forget the process's service around each test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    reset_run_log_service()
    yield monkeypatch
    reset_run_log_service()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("memory", InMemoryRunLogService),
        ("firestore", FirestoreRunLogService),
        ("pubsub", PubSubRunLogService),
        ("sqlite", SQLiteRunLogService),
    ],
)
async def test_back_ends_have_names(environ: pytest.MonkeyPatch, name: str, kind: type) -> None:
    """Each back end is made by its name, given or set in the environment."""
    named = create_run_log_service(name)
    environ.setenv("RUN_LOG_BACKEND", name)
    chosen = create_run_log_service()

    assert [kind, kind] == [type(named), type(chosen)]
    for service in (named, chosen):
        await cast("RunLogService", service).close()


@pytest.mark.parametrize("name", ["Memory", "firestor", " ", "redis"])
def test_an_unknown_name_is_an_error(environ: pytest.MonkeyPatch, name: str) -> None:
    """An unknown name, given or set in the environment, is an error that lists the known ones."""
    known = "the known ones are firestore, memory, pubsub, sqlite"

    with pytest.raises(ConfigurationError, match=known):
        create_run_log_service(name)

    environ.setenv("RUN_LOG_BACKEND", name)
    with pytest.raises(ConfigurationError, match=f"{name!r}.*{known}"):
        create_run_log_service()


def test_only_none_means_the_default() -> None:
    """Where nothing is set, the run log is in memory; an empty name that is given is an error."""
    assert type(create_run_log_service()) is InMemoryRunLogService
    with pytest.raises(ConfigurationError, match="no back end"):
        create_run_log_service("")


def test_the_process_has_one_service() -> None:
    """The process's service is made once, and anew after a reset."""
    first, again = get_run_log_service(), get_run_log_service()
    reset_run_log_service()

    assert first is again
    assert first is not get_run_log_service()


def test_an_error_is_not_kept(environ: pytest.MonkeyPatch) -> None:
    """Where the environment was wrong, the next call tries again."""
    environ.setenv("RUN_LOG_BACKEND", "redis")
    with pytest.raises(ConfigurationError):
        get_run_log_service()

    environ.setenv("RUN_LOG_BACKEND", "memory")

    assert type(get_run_log_service()) is InMemoryRunLogService


def test_firestore_is_where_the_settings_say(environ: pytest.MonkeyPatch) -> None:
    """The Firestore service takes project, database and root collection from the settings."""
    environ.setenv("RUN_LOG_ROOT_COLLECTION", "runs_2")
    environ.setenv("RUN_LOG_DATABASE", "db")
    expected = "FirestoreRunLogService(project='p', database='db', root_collection='runs_2')"

    services = [FirestoreRunLogService.from_env(), create_service(Settings.from_env())]

    assert [expected] * 2 == [repr(service) for service in services]


def test_sqlite_is_where_the_settings_say(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The SQLite service takes its file from the settings, by default one in the directory of the moment."""
    environ.chdir(tmp_path)
    named = [SQLiteRunLogService.from_env()]
    environ.setenv("RUN_LOG_SQLITE_PATH", str(tmp_path / "elsewhere" / "runs"))
    named += [SQLiteRunLogService.from_env(), create_sqlite(Settings.from_env())]

    expected = [tmp_path / "run-log.sqlite3", *[tmp_path / "elsewhere" / "runs"] * 2]
    assert [f"SQLiteRunLogService(path={str(path)!r})" for path in expected] == list(map(repr, named))
    assert [] == list(tmp_path.iterdir())


def test_a_misspelt_setting_is_an_error(environ: pytest.MonkeyPatch) -> None:
    """A misspelt setting is an error that says which was meant."""
    environ.setenv("RUN_LOG_BACKENDS", "firestore")

    with pytest.raises(ConfigurationError, match=r"did you mean RUN_LOG_BACKEND\?"):
        create_run_log_service()


def test_the_package_has_no_other_names() -> None:
    """An attribute that is not there is the usual error."""
    with pytest.raises(AttributeError, match="no attribute 'RedisRunLogService'"):
        _ = run_log.stores.RedisRunLogService


@pytest.mark.parametrize("make", [create_run_log_service, InMemoryRunLogService.from_env])
async def test_fields_that_become_labels(make: Callable[[], RunLog], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment names of a platform's own runs is kept as labels, however a run log is made."""
    monkeypatch.setenv("RUN_LOG_LABEL_FIELDS", "tenant")
    log = make()

    await log.save_run({**dict(a_run(workflow_id="w", id="r")), "tenant": "acme"})
    run = await log.get_run("w", "r")
    await log.close()

    assert run is not None
    assert {"tenant": "acme"} == run.labels
