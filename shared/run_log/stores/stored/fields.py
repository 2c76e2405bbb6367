"""The names of what is stored of a run: its fields, plus one map for the projection's own data.

Every store keeps this form, so a run comes back alike from each of them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from run_log.core.payload import fit_text

PROJECTION: Final = "projection"
"""The map beside a run's fields that is the projection's own."""

PAUSED_STARTED_AT: Final = "paused_started_at"
"""In the projection map of paused runs only: their `started_at`. The inbox is an index on this field alone,
so that runs which never pause write nothing to it."""

PAUSED_ASSIGNEE: Final = "paused_assignee"
"""In the projection map of paused runs only: who is asked, cut where that is long; absent for anybody.
What is found by it is compared whole."""

PAUSED_DEADLINE: Final = "paused_deadline"
"""In the projection map of paused runs only: when the answer is due, `NO_DEADLINE` where it never is."""

ACTIVE_SINCE: Final = "active_since"
"""In the projection map of pending and running runs only: when their newest event happened."""

CHANGED_AT: Final = "changed_at"
"""In a store's projection map: when the store took the newest request that changed the record, by its clock.

Only about when it changed: the commit comes after the request.
"""

CHANGED_SHARD: Final = "changed_shard"
"""In a store's projection map, always: the root collection and a number below `SHARDS`, by the run's id.

Every index over all workflows begins with it. Times only go up, so without it all writers would meet at the
end of an index. And a group of collections spans every root collection, of which a query wants one.
"""

SHARDS: Final = 14

EARLIER_SHARDS: Final = 16
"""Documents of earlier versions have a number below this, without the root collection.

With `SHARDS` they are 30, the most values that Firestore takes for an ``in``
(https://firebase.google.com/docs/firestore/query-data/queries#limits_on_or_queries).
"""

OF_THE_STORE: Final = (CHANGED_AT, CHANGED_SHARD, "active_shard")
"""What in a projection map does not follow from the run's events; the last is of earlier versions only."""

COUNTED_MICROS: Final = "counted_micros"
"""In the projection map of runs whose duration is in the summary: that, in microseconds."""

COUNTED_HOUR: Final = "counted_hour"
"""In the projection map of runs that are counted by hour and day: in which hour since the epoch."""

PROGRESS_DIGEST: Final = "progress_digest"
"""In the projection map where the newest event is no transition: the digest of its run, which the history
holds of a transition."""

STEPS: Final = "steps"
"""In the projection map of runs that have any: their steps, each as text, as `HISTORY` has transitions."""
VERSION_FIELDS: Final = ("attempt", "hlc", "event_id", "occurred_at", "inferred")
"""What every run has in its projection map: of its newest event."""

OPTIONAL: Final = (
    PAUSED_STARTED_AT,
    PAUSED_ASSIGNEE,
    PAUSED_DEADLINE,
    ACTIVE_SINCE,
    COUNTED_MICROS,
    COUNTED_HOUR,
    PROGRESS_DIGEST,
)
"""What only some runs have in their projection map."""

NO_DEADLINE: Final = datetime.max.replace(tzinfo=UTC)
"""Stands where a paused run has no deadline, so that it comes after those that have one."""

MAX_ASSIGNEE_BYTES: Final = 512
"""Of what is indexed; Firestore indexes 1,500 (https://firebase.google.com/docs/firestore/quotas#indexes)."""

LABELS: Final = "labels"
"""A run's labels as texts ``key=value``, sorted: one index finds a run by any of them."""

PARENT: Final = "parent"
TRACE_ID: Final = "trace_id"
ERROR_TYPE: Final = "error_type"

PROGRESS: Final = "progress"

ADDED_FIELDS: Final = (LABELS, PARENT, TRACE_ID, ERROR_TYPE, PROGRESS)
"""Fields that only some runs have. Absent, they cost nothing."""

ADDED_TO_PAUSE: Final = ("choices", "form", "default_choice", "choice", "values")
"""Of a pause, likewise."""

EXPIRE_AT: Final = "expire_at"
"""Beside a run's fields: when the document may be deleted; absent where it never may. What
Firestore's TTL policy goes by (https://firebase.google.com/docs/firestore/ttl)."""

HISTORY: Final = "history"

PAYLOADS: Final = ("trigger_data", "result", "error")
"""Fields of a run that a recount does not read."""

MAX_DOCUMENT_BYTES: Final = 1_048_576
"""Firestore's limit for a document (https://firebase.google.com/docs/firestore/quotas)."""


def label_text(key: str, value: str) -> str:
    """Return a label as it is stored. No key has an equals sign."""
    return f"{key}={value}"


def indexed_assignee(assignee: str) -> str:
    """Return *assignee* as it is stored to be found by."""
    return fit_text(assignee, MAX_ASSIGNEE_BYTES)
