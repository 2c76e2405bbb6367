import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from tests.ports import unused_port

from run_log.testing import FirestoreEmulator, PubSubEmulator

pytestmark = pytest.mark.emulator

Kind = type[FirestoreEmulator | PubSubEmulator]


@pytest.fixture(params=[FirestoreEmulator, PubSubEmulator])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return each kind of emulator that can be started here."""
    kind: Kind = request.param
    request.getfixturevalue("firestore_emulator" if kind is FirestoreEmulator else "pubsub_emulator")
    if kind.host_variable in os.environ:
        pytest.skip(f"{kind.host_variable} is set: one that runs already is used, and none is started")
    return kind


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Yield a port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


def test_workers_share_one_pair(
    request: pytest.FixtureRequest, firestore_emulator: FirestoreEmulator, pubsub_emulator: PubSubEmulator
) -> None:
    """Where tests run in several processes, all of these use the emulators that were started before them."""
    worker: Mapping[str, Any] | None = getattr(request.config, "workerinput", None)
    if worker is None:
        pytest.skip("the tests run in one process")

    assert worker["emulators"] == {**firestore_emulator.environment, **pubsub_emulator.environment}


def test_a_real_emulator_starts_and_ends(kind: Kind) -> None:
    """Within the block Google's emulator answers; afterwards its process is gone."""
    with kind() as emulator:
        pid = emulator.pid
        status, answer = request(emulator.host, "GET", "/")

    assert (HTTPStatus.OK, b"Ok") == (status, answer.strip())
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
def test_a_real_emulator_leaves_nothing_behind(kind: Kind) -> None:
    """The folder Google's emulator works in is gone when it has ended, with all that Java put there."""
    with kind() as emulator:
        home = Path(f"/proc/{emulator.pid}/cwd").resolve()
        there = home.is_dir()

    assert there
    assert not home.exists()


def test_a_real_emulator_gives_up_a_taken_port(kind: Kind, taken_port: int) -> None:
    """Google's emulators are noticed when their port is taken, even the one that goes on without it."""
    proposed: list[int] = []

    def choose_port() -> int:
        proposed.append(taken_port if not proposed else unused_port())
        return proposed[-1]

    with kind(choose_port=choose_port) as emulator:
        host = emulator.host

    assert taken_port == proposed[0]
    assert f"127.0.0.1:{proposed[-1]}" == host


def test_clearing_deletes_the_documents_of_one_project(
    firestore_emulator: FirestoreEmulator, emulator_project: str
) -> None:
    """Clearing a project empties it, and leaves every other project as it is."""
    projects = [emulator_project, f"{emulator_project}-b"]
    for project in projects:
        status, _ = request(firestore_emulator.host, "POST", documents(project), {"fields": {}})
        assert HTTPStatus.OK == status

    firestore_emulator.clear(emulator_project)

    answers = [json.loads(request(firestore_emulator.host, "GET", documents(each))[1]) for each in projects]
    assert [0, 1] == [len(answer.get("documents", [])) for answer in answers]
    firestore_emulator.clear(projects[1])


def test_clients_are_pointed_at_the_emulators(
    emulator_environment: Mapping[str, str],
    firestore_emulator: FirestoreEmulator,
    pubsub_emulator: PubSubEmulator,
    emulator_project: str,
) -> None:
    """The environment names both emulators and the test's own project, and is set for the test."""
    expected = {
        "FIRESTORE_EMULATOR_HOST": firestore_emulator.host,
        "PUBSUB_EMULATOR_HOST": pubsub_emulator.host,
        "GOOGLE_CLOUD_PROJECT": emulator_project,
    }

    assert expected == emulator_environment
    assert expected == {name: os.environ.get(name) for name in expected}


def documents(project: str) -> str:
    """Return the path of a collection of the project."""
    return f"/v1/projects/{project}/databases/(default)/documents/things"


def request(host: str, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    """Return the status and the body that *host* answers with."""
    with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body))
        with connection.getresponse() as response:
            return response.status, response.read()
