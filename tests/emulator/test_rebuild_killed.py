"""Rebuilds that are killed with SIGKILL in the middle, and gone on with by another process."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from run_log.core import RunEvent, RunStatus, encode_event
from run_log.testing import FirestoreEmulator

from .projector_kit import until
from .rebuild_kit import ANEW, LIVE, archived, differences, lives, noted, rebuilding, rebuilt, service, total
from .tcp_proxy import TcpProxy
from .test_rebuild import retaining

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

RUNS = 400
STEPS = (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.RUNNING, RunStatus.RUNNING)
TEXT = "".join(random.Random(5).choices("abcdef", k=5_000))
ALLOWED_BYTES = 2_000_000
"""Fewer than the documents of all runs have, and more than those of three commits under way at once."""


@pytest.fixture
def line(firestore_emulator: FirestoreEmulator) -> Iterator[TcpProxy]:
    """Yield a line to Firestore that ends in the middle of a rebuild."""
    with TcpProxy(firestore_emulator.host) as proxy:
        proxy.allow(ALLOWED_BYTES)
        yield proxy


@pytest.fixture
def events() -> list[RunEvent]:
    """Return the events of runs, each run's beside each other, enough for many commits."""
    return lives(RUNS, steps=STEPS, text=TEXT)


async def killed_in_the_middle(
    folder: Path, line: TcpProxy, *options: str, about: str, runs: int = RUNS
) -> None:
    """Rebuild over *line*, and kill it once it is held up and has noted how far it is."""
    async with rebuilding(folder, *options, FIRESTORE_EMULATOR_HOST=line.host) as process:

        async def is_in_the_middle() -> bool:
            assert process.returncode is None
            return line.is_holding and bool(noted(folder, about))

        await until(is_in_the_middle)
        process.kill()
        await process.communicate()
    assert -signal.SIGKILL == process.returncode
    assert 0 < await total(ANEW) < runs
    assert not noted(folder, "end")


async def apply_to_live(events: list[RunEvent]) -> None:
    """Make the live projection of *events*."""
    live = service(LIVE)
    await live.apply(events)
    await live.close()


async def test_a_killed_rebuild_from_an_archive(
    events: list[RunEvent], line: TcpProxy, tmp_path: Path
) -> None:
    """A rebuild killed in the middle goes on after the last line it had noted, and equals the live one."""
    await apply_to_live(events)
    archived(tmp_path / "archive", events)
    options = ("--from", "archive:archive", "--into", ANEW)
    await killed_in_the_middle(tmp_path, line, *options, about="file:")
    after = noted(tmp_path, "file:")["after"]

    done = await rebuilt(tmp_path, *options)

    assert (0, RUNS) == (done.code, done.record["runs"]), done.err
    assert 0 < after < len(events)
    assert len(events) - after == done.record["folded_now"]
    assert [] == await differences(LIVE, ANEW)


async def test_a_killed_rebuild_from_a_root(line: TcpProxy, tmp_path: Path) -> None:
    """A copy killed in the middle goes on after the last page it had noted, and equals its source."""
    runs = 1_000
    await apply_to_live(lives(runs, steps=(), text=TEXT[:2_000]))
    options = ("--from", f"root:{LIVE}", "--into", ANEW)
    await killed_in_the_middle(tmp_path, line, *options, about="root", runs=runs)
    merged = noted(tmp_path, "total")["events"]

    done = await rebuilt(tmp_path, *options)

    assert (0, runs) == (done.code, done.record["runs"]), done.err
    assert runs - merged == done.record["folded_now"]
    assert [] == await differences(LIVE, ANEW)


async def test_a_killed_rebuild_from_a_subscription(
    events: list[RunEvent], line: TcpProxy, tmp_path: Path
) -> None:
    """A replay killed in the middle goes on with what was not acknowledged, and equals the live one."""
    await apply_to_live(events)
    raw = retaining()
    messages = [encode_event(event) for event in events]
    for start in range(0, len(messages), 500):
        raw.publish(messages[start : start + 500])
    # More than 10 s: idle for longer than the killed one's leases last.
    options = ("--from", "subscription", "--into", ANEW, "--until-idle", "14")
    await killed_in_the_middle(tmp_path, line, *options, about="replay")

    done = await rebuilt(tmp_path, *options)

    assert (0, RUNS) == (done.code, done.record["runs"]), done.err
    assert [] == await differences(LIVE, ANEW)
