"""``run-log dead-letters`` as operators run it: exit codes, signals, kills, and the emulators behind."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.processes import started

from run_log.core import DeadLetterReason, Message, RunStatus, Settings, encode_event
from run_log.projector.google_cloud import pull
from run_log.pubsub import PubSubConnection
from run_log.stores import FirestoreRunLogService
from run_log.testing import an_event

from .command_line import Ended, asked, called, ended, projecting

pytestmark = pytest.mark.emulator

PATIENCE = "90"
"""Seconds for which letters are looked for that have to be there: it ends when they are found."""

QUIET = "4"
"""Seconds after which nothing more is looked for, where nobody says how much there is."""

NOTHING = "1"
"""The same, where nothing is there to be found."""

JUNK = Message(data=b"\x1b[2J no json", attributes={"from": "elsewhere"})
MANY = 300


@pytest.fixture
def settings(provisioned: Settings) -> Settings:
    """Return the settings of a project that has its topics and subscriptions."""
    return provisioned


def publish(settings: Settings, *messages: Message) -> None:
    """Publish *messages* to the event topic."""
    _publish(settings, settings.topic, messages)


def dead_letter(
    settings: Settings,
    *messages: Message,
    reason: DeadLetterReason = DeadLetterReason.TOO_MANY_DELIVERIES,
    original_id: str = "m-17",
) -> list[str]:
    """Keep *messages* as a projector does; return the letters' ids."""
    ours = {"run-log-reason": reason.value, "run-log-error": "why", "run-log-message-id": original_id}
    letters = [Message(data=message.data, attributes={**message.attributes, **ours}) for message in messages]
    return _publish(settings, settings.dead_letter_topic, letters)


def _publish(settings: Settings, topic: str, messages: Any) -> list[str]:
    connection = PubSubConnection.from_settings(settings)
    with connection.publisher() as publisher:
        answer = publisher.publish(
            topic=connection.topic_path(topic),
            messages=[{"data": message.data, "attributes": dict(message.attributes)} for message in messages],
        )
    return [str(message_id) for message_id in answer.message_ids]


def letters(*arguments: str) -> tuple[int | None, Any, str]:
    """Run a command of dead letters; return its exit code, its JSON and what it told besides."""
    done = called("dead-letters", *arguments, "-o", "json")
    return done.code, json.loads(done.out) if done.out else None, done.err


def total() -> int:
    """Return how many runs the stats count."""
    return asked(lambda store: store.get_stats("workflow-1"))["total"]


async def has_one_run(store: FirestoreRunLogService) -> None:
    """Wait until the stats count a run."""
    async with asyncio.timeout(90):
        while not (await store.get_stats("workflow-1"))["total"]:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


def test_from_poison_to_the_projection(settings: Settings, tmp_path: Path) -> None:
    """What a projector dead-letters is listed, shown, repaired and re-driven until queries see its run."""
    event = an_event(id="mended")
    poison = Message(data=encode_event(event).data.replace(b'"event_id"', b'"event"'))
    repaired, saved = tmp_path / "repaired.json", tmp_path / "saved.jsonl"
    with projecting():
        publish(settings, poison, JUNK)
        listed = letters("list", "--limit", "2", "--wait", PATIENCE)
        ids = {letter["reason"]: letter["message_id"] for letter in listed[1]["dead_letters"]}
        found = letters("show", ids["invalid_event"], "--wait", PATIENCE)
        body = found[1]["body"]
        repaired.write_text(json.dumps({**body, "event_id": body.pop("event")}))

        unmended = letters("redrive", *ids.values(), "--wait", PATIENCE)
        mended = letters("redrive", ids["invalid_event"], "--body", str(repaired), "--wait", PATIENCE)
        asked(has_one_run)
        thrown = letters("discard", ids["undecodable"], "--into", str(saved), "--wait", PATIENCE)
        gone = letters("list", "--wait", NOTHING)

    assert {"invalid_event", "undecodable"} == set(ids)
    assert [0, 0, 1, 0, 0, 0] == [one[0] for one in (listed, found, unmended, mended, thrown, gone)]
    assert ("workflow-1", "mended") == (found[1]["workflow_id"], found[1]["run_id"])
    assert ["kept", "kept"] == [letter["outcome"] for letter in unmended[1]["dead_letters"]]
    assert "2 kept" in unmended[2]
    assert event.run == asked(lambda store: store.get_run(*event.key))
    assert {"total": 1, "successful": 1} == asked(lambda store: store.get_stats("workflow-1"))
    (record,) = [json.loads(line) for line in saved.read_text().splitlines()]
    assert (JUNK.data, JUNK.attributes) == (base64.b64decode(record["data_base64"]), record["attributes"])
    assert [] == gone[1]["dead_letters"]


