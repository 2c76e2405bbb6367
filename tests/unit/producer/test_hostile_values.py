"""Nothing leaves the recorder, whatever the code of a value does, and what can be kept is kept."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import enum
from collections import UserDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, NoReturn

import pytest
from pydantic import BaseModel, model_serializer

from run_log.core import RunStatus
from run_log.producer import EmitterStats, RunEventEmitter, current_run, record_run, resume_run
from run_log.stores import InMemoryRunLogService

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, States, logged

_METHODS = """
    __str__ __repr__ __len__ __iter__ __getitem__ __eq__ __hash__ __bool__ __lt__ __contains__
    __format__ __int__ __index__ __float__ __bytes__ __fspath__ __reduce_ex__ keys items values get
    decode encode isascii startswith total_seconds utcoffset isoformat astimezone model_dump tolist copy
    union pop as_integer_ratio is_integer
"""
_READ = """
    __class__ __dict__ _fields value _value_ nbytes tzinfo args message __cause__ __context__ __notes__
    __traceback__ __suppress_context__ code exit_code __name__ model_fields __pydantic_extra__
"""
_ASKED_OF_THE_CLASS = ("__instancecheck__", "__subclasscheck__", "__hash__", "__eq__", "__repr__", "__call__")
_READ_OF_THE_CLASS = ("__name__", "__mro__", "__module__", "__dict__", "__bases__", "_fields", "tolist")


class _MuteError(Exception):
    """An exception that cannot be told."""

    def __str__(self) -> NoReturn:
        raise _MuteError

    __repr__ = __str__


class _DeceptiveError(BaseException):
    """No `Exception`, as what a vendor's panic raises is none, that cannot be told."""

    def __str__(self) -> NoReturn:
        raise _DeceptiveError

    __repr__ = __str__


_RAISED = [_MuteError, _DeceptiveError, MemoryError, RecursionError, StopIteration, UnicodeError]


def _hostile(base: type, raised: type[BaseException], *, attributes: bool = True) -> Any:
    """Return an instance of a class below *base* whose methods raise; with *attributes* all else, too."""
    is_made = False

    def refuse(*_: object, **__: object) -> Any:
        if is_made:
            raise raised
        return None

    members: dict[str, Any] = dict.fromkeys(_METHODS.split(), refuse)
    ask: dict[str, Any] = dict.fromkeys(_ASKED_OF_THE_CLASS, refuse)
    ask |= dict.fromkeys(_READ_OF_THE_CLASS, property(refuse))
    if attributes:
        members |= dict.fromkeys(_READ.split(), property(refuse))
    meta: Any = type("Meta", (type,), ask if attributes else {})
    made: Any = base
    value = made.__new__(meta("Hostile", (base,), members))
    is_made = True
    return value


