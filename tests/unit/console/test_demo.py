from __future__ import annotations

from pathlib import Path

import pytest

from run_log.console.work import demo as demo_module
from run_log.stores import InMemoryRunLogService

from .processes import run_log, run_python

pytestmark = pytest.mark.process

CLOSING = "Stats equal a recount of the runs."


class _Miscounting(InMemoryRunLogService):
    """A run log that counts one run too many."""

    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        stats = await super().get_stats(workflow_id)
        return {**stats, "total": stats["total"] + 1}


def test_what_the_demo_shows(tmp_path: Path) -> None:
    """The demo shows runs, counts, the inbox, a history and what another process finds; it leaves no file."""
    demo = run_log("demo", folder=tmp_path, COLUMNS="80")

    runs = ("invoice-1", "invoice-2", "invoice-3", "mail-1", "mail-2", "expense-1", "expense-2")
    assert (0, "", []) == (demo.code, demo.err, list(tmp_path.iterdir()))
    assert all(shown in demo.out for shown in (*runs, "emitted 16 events, delivered 16", "TimeoutError"))
    assert max(map(len, demo.out.splitlines())) <= 80
    counts, rest = demo.out.split("Workflows")[1].split("Waiting for an answer")
    inbox, history = rest.split("History of expense-1")
    assert {("invoices/sync", "3", "3"), ("mails/triage", "2", "1"), ("expenses/pay", "2", "1")} == {
        tuple(line.split()[:3]) for line in counts.splitlines() if "/" in line
    }
    assert [True, True, False] == [one in inbox for one in ("mei@example.com", "expense-2", "expense-1")]
    statuses = [word for word in history.split() if word in {"running", "paused", "success"}]
    assert ["running", "paused", "running", "success"] == statuses
    assert [
        "another process finds 2 runs of expenses/pay, 1 successful",
        "another process finds 3 runs of invoices/sync, 3 successful",
        "another process finds 2 runs of mails/triage, 1 successful",
        CLOSING,
    ] == demo.out.splitlines()[-4:]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("InMemoryRunLogService", _Miscounting, "Stats differ from a recount of the runs!"),
        ("READ_AGAIN", "", "Another process does not find the same runs!"),
    ],
)
def test_a_demo_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: object, told: str
) -> None:
    """Where stats differ from a recount, or another process does not find them, the demo exits 1."""
    monkeypatch.setattr(demo_module, name, value)

    demo = run_log("demo", folder=tmp_path)

    assert (1, "") == (demo.code, demo.err)
    assert told in demo.out


def test_the_demo_needs_no_network(tmp_path: Path) -> None:
    """The demo opens no connection and loads no Google library, also where the environment names both."""
    ended = run_python(
        "import socket, sys\n"
        "def refuse(*arguments):\n"
        "    raise AssertionError(f'a connection to {arguments}')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
        "from run_log.console import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    loaded = [name for name in sys.modules if name.split('.')[0] in ('google', 'grpc')]\n"
        "    print(loaded, file=sys.stderr)\n",
        "demo",
        folder=tmp_path,
        RUN_LOG_BACKEND="pubsub",
        PUBSUB_EMULATOR_HOST="127.0.0.1:1",
    )

    assert (0, "[]\n") == (ended.code, ended.err)
    assert CLOSING == ended.out.splitlines()[-1]
