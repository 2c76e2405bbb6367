"""Forms: the fields that a JSON Schema asks for, and the values that people fill them in with."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Self, cast

from run_log.core import PauseRequest, WorkflowRun
from run_log.core.forms import values_faults
from run_log.core.payload import decode_foreign_json, encode_json

WHOLE: Final = "values"
"""The name of the one field of a form without properties; each property's is ``values.NAME``."""

_MOST_REFERENCES: Final = 8
_LONG_TEXT: Final = 200
_DEEPEST_EXAMPLE: Final = 3
_EXAMPLES: Final[Mapping[str, Any]] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_LOCAL_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?")
_INPUTS: Final = {
    "date": "date",
    "date-time": "datetime-local",
    "email": "email",
    "time": "time",
    "uri": "url",
}
_LIMITS: Final = {
    "minimum": "min",
    "maximum": "max",
    "minLength": "minlength",
    "maxLength": "maxlength",
    "formatMinimum": "min",
    "formatMaximum": "max",
}


class NotFilledInError(ValueError):
    """What stands in a field is no value of its kind. The message says what is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form."""

    name: str
    """The property's; empty for the whole object."""
    kind: str
    """``select``, ``checkbox``, ``textarea``, ``json``, or the type of an ``input``."""
    label: str
    hint: str = ""
    is_needed: bool = False
    text: str = ""
    """What it is filled in with; of a checkbox ``true`` or ``false``."""
    choices: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The values to choose from, by the text of each."""
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Attributes of the input."""
    fault: str = ""

    @property
    def input(self) -> str:
        """The name that it has among what a browser sends."""
        return f"{WHOLE}.{self.name}" if self.name else WHOLE

    def value(self) -> Any:
        """Return the value of `text`.

        Raises:
            NotFilledInError: It is none of its kind.
        """
        if self.kind == "select":
            if self.text not in self.choices:
                raise NotFilledInError("This is none of the choices.")
            return self.choices[self.text]
        return _VALUES.get(self.kind, str)(self.text)


def fields_of(form: Mapping[str, Any] | None) -> list[Field]:
    """Return the fields that *form* asks for, filled in with its defaults."""
    if not form:
        return []
    properties = form.get("properties")
    if not isinstance(properties, dict) or not properties:
        return [Field(name="", kind="json", label=_text(form.get("title")) or "Values, as JSON", text="{}")]
    needed = form.get("required")
    names = set(cast("list[str]", needed)) if isinstance(needed, list) else set[str]()
    return [
        _field(name, _resolved(schema, form), form, is_needed=name in names)
        for name, schema in cast("dict[str, Any]", properties).items()
    ]


def _field(name: str, schema: Mapping[str, Any], form: Mapping[str, Any], *, is_needed: bool) -> Field:
    kind = _kind(schema)
    choices = _choices(schema)
    limits = {_LIMITS[key]: value for key, value in schema.items() if key in _LIMITS and _is_limit(value)}
    if kind == "number":
        limits["step"] = "1" if schema.get("type") == "integer" else "any"
    hints = [_text(schema.get("description")), _example_hint(schema, form) if kind == "json" else ""]
    return Field(
        name=name,
        kind="integer" if limits.get("step") == "1" else kind,
        label=_text(schema.get("title")) or name,
        hint=" ".join(filter(None, hints)),
        is_needed=is_needed and kind != "checkbox",
        text=_default(schema.get("default"), kind, choices),
        choices=choices,
        limits=limits,
    )


