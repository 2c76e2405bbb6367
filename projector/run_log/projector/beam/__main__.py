"""``python -m run_log.projector.beam``: exits 1 after rejects, 2 if an option or a setting is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from run_log.core import ConfigurationError
from run_log.core.install import how_to_install

from .options import parse

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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
