"""What Firestore can count: what one of its indexes finds, and nothing that is looked for in the runs."""

from __future__ import annotations

import re
from itertools import product

import pytest

from run_log.core import InvalidArgumentError, RunRef
from run_log.stores.firestore.queries import check_counted
from run_log.stores.listings import RunConditions, Selection

LABEL = ("team", "a")
LABELS = {"team": "a", "stage": "b"}
PARENT = RunRef("w", "r")
COUNTED: list[RunConditions] = [
    {},
    {"status": "failed"},
    {"label": LABEL},
    {"parent": PARENT},
    {"error_type": "ValueError"},
]
REFUSED: list[tuple[RunConditions, bool, str]] = [
    ({"status": "failed", "parent": PARENT}, False, "status"),
    ({"trigger_type": "cron", "label": LABEL}, False, "trigger_type"),
    ({"trigger_type": "cron"}, True, "trigger_type"),
    ({"status": ["failed", "paused"]}, True, "status"),
    ({"label": LABELS}, False, "label"),
    ({"label": LABEL, "parent": PARENT}, True, "label"),
    ({"label": LABEL, "error_type": "ValueError"}, False, "error_type"),
    (
        {"status": "failed", "trigger_type": "cron", "label": LABELS, "error_type": "ValueError"},
        True,
        "status and trigger_type and label and error_type",
    ),
]


@pytest.mark.parametrize("of_all", [False, True])
def test_what_one_index_finds_is_counted(*, of_all: bool) -> None:
    """Runs of a workflow, or of all, are counted by any one filter; of a workflow by status and trigger."""
    for conditions in COUNTED:
        check_counted(Selection.of(**conditions), of_all=of_all)
    for status, trigger_type in product((None, "failed", ["failed", "paused"]), (None, "cron")):
        check_counted(Selection.of(status=status, trigger_type=trigger_type), of_all=False)


@pytest.mark.parametrize(("conditions", "of_all", "names"), REFUSED)
def test_what_is_not_counted(conditions: RunConditions, of_all: bool, names: str) -> None:  # noqa: FBT001
    """A count by what no index has is refused: by which filters it is, and what can be done."""
    said = f"{'of all workflows ' * of_all}by {names} beside the rest; leave out {names}, pass one label"

    with pytest.raises(InvalidArgumentError, match=re.escape(said)):
        check_counted(Selection.of(**conditions), of_all=of_all)
