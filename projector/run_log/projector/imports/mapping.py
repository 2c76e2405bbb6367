"""Which column of somebody's table is which field of a run, and how its texts are read."""

from __future__ import annotations

import math
import re
import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final, cast

from run_log.core import InvalidArgumentError, RunStatus, TriggerType
from run_log.core.clock import EPOCH
from run_log.core.fields import LABEL_HINT, is_label_key
from run_log.core.models import MAX_ATTEMPT, is_trigger_word
from run_log.core.payload import decode_foreign_json

from .errors import LeftOut
from .found import imported_event

FIELDS: Final = (
    *("workflow_id", "id", "status", "started_at", "completed_at", "duration_ms", "duration_s"),
    *("trigger_type", "trigger_data", "result", "error", "error_type", "attempt", "labels", "parent"),
    *("trace_id", "pause"),
)
"""The fields that can be mapped. Those of `OBJECTS` also with a key, such as ``labels.customer``."""

OBJECTS: Final = frozenset({"trigger_data", "result", "labels", "parent", "pause"})
"""The fields that hold objects."""

NEEDED: Final = ("workflow_id", "id", "status", "started_at")
"""The fields without which there is no run."""

UNITS: Final[Mapping[str, int]] = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Formats of times that are numbers, counted since 1970 in UTC, and the microseconds of each."""

_TIMES: Final = ("started_at", "completed_at")
_NO_WORD: Final = re.compile(r"[^a-z0-9_.-]+")
_MAX_UNUSED: Final = 100


class FieldMapping:
    """Makes the fields of a run of a record, which has a value for each column.

    A column that has the name of a field is that field unless another one is mapped to it.

    Args:
        columns: The column of a field, by the field's name. ``a.b`` is also the key ``b`` of an object ``a``.
        constants: The value of a field in each run.
        statuses: What words mean beside the names of statuses, in lower case.
        zone: The time zone of times that have none; None leaves their runs out.
        time_format: How times are written: for `datetime.strptime`, or one of `UNITS`; None for ISO 8601.

    Raises:
        InvalidArgumentError: There is no such field, one is given twice, *constants* have a value that no run
            can have, or no time is in *time_format*.
    """

    def __init__(
        self,
        *,
        columns: Sequence[tuple[str, str]] = (),
        constants: Sequence[tuple[str, str]] = (),
        statuses: Mapping[str, RunStatus],
        zone: tzinfo | None = None,
        time_format: str | None = None,
    ) -> None:
        fields = [field for field, _ in (*columns, *constants)]
        for field in fields:
            if not _is_field(field):
                known = ", ".join(name if name not in OBJECTS else f"{name}[.KEY]" for name in FIELDS)
                hint = f"; {LABEL_HINT}" if field.startswith("labels.") else ""
                raise InvalidArgumentError(f"{field!r} is no field of a run; the fields are {known}{hint}")
            if fields.count(field) > 1:
                raise InvalidArgumentError(f"the field {field!r} is given twice; pass it once")
        self._columns = dict(columns)
        self._constants = dict(constants)
        self._statuses = statuses
        self._zone = zone
        self._format = _checked_format(time_format)
        self._check_constants()
        self.unused: dict[str, None] = {}
        """Columns that were in a record and are no field, at most 100."""

    def _check_constants(self) -> None:
        # All rows would be left out for it, one by one.
        plain = {"workflow_id": "w", "id": "r", "status": RunStatus.SUCCESS, "started_at": EPOCH}
        try:
            imported_event(self._read(plain | self._constants), [], redact=lambda _run: None)
        except LeftOut as why:
            raise InvalidArgumentError(f"a --set has a value that no run can have: {why}") from why

    def check_columns(self, names: Sequence[str], where: str) -> None:
        """Check that a table with these columns has what a run needs.

        Raises:
            InvalidArgumentError: A column is missing, or is there twice; the message names those there are.
        """
        there = ", ".join(names[:_MAX_UNUSED])
        for field, column in {**{name: name for name in NEEDED}, **self._columns}.items():
            if field in self._constants:
                continue
            if column not in names:
                hint = "" if field in self._columns else f"; pass --map {field}=COLUMN or --set {field}=VALUE"
                raise InvalidArgumentError(f"{where} has no column {column!r}, it has: {there}{hint}")
            if list(names).count(column) > 1:
                raise InvalidArgumentError(f"{where} has two columns {column!r}; rename one of them")

    def fields(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the run that *record* tells of.

        Raises:
            LeftOut: It tells of none, or a value cannot be read.
        """
        return self._read(dict(self._constants) | self._taken(record))

    def _read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        for name in NEEDED:
            if given.get(name) in (None, ""):
                raise LeftOut(f"it has no {name}")
        fields: dict[str, Any] = {}
        for field, value in given.items():
            if value is None or value == "":
                continue
            name, _, key = field.partition(".")
            if key:
                fields.setdefault(name, {})[key] = value
            else:
                fields[name] = {**_object(name, value), **fields.get(name, {})} if name in OBJECTS else value
        fields["status"] = self.status(given["status"])
        for name in _TIMES:
            if name in fields:
                fields[name] = self.moment(fields[name])
        if "trigger_type" not in fields:
            fields["trigger_type"] = TriggerType.MANUAL
        else:
            fields["trigger_type"] = trigger_word(str(fields["trigger_type"]))
        return _numbered(fields)

    def _taken(self, record: Mapping[str, Any]) -> dict[str, Any]:
        taken = {field: _at(record, column) for field, column in self._columns.items()}
        mapped = set(self._columns.values())
        for column, value in record.items():
            if column in mapped:
                continue
            if not _is_field(column):
                if len(self.unused) < _MAX_UNUSED:
                    self.unused[column] = None
            elif column not in self._columns and column not in self._constants:
                taken[column] = value
        return taken

    def status(self, word: object) -> RunStatus:
        """Return the status that *word* means. LeftOut if it means none."""
        # An enumeration's name may stand before it.
        plain = str(word).strip().lower().removeprefix("runstatus.")
        if plain in self._statuses:
            return self._statuses[plain]
        try:
            return RunStatus(plain)
        except ValueError:
            raise LeftOut(f"its status is unknown (pass --status {plain[:40]}=STATUS)") from None

    def moment(self, value: object) -> datetime:
        """Return the moment that *value* means. LeftOut if it means none."""
        try:
            found = value if isinstance(value, datetime) else self._parsed(value)
            if found.tzinfo is None:
                if self._zone is None:
                    raise LeftOut("its times have no time zone (pass --zone, such as UTC or Europe/Berlin)")
                found = found.replace(tzinfo=self._zone)
            return found.astimezone(UTC)
        except (ValueError, ArithmeticError) as error:
            how = f"--time-format {self._format}" if self._format else "ISO 8601 (pass --time-format)"
            raise LeftOut(f"a time is not {how}", f"{value!r:.100}") from error

    def _parsed(self, value: object) -> datetime:
        text = str(value).strip()
        if self._format is None:
            # Python reads some numbers as dates, and not those that are meant.
            if text.isdecimal():
                raise ValueError("it is a number")
            return datetime.fromisoformat(text)
        unit = UNITS.get(self._format)
        if unit is None:
            return datetime.strptime(text, self._format)  # noqa: DTZ007 - the caller gives it a zone
        return EPOCH + timedelta(microseconds=int(Decimal(text) * unit))


