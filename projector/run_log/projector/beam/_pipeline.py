"""The pipeline: an archive's events, joined run by run, written into a root collection; and its program."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, Final

from run_log.core import Settings
from run_log.core.law import FoldedRun
from run_log.core.models import RunKey
from run_log.stores.firestore import FirestoreRoot, shard_of

from .steps import (
    BeamRebuild,
    OpenStore,
    RunWriter,
    Written,
    decode_folded,
    encode_folded,
    folded,
    joined,
    read_events,
)

# Untyped: Beam's annotations leave most return types open. No other module imports Beam.
beam: Any = import_module("apache_beam")
fileio: Any = import_module("apache_beam.io.fileio")
filesystem: Any = import_module("apache_beam.io.filesystem")
filesystems: Any = import_module("apache_beam.io.filesystems")
pipeline_options: Any = import_module("apache_beam.options.pipeline_options")
window: Any = import_module("apache_beam.transforms.window")
windowed_value: Any = import_module("apache_beam.utils.windowed_value")
Coder: Any = beam.coders.Coder
CombineFn: Any = beam.CombineFn
DoFn: Any = beam.DoFn

COUNTERS: Final = ("events", "runs", "rejects", "expiring")
"""The pipeline's counters among Beam's metrics, in the namespace `NAMESPACE`."""

NAMESPACE: Final = "run_log"

_REJECTS: Final = "rejects"


def build(pipeline: Any, rebuild: BeamRebuild) -> None:
    """Add *rebuild* to a pipeline.

    A bundle that Beam processes again, or twice at once, changes nothing: runs are written under the same
    preconditions as by a projector. The pipeline may also run again, or beside a projector.

    Args:
        pipeline: An `apache_beam.Pipeline`.
        rebuild: What to fold, and where to write.
    """
    beam.coders.registry.register_coder(FoldedRun, FoldedRunCoder)
    read = (
        pipeline
        | "Patterns" >> beam.Create(rebuild.files)
        | "Match" >> fileio.MatchAll(fileio.EmptyMatchTreatment.DISALLOW)
        | "Names" >> beam.Map(_path).with_output_types(str)
        | "Visible" >> beam.Filter(_is_visible)
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(_Read()).with_outputs(_REJECTS, main="runs")
    )
    runs = (
        read.runs
        | "ByRun" >> beam.Map(_by_run).with_output_types(tuple[RunKey, FoldedRun])
        | "Join" >> beam.CombinePerKey(_Join()).with_output_types(tuple[RunKey, FoldedRun])
    )
    # Grouped by stats document: only one worker writes each, so no two wait for each other's locks.
    written = (
        runs
        | "ByStats"
        >> beam.Map(_by_stats, rebuild.settings.stats_shards).with_output_types(
            tuple[tuple[str, int], FoldedRun]
        )
        | "Gather" >> beam.GroupByKey()
        | "Write" >> beam.ParDo(_Write(rebuild.store())).with_outputs(_REJECTS, main="runs")
    )
    _ = (
        (
            read.rejects | "Rejected" >> beam.Map(_counted).with_output_types(str),
            written.rejects | "Refused" >> beam.Map(_counted).with_output_types(str),
        )
        | "Both" >> beam.Flatten()
        | "Rejects" >> beam.io.WriteToText(rebuild.rejects, file_name_suffix=".jsonl", skip_if_empty=True)
    )
    if rebuild.settings.retention_days is not None:
        _expire(rebuild, runs, written.runs)


def _expire(rebuild: BeamRebuild, runs: Any, written: Any) -> None:
    # Only after all is written: a run that was deleted before could come back, and be counted twice.
    all_written = beam.pvalue.AsSingleton(written | "AllWritten" >> beam.CombineGlobally(sum))
    _ = (
        runs
        | "Runs" >> beam.Keys()
        | "Workflows" >> beam.Keys().with_output_types(str)
        | "Once" >> beam.Distinct()
        | "Expire" >> beam.ParDo(_Expire(rebuild.settings, rebuild.into), all_written)
    )


class FoldedRunCoder(Coder):
    """Encodes a run for another worker; None is empty."""

    def encode(self, value: FoldedRun | None) -> bytes:
        """Return *value* as bytes."""
        return encode_folded(value) if value is not None else b""

    def decode(self, encoded: bytes) -> FoldedRun | None:
        """Return what `encode` was given."""
        return decode_folded(encoded) if encoded else None

    def is_deterministic(self) -> bool:
        """Return that equal runs have equal bytes."""
        return True


class _Join(CombineFn):
    def create_accumulator(self) -> FoldedRun | None:
        return None

    def add_input(self, accumulator: FoldedRun | None, run: FoldedRun) -> FoldedRun:
        return run if accumulator is None else joined((accumulator, run))

    def merge_accumulators(self, accumulators: Iterable[FoldedRun | None]) -> FoldedRun | None:
        runs = [run for run in accumulators if run is not None]
        return joined(runs) if runs else None

    def extract_output(self, accumulator: FoldedRun | None) -> FoldedRun | None:
        return accumulator

    def get_accumulator_coder(self) -> Any:
        return FoldedRunCoder()


class _Read(DoFn):
    def process(self, name: str) -> Iterator[Any]:
        # Not decompressed by Beam, which goes by the file's name: read_records goes by the first bytes.
        kind = filesystem.CompressionTypes.UNCOMPRESSED
        with filesystems.FileSystems.open(name, compression_type=kind) as file:
            for found in read_events(name, file):
                if isinstance(found, str):
                    yield beam.pvalue.TaggedOutput(_REJECTS, found)
                else:
                    _count("events")
                    yield folded(found)


class _Write(DoFn):
    def __init__(self, open_store: OpenStore) -> None:
        self._open_store = open_store
        self._writer: Any = None

    def setup(self) -> None:
        self._writer = RunWriter(self._open_store)

    def start_bundle(self) -> None:
        self._writer.begin()

    def process(self, gathered: tuple[tuple[str, int], Iterable[FoldedRun]]) -> Iterator[Any]:
        for run in gathered[1]:
            written = self._writer.add(run)
            if written is not None:
                yield from _outputs(written)

    def finish_bundle(self) -> Iterator[Any]:
        for output in _outputs(self._writer.write()):
            yield _of_bundle(output)

    def teardown(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Expire(DoFn):
    def __init__(self, settings: Settings, into: str) -> None:
        self._settings = settings
        self._into = into

    def process(self, workflow_id: str, _all_written: int) -> None:
        _count("expiring", asyncio.run(self._expire(workflow_id)))

    async def _expire(self, workflow_id: str) -> int:
        root = FirestoreRoot.from_settings(self._settings, self._into)
        try:
            return await root.expire(self._settings.retention_days or 0, workflow_id)
        finally:
            await root.close()


def _path(metadata: Any) -> str:
    path: str = metadata.path
    return path


def _is_visible(path: str) -> bool:
    return not PurePosixPath(path).name.startswith(".")


def _by_run(run: FoldedRun) -> tuple[RunKey, FoldedRun]:
    return run.event.key, run


def _by_stats(keyed: tuple[RunKey, FoldedRun], shards: int) -> tuple[tuple[str, int], FoldedRun]:
    (workflow_id, run_id), run = keyed
    return (workflow_id, shard_of(run_id, shards)), run


def _counted(line: str) -> str:
    _count("rejects")
    return line


def _outputs(written: Written) -> Iterator[Any]:
    _count("runs", written.runs)
    yield written.runs
    for line in written.rejects:
        yield beam.pvalue.TaggedOutput(_REJECTS, line)


def _of_bundle(output: Any) -> Any:
    """Return *output* with a window and a time: at the end of a bundle no element gives them."""
    everything = window.GlobalWindow()
    moment = everything.max_timestamp()
    if isinstance(output, beam.pvalue.TaggedOutput):
        value = windowed_value.WindowedValue(output.value, moment, [everything])
        return beam.pvalue.TaggedOutput(output.tag, value)
    return windowed_value.WindowedValue(output, moment, [everything])


def _count(name: str, by: int = 1) -> None:
    beam.metrics.Metrics.counter(NAMESPACE, name).inc(by)


def run(rebuild: BeamRebuild, options: Sequence[str]) -> bool:
    """Run the pipeline with Beam's own *options*; return whether all was folded and nothing was rejected.

    Raises:
        RuntimeError: The runner failed.
    """
    os.umask(0o077)  # rejects hold payloads, so on this machine only the owner can read their files
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
