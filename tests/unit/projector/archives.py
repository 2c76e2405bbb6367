"""Archives made by hand: lines, compressed lines, and what a Cloud Storage subscription writes."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from run_log.core import DeadLetterReason, Message, ReceivedMessage, RunEvent, encode_event
from run_log.projector.archive import ArchiveFile, find_files
from run_log.projector.archive.reading import ArchivePosition
from run_log.projector.archive.source import ArchiveSource

SCHEMA: Final = {
    "type": "record",
    "namespace": "com.google.pubsub",
    "name": "PubsubMessageWithMetadata",
    "fields": [
        {"name": "subscription_name", "type": "string"},
        {"name": "message_id", "type": "string"},
        {"name": "publish_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "attributes", "type": {"type": "map", "values": "string"}},
        {"name": "data", "type": "bytes"},
    ],
}
"""Of the files that a Cloud Storage subscription writes with ``write_metadata``
(https://cloud.google.com/pubsub/docs/create-cloudstorage-subscription)."""


def lines(events: Iterable[RunEvent]) -> bytes:
    """Return *events* as JSON lines."""
    return b"".join(encode_event(event).data + b"\n" for event in events)


def write_avro(path: Path, messages: Sequence[Message], *, codec: str = "null") -> None:
    """Write *messages* as a Cloud Storage subscription does, in blocks of a few records."""
    fastavro: Any = import_module("fastavro")
    records = [
        {
            "subscription_name": "projects/p/subscriptions/archive",
            "message_id": str(number),
            "publish_time": datetime(2026, 3, 4, tzinfo=UTC),
            "attributes": dict(message.attributes),
            "data": message.data,
        }
        for number, message in enumerate(messages)
    ]
    with path.open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(SCHEMA), records, codec=codec, sync_interval=2_000)


def write_gzip(path: Path, content: bytes) -> None:
    """Write *content* compressed."""
    with gzip.open(path, "wb") as file:
        file.write(content)


class Rejects:
    """Keeps what is rejected in memory, after raising the errors it is given."""

    def __init__(self, errors: Iterable[Exception] = ()) -> None:
        self._errors = iter(errors)
        self.kept: list[tuple[str, DeadLetterReason, str]] = []

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """See `DeadLetters.put`."""
        failure = next(self._errors, None)
        if failure is not None:
            raise failure
        self.kept.append((message.message_id, reason, error))


class Opened:
    """A source of an archive, with what it tells."""

    def __init__(
        self,
        files: Sequence[ArchiveFile],
        *,
        done: Iterable[ArchivePosition] = (),
        rejects: Rejects | None = None,
    ) -> None:
        self.places: dict[str, ArchivePosition] = {}
        self.is_finished = False
        self.rejects = rejects or Rejects()
        self.source = ArchiveSource(
            files,
            done={place.file: place for place in done},
            rejects=self.rejects,
            told=lambda places: self.places.update({place.file: place for place in places}),
            finished=self._finish,
        )

    @classmethod
    def at(cls, folder: Path, *, done: Iterable[ArchivePosition] = ()) -> Opened:
        """Return the source of all files of a folder."""
        return cls(find_files(str(folder)), done=done)

    def _finish(self) -> None:
        self.is_finished = True

    async def pull_all(self) -> list[ReceivedMessage]:
        """Pull until nothing is left, without acknowledging anything."""
        messages: list[ReceivedMessage] = []
        while pulled := await self.source.pull(7, wait=0.001):
            messages += pulled
        return messages