def test_listing(settings: Settings) -> None:
    """A listing is a table or a line a letter, by reason, workflow and time, and changes nothing."""
    (junk,) = dead_letter(settings, JUNK, reason=DeadLetterReason.UNDECODABLE)
    in_v, in_w = dead_letter(
        settings, *(encode_event(an_event(workflow_id=workflow, id="r")) for workflow in ("v", "w"))
    )
    calls = {
        "table": ["--limit", "3"],
        "lines": ["--limit", "3", "-o", "jsonl"],
        "reason": ["--limit", "1", "--reason", "undecodable", "--since", "1h", "-o", "jsonl"],
        "workflow": ["--limit", "1", "--workflow", "w", "-o", "jsonl"],
    }

    done = {
        name: called("dead-letters", "list", "--wait", PATIENCE, *arguments)
        for name, arguments in calls.items()
    }
    before = called("dead-letters", "list", "--until", "1h", "--wait", NOTHING)

    assert {0} == {one.code for one in (*done.values(), before)}
    assert all(message_id in done["table"].out for message_id in (junk, in_v, in_w))
    assert "3 shown, and there may be more" in done["table"].err
    lines = [json.loads(line) for line in done["lines"].out.splitlines()]
    assert {junk, in_v, in_w} == {line["message_id"] for line in lines}
    assert [junk] == [json.loads(line)["message_id"] for line in done["reason"].out.splitlines()]
    assert [in_w] == [json.loads(line)["message_id"] for line in done["workflow"].out.splitlines()]
    assert ("", "no dead letters\n") == (before.out, before.err)


def test_showing(settings: Settings) -> None:
    """A letter is shown with all that there is to it, by its id or by that of the message that it was."""
    (junk,) = dead_letter(settings, JUNK, reason=DeadLetterReason.UNDECODABLE)
    (other,) = dead_letter(settings, JUNK, original_id="m-4711")

    shown = called("dead-letters", "show", junk, "--wait", PATIENCE)
    by_log = letters("show", "m-4711", "--wait", QUIET)
    missing = called("dead-letters", "show", "not-there", "--wait", NOTHING)

    assert (0, other, "m-4711") == (by_log[0], by_log[1]["message_id"], by_log[1]["original_message_id"])
    assert (0, "") == (shown.code, shown.err)
    assert all(text in shown.out for text in (junk, "from = elsewhere", r"\x1b[2J no json", "undecodable"))
    assert "\x1b" not in shown.out
    assert (3, "") == (missing.code, missing.out)
    assert "there is no dead letter 'not-there'" in missing.err


def test_redriving_by_workflow(settings: Settings) -> None:
    """What a filter chooses is re-driven after a dry run has told so; the rest is still there."""
    events = [an_event(id=str(number), status=RunStatus.SUCCESS) for number in range(3)]
    dead_letter(settings, *map(encode_event, events))
    (other,) = dead_letter(settings, encode_event(an_event(workflow_id="other")))
    (expired,) = dead_letter(settings, encode_event(an_event(id="old")), reason=DeadLetterReason.EXPIRED)
    choice = ["redrive", "--workflow", "workflow-1", "--wait", QUIET]

    dry = letters(*choice, "--dry-run")
    done = letters(*choice)
    asyncio.run(pull(settings, stop=asyncio.Event(), until_idle=1))
    left = letters("list", "--limit", "2", "--wait", PATIENCE)

    for code, document, told in (dry, done):
        outcomes = [letter["outcome"] for letter in document["dead_letters"]]
        assert (1, ["kept", "redriven", "redriven", "redriven"]) == (code, sorted(outcomes))
        assert "1 kept, 3 redriven" in told
    assert {"total": 3, "successful": 3} == asked(lambda store: store.get_stats("workflow-1"))
    assert {other, expired} == {letter["message_id"] for letter in left[1]["dead_letters"]}


def test_discarding_by_reason(settings: Settings, tmp_path: Path) -> None:
    """A dry run saves and changes nothing; then what the filter chooses is gone, and the rest is there."""
    dead_letter(settings, JUNK, JUNK, reason=DeadLetterReason.UNDECODABLE)
    (other,) = dead_letter(settings, JUNK)
    choice = ["discard", "--reason", "undecodable", "--into", str(tmp_path / "saved"), "--wait", QUIET]

    dry = letters(*choice, "--dry-run")
    is_saved = (tmp_path / "saved").exists()
    done = letters(*choice)
    left = letters("list", "--limit", "1", "--wait", PATIENCE)

    assert [(0, 2), (0, 2)] == [(code, len(document["dead_letters"])) for code, document, _ in (dry, done)]
    assert not is_saved
    assert 2 == len((tmp_path / "saved").read_text().splitlines())
    assert [other] == [letter["message_id"] for letter in left[1]["dead_letters"]]


