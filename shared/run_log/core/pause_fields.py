"""The fields of a pause: what a human is offered, and what they chose and filled in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, Final, cast

from pydantic import (
    BeforeValidator,
    SkipValidation,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from .fields import STORED, STORED_PAYLOADS, Received, count_cut, is_typed
from .forms import MAX_FORM_LEVELS, MAX_VALUES_BYTES, form_fault
from .ids import id_text
from .logs import get_logger
from .nearest import OUTER_KEY, Contained, type_name
from .payload import as_payload, decode_json, detached, encode_json, fit_text, is_deeper

MAX_CHOICES: Final = 50
"""The most choices of a pause."""

MAX_CHOICE_BYTES: Final = 1_024
"""The most bytes of UTF-8 that a choice takes."""

_logger: Final = get_logger("run_log.core")

# The workflow and the run whose pause is read, for the log.
_run_at_hand: Final = ContextVar[tuple[object, object]]("run_log_run_at_hand", default=(None, None))


def as_pause(value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    """Return the pause of a run. What is left out of it is logged with the run's ids."""
    # A platform's own model may have a method `pause`.
    if value is None or callable(value):
        return None
    token = _run_at_hand.set((info.data.get("workflow_id"), info.data.get("id")))
    try:
        return handler(value)
    finally:
        _run_at_hand.reset(token)


def _left_out(field: str | None, cause: str) -> None:
    # A pause is worth more than what it offers.
    workflow_id, run_id = _run_at_hand.get()
    _logger.warning(
        "run_log_pause_left_out", workflow_id=workflow_id, run_id=run_id, field=field, cause=cause
    )


def _is_absent(value: object) -> bool:
    # A platform's own pause may be a mapping, which has a method `values`.
    return value is None or (callable(value) and not isinstance(value, type))


def _as_choices(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """Return the texts of *value*, each once. What cannot be a choice is left out, and logged."""
    if _is_absent(value):
        return ()
    if info.context is STORED:
        return tuple(cast("list[str]", value))
    texts: list[str] = []
    # The code of a foreign object may raise. Then what is read so far is kept.
    with Contained():
        given: Collection[object] = (value,)
        if isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping):
            given = cast("Collection[object]", value)
        for each in given:
            text = _as_choice(each, info)
            if not isinstance(text, str):
                _left_out("choices", f"a choice is a text, and not empty, not a {type_name(each)}")
            elif text not in texts:
                texts.append(text)
            if len(texts) > MAX_CHOICES:
                _left_out("choices", f"it has more than {MAX_CHOICES}; the first are kept")
                break
    return tuple(texts[:MAX_CHOICES])


def _as_choice(value: object, info: ValidationInfo) -> object:
    if value is None or info.context is STORED:
        return value
    text = value if is_typed(info) else id_text(value)
    return fit_text(text, MAX_CHOICE_BYTES) or None if isinstance(text, str) else None


def _as_default_choice(value: object, info: ValidationInfo) -> object:
    choice = _as_choice(value, info)
    if value is None or info.context is STORED or choice in info.data.get("choices", ()):
        return choice
    _left_out(info.field_name, "it is none of the choices")
    return None


def _stored_object(value: object) -> dict[str, Any]:
    # As text: a document of Firestore holds no list in a list, and no large integer.
    found = decode_json(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise PydanticCustomError("object", "it is an object, or the JSON text of one")
    return dict(cast("Mapping[str, Any]", found))


def _as_form(value: object, info: ValidationInfo) -> dict[str, Any] | None:
    """Return a copy of *value* if it is a JSON Schema. Else it is left out, and logged."""
    if _is_absent(value):
        return None
    if info.context is STORED:
        return _stored_object(value)
    text = cause = ""
    with Contained():
        payload = as_payload(value)
        if not _has_keys(value, payload):
            cause = f"a form is a JSON Schema as an object, not a {type_name(value)}"
        else:
            text = encode_json(payload)
            cause = form_fault(text) or ""
    if cause or not text:
        _left_out(info.field_name, cause or "its own code raised")
        return None
    return decode_json(text) or None


def _has_keys(value: object, payload: Mapping[str, Any]) -> bool:
    return payload.get(OUTER_KEY) is not value or isinstance(value, Mapping)


def _as_values(value: object, info: ValidationInfo) -> dict[str, Any] | None:
    """Return a copy of *value*, in its nearest form, cut to what is kept of it."""
    if _is_absent(value):
        return None
    if info.context is STORED:
        return _stored_object(value)
    if isinstance(info.context, Received) and type(value) not in STORED_PAYLOADS:
        _left_out(info.field_name, f"values are an object, not a {type_name(value)}")
        return None
    (values,), cut = detached(value, limit=MAX_VALUES_BYTES)
    if is_deeper(encode_json(values), MAX_FORM_LEVELS):
        _left_out(info.field_name, f"it nests more than {MAX_FORM_LEVELS} levels")
        return None
    workflow_id, run_id = _run_at_hand.get()
    count_cut(str(workflow_id), str(run_id), cut)
    return values or None


Choices = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_choices),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "maxItems": MAX_CHOICES}),
]
Choice = Annotated[str | None, BeforeValidator(_as_choice)]
DefaultChoice = Annotated[str | None, BeforeValidator(_as_default_choice)]
_OBJECT: Final = {"anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}]}
Form = Annotated[dict[str, Any] | None, SkipValidation, BeforeValidator(_as_form), WithJsonSchema(_OBJECT)]
Values = Annotated[
    dict[str, Any] | None, SkipValidation, BeforeValidator(_as_values), WithJsonSchema(_OBJECT)
]
