"""Publishes dead letters again, as they were or repaired, or throws them away."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    Message,
    MessageRefusedError,
    decode_event,
    encode_event,
    utc_now,
)
from run_log.core.wire import MAX_ATTRIBUTES, check_stamp

from .leased import LeasedLetters
from .letters import DeadLetter, LetterChoice

ON_REQUEST: Final = frozenset({DeadLetterReason.WRITE_REFUSED.value, DeadLetterReason.EXPIRED.value})
"""Reasons that do not pass by themselves. Such letters are re-driven only by id or by reason."""


class LetterOutcome(enum.StrEnum):
    """What became of a dead letter."""

    REDRIVEN = "redriven"
    """It is published again as an event, and is not a dead letter any more."""
    DISCARDED = "discarded"
    """It is thrown away."""
    KEPT = "kept"
    """It is still a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledLetter:
    """A dead letter, and what became of it."""

    letter: DeadLetter
    """The letter, without its body."""
    outcome: LetterOutcome
    why: str = ""
    """Why it is kept."""


Publish = Callable[[Message], Awaitable[str]]
"""Publishes a message for the projectors, as `PubSubEvents.publish` does, and returns its id."""

Tell = Callable[[Sequence[HandledLetter]], None]
"""Called with letters as soon as something became of them, and with none after each other page."""


class _Kept(Exception):  # noqa: N818 - an outcome, not a fault
    """A letter is not re-driven; the text says why."""


async def redrive(
    letters: LeasedLetters,
    publish: Publish,
    choice: LetterChoice,
    *,
    tell: Tell,
    repaired: bytes | None = None,
    earlier: timedelta = timedelta(0),
    dry_run: bool = False,
) -> None:
    """Publish dead letters again, each as the message it was, and acknowledge those that are published.

    If the process is killed between the two, the letter is re-driven again, which changes nothing.

    Letters that would only come back are kept: those that are not events, or are stamped too far ahead; those
    that the store refused or that have expired, unless they are chosen by id or reason; and those that came
    back after this call published them.

    Args:
        letters: The dead letters.
        publish: Publishes to the event topic.
        choice: Which letters.
        tell: Called with what became of letters, see `Tell`.
        repaired: A body to publish instead of the letter's; None publishes the letter's.
        earlier: How far ahead the clock was that stamped letters with the reason ``clock_ahead``. They are
            published with stamps that are so much earlier, which keeps their order.
        dry_run: Whether to change nothing, and only report what would become of letters.

    Raises:
        EventDecodeError: *repaired* is not an event, or is stamped too far ahead.
        TransportUnavailableError: The broker does not answer. What was reported until then is done.
        TransportRefusedError: The topic or the subscription does not exist, or access is denied.
    """
    published: set[str] = set()
    async for page in letters.chosen(choice):
        ready: list[tuple[DeadLetter, Message]] = []
        kept: list[HandledLetter] = []
        for letter in page:
            try:
                message = _message(letter, choice, repaired, published)
                ready.append((letter, _stamped(message, letter, earlier, utc_now())))
            except EventDecodeError as error:
                if repaired is not None:
                    raise
                kept.append(_handled(letter, LetterOutcome.KEPT, f"{error.reason}: {error}"))
            except _Kept as why:
                kept.append(_handled(letter, LetterOutcome.KEPT, str(why)))
        tell(kept)
        if dry_run:
            tell([_handled(letter, LetterOutcome.REDRIVEN) for letter, _ in ready])
        else:
            await _publish(letters, publish, ready, published, tell)


