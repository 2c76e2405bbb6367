"""Answers: what may be chosen and filled in, which pause is answered, and what the history says of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from run_log.core import (
    AlreadyAnsweredError,
    InvalidArgumentError,
    NotPausedError,
    PauseRequest,
    RunNotFoundError,
    RunStatus,
    Version,
    WorkflowRun,
)
from run_log.stores import RunLog
from run_log.stores.inbox import BY_DEFAULT, Answer
from run_log.testing import a_run, an_event

from .adapters import every_adapter, memory_alone
from .harness import Harness, save

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MEI, BOB = "mei@example.com", "bob@example.com"
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"amount": {"type": "integer", "maximum": 5_000}, "lines": {"enum": [[["a"]], [["b"]]]}},
    "required": ["amount"],
    "additionalProperties": False,
}


async def paused(harness: Harness, **request: Any) -> Version:
    """Store a run that waits, and return which pause that is."""
    pause = PauseRequest(reason="pay?", **request)
    await save(harness, a_run(workflow_id="w", id="r", status=RunStatus.PAUSED, started_at=NOON, pause=pause))
    return (await harness.service.get_history("w", "r"))[-1].version


async def answers(service: RunLog) -> list[tuple[Any, ...]]:
    """Return what the history says of each answer."""
    return [
        (line.status, line.answered_by, line.choice, line.values, line.comment)
        for line in await service.get_history("w", "r")
        if line.answered_by
    ]


@every_adapter
async def test_an_answer_is_kept(harness: Harness, service: RunLog) -> None:
    """What was chosen, filled in and said is in the run and in its history, also once it pauses again."""
    values = {"amount": 4_200, "lines": [["b"]]}
    await paused(harness, choices=("pay", "wait"), form=FORM)
    ((waiting,), _) = await service.list_pending()
    assert (("pay", "wait"), FORM, None) == (waiting.choices, waiting.form, waiting.default_choice)

    run = await service.resume("w", "r", answered_by=MEI, choice="pay", values=values, comment="as agreed")
    await harness.settle()

    assert run.pause is not None
    assert ("pay", values, "as agreed") == (run.pause.choice, run.pause.values, run.pause.comment)
    assert run == await service.get_run("w", "r")
    await paused(harness)
    assert [(RunStatus.RUNNING, MEI, "pay", values, "as agreed")] == await answers(service)
    again = await service.get_run("w", "r")
    assert again is not None
    assert PauseRequest(reason="pay?") == again.pause


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "choice is None; pass one of 'pay', 'wait'"),
        ({"choice": "no"}, "choice is 'no'; pass one of 'pay', 'wait'"),
        ({"choice": 5}, "choice is 5"),
        ({"choice": "pay"}, "values: 'amount' is a required property"),
        ({"choice": "pay", "values": {"amount": "many"}}, "values.amount: 'many' is not of type 'integer'"),
        ({"choice": "pay", "values": {"amount": 1, "amuont": 1}}, "values: .*'amuont' was unexpected"),
        ({"choice": "pay", "values": [1]}, r"values is \[1\]"),
        ({"choice": "pay", "values": {"amount": 1, "note": "n" * 40_000}}, "values have 40022 bytes"),
        ({"choice": "pay", "values": {"amount": 1}, "if_version": 5}, "if_version is 5"),
        ({"choice": "pay", "values": {"amount": 1}, "if_version": "1:x"}, "'1:x' is no version"),
    ],
    ids=lambda given: repr(given)[:60],
)
@memory_alone
async def test_an_answer_that_does_not_fit_is_refused(
    harness: Harness, service: RunLog, answer: dict[str, Any], message: str
) -> None:
    """An answer that is not what the pause asks for is an error that names what, and the run waits on."""
    await paused(harness, choices=("pay", "wait"), form=FORM)
    waiting = await service.get_run("w", "r")

    with pytest.raises(InvalidArgumentError, match=message):
        await cast("Any", service.resume)("w", "r", answered_by=MEI, **answer)

    assert waiting == await service.get_run("w", "r")


@memory_alone
async def test_a_rejection_needs_no_choice_and_no_values(harness: Harness, service: RunLog) -> None:
    """Whoever rejects chooses and fills in nothing; what they do give has to fit."""
    await paused(harness, choices=("pay", "wait"), form=FORM)
    for bad in ({"choice": "no"}, {"values": {"amount": "many"}}):
        with pytest.raises(InvalidArgumentError):
            await cast("Any", service.reject)("w", "r", answered_by=MEI, **bad)

    run = await service.reject("w", "r", answered_by=MEI, comment="no")

    assert (RunStatus.FAILED, f"rejected by {MEI}: no") == (run.status, run.error)


@memory_alone
async def test_a_pause_without_an_offer_takes_values(harness: Harness, service: RunLog) -> None:
    """Where nothing is offered nothing can be chosen, and any values are kept."""
    await paused(harness)
    with pytest.raises(InvalidArgumentError, match="offers no choice"):
        await service.resume("w", "r", answered_by=MEI, choice="pay")

    await service.resume("w", "r", answered_by=MEI, values={"any": [1]})

    assert [(RunStatus.RUNNING, MEI, None, {"any": [1]}, None)] == await answers(service)


@every_adapter
async def test_one_pause_is_answered_once(harness: Harness, service: RunLog) -> None:
    """Of two who answer the pause that they saw the second is told who was first, and changes nothing."""
    version = await paused(harness)
    ((waiting,), _) = await service.list_pending()
    assert version == waiting.version == Version.from_text(version.text)

    run = await service.resume("w", "r", answered_by=MEI, comment="yes", if_version=waiting.version)
    await harness.settle()

    for second, seen in ((service.reject, version), (service.resume, version.text)):
        with pytest.raises(AlreadyAnsweredError, match=f"answered by '{MEI}'") as caught:
            await second("w", "r", answered_by=BOB, if_version=seen)
        assert MEI == caught.value.answered_by
    assert run == await service.get_run("w", "r")
    assert [(RunStatus.RUNNING, MEI, None, None, "yes")] == await answers(service)


@every_adapter
async def test_a_later_pause_is_another_one(harness: Harness, service: RunLog) -> None:
    """An answer to a pause that is over is no answer to the next one, which takes its own."""
    first = await paused(harness)
    await service.resume("w", "r", answered_by=MEI, if_version=first)
    await harness.settle()
    second = await paused(harness)

    with pytest.raises(AlreadyAnsweredError) as caught:
        await service.resume("w", "r", answered_by=BOB, if_version=first)
    await service.reject("w", "r", answered_by=BOB, if_version=second)
    await harness.settle()

    assert MEI == caught.value.answered_by
    assert [MEI, BOB] == [answered_by for _, answered_by, *_ in await answers(service)]


@every_adapter
async def test_what_a_run_says_next_is_later_than_an_answer_to_its_pause(
    harness: Harness, service: RunLog
) -> None:
    """What a run says in the microsecond after it paused is later than an answer to that pause, too."""
    pause = an_event(workflow_id="w", id="r", status=RunStatus.PAUSED, hlc=5)
    ended = an_event(workflow_id="w", id="r", hlc=6, event_id="0")
    await harness.store.apply([pause])

    await service.resume("w", "r", answered_by=MEI, if_version=pause.version)
    await harness.settle()
    await harness.store.apply([ended])

    assert ended.run == await service.get_run("w", "r")


@every_adapter
async def test_a_version_of_no_pause(harness: Harness, service: RunLog) -> None:
    """A run that is not there is said to be that, and one that does not wait is not paused."""
    missing = Version(1, 5, "e")
    with pytest.raises(RunNotFoundError):
        await service.resume("w", "r", answered_by=MEI, if_version=missing)
    await save(harness, a_run(workflow_id="w", id="r", status=RunStatus.RUNNING))
    (running,) = await service.get_history("w", "r")

    with pytest.raises(NotPausedError, match="is running, not paused") as caught:
        await service.resume("w", "r", answered_by=MEI, if_version=running.version)
    assert not isinstance(caught.value, AlreadyAnsweredError)
    with pytest.raises(AlreadyAnsweredError) as caught:
        await service.resume("w", "r", answered_by=MEI, if_version=missing)
    assert caught.value.answered_by is None


async def all_at_once(service: RunLog, version: Version, count: int) -> list[WorkflowRun | BaseException]:
    """Return what becomes of so many answers to one pause at once, each by another, every third a no."""
    return await asyncio.gather(
        *(
            (service.reject if number % 3 == 0 else service.resume)(
                "w", "r", answered_by=f"a{number}", if_version=version
            )
            for number in range(count)
        ),
        return_exceptions=True,
    )


async def test_of_answers_at_once_one_succeeds(harness: Harness, service: RunLog) -> None:
    """Of any number of answers to one pause at once one succeeds, and the others are told who."""
    version = await paused(harness)

    done = await all_at_once(service, version, 12)

    (first,) = [one for one in done if isinstance(one, WorkflowRun)]
    assert first.pause is not None
    refused = [one for one in done if isinstance(one, AlreadyAnsweredError)]
    assert [first.pause.answered_by] * 11 == [one.answered_by for one in refused]
    assert first == await service.get_run("w", "r")
    assert [(first.status, first.pause.answered_by, None, None, None)] == await answers(service)
    assert {"total": 1, "successful": 0} == await service.get_stats("w")


async def test_what_two_concluded_before_either_wrote(harness: Harness, service: RunLog) -> None:
    """Of two answers that were both fine when they were made one is written, and may be written again."""
    version = await paused(harness)
    store: Any = service
    first, second = [
        await service.conclude_answer(
            "w", "r", Answer(answered_by=who, comment=None, is_rejection=False, now=NOON, if_version=version)
        )
        for who in (MEI, BOB)
    ]

    await store._apply_answer(first, version)
    with pytest.raises(AlreadyAnsweredError) as caught:
        await store._apply_answer(second, version)
    await store._apply_answer(first, version)

    assert MEI == caught.value.answered_by
    assert first.run == await service.get_run("w", "r")
    assert 2 == len(await service.get_history("w", "r"))


@every_adapter
async def test_of_answers_at_once_one_is_in_the_history(harness: Harness, service: RunLog) -> None:
    """However answers to one pause travel, one alone is in the history, as the state after the pause."""
    version = await paused(harness)

    await all_at_once(service, version, 6)
    await harness.settle()

    before, after = await service.get_history("w", "r")
    assert (version, RunStatus.PAUSED) == (before.version, before.status)
    assert after.answered_by in {f"a{number}" for number in range(6)}


# Defaults


@every_adapter
async def test_a_default_is_taken_once_it_is_due(harness: Harness, service: RunLog) -> None:
    """Past its deadline a run goes on with its default, which the history says, and not before or twice."""
    await paused(harness, choices=("pay", "wait"), form=FORM, default_choice="wait", deadline=NOON + HOUR)

    assert not await service.take_default("w", "r", now=NOON + HOUR)
    assert await service.take_default("w", "r", now=NOON + 2 * HOUR)
    await harness.settle()
    assert not await service.take_default("w", "r", now=NOON + 3 * HOUR)

    run = await service.get_run("w", "r")
    assert run is not None
    assert RunStatus.RUNNING is run.status
    assert [(RunStatus.RUNNING, BY_DEFAULT, "wait", None, None)] == await answers(service)
    assert [False, True] == [line.inferred for line in await service.get_history("w", "r")]
    with pytest.raises(NotPausedError):
        await service.resume("w", "r", answered_by=MEI, choice="pay", values={"amount": 1})


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"deadline": NOON},
        {"choices": ("a",), "default_choice": "a"},
        {"choices": ("a",), "deadline": NOON},
    ],
    ids=repr,
)
@memory_alone
async def test_without_a_default_or_a_deadline_nothing_is_taken(
    harness: Harness, service: RunLog, request_: dict[str, Any]
) -> None:
    """A run that offers no default, or has no deadline, waits on."""
    await paused(harness, **request_)

    assert not await service.take_default("w", "r", now=NOON + HOUR)
    assert [] == await answers(service)
    with pytest.raises(RunNotFoundError):
        await service.take_default("w", "other")


async def test_a_default_and_answers_at_once(harness: Harness, service: RunLog) -> None:
    """Of a default and answers to the same pause at once, one takes effect."""
    version = await paused(harness, choices=("a",), default_choice="a", deadline=NOON)

    answer = service.resume("w", "r", answered_by=MEI, choice="a", if_version=version)
    taken, answered = await asyncio.gather(
        service.take_default("w", "r", now=NOON + HOUR), answer, return_exceptions=True
    )

    ((_, answered_by, *_),) = await answers(service)
    assert (answered_by == BY_DEFAULT, answered_by == MEI) == (taken, isinstance(answered, WorkflowRun))


async def test_an_answer_to_a_run_that_has_expired(harness: Harness, service: RunLog) -> None:
    """An answer that comes once its run is deleted is told that there is no run."""
    version = await paused(harness)
    await harness.delete("w", "r")

    with pytest.raises(RunNotFoundError):
        await service.resume("w", "r", answered_by=MEI, if_version=version)


@every_adapter
async def test_a_run_that_goes_on_without_an_answer(harness: Harness, service: RunLog) -> None:
    """Progress is no transition, but a run that makes some does not wait: the error says so."""
    asked = await paused(harness)
    going_on = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING, started_at=NOON)
    await harness.store.apply([going_on.model_copy(update={"is_progress": True})])

    with pytest.raises(AlreadyAnsweredError, match="is not its newest state: the run has said") as raised:
        await service.resume("w", "r", answered_by=MEI, if_version=asked)

    assert raised.value.answered_by is None
