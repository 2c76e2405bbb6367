"""The fields of a run: what a value of a platform's, of a message or of a document becomes in each.

What has no place in a run is left out, and told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Annotated, Any, Final, cast

from opentelemetry import metrics
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SkipValidation,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from .ids import MAX_ID_BYTES, as_text, bounded_id, id_text, is_long_id, valid_text
from .logs import get_logger
from .nearest import MAX_PAYLOAD_BYTES, OUTER_KEY, Contained, qualified_name, type_name, unwrapped
from .payload import MAX_TEXT_BYTES, as_payload, fit_text

# The most characters of an id. Earlier versions stored such long ones. A new one has at most `MAX_ID_BYTES`.
_MAX_ID_LENGTH: Final = 50_000

MAX_LABELS: Final = 20
"""The most labels of a run."""

MAX_LABEL_LENGTH: Final = 128
"""The most characters of a label's value."""

MAX_ERROR_TYPE_BYTES: Final = 256
"""The most bytes of UTF-8 that an `error_type` takes. Stores index it."""

LABEL_HINT: Final = (
    f"a run has at most {MAX_LABELS} labels; a key is at most 63 of a-z 0-9 _ . -, a letter or digit first, "
    f"a value a text of at most {MAX_LABEL_LENGTH} characters"
)
_LABEL_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")

# A wrong type there is a fault of the writer, which must be seen, and not a value to interpret.
STORED: Final = object()
"""The context for the fields of a document: they must have their types already."""


class Received:
    """The context for the fields of a message: typed as in a document. Ids and texts are made to fit."""

    cut_texts = 0


STORED_PAYLOADS: Final = frozenset({dict, type(None)})
"""The types of a payload in a document or a message."""

_MILLISECOND: Final = timedelta(milliseconds=1)

_MAX_SHOWN_NAME: Final = 64
_MAX_TOLD: Final = 100
_MAX_TOLD_CHARACTERS: Final = 2_000
_told_fields: Final[set[str]] = set()
_PARENT_IDS: Final = 2

_logger: Final = get_logger("run_log.core")
_cut_values: Final = metrics.get_meter("run_log.core").create_counter(
    "run_log.payload.cut_values", unit="{value}", description="Payload values cut to fit into a document"
)


def is_label_key(text: str) -> bool:
    """Return whether *text* can be a label's key: at most 63 of ``a-z 0-9 _ . -``, no sign first."""
    return _LABEL_KEY.fullmatch(text) is not None


def is_label(key: str, value: str) -> bool:
    """Return whether this can be a label."""
    return is_label_key(key) and len(value) <= MAX_LABEL_LENGTH


