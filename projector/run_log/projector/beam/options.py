"""What the program is told: by options, and by settings."""

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
    """What is folded, and where to."""

    files: tuple[str, ...]
    """Files or patterns, as Beam's file systems have them; hidden files are left out."""
    settings: Settings
    """With the project, the database, over how many documents stats are spread, and the retention."""
    into: str
    """The root collection."""
    rejects: str
    """How the names begin of files that say what could not be folded."""
    open_store: OpenStore | None = None
    """Opens the store; None for the Firestore that the settings describe."""

    def store(self) -> OpenStore:
        """Return what opens the store, on any worker."""
        from run_log.stores import FirestoreRunLogService  # noqa: PLC0415 - options are read without

        return self.open_store or partial(
            FirestoreRunLogService.from_settings, rebuilding(self.settings, self.into)
        )


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[BeamRebuild, list[str]]:
    """Return what *arguments* say, and those of them that are Beam's.

    A mistake in them ends the process with 2, as argparse does.

    Args:
        arguments: Of the command line.
        environ: The environment variables.

    Raises:
        ConfigurationError: They do not fit the settings, or a setting is wrong.
    """
    options, others = _parser().parse_known_args(arguments)
    settings = Settings.from_env(environ)
    if settings.backend == "sqlite":
        raise ConfigurationError(
            "workers write into Firestore: unset RUN_LOG_BACKEND, or use `run-log rebuild` for a file"
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
        description="Folds an archive into a fresh root collection. All other options are Beam's: --runner, "
        "--region, --temp_location and so on. The database, the retention, and over how many documents stats "
        "are spread are settings as ever (RUN_LOG_*).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="FILES",
        help="a file, or a pattern: * within a folder, ** through folders; may be given again",
    )
    parser.add_argument("--into", required=True, metavar="ROOT", help="the root collection to make")
    parser.add_argument(
        "--rejects",
        required=True,
        metavar="PREFIX",
        help="how the names begin of files that say what could not be folded; all workers have to reach them",
    )
    parser.add_argument("--project", help="of Firestore and of the job (default: GOOGLE_CLOUD_PROJECT)")
    return parser
