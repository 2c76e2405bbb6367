"""``run-log dead-letters`` as operators run it: processes, exit codes, signals, and the emulators behind."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.processes import started

from run_log.core import DeadLetterReason, Message, RunStatus, Settings, encode_event
from run_log.projector.google_cloud import pull
from run_log.pubsub import PubSubConnection
from run_log.stores import FirestoreRunLogService
from run_log.testing import an_event

from .command_line import ended, run_log

pytestmark = pytest.mark.emulator

PATIENCE = "90"
"""Seconds for which letters are looked for that have to be there: it ends when they are found."""

QUIET = "5"
"""Seconds after which nothing more is looked for, where nobody says how much there is."""

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


async def letters(*arguments: str) -> tuple[int | None, Any, str]:
    """Run a command of dead letters; return its exit code, its JSON and what it told besides."""
    done = await run_log("dead-letters", *arguments, "-o", "json")
    return done.code, json.loads(done.out) if done.out else None, done.err


async def has_total(store: FirestoreRunLogService, total: int) -> None:
    """Wait until the stats count so many runs."""
    async with asyncio.timeout(90):
        while (await store.get_stats("workflow-1"))["total"] < total:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


async def test_from_poison_to_the_projection(
    settings: Settings, store: FirestoreRunLogService, tmp_path: Path
) -> None:
    """What a projector dead-letters is listed, shown, repaired and re-driven until queries see its run."""
    event = an_event(id="mended")
    poison = Message(data=encode_event(event).data.replace(b'"event_id"', b'"event"'))
    repaired, saved = tmp_path / "repaired.json", tmp_path / "saved.jsonl"
    async with started("projector", "pull") as projector:
        publish(settings, poison, JUNK)
        listed = await letters("list", "--limit", "2", "--wait", PATIENCE)
        ids = {letter["reason"]: letter["message_id"] for letter in listed[1]["dead_letters"]}
        found = await letters("show", ids["invalid_event"], "--wait", PATIENCE)
        body = found[1]["body"]
        repaired.write_text(json.dumps({**body, "event_id": body.pop("event")}))

        unmended = await letters("redrive", *ids.values(), "--wait", PATIENCE)
        mended = await letters("redrive", ids["invalid_event"], "--body", str(repaired), "--wait", PATIENCE)
        await has_total(store, 1)
        thrown = await letters("discard", ids["undecodable"], "--into", str(saved), "--wait", PATIENCE)
        gone = await letters("list", "--wait", QUIET)

        projector.send_signal(signal.SIGTERM)
        stopped = await ended(projector)

    assert {"invalid_event", "undecodable"} == set(ids)
    assert [0, 0, 1, 0, 0, 0, 0] == [
        listed[0], found[0], unmended[0], mended[0], thrown[0], gone[0], stopped.code
    ]  # fmt: skip
    assert ("workflow-1", "mended") == (found[1]["workflow_id"], found[1]["run_id"])
    assert ["kept", "kept"] == [letter["outcome"] for letter in unmended[1]["dead_letters"]]
    assert "2 kept" in unmended[2]
    assert event.run == await store.get_run(*event.key)
    assert {"total": 1, "successful": 1} == await store.get_stats("workflow-1")
    (record,) = [json.loads(line) for line in saved.read_text().splitlines()]
    assert (JUNK.data, JUNK.attributes) == (base64.b64decode(record["data_base64"]), record["attributes"])
    assert [] == gone[1]["dead_letters"]


async def test_listing(settings: Settings) -> None:
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
        name: await run_log("dead-letters", "list", "--wait", PATIENCE, *arguments)
        for name, arguments in calls.items()
    }
    before = await run_log("dead-letters", "list", "--until", "1h", "--wait", QUIET)

    assert {0} == {one.code for one in (*done.values(), before)}
    assert all(message_id in done["table"].out for message_id in (junk, in_v, in_w))
    assert "3 shown, and there may be more" in done["table"].err
    lines = [json.loads(line) for line in done["lines"].out.splitlines()]
    assert {junk, in_v, in_w} == {line["message_id"] for line in lines}
    assert [junk] == [json.loads(line)["message_id"] for line in done["reason"].out.splitlines()]
    assert [in_w] == [json.loads(line)["message_id"] for line in done["workflow"].out.splitlines()]
    assert ("", "no dead letters\n") == (before.out, before.err)


async def test_showing(settings: Settings) -> None:
    """A letter is shown with all that there is to it, and nothing in it commands the terminal."""
    (junk,) = dead_letter(settings, JUNK, reason=DeadLetterReason.UNDECODABLE)

    shown = await run_log("dead-letters", "show", junk, "--wait", PATIENCE)
    missing = await run_log("dead-letters", "show", "not-there", "--wait", QUIET)

    assert (0, "") == (shown.code, shown.err)
    assert all(text in shown.out for text in (junk, "from = elsewhere", r"\x1b[2J no json", "undecodable"))
    assert "\x1b" not in shown.out
    assert (3, "") == (missing.code, missing.out)
    assert "there is no dead letter 'not-there'" in missing.err


async def test_redriving_by_workflow(settings: Settings, store: FirestoreRunLogService) -> None:
    """What a filter chooses is re-driven after a dry run has told so; the rest is still there."""
    events = [an_event(id=str(number), status=RunStatus.SUCCESS) for number in range(3)]
    dead_letter(settings, *map(encode_event, events))
    (other,) = dead_letter(settings, encode_event(an_event(workflow_id="other")))
    (expired,) = dead_letter(settings, encode_event(an_event(id="old")), reason=DeadLetterReason.EXPIRED)
    choice = ["redrive", "--workflow", "workflow-1", "--wait", QUIET]

    dry = await letters(*choice, "--dry-run")
    done = await letters(*choice)
    await pull(settings, stop=asyncio.Event(), until_idle=1)
    left = await letters("list", "--limit", "2", "--wait", PATIENCE)

    for code, document, told in (dry, done):
        outcomes = [letter["outcome"] for letter in document["dead_letters"]]
        assert (1, ["kept", "redriven", "redriven", "redriven"]) == (code, sorted(outcomes))
        assert "1 kept, 3 redriven" in told
    assert {"total": 3, "successful": 3} == await store.get_stats("workflow-1")
    assert {other, expired} == {letter["message_id"] for letter in left[1]["dead_letters"]}


async def test_one_of_those_named_is_missing(settings: Settings) -> None:
    """What is there of what is named is dealt with; the exit code says that one is not."""
    (junk,) = dead_letter(settings, JUNK)

    done = await letters("discard", junk, "not-there", "--wait", QUIET)

    assert (3, ["discarded"]) == (done[0], [one["outcome"] for one in done[1]["dead_letters"]])
    assert "there is no dead letter 'not-there'" in done[2]


async def test_discarding_by_reason(settings: Settings, tmp_path: Path) -> None:
    """A dry run saves and changes nothing; then what the filter chooses is gone, and the rest is there."""
    dead_letter(settings, JUNK, JUNK, reason=DeadLetterReason.UNDECODABLE)
    (other,) = dead_letter(settings, JUNK)
    choice = ["discard", "--reason", "undecodable", "--into", str(tmp_path / "saved"), "--wait", QUIET]

    dry = await letters(*choice, "--dry-run")
    is_saved = (tmp_path / "saved").exists()
    done = await letters(*choice)
    left = await letters("list", "--limit", "1", "--wait", PATIENCE)

    assert [(0, 2), (0, 2)] == [(code, len(document["dead_letters"])) for code, document, _ in (dry, done)]
    assert not is_saved
    assert 2 == len((tmp_path / "saved").read_text().splitlines())
    assert [other] == [letter["message_id"] for letter in left[1]["dead_letters"]]


async def test_discarding_all(settings: Settings) -> None:
    """Where nobody can be asked, all are discarded only with ``--yes``."""
    dead_letter(settings, JUNK, JUNK)

    refused = await run_log("dead-letters", "discard", "--all", "--wait", QUIET)
    done = await letters("discard", "--all", "--yes", "--wait", QUIET)

    assert (2, "", True) == (refused.code, refused.out, "pass --yes too" in refused.err)
    assert (0, ["discarded"] * 2) == (done[0], [one["outcome"] for one in done[1]["dead_letters"]])


async def test_a_letter_by_the_id_that_logs_have(settings: Settings) -> None:
    """A letter is shown by the id of the message that it was."""
    dead_letter(settings, JUNK)
    (other,) = dead_letter(settings, JUNK, original_id="m-4711")

    shown = await letters("show", "m-4711", "--wait", QUIET)

    assert (0, other, "m-4711") == (shown[0], shown[1]["message_id"], shown[1]["original_message_id"])


async def test_a_repair_that_is_no_event(settings: Settings, tmp_path: Path) -> None:
    """A repaired body that is no event exits 2 and says why; the letter is still there."""
    (junk,) = dead_letter(settings, JUNK)
    (tmp_path / "body").write_text("[]")

    refused = await run_log(
        "dead-letters", "redrive", junk, "--body", str(tmp_path / "body"), "--wait", PATIENCE
    )
    shown = await letters("show", junk, "--wait", PATIENCE)

    assert (2, "") == (refused.code, refused.out)
    assert "the file in --body is not an event: the body is a JSON list" in refused.err
    assert 0 == shown[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_gives_letters_back(settings: Settings, number: signal.Signals) -> None:
    """Ended by a signal, a command gives back what it has leased: the next one finds it at once."""
    (junk,) = dead_letter(settings, JUNK)
    async with started("dead-letters", "list", "--all", "--wait", "600", "-o", "jsonl") as listing:
        assert listing.stdout is not None
        async with asyncio.timeout(60):
            line = await listing.stdout.readline()
        listing.send_signal(number)
        stopped = await ended(listing)

    shown = await letters("show", junk, "--wait", "30")

    assert junk == json.loads(line)["message_id"]
    assert 130 == stopped.code
    assert (0, junk) == (shown[0], shown[1]["message_id"])


async def test_a_killed_redrive(settings: Settings, store: FirestoreRunLogService) -> None:
    """Killed at any moment, a re-drive is gone on with by the next; each run is there, and counts once."""
    _shorten_leases(settings)
    events = [an_event(id=f"{number:03}", status=RunStatus.SUCCESS) for number in range(MANY)]
    dead_letter(settings, *map(encode_event, events))

    async with started("projector", "pull") as projector:
        async with started("dead-letters", "redrive", "--all", "-o", "jsonl", "--wait", PATIENCE) as first:
            assert first.stdout is not None
            async with asyncio.timeout(60):
                await first.stdout.readline()
            first.kill()
            await first.communicate()
        codes: set[int | None] = set()
        async with asyncio.timeout(240):
            while (await store.get_stats("workflow-1"))["total"] < MANY:
                # Longer than a lease: what the killed one, or a pull that was given up, still has comes then.
                codes.add((await run_log("dead-letters", "redrive", "--all", "--wait", "15")).code)
        projector.send_signal(signal.SIGTERM)
        await ended(projector)

    assert -signal.SIGKILL == first.returncode
    assert {0} >= codes
    assert {"total": MANY, "successful": MANY} == await store.get_stats("workflow-1")


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
async def test_what_is_not_provisioned(arguments: list[str]) -> None:
    """Without a subscription for dead letters each command exits 4, and says how to make one."""
    tried = await run_log("dead-letters", *arguments)

    assert (4, "") == (tried.code, tried.out)
    assert "subscriptions/run-log-dead-letters is not there; run `run-log provision`" in tried.err
