"""Rows and forms as they are sent, as snapshots; ``--snapshot-update`` writes them anew."""

from __future__ import annotations

from datetime import timedelta

from syrupy.assertion import SnapshotAssertion

from run_log.core import PauseRequest, RunProgress, RunStatus
from run_log.dashboard.pages.filters import Filter
from run_log.dashboard.pages.forms import Answering
from run_log.dashboard.pages.rendering import templates
from run_log.dashboard.pages.rows import Row
from run_log.testing import a_run

from .site import NOON


def test_rows(snapshot: SnapshotAssertion) -> None:
    """A stream sends rows as short as these."""
    failed = a_run(
        id="a/b", status=RunStatus.FAILED, error="<no> disk", labels={"team": "a"}, started_at=NOON
    )
    going = a_run(id="r", status=RunStatus.RUNNING, started_at=NOON - timedelta(minutes=2))
    going.progress = RunProgress(fraction=0.4, text="3 of 7")

    assert snapshot == Row(failed, Filter.of([], NOON), root="/x", now=NOON).html
    assert snapshot == Row(going, Filter.of([("workflow", "workflow-1")], NOON), root="", now=NOON).html


def test_form(snapshot: SnapshotAssertion) -> None:
    """A form has what its fields need to be sent, understood and put right."""
    form = {"properties": {"eur": {"type": "number", "description": "At most 9."}}, "required": ["eur"]}
    run = a_run(status=RunStatus.PAUSED, pause=PauseRequest(reason="Pay?", form=form))
    answering = Answering.asked(run, "1:2:x", None).checked({"comment": "well"}, is_rejection=False)

    html = templates.get_template("_answer.html").render(
        answering=answering, run=run, root="", next="", kept=""
    )

    assert snapshot == html
