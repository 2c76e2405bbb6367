"""Dead letters as JSON for programs, by the rules of what the library returns (`to_json`)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from run_log.core.json_form import time_json

if TYPE_CHECKING:
    from run_log.projector import DeadLetter, HandledLetter


def letter_line(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON, without attributes and body."""
    return {
        "message_id": letter.message_id,
        "published_at": time_json(letter.published_at),
        "reason": letter.reason,
        "error": letter.error,
        "workflow_id": letter.workflow_id,
        "run_id": letter.run_id,
        "original_message_id": letter.original_id,
    }


def letter_record(letter: DeadLetter) -> dict[str, Any]:
    """Return all of a dead letter as JSON: its body parsed, if it is JSON, and in base64."""
    return {
        **letter_line(letter),
        "delivery_attempt": letter.delivery_attempt,
        "attributes_left_out": letter.left_out,
        **({"body_bytes_left_out": letter.cut} if letter.cut else {}),
        "attributes": dict(letter.attributes),
        "body": letter.body,
        "data_base64": base64.b64encode(letter.data).decode("ascii"),
    }


def handled_record(handled: HandledLetter, *, dry_run: bool) -> dict[str, Any]:
    """Return what became of a dead letter, or in a dry run would become of it, as JSON."""
    letter = handled.letter
    return {
        "message_id": letter.message_id,
        "outcome": handled.outcome.value,
        "why": handled.why or None,
        "dry_run": dry_run,
        "reason": letter.reason,
        "workflow_id": letter.workflow_id,
        "run_id": letter.run_id,
    }
