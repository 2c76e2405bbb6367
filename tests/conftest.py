"""What the tests of all folders share."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from run_log.core.clock import PROCESS_CLOCK
from run_log.core.logs import _allowances  # pyright: ignore[reportPrivateUsage] - what a process has logged

# Where tests run in several processes, each of these is told of a terminal that nobody has.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

# google.api_core warns of Pythons by the date: on some days on the stderr of each program that tests start.
os.environ.setdefault("PYTHONWARNINGS", "ignore:You are using a:FutureWarning")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("tests.model")

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = ["run_log.testing.pytest_plugin"]


@pytest.fixture(autouse=True)
def _every_line_is_logged() -> None:
    """Have no line be left out for those that earlier tests have logged."""
    _allowances.clear()


@pytest.fixture(autouse=True)
def _no_run_is_ahead() -> None:
    """Have no run be stamped past what an earlier test has read of its ids."""
    PROCESS_CLOCK._ahead.clear()  # pyright: ignore[reportPrivateUsage] - nobody else forgets it


@pytest.fixture(scope="session")
def metric_reader() -> InMemoryMetricReader:
    """Return what collects this process's metrics: its meter provider can be set only once."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    return reader


@pytest.fixture
def metered(metric_reader: InMemoryMetricReader) -> Callable[[], Counter[tuple[str, ...]]]:
    """Return all metrics at each call: by name and label values, a value, or how many were recorded."""

    def read() -> Counter[tuple[str, ...]]:
        data: Any = metric_reader.get_metrics_data()
        found: Counter[tuple[str, ...]] = Counter()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value = getattr(point, "value", None)
                        labels = map(str, point.attributes.values())
                        found[metric.name, *labels] += point.count if value is None else value
        return found

    return read
