"""Forms that are made of JSON Schemas, and the values that people fill them in with."""

from __future__ import annotations

from typing import Any

import pytest

from run_log.core import PauseRequest, RunStatus
from run_log.dashboard.pages.forms import Answering, Field, fields_of, filled_in, values_of
from run_log.testing import a_run

INTEGER: dict[str, Any] = {"type": "integer"}


def one(schema: Any, **form: Any) -> Field:
    """Return the field of a property with this *schema*."""
    (field,) = fields_of({"properties": {"a": schema}, **form})
    return field


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "maxLength": 500}, "textarea"),
        ({"type": "string", "format": "date"}, "date"),
        ({"type": "string", "format": "date-time"}, "datetime-local"),
        ({"type": "string", "format": "email"}, "email"),
        ({"type": "string", "format": "hostname"}, "text"),
        ({"type": "number"}, "number"),
        (INTEGER, "integer"),
        ({"type": "boolean"}, "checkbox"),
        ({"enum": [1, "1", None]}, "select"),
        ({"const": "x"}, "select"),
        ({"type": "array"}, "json"),
        ({"type": "object", "properties": {}}, "json"),
        ({"type": ["integer", "null"]}, "integer"),
        ({"type": ["integer", "string"]}, "json"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer"),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, "json"),
        ({"$ref": "#/$defs/n"}, "integer"),
        ({"$ref": "#/$defs/a~1b"}, "checkbox"),
        ({"$ref": "#/$defs/missing"}, "json"),
        ({"$ref": "#/$defs/loop"}, "json"),
        ({}, "json"),
        (True, "json"),
        ({"type": "string", "maxLength": "9"}, "text"),
        ({"type": "string", "format": 7, "title": 7, "description": []}, "text"),
    ],
)
def test_kinds(schema: Any, kind: str) -> None:
    """Each kind of value has the field that suits it; what has none is written as JSON."""
    definitions = {"n": INTEGER, "a/b": {"type": "boolean"}, "loop": {"$ref": "#/$defs/loop"}}

    assert kind == one(schema, **{"$defs": definitions}).kind


def test_what_a_field_tells() -> None:
    """A field has the schema's title, hint, limits and default, also those around a reference."""
    schema = {"$ref": "#/$defs/n", "title": "Rows", "description": "At most.", "default": 3}
    limited = {"type": "integer", "title": "n", "minimum": 1, "maximum": 9, "multipleOf": 2}

    field = one(schema, required=["a"], **{"$defs": {"n": limited}})

    assert ("Rows", "At most.", "3", True) == (field.label, field.hint, field.text, field.is_needed)
    assert {"min": 1, "max": 9, "step": "1"} == field.limits
    assert ("values.a", "a") == (one({}).input, one({}).label)


def test_choices() -> None:
    """Choices are told by their text, and by their JSON where that is another's text."""
    field = one({"enum": [1, "1", "x", None, [2]], "default": "x"})

    assert {"1": 1, '"1"': "1", "x": "x", "null": None, "[2]": [2]} == field.choices
    assert "x" == field.text


ALTERNATIVES: list[Any] = [{"const": 1, "title": "Low"}, {"const": 2, "title": "High"}, {"type": "null"}]


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf"])
def test_choices_with_titles(keyword: str) -> None:
    """Alternatives of one value each are choices, told by their titles; null may be among them."""
    field = one({keyword: ALTERNATIVES, "default": 2})

    assert ("select", {"Low": 1, "High": 2}, "High") == (field.kind, field.choices, field.text)


def test_choices_without_titles() -> None:
    """Where an alternative has no title of its own, all are told by their values."""
    same = [{"const": 1, "title": "a"}, {"const": 2, "title": "a"}]

    assert {"1": 1, "b": "b"} == one({"oneOf": [{"const": 1, "title": "One"}, {"const": "b"}]}).choices
    assert {"1": 1, "2": 2} == one({"oneOf": same}).choices


@pytest.mark.parametrize(("default", "text"), [("1", '"1"'), (1, "1"), (True, "true"), ("none of them", "")])
def test_the_default_of_choices(default: Any, text: str) -> None:
    """The default of choices is the one that has its value and its type."""
    assert text == one({"enum": ["1", 1, True], "default": default}).text


@pytest.mark.parametrize(
    ("default", "text"),
    [
        ("2026-03-04T12:00:00Z", "2026-03-04T12:00:00"),
        ("2026-03-04T12:00:30.5+01:00", "2026-03-04T11:00:30"),
        ("2026-03-04T12:00", "2026-03-04T12:00:00"),
        ("0001-01-01T00:00:00+01:00", ""),
        ("soon", ""),
        (7, ""),
    ],
)
def test_the_default_of_a_time(default: Any, text: str) -> None:
    """A default time stands in its field as browsers take it: in UTC, without a zone."""
    assert text == one({"type": "string", "format": "date-time", "default": default}).text


