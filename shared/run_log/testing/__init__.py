"""A kit for tests with a run log: a topic that misbehaves, clocks, builders, and Google's emulators.

Only `run_log.testing.pytest_plugin` needs pytest. It offers the same as fixtures::

    pytest_plugins = ["run_log.testing.pytest_plugin"]
"""

from run_log.core.errors import EmulatorError, EmulatorNotFoundError

from ._builders import RunChanges, a_life, a_run, an_event
from ._clocks import ManualClock, sequential_ids
from ._emulators import FirestoreEmulator, PubSubEmulator
from ._topic import Faults, InMemorySubscription, InMemoryTopic

__all__ = [
    "EmulatorError",
    "EmulatorNotFoundError",
    "Faults",
    "FirestoreEmulator",
    "InMemorySubscription",
    "InMemoryTopic",
    "ManualClock",
    "PubSubEmulator",
    "RunChanges",
    "a_life",
    "a_run",
    "an_event",
    "sequential_ids",
]
