from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from .replay import FOLDER, PINNED, digest, read, replay

LOGS = sorted(FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_recorded_log_still_ends_in_the_same_state(log: Path) -> None:
    """Today's code makes of every log ever recorded what the code of its day made of it."""
    expected: dict[str, Any] = json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))

    assert expected == replay(read(log))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_recorded_log_delivered_anyhow_ends_in_the_same_state(log: Path, seed: int) -> None:
    """Shuffled and delivered twice, a recorded log ends in the same runs and stats."""
    expected: dict[str, Any] = json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))
    bodies = read(log) * 2
    random.Random(seed).shuffle(bodies)
    replayed = replay(bodies)

    assert (expected["runs"], expected["stats"]) == (replayed["runs"], replayed["stats"])


def test_recorded_logs_never_change() -> None:
    """Every log and its result is the file that was pinned when it was recorded, and none is missing."""
    pinned: dict[str, str] = json.loads(PINNED.read_text(encoding="utf-8"))
    recorded = {path.name: digest(path) for log in LOGS for path in (log, log.with_suffix(".json"))}

    assert pinned == recorded, "golden logs are append-only: restore the file, and add new cases as a new log"