@pytest.mark.parametrize(
    ("schema", "hint"),
    [
        ({"type": "array", "items": {"enum": ["red"]}, "description": "Some."}, 'Some. Such as ["red"]'),
        (
            {"type": "object", "properties": {"at": {"type": "string"}, "n": {"$ref": "#/$defs/n"}, "x": {}}},
            'Such as {"at":"text","n":1,"x":null}',
        ),
        ({"type": "array"}, "Such as []"),
        ({"$ref": "#/$defs/list"}, "Such as [[[[]]]]"),
        ({}, ""),
    ],
)
def test_what_is_written_as_json_has_an_example(schema: Any, hint: str) -> None:
    """A field for JSON shows a value of the form that is asked for, where the schema says one."""
    endless = {"type": "array", "items": {"$ref": "#/$defs/list"}}

    assert hint == one(schema, **{"$defs": {"n": INTEGER, "list": endless}}).hint


VALUES: list[tuple[Any, str, Any]] = [
    ({"type": "string"}, "a\r\nb", "a\nb"),
    ({"type": "number"}, "12.50", 12.5),
    ({"type": "number"}, "7", 7),
    ({"type": "number"}, "-1e3", -1000.0),
    (INTEGER, "9007199254740993", 9007199254740993),
    ({"type": "boolean"}, "true", True),
    ({"type": "boolean"}, "false", False),
    ({"enum": [1, None]}, "null", None),
    ({"type": "array"}, "[1, {}]", [1, {}]),
    ({"oneOf": ALTERNATIVES}, "High", 2),
    ({"type": "string", "format": "date"}, "2026-03-04", "2026-03-04"),
    ({"type": "string", "format": "date-time"}, "2026-03-04T12:00", "2026-03-04T12:00:00Z"),
    ({"type": "string", "format": "date-time"}, "2026-03-04T12:00:30", "2026-03-04T12:00:30Z"),
    ({"type": "string", "format": "date-time"}, "2026-03-04T12:00+01:00", "2026-03-04T12:00+01:00"),
]


@pytest.mark.parametrize(("schema", "text", "value"), VALUES)
def test_values(schema: Any, text: str, value: Any) -> None:
    """What is typed becomes a value of its kind."""
    fields = filled_in([one(schema)], {"values.a": text})

    assert [""] == [field.fault for field in fields]
    assert {"a": value} == values_of(fields)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "number"}, "many"),
        ({"type": "number"}, "1e999"),
        ({"type": "number"}, "\u0661"),
        (INTEGER, "1.5"),
        (INTEGER, "1_000"),
        ({"enum": ["a"]}, "b"),
        ({"type": "array"}, "[1"),
        ({"type": "array"}, "[" * 100_000),
    ],
)
def test_what_is_no_value(schema: Any, text: str) -> None:
    """What is no value of its kind is told, and stays."""
    (field,) = filled_in([one(schema)], {"values.a": text})

    assert field.fault.startswith("This is no")
    assert text == field.text


def test_what_is_left_empty() -> None:
    """An empty field has no value; one that is needed says so; a box that is not checked is false."""
    form = {"properties": {"a": INTEGER, "b": INTEGER, "c": {"type": "boolean"}}, "required": ["b", "c"]}

    fields = filled_in(fields_of(form), {"values.a": ""})

    assert ["", "Fill this in.", ""] == [field.fault for field in fields]
    assert {"c": False} == values_of(fields[::2])


@pytest.mark.parametrize(
    "form", [{"title": "All", "type": "object"}, {"properties": {}}, {"properties": 7, "required": 7}]
)
def test_a_form_without_properties(form: dict[str, Any]) -> None:
    """A form without properties is one field for all of it, as JSON."""
    (field,) = fields_of(form)

    assert ("values", "json") == (field.input, field.kind)
    assert {"x": 1} == values_of(filled_in([field], {"values": '{"x": 1}'}))


def test_no_form() -> None:
    """A pause without a form has no field."""
    assert [] == fields_of(None)


def test_what_the_schema_says() -> None:
    """What the schema says of a value stands at its field, and what it says of the whole stands above."""
    form = {"properties": {"a": INTEGER, "b": {"type": "array", "items": INTEGER}}, "minProperties": 3}
    run = a_run(status=RunStatus.PAUSED, pause=PauseRequest(form=form))

    answering = Answering.asked(run, "v", "mei").checked(
        {"values.a": "1", "values.b": '[1, "x"]'}, is_rejection=False
    )

    assert not answering.is_right
    assert ["", "'x' is not of type 'integer'"] == [field.fault for field in answering.fields]
    assert ["{'a': 1, 'b': [1, 'x']} does not have enough properties"] == list(answering.faults)