def _choices(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values to choose from, by the text of each: its title, or else itself."""
    constants = _constants(schema)
    titled = {_text(each.get("title")): each["const"] for each in constants}
    if titled and "" not in titled and len(titled) == len(constants):
        return titled
    listed = [each["const"] for each in constants]
    offered = listed or _listed(schema.get("enum")) or ([schema["const"]] if "const" in schema else [])
    # A text stands for itself, unless another value is written like it.
    choices = {_json(value): value for value in offered if not isinstance(value, str)}
    return choices | {
        _json(value) if value in choices else value: value for value in offered if isinstance(value, str)
    }


def _constants(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives of *schema*, if each is one value; else none."""
    several = _listed(schema.get("oneOf", schema.get("anyOf")))
    found = [cast("dict[str, Any]", each) for each in several if isinstance(each, dict) and "const" in each]
    return found if len(found) == len(several) else []


def _default(default: object, kind: str, choices: Mapping[str, Any]) -> str:
    if default is None:
        return ""
    if kind == "select":
        # As JSON: 1 is not True, and not "1".
        return next((text for text, value in choices.items() if _json(value) == _json(default)), "")
    if kind == "datetime-local":
        return _local_time(default)
    return default if isinstance(default, str) and kind != "json" else _json(default)


def _local_time(moment: object) -> str:
    """Return *moment* as a browser takes it, in UTC and without saying so; empty for what is no time."""
    try:
        found = datetime.fromisoformat(_text(moment))
        utc = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return utc.replace(tzinfo=None).isoformat(timespec="seconds")


def _example_hint(schema: Mapping[str, Any], form: Mapping[str, Any]) -> str:
    example = _example(schema, form, _DEEPEST_EXAMPLE)
    return "" if example is None else f"Such as {_json(example)}"


def _example(schema: object, form: Mapping[str, Any], deepest: int) -> Any:
    """Return a value of the form that *schema* asks for; None where it does not say."""
    wanted = _resolved(schema, form)
    if choices := _choices(wanted):
        return next(iter(choices.values()))
    if wanted.get("type") == "array":
        one = _example(wanted.get("items"), form, deepest - 1) if deepest else None
        return [] if one is None else [one]
    if wanted.get("type") == "object":
        properties = wanted.get("properties")
        named = cast("dict[str, Any]", properties) if deepest and isinstance(properties, dict) else {}
        return {name: _example(each, form, deepest - 1) for name, each in named.items()}
    return _EXAMPLES.get(_text(wanted.get("type")))


def _kind(schema: Mapping[str, Any]) -> str:
    if _choices(schema):
        return "select"
    kind = schema.get("type")
    if kind == "boolean":
        return "checkbox"
    if kind in {"number", "integer"}:
        return "number"
    if kind != "string":
        return "json"
    wanted = _INPUTS.get(_text(schema.get("format")))
    if wanted is None and isinstance(most := schema.get("maxLength"), int) and most > _LONG_TEXT:
        return "textarea"
    return wanted or "text"


def _resolved(schema: object, form: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *schema* with what it refers to within *form*, and without that it may also be null."""
    found: dict[str, Any] = dict(cast("Mapping[str, Any]", schema)) if isinstance(schema, dict) else {}
    for _ in range(_MOST_REFERENCES):
        if kinds := _listed(found.get("type")):
            one = [kind for kind in kinds if kind != "null"]
            found["type"] = one[0] if len(one) == 1 else None
        if several := _listed(found.get("anyOf", found.get("oneOf"))):
            rest = [each for each in several if each != {"type": "null"}]
            around = {key: value for key, value in found.items() if key not in {"anyOf", "oneOf"}}
            if _constants({"oneOf": rest}):
                return {**around, "oneOf": rest}
            if len(rest) != 1 or not isinstance(rest[0], dict):
                return {key: around[key] for key in ("title", "description", "default") if key in around}
            found = {**cast("dict[str, Any]", rest[0]), **around}
        elif isinstance(path := found.get("$ref"), str):
            around = {key: value for key, value in found.items() if key != "$ref"}
            found = {**_referred(path, form), **around}
        else:
            return found
    return {}


def _listed(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _referred(path: str, form: Mapping[str, Any]) -> dict[str, Any]:
    found: Any = form
    for part in path.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
    return dict(cast("dict[str, Any]", found)) if isinstance(found, dict) else {}


def filled_in(fields: Iterable[Field], given: Mapping[str, str]) -> list[Field]:
    """Return *fields* with the texts that a browser has sent, and what is wrong with each."""
    return [_filled_in(each, given.get(each.input)) for each in fields]


def _filled_in(each: Field, text: str | None) -> Field:
    if each.kind == "checkbox":
        # A browser sends nothing of one that is not checked.
        return replace(each, text="false" if text in {None, "", "false"} else "true")
    # Browsers end lines as the network does.
    text = (text or "").replace("\r\n", "\n")
    now = replace(each, text=text)
    if not text:
        return replace(now, fault="Fill this in." if each.is_needed else "")
    try:
        now.value()
    except NotFilledInError as error:
        return replace(now, fault=str(error))
    return now


def values_of(fields: Iterable[Field]) -> dict[str, Any]:
    """Return the values of *fields*, of which none has a fault; what is empty is left out."""
    values = {each.name: each.value() for each in fields if each.text}
    return cast("dict[str, Any]", values.get("", values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """The form that a paused run is answered with, as somebody has filled it in so far."""

    pause: PauseRequest
    version: str
    """Of the pause that is shown."""
    fields: Sequence[Field]
    signed_in: str | None
    """Who answers; None where nobody signs in, and a field asks."""
    name: str = ""
    comment: str = ""
    faults: Sequence[str] = ()
    """What is wrong beside what fields say."""
    name_fault: str = ""

    @classmethod
    def asked(cls, run: WorkflowRun, version: str, signed_in: str | None, *, name: str = "") -> Self:
        """Return the form of *run* before anybody has filled it in."""
        pause = run.pause or PauseRequest()
        return cls(pause=pause, version=version, fields=fields_of(pause.form), signed_in=signed_in, name=name)

    def checked(self, given: Mapping[str, str], *, is_rejection: bool) -> Self:
        """Return the form with what a browser has sent: *given*, by names of fields; faults included.

        To reject a run, nothing has to be filled in.
        """
        now = replace(
            self,
            fields=filled_in(self.fields, given),
            name=given.get("answered_by", "").strip(),
            comment=given.get("comment", "").replace("\r\n", "\n").strip(),
        )
        if not (now.signed_in or now.name):
            now = replace(now, name_fault="Say who you are.")
        if is_rejection:
            return replace(now, fields=[replace(each, fault="") for each in now.fields])
        if now.pause.form is None:
            return now
        right = [each for each in now.fields if not each.fault]
        at_fields, others = _faults_of(right, now.pause.form)
        fields = [replace(each, fault=each.fault or at_fields.get(each.name, "")) for each in now.fields]
        # Where a field has no value, that it is missing is no news.
        return replace(now, fields=fields, faults=others if len(right) == len(fields) else ())

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong with it."""
        return not (self.faults or self.name_fault or any(each.fault for each in self.fields))


def _faults_of(fields: Sequence[Field], form: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return what *form* says is wrong with what *fields* are filled in with: by field, and of the whole."""
    at_fields: dict[str, str] = {}
    others: list[str] = []
    names = {each.name for each in fields}
    for path, message in values_faults(form, values_of(fields)):
        name = str(path[0]) if path else ""
        if name in names:
            at_fields.setdefault(name, message)
        else:
            others.append(message)
    return at_fields, others


def _number(text: str) -> float | int:
    if _INTEGER.fullmatch(text.strip()):
        return int(text)
    if not _NUMBER.fullmatch(text.strip()) or not math.isfinite(number := float(text)):
        raise NotFilledInError("This is no number, such as 12.5.")
    return number


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text.strip()):
        raise NotFilledInError("This is no whole number.")
    return int(text)


def _parsed(text: str) -> Any:
    try:
        return decode_foreign_json(text)
    except (ValueError, RecursionError) as error:
        raise NotFilledInError(f"This is no JSON: {error}.") from error


def _moment(text: str) -> str:
    if not _LOCAL_TIME.fullmatch(text):
        return text
    # The field asks for UTC, and browsers send no zone.
    return f"{text}Z" if text.count(":") > 1 else f"{text}:00Z"


_VALUES: Final[Mapping[str, Any]] = {
    "number": _number,
    "integer": _integer,
    "checkbox": _parsed,
    "json": _parsed,
    "datetime-local": _moment,
}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if _is_flat(value) else encode_json(value)


def _is_flat(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _is_limit(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
