from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from run_log.core import (
    ConfigurationError,
    Outcome,
    RunStatus,
    StoreUnavailableError,
    WriteRefusedError,
)
from run_log.projector import Projected, Projector
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_life, an_event

from .doubles import ScriptedStore


async def test_one_outcome_for_each_event_in_order() -> None:
    """Each event is applied, a duplicate or stale, told in the order given; none costs no call."""
    store = ScriptedStore()
    older, newer = a_life()
    other = an_event(id="other")

    none = (await Projector(store).apply([]), store.calls)
    outcomes = [*await Projector(store).apply([newer, other]), *await Projector(store).apply([older, newer])]

    assert none == ([], 0)
    assert outcomes == [Outcome.APPLIED, Outcome.APPLIED, Outcome.STALE, Outcome.DUPLICATE]
    run = await store.get_run(*newer.key)
    assert run is not None
    assert RunStatus.SUCCESS is run.status


async def test_a_refused_event_is_rejected_with_its_reason() -> None:
    """The event that the store refuses is rejected alone; the others are applied."""
    store = ScriptedStore(refuses=lambda event: event.run.id == "1")

    projected = await Projector(store).project([an_event(id=str(number)) for number in range(3)])

    assert [item.outcome for item in projected] == [Outcome.APPLIED, Outcome.REJECTED, Outcome.APPLIED]
    assert isinstance(projected[1].error, WriteRefusedError)
    assert Projected(outcome=Outcome.APPLIED) == projected[0]
    assert await store.get_stats("workflow-1") == {"total": 2, "successful": 2}


@pytest.mark.parametrize("error", [StoreUnavailableError("busy"), ConfigurationError("no such database")])
async def test_other_errors_are_the_callers(error: Exception) -> None:
    """A store that does not answer, or is not there, is not isolated event by event."""
    store = ScriptedStore([error])

    with pytest.raises(type(error)) as caught:
        await Projector(store).apply([an_event(), an_event()])

    assert caught.value is error
    assert store.calls == 1


@pytest.mark.process
def test_the_span_links_to_the_emitting_spans() -> None:
    """A projection's span links to the span that emitted each event; of an error it has the name only."""
    # In a process of its own: a tracer provider is set once for all.
    script = """
    import asyncio
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    from run_log.core import StoreUnavailableError, decode_event
    from run_log.producer import RunEventEmitter
    from run_log.projector import Projector
    from run_log.stores import InMemoryRunLogService
    from run_log.testing import a_run

    class Transport:
        events = []
        def publish(self, messages):
            self.events += map(decode_event, messages)
        def close(self):
            pass

    emitter = RunEventEmitter(Transport())
    with trace.get_tracer("test").start_as_current_span("first"):
        emitter.emit(a_run(id="1"))
    with trace.get_tracer("test").start_as_current_span("second"):
        emitter.emit(a_run(id="2"))
    emitter.emit(a_run(id="3"))
    emitter.close()
    asyncio.run(Projector(InMemoryRunLogService()).apply(Transport.events))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    links = [link.context.span_id for link in spans["run_log.project"].links]
    assert links == [spans["first"].context.span_id, spans["second"].context.span_id]
    assert spans["run_log.project"].attributes["events"] == 3
    exporter.clear()

    class Away(InMemoryRunLogService):
        async def apply(self, events):
            raise StoreUnavailableError("it quotes a payload")

    try:
        asyncio.run(Projector(Away()).apply(Transport.events))
    except StoreUnavailableError:
        pass
    (failed,) = exporter.get_finished_spans()
    assert (failed.status.description, failed.events) == ("StoreUnavailableError", ())
    """

    done = subprocess.run(  # noqa: S603  # this interpreter, a script of the test's own
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


async def test_an_event_of_a_wrong_clock_is_rejected_alone() -> None:
    """An event stamped more than a day ahead of the projector's time is rejected, its neighbours are not."""
    store = InMemoryRunLogService()
    fine, ahead = an_event(id="fine"), an_event(id="ahead", hlc=2**61)

    outcomes = await Projector(store).apply([fine, ahead, fine])

    assert [Outcome.APPLIED, Outcome.REJECTED, Outcome.DUPLICATE] == outcomes
    assert {"total": 1, "successful": 1} == await store.get_stats("workflow-1")
