"""Databases of others, which are only read: page by page, through SQLAlchemy."""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NoReturn

from typing_extensions import override

from run_log.core import ConfigurationError, NotFoundError, TransportUnavailableError
from run_log.core.install import how_to_install
from run_log.core.payload import decode_foreign_json

from .errors import LeftOut, UnreadableValueError

PAGE: Final = 200
"""Rows read at a time. A transaction for each page: none keeps the database's own programs from writing."""

_PICKLE: Final = b"\x80"

Row = Mapping[str, Any]


class Database:
    """A database that is open for reading. Its methods raise `TransportUnavailableError` if it fails."""

    def __init__(self, alchemy: Any, engine: Any, where: str) -> None:
        self._alchemy = alchemy
        self._engine = engine
        self._where = where

    def table(self, name: str, what: str) -> Any:
        """Return the table *name*, with the columns that it has.

        Raises:
            NotFoundError: It does not exist; *what* says what has such a table.
        """
        with self._told():
            inspector = self._alchemy.inspect(self._engine)
            if not inspector.has_table(name):
                raise NotFoundError(f"{self._where} has no table {name!r}; is it {what}?")
            # Without types: what a column holds depends on the version of the program that writes it.
            columns = [self._alchemy.column(column["name"]) for column in inspector.get_columns(name)]
        return self._alchemy.table(name, *columns)

    def pages(self, table: Any) -> Iterator[Sequence[Row]]:
        """Yield all rows of *table* in the order of its column ``id``, an increasing number."""
        last: Any = None
        while True:
            query = self._alchemy.select(table).order_by(table.c.id).limit(PAGE)
            rows = self.rows(query if last is None else query.where(table.c.id > last))
            yield rows
            if len(rows) < PAGE:
                return
            last = rows[-1]["id"]

    def rows(self, query: Any) -> Sequence[Row]:
        """Return the rows of *query*, in a transaction of its own."""
        with self._told(), self._engine.connect() as connection:
            found: Sequence[Row] = connection.execute(query).mappings().all()
            return found

    def select(self, *parts: Any) -> Any:
        """Return a query of SQLAlchemy."""
        return self._alchemy.select(*parts)

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except self._alchemy.exc.SQLAlchemyError as error:
            # Without the statement, which is ours, and its parameters.
            what = " ".join(str(getattr(error, "orig", None) or error).split())
            raise TransportUnavailableError(f"{self._where} cannot be read ({what})") from error


@contextmanager
def opened_database(url: str) -> Generator[Database]:
    """Yield the database at *url*, which SQLAlchemy opens.

    Raises:
        ConfigurationError: *url* is none, or SQLAlchemy or the database's driver is not installed.
        NotFoundError: There is no such file.
    """
    try:
        alchemy: Any = import_module("sqlalchemy")
    except ImportError as error:
        raise ConfigurationError(
            f"a database needs SQLAlchemy: {error}; {how_to_install('import')}"
        ) from error
    try:
        address = alchemy.engine.make_url(url)
        where = address.render_as_string(hide_password=True)
    except alchemy.exc.ArgumentError as error:
        # Without the text, which may hold a password.
        raise ConfigurationError(
            "that is no address of a database; pass one such as sqlite:////var/lib/airflow/airflow.db or "
            "postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        ) from error
    is_file = address.get_backend_name() == "sqlite"
    if is_file and not Path(address.database or "").is_file():
        # SQLite would create it.
        raise NotFoundError(f"there is no file {address.database!r} ({where})")
    try:
        engine = alchemy.create_engine(address, execution_options={"postgresql_readonly": True})
    except (ImportError, alchemy.exc.SQLAlchemyError) as error:
        raise ConfigurationError(f"{where} needs a driver: {error}; install it beside run-log") from error
    if is_file:
        alchemy.event.listen(engine, "connect", _only_read)
    try:
        yield Database(alchemy, engine, where)
    finally:
        engine.dispose()


def _only_read(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only = ON")


def moment(value: object, zone: tzinfo = UTC) -> datetime | None:
    """Return the time in a column, which some databases return as text; None for none. LeftOut if it is none.

    One without a time zone is in *zone*.
    """
    if value is None:
        return None
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise LeftOut("a time cannot be read", f"{value!r:.100}") from error


def value_of(stored: Any) -> Any:
    """Return the value in a column of JSON, as text, as bytes or read already, or of plain pickled values.

    Raises:
        UnreadableValueError: It is neither.
    """
    if isinstance(stored, memoryview):
        stored = stored.tobytes()
    if not isinstance(stored, str | bytes):
        return stored
    try:
        if isinstance(stored, bytes) and stored.startswith(_PICKLE):
            return _PlainUnpickler(BytesIO(stored)).load()
        return decode_foreign_json(stored if isinstance(stored, str) else stored.decode())
    except Exception as error:  # a damaged pickle raises anything
        raise UnreadableValueError(str(error)) from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists and dicts. Anything else would run code that the database names."""

    @override
    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds a Python object, {module_name}.{global_name}")