def _to_utc(value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise PydanticCustomError(
            "naive_datetime",
            "{value} has no time zone; pass an aware datetime, such as datetime.now(timezone.utc)",
            {"value": value.isoformat()},
        )
    try:
        moved = value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError(
            "datetime_range", "the datetime lies outside years 1 to 9999 in UTC"
        ) from None
    # A vendor's subclass of datetime survives astimezone(). Firestore's has nanoseconds, which JSON would
    # lose.
    return datetime.combine(moved.date(), moved.timetz())


def is_typed(info: ValidationInfo) -> bool:
    """Return whether the fields come from a document or a message, and so with their types."""
    return info.context is STORED or isinstance(info.context, Received)


def _as_text(value: object, info: ValidationInfo) -> object:
    """Cut a text that is too long. If it is not typed yet, accept anything in its nearest form."""
    if value is None or (is_typed(info) and not isinstance(value, str)):
        return value
    text = value if type(value) is str else as_text(value)
    if isinstance(info.context, Received):
        info.context.cut_texts += len(text.encode(errors="backslashreplace")) > MAX_TEXT_BYTES
    return fit_text(text)


def _as_id(value: object, info: ValidationInfo) -> object:
    """If it is not typed yet, accept whatever has a text: a number, a UUID, a path, a member of an enum."""
    if info.context is STORED:
        return value
    if isinstance(info.context, Received):
        # Another program may have made it.
        return bounded_id(value) if isinstance(value, str) else value
    text = id_text(value)
    if text is None:
        what = f"an id is a text, or has one, as a number or a UUID does; a {type_name(value)} has none"
        raise PydanticCustomError("id_type", "{what}", {"what": what})
    if is_long_id(text):
        what = f"it has {len(text.encode()):,} bytes, an id at most {MAX_ID_BYTES:,}; pass a shorter one"
        raise PydanticCustomError("id_too_long", "{what}", {"what": what})
    return text


def _as_person(value: object, info: ValidationInfo) -> object:
    """Shorten it as `bounded_id` does, but not that of a document."""
    if isinstance(info.context, Received) and isinstance(value, str):
        value = bounded_id(value)
    if value is None or is_typed(info):
        return _as_text(value, info)
    return bounded_id(valid_text(value) if type(value) is str else as_text(value))


def _as_labels(value: object, info: ValidationInfo) -> dict[str, str]:
    """Return the labels that *value* has. What cannot be a label is left out, and logged."""
    if value is None or callable(value):
        return {}
    if info.context is STORED:
        return dict(cast("Mapping[str, str]", value))
    labels: dict[str, str] = {}
    left_out: list[str] = []
    # The code of a foreign object may raise. Then what is read so far is kept.
    with Contained():
        for name, given in sorted(as_payload(value).items()):
            if given is None:
                continue
            text = id_text(given)
            if text is not None and is_label(name, text) and len(labels) < MAX_LABELS:
                labels[name] = text
            else:
                left_out.append(name)
    if left_out:
        _logger.warning(
            "run_log_labels_left_out",
            workflow_id=info.data.get("workflow_id"),
            run_id=info.data.get("id"),
            labels=[fit_text(name, _MAX_SHOWN_NAME) for name in left_out[:MAX_LABELS]],
            hint=LABEL_HINT,
        )
    return labels


def parent_ids(value: object, info: ValidationInfo) -> tuple[str, str] | None:
    """Return the ids of the run that *value* names: a pair, a mapping or an object that has them, or a run.

    What names none is left out, and logged.
    """
    if value is None or callable(value):
        return None
    ids: list[str | None] = []
    with Contained():
        ids = [_parent_id(each, info) for each in _named_ids(value)]
    workflow_id, run_id = ids if len(ids) == _PARENT_IDS else (None, None)
    if workflow_id and run_id:
        return workflow_id, run_id
    what = "a parent is a RunRef, a pair of a workflow's id and a run's"
    if info.context is STORED:
        raise PydanticCustomError("parent", "{what}", {"what": what})
    # A run is worth more than the link to its parent.
    _logger.warning(
        "run_log_parent_left_out",
        workflow_id=info.data.get("workflow_id"),
        run_id=info.data.get("id"),
        hint=what,
    )
    return None


def _named_ids(value: object) -> tuple[object, ...]:
    if isinstance(value, tuple | list):
        return tuple(cast("list[object]", value))
    if isinstance(value, Mapping):
        named = cast("Mapping[str, object]", value)
        return named.get("workflow_id"), named.get("run_id", named.get("id"))
    return getattr(value, "workflow_id", None), getattr(value, "run_id", getattr(value, "id", None))


def _parent_id(value: object, info: ValidationInfo) -> str | None:
    if info.context is STORED:
        return value if isinstance(value, str) else None
    text = id_text(value)
    return bounded_id(text) if text else None


def _as_trace_id(value: object) -> str | None:
    # One without meaning is no reason to lose a run, and all zeros is W3C's word for none.
    if isinstance(value, str) and _TRACE_ID.fullmatch(value) and value.strip("0"):
        return str.__str__(value)
    return None


def _as_error_type(value: object, info: ValidationInfo) -> str | None:
    if value is None:
        return None
    if isinstance(value, type):
        value = qualified_name(cast("type[object]", value))
    text = _as_text(value, info)
    return fit_text(text, MAX_ERROR_TYPE_BYTES) if isinstance(text, str) and text else None


def none_is(default: object) -> Callable[[object], object]:
    """Return a validator that reads None as *default*: platforms write it for an unknown value."""
    return lambda value: default if value is None else value


def _as_milliseconds(value: object, info: ValidationInfo) -> object:
    """Accept a timedelta. If it is not typed yet, read a number that is no duration as 0, for unknown."""
    if value is None:
        return 0
    if is_typed(info) or isinstance(value, str):
        return value
    # If the code of a foreign object raises, the value is not a number, and pydantic refuses it.
    with Contained():
        number = value if type(value) is float or type(value) is int else unwrapped(value)
        if isinstance(number, timedelta):
            number = number / _MILLISECOND
        if not isinstance(number, Real | Decimal):
            return value
        try:
            number = float(number)
        except OverflowError:
            return 0
        return number if 0 <= number < math.inf else 0
    return value


def _not_negative(duration_ms: float) -> float:
    # Earlier versions stored a negative one if clocks differed, and a run seemed to end before it started.
    return max(0.0, duration_ms)


def _as_fraction(value: object) -> float | None:
    # Bounded rather than refused: a run is worth more than how far it says it is.
    with Contained():
        number = float(cast("float", value)) if isinstance(value, Real | Decimal) else math.nan
        return None if math.isnan(number) else min(max(number, 0.0), 1.0)
    return None


def as_progress(value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    """Return how far a run is. What is no progress is left out, and logged."""
    # A platform's own model may have a method `progress`.
    if value is None or callable(value):
        return None
    try:
        return handler(value)
    except ValidationError:
        if info.context is STORED:
            raise
    # Or a field of that name which is a percentage: a run is worth more than how far it says it is.
    _logger.warning(
        "run_log_progress_left_out",
        workflow_id=info.data.get("workflow_id"),
        run_id=info.data.get("id"),
        hint=f"progress is a RunProgress, an object with a fraction and a text, not a {type_name(value)}",
    )
    return None


def _as_payload(value: object, info: ValidationInfo) -> dict[str, Any]:
    """Copy a payload. If it is not typed yet, accept anything in its nearest form."""
    if is_typed(info):
        if type(value) not in STORED_PAYLOADS:
            raise PydanticCustomError("payload_type", "a payload is an object")
        return dict(cast("Mapping[str, Any] | None", value) or {})
    payload = as_payload(value)
    context: object = info.context
    if isinstance(context, list) and value is not None and payload.get(OUTER_KEY) is value:
        cast("list[str | None]", context).append(info.field_name)
    return dict(payload)


UtcDatetime = Annotated[datetime, AfterValidator(_to_utc)]
"""An aware datetime, converted to UTC. A naive one is refused."""

Identifier = Annotated[str, Field(min_length=1, max_length=_MAX_ID_LENGTH), BeforeValidator(_as_id)]
Text = Annotated[str, BeforeValidator(_as_text)]
Person = Annotated[str, BeforeValidator(_as_person)]
Payload = Annotated[dict[str, Any], SkipValidation, BeforeValidator(_as_payload)]
Milliseconds = Annotated[float, BeforeValidator(_as_milliseconds), AfterValidator(_not_negative)]
Labels = Annotated[
    dict[str, str],
    SkipValidation,
    BeforeValidator(_as_labels),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": f"^{_LABEL_KEY.pattern}$"},
            "additionalProperties": {"type": "string", "maxLength": MAX_LABEL_LENGTH},
        }
    ),
]
TraceId = Annotated[
    str | None,
    SkipValidation,
    BeforeValidator(_as_trace_id),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_TRACE_ID.pattern}$"}, {"type": "null"}]}),
]
Fraction = Annotated[float | None, BeforeValidator(_as_fraction)]
ErrorType = Annotated[str | None, BeforeValidator(_as_error_type)]


