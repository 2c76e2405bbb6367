"""The options and settings of the program."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from run_log.core import ConfigurationError, Settings
from run_log.projector.rebuild import FromArchive
from run_log.projector.rebuild.sources import check, rebuilding

from .steps import OpenStore


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamRebuild:
    """What a pipeline folds, and where it writes."""

    files: tuple[str, ...]
    """Files or patterns, as Beam's file systems take them. Hidden files are left out."""
    settings: Settings
    """The project, the database, the number of stats documents and the retention are taken from here."""
    into: str
    """The root collection to write into."""
    rejects: str
    """Prefix of the files that hold the rejects."""
    open_store: OpenStore | None = None
    """Opens the store; None for the settings' Firestore."""

    def store(self) -> OpenStore:
        """Return a function that opens the store, on any worker."""
        from run_log.stores import FirestoreRunLogService  # noqa: PLC0415 - options are read without

        return self.open_store or partial(
            FirestoreRunLogService.from_settings, rebuilding(self.settings, self.into)
        )


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[BeamRebuild, list[str]]:
    """Parse *arguments*, and return those of Beam as they are. After a mistake, argparse exits with 2.

    Raises:
        ConfigurationError: They do not fit the settings, or a setting is wrong.
    """
    options, others = _parser().parse_known_args(arguments)
    settings = Settings.from_env(environ)
    if settings.backend == "sqlite":
        raise ConfigurationError(
            "a pipeline writes into Firestore; unset RUN_LOG_BACKEND, or use `run-log rebuild` for a file"
        )
    rebuild = BeamRebuild(
        files=tuple(options.input),
        settings=settings.model_copy(update={"project": options.project or settings.project}),
        into=options.into,
        rejects=options.rejects,
    )
    check(settings, FromArchive(path=""), rebuild.into)
    project = rebuild.settings.project
    return rebuild, [*others, f"--project={project}"] if project else others


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m run_log.projector.beam",
        description="Fold an archive into a new root collection. All other options go to Beam: --runner, "
        "--region, --temp_location and so on. The settings RUN_LOG_* say which database and retention to "
        "use, and over how many documents to spread stats.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="FILES",
        help="file or pattern to read; * matches within a folder, ** across folders; can be repeated",
    )
    parser.add_argument("--into", required=True, metavar="ROOT", help="root collection to create")
    parser.add_argument(
        "--rejects",
        required=True,
        metavar="PREFIX",
        help="prefix of the files for rejects; all workers must be able to write there",
    )
    parser.add_argument("--project", help="project of Firestore and the job (default: GOOGLE_CLOUD_PROJECT)")
    return parser
