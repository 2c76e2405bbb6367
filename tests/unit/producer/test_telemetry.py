from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .transports import run_script

pytestmark = pytest.mark.process

_METERED = """
import json, sys, threading
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from run_log.core import MessageRefusedError, TransportUnavailableError
from run_log.producer import RunEventEmitter
from run_log.producer._held import BufferLimits
from run_log.producer._spool import Spool
from run_log.producer._transport import DeliveryPolicy
from run_log.testing import a_run

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
soon = DeliveryPolicy(linger=0, uniform=lambda *_: 0.001)

def print_metrics():
    data = reader.get_metrics_data()
    found = {}
    for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics):
        points = {}
        for point in metric.data.data_points:
            value = getattr(point, "value", None)
            points[",".join(map(str, point.attributes.values()))] = point.count if value is None else value
        found[metric.name.removeprefix("run_log.emitter.")] = points
    print(json.dumps(found))

class Scripted:
    def __init__(self, errors=(), held=False):
        self.errors, self.gate = list(errors), threading.Event()
        self.gate.set() if not held else None
    def publish(self, messages):
        self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
    def close(self):
        pass
"""


def _metrics(script: str, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run_script(_METERED + script, *arguments).splitlines()]


def test_what_becomes_of_events_is_metered() -> None:
    """Emitted, delivered, dropped by reason and retried events are counted, and publish calls are timed."""
    (found,) = _metrics(
        """
emitter = RunEventEmitter(Scripted([TransportUnavailableError("down")] * 2), policy=soon)
for number in range(5):
    emitter.emit(a_run(id=str(number)))
emitter.emit("no run")
emitter.flush_sync(30)
emitter.close()
emitter.emit(a_run())
print_metrics()
"""
    )

    assert found["emitted"] == {"": 7}
    assert found["delivered"] == {"": 5}
    assert found["dropped"] == {"invalid": 1, "closed": 1}
    assert found["retries"] == {"": 2}
    assert found["buffered"] == {"": 0}
    assert found["publish.duration"]["failed"] == 2
    assert found["publish.duration"]["delivered"] >= 1


def test_what_is_held_is_metered(tmp_path: Path) -> None:
    """How many events memory holds is metered while they wait, and how many went to disk when they do."""
    (found,) = _metrics(
        """
transport = Scripted([TransportUnavailableError("down")] * 10**6)
emitter = RunEventEmitter(transport, policy=soon, limits=BufferLimits(events=3), spool=Spool(sys.argv[1]))
for number in range(8):
    emitter.emit(a_run(id=str(number)))
emitter.close(0)
print_metrics()
""",
        str(tmp_path),
    )

    assert found["emitted"] == {"": 8}
    assert found["spooled"] == {"": 8}
    assert found.get("buffered", {"": 0}) == {"": 0}


def test_the_emitters_own_calls_are_not_traced() -> None:
    """What instruments the transport sees tracing suppressed: an emitter's span would be no part of a run."""
    printed = run_script(
        _METERED
        + """
from opentelemetry import context
class Asking(Scripted):
    def publish(self, messages):
        print(context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY))
emitter = RunEventEmitter(Asking(), policy=soon)
emitter.emit(a_run())
emitter.close(30)
print(context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY))
"""
    )

    assert printed.splitlines() == ["True", "None"]
