"""What events of OpenLineage tell of a run."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.producer.transports import logged

from run_log.adapters.openlineage import events
from run_log.adapters.openlineage.events import Told, parsed, told_by
from run_log.core import DeadLetterReason, EventDecodeError, RunRef, RunStatus
from run_log.core.clock import micros_of
from run_log.core.ids import MAX_ID_BYTES

from .kit import NOW, an_event, parent, tags


@pytest.fixture(autouse=True)
def _nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each test log what an earlier one has logged."""
    monkeypatch.setattr(events, "_told", set[tuple[str, str]]())


def _told(event: dict[str, Any]) -> Told:
    told = told_by(event, NOW)
    assert told is not None
    return told


@pytest.mark.parametrize(
    ("kind", "status", "is_progress"),
    [
        ("START", RunStatus.RUNNING, False),
        ("RUNNING", RunStatus.RUNNING, True),
        ("COMPLETE", RunStatus.SUCCESS, False),
        ("FAIL", RunStatus.FAILED, False),
        ("ABORT", RunStatus.CANCELLED, False),
        ("OTHER", None, False),
        (None, None, False),
    ],
)
def test_statuses(kind: str | None, status: RunStatus | None, is_progress: bool) -> None:  # noqa: FBT001 - a case
    """Each type of event states its status, and OTHER states none, nor does one without a type."""
    told = _told(an_event(kind))

    assert (status, is_progress) == (told.status, told.is_progress)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-03-01T10:00:00Z", 0),
        ("2026-03-01T10:00:00.000Z", 0),
        ("2026-03-01t10:00:00z", 0),
        ("2026-03-01T12:30:00+02:30", 0),
        ("2026-02-28T22:00:00-12:00", 0),
        ("2026-03-01T10:00:00.123456789Z", 123_456),
        ("2026-03-01T10:00:00.1Z", 100_000),
        ("2026-03-01T10:00:00", 0),
    ],
)
def test_times(text: str, micros: int) -> None:
    """An event's time is read with any offset and to the microsecond, and gives the version."""
    told = _told(an_event(at=text))

    assert datetime(2026, 3, 1, 10, microsecond=micros, tzinfo=UTC) == told.moment
    assert (1, micros_of(told.moment)) == told.version[:2]


def test_a_time_without_a_zone_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A time without a zone is taken as UTC, which the log says once."""
    for second in range(3):
        _told(an_event(at=f"2026-03-01T10:00:0{second}"))

    assert ["UTC"] == [line["taken_as"] for line in logged(caplog, "run_log_openlineage_no_zone")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-03-01",
        "2026-13-01T10:00:00Z",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        7,
        None,
    ],
)
def test_no_time(text: object) -> None:
    """What is no time of the run log's is refused, and the message names the field."""
    with pytest.raises(EventDecodeError, match="eventTime: "):
        told_by({**an_event(), "eventTime": text}, NOW)


def test_a_time_ahead() -> None:
    """An event from more than a day ahead is refused, as no projector would take it."""
    _told(an_event(at=(NOW + timedelta(days=1)).isoformat()))
    with pytest.raises(EventDecodeError, match="correct the sender's clock") as refused:
        told_by(an_event(at=(NOW + timedelta(days=1, microseconds=1)).isoformat()), NOW)

    assert DeadLetterReason.CLOCK_AHEAD == refused.value.reason


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("spark://x:7077", "app.job.insert_into"),
        ("bigquery", "project.data set.table"),
        ("postgres://db:5432", "Ω/..%2F ?#"),
    ],
)
def test_ids(namespace: str, name: str) -> None:
    """The workflow is the job's namespace and name, and the run has any id, a UUID or not."""
    told = _told(an_event(namespace=namespace, name=name, run_id="run 7/a"))

    assert (f"{namespace}/{name}", "run 7/a") == told.key


def test_long_ids() -> None:
    """An id of too many bytes is shortened as everywhere, also that of a parent."""
    long = "ö" * 2_000
    told = _told(an_event(name=long, run_id=long, parent=parent(long, name=long)))

    assert told.parent is not None
    assert told.key == told.parent
    assert all(MAX_ID_BYTES >= len(text.encode()) for text in told.key)
    assert told.key != _told(an_event(name=f"{long}!", run_id=long)).key


