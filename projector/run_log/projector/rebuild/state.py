"""How far a rebuild has come: a journal in a file, so that it goes on where it was killed."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

from run_log.core import ConfigurationError, StoreUnavailableError
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
    places: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
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
        return self.places.get(about, {})

    def note(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """Note something about each of some things.

        Raises:
            StoreUnavailableError: It cannot be written.
        """
        for about, fields in notes.items():
            self.places.setdefault(about, {}).update(fields)
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
            self.places.setdefault(line.pop("about"), {}).update(line)

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
