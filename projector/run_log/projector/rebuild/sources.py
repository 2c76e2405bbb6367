"""The sources of a rebuild, and the check that a source fits its destination."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from run_log.core import ConfigurationError, Settings
from run_log.core.settings import check_collection_id

# Characters of a subscription's id (https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names).
_MAX_RESOURCE_ID: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class FromArchive:
    """All events in the files of an archive."""

    path: str
    """A file, a folder, a pattern or an address, as `archive.find_files` takes it."""

    def __str__(self) -> str:
        """Return its name in a state file."""
        return f"archive:{self.path if '://' in self.path else Path(self.path).resolve()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromSubscription:
    """All events that the topic retains."""

    since: datetime | None = None
    """Only events published since then; None for all that the topic retains."""
    until_idle: float = 60.0
    """The rebuild is complete after so many seconds without a message: longer than a message is leased."""
    keeps: bool = False
    """Whether to keep the subscription, so that the rebuild can go on with later events."""

    def __str__(self) -> str:
        """Return its name in a state file."""
        return "subscription"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRoot:
    """All runs of another root collection."""

    name: str

    def __str__(self) -> str:
        """Return its name in a state file."""
        return f"root:{self.name}"


RebuildSource = FromArchive | FromSubscription | FromRoot


def check(settings: Settings, source: RebuildSource, into: str) -> None:
    """Check that *source* can be folded into *into*.

    Raises:
        ConfigurationError: It cannot; the message says what to pass.
    """
    if settings.backend == "sqlite":
        if Path(into).resolve() == Path(settings.sqlite_path).resolve():
            raise ConfigurationError(
                f"--into {into} is the live file (RUN_LOG_SQLITE_PATH); pass another path"
            )
        if not isinstance(source, FromArchive):
            raise ConfigurationError(
                f"with RUN_LOG_BACKEND=sqlite a rebuild can only read archive files, not {source}; "
                "pass --from archive:PATH"
            )
        return
    check_collection_id(into)
    if into == settings.root_collection:
        raise ConfigurationError(
            f"--into {into} is the live root collection (RUN_LOG_ROOT_COLLECTION); pass another name"
        )
    if isinstance(source, FromRoot):
        check_collection_id(source.name)
        if source.name == into:
            raise ConfigurationError(
                f"--from {source} and --into are the same root collection; pass another name"
            )


def rebuilding(settings: Settings, into: str) -> Settings:
    """Return *settings* for writing into the root collection *into*, without a retention."""
    # While events are folded, none is refused for its age, and no run expires: a run that was deleted
    # meanwhile would come back with its next event, and be counted twice.
    return settings.model_copy(update={"root_collection": into, "retention_days": None})


def destination(settings: Settings, source: RebuildSource, into: str) -> str:
    """Return the full name of *into*, for a state file.

    Raises:
        ConfigurationError: See `check`.
    """
    check(settings, source, into)
    if settings.backend == "sqlite":
        return str(Path(into).resolve())
    return f"{settings.project or '(default)'}/{settings.database}/{into}"


def replay_name(into: str) -> str:
    """Return the id of the subscription for a rebuild into the root collection *into*."""
    name = f"run-log-rebuild-{quote(into, safe='')}"
    if len(name) <= _MAX_RESOURCE_ID:
        return name
    return f"run-log-rebuild-{hashlib.sha256(into.encode()).hexdigest()}"
