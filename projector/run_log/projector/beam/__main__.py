"""``python -m run_log.projector.beam``: exits 1 after rejects, 2 if an option or a setting is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from run_log.core import ConfigurationError, Settings
from run_log.core.install import how_to_install
from run_log.projector.rebuild import FromArchive
from run_log.projector.rebuild.sources import check

from .steps import BeamRebuild

DONE, FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the pipeline as *arguments* say, and return the exit code."""
    try:
        rebuild, others = parse(arguments, environ)
        from ._pipeline import run  # noqa: PLC0415 - without Beam, the error names the extra to install
    except (ConfigurationError, ImportError) as error:
        hint = f"; {how_to_install('beam')}" if isinstance(error, ImportError) else ""
        sys.stderr.write(f"{error}{hint}\n")
        return USAGE
    return DONE if run(rebuild, others) else FAILED


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