async def discard(
    letters: LeasedLetters,
    choice: LetterChoice,
    *,
    tell: Tell,
    save: Callable[[Sequence[DeadLetter]], None] = lambda _letters: None,
    dry_run: bool = False,
) -> None:
    """Throw dead letters away, by acknowledging them.

    Args:
        letters: The dead letters.
        choice: Which letters.
        tell: Called with what became of letters, see `Tell`.
        save: Called with letters before they are acknowledged. It must return once they are durable.
        dry_run: Whether to change nothing, and only report what would become of letters.

    Raises:
        TransportError: See `redrive`.
    """
    async for page in letters.chosen(choice):
        if page and not dry_run:
            save(page)
            await letters.acknowledge(page)
        tell([_handled(letter, LetterOutcome.DISCARDED) for letter in page])
        if not dry_run:
            await letters.forget(page)


def _message(
    letter: DeadLetter, choice: LetterChoice, repaired: bytes | None, published: set[str]
) -> Message:
    """Return the message to publish for *letter*. Raises `_Kept` if the letter would only come back."""
    if repaired is not None:
        event = decode_event(Message(data=repaired, attributes=letter.attributes))
        stated = encode_event(event)
        # The attributes may have been what was wrong, so those of the repaired event replace the letter's.
        # If there are too many in all, the event's new ones are left out: its body says the same.
        room = MAX_ATTRIBUTES - len(letter.attributes.keys() - stated.attributes.keys())
        own = sorted(stated.attributes.items(), key=lambda item: item[0] not in letter.attributes)
        return Message(data=stated.data, attributes={**letter.attributes, **dict(own[: max(0, room)])})
    if letter.original_id in published:
        raise _Kept(f"it was re-driven, and came back: {letter.error}")
    if letter.cut:
        raise _Kept(
            f"{letter.cut} bytes of its body are lost; pass a whole --body, or publish the event again"
        )
    message = Message(data=letter.data, attributes=letter.attributes)
    decode_event(message)
    is_asked_for = bool(choice.ids) or letter.reason in choice.reasons
    if letter.reason in ON_REQUEST and not is_asked_for:
        raise _Kept("it would come back; repair the cause, then re-drive it by id or by reason")
    return message


def _stamped(message: Message, letter: DeadLetter, earlier: timedelta, now: datetime) -> Message:
    """Return *message*, with an earlier stamp if the reason of *letter* is its stamp."""
    event = decode_event(message)
    if earlier and letter.reason == DeadLetterReason.CLOCK_AHEAD.value:
        try:
            occurred_at = event.occurred_at - earlier
        except OverflowError:
            occurred_at = event.occurred_at  # it is for people only, and was not the reason
        hlc = max(event.hlc - earlier // timedelta(microseconds=1), 0)
        event = event.model_copy(update={"hlc": hlc, "occurred_at": occurred_at})
        stated = encode_event(event)
        message = Message(data=stated.data, attributes={**message.attributes, **stated.attributes})
    check_stamp(event, now)
    return message


def _handled(letter: DeadLetter, outcome: LetterOutcome, why: str = "") -> HandledLetter:
    return HandledLetter(letter=replace(letter, data=b""), outcome=outcome, why=why)


async def _publish(
    letters: LeasedLetters,
    publish: Publish,
    ready: Sequence[tuple[DeadLetter, Message]],
    published: set[str],
    tell: Tell,
) -> None:
    # Published first, acknowledged second: after a kill in between a letter is published twice, and not lost.
    # All answers are waited for, as those that were published have to be acknowledged even if others failed.
    answers = await asyncio.gather(*(publish(message) for _, message in ready), return_exceptions=True)
    done: list[DeadLetter] = []
    kept: list[HandledLetter] = []
    failure: BaseException | None = None
    for (letter, _), answer in zip(ready, answers, strict=True):
        match answer:
            case str():
                published.add(answer)
                done.append(letter)
            case MessageRefusedError():
                kept.append(_handled(letter, LetterOutcome.KEPT, str(answer)))
            case _:
                failure = failure or answer
    if done:
        await letters.acknowledge(done)
    tell([*(_handled(letter, LetterOutcome.REDRIVEN) for letter in done), *kept])
    await letters.forget(done)
    if failure is not None:
        raise failure
