"""The page about OpenLineage says what the receiver does."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from tests.adapters.openlineage.kit import an_event, client_of, tags
from tests.frameworks import framework
from tests.tokens import ACCOUNT, AUDIENCE, key_pair, signed_token

from run_log.adapters.openlineage import create_app
from run_log.adapters.openlineage.access import Authenticate, GoogleTokens
from run_log.adapters.openlineage.bodies import MAX_BODY_BYTES
from run_log.adapters.openlineage.events import STATUSES, told_by
from run_log.adapters.openlineage.recorder import DELIVERY_SECONDS, READ_SECONDS
from run_log.console.app import app
from run_log.core import RunStatus, utc_now
from run_log.http.serving import serving
from run_log.http.tokens import Certificates
from run_log.producer import RunEventEmitter, reset_default_emitter
from run_log.producer._store_transport import StoreTransport
from run_log.stores import InMemoryRunLogService, get_run_log_service, reset_run_log_service

from .repository import blocks, codes, one_line, read, run_example, section, table

OPENLINEAGE = read("docs/openlineage.md")
SEND, TOKEN, MOUNT = blocks(OPENLINEAGE, "python")
RECEIVE, ADDRESS, CONFIGURED = blocks(OPENLINEAGE, "sh")


def test_the_command() -> None:
    """The command that the page begins with is one, and listens where the client is pointed to."""
    (line,) = [line for line in RECEIVE.splitlines() if "run-log" in line]
    _, program, *words = line.split()
    command: Any = typer.main.get_command(app)
    context = command.commands[words[0]].make_context("openlineage", words[1:])

    assert "run-log" == program
    assert f"export OPENLINEAGE_URL=http://{context.params['host']}:{context.params['port']}\n" == ADDRESS


def test_the_statuses() -> None:
    """The table of the mapping has each type of event with its status."""
    rows = {tuple(codes(row[0])): codes(row[1]) for row in table(OPENLINEAGE, "of the event")}
    ended = dict(zip(("COMPLETE", "FAIL", "ABORT"), rows["COMPLETE", "FAIL", "ABORT"], strict=True))
    running = rows["START", "RUNNING"][0]

    assert STATUSES == {"START": running, "RUNNING": running, **ended}


def test_the_limits_are_true() -> None:
    """The numbers in the text are those of the code, and the client waits longer than they take together."""
    text = one_line(OPENLINEAGE)

    assert f"not delivered within {DELIVERY_SECONDS:g} s" in text
    assert f"more than {MAX_BODY_BYTES // 2**20} MiB, unpacked" in text
    assert DELIVERY_SECONDS + READ_SECONDS < 5


def test_tags() -> None:
    """A tag's key becomes what a label's key can be, as the table says."""
    told = told_by(an_event(tags=tags(**{"Cost Center": "eu"})), utc_now())

    assert told is not None
    assert {"cost_center": "eu"} == told.labels


@asynccontextmanager
async def _served(auth: Authenticate | str) -> AsyncGenerator[tuple[str, InMemoryRunLogService]]:
    log = InMemoryRunLogService()
    emitter = RunEventEmitter(StoreTransport(lambda: log))
    try:
        async with serving(create_app(log, emitter=emitter, auth=auth), host="127.0.0.1", port=0) as port:
            yield f"http://127.0.0.1:{port}", log
    finally:
        emitter.close(0)


@pytest.mark.process
async def test_the_program() -> None:
    """The program of the page sends a run with the official client as it stands."""
    client = framework("openlineage")
    client.make()
    async with _served("none") as (address, log):
        done = await asyncio.to_thread(client.run, "-c", SEND, environ={"OPENLINEAGE_URL": address})
        (run,), _ = await log.list_runs("warehouse/orders.load")

    assert (0, RunStatus.SUCCESS) == (done.returncode, run.status), done.stderr


@pytest.mark.process
async def test_the_token(tmp_path: Path) -> None:
    """The class of the page gets tokens of Google's for the client that is configured as the page says."""
    client = framework("openlineage")
    client.make()
    (tmp_path / "google_token.py").write_text(TOKEN)
    asked: list[int] = []
    google = FastAPI()

    @google.post("/token")
    async def token() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction] - the app has it
        asked.append(1)
        return {"id_token": signed_token()}

    certificates = Certificates(lambda: ({"a": key_pair("a")[1]}, 3_600.0))
    auth = GoogleTokens(audience=AUDIENCE, accounts={ACCOUNT}, certificates=certificates)
    async with serving(google, host="127.0.0.1", port=0) as port, _served(auth) as (address, log):
        account = tmp_path / "account.json"
        account.write_text(json.dumps(_account(f"http://127.0.0.1:{port}/token")))
        (word,) = shlex.split(CONFIGURED)[1:]
        name, _, config = word.partition("=")
        environ = {
            name: json.dumps({**json.loads(config), "url": address}),
            "GOOGLE_APPLICATION_CREDENTIALS": str(account),
        }
        program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{SEND}"
        done = await asyncio.to_thread(client.run, "-c", program, environ=environ)
        runs, _ = await log.list_runs("warehouse/orders.load")

    assert 0 == done.returncode, done.stderr
    assert [RunStatus.SUCCESS] == [run.status for run in runs]
    assert [1] == asked


def _account(token_uri: str) -> dict[str, str]:
    """Return the key file of a service account whose tokens come from *token_uri*."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k",
        "private_key": key.decode(),
        "client_email": ACCOUNT,
        "client_id": "1",
        "token_uri": token_uri,
    }


async def test_mounted() -> None:
    """The app of the page takes events below its path of whoever has the platform's key."""
    reset_default_emitter()
    reset_run_log_service()
    names: dict[str, Any] = {}
    await run_example(MOUNT, names)
    url = "/lineage/api/v1/lineage"
    async with client_of(names["app"], "203.0.113.9") as client:
        refused = await client.post(url, json=an_event())
        taken = await client.post(url, json=an_event(), headers={"authorization": "Bearer of your platform"})
    run = await get_run_log_service().get_run("n/j", "r")
    await asyncio.to_thread(reset_default_emitter)
    reset_run_log_service()

    assert (401, 200) == (refused.status_code, taken.status_code)
    assert run is not None


def test_what_it_costs() -> None:
    """The page says what measures its figures."""
    assert "python -m tests.benchmarks openlineage" in one_line(section(OPENLINEAGE, "## What it costs"))