def test_labels() -> None:
    """Tags become labels, and so does the engine; those of the run hold before those of its job."""
    told = _told(
        an_event(
            processing_engine={"name": "Airflow", "version": "3.1.0"},
            tags={
                "tags": [
                    {"key": "Cost Center", "value": "eu"},
                    {"key": "pii", "value": True},
                    {"key": "tier", "value": 2},
                ]
            },
            job_facets={"tags": tags(tier="1", team="billing")},
        )
    )

    assert {
        "engine": "Airflow",
        "engine_version": "3.1.0",
        "cost_center": "eu",
        "pii": "true",
        "tier": "2",
        "team": "billing",
    } == told.labels


@pytest.mark.parametrize(
    "tag", [{"key": "a" * 64, "value": "v"}, {"key": "k", "value": "v" * 129}, {"key": "*", "value": "v"}]
)
def test_tags_that_are_no_labels(tag: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """A tag that cannot be a label is left out, which the log says once, and the others stay."""
    facet = {"tags": [tag, {"key": "team", "value": "billing"}]}

    assert [{"team": "billing"}] * 2 == [_told(an_event(tags=facet)).labels for _ in range(2)]
    assert 1 == len(logged(caplog, "run_log_openlineage_tag_left_out"))


@pytest.mark.parametrize(
    ("message", "trace", "error_type"),
    [
        ("java.io.IOException: disk full", None, "java.io.IOException"),
        (
            "disk full",
            "java.lang.RuntimeException: disk full\n\tat a.B.c(B.java:1)",
            "java.lang.RuntimeException",
        ),
        ("disk full", 'Exception in thread "main" x.DiskError: full\n\tat a.B(B.java:1)', "x.DiskError"),
        (
            "disk full",
            'Traceback (most recent call last):\n  File "a.py"\nshop.DiskError: full\n',
            "shop.DiskError",
        ),
        ("KeyboardInterrupt", None, "KeyboardInterrupt"),
        ("Not an error: it is late", None, None),
        ("", None, None),
    ],
)
def test_errors(message: str, trace: str | None, error_type: str | None) -> None:
    """A failure has its message and stack trace, and the exception's name where one stands in them."""
    told = _told(
        an_event("FAIL", errorMessage={"message": message, "programmingLanguage": "X", "stackTrace": trace})
    )

    assert ("\n".join(filter(None, (message, trace))), error_type) == (told.error, told.error_type)


@pytest.mark.parametrize("kind", ["START", "RUNNING", "COMPLETE", "OTHER"])
def test_errors_of_what_did_not_fail(kind: str) -> None:
    """Only a run that failed or was stopped has an error."""
    assert (
        _told(an_event(kind, errorMessage={"message": "retried", "programmingLanguage": "X"})).error is None
    )


def test_parent() -> None:
    """The parent facet names the run that started this one."""
    assert (
        RunRef("spark://x:1/dag.task", "p")
        == _told(an_event(parent=parent("p", "spark://x:1", "dag.task"))).parent
    )


@pytest.mark.parametrize("facet", ["parent", "tags", "errorMessage", "processing_engine"])
@pytest.mark.parametrize(
    "value", [None, {}, [], 7, "x", {"tags": 7}, {"run": {}, "job": {"name": "n"}}, {"version": []}]
)
def test_facets_of_other_versions(facet: str, value: object) -> None:
    """A facet that cannot be read is left out, and the event is taken."""
    facets: dict[str, Any] = {facet: value, "of_somebody_else": {"x": [1]}}
    told = _told(an_event("FAIL", **facets))

    assert (None, None, {}) == (told.parent, told.error, told.labels)


@pytest.mark.parametrize("facets", [None, {}])
def test_no_facets(facets: object) -> None:
    """Facets may be absent, null or empty."""
    event = an_event()
    event["run"]["facets"] = event["job"]["facets"] = facets

    assert {} == _told(event).labels


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (None, "an event is an object, not a NoneType"),
        ([], "post a list of events to .../lineage/batch"),
        ({}, "eventTime: Field required; run: Field required; job: Field required"),
        ({"run": None}, "run: "),
        ({**an_event(), "run": {}}, "run.runId: Field required"),
        ({**an_event(), "run": {"runId": ""}}, "run.runId: String should have at least 1 character"),
        ({**an_event(), "job": {"namespace": "n"}}, "job.name: Field required"),
        (
            {**an_event(), "job": {"namespace": 7, "name": "j"}},
            "job.namespace: Input should be a valid string",
        ),
        ({**an_event(), "eventType": "BEGIN"}, "eventType: Input should be 'START', 'RUNNING'"),
        ({**an_event(), "eventType": "start"}, "eventType: "),
        ({**an_event(), "run": None}, "run: "),
        (
            {**an_event(None), "run": None, "schemaURL": "https://openlineage.io/2-0-2#/$defs/RunEvent"},
            "run: ",
        ),
        ({"job": "a job"}, "run: "),
    ],
)
def test_no_event(event: object, told: str) -> None:
    """What is no event is refused, with a message that names each field at fault."""
    with pytest.raises(EventDecodeError) as refused:
        told_by(event, NOW)

    assert told in str(refused.value)
    assert DeadLetterReason.INVALID_EVENT == refused.value.reason


