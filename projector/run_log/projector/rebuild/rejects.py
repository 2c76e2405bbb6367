"""What a rebuild cannot project: a file of it, each with where it was and why it is there."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from run_log.core import ConfigurationError, DeadLetterReason, ReceivedMessage, TransportUnavailableError
from run_log.stores.files import open_private


def reject_line(
    place: str,
    *,
    reason: DeadLetterReason,
    error: str,
    body: bytes,
    attributes: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the line that says what was rejected, where it was and why.

    Args:
        place: Where: the file and the number in it, or the run's ids.
        reason: Why, for programs.
        error: Why, for people.
        body: The message's.
        attributes: The message's, where the archive has them.
    """
    record: dict[str, Any] = {"place": place, "reason": reason.value, "error": error}
    if attributes:
        record["attributes"] = dict(attributes)
    try:
        record["body"] = body.decode()
    except UnicodeDecodeError:
        record["body_base64"] = base64.b64encode(body).decode()
    return json.dumps(record)


class RejectsFile:
    """Keeps rejects in a file, one JSON object a line, each once. See `DeadLetters`.

    Args:
        path: The file; made when the first one comes, for its owner only.
        goes_on: Whether it may hold what the same rebuild rejected before it was interrupted.

    Raises:
        ConfigurationError: It is there although it may not be, is no such file, or cannot be read.
    """

    def __init__(self, path: Path, *, goes_on: bool) -> None:
        self.path: Final = path
        self._known: set[tuple[str, str]] = set()
        try:
            if not path.exists():
                return
            if not goes_on and path.stat().st_size:
                raise ConfigurationError(
                    f"{path} holds what another rebuild rejected; move it away, or pass another --rejects"
                )
            self._known = _places(path)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read ({error})") from error

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._known)

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """See `DeadLetters.put`."""
        self.add(
            message.message_id, reason=reason, error=error, body=message.data, attributes=message.attributes
        )

    def add(
        self,
        place: str,
        *,
        reason: DeadLetterReason,
        error: str,
        body: bytes,
        attributes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Keep one that was at *place*, unless it is kept already; durable when this returns.

        Raises:
            TransportUnavailableError: It cannot be written now.
        """
        if (place, reason.value) in self._known:
            return
        line = reject_line(place, reason=reason, error=error, body=body, attributes=attributes)
        try:
            with open(self.path, "ab", opener=open_private) as file:
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as failure:
            raise TransportUnavailableError(f"{self.path} cannot be written ({failure})") from failure
        self._known.add((place, reason.value))


def _places(path: Path) -> set[tuple[str, str]]:
    """Return what a file of rejects holds; a last line that is cut off is taken away."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        records = [json.loads(line) for line in whole.splitlines()]
        places = {(str(record["place"]), str(record["reason"])) for record in records}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is no file of rejects; pass another one as --rejects") from error
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return places
