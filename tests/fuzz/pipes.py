"""Messages sent through all that decodes them: a pull worker, the push endpoint, an archive, dead letters."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from google.pubsub_v1 import PubsubMessage

from run_log.core import DeadLetterReason, EventDecodeError, Message, ReceivedMessage, decode_event
from run_log.core.wire import message_fault
from run_log.projector import GroupCommit, Projector, PullLimits, PullWorker
from run_log.projector.archive.writer import _line  # pyright: ignore[reportPrivateUsage] - one of the readers
from run_log.projector.beam.steps import read_events
from run_log.projector.dead_letters.letters import DeadLetter
from run_log.projector.pubsub import PubSubDeadLetters
from run_log.projector.push.app import create_push_app
from run_log.pubsub import PubSubConnection
from run_log.stores import InMemoryRunLogService
from run_log.testing import InMemoryTopic

from .bodies import Bodies, Body, envelope

CHUNK: Final = 500
"""Messages that are published together."""

AT_ONCE: Final = 50
"""Push requests under way at a time."""

QUICK: Final = PullLimits(pulls=2, pull_seconds=0.01, stop_seconds=0.01)
MAX_ERROR_BYTES: Final = 2_000
MAX_SHOWN: Final = 500

EVENT: Final = "event"


class FuzzFailedError(AssertionError):
    """Something else came of a body than an event or a dead letter."""


class Letterbox(PubSubConnection):
    """Takes dead letters as Pub/Sub would: what has the vendor's own form, and keeps its limits."""

    def __init__(self) -> None:
        self.project = "fuzz"
        self.letters: list[Message] = []

    def async_publisher(self) -> Any:
        """See `PubSubConnection`."""
        return self

    async def publish(self, *, messages: Sequence[Any], **_options: Any) -> None:
        """See Pub/Sub's own client."""
        for each in messages:
            made: Any = PubsubMessage(each)
            letter = Message(data=made.data, attributes=dict(made.attributes))
            # Google's publishers write attributes that begin so.
            own = {name: value for name, value in letter.attributes.items() if not name.startswith("goog")}
            if fault := message_fault(Message(data=letter.data, attributes=own)):
                raise FuzzFailedError(f"a dead letter cannot be published: {fault}")
            self.letters.append(letter)

    def reasons(self) -> Counter[str]:
        """Return how many there are for each reason; each can be shown, and is still no event."""
        found = Counter[str]()
        for letter in self.letters:
            shown = DeadLetter.from_message(
                ReceivedMessage(data=letter.data, attributes=letter.attributes, message_id="1", ack_id="1")
            )
            json.dumps(shown.body)
            found[shown.reason] += 1
        return found


def run_bodies(
    numbers: Iterable[int], *, seed: int, count: int, decode: Callable[[Message], object] = decode_event
) -> Counter[str]:
    """Send the messages with these *numbers* through everything; return what came of them, by kind.

    Raises:
        FuzzFailedError: Something came of one that is neither an event nor a dead letter.
    """
    bodies = Bodies(seed=seed, count=count)
    counts = Counter[str]()
    chunk: list[tuple[int, Body]] = []
    for number in numbers:
        chunk.append((number, bodies(number)))
        if len(chunk) == CHUNK:
            counts += _run_chunk(chunk, seed, decode)
            chunk = []
    if chunk:
        counts += _run_chunk(chunk, seed, decode)
    return counts


