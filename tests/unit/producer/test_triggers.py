from __future__ import annotations

import enum
from types import SimpleNamespace
from typing import Any

import pytest

from run_log.core import InvalidRunError, RunEvent, TriggerType, WorkflowRun, utc_now
from run_log.producer import PubSubRunLogService, RunEventEmitter, _triggers, record_run
from run_log.producer._triggers import MAX_WORDS, known_trigger, recordable, tell_unknown
from run_log.stores import InMemoryRunLogService

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, States, logged


class _Sources(enum.Enum):
    CRON = "every day"
    WEBHOOK = "webhook"


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no word been told of yet."""
    monkeypatch.setattr(_triggers, "_words", set[str]())
    _triggers._untold.clear()  # pyright: ignore[reportPrivateUsage]


def _fields(**changes: Any) -> dict[str, Any]:
    return {"id": "r", "workflow_id": "w", "status": "running", "started_at": utc_now(), **changes}


def _unchecked(trigger: object) -> WorkflowRun:
    return WorkflowRun.model_construct(**_fields(trigger_type=trigger))


@pytest.mark.parametrize("trigger", ["every day", "", "Webhook", "x" * 65, _Sources.CRON], ids=str)
def test_a_recorded_run(trigger: str, caplog: pytest.LogCaptureFixture, states: States) -> None:
    """A run recorded with a text that is no trigger type has `manual`, and the log says so once."""
    for _ in range(2):
        with record_run("w", trigger_type=trigger, emitter=states):
            pass

    assert ["running", "success"] * 2 == states.statuses
    assert {TriggerType.MANUAL} == {run.trigger_type for run in states.runs}
    (record,) = logged(caplog, "run_log_unknown_trigger_type")
    assert record["trigger_type"] == (trigger.value if isinstance(trigger, enum.Enum) else trigger)
    assert "a word of at most 64" in record["hint"]


@pytest.mark.parametrize(
    "run",
    [
        _fields(trigger_type="every day"),
        SimpleNamespace(**_fields(trigger_type="every day")),
        SimpleNamespace(**_fields(trigger_type=_Sources.CRON)),
        _unchecked("every day"),
        _unchecked(_Sources.CRON),
        RunEvent.model_construct(event_id="e", hlc=1, occurred_at=utc_now(), run=_unchecked("every day")),
    ],
    ids=lambda run: type(run).__name__,
)
def test_an_emitted_run(
    run: object, caplog: pytest.LogCaptureFixture, transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """Whatever form it is emitted in, a run with a text that is no trigger type is told as `manual`."""
    emitter.emit(run)
    emitter.emit(run)
    report = emitter.close(PATIENCE)

    assert 0 == report.dropped
    assert {TriggerType.MANUAL} == {event.run.trigger_type for event in transport.events}
    told = [record["trigger_type"] for record in logged(caplog, "run_log_unknown_trigger_type")]
    assert ["every day"] == told


@pytest.mark.parametrize("word", ["cron", "x" * 64, "k8s.cron-job_1"])
def test_any_word_is_kept(
    word: str, caplog: pytest.LogCaptureFixture, transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """A platform's own trigger type is kept as it is: recorded, emitted, or in a run of our own class."""
    with record_run("w", trigger_type=word, emitter=emitter):
        pass
    for run in (_fields(trigger_type=word), _unchecked(word), WorkflowRun(**_fields(trigger_type=word))):
        emitter.emit(run)
    emitter.close(PATIENCE)

    assert [word] * 5 == [event.run.trigger_type for event in transport.events]
    assert [] == logged(caplog, "run_log_unknown_trigger_type")


def test_known_ones_stay(caplog: pytest.LogCaptureFixture) -> None:
    """A trigger type that is known stays, also as a platform's own enum."""
    kept = [
        recordable(_fields(trigger_type=trigger)).trigger_type for trigger in ("webhook", _Sources.WEBHOOK)
    ]
    tell_unknown()

    assert [TriggerType.WEBHOOK] * 2 == kept
    assert [] == caplog.records


def test_another_fault_stays_one() -> None:
    """A run with another wrong field is refused for that, by its own name."""
    with pytest.raises(InvalidRunError, match=r"a SimpleNamespace is not a run: .*attempt"):
        recordable(SimpleNamespace(**_fields(trigger_type="every day", attempt=0)))


async def test_saving_refuses_it(emitter_to: EmitterMaker) -> None:
    """Whoever saves a run gets the error, which says what a trigger type is."""
    service = PubSubRunLogService(emitter=emitter_to(ScriptedTransport()), reader=InMemoryRunLogService())

    with pytest.raises(InvalidRunError, match=r"trigger_type: a trigger type is a word such as 'cron'"):
        await service.save_run(_fields(trigger_type="every day"))


def test_ids_as_words_are_bounded() -> None:
    """Whoever puts ids where words belong is told of some, and costs no memory for the others."""
    for number in range(2 * MAX_WORDS):
        known_trigger(f"Job {number}")

    assert MAX_WORDS == len(_triggers._untold)  # pyright: ignore[reportPrivateUsage]
