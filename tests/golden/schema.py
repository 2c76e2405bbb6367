"""Write the event's JSON Schema of this version, and pin it: ``make schema``.

Schemas are append-only: a pinned one never changes, a changed event model needs a new ``SCHEMA_VERSION``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from run_log.core.schema import make_event_schema_text
from run_log.core.wire import SCHEMA_VERSION

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMAS = REPOSITORY / "shared" / "run_log" / "core" / "schemas"
PINNED = Path(__file__).with_name("schemas.json")


def main() -> int:
    """Write and pin the schema; return 1 where that would change a pinned one."""
    path = SCHEMAS / f"run-state-{SCHEMA_VERSION}.json"
    text = make_event_schema_text()
    digest = hashlib.sha256(text.encode()).hexdigest()
    pinned: dict[str, str] = json.loads(PINNED.read_text())
    if pinned.get(path.name, digest) != digest:
        sys.stderr.write(f"{path.name} is pinned and would change: raise SCHEMA_VERSION\n")
        return 1
    path.write_text(text)
    PINNED.write_text(json.dumps({**pinned, path.name: digest}, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
