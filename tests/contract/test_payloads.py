"""Payloads and ids: any JSON value and any text come back as they were."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from run_log.core import Message, PauseRequest, RunStatus, decode_event, encode_event
from run_log.core.ids import MAX_ID_BYTES
from run_log.core.nearest import CUT_MARKER, MAX_PAYLOAD_BYTES
from run_log.core.payload import MAX_TEXT_BYTES
from run_log.stores import RunLog
from run_log.testing import a_run, an_event

from .adapters import every_adapter
from .harness import Harness, ids, save, walk


def nested(depth: int) -> Any:
    """Return lists and objects nested *depth* levels."""
    value: Any = "the core"
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


PAYLOADS: dict[str, dict[str, Any]] = {
    "empty": {},
    "nested lists": {"matrix": [[1, [2, []]], [[[]]]]},
    "empty keys": {"": {"": ""}},
    "dotted keys": {"a.b": {"c.d": 1}, "a": {"b": 2}, ".": 3, "a..b": 4, "`a`": 5},
    "reserved keys": {"__name__": 1, "__x__": {"__type__": "y"}, "projection": {"hlc": 0}, "a/b": 6},
    "big integers": {"over": 2**64, "far": -(10**300), "edge": 2**63},
    "floats": {"tiny": 5e-324, "huge": 1.7976931348623157e308, "minus zero": -0.0, "third": 1 / 3},
    "nothing": {"none": None, "false": False, "list": [None], "object": {}},
    "text": {"emoji": "\U0001f600", "nul": "a\x00b", "surrogate": "\ud800", "quotes": "\"\\'\u2028"},
    "deep": {"deep": nested(300)},
    "460 kB": {"rows": [{"id": n, "text": "x" * 100, "tags": ["a", "b"]} for n in range(3_200)]},
}


@every_adapter
async def test_a_payload_comes_back_equal(harness: Harness, service: RunLog) -> None:
    """Any JSON value in trigger data and result comes back equal, from each query."""
    runs = [
        a_run(workflow_id="w", id=name, trigger_data=payload, result={} if name == "460 kB" else payload)
        for name, payload in PAYLOADS.items()
    ]

    await save(harness, *runs)

    for name, run in zip(PAYLOADS, runs, strict=True):
        found = await service.get_run("w", name)
        assert found is not None, name
        assert PAYLOADS[name] == found.trigger_data, name
        assert run == found, name
    listed, _ = await service.list_runs("w")
    assert {run.id: run for run in runs} == {run.id: run for run in listed}


async def test_the_large_payload_is_large() -> None:
    """The largest payload that has to come back equal has 460 kB of JSON."""
    assert 460_000 < len(json.dumps(PAYLOADS["460 kB"])) < MAX_PAYLOAD_BYTES


@every_adapter
async def test_an_oversize_payload_is_cut(harness: Harness, service: RunLog) -> None:
    """Of a payload of 2 MB, the largest value is cut with a marker; every key and other value stays."""
    result = {"rows": ["x" * 1_000] * 2_000, "count": 2_000, "sample": {"first": "x"}}
    run = {
        "id": "r1",
        "workflow_id": "w",
        "status": "success",
        "trigger_type": "manual",
        "trigger_data": {"since": "yesterday"},
        "result": result,
        "started_at": a_run().started_at,
    }

    await save(harness, run, run)

    found = await service.get_run("w", "r1")
    assert found is not None
    assert list(found.result) == ["rows", "count", "sample"]
    assert found.result["rows"].startswith(CUT_MARKER)
    assert {**result, "rows": found.result["rows"]} == found.result
    assert found.trigger_data == {"since": "yesterday"}
    assert await service.get_stats("w") == {"total": 1, "successful": 1}


@pytest.mark.parametrize("size", [700_000, 900_000, 3_100_000, 3_300_000, 9_700_000])
async def test_what_others_publish_is_cut_by_one_rule(
    harness: Harness, service: RunLog, metered: Callable[[], Counter[tuple[str, ...]]], size: int
) -> None:
    """A payload too large for a document is cut and counted, whatever its size; its run's state is kept."""
    before = metered()["run_log.payload.cut_values",]
    result = {"rows": "x" * size, "lines": ["é"], "count": 2}
    body = json.loads(encode_event(an_event(id="r1", workflow_id="w")).data)
    body["run"] |= {"result": result, "error": "e" * 40_000, "trigger_data": {"since": "yesterday"}}

    event = decode_event(Message(data=json.dumps(body).encode()))
    await harness.store.apply([event])

    found = await service.get_run("w", "r1")
    assert found is not None
    assert RunStatus.SUCCESS is found.status
    is_cut = size > MAX_PAYLOAD_BYTES
    assert {**result, "rows": found.result["rows"]} == found.result
    assert is_cut is found.result["rows"].startswith(f"{CUT_MARKER}, {size // 1_000}")
    assert is_cut or result == found.result
    assert list(result) == list(found.result)
    assert {"since": "yesterday"} == found.trigger_data
    assert f"[{CUT_MARKER}, 40000 bytes]" == str(found.error)[-len(CUT_MARKER) - 15 :]
    assert 1 + is_cut == metered()["run_log.payload.cut_values",] - before


