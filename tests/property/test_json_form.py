"""The public JSON form of any run is JSON, and gives an equal run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from run_log.core import RunProgress, WorkflowRun
from run_log.core.nearest import is_json
from run_log.testing import a_run

from .core_strategies import anything, examples, json_values, runs

progress = st.none() | st.builds(
    RunProgress,
    fraction=st.none() | st.floats(min_value=0, max_value=1),
    text=st.none() | st.text(anything, max_size=8),
)


@examples(150)
@given(runs, progress)
@example(a_run(started_at=datetime.min.replace(tzinfo=UTC)), None)
@example(a_run(completed_at=datetime.max.replace(tzinfo=UTC)), None)
def test_any_run_comes_back_equal(run: WorkflowRun, told: RunProgress | None) -> None:
    """Any run is JSON of which `model_validate` makes an equal one."""
    run.progress = told
    text = json.dumps(run.to_json(), allow_nan=False)
    again = WorkflowRun.model_validate(json.loads(text))

    assert run == again
    assert text == json.dumps(again.to_json(), allow_nan=False)


@examples(150)
@given(json_values)
def test_json_is_told(value: Any) -> None:
    """Every JSON value is told to be one."""
    assert is_json(value)
