"""Whole processes that lose their runs: what they say of it on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

# What loads slowly is loaded beforehand: the end of a process waits two seconds, and the machine may be busy.
LOAD = "import google.pubsub_v1, run_log.producer._store_transport, run_log.stores.sqlite\n"

RECORD = """
from run_log.producer import record_run
with record_run("w") as run:
    run.set_result({"done": True})
"""

WITHOUT_EXTRA = "import sys; sys.modules['google.pubsub_v1'] = None\n" + RECORD

NO_RUN = "from run_log.producer import default_emitter; default_emitter().emit({'id': 'r'})"

# An emulator's variable that is set to nothing is as unset.
NO_CREDENTIALS = {"GOOGLE_CLOUD_PROJECT": "p", "NO_GCE_CHECK": "true"}

NOBODY = "127.0.0.1:1"

Case = tuple[str, Mapping[str, str], tuple[str, ...]]
"""What a process does, its environment, and what it has to say."""

LOST: Mapping[str, Case] = {
    "misspelt": (RECORD, {"RUN_LOG_BACKEN": "sqlite"}, ("did you mean RUN_LOG_BACKEND?",)),
    "bad value": (RECORD, {"RUN_LOG_BUFFER_EVENTS": "many"}, ("RUN_LOG_BUFFER_EVENTS='many'",)),
    "no such back end": (RECORD, {"RUN_LOG_BACKEND": "redis"}, ("'redis'", "memory, pubsub, sqlite")),
    "no extra": (WITHOUT_EXTRA, {"RUN_LOG_BACKEND": "pubsub"}, ("publishing needs google.pubsub_v1",)),
    "no credentials": (
        LOAD + RECORD,
        {**NO_CREDENTIALS, "RUN_LOG_BACKEND": "pubsub", "PUBSUB_EMULATOR_HOST": ""},
        ("gcloud auth application-default login",),
    ),
    "no credentials for Firestore": (
        "import google.cloud.firestore\n" + RECORD,
        {**NO_CREDENTIALS, "RUN_LOG_BACKEND": "firestore", "FIRESTORE_EMULATOR_HOST": ""},
        ("gcloud auth application-default login",),
    ),
    "no project": (
        LOAD + RECORD,
        {"RUN_LOG_BACKEND": "pubsub", "PUBSUB_EMULATOR_HOST": NOBODY},
        ("set GOOGLE_CLOUD_PROJECT",),
    ),
    "nobody there": (
        LOAD + RECORD,
        {"RUN_LOG_BACKEND": "pubsub", "PUBSUB_EMULATOR_HOST": NOBODY, "GOOGLE_CLOUD_PROJECT": "p"},
        ("2 of their states were not delivered in time", "reachable?", "RUN_LOG_SPOOL_DIR"),
    ),
    "no folder": (
        LOAD + RECORD,
        {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": "/nowhere/runs"},
        ("/nowhere/runs cannot be made", "set RUN_LOG_SQLITE_PATH"),
    ),
    "no run": (NO_RUN, {}, ("a dict is not a run", "emit a WorkflowRun")),
}

KEPT: Mapping[str, Case] = {
    "turned off": (RECORD, {"RUN_LOG_BACKEND": "redis", "RUN_LOG_STDERR_NOTICE": "false"}, ()),
    "recorded": (RECORD, {}, ()),
    "environment of others": (
        RECORD,
        {
            "RUN_LOG_SERVICE_HOST": "10.0.0.11",
            "RUN_LOG_PORT": "tcp://10.0.0.11:80",
            "RUN_LOG_LEVEL": "debug",
            "PUBSUB_EMULATOR_HOST": "",
        },
        (),
    ),
    "trigger": (RECORD.replace('"w"', '"w", trigger_type="cron"'), {}, ()),
}


# More than 10 s: fourteen processes, some of which wait at their end for what cannot be delivered.
@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[int, str, str]]:
    """Return how each process ended, and what it printed."""
    home = tmp_path_factory.mktemp("home")
    cases = {**LOST, **KEPT}
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(partial(_ended, home), cases.values()), strict=True))


def _ended(home: Path, case: Case) -> tuple[int, str, str]:
    script, environment, _ = case
    ours = ("RUN_LOG_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "PUBSUB_", "FIRESTORE_", "K_SERVICE")
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(  # noqa: S603 - this interpreter, a script of the test's own
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=home,
        env={**others, "HOME": str(home), **environment},
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", LOST)
def test_a_loss_is_said(name: str, ended: Mapping[str, tuple[int, str, str]]) -> None:
    """A short program whose runs are lost says so in one line, and why, and ends as it would."""
    code, stdout, stderr = ended[name]

    assert (0, "") == (code, stdout)
    assert 1 == stderr.count("\n")
    assert stderr.startswith("run-log: runs of this process are not recorded: ")
    assert [] == [said for said in LOST[name][2] if said not in stderr]
    assert stderr.endswith(" (said once; RUN_LOG_STDERR_NOTICE=false turns this off)\n")


@pytest.mark.parametrize("name", KEPT)
def test_nothing_is_said(name: str, ended: Mapping[str, tuple[int, str, str]]) -> None:
    """A program that loses nothing, and one that wants to hear nothing, print nothing."""
    assert (0, "", "") == ended[name]