async def test_the_largest_run_that_others_publish_is_stored(harness: Harness, service: RunLog) -> None:
    """A run that somebody else published with everything far too large is stored, with its state."""
    huge: dict[str, Any] = {"\x7f" * 100: "\x7f" * 900_000, "n": [1e15] * 100_000, "small": {"a": 1}}
    body = json.loads(encode_event(an_event(id="\x7f" * 1_000, workflow_id="é" * 500)).data)
    body["run"] |= {"result": huge, "trigger_data": huge, "error": "é" * 90_000}
    texts = ("reason", "assignee", "answered_by", "comment")
    body["run"]["pause"] = dict.fromkeys(texts, "\x7f" * 90_000)

    event = decode_event(Message(data=json.dumps(body, ensure_ascii=False).encode()))
    await harness.store.apply([event])

    found = await service.get_run(*event.key)
    assert event.run == found
    assert RunStatus.SUCCESS is event.status
    assert {"a": 1} == event.run.result["small"]


LARGEST_TEXT = "é" * (MAX_TEXT_BYTES // 2)


@every_adapter
async def test_the_largest_run_is_stored(harness: Harness, service: RunLog) -> None:
    """A run with everything as large as it may be is stored."""
    run = a_run(
        id="\x01" * MAX_ID_BYTES,
        workflow_id="\U0001f600" * (MAX_ID_BYTES // 4),
        status=RunStatus.FAILED,
        trigger_data={"a": "x" * (MAX_PAYLOAD_BYTES // 2 - 20)},
        result={"b": "y" * (MAX_PAYLOAD_BYTES // 2 - 20)},
        error=LARGEST_TEXT,
        pause=PauseRequest(reason=LARGEST_TEXT, assignee=LARGEST_TEXT, answered_by=LARGEST_TEXT),
    )

    await save(harness, run)

    assert run == await service.get_run(run.workflow_id, run.id)


IDS = [
    "a/b",
    "a%2Fb",
    "a%252Fb",
    "/",
    "//",
    ".",
    "..",
    "%2E",
    "...",
    "__x__",
    "%5F_x__",
    "__x",
    "____",
    "__",
    "_",
    " ",
    "a b",
    "a\nb",
    "\x00",
    "\x7f",
    "%",
    "%00",
    "`",
    "*",
    "~",
    "é",
    "e\u0301",
    "\u2028",
    "\ufffe",
    "\U0001f600",
    "x" * MAX_ID_BYTES,
    "x" * (MAX_ID_BYTES - 1),
    "x" * (MAX_ID_BYTES - 1) + "y",
    "é" * (MAX_ID_BYTES // 2),
    "/" * MAX_ID_BYTES,
    "/" * (MAX_ID_BYTES - 1) + "%",
    "runs",
    "autopilot_runs/w/runs/r",
    "../w",
]


@every_adapter
async def test_any_text_is_a_run_id(harness: Harness, service: RunLog) -> None:
    """Runs with any text of up to 1,024 bytes as their id are kept apart, found, listed and counted."""
    runs = [a_run(workflow_id="w", id=text, result={"n": n}) for n, text in enumerate(IDS)]

    await save(harness, *runs)

    assert runs == [await service.get_run("w", text) for text in IDS]
    assert sorted(IDS) == sorted(ids((await service.list_runs("w", limit=100))[0]))
    assert {"total": len(IDS), "successful": len(IDS)} == await service.get_stats("w")


@every_adapter
async def test_any_text_is_a_workflow_id(harness: Harness, service: RunLog) -> None:
    """Workflows with any text as their id are kept apart: a write never goes to another one's path."""
    runs = [a_run(workflow_id=text, id="r", result={"n": n}) for n, text in enumerate(IDS)]

    await save(harness, *runs)

    assert runs == [await service.get_run(text, "r") for text in IDS]
    assert [[run] for run in runs] == [(await service.list_runs(text))[0] for text in IDS]
    assert [1] * len(IDS) == [(await service.get_stats(text))["total"] for text in IDS]


async def test_pages_walk_any_ids(harness: Harness, service: RunLog) -> None:
    """Cursors work at runs with any text as their id, in a workflow with any text as its id."""
    workflow_id = "w/" + "\x00" * 1_000
    await harness.store.apply([an_event(a_run(workflow_id=workflow_id, id=text)) for text in IDS])

    walked = await walk(service, workflow_id, 3)

    assert sorted(IDS) == sorted(run.id for page in walked for run in page)
