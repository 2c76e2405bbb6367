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

from typing_extensions import override

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    Outcome,
    ReceivedMessage,
    StoreUnavailableError,
    TransportUnavailableError,
)
from run_log.projector.ports import DeadLetters
from run_log.projector.pull import PullWorker
from run_log.stores.files import open_private

try:
    _fcntl: Any = importlib.import_module("fcntl")
except ImportError:  # Windows
    _fcntl = None

FORMAT: Final = 1


@dataclass(slots=True, kw_only=True)
class RebuildState:
    """How far one rebuild has come: a journal in a file. Each note is on the disk when `note` returns.

    Lines are only appended. The newest line about something counts. A last line that a crash cut off is
    ignored.
    """

    path: Path
    file: BinaryIO
    notes: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """The notes, by what they are about."""
    is_new: bool = True
    """Whether the file was created just now."""

    @classmethod
    def open(cls, path: Path, *, source: str, into: str) -> Self:
        """Open a state file, or create it. Nobody else can open it until it is closed.

        Args:
            path: The file.
            source: The name of the source.
            into: The full name of the destination.

        Raises:
            ConfigurationError: The file belongs to another rebuild, is in use, is not a state, or cannot be
                written.
        """
        header = {"rebuild": FORMAT, "from": source, "into": into}
        state = cls(path=path, file=_opened(path))
        try:
            state._read(header)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            state.close()
            raise ConfigurationError(f"{path} is not the state of a rebuild; pass another --state") from error
        except ConfigurationError:
            state.close()
            raise
        return state

    def get(self, about: str) -> Mapping[str, Any]:
        """Return the last note about something; an empty one if there is none."""
        return self.notes.get(about, {})

    def note(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """Write notes, by what they are about.

        Raises:
            StoreUnavailableError: It cannot be written.
        """
        for about, fields in notes.items():
            self.notes.setdefault(about, {}).update(fields)
        self._append([{"about": about, **fields} for about, fields in notes.items()])

    def close(self) -> None:
        """Close the file, so that others can open it."""
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
            # Unbuffered, so that nothing is written after an error; one write may take only a part.
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
    # Two processes with one state would each note what they fold, and skip what only the other has.
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
    """Return the JSON line for something that was rejected.

    Args:
        place: Where it was: the file and the number in it, or the ids of the run.
        reason: Why, for programs.
        error: Why, for people.
        body: The body of the message.
        attributes: The attributes of the message, if the archive has them.
    """
    record: dict[str, Any] = {"place": place, "reason": reason.value, "error": error}
    if attributes:
        record["attributes"] = dict(attributes)
    try:
        record["body"] = body.decode()
    except UnicodeDecodeError:
        record["body_base64"] = base64.b64encode(body).decode()
    return json.dumps(record)


class RejectsFile(DeadLetters):
    """Keeps rejects in a file, each once, one JSON object on each line. See `DeadLetters`.

    Args:
        path: The file. It is created with the first reject, and only its owner can read it.
        goes_on: Whether it may hold rejects of the same rebuild from before it was interrupted.

    Raises:
        ConfigurationError: It holds rejects of another rebuild or something else, or cannot be read.
    """

    def __init__(self, path: Path, *, goes_on: bool) -> None:
        self.path: Final = path
        self._known: set[tuple[str, str]] = set()
        try:
            if not path.exists():
                return
            if not goes_on and path.stat().st_size:
                raise ConfigurationError(
                    f"{path} holds the rejects of another rebuild; move it away, or pass another --rejects"
                )
            self._known = _places(path)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read ({error})") from error

    def __len__(self) -> int:
        """Return the number of rejects."""
        return len(self._known)

    @override
    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
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
        """Keep one reject, unless it is kept already. It is durable when this returns.

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
                # On the disk before the record counts as done: the rebuild never comes back to it.
                os.fsync(file.fileno())
        except OSError as failure:
            raise TransportUnavailableError(f"{self.path} cannot be written ({failure})") from failure
        self._known.add((place, reason.value))


def _places(path: Path) -> set[tuple[str, str]]:
    """Return place and reason of each reject in a file, and remove a last line that a crash cut off."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        records = [json.loads(line) for line in whole.splitlines()]
        places = {(str(record["place"]), str(record["reason"])) for record in records}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a file of rejects; pass another --rejects") from error
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return places


_TOTAL = "total"


class RebuildProgress:
    """How many events a rebuild has folded, in this process and before.

    Args:
        state: Its state.
        rejects: Its rejects.
    """

    def __init__(self, state: RebuildState, rejects: Sized) -> None:
        self.earlier = int(state.get(_TOTAL).get("events", 0))
        """Events that earlier processes folded."""
        self._rejects = rejects
        self._events: Callable[[], int] = lambda: 0
        self._files: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.expired = 0
        """Runs that got a time at which they expire."""
        self.assumed: Counter[str] = Counter()
        """Assumptions that were made to read foreign documents, each with the number of documents."""

    @property
    def folded(self) -> int:
        """Events that this process has folded, also those that changed nothing."""
        return self._events()

    @property
    def events(self) -> int:
        """Events folded in all. What a killed process had not noted is folded again, and counted again."""
        return self.earlier + self.folded

    @property
    def rejects(self) -> int:
        """Number of rejects in all."""
        return len(self._rejects)

    @property
    def files(self) -> tuple[int, int]:
        """Files of the archive that are done, and files in all; zeros for other sources."""
        return self._files()

    def follow(self, events: Callable[[], int], files: Callable[[], tuple[int, int]] | None = None) -> None:
        """Take the number of events, and of files, from these functions."""
        self._events = events
        self._files = files or self._files

    def notes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the notes that another process needs to go on counting."""
        return {_TOTAL: {"events": self.events}}


def folded_by(worker: PullWorker, *, repeats: bool = True) -> Callable[[], int]:
    """Return a function that returns how many events *worker* has folded, with or without duplicates."""

    def folded() -> int:
        outcomes = worker.report.outcomes
        left_out = outcomes[Outcome.REJECTED] + (0 if repeats else outcomes[Outcome.DUPLICATE])
        return sum(outcomes.values()) - left_out

    return folded


_END: Final = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildWork:
    """One rebuild, from one source into one destination."""

    state: RebuildState
    """How far it has come."""
    rejects: RejectsFile
    """Keeps what cannot be folded."""
    progress: RebuildProgress
    """Counts what is folded."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the work. What is in hand is finished, or is folded again when the rebuild goes on."""

    @property
    def goes_on(self) -> bool:
        """Whether it was complete before. Then it folds only what came or changed since."""
        return bool(self.state.get(_END))

    @property
    def is_settled(self) -> bool:
        """Whether all folded runs have the time at which they expire."""
        return bool(self.state.get(_END).get("complete"))

    def unsettle(self) -> None:
        """Note that more is about to be folded."""
        if self.is_settled:
            self.state.note({_END: {"complete": False}})

    def settle(self) -> None:
        """Note that all folded runs have the time at which they expire."""
        self.state.note({_END: {"complete": True}})
