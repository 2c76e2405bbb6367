"""What anybody wrote, in every command: nothing of it commands the terminal, or makes a line of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from run_log.console.app import app
from run_log.core import (
    DeadLetterReason,
    PauseRequest,
    RunRef,
    RunStatus,
    Settings,
    Step,
    StepStatus,
    utc_now,
)
from run_log.pubsub import PubSubConnection
from run_log.stores import SQLiteRunLogService
from run_log.testing import a_run, an_event

from .command_line import Ended, called

FORGED: Final = "FORGED all is well"
SHOWN: Final = "é字😀"
"""What is nobody's command, and stays as it is."""
ODD: Final = (
    f"a\x1b[2J\x1b]0;t\x07\r\n{FORGED}\x0b{FORGED}\x0c{FORGED}\x1c{FORGED}\x85{FORGED}\u2028{FORGED}\u2029{FORGED}\r"
    "\u202eb\u2066c\u200bd\u200ee\ufefff\x9b2J\x7f\u061cg\U000e0041h\u3164i\u034fj\ufe01k\U000e0100\ud83d\udc80"
) + SHOWN
"""What terminals obey, take for the end of a line, or do not show."""
NAME: Final = ODD.replace("\ud83d", "").replace("/", "")
"""The same, as far as a file, an argument or a variable may have it."""
HERE: Final = "runs.db"

Arguments = tuple[str, ...]
READ: Final[dict[str, list[Arguments]]] = {
    "demo": [()],
    "workflows": [(), ("--after", NAME)],
    "emit": [(NAME, "--run", NAME, "--error", NAME, "--status", "failed"), (NAME, "--data", NAME)],
    "provision": [()],
    "doctor": [()],
    "sweep": [
        ("--older-than", "1s"),
        ("--older-than", NAME),
        ("--older-than", "1s", "--workflow", NAME, "--mark"),
    ],
    "verify": [(), (NAME,), ("--against", NAME), ("--against", "other.db"), ("--repair",)],
    "rebuild": [
        ("--from", NAME, "--into", NAME),
        ("--from", f"archive:{NAME}", "--into", "new.db"),
        ("--from", "archive:archive", "--into", f"{NAME}.db"),
    ],
    "archive": [("--into", NAME, "--subscription", NAME)],
    "runs list": [
        (ODD,),
        (ODD, "--wide"),
        (NAME, "--after", NAME),
        (NAME, "--status", NAME),
        (NAME, "--since", NAME),
        ("--label", NAME),
        ("--label", f"team={NAME}", "--parent", NAME, NAME),
        ("--failed", "--error-type", NAME),
    ],
    "runs count": [(), (ODD,), (NAME, "--label", NAME), ("--parent", ODD, ODD), ("--error-type", ODD)],
    "runs failures": [(), (ODD,), ("--wide",), ("--since", NAME)],
    "runs show": [(ODD, ODD), (ODD, "paused"), (NAME, NAME)],
    "runs steps": [(ODD, ODD), (ODD, "paused"), (NAME, NAME)],
    "runs cancel": [(ODD, "paused", "--by", NAME, "--reason", NAME), (NAME, NAME, "--by", NAME)],
    "runs history": [(ODD, ODD), (ODD, "paused"), (NAME, NAME)],
    "runs watch": [(ODD, ODD), (ODD, "paused", "--timeout", "0.1"), (NAME, NAME), (NAME, "--cursor", NAME)],
    "runs stats": [(ODD,), (NAME, "--window", NAME)],
    "runs pending": [(), ("--assignee", ODD), ("--after", NAME)],
    "runs resume": [(ODD, "paused", "--by", NAME, "--comment", NAME), (NAME, NAME, "--by", NAME)],
    "runs reject": [(ODD, "paused", "--by", NAME, "--comment", NAME), (NAME, NAME, "--by", NAME)],
    "projector pull": [(), ("--until-idle", NAME), ("--health-port", "1", "--health-host", NAME)],
    "projector push": [(), ("--host", NAME)],
    "import csv": [(NAME,), (f"archive/{NAME}.jsonl", "--dry-run"), (HERE, "--map", f"id={NAME}")],
    "import jsonl": [
        (f"archive/{NAME}.jsonl", "--set", f"workflow_id={NAME}", "--rejects", "r"),
        (f"archive/{NAME}.jsonl", "--status", f"{NAME}=success", "--zone", NAME),
    ],
    "import celery": [(NAME,), (f"sqlite:///{NAME}",)],
    "import airflow": [(NAME,), (f"sqlite:///{HERE}", "--dry-run")],
    "import root": [(NAME, "--dry-run")],
    "openlineage": [("--host", NAME), ("--port", NAME)],
    # At no address of this machine it ends at once.
    "dashboard": [
        ("--host", NAME),
        ("--port", NAME),
        ("--root-path", NAME, "--host", NAME),
    ],
    "dead-letters list": [("--reason", NAME), ("--since", NAME)],
    "dead-letters show": [(NAME,)],
    "dead-letters redrive": [(NAME,), (NAME, "--body", NAME)],
    "dead-letters discard": [(NAME,), ("--all",), (NAME, "--into", f"{NAME}/{NAME}")],
    "schema export": [(), ("--into", NAME), ("--into", f"{NAME}/{NAME}")],
}
"""Every command, with what has it show something of anybody's."""


