"""Forms: what a pause asks for, as a JSON Schema, and whether an answer's values fit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from itertools import islice
from typing import Any, Final, cast

from .payload import decode_json, is_deeper

MAX_FORM_BYTES: Final = 32_768
"""The most bytes of JSON text that a form takes."""

MAX_VALUES_BYTES: Final = 32_768
"""The most bytes of JSON text that the values of an answer take."""

MAX_FORM_LEVELS: Final = 32
"""The most levels of lists and objects in a form, and in the values of an answer."""

_REMEMBERED_FORMS: Final = 64
_MAX_FAULTS: Final = 5
_MAX_FAULT: Final = 300

# What stands there is data, and no schema.
_DATA: Final = frozenset({"const", "default", "enum", "examples"})


@lru_cache(_REMEMBERED_FORMS)
def form_fault(text: str) -> str | None:
    """Return why the JSON *text* of an object is no form; None if it is one.

    A form is a JSON Schema that needs no other document. Each state of a run repeats it, so what was found
    is remembered.
    """
    if len(text) > MAX_FORM_BYTES:
        return f"it has {len(text)} bytes, the most are {MAX_FORM_BYTES}"
    if is_deeper(text, MAX_FORM_LEVELS):
        return f"it nests more than {MAX_FORM_LEVELS} levels"
    form: dict[str, Any] = decode_json(text)
    # There is no list of what a schema may make the library raise.
    try:
        validator = _validator(form)
        validator.check_schema(form)
        referencing = import_module("referencing")
        specification = import_module("referencing.jsonschema").DRAFT202012
        resource = referencing.Resource.from_contents(form, default_specification=specification)
        resolver = referencing.Registry().with_resource("", resource).resolver()
        for reference in _references(form):
            resolver.lookup(reference)
        # One that only refers to itself would end no answer.
        validator.is_valid({})
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody could answer such a form
        told = getattr(error, "message", error)  # of a fault in a schema, not the schema
        return f"it is no JSON Schema ({type(error).__name__}: {told})"[:_MAX_FAULT]
    return None


def values_fault(form: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with *values* by their *form*, each field by its name; None if they fit."""
    return "; ".join(
        f"{'.'.join(map(str, ('values', *path)))}: {message}"[:_MAX_FAULT]
        for path, message in values_faults(form, values)
    )


def values_faults(
    form: Mapping[str, Any], values: Mapping[str, Any]
) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what is wrong with *values* by their *form*: where, and what; of many faults the first."""
    try:
        found: list[Any] = list(islice(_validator(form).iter_errors(values), _MAX_FAULTS))
    except Exception as error:  # noqa: BLE001 - another program may have stored the form
        return [((), f"the form cannot be used ({type(error).__name__}: {error})")]
    return [(tuple(fault.absolute_path), fault.message) for fault in found]


def _validator(form: Mapping[str, Any]) -> Any:
    # Most runs have no form, and the library takes a tenth of a second to load.
    validators = import_module("jsonschema.validators")
    kind = validators.validator_for(form, default=validators.Draft202012Validator)
    # By default the library fetches what a schema refers to from the network.
    registry = import_module("jsonschema_specifications").REGISTRY
    return kind(form, registry=registry, format_checker=kind.FORMAT_CHECKER)


def _references(form: object) -> Iterator[str]:
    ahead = [form]
    while ahead:
        part = ahead.pop()
        if isinstance(part, dict):
            for key, value in cast("dict[str, object]", part).items():
                if key in {"$ref", "$dynamicRef"} and isinstance(value, str):
                    yield value
                elif key not in _DATA:
                    ahead.append(value)
        elif isinstance(part, list):
            ahead += cast("list[object]", part)
