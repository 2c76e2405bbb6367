"""The inbox and its forms: who waits, what they ask, and what becomes of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from starlette.requests import HTTPConnection
from typing_extensions import override

from run_log.core import PauseRequest, RunStatus, WorkflowRun
from run_log.dashboard.access import Caller
from run_log.dashboard.pages.inbox import PAGE_SIZE
from run_log.stores import InMemoryRunLogService, RunLogService
from run_log.testing import a_run

from .site import NOON, Node, Site, opened_site, parsed, path_of

HOUR = timedelta(hours=1)
FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["eur", "how"],
    "properties": {
        "eur": {"type": "number", "title": "Amount", "description": "In euros.", "minimum": 1},
        "how": {"enum": ["card", "cash"]},
        "urgent": {"type": "boolean", "default": True},
        "note": {"type": "string"},
    },
}


@pytest.fixture
async def site(log: RunLogService) -> AsyncIterator[Site]:
    """Yield the pages of a run log of each kind."""
    async with opened_site(log) as found:
        yield found


async def ask(site: Site, name: str, **pause: Any) -> WorkflowRun:
    """Save a run that waits, and return it."""
    fields: dict[str, Any] = {"reason": f"{name}?", **pause}
    run = a_run(id=name, status=RunStatus.PAUSED, started_at=NOON - HOUR, pause=PauseRequest(**fields))
    await site.log.save_run(run)
    return run


def as_sent(form: Node, button: str, **changes: str) -> dict[str, str]:
    """Return what a browser sends of *form* when the button with this text is pressed."""
    sent: dict[str, str] = {}
    for field in [*form.all("input"), *form.all("textarea"), *form.all("select")]:
        attributes = field.attributes
        if "name" not in attributes or (attributes.get("type") == "checkbox" and "checked" not in attributes):
            continue
        chosen = [each.attributes["value"] for each in field.all("option") if "selected" in each.attributes]
        text = field.raw.removeprefix("\n") if field.tag == "textarea" else attributes.get("value", "")
        sent[attributes["name"]] = (chosen or [""])[0] if field.tag == "select" else text
    (pressed,) = [each for each in form.all("button") if each.text == button]
    return {**sent, pressed.attributes["name"]: pressed.attributes["value"], **changes}


def forms_of(page: Node) -> list[Node]:
    """Return the forms that answer, in order."""
    return page.all("form", "answer")


async def send(site: Site, form: Node, button: str, status: int, **changes: str) -> Any:
    """Press a button of a form; return what that is answered with."""
    return await site.post(form.attributes["action"], status, as_sent(form, button, **changes))


async def history_of(site: Site, run: WorkflowRun) -> list[tuple[Any, ...]]:
    """Return who answered what, of a run."""
    lines = await site.log.get_history(*run.key)
    return [(line.status.value, line.answered_by, line.choice, line.comment, line.values) for line in lines]


async def test_by_deadline(site: Site) -> None:
    """The earliest deadline comes first, overdue ones marked, those without one last."""
    await ask(site, "none")
    await ask(site, "later", deadline=NOON + 2 * HOUR)
    await ask(site, "late", deadline=NOON - HOUR, assignee="ann", choices=("a", "b"), default_choice="b")
    await ask(site, "soon", deadline=NOON + HOUR)
    await site.log.save_run(a_run(id="done"))

    page = await site.get("/inbox")

    items = page.all("details", "item")
    assert ["late?", "soon?", "later?", "none?"] == [
        item.one("summary").one("span", "asks").text for item in items
    ]
    assert ["overdue by 1 h 0 m", "due in 1 h 0 m", "due in 2 h 0 m", "no deadline"] == [
        item.one("summary").all("span")[-1].text if number else item.one("span", "late").text
        for number, item in enumerate(items)
    ]
    assert [True, False, False, False] == ["open" in item.attributes for item in items]
    assert "Asked of ann. Due 2026-03-04 11:00:00 UTC; then “b” is taken." in items[0].text
    assert ["a", "b", "Reject"] == buttons(items[0])
    assert ["Approve", "Reject"] == buttons(items[1])


def buttons(node: Node) -> list[str]:
    """Return the buttons that can be pressed."""
    return [each.text for each in node.all("button") if "disabled" not in each.attributes]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("assignee=ann", ["late", "ann"]),
        ("overdue=yes", ["late"]),
        ("overdue=no", ["soon", "ann"]),
        ("assignee=ann&overdue=no&workflow=workflow-1", ["ann"]),
        ("workflow=other", []),
    ],
)
async def test_filters(site: Site, query: str, expected: list[str]) -> None:
    """The address narrows the inbox."""
    await ask(site, "late", deadline=NOON - HOUR, assignee="ann")
    await ask(site, "soon", deadline=NOON + HOUR)
    await ask(site, "ann", assignee="ann")

    page = await site.get(f"/inbox?{query}")

    assert expected == names(page)
    assert bool(expected) != bool([node for node in page.all("a") if node.text == "Show the whole inbox"])


def names(page: Node) -> list[str]:
    """Return the ids of the runs that wait, in order."""
    return [item.attributes["id"].rpartition("/")[2] for item in page.all("details", "item")]


@pytest.mark.parametrize("query", ["overdue=maybe", "page_token=x", "page_token=due.x"])
async def test_bad_filters(site: Site, query: str) -> None:
    """What cannot be used is told in words."""
    page = await site.get(f"/inbox?{query}", 400)

    assert page.all("", "fault")


async def test_pages(site: Site) -> None:
    """A walk over pages has every run once, by deadline, from what is overdue to what has no deadline."""
    deadlines: Iterable[datetime | None] = [*(NOON + (number - 30) * HOUR for number in range(60)), None]
    expected = [str(number) for number in range(61)]
    for name, deadline in zip(expected, deadlines, strict=True):
        await ask(site, name, deadline=deadline)

    first = await site.get("/inbox")
    second = await site.get(first.link("Later"))
    third = await site.get(second.link("Later"))

    assert expected == [*names(first), *names(second), *names(third)]
    assert "/inbox" == third.link("First")


async def test_a_page_that_is_just_full(site: Site) -> None:
    """Where what is overdue just fills a page, the rest begins on the next one."""
    for number in range(PAGE_SIZE):
        await ask(site, str(number), deadline=NOON - HOUR)
    await ask(site, "rest")

    first = await site.get("/inbox")
    second = await site.get(first.link("Later"))

    assert PAGE_SIZE == len(names(first))
    assert ["rest"] == names(second)


async def test_empty(site: Site) -> None:
    """An empty inbox shows the command that fills it."""
    page = await site.get("/inbox")

    assert "run-log emit hello --run ask-1 --status paused" == page.one("code").text


async def test_approve(site: Site) -> None:
    """An answer is recorded with who gave it and what they said; then comes the next of the same list."""
    first = await ask(site, "a", deadline=NOON, assignee="ann")
    await ask(site, "b", deadline=NOON + HOUR, assignee="ann")
    await ask(site, "c", deadline=NOON + 2 * HOUR, assignee="ann")
    form = forms_of(await site.get("/inbox?assignee=ann"))[0]

    response = await send(site, form, "Approve", 303, answered_by="mei", comment="fine\r\nby me ")
    page = await site.get(response.headers["location"].partition("#")[0])

    assert [
        ("paused", None, None, None, None),
        ("running", "mei", None, "fine\nby me", None),
    ] == await history_of(site, first)
    assert response.headers["location"].endswith("#run/workflow-1/b")
    assert "Answered: workflow-1 / a" == page.one("div", "notice").text
    assert ["b", "c"] == names(page)
    assert ["b"] == [
        name for name, item in zip(names(page), page.all("details"), strict=True) if "open" in item.attributes
    ]
    assert "mei" == forms_of(page)[0].one("input", name_="answered_by").attributes["value"]
    assert "ann" == page.one("input", name_="assignee").attributes["value"]


async def test_reject(site: Site) -> None:
    """A rejection needs nothing but a name, whatever the form asks for, and ends the run."""
    run = await ask(site, "a", form=FORM, choices=("x",))
    form = forms_of(await site.get(path_of(run)))[0]

    response = await send(site, form, "Reject", 303, answered_by="mei", **{"values.eur": "nonsense"})

    page = await site.get(response.headers["location"])
    assert "Rejected: workflow-1 / a" == page.one("div", "notice").text
    stored = await site.log.get_run(*run.key)
    assert stored is not None
    assert (RunStatus.FAILED, "rejected by mei") == (stored.status, stored.error)


async def test_choice(site: Site) -> None:
    """Each choice is a button, and Enter presses none of them."""
    run = await ask(site, "a", choices=("pay", "<hold>"))
    form = forms_of(await site.get(path_of(run)))[0]

    await send(site, form, "<hold>", 303, answered_by="mei")

    assert ("running", "mei", "<hold>", None, None) == (await history_of(site, run))[-1]
    # The first button is what Enter presses.
    assert "disabled" in form.all("button")[0].attributes


async def test_what_is_no_choice(site: Site) -> None:
    """An answer that the page did not offer is refused in words, and what was typed stays."""
    run = await ask(site, "a", choices=("pay", "hold"))
    form = forms_of(await site.get(path_of(run)))[0]

    response = await send(site, form, "pay", 400, answered_by="mei", comment="well", choice="steal")

    again = forms_of(parsed(response.text))[0]
    assert "choice is 'steal'; pass one of 'pay', 'hold'" == again.all("p", "fault")[-1].text
    assert "well" == as_sent(again, "pay")["comment"]


async def test_form(site: Site) -> None:
    """The fields of a form are sent as values of their types."""
    run = await ask(site, "a", form=FORM)
    form = forms_of(await site.get(path_of(run)))[0]

    await send(site, form, "Approve", 303, answered_by="mei", **{"values.eur": "12.50", "values.how": "cash"})

    assert {"eur": 12.5, "how": "cash", "urgent": True} == (await history_of(site, run))[-1][-1]


async def test_what_is_wrong(site: Site) -> None:
    """All that is wrong is told at once, each at its field, and what was typed stays."""
    run = await ask(site, "a", form=FORM)
    form = forms_of(await site.get(path_of(run)))[0]
    typed = {
        "values.eur": "0.5",
        "values.how": "",
        "values.note": "<x>",
        "comment": "well",
        "version": as_sent(form, "Approve")["version"],
    }

    response = await send(site, form, "Approve", 400, **typed)

    again = forms_of(parsed(response.text))[0]
    sent = as_sent(again, "Approve")
    assert typed == {name: sent[name] for name in typed}
    assert {
        "values.eur": "0.5 is less than the minimum of 1",
        "values.how": "Fill this in.",
        "answered_by": "Say who you are.",
    } == faults_of(again)
    assert again.one("p", "fault", role="alert").text.startswith("Nothing is recorded yet")
    assert ("paused", None, None, None, None) == (await history_of(site, run))[-1]


def faults_of(form: Node) -> dict[str, str]:
    """Return what is wrong with each field, as those hear it who do not see it."""
    found: dict[str, str] = {}
    for field in form.all(aria_invalid="true"):
        ids = field.attributes["aria-describedby"].split()
        (text,) = [form.one(id=each).text for each in ids if each.endswith("-fault")]
        found[field.attributes["name"]] = text
    return found


async def test_two_at_once(site: Site) -> None:
    """Of two who answer one pause, one succeeds; the other is told who did, and keeps the comment."""
    run = await ask(site, "a")
    form = forms_of(await site.get(path_of(run)))[0]
    sent = [as_sent(form, "Approve", answered_by=who, comment=f"{who} agrees") for who in ("mei", "ann")]

    answers = await asyncio.gather(
        *(
            site.client.post(form.attributes["action"], data=fields, headers={"origin": "http://dashboard"})
            for fields in sent
        )
    )

    assert [303, 409] == sorted(answer.status_code for answer in answers)
    winner, loser = ("mei", "ann") if answers[0].status_code == 303 else ("ann", "mei")
    (late,) = [parsed(answer.text) for answer in answers if answer.status_code == 409]
    notice = late.one("div", "notice")
    assert "alert" == notice.attributes["role"]
    assert f"Already answered by {winner}" in notice.text
    assert f"{loser} agrees" in notice.text
    assert not forms_of(late)
    assert ("running", winner) == (await history_of(site, run))[-1][:2]


async def test_too_late(site: Site) -> None:
    """An answer to a run that waits no more says how the run is, also where the form is wrong by then."""
    run = await ask(site, "a", form=FORM)
    form = forms_of(await site.get(path_of(run)))[0]
    await site.log.cancel(*run.key, cancelled_by="somebody")

    page = parsed((await send(site, form, "Approve", 409)).text)

    assert "The run is cancelled by now" in page.one("div", "notice").text


async def test_an_answer_on_its_way(site: Site) -> None:
    """What was just answered does not show in the next page, though the projection may not have it yet."""
    run = await ask(site, "a")
    record = await site.log.get_record(*run.key)
    assert record is not None

    page = await site.get(f"/inbox?answered=workflow-1/a&version={record.version.text}")
    other = await site.get("/inbox?answered=workflow-1/a&version=1/2/x")

    assert [] == names(page)
    assert ["a"] == names(other)


async def test_an_answer_that_is_not_published() -> None:
    """An answer that could not be published in time is not told to be given."""

    class Unpublished(InMemoryRunLogService):
        @override
        async def flush(self, timeout: float = 2.0) -> bool:
            return False

    async with opened_site(Unpublished()) as site:
        await ask(site, "a")
        form = forms_of(await site.get("/inbox"))[0]

        await send(site, form, "Approve", 503, answered_by="mei")


async def test_nobody_there(site: Site) -> None:
    """An answer to a run that is not there is answered with 404."""
    await site.post("/workflows/w/runs/r/answer", 404, {"action": "resume", "answered_by": "mei"})


async def mei(connection: HTTPConnection) -> Caller:
    """Sign everybody in."""
    del connection
    return Caller(name="mei@example.com")


async def onlooker(connection: HTTPConnection) -> Caller:
    """Let everybody look."""
    del connection
    return Caller(name="ann@example.com", may_answer=False)


async def test_who_is_signed_in(log: RunLogService) -> None:
    """Who is signed in answers, whatever the form says, and is asked for no name."""
    async with opened_site(log, asking=mei) as site:
        run = await ask(site, "a")
        form = forms_of(await site.get("/inbox"))[0]
        assert "You answer as mei@example.com." in form.text
        assert not form.all("input", name_="answered_by")

        await send(site, form, "Approve", 303, answered_by="somebody else")

        assert ("running", "mei@example.com") == (await history_of(site, run))[-1][:2]


async def test_who_may_only_look(log: RunLogService) -> None:
    """Who may only look sees what is asked, but no form; an answer is refused."""
    async with opened_site(log, asking=onlooker) as site:
        run = await ask(site, "a")

        for path in ("/inbox", path_of(run)):
            page = await site.get(path)
            assert not forms_of(page)
            assert "You may look, but not answer." in page.one("main").text
            assert "a?" in page.one("main").text
        response = await site.post(f"{path_of(run)}/answer", 403, {"action": "resume"})

        assert "read-only" in parsed(response.text).one("main").text
        assert ["paused"] == [line[0] for line in await history_of(site, run)]
