"""The Beam pipeline with a store whose first answers get lost, run by Beam's own environment as a program.

    python beam_program.py FILES ROOT REJECTS LOST

Until the file LOST is there, a commit is made and then told to have failed; so a runner works on its bundle
again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from run_log.core import Outcome, Settings, StoreUnavailableError
from run_log.core.law import FoldedRun
from run_log.projector.beam import BeamRebuild, build
from run_log.stores import FirestoreRunLogService


class ForgetfulStore:
    """A store that makes a commit, and fails when it should say so, once."""

    def __init__(self, root: str, lost: Path) -> None:
        self._store = FirestoreRunLogService(root_collection=root)
        self._lost = lost

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome]:
        """See `ClosableStore.merge`."""
        outcomes = await self._store.merge(runs)
        if runs and not self._lost.exists():
            self._lost.write_text(json.dumps(outcomes))
            raise StoreUnavailableError("the answer got lost")
        return outcomes

    async def close(self) -> None:
        """Let go of connections."""
        await self._store.close()


@dataclass(frozen=True)
class OpensForgetfulStore:
    """Opens one on any worker."""

    root: str
    lost: str

    def __call__(self) -> ForgetfulStore:
        """Open it."""
        return ForgetfulStore(self.root, Path(self.lost))


def main(files: str, into: str, rejects: str, lost: str) -> None:
    """Run the pipeline on the runner of Beam's that works on a failed bundle again."""
    beam: Any = import_module("apache_beam")
    rebuild = BeamRebuild(
        files=(files,),
        settings=Settings.from_env(),
        into=into,
        rejects=rejects,
        open_store=OpensForgetfulStore(into, lost),
    )
    with beam.Pipeline(runner="BundleBasedDirectRunner") as pipeline:
        build(pipeline, rebuild)


if __name__ == "__main__":
    main(*sys.argv[1:])