class _Proxy:  # noqa: PLW1641 - it has a hash, which raises
    """A proxy out of its context: whatever is asked of it raises."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError("working outside of context")

    def _refuse(self, *_: object) -> NoReturn:
        raise RuntimeError("working outside of context")

    __str__ = __repr__ = __len__ = __iter__ = __hash__ = __bool__ = __getitem__ = _refuse
    __eq__ = _refuse  # pyright: ignore[reportIncompatibleMethodOverride]


def _values() -> Iterator[Any]:
    bases: list[type] = [
        object,
        dict,
        list,
        tuple,
        set,
        frozenset,
        str,
        bytes,
        int,
        float,
        Exception,
        BaseException,
    ]
    for base in bases:
        for raised in _RAISED:
            for attributes in (True, False):
                name = f"{base.__name__}, {raised.__name__}{'' if attributes else ', its class told'}"
                make = partial(_hostile, base, raised, attributes=attributes)
                yield pytest.param(make, id=name)
    yield pytest.param(_Proxy, id="proxy")
    odd: list[Any] = [None, b"\xff", "\ud800", "", 7, [], type("Empty", (), {}), ...]
    for value in odd:
        yield pytest.param(partial(copy.copy, value), id=f"{value!r:.20}")


def _everything(value: Any, emitter: Any) -> RunStatus:
    with record_run(value, trigger_type=value, trigger_data=value, run_id=value, emitter=emitter):
        pass
    with record_run("w", trigger_type=value, emitter=emitter) as run:
        run.set_result(value)
    with record_run("w", trigger_data={"k": value, "kept": 1}, emitter=emitter) as run:
        run.set_result([value])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        run.pause(value, assignee=value, deadline=value)
        run.resume(answered_by=value, comment=value, choice=value, values=value)
        run.skip(value)
        run.fail(value)
    return run.status


@pytest.mark.parametrize("make", [*_values()])
async def test_nothing_leaves_the_recorder(make: Callable[[], Any], emitter: RunEventEmitter) -> None:
    """Whatever a value's own code raises, the workflow goes on, and what is lost is counted."""
    value = make()

    assert RunStatus.FAILED is _everything(value, emitter)
    async with record_run("w", run_id=value, emitter=emitter) as run:
        run.set_result(value)
    recorded = record_run("w", trigger_data=value, emitter=emitter)(lambda: current_run().set_result(value))  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    recorded()
    log = InMemoryRunLogService()
    answer: dict[str, Any] = {"answered_by": value, "comment": value, "choice": value, "values": value}
    with resume_run(value, value, **answer, run_log=log, emitter=emitter):
        pass
    async with resume_run("w", value, **answer, run_log=log, emitter=emitter):
        pass

    emitter.emit(value)
    report = emitter.close(PATIENCE)
    assert 0 == report.pending
    assert 17 == report.delivered + report.dropped


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_what_is_the_workflows_own_goes_through(raised: type[BaseException], states: States) -> None:
    """Ctrl-C, an exit and a cancellation that come up while a value is read are not held back."""
    with record_run("w", emitter=states) as run:
        run.set_result(_hostile(object, raised))
        with pytest.raises(raised):
            run.pause()
        run.set_result({})
        run.skip()

    assert ["running", "skipped"] == states.statuses


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_what_comes_up_in_an_emit_goes_through(
    raised: type[BaseException], emitter: RunEventEmitter, transport: ScriptedTransport
) -> None:
    """Ctrl-C, an exit and a cancellation that come up while a run is read are not held back."""
    with pytest.raises(raised):
        emitter.emit({"id": "r", "workflow_id": "w", "result": _hostile(object, raised)})
    emitter.close(PATIENCE)

    assert [] == transport.events


class _Emitter:
    """Stands for an emitter of the workflow's own, which raises."""

    def __init__(self, raised: type[BaseException]) -> None:
        self.raised = raised

    def emit(self, run: object) -> None:  # noqa: ARG002 - the signature is the port's
        raise self.raised


@pytest.mark.parametrize("raised", _RAISED)
def test_an_emitter_that_raises(
    raised: type[BaseException],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an emitter of the workflow's own raises is told in the log and on stderr, and goes no further."""
    monkeypatch.setattr("run_log.producer._metrics._unsaid", [True])
    with record_run("w", run_id="r", emitter=_Emitter(raised)) as run:
        run.set_result({"a": 1})

    told = logged(caplog, "run_log_state_not_recorded")
    assert [("w", "r", "running"), ("w", "r", "success")] == [
        (line["workflow_id"], line["run_id"], line["status"]) for line in told
    ]
    assert all(raised.__name__ in line["error"] for line in told)
    assert raised.__name__ in capsys.readouterr().err


class _ReraisingError(Exception):
    """Its text raises what it is given: itself, or what it came from."""

    raised: BaseException

    def __str__(self) -> NoReturn:
        raise self.raised


@pytest.mark.parametrize("which", ["itself", "its context", "its cause", "another"])
def test_the_workflows_exception_goes_on_unchanged(which: str, states: States) -> None:
    """The exception that leaves the block is the same, with its traceback, its cause and its context."""
    first, cause = KeyError("first"), OSError("cause")
    error = _ReraisingError()
    error.raised = {"itself": error, "its context": first, "its cause": cause, "another": _MuteError()}[which]
    before: list[Any] = []
    after: list[Any] = []

    def block() -> None:
        try:
            raise first
        except KeyError:
            raise error from cause

    def look() -> tuple[Any, ...]:
        return error.__traceback__, error.__cause__, error.__context__, error.__suppress_context__

    recorder = record_run("w", emitter=states)
    recorder.__enter__()
    try:
        block()
    except _ReraisingError as caught:
        before.append((look(), first.__context__, first.__traceback__, cause.__traceback__))
        recorder.__exit__(type(caught), caught, caught.__traceback__)
        after.append((look(), first.__context__, first.__traceback__, cause.__traceback__))

    assert before == after
    assert "failed" == states.statuses[-1]
    assert (states.runs[-1].error or "").startswith(f"{__name__}._ReraisingError")


def _refused(*_: object) -> NoReturn:
    raise _MuteError


class _Partly(UserDict[str, Any]):
    """A mapping one of whose keys cannot be read."""

    def __getitem__(self, key: str) -> Any:
        return _refused() if key == "bad" else super().__getitem__(key)


class _WithoutItems(dict[str, Any]):
    keys = items = values = __iter__ = __len__ = _refused  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]


