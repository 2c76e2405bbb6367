"""What a rebuild keeps beside its source and its store: its state, its rejects, and its progress."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final, Self, cast

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    Outcome,
    ReceivedMessage,
    StoreUnavailableError,
    TransportUnavailableError,
)
from run_log.projector.pull import PullWorker
from run_log.stores.files import open_private

try:
    _fcntl: Any = importlib.import_module("fcntl")
except ImportError:  # Windows
    _fcntl = None

FORMAT: Final = 1


@dataclass(slots=True, kw_only=True)
class RebuildState:
    """How far one rebuild has come, from one source into one place. What is noted is on the disk at once.

    Lines are only ever appended; the newest of a kind counts, and a last one that is cut off does not.
    """

    path: Path
    file: BinaryIO
    notes: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """What was noted, by what it is about."""
    is_new: bool = True
    """Whether the rebuild has only just begun."""

    @classmethod
    def open(cls, path: Path, *, source: str, into: str) -> Self:
        """Return the state in a file, which nobody else may use meanwhile; a new one where it is not there.

        Args:
            path: The file.
            source: Where events come from.
            into: Where they go.

        Raises:
            ConfigurationError: It is another rebuild's, is in use, is no state, or cannot be written.
        """
        header = {"rebuild": FORMAT, "from": source, "into": into}
        state = cls(path=path, file=_opened(path))
        try:
            state._read(header)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            state.close()
            raise ConfigurationError(f"{path} is no state of a rebuild; pass another --state") from error
        except ConfigurationError:
            state.close()
            raise
        return state

    def get(self, about: str) -> Mapping[str, Any]:
        """Return what was noted last about something; nothing where nothing was."""
        return self.notes.get(about, {})

    def note(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """Note something about each of some things.

        Raises:
            StoreUnavailableError: It cannot be written.
        """
        for about, fields in notes.items():
            self.notes.setdefault(about, {}).update(fields)
        self._append([{"about": about, **fields} for about, fields in notes.items()])

    def close(self) -> None:
        """Let others use it."""
        self.file.close()

    def _read(self, header: Mapping[str, Any]) -> None:
        self.file.seek(0)
        content = self.file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.file.truncate(len(whole))
        lines = [json.loads(line) for line in whole.splitlines()]
        if not lines:
            self._append([header])
            return
        self.is_new = False
        if lines[0] != header:
            raise ConfigurationError(
                f"{self.path} is the state of a rebuild from {lines[0]['from']} into {lines[0]['into']}, not "
                f"from {header['from']} into {header['into']}; pass another --state, or delete it"
            )
        for line in lines[1:]:
            self.notes.setdefault(line.pop("about"), {}).update(line)

    def _append(self, lines: list[Mapping[str, Any]]) -> None:
        try:
            left = memoryview("".join(f"{json.dumps(line)}\n" for line in lines).encode())
            while left:
                left = left[self.file.write(left) :]
            os.fsync(self.file.fileno())
        except OSError as error:
            raise StoreUnavailableError(f"{self.path} cannot be written ({error})") from error


def _opened(path: Path) -> BinaryIO:
    if _fcntl is None:
        raise ConfigurationError(
            f"{path} cannot be locked on this platform (it has no fcntl); run the rebuild on Linux or macOS"
        )
    try:
        opened = open(path, "a+b", buffering=0, opener=open_private)  # noqa: SIM115 - it is closed with the state
        file = cast("BinaryIO", opened)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error}); pass another --state") from error
    try:
        _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigurationError(f"{path} is in use by another rebuild ({error})") from error
    return file


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


_TOTAL = "total"


class RebuildProgress:
    """How far a rebuild has come: what earlier processes have done of it, and what this one does.

    Args:
        state: The rebuild.
        rejects: What it rejects.
    """

    def __init__(self, state: RebuildState, rejects: Sized) -> None:
        self.earlier = int(state.get(_TOTAL).get("events", 0))
        """Events that earlier processes have folded."""
        self._rejects = rejects
        self._events: Callable[[], int] = lambda: 0
        self._files: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.expired = 0
        """Runs that were given the time at which they expire."""
        self.assumed: Counter[str] = Counter()
        """What this process assumed to read documents that are not run-log's, and of how many."""

    @property
    def folded(self) -> int:
        """Events that this process has folded: those that were there already too."""
        return self._events()

    @property
    def events(self) -> int:
        """Events folded in all. What a killed process had not noted yet is folded, and counted, again."""
        return self.earlier + self.folded

    @property
    def rejects(self) -> int:
        """What could not be folded in all."""
        return len(self._rejects)

    @property
    def files(self) -> tuple[int, int]:
        """Files of an archive that are done with, and how many there are; zeros for other sources."""
        return self._files()

    def follow(self, events: Callable[[], int], files: Callable[[], tuple[int, int]] | None = None) -> None:
        """Have them told by whoever does the work."""
        self._events = events
        self._files = files or self._files

    def notes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what is to be noted, for the process that goes on."""
        return {_TOTAL: {"events": self.events}}


def folded_by(worker: PullWorker, *, repeats: bool = True) -> Callable[[], int]:
    """Return what tells how many events *worker* has folded, those that were there already too or not."""

    def folded() -> int:
        outcomes = worker.report.outcomes
        left_out = outcomes[Outcome.REJECTED] + (0 if repeats else outcomes[Outcome.DUPLICATE])
        return sum(outcomes.values()) - left_out

    return folded


_END: Final = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildWork:
    """One rebuild, from one source into one place."""

    state: RebuildState
    """How far it has come: where it begins, and what is noted."""
    rejects: RejectsFile
    """Where what cannot be folded goes."""
    progress: RebuildProgress
    """Told how far it has come."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the work; what is in hand is finished, or folded again by whoever goes on."""

    @property
    def goes_on(self) -> bool:
        """Whether it was complete before: then it brings over what has come or changed since."""
        return bool(self.state.get(_END))

    @property
    def is_settled(self) -> bool:
        """Whether all that was folded has the time at which it expires."""
        return bool(self.state.get(_END).get("complete"))

    def unsettle(self) -> None:
        """Note that something more is about to be folded."""
        if self.is_settled:
            self.state.note({_END: {"complete": False}})

    def settle(self) -> None:
        """Note that all that was folded has the time at which it expires."""
        self.state.note({_END: {"complete": True}})
