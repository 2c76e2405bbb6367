from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Sequence

import pytest
from tests.unit.projector.doubles import JUNK, Letters

from run_log.console.work.projector import show_progress, tell_progress, tell_route
from run_log.core import Message, encode_event
from run_log.projector import Projector, PullLimits, PullWorker
from run_log.projector.google_cloud import Route
from run_log.stores import InMemoryRunLogService
from run_log.testing import InMemoryTopic, ManualClock, an_event


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _OverError(Exception):
    """The scripted minutes are over."""


async def _told(minutes: Sequence[Sequence[Message]]) -> list[dict[str, float]]:
    """Return what is told of a worker to which these messages come, minute by minute."""
    clock = ManualClock()
    topic = InMemoryTopic()
    limits = PullLimits(pulls=1, pull_seconds=0.01)
    worker = PullWorker(topic.subscribe(), Projector(InMemoryRunLogService()), Letters(), limits=limits)
    told: list[dict[str, float]] = []
    coming = iter(minutes)

    async def a_minute(seconds: float) -> None:
        messages = next(coming, None)
        if messages is None:
            raise _OverError
        topic.publish(messages)
        if messages:
            await worker.run(stop=asyncio.Event(), until_idle=0)
        clock.advance(seconds)

    with contextlib.suppress(_OverError):
        await tell_progress(worker, told.append, now=clock.monotonic, sleep=a_minute)
    return told


async def test_each_minute_tells_what_is_new() -> None:
    """A line tells what was done since the line before it; a minute without anything has none."""
    event = encode_event(an_event())
    told = await _told([[event, event, JUNK], [], [event], []])

    assert [
        {"seconds": 60, "pulled": 3, "applied": 1, "duplicates": 1, "dead_letters": 1},
        {"seconds": 120, "pulled": 1, "applied": 0, "duplicates": 1, "dead_letters": 0},
    ] == [
        {name: value for name, value in line.items() if name not in {"in_hand", "lag_seconds"}}
        for line in told
    ]
    assert [(0, 0.0)] * 2 == [(line["in_hand"], line["lag_seconds"]) for line in told]


async def test_a_sign_of_life() -> None:
    """Where nothing happens, a line comes each ten minutes."""
    nothing: list[Message] = []
    told = await _told([nothing] * 25)

    assert [(600, 0), (600, 0)] == [(line["seconds"], line["pulled"]) for line in told]


ROUTE = Route(
    source="projects/p/subscriptions/run-log-projector",
    into="projects/p/databases/(default)/documents/autopilot_runs",
    dead_letters="projects/p/topics/run-log-dead-letters",
    pubsub="emulator at 127.0.0.1:8085",
    firestore="Google Cloud",
)


def test_what_people_see() -> None:
    """On a terminal, where events come from and go to and how it goes are plain lines that fit 80 columns."""
    figures = {
        "seconds": 60,
        "pulled": 4_800,
        "applied": 4_790,
        "duplicates": 10,
        "dead_letters": 0,
        "in_hand": 40,
        "lag_seconds": 1.24,
    }
    with contextlib.redirect_stderr(_Terminal()) as terminal:
        tell_route(ROUTE)
        show_progress(figures)

    lines = terminal.getvalue().splitlines()
    assert [
        "from          projects/p/subscriptions/run-log-projector",
        "dead letters  projects/p/topics/run-log-dead-letters",
        "Pub/Sub       emulator at 127.0.0.1:8085",
        "into          projects/p/databases/(default)/documents/autopilot_runs",
        "Firestore     Google Cloud",
        "60s: 4800 pulled, 4790 applied, 10 duplicate, 0 dead letters; 40 in hand, lag 1s",
    ] == lines
    assert 80 >= max(map(len, lines))


def test_what_a_log_gets(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody watches, the same is logged, so that a log of JSON stays one."""
    caplog.set_level("INFO", logger="run_log")
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        tell_route(ROUTE)
        show_progress({"pulled": 1})

    started, progress = map(vars, caplog.records)
    assert ("run_log_projector_started", ROUTE.source) == (started["event"], started["source"])
    assert ("run_log_projector_progress", 1) == (progress["event"], progress["pulled"])
    assert "" == stderr.getvalue()
