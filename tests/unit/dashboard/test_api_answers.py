"""Answering a paused run over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from typing_extensions import override

from run_log.core import RunStatus
from run_log.dashboard.access import Caller
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run

from .api import Api, a_pause, opened_api, path_of, problem_of

FORM = {"type": "object", "properties": {"eur": {"type": "number"}}, "required": ["eur"]}
RESUME = {"action": "resume", "answered_by": "ann"}


async def test_what_is_shown_is_answered(api: Api) -> None:
    """The tag of a run that is shown answers its pause, and the answer stands in the history."""
    run = a_pause(choices=("pay", "wait"), form=FORM)
    await api.log.save_run(run)
    shown = await api.get(path_of(run))

    body = {**RESUME, "choice": "pay", "values": {"eur": 42}, "comment": "fine"}
    answered = await api.answer(run, body, if_match=shown.headers["etag"])

    assert (200, "running") == (answered.status_code, answered.json()["status"])
    after = await api.json(path_of(run))
    assert answered.json() == after
    *_, newest = (await api.json(f"{path_of(run)}/history"))["transitions"]
    assert ("ann", "pay", {"eur": 42}, "fine") == tuple(
        newest[name] for name in ("answered_by", "choice", "values", "comment")
    )


async def test_a_rejection_ends_the_run(api: Api) -> None:
    """A run that is rejected has failed, with who did it and why; nothing has to be chosen for that."""
    run = a_pause(choices=("pay", "wait"), form=FORM)
    await api.log.save_run(run)
    (waiting,) = (await api.json("/pending"))["pending_runs"]

    body = {"action": "reject", "answered_by": "ann", "comment": "no"}
    answered = await api.answer(run, body, if_match=f'"{waiting["version"]}"')

    assert ("failed", "rejected by ann: no") == (answered.json()["status"], answered.json()["error"])


async def test_of_answers_at_once_one_succeeds(api: Api) -> None:
    """Of answers to the same pause one succeeds, and the others are told who it was."""
    run = a_pause()
    await api.log.save_run(run)
    tag = (await api.get(path_of(run))).headers["etag"]

    bodies = [{**RESUME, "answered_by": f"person {number}"} for number in range(5)]
    answers = await asyncio.gather(*(api.answer(run, body, if_match=tag) for body in bodies))

    (winner,) = [answer.json() for answer in answers if answer.status_code == 200]
    problems = [problem_of(answer, 409) for answer in answers if answer.status_code != 200]
    assert [winner["pause"]["answered_by"]] * 4 == [problem["answered_by"] for problem in problems]
    assert {"urn:run-log:problem:already-answered"} == {problem["type"] for problem in problems}


async def test_what_is_answered_already_is_a_conflict(api: Api) -> None:
    """A run that does not wait, or no longer, is not answered, by whatever condition."""
    run = a_pause()
    await api.log.save_run(run)
    assert 200 == (await api.answer(run, RESUME)).status_code

    assert "urn:run-log:problem:not-paused" == problem_of(await api.answer(run, RESUME), 409)["type"]
    problem_of(await api.answer(run, RESUME, if_match="*"), 409)
    tag = (await api.get(path_of(run))).headers["etag"]
    problem_of(await api.answer(run, RESUME, if_match=tag), 409)


@pytest.mark.parametrize("header", ['"1:1:x"', '"1:1:x", "1:2:x"', "nonsense", 'W/"1:1:x"', ""])
async def test_another_state_is_not_answered(header: str, api: Api) -> None:
    """A condition that does not name the run's newest state is refused, and nothing is changed."""
    run = a_pause()
    await api.log.save_run(run)

    problem = problem_of(await api.answer(run, RESUME, if_match=header), 412)

    assert "answered_by" not in problem
    assert "paused" == (await api.json(path_of(run)))["status"]


async def test_one_of_several_states_is_answered(api: Api) -> None:
    """Of several tags, the one that is current counts."""
    run = a_pause()
    await api.log.save_run(run)
    tag = (await api.get(path_of(run))).headers["etag"]

    assert 200 == (await api.answer(run, RESUME, if_match=f'"1:1:x", {tag}')).status_code


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"action": "resume"}, "answered_by"),
        ({**RESUME, "answered_by": ""}, "answered_by"),
        ({**RESUME, "choice": "pay", "values": {"eur": "many"}}, "values.eur"),
        ({**RESUME, "choice": "pay", "values": {}}, "values"),
        ({**RESUME, "choice": "steal", "values": {"eur": 1}}, "choice"),
        ({**RESUME, "values": {"eur": 1}}, "choice"),
        ({**RESUME, "values": [1]}, "body.values"),
        ({**RESUME, "action": "approve"}, "body.action"),
        ({**RESUME, "if_version": "1:1:x"}, "body.if_version"),
        ({**RESUME, "comment": 7}, "body.comment"),
        ([], "body"),
        (None, "body"),
    ],
)
async def test_a_fault_of_an_answer_is_named(body: Any, named: str, api: Api) -> None:
    """What cannot be an answer is refused with the field at fault, and nothing is changed."""
    run = a_pause(choices=("pay", "wait"), form=FORM)
    await api.log.save_run(run)

    problem = problem_of(await api.answer(run, body), 400)

    assert named in problem["detail"]
    assert "paused" == (await api.json(path_of(run)))["status"]


async def test_a_run_that_is_not_there_is_not_answered(api: Api) -> None:
    """An answer to a run that is not there is a 404, by whatever condition."""
    for header in ("*", '"1:1:x"', '"1:1:x", "1:2:x"', "nonsense"):
        problem_of(await api.answer(a_run(id="no such run"), RESUME, if_match=header), 404)


async def test_who_is_signed_in_answers(api: Api) -> None:
    """Who is signed in is who answers: a body may say the same, and not another."""
    run = a_pause()
    await api.log.save_run(run)

    async def bob(_connection: HTTPConnection) -> Caller:
        return Caller(name="bob")

    async with opened_api(api.log, auth=bob) as signed_in:
        problem = problem_of(await signed_in.answer(run, RESUME), 400)
        answered = await signed_in.answer(run, {"action": "resume"})

    assert "'bob' is signed in" in problem["detail"]
    assert "bob" == answered.json()["pause"]["answered_by"]
    again = a_run(id="run-1", status=RunStatus.PAUSED, attempt=2)
    await api.log.save_run(again)
    async with opened_api(api.log, auth=bob) as signed_in:
        assert 200 == (await signed_in.answer(again, {**RESUME, "answered_by": "bob"})).status_code


async def test_who_may_only_read_does_not_answer(api: Api) -> None:
    """A caller who may not answer, and anybody in a read-only app, is refused, and reads."""
    run = a_pause()
    await api.log.save_run(run)

    async def reader(_connection: HTTPConnection) -> Caller:
        return Caller(name="eve", may_answer=False)

    for arguments in ({"auth": reader}, {"read_only": True}):
        async with opened_api(api.log, **arguments) as reading:
            problem_of(await reading.answer(run, RESUME), 403)
            assert "paused" == (await reading.json(path_of(run)))["status"]


async def test_an_answer_is_durable() -> None:
    """An answer that could not be published in time is not told to be given: the client may send it again."""

    class Unpublished(InMemoryRunLogService):
        @override
        async def flush(self, timeout: float = 2.0) -> bool:
            return False

    log = Unpublished()
    await log.save_run(a_pause())
    async with opened_api(log) as api:
        problem = problem_of(await api.answer(a_pause(), RESUME), 503)

    assert "urn:run-log:problem:unavailable" == problem["type"]
