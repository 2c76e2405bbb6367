"""A connection with a thread of its own: opened when it is used, and never carried over a fork.

Who reads makes nothing, and changes nothing of the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from typing_extensions import override

from run_log.core import ConfigurationError, RunLogError, StoreError, StoreUnavailableError, WriteRefusedError
from run_log.core.forks import renewed, take_part
from run_log.core.logs import get_logger, logging_later
from run_log.stores.files import open_private

from ._queries import without_added
from ._schema import FIRST_WITH_ADDED, migrate, schema_version

_T = TypeVar("_T")

_WAL_RETRY_SECONDS: Final = 0.005

# Of something that changes meanwhile, and cannot be locked.
_MOST_READS: Final = 20

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
    """Opens one file to be read, as it is. Where there is none, what is read is an empty run log."""

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

    def is_there(self) -> bool:
        """Return whether there is a file with anything in it. Raises as `open` does."""
        return bool(self._state_of(self._path))

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


class _Handle:
    """What outlives its owner by a moment: the vendor's connection, and the lock of whoever uses it."""

    def __init__(self) -> None:
        self.lock = renewed(self, "lock", threading.Lock)
        self.connection: sqlite3.Connection | None = None
        self.is_current: Callable[[], bool] = lambda: True

    def disconnect(self) -> None:
        """Close the connection, while the lock is held; the next use opens another."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def let_go(self) -> None:
        """Close the connection once nobody uses it."""
        with self.lock:
            self.disconnect()


class Connection:
    """One connection to the file, used by one call at a time in a thread of its own.

    Usable from any event loop, several at once too. It is opened at the first use, after `close` and after
    every error anew, so nothing half-done is left behind in it. Before a fork it is closed, for SQLite
    cannot carry one over; both processes open their own when they need it.

    Args:
        path: The file; its directory has to be there. Who writes makes it; who reads finds an empty run log
            where it is not there.
        busy_seconds: How long to wait while another connection has the file.
        writes: Whether it may be written: else nothing is made or changed.
    """

    def __init__(self, path: str, *, busy_seconds: float, writes: bool = True) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._reading = None if writes else Reading(path, busy_seconds=busy_seconds)
        self._handle = _Handle()
        weakref.finalize(self, _Handle.let_go, self._handle)
        self._executor_lock = renewed(self, "_executor_lock", threading.Lock)
        self._executor: Executor | None = None
        take_part(self)

    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what *work* does with the connection. Cancelling the call does not cut it short.

        Raises:
            StoreUnavailableError: The file stays locked, or its disk is full or fails.
            ConfigurationError: The file cannot be opened, written or read as what it should be.
            WriteRefusedError: It will never take what was to be written.
        """
        context = contextvars.copy_context()

        def job() -> _T:
            return context.run(self._use, work)

        try:
            future = self._submit(job)
        except (RuntimeError, ImportError):
            # The interpreter is ending and starts no thread any more. Nobody else needs this one then.
            return job()
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Close the connection and end the thread, after the calls under way. Twice is fine."""
        closing: Future[None] | None = None
        with self._executor_lock:
            executor, self._executor = self._executor, None
            if executor is not None:
                with contextlib.suppress(RuntimeError):  # see `run`
                    closing = executor.submit(self._handle.let_go)
                executor.shutdown(wait=False)
        if closing is None:
            self._handle.let_go()
        else:
            await asyncio.wrap_future(closing)

    def before_fork(self) -> None:
        """Wait for the call under way, and leave nothing open that the child would inherit."""
        # SQLite's own bookkeeping of locks and its mutexes would be inherited too, and mean nothing there
        # (https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork).
        self._handle.lock.acquire()
        self._handle.disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._handle.lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the thread stayed with the parent."""
        self._executor = None

    def _submit(self, job: Callable[[], _T]) -> Future[_T]:
        with self._executor_lock:
            if self._executor is None:
                # When the interpreter is ending, even this import fails: see `run`.
                from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

                self._executor = ThreadPoolExecutor(1, thread_name_prefix="run-log-sqlite")
            try:
                return self._executor.submit(job)
            except RuntimeError:
                self._executor = None  # it may have kept the job
                raise

    def _use(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        handle = self._handle
        with logging_later(), handle.lock:
            try:
                for _ in range(_MOST_READS):
                    connection = self._connection()
                    try:
                        found = work(connection)
                    except (sqlite3.Error, RunLogError):
                        if handle.is_current():
                            raise
                    else:
                        if handle.is_current():
                            return found
            except sqlite3.Error as error:
                handle.disconnect()
                raise self._error(error) from error
            except RunLogError:
                raise
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                # Whatever a value in the file has led to that nothing else has looked at.
                raise WriteRefusedError(
                    f"{self._path} holds what cannot be read, or cannot hold a value ({error!r:.500}); "
                    "`run-log verify` shows what is wrong"
                ) from error
            raise StoreUnavailableError(f"{self._path} changes whenever it is read; try again")

    def _connection(self) -> sqlite3.Connection:
        handle = self._handle
        if handle.connection is None or not handle.is_current():
            handle.disconnect()
            opened = self._reading.open() if self._reading else Opened(self._connect(), lambda: True)
            handle.connection, handle.is_current = opened
            handle.connection.text_factory = _text
        return handle.connection

    def _connect(self) -> sqlite3.Connection:
        self._create()
        connection = connect(self._path, self._busy_seconds)
        try:
            schema_version(connection, self._path)  # before anything of somebody else's is changed
            self._use_wal(connection)
            # NORMAL would lose what was said to be durable when the power fails
            # (https://www.sqlite.org/pragma.html#pragma_synchronous).
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection, self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        try:
            # For its owner only: it holds what workflows were given. SQLite gives the files beside it the
            # same mode.
            # Exclusively: closing another descriptor of a file in use would drop this process's locks on it.
            os.close(open_private(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR))
        except FileExistsError:
            return
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be made ({error.strerror}); make its directory, give access to it, or "
                "set RUN_LOG_SQLITE_PATH"
            ) from error

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                # Switching does not wait for those who are switching too, whatever the timeout.
                if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(_WAL_RETRY_SECONDS)
        if mode != "wal":
            raise ConfigurationError(
                f"{self._path} cannot be shared by processes (its journal is {mode!r}, not 'wal'); "
                "put it on a disk of this machine, not on a network file system"
            )

    def _error(self, error: sqlite3.Error) -> RunLogError:
        match _primary_code(error):
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreUnavailableError(
                    f"{self._path} was locked for {self._busy_seconds:g} s; does another process hold a "
                    f"transaction open? ({error})"
                )
            case sqlite3.SQLITE_FULL:
                return StoreUnavailableError(f"the disk of {self._path} is full; make room ({error})")
            case sqlite3.SQLITE_IOERR:
                return StoreUnavailableError(f"the disk of {self._path} fails; look at it ({error})")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                return ConfigurationError(
                    f"{self._path} cannot be opened; give access to it and to its directory, or set "
                    f"RUN_LOG_SQLITE_PATH ({error})"
                )
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return ConfigurationError(
                    f"{self._path} is no database, or a damaged one; end its users, then restore it from a "
                    f"copy or set RUN_LOG_SQLITE_PATH to another file ({error})"
                )
            case sqlite3.SQLITE_TOOBIG:
                return WriteRefusedError(f"{self._path} cannot hold a value ({error})")
            case _:
                return StoreError(f"{self._path} failed ({error})")


def _is_still(connection: sqlite3.Connection, version: int, is_current: Callable[[], bool]) -> bool:
    """Return whether the file still has the schema of *version*: a writer may have brought it forward."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return is_current() and found == version


def _primary_code(error: sqlite3.Error) -> int | None:
    # Absent where the standard library raises it and not SQLite.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _text(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:  # something else damaged it
        return stored
