"""What others wrote, on every page: whatever it is, it is text."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest

from run_log.core import PauseRequest, RunProgress, RunRef, RunStatus, Step, StepStatus, WorkflowRun
from run_log.core.clock import micros_of
from run_log.core.ids import valid_text
from run_log.dashboard.pages.texts import visible
from run_log.dashboard.paths import segment_of
from run_log.stores import RunLogService
from run_log.stores.notices import DeadLetterNotice, Notice, NoticeKind, VerifyNotice
from run_log.testing import a_run, an_event

from .site import NOON, Node, opened_site, parsed, path_of

TAG: Final = "<img src=x onerror=alert(1)>"
HOSTILE: Final = {
    "markup": f"\"'>{TAG}</td></script><script>alert(1)</script>{{{{7*7}}}}&amp;",
    "direction": "a\u202etxt.exe\u2066b\u200f",
    "controls": "a\x00\x1b[31m\x7f\x85\u2028b",
    "path": "../../a/b?c#d%2F",
    "long": "x" * 1_000,
    "surrogate": "a\ud800b",
    "emoji": "👩‍👩‍👧 ünï",
}


def hostile(text: str, status: RunStatus) -> WorkflowRun:
    """Return a run that has *text* wherever it can have a text."""
    fields: dict[str, Any] = {
        "id": f"{status} {text}",
        "workflow_id": f"w {text}",
        "status": status,
        "started_at": NOON - timedelta(hours=3),
        "labels": {"k": text[:120]},
        "parent": RunRef(f"w {text}", f"p {text}"),
        "error": text,
        "error_type": text[:200],
        "trigger_data": {text: [text]},
        "result": {"a": {text: text}},
    }
    if status is RunStatus.PAUSED:
        form = {
            "title": text,
            "properties": {
                text: {"type": "string", "title": text, "description": text, "default": text},
                "pick": {"enum": [text, "b"]},
                "whole": {"type": "array", "title": text},
                "many": {"type": "string", "maxLength": 999, "default": text},
            },
            "required": [text],
        }
        fields["pause"] = PauseRequest(
            reason=text, assignee=text, choices=(text, "b"), form=form, default_choice="b", deadline=NOON
        )
    run = a_run(**fields)
    run.progress = RunProgress(fraction=0.5, text=text)
    return run


async def tell(log: RunLogService, text: str) -> None:
    """Have a notice of each kind say *text*."""
    letter = DeadLetterNotice(
        at=NOON, reason=text, error=text, message_id=text, workflow_id=text, run_id=text
    )
    found = VerifyNotice(
        at=NOON, workflow_id=text, workflows=1, runs=1, repaired=1, differing=2, first=(text,)
    )
    await log.put_notices(NoticeKind.DEAD_LETTER, [Notice(key="1", at=NOON, text=letter.model_dump_json())])
    await log.put_notices(NoticeKind.VERIFICATION, [found.stored()])


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_every_page(log: RunLogService, text: str) -> None:
    """No page has an element, an attribute or a direction that somebody's text asked for."""
    runs = [hostile(text, status) for status in RunStatus]
    step = Step(
        key="s",
        name=text[:90],
        status=StepStatus.FAILED,
        started_at=NOON,
        error=text[:90],
        attributes={text[:90]: text[:90]},
        version=micros_of(NOON),
    )
    for run in runs:
        await log.apply([an_event(run, occurred_at=run.started_at).model_copy(update={"steps": (step,)})])
    await tell(log, valid_text(text))
    # What a browser sends of half a surrogate pair.
    sent = text.encode(errors="replace").decode()
    workflow = segment_of(runs[0].workflow_id)
    query = "&".join(f"{name}={segment_of(text)}" for name in ("since", "label", "status", "within"))
    paths = [
        *("/", "/inbox", "/operations", f"/workflows/{workflow}", f"/workflows/{workflow}/runs/nobody"),
        *(f"{path_of(run)}?payloads=1" for run in runs),
        *(f"/?{query}", f"/inbox?answered={workflow}/{workflow}&by=x&open=x"),
    ]

    async with opened_site(log) as site:
        responses = [(path, await site.client.get(path)) for path in paths]
        late = await site.client.post(
            f"{path_of(runs[-1])}/answer",
            data=dict.fromkeys(("answered_by", "comment", "choice", "inbox", "next"), sent),
            headers={"origin": "http://dashboard"},
        )

    for path, response in [*responses, ("answer", late)]:
        page = parsed(response.text)
        assert response.status_code in {200, 400, 404}, path
        assert [] == page.all("img"), path
        assert 1 == len(page.all("script")), path
        shown = "".join(_shown(page))
        assert visible(shown) == shown, path


def _shown(node: Node) -> list[str]:
    """Return all text and titles of a page, but not what fields send back as it was given."""
    if node.tag in {"textarea", "option"}:
        return []
    own = [node.attributes.get(name, "") for name in ("title", "aria-label", "href", "id", "data-copy")]
    return own + [
        text for each in node.within for text in ([each] if isinstance(each, str) else _shown(each))
    ]


async def test_what_was_given_goes_back(log: RunLogService) -> None:
    """A choice and a default go back as they are, though what is seen of them has escapes."""
    text = HOSTILE["direction"]
    run = hostile(text, RunStatus.PAUSED)
    await log.save_run(run)

    async with opened_site(log) as site:
        form = (await site.get(path_of(run))).one("form", "answer")

    (button,) = [each for each in form.all("button") if each.attributes.get("value") == text]
    assert r"a\u202etxt.exe\u2066b\u200f" == button.text
    assert text == form.one("input", name_=f"values.{text}").attributes["value"]
