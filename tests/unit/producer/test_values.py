"""Whichever way a workflow hands a value over, it is kept alike."""

from __future__ import annotations

import array
import collections
import dataclasses
import json
import os
import types
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import numpy  # noqa: ICN001 - rare enough to be written out
import pytest
from pydantic import BaseModel

from run_log.core import RunEvent, RunStatus, WorkflowRun, utc_now
from run_log.producer import RunEventEmitter, record_run, resume_run
from run_log.producer._store_transport import StoreTransport
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, States, logged, run_script


class _Model(BaseModel):
    lines: int = 128


@dataclasses.dataclass
class _Row:
    lines: int = 128


class _Pair(NamedTuple):
    lines: int = 128


def _run(value: object) -> dict[str, Any]:
    return {**dict(a_run()), "result": value}


def _recorded(emitter: RunEventEmitter, value: Any) -> None:
    with record_run("w", emitter=emitter) as run:
        run.set_result(value)


def _triggered(emitter: RunEventEmitter, value: Any) -> None:
    with record_run("w", trigger_data=value, emitter=emitter) as run:
        run.set_result(value)


WAYS: dict[str, Callable[[RunEventEmitter, Any], None]] = {
    "set_result": _recorded,
    "trigger_data": _triggered,
    "a mapping": lambda emitter, value: emitter.emit(_run(value)),
    "an object": lambda emitter, value: emitter.emit(SimpleNamespace(**_run(value))),
    "a run": lambda emitter, value: emitter.emit(WorkflowRun(**_run(value))),
    "a run made without validation": lambda emitter, value: emitter.emit(
        a_run().model_copy(update={"result": value})
    ),
    "an event": lambda emitter, value: emitter.emit(RunEvent.from_run(_run(value))),
}
VALUES: list[tuple[object, dict[str, Any]]] = [
    (_Model(), {"lines": 128}),
    (_Row(), {"lines": 128}),
    (_Pair(), {"lines": 128}),
    (types.MappingProxyType({"lines": 128}), {"lines": 128}),
    (collections.ChainMap({"lines": 128}), {"lines": 128}),
    (
        {1: "int", "1": "text", None: {True: [b"ab"]}},
        {"1 (2)": "int", "1": "text", "null": {"true": ["YWI="]}},
    ),
    ({b"\xff": 1, (1, 2): 2}, {"\\xff": 1, "[1,2]": 2}),
    ([1, {2}], {"value": [1, [2]]}),
    ("text", {"value": "text"}),
    (7, {"value": 7}),
    (None, {}),
    ({"b": b"ab", "a": bytearray(b"ab"), "m": memoryview(b"ab")}, {"b": "YWI=", "a": "YWI=", "m": [97, 98]}),
    ({"array": array.array("d", [1.5])}, {"array": [1.5]}),
    (
        {"n": numpy.float64(0.5), numpy.int64(5): numpy.array([1]), numpy.str_("s"): numpy.str_("t")},
        {"n": 0.5, "5": [1], "s": "t"},
    ),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("value", "kept"), VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_kept_alike_whichever_way_it_comes(
    value: object,
    kept: dict[str, Any],
    way: Callable[[RunEventEmitter, Any], None],
    transport: ScriptedTransport,
    emitter: RunEventEmitter,
) -> None:
    """Whatever a workflow hands over is delivered in one form, as a payload and under a key of one."""
    way(emitter, value)
    way(emitter, {"k": value})
    emitter.close(PATIENCE)

    half = len(transport.events) // 2
    assert kept == transport.events[half - 1].run.result
    inner = kept["value"] if set(kept) == {"value"} else kept
    assert {"k": None if value is None else inner} == transport.events[-1].run.result
    if way is _triggered:
        assert transport.events[-1].run.result == transport.events[-1].run.trigger_data


def test_a_result_is_what_it_is_at_the_end(states: States) -> None:
    """What a workflow changes in its result after it has set it is told with the next state."""
    counts: dict[Any, int] = {1: 0}

    with record_run("w", emitter=states) as run:
        run.set_result(counts)
        counts[1] += 5

    assert {"1": 5} == states.runs[-1].result


def test_a_result_without_keys_is_told_once(caplog: pytest.LogCaptureFixture, states: States) -> None:
    """A result that has no keys is told of in one line, however many states it is stated with."""
    with record_run("w", run_id="r", trigger_data=["a"], emitter=states) as run:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        run.set_result([1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        run.pause()
        run.resume()

    told = [(record["run_id"], record["field"]) for record in logged(caplog, "run_log_payload_without_keys")]
    assert [("r", "trigger_data"), ("r", "result")] == told
    assert ({"value": ["a"]}, {"value": [1]}) == (states.runs[-1].trigger_data, states.runs[-1].result)


@pytest.mark.parametrize("imported", ["", "numpy", "array, ctypes, mmap, decimal, uuid, pathlib"])
@pytest.mark.process
def test_the_form_of_a_value_does_not_depend_on_imports(imported: str) -> None:
    """Arrays, bytes and memory views come out the same in a process that has imported more."""
    printed = run_script(
        f"""
        {f"import {imported}" if imported else ""}
        import array, collections, datetime, json, uuid
        from run_log.producer import RunEventEmitter
        from run_log.testing import a_run
        from tests.unit.producer.transports import PATIENCE, ScriptedTransport
        result = {{
            "array": array.array("d", [1.5]), "bytes": b"ab", "bytearray": bytearray(b"ab"),
            "memoryview": memoryview(b"ab"), "nested": [(array.array("b", b"ab"), {{"deep": b"ab"}})],
            "deque": collections.deque([1]), "set": {{1}}, "uuid": uuid.UUID(int=1),
            "timedelta": datetime.timedelta(1), 1: {{2: b"ab"}},
        }}
        emitter = RunEventEmitter(transport := ScriptedTransport())
        for key, value in result.items():
            # Each by itself: a value that is copied slowly would change how its neighbours are.
            emitter.emit({{**dict(a_run()), "result": {{key: value}}}})
        emitter.close(PATIENCE)
        kept = {{}}
        for event in transport.events:
            kept |= event.run.result
        print(json.dumps(kept))
        """
    )

    assert {
        "array": [1.5],
        "bytes": "YWI=",
        "bytearray": "YWI=",
        "memoryview": [97, 98],
        "nested": [[[97, 98], {"deep": "YWI="}]],
        "deque": [1],
        "set": [1],
        "uuid": "00000000-0000-0000-0000-000000000001",
        "timedelta": "P1D",
        "1": {"2": "YWI="},
    } == json.loads(printed)


@pytest.mark.parametrize("odd", [None, {1}], ids=["alone", "beside a set"])
@pytest.mark.parametrize(
    "headers",
    [
        [(b"Authorization", b"hunter2"), (b"host", b"h")],
        [[b"x-api-key", "hunter2"]],
        {"name": b"cookie", "value": b"hunter2"},
        {b"cookie": "hunter2"},
        {(b"set", b"cookie"): "hunter2"},
        {frozenset({"password"}): "hunter2"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_secrets_are_found_beside_whatever_stands_there(
    headers: object, odd: object, transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """A secret under a name of bytes is replaced, also where another value changes how a run is copied."""
    emitter.emit({**_run({"headers": headers, "odd": odd})})
    emitter.emit(RunEvent.from_run(_run({"headers": headers, "odd": odd})))
    emitter.close(PATIENCE)

    for message in transport.messages:
        assert b"hunter2" not in message.data
        assert b"aHVudGVyMg==" not in message.data
        assert b"[redacted]" in message.data


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (os.fsdecode(b"invoice-\xff.pdf"), "invoice-\\udcff.pdf"),
        (b"invoice-\xff", "invoice-\\xff"),
        (4711, "4711"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/in/a"), "/in/a"),
        (RunStatus.SUCCESS, "success"),
    ],
    ids=repr,
)
async def test_an_id_is_found_again_as_it_was_given(given: Any, text: str, emitter_to: EmitterMaker) -> None:
    """A run that is recorded with any id that has a text is found, paused and resumed by the same value."""
    log = InMemoryRunLogService()
    emitter = emitter_to(StoreTransport(lambda: log))

    async with record_run(given, run_id=given, emitter=emitter) as run:
        run.pause("pay?")
    await emitter.flush(PATIENCE)
    async with resume_run(given, given, answered_by="mei", run_log=log, emitter=emitter):
        pass
    await emitter.flush(PATIENCE)

    assert (text, text) == (run.workflow_id, run.run_id)
    found = await log.get_run(given, given)
    assert found is not None
    assert (text, text, RunStatus.SUCCESS) == (*found.key, found.status)
    assert [found] == (await log.list_runs(given))[0]
    assert 1 == (await log.get_stats(given))["total"]
    assert 4 == len(await log.get_history(given, given))


async def test_a_resumed_run_takes_no_less_than_no_time(states: States) -> None:
    """Where the clock is minutes behind that of the machine that began, a run ends when it began, at once."""
    log = InMemoryRunLogService()
    ahead = utc_now() + timedelta(minutes=7)
    await log.save_run(a_run(status=RunStatus.PAUSED, started_at=ahead, completed_at=None))
    async with resume_run("workflow-1", "run-1", run_log=log, emitter=states):
        pass

    ended = states.runs[-1]
    assert 0 <= ended.duration_ms < timedelta(minutes=1) / timedelta(milliseconds=1)
    assert (ahead, ahead) == (ended.started_at, ended.completed_at)


def test_a_pause_may_say_anything(states: States) -> None:
    """What a pause, a skip and a failure say is kept as its nearest text."""
    with record_run("w", emitter=states) as run:
        run.pause(RunStatus.PAUSED, assignee=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        run.resume(answered_by=PurePosixPath("a/b"), comment={"a": 1})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        run.skip(["no"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    pause = states.runs[-1].pause
    assert pause is not None
    assert ("paused", "7", "a/b", '{"a":1}') == (
        pause.reason,
        pause.assignee,
        pause.answered_by,
        pause.comment,
    )
    assert '["no"]' == states.runs[-1].error