def test_what_states_no_run() -> None:
    """An event of a job or a data set alone is an event, and tells of no run."""
    job = {name: value for name, value in an_event(None).items() if name != "run"}
    job["schemaURL"] = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/JobEvent"
    dataset = {"eventTime": "2026-03-01T10:00:00Z", "dataset": {"namespace": "n", "name": "t"}}

    assert [None] * 3 == [told_by(each, NOW) for each in (job, {**job, "run": None}, dataset)]


_anything = st.recursive(
    st.none() | st.text(max_size=3) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["runId", "namespace", "name", "facets", "tags", "parent", "key"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["eventTime", "eventType", "run", "job"]), _anything, max_size=2))
def test_any_object(fields: dict[str, Any]) -> None:
    """Whatever an event holds, it tells of a run, or of none, or is refused."""
    try:
        told = told_by({**an_event(), **fields}, NOW)
    except EventDecodeError:
        return
    assert told is None or told.version.text


@pytest.mark.search
@given(st.binary() | st.text().map(str.encode))
def test_any_body(body: bytes) -> None:
    """Whatever the body is, it is JSON or refused."""
    with suppress(EventDecodeError):
        json.dumps(parsed(body))


def test_no_json() -> None:
    """A body that is not JSON is refused as such."""
    with pytest.raises(EventDecodeError, match="the body is not JSON") as refused:
        parsed(b"{")

    assert DeadLetterReason.UNDECODABLE == refused.value.reason


@pytest.mark.parametrize("body", [b'{"a":"\\ud800"}', b"[" * 400 + b"]" * 400])
def test_bodies_that_the_quick_parser_refuses(body: bytes) -> None:
    """Lone surrogates, which file names have, and deep facets are no reason to refuse an event."""
    assert json.loads(body) == parsed(body)


def test_the_same_event_has_the_same_version() -> None:
    """Whatever of an event is kept makes its version, and nothing else."""
    same = {**an_event(tags=tags(a="1", b="2")), "inputs": [{"namespace": "n", "name": "t"}]}
    others = [
        an_event(tags=tags(a="1", b="3")),
        an_event(tags=tags(a="1", b="2"), parent=parent()),
        an_event("RUNNING", tags=tags(a="1", b="2")),
        an_event("RUNNING", tags=tags(a="1", b="2"), run_id="s"),
        an_event("COMPLETE", tags=tags(a="1", b="2")),
        an_event("COMPLETE", at="2026-03-01T10:00:00.000001Z", tags=tags(a="1", b="2")),
    ]

    assert _told(same).version == _told(an_event(tags=tags(b="2", a="1"))).version
    assert len({_told(event).version for event in (same, *others)}) == len(others) + 1
