"""Dead letters: messages that could not be projected, with why; and which of them are meant."""

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
"""How many of the message's own attributes had to make room; earlier versions' letters had none for all."""
PACKED_ATTRIBUTE: Final = "run-log-packed"
"""How `packed` put the message's attributes into the letter's body: as they are, or compressed."""
CUT_ATTRIBUTE: Final = "run-log-body-left-out"
"""How many bytes of the end of the message's body had to make room."""

PLAIN, COMPRESSED = "plain", "zlib"

UNKNOWN_REASON: Final = "unknown"
"""The reason of a letter that neither a projector nor Pub/Sub has put there."""

_OURS: Final = frozenset(
    {
        REASON_ATTRIBUTE,
        ERROR_ATTRIBUTE,
        MESSAGE_ID_ATTRIBUTE,
        LEFT_OUT_ATTRIBUTE,
        PACKED_ATTRIBUTE,
        CUT_ATTRIBUTE,
    }
)
_PUBSUB_PREFIX: Final = "CloudPubSubDeadLetterSource"
"""How the attributes begin that Pub/Sub adds where it gives a message up by itself
(https://cloud.google.com/pubsub/docs/handling-failures#dead_letter_topic)."""

_DELIVERIES_ATTRIBUTE: Final = f"{_PUBSUB_PREFIX}DeliveryCount"
_SOURCE_PREFIX: Final = "//run-log/workflows/"
_SUBJECT_PREFIX: Final = "runs/"
_HASHED: Final = "sha256-"
_COUNT: Final = re.compile(r"[0-9]{1,9}")
_MAX_UNPACKED_BYTES: Final = 20 * 2**20
"""More than any message has, pushed or pulled; what unpacks to more was packed by somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that could not be projected, and why."""

    message_id: str
    """The letter's own id, by which it is named; so it is by `original_id`, where that is nobody's own."""
    reason: str
    """The machine-readable cause: one of `DeadLetterReason`'s values, or what a newer projector wrote."""
    error: str
    """What went wrong, for people."""
    original_id: str | None
    """The id of the message that it was; None where nobody wrote it down."""
    published_at: datetime | None
    """When it became a dead letter, by the transport's clock; None where it does not say."""
    delivery_attempt: int
    """Deliveries of the letter so far, where the transport counts them; else 0."""
    left_out: int
    """How many of the message's attributes are lost."""
    cut: int = 0
    """How many bytes of the end of the message's body are lost."""
    attributes: Mapping[str, str]
    """The message's own, without those that tell why it is here."""
    data: bytes = field(repr=False)
    """The message's body, as it came."""
    workflow_id: str | None
    """Its run's workflow, as far as body or attributes tell."""
    run_id: str | None
    """Its run, likewise."""

    @property
    def body(self) -> Any:
        """The body as JSON, with the names of numbers that JSON does not have; None where it is none."""
        return _json(self.data)

    @classmethod
    def from_message(cls, message: ReceivedMessage) -> DeadLetter:
        """Return the letter that *message* is; any message is one.

        Args:
            message: From the subscription of the dead letters.
        """
        attributes, told, data = _apart(message)
        reason, error = _why(told)
        workflow_id, run_id = _run_of(_json(data), attributes)
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
    """Which dead letters are meant: those with these ids, or those that fit all of the rest.

    Raises:
        InvalidArgumentError: There are both ids and something else, or a reason that is none.
    """

    ids: frozenset[str] = frozenset()
    """Their own ids, or those of the messages that they were, as logs have them; none of them is any."""
    reasons: frozenset[str] = frozenset()
    """Any of these causes; none of them is any."""
    since: datetime | None = None
    """Dead letters since then."""
    until: datetime | None = None
    """Dead letters before."""
    workflow_id: str | None = None
    """Of runs of this workflow."""

    def __post_init__(self) -> None:
        """Refuse a choice that contradicts itself."""
        known = [*(reason.value for reason in DeadLetterReason), UNKNOWN_REASON]
        if unknown := self.reasons.difference(known):
            raise InvalidArgumentError(
                f"{', '.join(map(repr, sorted(unknown)))} is no reason; the reasons are {', '.join(known)}"
            )
        if self.ids and self.filters:
            raise InvalidArgumentError("name dead letters by their ids, or filter them: not both")

    @property
    def filters(self) -> bool:
        """Whether anything but ids says which."""
        return bool(self.reasons) or any(
            given is not None for given in (self.since, self.until, self.workflow_id)
        )

    def takes(self, letter: DeadLetter) -> bool:
        """Return whether *letter* is meant. One whose time is not known fits no time."""
        moment = letter.published_at
        return (
            (not self.ids or not self.ids.isdisjoint((letter.message_id, letter.original_id)))
            and (not self.reasons or letter.reason in self.reasons)
            and (self.since is None or (moment is not None and moment >= self.since))
            and (self.until is None or (moment is not None and moment < self.until))
            and (self.workflow_id is None or letter.workflow_id == id_text(self.workflow_id))
        )


