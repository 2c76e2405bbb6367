"""Replay a recorded log of wire bodies, and tell what it ends in as JSON types.

A new log is recorded by writing ``<name>.jsonl`` and running this file on it: it writes the result beside
it and pins both. Recorded logs are append-only: they never change, new cases get a new file.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from run_log.core import EventDecodeError, Message, RunEvent, Transition, decode_event, encode_event
from run_log.core.history import mark_anomalies
from run_log.core.law import RunHead, by_run, fold
from run_log.core.models import RunKey
from run_log.core.stats import StatsDelta

FOLDER = Path(__file__).parent
PINNED = FOLDER / "logs.json"


def read(log: Path) -> list[bytes]:
    """Return the recorded bodies of *log*, in the order of their arrival."""
    return log.read_bytes().splitlines()


def replay(bodies: Sequence[bytes]) -> dict[str, Any]:
    """Return what *bodies* end in: each run with its history, each workflow's stats, and what was refused."""
    events: list[RunEvent] = []
    refused: list[str] = []
    for data in bodies:
        try:
            events.append(decode_event(Message(data=data)))
        except EventDecodeError as error:
            refused.append(error.reason)
    heads: dict[RunKey, RunHead] = {}
    winners: dict[RunKey, RunEvent] = {}
    stats: dict[str, StatsDelta] = {}
    for key, positions in by_run(events).items():
        change = fold(None, [events[position] for position in positions])
        heads[key] = change.after
        winners[key] = change.winner or events[positions[0]]
        stats[key[0]] = stats.get(key[0], StatsDelta()) + change.delta
    return {
        "refused": sorted(refused),
        "runs": [_run(heads[key], winners[key]) for key in sorted(heads)],
        "stats": {workflow: _stats(stats[workflow]) for workflow in sorted(stats)},
    }


def _run(head: RunHead, winner: RunEvent) -> dict[str, Any]:
    return {
        "state": json.loads(encode_event(winner).data),
        "history": [
            {
                "version": list(line.version),
                "status": line.status.value,
                "occurred_at": line.occurred_at.isoformat(),
                "inferred": line.inferred,
                "anomaly": line.anomaly,
                **_answer(line),
            }
            for line in mark_anomalies(head.history)
        ],
        # Logs of earlier versions have none.
        **({"steps": [step.to_json() for step in head.steps]} if head.steps else {}),
    }


def _answer(line: Transition) -> dict[str, Any]:
    answer = {"choice": line.choice, "values": line.values, "comment": line.comment}
    return {name: value for name, value in answer.items() if value is not None}


def _stats(stats: StatsDelta) -> dict[str, Any]:
    by_status = {status.value: count for status, count in sorted(stats.by_status.items())}
    return {"total": stats.total, "successful": stats.successful, "by_status": by_status}


def digest(path: Path) -> str:
    """Return the SHA-256 of *path*'s bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(log: Path) -> None:
    """Write what *log* ends in beside it, and pin both; a pinned log is not recorded again."""
    pinned: dict[str, str] = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.exists() else {}
    if log.name in pinned:
        raise SystemExit(f"{log.name} is recorded already; add a new log")
    result = log.with_suffix(".json")
    text = json.dumps(replay(read(log)), indent=1)
    result.write_text(text + "\n", encoding="utf-8")
    pinned.update({path.name: digest(path) for path in (log, result)})
    PINNED.write_text(json.dumps(pinned, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
