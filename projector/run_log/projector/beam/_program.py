"""The pipeline as a program: run to its end, and told in one line of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ._pipeline import COUNTERS, NAMESPACE, build
from .options import BeamRebuild

beam: Any = import_module("apache_beam")
pipeline_options: Any = import_module("apache_beam.options.pipeline_options")


def run(rebuild: BeamRebuild, options: Sequence[str]) -> bool:
    """Run the pipeline, and return whether all was folded and nothing rejected.

    Args:
        rebuild: What it does.
        options: Beam's and its runner's.

    Raises:
        RuntimeError: The runner gave up; it says why.
    """
    os.umask(0o077)  # what is rejected holds payloads: on this machine its files are their owner's only
    pipeline = beam.Pipeline(options=pipeline_options.PipelineOptions([*options]))
    build(pipeline, rebuild)
    result = pipeline.run()
    state: str = result.wait_until_finish()
    counts = _counts(result)
    print(json.dumps({"into": rebuild.into, "state": state, **counts}))  # noqa: T201 - what it came to
    return state == "DONE" and not counts["rejects"]


def _counts(result: Any) -> dict[str, int]:
    found: dict[str, int] = dict.fromkeys(COUNTERS, 0)
    of_ours = beam.metrics.MetricsFilter().with_namespace(NAMESPACE)
    for counter in result.metrics().query(of_ours)["counters"]:
        found[counter.key.metric.name] += counter.result or 0
    return found
