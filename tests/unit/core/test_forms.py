"""What a pause offers: choices, a form and a default; what cannot be offered is left out, and said."""

from __future__ import annotations

import enum
import json
import logging
from typing import Any

import pytest

from run_log.core import PauseRequest, RunEvent, WorkflowRun, decode_event, encode_event
from run_log.core.forms import MAX_FORM_BYTES, MAX_FORM_LEVELS, MAX_VALUES_BYTES, values_fault
from run_log.core.law import run_digest
from run_log.core.models import snapshot
from run_log.core.nearest import CUT_MARKER, MAX_PAYLOAD_BYTES
from run_log.core.pause_fields import MAX_CHOICE_BYTES, MAX_CHOICES
from run_log.stores.stored.reading import run_from_fields
from run_log.stores.stored.writing import run_fields as stored_fields

from .builders import make_event, message, run_fields

AMOUNT: dict[str, Any] = {
    "type": "object",
    "properties": {"amount": {"type": "number", "maximum": 10}, "lines": {"items": {"type": "string"}}},
    "required": ["amount"],
}


DIGEST = "eoYgkZKdAy4rvZVtkhHL"
"""What the version before this one made of a run that has paused."""


class _Answer(enum.Enum):
    YES = "yes"
    NO = "no"


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"not": value}
    return value


def _left_out(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, ...]]:
    records = [vars(record) for record in caplog.records]
    return [
        (record["workflow_id"], record["run_id"], record["field"])
        for record in records
        if record["event"] == "run_log_pause_left_out"
    ]