def is_ours(name: str) -> bool:
    """Return whether an attribute of that name says why a letter is there: no own one may be taken for it."""
    return name in _OURS or name.startswith(_PUBSUB_PREFIX)


def packed(message: Message, how: str) -> bytes:
    """Return all of *message* as one body, from which `unpacked` gives each byte of it back.

    Args:
        message: Any.
        how: `PLAIN` or `COMPRESSED`.
    """
    header = json.dumps(dict(message.attributes), ensure_ascii=False, separators=(",", ":"))
    content = b"%b\n%b" % (header.encode(errors="surrogatepass"), message.data)
    # The quickest: any UTF-8 is made shorter by it, and nothing makes random bytes so.
    return zlib.compress(content, 1) if how == COMPRESSED else content


def unpacked(data: bytes, how: str) -> Message:
    """Return the message that `packed` was given.

    Args:
        data: The letter's body.
        how: The value of its `PACKED_ATTRIBUTE`.

    Raises:
        EventDecodeError: It holds none.
    """
    try:
        if how == COMPRESSED:
            inflating = zlib.decompressobj()
            data = inflating.decompress(data, _MAX_UNPACKED_BYTES)
            if not inflating.eof:
                raise ValueError("it is damaged, or larger than any message")  # noqa: TRY301 - as other damage
        header, _, body = data.partition(b"\n")
        attributes = json.loads(header.decode(errors="surrogatepass"))
        own = {str(name): str(value) for name, value in attributes.items()}
    except Exception as error:
        reason = DeadLetterReason.UNDECODABLE.value
        raise EventDecodeError(f"the letter holds no message ({error!r})", reason=reason) from error
    return Message(data=body, attributes=own)


def _apart(message: ReceivedMessage) -> tuple[Mapping[str, str], Mapping[str, str], bytes]:
    """Return the own attributes of the message that became the letter, those that say why, and its body."""
    attributes = message.attributes
    if any(name.startswith(_PUBSUB_PREFIX) for name in attributes):
        # Pub/Sub gave it up: what else is there was published, for a letter of ours has such names packed.
        marks = [name for name in attributes if name.startswith(_PUBSUB_PREFIX)]
    else:
        marks = [name for name in attributes if name in _OURS]
    told = {name: attributes[name] for name in marks}
    own = {name: value for name, value in attributes.items() if name not in told}
    if PACKED_ATTRIBUTE in told:
        try:
            inner = unpacked(message.data, told[PACKED_ATTRIBUTE])
        except EventDecodeError as error:
            # Nobody may take it for the message that was published.
            told |= {ERROR_ATTRIBUTE: str(error), CUT_ATTRIBUTE: str(len(message.data))}
        else:
            return inner.attributes, told, inner.data
    return own, told, message.data


def _json(data: bytes) -> Any:
    try:
        found = json.loads(data, parse_constant=str)
        # What comes in may be nested too deep to go out.
        json.dumps(found)
    except Exception:  # noqa: BLE001 - it is here because it could not be read: whatever happens is no news
        return None
    return found


def _why(attributes: Mapping[str, str]) -> tuple[str, str]:
    if REASON_ATTRIBUTE in attributes:
        return attributes[REASON_ATTRIBUTE], attributes.get(ERROR_ATTRIBUTE, "")
    if any(name.startswith(_PUBSUB_PREFIX) for name in attributes):
        deliveries = attributes.get(_DELIVERIES_ATTRIBUTE, "too many")
        return DeadLetterReason.TOO_MANY_DELIVERIES.value, f"Pub/Sub gave it up after {deliveries} deliveries"
    return UNKNOWN_REASON, "neither a projector nor Pub/Sub says why it is here"


def _run_of(body: Any, attributes: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return workflow and run of an event, whatever else is wrong with it."""
    fields: dict[str, Any] = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    # The first version of the body was the bare run.
    run: Any = fields.get("run", fields)
    told: dict[str, Any] = cast("dict[str, Any]", run) if isinstance(run, dict) else {}
    return (
        _text(told.get("workflow_id")) or _referred(attributes.get("ce-source", ""), _SOURCE_PREFIX),
        _text(told.get("id")) or _referred(attributes.get("ce-subject", ""), _SUBJECT_PREFIX),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _referred(reference: str, prefix: str) -> str | None:
    quoted = reference.removeprefix(prefix)
    if quoted in {reference, ""} or quoted.startswith(_HASHED):
        return None
    return unquote(quoted)


def _count(text: str | None) -> int:
    return int(text) if text is not None and _COUNT.fullmatch(text) else 0
