"""What the tests of all folders share."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from run_log.core.clock import PROCESS_CLOCK
from run_log.core.logs import _allowances  # pyright: ignore[reportPrivateUsage] - what a process has logged
from run_log.testing import EmulatorNotFoundError, FirestoreEmulator, PubSubEmulator

# Where tests run in several processes, each of these is told of a terminal that nobody has.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

# google.api_core warns of Pythons by the date: on some days on the stderr of each program that tests start.
os.environ.setdefault("PYTHONWARNINGS", "ignore:You are using a:FutureWarning")

# What Java's compiler saves in the minutes that an emulator is there costs it more than that.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("tests.model")

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("any machine"))
settings.load_profile("any machine")

pytest_plugins = ["run_log.testing.pytest_plugin"]

_HOSTS: Final = pytest.StashKey[dict[str, str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give all of xdist's workers one pair of emulators: a pair for each would cost more than many tests."""
    config: pytest.Config = node.config
    if _HOSTS not in config.stash:
        config.stash[_HOSTS] = {} if "not emulator" in config.option.markexpr else _started(config)
    node.workerinput["emulators"] = config.stash[_HOSTS]


def _started(config: pytest.Config) -> dict[str, str]:
    until_the_end = contextlib.ExitStack()
    config.add_cleanup(until_the_end.close)
    hosts: dict[str, str] = {}
    # Where there are none, each test that needs one says so.
    with contextlib.suppress(EmulatorNotFoundError):
        for kind in (FirestoreEmulator, PubSubEmulator):
            hosts |= until_the_end.enter_context(kind()).environment
    return hosts


class _Sharing:
    """Has the fixtures of emulators use those that all workers share."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self._hosts = hosts

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Have a fixture of an emulator find one that runs already."""
        if fixturedef.argname not in {"firestore_emulator", "pubsub_emulator"}:
            return (yield)
        with pytest.MonkeyPatch.context() as patch:
            for name, host in self._hosts.items():
                patch.setenv(name, host)
            return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Have this worker use what all share."""
    # As a plugin of its own: the fixtures of a session tell nothing to a conftest below the root folder.
    config.pluginmanager.register(_Sharing(getattr(config, "workerinput", {}).get("emulators", {})))


_STARTS_A_PROCESS: Final = frozenset({"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"})
_without_processes: pytest.Item | None = None


def _see_no_process_started(event: str, _arguments: object) -> None:
    if _without_processes is not None and event in _STARTS_A_PROCESS:
        raise RuntimeError(f"{_without_processes.nodeid} starts a process: mark it `process`")


sys.addaudithook(_see_no_process_started)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """In a run without what starts processes, have no test start one: its mark is missing."""
    global _without_processes  # noqa: PLW0603 - an audit hook stays for good, and is given nothing of pytest
    _without_processes = item if "not process" in item.config.option.markexpr else None
    try:
        return (yield)
    finally:
        _without_processes = None


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


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    """Return what collects this process's spans: its tracer provider can be set only once."""
    collected = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(collected))
    return collected


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    """Yield what collects the spans of one test."""
    exporter.clear()
    yield exporter
    exporter.clear()
