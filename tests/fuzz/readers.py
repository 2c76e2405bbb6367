"""Each reader of foreign bytes by itself: what it was made for, changed here and there."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import random
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

import fastavro
from tests.tokens import ACCOUNT, AUDIENCE, key_pair, signed_token

from run_log.core import EventDecodeError, Message, ReceivedMessage, decode_event
from run_log.core.errors import PushRefusedError
from run_log.http.tokens import Certificates
from run_log.producer._segment import encode_record, records_in
from run_log.projector.archive import read_records
from run_log.projector.dead_letters.letters import DeadLetter
from run_log.projector.push.app import received_message
from run_log.projector.push.oidc import TokenVerifier

from .bodies import Bodies, envelope, mutated
from .pipes import FuzzFailedError

Read = Callable[[random.Random], str]
"""Makes an input of chance, and reads it; returns what came of it."""

_KEY: Final = "key-1"
_AVRO: Final = {
    "type": "record",
    "name": "PubsubMessage",
    "fields": [
        {"name": "data", "type": "bytes"},
        {"name": "attributes", "type": {"type": "map", "values": "string"}},
    ],
}
_BODIES: Final = 4_000
"""For so many `Bodies` makes its values: each is used many times."""

_SHORTEST_SECRET: Final = 12
"""Characters of a token that no answer repeats."""


def run_reader(name: str, numbers: Iterable[int], *, seed: int) -> Counter[str]:
    """Give one of `READERS` an input for each of *numbers*; return what came of them.

    Raises:
        FuzzFailedError: Something came of one that is neither a value nor an error of ours.
    """
    counts = Counter[str]()
    read = READERS[name](_bodies(seed))
    for number in numbers:
        try:
            became = read(random.Random(f"{name}/{seed}/{number}"))
        except Exception as error:
            raise FuzzFailedError(f"{name} {number} of seed {seed}: {error!r}") from error
        counts[f"({name}): {became}"] += 1
    return counts


@cache
def _bodies(seed: int) -> Bodies:
    return Bodies(seed=seed, count=_BODIES)


def _message(bodies: Bodies) -> Read:
    def read(chance: random.Random) -> str:
        return _event(bodies(chance.randrange(2**40)).message)

    return read


def _push(bodies: Bodies) -> Read:
    def read(chance: random.Random) -> str:
        message = bodies(chance.randrange(2**40)).message
        body = envelope(chance, message)
        headers = {name: value for name, value in message.attributes.items() if chance.random() < 0.5}
        if chance.random() < 0.5:
            body = mutated(chance, body)
        if chance.random() < 0.3:
            headers["x-goog-pubsub-message-id"] = "1"
            headers["x-goog-pubsub-publish-time"] = chance.choice(
                ("", "\ud800", "9" * 5_000, "2026-02-30T25:00Z")
            )
        received = received_message(body, headers)
        DeadLetter.from_message(received)
        return _event(received)

    return read


def _archive(bodies: Bodies) -> Read:
    def read(chance: random.Random) -> str:
        messages = [bodies(chance.randrange(2**40)).message for _ in range(chance.randrange(1, 3))]
        content = chance.choice((_avro, _lines))(messages)
        if chance.random() < 0.8:
            content = mutated(chance, content)
        records = list(read_records(io.BytesIO(content)))
        for record in records:
            if record.fault is None:
                _event(Message(data=record.data, attributes=record.attributes))
        return "damaged" if any(record.fault for record in records) else "records"

    return read


def _avro(messages: Iterable[Message]) -> bytes:
    file = io.BytesIO()
    texts = [
        {
            name.encode(errors="replace").decode(): value.encode(errors="replace").decode()
            for name, value in pairs
        }
        for pairs in (message.attributes.items() for message in messages)
    ]
    records = [{"data": m.data, "attributes": each} for m, each in zip(messages, texts, strict=True)]
    vendor: Any = fastavro  # not annotated
    vendor.writer(file, _AVRO, records, sync_marker=bytes(16))
    return file.getvalue()


def _lines(messages: Iterable[Message]) -> bytes:
    return gzip.compress(b"\n".join(message.data for message in messages), 1, mtime=0)


def _spool(bodies: Bodies) -> Read:
    def read(chance: random.Random) -> str:
        messages = [bodies(chance.randrange(2**40)).message for _ in range(chance.randrange(1, 4))]
        content = b"".join(map(encode_record, messages))
        found = list(records_in(mutated(chance, content) if chance.random() < 0.8 else content))
        keys = {record.event.key for record in found if record.event is not None}
        assert all(type(text) is str for key in keys for text in key)
        return "aside" if any(record.event is None for record in found) else "records"

    return read


def _token(_bodies: Bodies) -> Read:
    certificates = Certificates(lambda: ({_KEY: key_pair(_KEY)[1]}, 3_600.0))
    verifier = TokenVerifier(audience=AUDIENCE, service_account=ACCOUNT, certificates=certificates)
    good = signed_token(key_id=_KEY, signed_by=_KEY)
    loop = asyncio.new_event_loop()

    def read(chance: random.Random) -> str:
        altered = good
        if chance.random() < 0.9:
            parts = altered.split(".")
            number = chance.randrange(len(parts))
            if chance.random() < 0.5:
                parts[number] = mutated(chance, parts[number].encode()).decode("latin-1")
            else:
                raw = base64.urlsafe_b64decode(parts[number] + "=" * (-len(parts[number]) % 4))
                parts[number] = base64.urlsafe_b64encode(mutated(chance, raw)).rstrip(b"=").decode()
            altered = chance.choice((".", ".", ".", "..", "")).join(parts)
        header = chance.choice(("Bearer ", "bearer ", "Bearer  ", "Basic ", "")) + altered
        try:
            loop.run_until_complete(verifier(header))
        except PushRefusedError as error:
            pieces = {header[start : start + _SHORTEST_SECRET] for start in range(0, len(header), 4)}
            told = str(error)
            if any(len(piece) == _SHORTEST_SECRET and piece in told for piece in pieces):
                raise FuzzFailedError(f"the answer repeats a part of {header!r}: {told}") from error
            return f"refused with {error.status}"
        if "." in altered and altered.rpartition(".")[0] != good.rpartition(".")[0]:
            raise FuzzFailedError(f"let in: {header!r}")
        return "let in"

    weakref.finalize(read, loop.close)
    return read


def _event(message: Message | ReceivedMessage) -> str:
    try:
        decode_event(message)
    except EventDecodeError as error:
        json.dumps(str(error))
        return error.reason
    return "event"


READERS: Final[dict[str, Callable[[Bodies], Read]]] = {
    "message": _message,
    "push": _push,
    "archive": _archive,
    "spool": _spool,
    "token": _token,
}
"""What is read, by name; each makes its reader."""
