"""What a rebuild keeps beside its source and its store: its state, its rejects, and its counts."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final, NamedTuple

from typing_extensions import override

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    ReceivedMessage,
    RunLogError,
    StoreUnavailableError,
    TransportUnavailableError,
)
from run_log.projector.ports import DeadLetters
from run_log.stores.files import open_unbuffered, whole_lines, write_durably

try:
    _fcntl: Any = importlib.import_module("fcntl")
except ImportError:  # Windows
    _fcntl = None

FORMAT: Final = 1

_TOTAL: Final = "total"
_END: Final = "end"


class RebuildState:
    """How far one rebuild has come: a journal in a file, which nobody else can open until it is closed.

    Lines are only appended. The newest line about something counts.

    Args:
        path: The file. It is created if it does not exist.
        source: The name of the source.
        into: The full name of the destination.

    Raises:
        ConfigurationError: The file belongs to another rebuild, is in use, is not a state, or cannot be
            written.
    """

    def __init__(self, path: Path, *, source: str, into: str) -> None:
        self.path: Final = path
        self.notes: dict[str, dict[str, Any]] = {}
        """The notes, by what they are about."""
        self.is_new = True
        """Whether the file was created just now."""
        self.file = _locked(path)
        try:
            self._read({"rebuild": FORMAT, "from": source, "into": into})
        except Exception as error:
            self.close()
            if isinstance(error, RunLogError):
                raise
            raise ConfigurationError(f"{path} is not the state of a rebuild; pass another --state") from error

    def get(self, about: str) -> Mapping[str, Any]:
        """Return the last note about something; an empty one if there is none."""
        return self.notes.get(about, {})

    def note(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """Write notes, by what they are about. They are on the disk when this returns.

        Raises:
            StoreUnavailableError: They cannot be written.
        """
        for about, fields in notes.items():
            self.notes.setdefault(about, {}).update(fields)
        self._append([{"about": about, **fields} for about, fields in notes.items()])

    def close(self) -> None:
        """Close the file, so that others can open it."""
        self.file.close()

    def _read(self, header: Mapping[str, Any]) -> None:
        self.file.seek(0)
        whole = whole_lines(self.file.read())
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
            write_durably(self.file, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
        except OSError as error:
            raise StoreUnavailableError(f"{self.path} cannot be written ({error})") from error


def _locked(path: Path) -> BinaryIO:
    if _fcntl is None:
        raise ConfigurationError(
            f"{path} cannot be locked on this platform (it has no fcntl); run the rebuild on Linux or macOS"
        )
    try:
        file = open_unbuffered(path, "a+b")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error}); pass another --state") from error
    # Two processes with one state would each note what they fold, and skip what only the other has.
    try:
        _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigurationError(f"{path} is in use by another rebuild ({error})") from error
    return file


class Reject(NamedTuple):
    """Something that cannot be folded."""

    place: str
    """Where it was: the file and the number in it, or the ids of the run."""
    reason: DeadLetterReason
    """Why, for programs."""
    error: str
    """Why, for people."""
    body: bytes
    """The body of the message."""
    attributes: Mapping[str, str] = MappingProxyType({})
    """The attributes of the message, if the archive has them."""

    def line(self) -> str:
        """Return it as JSON on one line, without the line's end."""
        record: dict[str, Any] = {"place": self.place, "reason": self.reason.value, "error": self.error}
        if self.attributes:
            record["attributes"] = dict(self.attributes)
        try:
            record["body"] = self.body.decode()
        except UnicodeDecodeError:
            record["body_base64"] = base64.b64encode(self.body).decode()
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
                if not path.parent.is_dir():
                    raise ConfigurationError(
                        f"there is no folder {path.parent} for {path.name}; pass another --rejects"
                    )
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
        self.add(Reject(message.message_id, reason, error, message.data, message.attributes))

    def add(self, reject: Reject) -> None:
        """Keep *reject*, unless it is kept already. It is durable when this returns.

        Raises:
            TransportUnavailableError: It cannot be written now.
        """
        known = (reject.place, reject.reason.value)
        if known in self._known:
            return
        try:
            # On the disk before the record counts as done: the rebuild never comes back to it.
            with open_unbuffered(self.path, "ab") as file:
                write_durably(file, reject.line().encode() + b"\n")
        except OSError as failure:
            raise TransportUnavailableError(f"{self.path} cannot be written ({failure})") from failure
        self._known.add(known)


def _places(path: Path) -> set[tuple[str, str]]:
    """Return place and reason of each reject in a file, and remove a last line that a crash cut off."""
    content = path.read_bytes()
    whole = whole_lines(content)
    try:
        records = [json.loads(line) for line in whole.splitlines()]
        places = {(str(record["place"]), str(record["reason"])) for record in records}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a file of rejects; pass another --rejects") from error
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return places


class RebuildWork:
    """One rebuild, from one source into one destination, and how much it has folded.

    Args:
        state: How far it has come.
        rejects: Keeps what cannot be folded.
        stop: Ends the work. What is in hand is finished, or is folded again when the rebuild goes on.
    """

    def __init__(self, state: RebuildState, rejects: RejectsFile, *, stop: asyncio.Event) -> None:
        self.state: Final = state
        self.rejects: Final = rejects
        self.stop: Final = stop
        self._earlier = int(state.get(_TOTAL).get("events", 0))
        self._folded: Callable[[], int] = lambda: 0
        self._files: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.assumed: Counter[str] = Counter()
        """Assumptions that were made to read foreign documents, each with the number of documents."""

    @property
    def folded(self) -> int:
        """Events that this process has folded, also those that changed nothing."""
        return self._folded()

    @property
    def events(self) -> int:
        """Events folded in all. What a killed process had not noted is folded again, and counted again."""
        return self._earlier + self.folded

    @property
    def files(self) -> tuple[int, int]:
        """Files of the archive that are done, and files in all; zeros for other sources."""
        return self._files()

    def follow(self, folded: Callable[[], int], files: Callable[[], tuple[int, int]] | None = None) -> None:
        """Take the number of events, and of files, from these functions."""
        self._folded = folded
        self._files = files or self._files

    def note(self, notes: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
        """Write notes into the state, and the number of events with them.

        Raises:
            StoreUnavailableError: They cannot be written.
        """
        self.state.note({**notes, _TOTAL: {"events": self.events}})

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
