"""Where a rebuild's events come from, and where they may go."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from run_log.core import ConfigurationError, Settings
from run_log.core.settings import check_collection_id

_MAX_RESOURCE_ID: Final = 255
"""Characters of a subscription's id (https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FromArchive:
    """All that the files of an archive hold."""

    place: str
    """A file, a folder or a pattern; see `archive.find_files`."""

    def __str__(self) -> str:
        """Return it as a state names it."""
        return f"archive:{self.place if '://' in self.place else Path(self.place).resolve()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromSubscription:
    """All that the event topic retains."""

    since: datetime | None = None
    """Since when; None for as long as it does."""
    until_idle: float = 60.0
    """After how many seconds without a message all is folded: longer than a message is leased."""
    keeps: bool = False
    """Whether the subscription stays when all is folded, so that the rebuild can go on with what comes."""

    def __str__(self) -> str:
        """Return it as a state names it."""
        return "subscription"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRoot:
    """All runs that another root collection holds."""

    name: str

    def __str__(self) -> str:
        """Return it as a state names it."""
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
                f"with RUN_LOG_BACKEND=sqlite a rebuild is from archive files only, not from {source}; "
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
            raise ConfigurationError(f"--from {source} is what --into names; pass another name")


def destination(settings: Settings, source: RebuildSource, into: str) -> str:
    """Return the full name of what *into* names, as a state has it.

    Raises:
        ConfigurationError: See `check`.
    """
    check(settings, source, into)
    if settings.backend == "sqlite":
        return str(Path(into).resolve())
    return f"{settings.project or '(default)'}/{settings.database}/{into}"


def replay_name(into: str) -> str:
    """Return the id of the subscription of a rebuild into the root collection *into*."""
    name = f"run-log-rebuild-{quote(into, safe='')}"
    if len(name) <= _MAX_RESOURCE_ID:
        return name
    return f"run-log-rebuild-{hashlib.sha256(into.encode()).hexdigest()}"