@pytest.mark.parametrize(
    "form",
    [
        {"type": "no such type"},
        {"properties": 5},
        {"pattern": "("},
        {"$ref": "https://example.com/form.json"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#"},
        {"$schema": 5},
        {"description": "x" * MAX_FORM_BYTES},
        _deep(MAX_FORM_LEVELS + 1),
        [AMOUNT],
        "a text",
        5,
        dict,
    ],
    ids=lambda form: repr(form)[:40],
)
def test_what_is_no_form_is_left_out(form: object, caplog: pytest.LogCaptureFixture) -> None:
    """A form that nobody could fill in is left out of its pause, and logged with its run."""
    caplog.set_level(logging.WARNING)

    run = WorkflowRun(**run_fields(pause={"reason": "pay?", "form": form}))

    assert PauseRequest(reason="pay?") == run.pause
    assert [("w1", "r1", "form")] == _left_out(caplog)


@pytest.mark.parametrize(
    "form",
    [
        AMOUNT,
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"default": {"$ref": "https://example.com"}},
        {"properties": {"a": {"format": "date"}, "$ref": {"type": "string"}}},
        _deep(MAX_FORM_LEVELS),
    ],
    ids=lambda form: repr(form)[:40],
)
def test_a_form_is_kept(form: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """A JSON Schema is kept as a copy, as a message and in a document too."""
    pause = PauseRequest(form=form)

    assert form == pause.form
    assert form is not pause.form
    event = make_event(pause=pause)
    assert event == decode_event(encode_event(event))
    assert event.run == run_from_fields(stored_fields(event.run), event.key)
    assert [] == _left_out(caplog)


def test_a_default_is_one_of_the_choices(caplog: pytest.LogCaptureFixture) -> None:
    """A default that is no choice is left out, and logged."""
    caplog.set_level(logging.WARNING)

    kept = PauseRequest(choices=("pay", "wait"), default_choice="wait")
    left = [PauseRequest(choices=("pay",), default_choice="wait"), PauseRequest(default_choice="wait")]

    assert (("pay", "wait"), "wait") == (kept.choices, kept.default_choice)
    assert [PauseRequest(choices=("pay",)), PauseRequest()] == left
    assert [(None, None, "default_choice")] * 2 == _left_out(caplog)


CHOICES: list[tuple[Any, tuple[str, ...], int]] = [
    (["a", "b", "a"], ("a", "b"), 0),
    ("yes", ("yes",), 0),
    (_Answer, ("yes", "no"), 0),
    ([_Answer.NO, 5], ("no", "5"), 0),
    ({"a": 1}, (), 1),
    (["a", None, "", {}], ("a",), 3),
    (5, ("5",), 0),
    (None, (), 0),
    ([f"{n}" for n in range(MAX_CHOICES + 5)], tuple(f"{n}" for n in range(MAX_CHOICES)), 1),
    (["\ud800"], ("\\ud800",), 0),
]


@pytest.mark.parametrize(("given", "kept", "losses"), CHOICES)
def test_choices_are_texts(
    given: Any, kept: tuple[str, ...], losses: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever has a text is a choice, each once; what has none is left out, and logged."""
    caplog.set_level(logging.WARNING)

    assert kept == PauseRequest(choices=given).choices
    assert [(None, None, "choices")] * losses == _left_out(caplog)


def test_long_choices_and_values_are_cut() -> None:
    """A choice and the values of an answer are cut as other texts and payloads are."""
    long = "c" * (MAX_CHOICE_BYTES + 1)
    pause = PauseRequest(
        choices=(long,), default_choice=long, choice=long, values={"a": 1, "b": "x" * MAX_VALUES_BYTES}
    )

    assert MAX_CHOICE_BYTES == len(pause.choices[0])
    assert pause.choices[0] == pause.choice == pause.default_choice
    assert pause.values is not None
    assert 1 == pause.values["a"]
    assert pause.values["b"].startswith(CUT_MARKER)


def test_values_take_their_nearest_form(caplog: pytest.LogCaptureFixture) -> None:
    """Values are copied in JSON types; what nests too deep is left out; a method of that name is none."""
    caplog.set_level(logging.WARNING)
    given: dict[str, Any] = {"when": {_Answer.YES}, "list": [1]}

    pause = PauseRequest.model_validate({"values": given, "form": {}.items})
    given["list"].append(2)

    assert ({"when": ["yes"], "list": [1]}, None) == (pause.values, pause.form)
    assert PauseRequest(values=_deep(MAX_FORM_LEVELS + 2)).values is None
    assert [(None, None, "values")] == _left_out(caplog)


@pytest.mark.parametrize(
    ("field", "value"), [("form", 5), ("values", [1]), ("choices", 5), ("default_choice", {}), ("choice", 5)]
)
def test_a_foreign_body_with_something_else_keeps_its_pause(field: str, value: object) -> None:
    """A message whose pause offers what nobody can use is an event all the same, without that."""
    body: dict[str, Any] = {**_body_of(make_event(pause=PauseRequest(reason="pay?")))}
    body["run"]["pause"][field] = value

    pause = decode_event(message(body)).run.pause

    assert pause is not None
    assert "pay?" == pause.reason
    assert not getattr(pause, field) or (field, pause.choices) == ("choices", ())


def test_without_an_offer_a_body_and_a_digest_are_those_of_before() -> None:
    """A pause that offers nothing has the body, the document and the digest of schema 1-0-1."""
    event = make_event(pause=PauseRequest(reason="pay?", comment="no"))

    before = ["reason", "assignee", "deadline", "answered_by", "comment"]
    assert before == list(_body_of(event)["run"]["pause"]) == list(stored_fields(event.run)["pause"])
    assert DIGEST == run_digest(event.run)


def test_an_offer_takes_of_the_payloads_room() -> None:
    """Payloads, form, values and choices together take no more than payloads alone may."""
    pause = PauseRequest(form={"description": "d" * 30_000}, values={"v": "v" * 30_000})
    payload = {"a": "x" * (MAX_PAYLOAD_BYTES // 2 + 1_000), "b": "y" * (MAX_PAYLOAD_BYTES // 2 - 40_000)}

    kept = snapshot(run_fields(trigger_data=payload))
    cut = snapshot(run_fields(trigger_data=payload, pause=pause))

    assert payload == kept.trigger_data
    assert cut.trigger_data["a"].startswith(CUT_MARKER)
    assert payload["b"] == cut.trigger_data["b"]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"amount": 5, "other": 1}, ""),
        ({}, "values: 'amount' is a required property"),
        ({"amount": 11}, "values.amount: 11 is greater than the maximum of 10"),
        ({"amount": 1, "lines": ["a", 2]}, "values.lines.1: 2 is not of type 'string'"),
    ],
)
def test_values_are_checked_by_field(values: dict[str, Any], fault: str) -> None:
    """What does not fit a form is named by its field."""
    assert fault == (values_fault(AMOUNT, values) or "")


def test_a_stored_form_that_cannot_be_used_is_said() -> None:
    """A form that only another program can have stored fits no values, and raises nothing."""
    assert "cannot be used" in (values_fault({"$ref": "https://example.com/x"}, {}) or "")


def _body_of(event: RunEvent) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_event(event).data)
    return body