def further_fields(source: object, *, known: Collection[str]) -> dict[str, object]:
    """Return the public fields of *source*, somebody else's run, that are not *known* ones."""
    found: dict[str, object] = {}
    # If its code raises, nobody knows what else it has.
    with Contained():
        if isinstance(source, dict):
            found = dict(cast("dict[str, object]", source))
        else:
            slots: Mapping[str, object] = getattr(type(source), "__dataclass_fields__", {})
            found = {name: getattr(source, name) for name in slots} | dict(getattr(source, "__dict__", {}))
        return {
            name: value
            for name, value in found.items()
            if type(name) is str and not name.startswith("_") and name not in known and value is not None
        }
    return {}


def tell_of_fields(kind: str, key: tuple[str, str], further: Mapping[str, object]) -> None:
    """Log the names of *further* fields of a run of somebody else's *kind*, once for each kind."""
    told = f"{kind}: {', '.join(sorted(further))}"[:_MAX_TOLD_CHARACTERS]
    if not further or told in _told_fields or len(_told_fields) >= _MAX_TOLD:
        return
    _told_fields.add(told)
    _logger.warning(
        "run_log_fields_left_out",
        workflow_id=key[0],
        run_id=key[1],
        type=kind,
        fields=sorted(further)[:MAX_LABELS],
        hint="a run has no such fields; RUN_LOG_LABEL_FIELDS keeps short ones as labels",
    )


def count_cut(workflow_id: str, run_id: str, values: int) -> None:
    """Count and log how many *values* of a run's payloads and texts were cut, if any were."""
    if values:
        _cut_values.add(values)
        hint = f"they exceed {MAX_PAYLOAD_BYTES} bytes, or their own code raised; the markers say which"
        _logger.warning(
            "run_log_payload_cut", workflow_id=workflow_id, run_id=run_id, values=values, hint=hint
        )