def _run_chunk(
    chunk: Sequence[tuple[int, Body]], seed: int, decode: Callable[[Message], object]
) -> Counter[str]:
    counts = Counter[str]()
    expected, kept = Counter[str](), Counter[str]()
    for number, body in chunk:
        became = _decoded(body, f"body {number} of seed {seed}", decode)
        expected[became] += 1
        # A message without a body states nothing: an archive leaves it out.
        kept[became] += bool(body.message.data.strip())
        counts[f"{body.kind}: {became}"] += 1
    messages = [body.message for _, body in chunk]
    where = f"bodies {chunk[0][0]} to {chunk[-1][0]} of seed {seed}"
    try:
        pulled = asyncio.run(_pulled(messages))
        asyncio.run(_pushed(messages, random.Random(f"{where}, pushed")))
        archived = _archived(messages)
    except Exception as error:
        raise FuzzFailedError(f"{where}: {error!r}") from error
    if pulled != expected:
        raise FuzzFailedError(f"{where}: pulled {dict(pulled)}, decoded {dict(expected)}")
    if archived != +kept:
        raise FuzzFailedError(f"{where}: archived {dict(archived)}, decoded {dict(kept)}")
    counts += Counter({f"(all, archived): {what}": number for what, number in archived.items()})
    return counts + Counter({f"(all, pulled): {what}": number for what, number in pulled.items()})


def _decoded(body: Body, where: str, decode: Callable[[Message], object]) -> str:
    """Return what *body* is: an event, or the reason why it is none."""
    try:
        decode(body.message)
    except EventDecodeError as error:
        if len(str(error).encode()) > MAX_ERROR_BYTES:
            raise FuzzFailedError(f"{where} ({body.kind}): the error is too long") from error
        return DeadLetterReason(error.reason).value
    except Exception as error:
        shown = body.message.data[:MAX_SHOWN]
        raise FuzzFailedError(f"{where} ({body.kind}): {error!r} of {shown!r}") from error
    return EVENT


async def _pulled(messages: Sequence[Message]) -> Counter[str]:
    """Return what a pull worker makes of *messages*."""
    topic, box = InMemoryTopic(), Letterbox()
    subscription = topic.subscribe()
    topic.publish(messages)
    projector = Projector(InMemoryRunLogService())
    worker = PullWorker(subscription, projector, PubSubDeadLetters(box, "letters"), limits=QUICK)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop=stop))
    while subscription.backlog and not running.done():  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.001)
    stop.set()
    report = await running
    applied = Counter({EVENT: sum(report.outcomes.values())})
    return +(applied + box.reasons())


async def _pushed(messages: Sequence[Message], chance: random.Random) -> None:
    """Push *messages*, in an envelope or without, and see that each is answered as done with."""
    letters = PubSubDeadLetters(box := Letterbox(), "letters")
    group = GroupCommit(Projector(InMemoryRunLogService()), letters)
    app = create_push_app(group, _let_in)
    for start in range(0, len(messages), AT_ONCE):
        some = messages[start : start + AT_ONCE]
        statuses = await asyncio.gather(*(_posted(app, *_request(chance, message)) for message in some))
        for message, status in zip(some, statuses, strict=True):
            if status != 204:
                raise FuzzFailedError(f"answered {status}: {message.data[:MAX_SHOWN]!r}")
    box.reasons()


def _request(chance: random.Random, message: Message) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return body and headers of a request that pushes *message*."""
    if chance.random() < 0.6:
        return envelope(chance, message), []
    headers = [
        (name.encode("latin-1", "ignore"), value.encode("latin-1", "ignore"))
        for name, value in message.attributes.items()
    ]
    if chance.random() < 0.5:
        headers.append((b"x-goog-pubsub-message-id", b"7"))
    return message.data, headers


async def _posted(app: Any, body: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


async def _let_in(_authorization: str | None) -> None:
    """Let in everybody."""


def _archived(messages: Sequence[Message]) -> Counter[str]:
    """Return what an archive of *messages* holds, as a pipeline reads it."""
    received = [
        ReceivedMessage(data=m.data, attributes=m.attributes, message_id="1", ack_id="1") for m in messages
    ]
    file = io.BytesIO(b"".join(map(_line, received)))
    found = Counter[str]()
    for read in read_events("archive", file):
        found[json.loads(read)["reason"] if isinstance(read, str) else EVENT] += 1
    return found
