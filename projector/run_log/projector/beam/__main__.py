"""``python -m run_log.projector.beam``: exits 1 after rejects, 2 if an option or a setting is wrong."""

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
    """Run the pipeline as *arguments* say, and return the exit code.

    Args:
        arguments: The command line, without the program.
        environ: The environment variables.
    """
    try:
        rebuild, others = parse(arguments, environ)
        from ._pipeline import run  # noqa: PLC0415 - without Beam, the error names the extra to install
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except ImportError as error:
        sys.stderr.write(f"{error}; {how_to_install('beam')}\n")
        return USAGE
    return DONE if run(rebuild, others) else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
