"""What is done with dead letters: published again as they were, or mended, or thrown away."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
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
from run_log.projector.ports import EventTopic

from .leased import LeasedLetters
from .letters import DeadLetter, LetterChoice

ON_REQUEST: Final = frozenset({DeadLetterReason.WRITE_REFUSED.value, DeadLetterReason.EXPIRED.value})
"""Reasons that do not pass by themselves: such letters are only re-driven where they are asked for."""


class LetterOutcome(enum.StrEnum):
    """What became of a dead letter."""

    REDRIVEN = "redriven"
    """It is among the events again, and no dead letter any more."""
    DISCARDED = "discarded"
    """It is no dead letter any more."""
    KEPT = "kept"
    """It stays where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledLetter:
    """A dead letter, and what became of it."""

    letter: DeadLetter
    """It, without its body."""
    outcome: LetterOutcome
    why: str = ""
    """Why it is kept."""


Tell = Callable[[Sequence[HandledLetter]], None]
"""Is told of letters as soon as something has become of them; of none, that others were looked at."""


class _Kept(Exception):  # noqa: N818 - an outcome, not a fault
    """A letter cannot be re-driven."""


async def redrive(
    letters: LeasedLetters,
    topic: EventTopic,
    choice: LetterChoice,
    *,
    tell: Tell,
    repaired: bytes | None = None,
    earlier: timedelta = timedelta(0),
    dry_run: bool = False,
) -> None:
    """Publish dead letters again, each as the message it was, and acknowledge those that are published.

    Killed between the two, it leaves a letter that is re-driven again, which changes nothing. Kept is what
    would only come back: what is still no event, or is stamped too far ahead still, what the store refused or
    what has expired (unless chosen by its id or reason), and what has come back since it was re-driven here.

    Args:
        letters: Where from.
        topic: Where to.
        choice: Which.
        tell: See `Tell`.
        repaired: A body that is published in place of each letter's; None leaves it as it is.
        earlier: How far the clock was ahead that stamped those whose reason is ``clock_ahead``: they are
            published as stamped so much earlier, and stay in their order.
        dry_run: Whether to change nothing, and only tell what would become of them.

    Raises:
        EventDecodeError: *repaired* is no event, or stamped too far ahead.
        TransportUnavailableError: The broker does not answer; what was told until then is done.
        TransportRefusedError: Topic or subscription are not there, or denied.
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
            await _publish(letters, topic, ready, published, tell)


async def discard(
    letters: LeasedLetters,
    choice: LetterChoice,
    *,
    tell: Tell,
    save: Callable[[Sequence[DeadLetter]], None] = lambda _letters: None,
    dry_run: bool = False,
) -> None:
    """Acknowledge dead letters.

    Args:
        letters: Where they are.
        choice: Which.
        tell: See `Tell`.
        save: Is called with letters before they are acknowledged; what it wrote has to be durable.
        dry_run: Whether to change nothing, and only tell what would become of them.

    Raises:
        TransportUnavailableError: The broker does not answer; what was told until then is done.
        TransportRefusedError: The subscription is not there, or denied.
    """
    async for page in letters.chosen(choice):
        if page and not dry_run:
            save(page)
            await letters.acknowledge(page)
        tell([_handled(letter, LetterOutcome.DISCARDED) for letter in page])


def _message(
    letter: DeadLetter, choice: LetterChoice, repaired: bytes | None, published: set[str]
) -> Message:
    """Return what is published for *letter*.

    Raises:
        EventDecodeError: *repaired*, or else the letter, is no event.
        _Kept: It would only come back.
    """
    if repaired is not None:
        event = decode_event(Message(data=repaired, attributes=letter.attributes))
        stated = encode_event(event)
        # What it was called may have been what was wrong with it; more than there may be, no body needs.
        room = MAX_ATTRIBUTES - len(letter.attributes.keys() - stated.attributes.keys())
        own = sorted(stated.attributes.items(), key=lambda item: item[0] not in letter.attributes)
        return Message(data=stated.data, attributes={**letter.attributes, **dict(own[: max(0, room)])})
    if letter.original_id in published:
        raise _Kept(f"it came back: {letter.error}")
    if letter.cut:
        raise _Kept(
            f"{letter.cut} bytes of its body are left out; publish it anew, or pass a body that is whole"
        )
    message = Message(data=letter.data, attributes=letter.attributes)
    decode_event(message)
    is_asked_for = bool(choice.ids) or letter.reason in choice.reasons
    if letter.reason in ON_REQUEST and not is_asked_for:
        raise _Kept("it would come back until its cause is mended; then ask for it by id or by reason")
    return message


def _stamped(message: Message, letter: DeadLetter, earlier: timedelta, now: datetime) -> Message:
    """Return *message*; where *letter* is here for its stamp, as it is stamped so much earlier.

    Raises:
        EventDecodeError: It is stamped too far ahead all the same.
    """
    event = decode_event(message)
    if earlier and letter.reason == DeadLetterReason.CLOCK_AHEAD.value:
        try:
            occurred_at = event.occurred_at - earlier
        except OverflowError:
            occurred_at = event.occurred_at  # for people, and it was not what was wrong
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
    topic: EventTopic,
    ready: Sequence[tuple[DeadLetter, Message]],
    published: set[str],
    tell: Tell,
) -> None:
    answers = await asyncio.gather(*(topic.publish(message) for _, message in ready), return_exceptions=True)
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
    if failure is not None:
        raise failure