class _WithoutIter(list[Any]):
    __iter__ = __len__ = _refused  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]


@dataclasses.dataclass
class _Row:
    good: int = 1
    bad: int = 2

    def __getattribute__(self, name: str) -> Any:
        return _refused() if name == "bad" else super().__getattribute__(name)


class _Model(BaseModel):
    good: int = 1
    bad: Any = None

    @model_serializer
    def _refuse(self) -> dict[str, Any]:
        raise _MuteError


class _Named(NamedTuple):
    good: int
    bad: Any


class _OddEnum(enum.Enum):
    ODD = 1

    value = property(_refused)  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


class _OddKey(str):
    __slots__ = ()
    __hash__ = str.__hash__
    __eq__ = __str__ = __repr__ = __len__ = encode = isascii = _refused  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]


_MARKER = "run-log: cut, a {} that raised _MuteError"
_HALF: list[tuple[Callable[[], Any], Any]] = [
    (lambda: _Partly(good=1, bad=2), {"good": 1, "bad": _MARKER.format("_Partly")}),
    (lambda: _WithoutItems(good=1, bad=2), {"good": 1, "bad": 2}),
    (lambda: _WithoutIter([1, 2]), [1, 2]),
    (_Row, {"good": 1, "bad": _MARKER.format("_Row")}),
    (_Model, {"good": 1, "bad": None}),
    (lambda: _Named(1, _hostile(object, _MuteError)), {"good": 1, "bad": _MARKER.format("Hostile")}),
    (lambda: {"good": 1, "bad": _OddEnum.ODD}, {"good": 1, "bad": _MARKER.format("_OddEnum")}),
    (lambda: {_OddKey("value"): 1, "good": 1}, {"value": 1, "good": 1}),
    (lambda: {"good": 1, "bad": _hostile(dict, MemoryError)}, {"good": 1, "bad": {}}),
]


@pytest.mark.parametrize(("make", "kept"), _HALF, ids=map(str, range(len(_HALF))))
def test_what_can_be_read_of_a_value_is_kept(
    make: Callable[[], Any], kept: Any, transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """A value that raises in one part costs that part: a marker stands for it, and the rest is kept."""
    with record_run("w", trigger_data=make(), emitter=emitter) as run:
        run.set_result({"deep": [make()], "kept": 1})
    stats = emitter.close(PATIENCE)

    assert (2, 0) == (stats.delivered, stats.dropped)
    end = transport.events[-1].run
    assert {"deep": [kept], "kept": 1} == end.result
    assert (kept if isinstance(kept, dict) else {"value": kept}) == end.trigger_data


def test_a_state_that_cannot_be_told_is_counted(emitter_to: EmitterMaker) -> None:
    """A run whose id raises is no run: each of its states is counted as dropped."""
    emitter: RunEventEmitter = emitter_to(ScriptedTransport())

    with record_run("w", run_id=_hostile(object, _MuteError), emitter=emitter):
        pass

    assert EmitterStats(emitted=2, delivered=0, pending=0, dropped=2) == emitter.stats
