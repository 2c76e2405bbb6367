"""Every command with no extra installed: it works, or one line says what to install."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from run_log.core.install import how_to_install

from .processes import run_python

pytestmark = pytest.mark.process

# One process for all of a back end's: it is what takes long.
WITHOUT_EXTRAS = """
import contextlib, io, json, sys, traceback

NAMES = "fastapi fastavro fsspec google grpc jinja2 redis requests sqlalchemy starlette tenacity uvicorn"
EXTRAS = set(NAMES.split())

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from run_log.console import main

found = {}
for command in json.loads(sys.argv[1]):
    sys.argv = ["run-log", *command.split()]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            code = traceback.format_exc()
    found[command] = code, out.getvalue(), err.getvalue()
print(json.dumps(found))
"""

QUERIES = [
    "runs list w",
    "runs list --failed",
    "runs count w",
    "runs failures",
    "runs show w r",
    "runs history w r",
    "runs stats w",
    "runs pending",
    "runs watch w r --timeout 0",
    "workflows",
    "verify",
    "sweep --older-than 1h",
]
SAVES = ["emit w --run r --status paused", "runs resume w r --by ann", "sweep --older-than 1h --mark"]
OTHERS = {
    "dashboard": "dashboard",
    "openlineage": "openlineage",
    "provision": "producer",
    "import celery sqlite:///results.db": "import",
    "import celery redis://localhost": "import",
    "import airflow sqlite:///airflow.db": "import",
    "import root old_runs": "stores",
    "archive --into folder": "producer",
    "dead-letters list": "projector",
    "dead-letters show 1": "projector",
    "dead-letters redrive --all": "projector",
    "dead-letters discard --all": "projector",
    "projector pull": "projector",
    "projector push": "projector",
}
DOCTOR = "doctor -o json"


BACKENDS = {"firestore": "stores", "pubsub": "producer"}
"""The extra that a back end needs to save."""

Found = dict[str, tuple[object, str, str]]


def ended(folder: Path, backend: str, *commands: str) -> Found:
    """Return exit code, stdout and stderr of each command; a traceback in the code's place is a fault."""
    child = run_python(WITHOUT_EXTRAS, json.dumps(commands), folder=folder, RUN_LOG_BACKEND=backend)
    assert "" == child.err
    found: Found = json.loads(child.out)
    return found


def extras(backend: str) -> dict[str, str]:
    """Return which extra each command needs; with an unknown back end none gets so far."""
    if backend not in BACKENDS:
        return {}
    return {**dict.fromkeys(QUERIES, "stores"), **dict.fromkeys(SAVES, BACKENDS[backend]), **OTHERS}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where commands ran that cannot work."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def without(home: Path) -> Callable[[str], Found]:
    """Return what returns how each command ends with a back end; its process runs once."""

    @cache
    def found(backend: str) -> Found:
        return ended(home, backend, *extras(backend), DOCTOR)

    return found


def test_sqlite_needs_none(tmp_path: Path) -> None:
    """With the back end sqlite every command that is not about Pub/Sub works with no extra installed."""
    found = ended(
        tmp_path, "sqlite", SAVES[0], *QUERIES, *SAVES[1:], "schema export", DOCTOR, *OTHERS, "demo"
    )

    codes = {command: code for command, (code, _, _) in found.items()}
    assert {
        **dict.fromkeys([*QUERIES, *SAVES, "schema export", DOCTOR, "demo"], 0),
        **dict.fromkeys(OTHERS, 2),
        "runs watch w r --timeout 0": 5,
    } == codes


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_needs_one_says_which(home: Path, without: Callable[[str], Found], backend: str) -> None:
    """What cannot work with no extra installed exits 2, with one line that ends with what to do."""
    needed = extras(backend)

    found = {command: how for command, how in without(backend).items() if command != DOCTOR}

    expected = {command: (2, "", how_to_install(extra)) for command, extra in needed.items()}
    told = {
        command: (code, out, err.removesuffix("\n")[-len(how_to_install(needed[command])) :])
        for command, (code, out, err) in found.items()
    }
    assert expected == told
    assert {1} == {len(err.splitlines()) for _, _, err in found.values()}
    assert [] == list(home.iterdir())


@pytest.mark.parametrize("backend", [*BACKENDS, "redis"])
def test_the_doctor_finds_it(without: Callable[[str], Found], backend: str) -> None:
    """The doctor finds what is not installed, or no back end at all, and says what to do."""
    code, out, err = without(backend)[DOCTOR]

    last = json.loads(out)["checks"][-1]
    assert (1, "", "wrong") == (code, err, last["verdict"])
    if backend == "redis":
        assert ("settings", True) == (last["check"], "known ones are firestore, memory" in last["found"])
    else:
        assert ("installation", how_to_install("projector")) == (last["check"], last["remedy"])