def commands(group: Any, path: Arguments = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command there is, by its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS: Final = dict(commands(typer.main.get_command(app)))


Call = Callable[..., Ended]


@pytest.fixture(params=[False, True], ids=["piped", "terminal"])
def call(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Return what runs a command in a folder of its own."""
    for name, value in {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80" if request.param else ""}.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Ended:
        ended = called(*arguments, folder=tmp_path, is_terminal=request.param)
        # Progress goes back to the beginning of its own line.
        return replace(ended, err=ended.err.replace("\r", "\n")) if request.param else ended

    return call


def prepare(folder: Path) -> None:
    """Save runs of which everything is odd, one with counts that are wrong, and an archive with odd lines."""

    async def save(path: Path, *, error: str) -> None:
        service = SQLiteRunLogService(path=path)
        odd: dict[str, Any] = {"trigger_data": {ODD: ODD}, "result": {ODD: [ODD]}}
        odd |= {"labels": {"odd": ODD}, "parent": RunRef(ODD, ODD), "error_type": ODD}
        step = Step(
            key="k",
            name=ODD,
            status=StepStatus.FAILED,
            started_at=utc_now(),
            error=ODD,
            attributes={ODD: ODD},
            version=1,
        )
        await service.apply(
            [
                an_event(
                    a_run(id=ODD, workflow_id=ODD, status=RunStatus.FAILED, error=error, **odd)
                ).model_copy(update={"steps": (step,)}),
                an_event(
                    a_run(
                        id="paused",
                        workflow_id=ODD,
                        status=RunStatus.PAUSED,
                        pause=PauseRequest(reason=ODD, assignee=ODD),
                        **odd,
                    )
                ),
            ]
        )
        await service.close()

    asyncio.run(save(folder / HERE, error=f"{ODD}\n{ODD}"))
    asyncio.run(save(folder / "other.db", error="another"))
    (folder / "archive").mkdir()
    (folder / "archive" / f"{NAME}.jsonl").write_text(f"{json.dumps({'type': ODD})}\n{{\n", encoding="utf-8")


def faults(ended: Ended) -> list[str]:
    """Return the lines of which a terminal shows something else than what stands there."""
    lines = [*ended.out.split("\n"), *ended.err.split("\n")]
    unseen = set("\u3164\u034f\ufe01\U000e0100")
    return [
        line
        for line in lines
        if not line.isprintable() or unseen & {*line} or line.strip().startswith("FORGED")
    ]


# The demo looks from another process at what it has left.
TRIED: Final = [
    pytest.param(command, marks=pytest.mark.process) if command == "demo" else command for command in READ
]


def test_no_command_is_forgotten() -> None:
    """Each command that there is is tried."""
    assert set(COMMANDS) == set(READ)


@pytest.mark.parametrize("command", TRIED)
def test_what_anybody_wrote_is_literal(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Nothing that anybody wrote commands a terminal, whatever command shows it."""
    prepare(tmp_path)
    for name, value in _environment(HERE).items():
        monkeypatch.setenv(name, value)
    odd = [("--nothing", NAME), (f"--{NAME}",), (NAME,) * 9]
    ways = [*READ[command], *odd]

    ended = {way: call(*command.split(), *way) for way in ways}
    documents = [
        call(*command.split(), *way, "-o", output)
        for way in READ[command]
        for output in ("json", "jsonl")
        if any("-o" in option.opts for option in COMMANDS[command].params)
    ]

    assert {} == {way: found for way, one in ended.items() if (found := faults(one))}
    assert [] == [found for one in documents if (found := faults(one))]
    for document in documents:
        # Values as they are: JSON has its own escapes.
        texts = [document.out] if document.out.startswith("{\n") else document.out.splitlines()
        assert all(json.loads(text) for text in texts)


@pytest.mark.parametrize("command", TRIED)
def test_what_stands_in_the_environment_is_literal(
    call: Call, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Settings that are odd, misspelt or lead nowhere are told in lines of our own."""
    backends = [] if command == "demo" else ["sqlite", "pubsub", NAME]
    found: dict[str, list[str]] = {}
    for backend in backends:
        for name, value in {**_environment(NAME), "RUN_LOG_BACKEND": backend}.items():
            monkeypatch.setenv(name, value)
        found[backend] = faults(call(*command.split(), *READ[command][0]))
    monkeypatch.setenv(f"RUN_LOG_{NAME}", NAME)
    found["misspelt"] = faults(call(*command.split(), *READ[command][0]))

    assert [] == [lines for lines in found.values() if lines]


def _environment(path: str) -> Mapping[str, str]:
    return {
        "RUN_LOG_BACKEND": "sqlite",
        "RUN_LOG_SQLITE_PATH": path,
        "RUN_LOG_SUBSCRIPTION": NAME,
        "RUN_LOG_TOPIC": NAME,
        "RUN_LOG_DEAD_LETTER_TOPIC": NAME,
        "RUN_LOG_ROOT_COLLECTION": NAME,
        "RUN_LOG_DATABASE": NAME,
        "GOOGLE_CLOUD_PROJECT": NAME,
        "PUBSUB_EMULATOR_HOST": "127.0.0.1:1",
        "FIRESTORE_EMULATOR_HOST": "127.0.0.1:1",
    }


def test_what_is_nobodys_command_stays(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters of any script and emoji are shown as they are, beside escapes."""
    prepare(tmp_path)
    monkeypatch.setenv("RUN_LOG_BACKEND", "sqlite")
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", HERE)

    shown = [call("runs", "list", ODD), call("runs", "show", ODD, ODD), call("runs", "pending")]

    assert all(SHOWN in ended.out and r"\x1b[2J" in ended.out for ended in shown)


@pytest.mark.emulator
def test_dead_letters_are_literal(call: Call, provisioned: Settings) -> None:
    """Whatever a dead letter has, be it in its attributes or its body, commands no terminal."""
    connection = PubSubConnection.from_settings(provisioned)
    text = ODD.replace("\ud83d", "").replace("\udc80", "")
    attributes = {
        "run-log-reason": DeadLetterReason.INVALID_EVENT.value,
        "run-log-error": text,
        "run-log-message-id": text,
        text: text,
    }
    bodies = [text.encode() + b"\xff", json.dumps({"run": {"id": ODD, "workflow_id": ODD}}).encode()]
    with connection.publisher() as publisher:
        messages = [{"data": body, "attributes": attributes} for body in bodies]
        topic = connection.topic_path(provisioned.dead_letter_topic)
        ids = list(publisher.publish(topic=topic, messages=messages).message_ids)

    ended = [
        call("dead-letters", "list", "--wait", "2"),
        *(call("dead-letters", "show", message_id, "--wait", "30") for message_id in ids),
        call("dead-letters", "redrive", *ids, "--dry-run", "--wait", "30"),
        call("dead-letters", "redrive", *ids, "--wait", "30"),
        call("dead-letters", "discard", *ids, "--wait", "30"),
    ]

    assert [] == [lines for one in ended if (lines := faults(one))]
    assert all(SHOWN in one.out for one in ended[:3])