def _checked_format(time_format: str | None) -> str | None:
    if time_format is None or time_format in UNITS:
        return time_format
    try:
        # Whatever a format lacks, it reads what it writes.
        datetime.strptime(EPOCH.strftime(time_format), time_format)  # noqa: DTZ007 - only whether it can be
        if "%" in time_format:
            return time_format
        fault = "it has none of its directives"
    except (ValueError, re.error) as error:
        fault = str(error)
    raise InvalidArgumentError(
        f"--time-format {time_format!r} is no format of strptime, nor {', '.join(UNITS)}: {fault}"
    )


def trigger_word(text: str) -> str:
    """Return *text* as the word of a trigger type: in lower case, and ``_`` for what no word has."""
    word = _NO_WORD.sub("_", text.strip().lower().removeprefix("triggertype.")).strip("_.-")[:64]
    return word if is_trigger_word(word) else TriggerType.MANUAL.value


def status_words(texts: Iterable[str], known: Mapping[str, RunStatus] | None = None) -> dict[str, RunStatus]:
    """Return what words mean, each text ``WORD=STATUS``, besides those *known*.

    Raises:
        InvalidArgumentError: A text is none of that.
    """
    words = dict(known or {})
    for text in texts:
        word, equals, name = text.rpartition("=")
        if not equals or name not in set(RunStatus):
            raise InvalidArgumentError(
                f"--status {text!r} is not WORD=STATUS; the statuses are {', '.join(RunStatus)}"
            )
        words[word.strip().lower()] = RunStatus(name)
    return words


def time_zone(name: str | None) -> tzinfo | None:
    """Return the time zone of that name; None for None. InvalidArgumentError if there is none."""
    if name is None:
        return None
    if name.upper() == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgumentError(
            f"--zone {name!r} is no time zone; pass UTC or a name such as Europe/Berlin"
        ) from error


def _is_field(name: str) -> bool:
    field, dot, key = name.partition(".")
    if not dot:
        return name in FIELDS
    return is_label_key(key) if field == "labels" else field in OBJECTS and bool(key)


def _at(record: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column, or what is at that path in objects."""
    if column in record:
        return record[column]
    found: Any = record
    for part in column.split("."):
        found = cast("Mapping[str, Any]", found).get(part) if isinstance(found, Mapping) else None
    return found


def _object(name: str, value: object) -> dict[str, Any]:
    try:
        found = decode_foreign_json(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        raise LeftOut(f"its {name} is no JSON object", f"{value!r:.100}")
    return dict(cast("Mapping[str, Any]", found))


def _numbered(fields: dict[str, Any]) -> dict[str, Any]:
    try:
        if "attempt" in fields:
            fields["attempt"] = _whole(fields["attempt"])
        if "duration_s" in fields:
            fields["duration_ms"] = _finite(fields.pop("duration_s")) * 1_000
        elif "duration_ms" in fields:
            fields["duration_ms"] = _finite(fields["duration_ms"])
        if "duration_ms" in fields and "completed_at" not in fields and fields["status"].is_terminal:
            fields["completed_at"] = fields["started_at"] + timedelta(milliseconds=fields["duration_ms"])
    except (ValueError, TypeError, ArithmeticError) as error:
        raise LeftOut("its attempt or its duration is no number", str(error)[:100]) from error
    return fields


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r:.50} is not finite")
    return number


def _whole(value: object) -> int:
    # Spreadsheets and data frames write whole numbers as 2.0.
    number = Decimal(str(value))
    if not 1 <= number <= MAX_ATTEMPT or number != int(number):
        raise ValueError(f"{value!r:.50} is no attempt")
    return int(number)
