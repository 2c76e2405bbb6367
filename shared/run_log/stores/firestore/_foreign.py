"""Documents that something else than run-log stored, in the form of the service that run-log began from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from run_log.core import TriggerType, UnreadableRunError, WorkflowRun
from run_log.core.ids import document_id
from run_log.core.models import is_trigger_word
from run_log.stores.stored.fields import ADDED_FIELDS, ADDED_TO_PAUSE
from run_log.stores.stored.reading import key_at, run_from_fields

NAIVE_TIME: Final = "runs with times without an offset, taken as UTC"
OTHER_TRIGGER: Final = "runs whose trigger type is no word, stored as 'manual'"

_TIMES: Final = ("started_at", "completed_at")


def foreign_run(fields: Mapping[str, Any], *, place: tuple[str, str]) -> tuple[WorkflowRun, set[str]]:
    """Return the run of a document without a projection map, and what was assumed to read it.

    Times may be ISO 8601 text, payloads maps, words in any case. Optional fields and ids may be missing.
    *place* is the ids of the workflow's document and of its own, escaped as run-log does or not at all.

    Raises:
        UnreadableRunError: They do not hold a run, or that of another place.
    """
    key = key_at(*place)
    # The ids first, so that what the document itself says of them counts, and is compared with its place.
    found: dict[str, Any] = {"workflow_id": key[0], "id": key[1], **fields}
    assumed: set[str] = set()
    try:
        _read_times(found, _TIMES, assumed)
        if isinstance(found.get("pause"), Mapping):
            # As with `ADDED_FIELDS` below.
            found["pause"] = {**found["pause"], **dict.fromkeys(ADDED_TO_PAUSE)}
            _read_times(found["pause"], ("deadline",), assumed)
    except ValueError as error:
        raise UnreadableRunError(*key, str(error)) from error
    found["status"] = _word(found.get("status"))
    trigger = _word(found.get("trigger_type") or TriggerType.MANUAL.value)
    if not isinstance(trigger, str) or not is_trigger_word(trigger):
        assumed.add(OTHER_TRIGGER)
        trigger = TriggerType.MANUAL.value
    found["trigger_type"] = trigger
    # Whoever wrote it gave these names another meaning, perhaps.
    found |= dict.fromkeys(ADDED_FIELDS)
    read = run_from_fields(found, key)
    if (read.workflow_id, read.id) != place and tuple(map(document_id, read.key)) != place:
        raise UnreadableRunError(*key, f"it says that it is run {read.id!r} of workflow {read.workflow_id!r}")
    return read, assumed


def document_text(fields: Mapping[str, Any]) -> bytes:
    """Return *fields* as JSON for people to look at: what JSON has no word for is a text."""
    return json.dumps(fields, default=_text).encode()


def _read_times(fields: dict[str, Any], names: tuple[str, ...], assumed: set[str]) -> None:
    for name in names:
        if not isinstance(text := fields.get(name), str):
            continue
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            assumed.add(NAIVE_TIME)
            moment = moment.replace(tzinfo=UTC)
        fields[name] = moment


def _word(value: object) -> object:
    """Return a word as ours are spelt, also where an enumeration's name stands before it."""
    return value.rpartition(".")[2].lower() if isinstance(value, str) else value


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
