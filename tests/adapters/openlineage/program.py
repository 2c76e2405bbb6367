"""A program with the official client, which runs in its environment. It sends what it is told to.

Arguments: the transport's configuration, as JSON, and the id of the run. It prints the types of its events.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

client: Any = import_module("openlineage.client")
events: Any = import_module("openlineage.client.event_v2")
facets: Any = import_module("openlineage.client.facet_v2")

JOB = events.Job(namespace="spark://x:7077", name="orders.load")
PARENT = facets.parent_run.ParentRunFacet(
    run=facets.parent_run.Run(runId="0199c1d2-0000-7000-8000-000000000001"),
    job=facets.parent_run.Job(namespace="scheduler", name="nightly"),
)
ENGINE = facets.processing_engine_run.ProcessingEngineRunFacet(name="spark", version="3.5.1")
TAGS = facets.tags_run.TagsRunFacet(
    tags=[facets.tags_run.TagsRunFacetFields(key="team", value="billing", source="USER")]
)
ERROR = facets.error_message_run.ErrorMessageRunFacet(
    message="java.io.IOException: disk full", programmingLanguage="JAVA", stackTrace="\tat a.B.c(B.java:1)"
)


def main() -> None:
    """Send the events of a run that fails, and what states no run."""
    config, run_id = json.loads(sys.argv[1]), sys.argv[2]
    # From the environment, where nothing is given: OPENLINEAGE_URL and OPENLINEAGE_API_KEY.
    arguments = {"config": {"transport": config}} if config else {}
    sender = client.OpenLineageClient(**arguments)
    run = events.Run(runId=run_id)
    started = events.Run(runId=run_id, facets={"parent": PARENT, "processing_engine": ENGINE, "tags": TAGS})
    failed = events.Run(runId=run_id, facets={"errorMessage": ERROR})
    sent = [
        events.RunEvent(eventType=kind, eventTime=at, run=each, job=JOB)
        for kind, at, each in (
            (events.RunState.START, "2026-03-01T10:00:00.5Z", started),
            (events.RunState.RUNNING, "2026-03-01T10:00:01+00:00", run),
            (events.RunState.OTHER, "2026-03-01T10:00:02", run),
            (events.RunState.FAIL, "2026-03-01T11:00:03.5+01:00", failed),
        )
    ]
    dataset = events.StaticDataset(namespace="s3://lake", name="t")
    sent.append(events.JobEvent(eventTime="2026-03-01T10:00:00Z", job=JOB))
    sent.append(events.DatasetEvent(eventTime="2026-03-01T10:00:00Z", dataset=dataset))
    for event in sent:
        sender.emit(event)
    assert sender.close(30)
    sys.stdout.write(" ".join(type(event).__name__ for event in sent))


if __name__ == "__main__":
    main()