def test_discarding_all(settings: Settings) -> None:
    """Where nobody can be asked, all are discarded only with ``--yes``; what is named and missing exits 3."""
    named, *_ = dead_letter(settings, JUNK, JUNK, JUNK)

    refused = called("dead-letters", "discard", "--all", "--wait", QUIET)
    one = letters("discard", named, "not-there", "--wait", QUIET)
    rest = letters("discard", "--all", "--yes", "--wait", QUIET)

    assert (2, "", True) == (refused.code, refused.out, "pass --yes too" in refused.err)
    assert (3, ["discarded"]) == (one[0], [each["outcome"] for each in one[1]["dead_letters"]])
    assert "there is no dead letter 'not-there'" in one[2]
    assert (0, ["discarded"] * 2) == (rest[0], [each["outcome"] for each in rest[1]["dead_letters"]])


def test_a_repair_that_is_no_event(settings: Settings, tmp_path: Path) -> None:
    """A repaired body that is no event exits 2 and says why; the letter is still there."""
    (junk,) = dead_letter(settings, JUNK)
    (tmp_path / "body").write_text("[]")

    refused = called("dead-letters", "redrive", junk, "--body", str(tmp_path / "body"), "--wait", PATIENCE)
    shown = letters("show", junk, "--wait", PATIENCE)

    assert (2, "") == (refused.code, refused.out)
    assert "the file in --body is not an event: the body is a JSON list" in refused.err
    assert 0 == shown[0]


async def _stopped(number: signal.Signals) -> tuple[str, Ended]:
    """Have *number* end a command as soon as it has listed a letter; return its id and how it ended."""
    async with started("dead-letters", "list", "--all", "--wait", "600", "-o", "jsonl") as listing:
        assert listing.stdout is not None
        async with asyncio.timeout(60):
            line = await listing.stdout.readline()
        listing.send_signal(number)
        return json.loads(line)["message_id"], await ended(listing)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_letters_back(settings: Settings, number: signal.Signals) -> None:
    """Ended by a signal, a command gives back what it has leased: the next one finds it at once."""
    (junk,) = dead_letter(settings, JUNK)

    listed, stopped = asyncio.run(_stopped(number))
    shown = letters("show", junk, "--wait", "30")

    assert junk == listed
    assert 130 == stopped.code
    assert (0, junk) == (shown[0], shown[1]["message_id"])


async def _killed() -> int | None:
    """Kill a re-drive as soon as it has re-driven a letter; return its exit code."""
    async with started("dead-letters", "redrive", "--all", "-o", "jsonl", "--wait", PATIENCE) as first:
        assert first.stdout is not None
        async with asyncio.timeout(60):
            await first.stdout.readline()
        first.kill()
        await first.communicate()
        return first.returncode


# What was leased to the killed one comes again after a lease, which is 10 s at least.
def test_a_killed_redrive(settings: Settings) -> None:
    """Killed at any moment, a re-drive is gone on with by the next; each run is there, and counts once."""
    _shorten_leases(settings)
    events = [an_event(id=f"{number:03}", status=RunStatus.SUCCESS) for number in range(MANY)]
    dead_letter(settings, *map(encode_event, events))

    codes: set[int | None] = set()
    with projecting():
        killed = asyncio.run(_killed())
        until = time.monotonic() + 240
        while total() < MANY and time.monotonic() < until:
            # Longer than a lease: what the killed one, or a pull that was given up, still has comes then.
            codes.add(called("dead-letters", "redrive", "--all", "--wait", "15").code)

    assert -signal.SIGKILL == killed
    assert {0} >= codes
    assert {"total": MANY, "successful": MANY} == asked(lambda store: store.get_stats("workflow-1"))


def _shorten_leases(settings: Settings) -> None:
    """Have what is leased and not extended come again soon."""
    connection = PubSubConnection.from_settings(settings)
    with connection.subscriber() as subscriber:
        for name in (settings.subscription, settings.dead_letter_topic):
            subscriber.update_subscription(
                subscription={"name": connection.subscription_path(name), "ack_deadline_seconds": 10},
                update_mask={"paths": ["ack_deadline_seconds"]},
            )


@pytest.mark.usefixtures("emulator_environment")
@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "1"], ["redrive", "--all"], ["discard", "--all"]], ids=" ".join
)
def test_what_is_not_provisioned(arguments: list[str]) -> None:
    """Without a subscription for dead letters each command exits 4, and says how to make one."""
    tried = called("dead-letters", *arguments)

    assert (4, "") == (tried.code, tried.out)
    assert "subscriptions/run-log-dead-letters is not there; run `run-log provision`" in tried.err
