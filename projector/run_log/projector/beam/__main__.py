"""``python -m run_log.projector.beam``: exits 1 if anything was rejected, 2 if it was told what cannot be."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from run_log.core import ConfigurationError
from run_log.core.install import how_to_install

from .options import parse

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the pipeline that *arguments* say, and return the exit code.

    Args:
        arguments: Of the command line.
        environ: The environment variables.
    """
    try:
        rebuild, others = parse(arguments, environ)
        from ._pipeline import run  # noqa: PLC0415 - where Beam is not installed, it says which extra has it
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except ImportError as error:
        sys.stderr.write(f"{error}; {how_to_install('beam')}\n")
        return USAGE
    return DONE if run(rebuild, others) else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
