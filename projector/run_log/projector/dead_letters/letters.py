"""Dead letters: messages that could not be projected, with the reason; and how to choose among them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast
from urllib.parse import unquote

from run_log.core import DeadLetterReason, EventDecodeError, InvalidArgumentError, Message, ReceivedMessage
from run_log.core.ids import id_text

REASON_ATTRIBUTE: Final = "run-log-reason"
ERROR_ATTRIBUTE: Final = "run-log-error"
MESSAGE_ID_ATTRIBUTE: Final = "run-log-message-id"
LEFT_OUT_ATTRIBUTE: Final = "run-log-attributes-left-out"
"""How many of the message's own attributes were left out, for want of room. Only earlier versions do that."""
PACKED_ATTRIBUTE: Final = "run-log-packed"
"""How `packed` put the message into the letter's body: plain, or compressed."""
CUT_ATTRIBUTE: Final = "run-log-body-left-out"
"""How many bytes at the end of the message's body were left out."""

PLAIN, COMPRESSED = "plain", "zlib"

UNKNOWN_REASON: Final = "unknown"
"""The reason of a letter that neither a projector nor Pub/Sub has published."""

_OURS: Final = frozenset(
    (
        REASON_ATTRIBUTE,
        ERROR_ATTRIBUTE,
        MESSAGE_ID_ATTRIBUTE,
        LEFT_OUT_ATTRIBUTE,
        PACKED_ATTRIBUTE,
        CUT_ATTRIBUTE,
    )
)
# Prefix of the attributes that Pub/Sub adds when it gives up a message itself
# (https://cloud.google.com/pubsub/docs/handling-failures#dead_letter_topic).
_PUBSUB_PREFIX: Final = "CloudPubSubDeadLetterSource"

