"""How a file is opened to be read: nothing is made, and nothing of it is changed."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from typing_extensions import override

from run_log.core import ConfigurationError
from run_log.core.logs import get_logger

from ._queries import without_added
from ._schema import FIRST_WITH_ADDED, migrate, schema_version

_logger: Final = get_logger("run_log.stores")

# What tells one state of the file, and of the log beside it, from another; None where there is none.
_State = tuple[tuple[int, ...] | None, tuple[int, ...] | None]


class Opened(NamedTuple):
    """A connection that reads."""

    connection: sqlite3.Connection
    is_current: Callable[[], bool]
    """Whether what it reads is what is there; asked before it is used, and after."""


class _OlderFile(sqlite3.Connection):
    """Reads a file that an earlier version made: what its tables do not have yet is NULL, or 0."""

    @override
    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a query of ours."""
        # A reader changes no file, so the columns cannot be added.
        return super().execute(without_added(sql), parameters)


def connect(
    database: str,
    busy_seconds: float,
    *,
    uri: bool = False,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> sqlite3.Connection:
    """Return a connection that waits for the file as long as *busy_seconds*."""
    return sqlite3.connect(
        database,
        factory=factory,
        uri=uri,
        timeout=busy_seconds,
        isolation_level=None,  # transactions are begun by hand
        check_same_thread=False,  # one call at a time, but in whichever thread there is
    )


def may_write(path: str) -> bool:
    """Return whether this process may write the file at *path*, and make files beside it."""
    return os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)  # noqa: PTH120 - as it is


class Reading:
    """Opens one file to be read, as it is. Where there is none, what is read is an empty run log.

    Args:
        path: The file.
        busy_seconds: How long to wait while another connection has the file.
        may_write: Whether the file, and files beside it, may be written.
    """

    def __init__(
        self,
        path: str,
        *,
        busy_seconds: float,
        may_write: Callable[[str], bool] = may_write,
    ) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._may_write = may_write
        self._is_told = False

    def open(self) -> Opened:
        """Open the file.

        Raises:
            ConfigurationError: It is no file, another program's, or a newer run-log made it.
            sqlite3.Error: It cannot be read.
        """
        seen = self._look()
        if seen[0] is not None:
            query, is_current = self._terms(seen)
            open_file = partial(connect, f"{Path(self._path).as_uri()}?{query}", self._busy_seconds, uri=True)
            connection = open_file()
            try:
                if version := schema_version(connection, self._path):
                    if version < FIRST_WITH_ADDED:
                        connection.close()
                        connection = open_file(factory=_OlderFile)
                        is_current = partial(_is_still, connection, version, is_current)
                    connection.execute("PRAGMA query_only = ON")
                    self._is_told = False
                    return Opened(connection, is_current)
            except BaseException:
                connection.close()
                raise
            connection.close()
        if not self._is_told:
            self._is_told = True
            _logger.warning("run_log_file_not_there", path=self._path)
        return Opened(self._nothing(), lambda: self._look() == seen)

    def _terms(self, seen: _State) -> tuple[str, Callable[[], bool]]:
        """Return how SQLite is to open the file, and a function that says whether that still holds."""
        # https://www.sqlite.org/wal.html#read_only_databases
        if self._may_write(self._path):
            return "mode=rw", lambda: True
        if seen[1]:
            # Somebody has it open, or had: SQLite reads what is beside it, and makes nothing.
            return "mode=ro&readonly_shm=1", lambda: True
        # SQLite would make a file beside it, and leave it there. Immutable it asks for none, and looks for
        # no change: so that is done here.
        return "mode=ro&immutable=1", lambda: self._look() == seen

    def _look(self) -> _State:
        return self._state_of(self._path), self._state_of(f"{self._path}-wal")

    def _state_of(self, path: str) -> tuple[int, ...] | None:
        try:
            found = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be looked at ({error.strerror}); give access to its directory, or set "
                "RUN_LOG_SQLITE_PATH"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(
                f"{self._path} cannot be opened: it is no file; set RUN_LOG_SQLITE_PATH to one"
            )
        return (found.st_ino, found.st_size, found.st_mtime_ns) if found.st_size else ()

    def _nothing(self) -> sqlite3.Connection:
        connection = connect(":memory:", self._busy_seconds)
        migrate(connection, self._path)
        connection.execute("UPDATE sequence SET log = ''")
        return connection


def _is_still(connection: sqlite3.Connection, version: int, is_current: Callable[[], bool]) -> bool:
    """Return whether the file still has the schema of *version*: a writer may have brought it forward."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return is_current() and found == version
