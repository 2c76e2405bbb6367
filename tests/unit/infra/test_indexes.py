from __future__ import annotations

import json
from pathlib import Path

from run_log.stores._documents import PAUSED_STARTED_AT, PROJECTION
from run_log.stores.firestore._connection import RUNS

INDEXES = Path(__file__).resolve().parents[3] / "infra" / "firestore.indexes.json"


def test_the_indexes_are_those_of_the_queries() -> None:
    """A listing's and the inbox's indexes are the only ones: nothing else of a run is indexed."""
    deployed = json.loads(INDEXES.read_text())

    listing = {"order": "DESCENDING", "queryScope": "COLLECTION"}
    inbox = {"order": "DESCENDING", "queryScope": "COLLECTION_GROUP"}
    assert {
        "indexes": [],
        "fieldOverrides": [
            {"collectionGroup": RUNS, "fieldPath": "*", "indexes": []},
            {"collectionGroup": RUNS, "fieldPath": "started_at", "indexes": [listing]},
            {"collectionGroup": RUNS, "fieldPath": f"{PROJECTION}.{PAUSED_STARTED_AT}", "indexes": [inbox]},
        ],
    } == deployed