_DELIVERIES_ATTRIBUTE: Final = f"{_PUBSUB_PREFIX}DeliveryCount"
_SOURCE_PREFIX: Final = "//run-log/workflows/"
_SUBJECT_PREFIX: Final = "runs/"
_HASHED: Final = "sha256-"
_COUNT: Final = re.compile(r"[0-9]{1,9}")
# More than any message has. A larger content was not packed here, and could fill the memory.
_MAX_UNPACKED_BYTES: Final = 20 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that could not be projected, and the reason."""

    message_id: str
    """The letter's own id. Commands take it, and `original_id` too unless another letter has that id."""
    reason: str
    """The reason, for programs: a value of `DeadLetterReason`, or what a newer projector wrote."""
    error: str
    """The reason, for people."""
    original_id: str | None
    """The id of the message that became this letter; None if it was not recorded."""
    published_at: datetime | None
    """When it became a dead letter, by the clock of Pub/Sub; None if that is not known."""
    delivery_attempt: int
    """Deliveries of the letter so far; 0 if they are not counted."""
    left_out: int
    """How many of the message's attributes are lost."""
    cut: int = 0
    """How many bytes of the end of the message's body are lost."""
    attributes: Mapping[str, str]
    """The message's own attributes, without those that give the reason."""
    data: bytes = field(repr=False)
    """The message's body as it came."""
    workflow_id: str | None
    """The workflow of its run, if body or attributes tell it."""
    run_id: str | None
    """The id of its run, if body or attributes tell it."""

    @property
    def body(self) -> Any:
        """The body, parsed as JSON; None if it is not JSON. NaN and infinities become their names."""
        return _json(self.data)

    @classmethod
    def from_message(cls, message: ReceivedMessage) -> DeadLetter:
        """Return *message*, from the subscription of the dead letters, as a letter. Any message is one."""
        attributes, told, data = _apart(message)
        reason, error = _why(told)
        workflow_id, run_id = run_of(_json(data), attributes)
        return cls(
            message_id=message.message_id,
            reason=reason,
            error=error,
            original_id=told.get(MESSAGE_ID_ATTRIBUTE),
            published_at=message.published_at,
            delivery_attempt=message.delivery_attempt,
            left_out=_count(told.get(LEFT_OUT_ATTRIBUTE)),
            cut=_count(told.get(CUT_ATTRIBUTE)),
            attributes=attributes,
            data=data,
            workflow_id=workflow_id,
            run_id=run_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterChoice:
    """Which dead letters are meant: those with these ids, or those that match all filters.

    Raises:
        InvalidArgumentError: There are both ids and filters, or a reason is unknown.
    """

    ids: frozenset[str] = frozenset()
    """Ids of letters, or of the messages that became letters, as logs have them. Empty for any."""
    reasons: frozenset[str] = frozenset()
    """Any of these reasons. Empty for any."""
    since: datetime | None = None
    """Only letters published then or later."""
    until: datetime | None = None
    """Only letters published before."""
    workflow_id: str | None = None
    """Only letters about runs of this workflow."""

    def __post_init__(self) -> None:
        """Refuse a choice that contradicts itself."""
        known = [*(reason.value for reason in DeadLetterReason), UNKNOWN_REASON]
        if unknown := self.reasons.difference(known):
            raise InvalidArgumentError(
                f"{', '.join(map(repr, sorted(unknown)))} is not a reason; the reasons are {', '.join(known)}"
            )
        if self.ids and self.filters:
            raise InvalidArgumentError("name dead letters by their ids, or filter them, not both")

    @property
    def filters(self) -> bool:
        """Whether there is any filter."""
        return bool(self.reasons) or any(
            given is not None for given in (self.since, self.until, self.workflow_id)
        )

    def takes(self, letter: DeadLetter) -> bool:
        """Return whether *letter* is meant. A letter without a time matches no filter by time."""
        moment = letter.published_at
        return (
            (not self.ids or not self.ids.isdisjoint((letter.message_id, letter.original_id)))
            and (not self.reasons or letter.reason in self.reasons)
            and (self.since is None or (moment is not None and moment >= self.since))
            and (self.until is None or (moment is not None and moment < self.until))
            and (self.workflow_id is None or letter.workflow_id == id_text(self.workflow_id))
        )


def is_ours(name: str) -> bool:
    """Return whether an attribute of that name gives the reason of a letter, and is not a message's own."""
    return name in _OURS or name.startswith(_PUBSUB_PREFIX)


def run_of(body: Any, attributes: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return workflow and run of an event, as far as its parsed body or its attributes tell them."""
    fields: dict[str, Any] = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    # The first version of the body was the bare run.
    run: Any = fields.get("run", fields)
    told: dict[str, Any] = cast("dict[str, Any]", run) if isinstance(run, dict) else {}
    return (
        _text(told.get("workflow_id")) or _referred(attributes.get("ce-source", ""), _SOURCE_PREFIX),
        _text(told.get("id")) or _referred(attributes.get("ce-subject", ""), _SUBJECT_PREFIX),
    )


def packed(message: Message, how: str) -> bytes:
    """Return all of *message* as one body, `PLAIN` or `COMPRESSED`. `unpacked` gives every byte back."""
    header = json.dumps(dict(message.attributes), ensure_ascii=False, separators=(",", ":"))
    content = b"%b\n%b" % (header.encode(errors="surrogatepass"), message.data)
    # Level 1 is the quickest. It makes any text shorter, and no level makes random bytes shorter.
    return zlib.compress(content, 1) if how == COMPRESSED else content


def unpacked(data: bytes, how: str) -> Message:
    """Return the message that `packed` was given. Raises `EventDecodeError` if *data* is something else."""
    try:
        if how == COMPRESSED:
            inflating = zlib.decompressobj()
            data = inflating.decompress(data, _MAX_UNPACKED_BYTES)
            if not inflating.eof:
                raise ValueError("it is damaged, or larger than any message")  # noqa: TRY301 - handled as other damage
        header, _, body = data.partition(b"\n")
        attributes = json.loads(header.decode(errors="surrogatepass"))
        own = {str(name): str(value) for name, value in attributes.items()}
    except Exception as error:
        reason = DeadLetterReason.UNDECODABLE.value
        raise EventDecodeError(f"the letter does not hold a message ({error!r})", reason=reason) from error
    return Message(data=body, attributes=own)


def _apart(message: ReceivedMessage) -> tuple[Mapping[str, str], Mapping[str, str], bytes]:
    """Return the message's own attributes, the attributes that give the reason, and the message's body."""
    attributes = message.attributes
    # If Pub/Sub gave it up, all other attributes are the message's own: a projector's letter has none with
    # this prefix, as it packs a message that does.
    marks = [name for name in attributes if name.startswith(_PUBSUB_PREFIX)]
    told = {name: attributes[name] for name in marks or _OURS.intersection(attributes)}
    own = {name: value for name, value in attributes.items() if name not in told}
    if PACKED_ATTRIBUTE in told:
        try:
            inner = unpacked(message.data, told[PACKED_ATTRIBUTE])
        except EventDecodeError as error:
            # It must not be published again as if it were the message.
            told |= {ERROR_ATTRIBUTE: str(error), CUT_ATTRIBUTE: str(len(message.data))}
        else:
            return inner.attributes, told, inner.data
    return own, told, message.data


def _json(data: bytes) -> Any:
    try:
        found = json.loads(data, parse_constant=str)
        # JSON that can be parsed may be nested too deep to be written.
        json.dumps(found)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number too long, nested too deep
        return None
    return found


def _why(attributes: Mapping[str, str]) -> tuple[str, str]:
    if REASON_ATTRIBUTE in attributes:
        return attributes[REASON_ATTRIBUTE], attributes.get(ERROR_ATTRIBUTE, "")
    if any(name.startswith(_PUBSUB_PREFIX) for name in attributes):
        deliveries = attributes.get(_DELIVERIES_ATTRIBUTE, "too many")
        return DeadLetterReason.TOO_MANY_DELIVERIES.value, f"Pub/Sub gave it up after {deliveries} deliveries"
    return UNKNOWN_REASON, "neither a projector nor Pub/Sub recorded a reason"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _referred(reference: str, prefix: str) -> str | None:
    quoted = reference.removeprefix(prefix)
    if quoted in {reference, ""} or quoted.startswith(_HASHED):
        return None
    return unquote(quoted)


def _count(text: str | None) -> int:
    return int(text) if text is not None and _COUNT.fullmatch(text) else 0
