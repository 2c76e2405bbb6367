from __future__ import annotations

import pytest

from .builders import run_python

pytestmark = pytest.mark.process


def test_the_core_loads_no_vendor_and_no_console() -> None:
    """Importing the core loads no Google library, no gRPC, no retry library and nothing of the console.

    What structlog loads by itself is not ours: it imports rich wherever rich is installed.
    """
    printed = run_python(
        "import sys\n"
        "import structlog\n"
        "others = set(sys.modules)\n"
        "import run_log.core\n"
        "unwanted = ('google', 'grpc', 'typer', 'rich', 'tenacity', 'click')\n"
        "print(sorted(name for name in set(sys.modules) - others if name.split('.')[0] in unwanted))\n"
    )

    assert printed.stdout == "[]\n"


def test_the_core_starts_no_thread() -> None:
    """Importing the core starts no thread and prints nothing."""
    printed = run_python("import threading, run_log.core\nassert threading.active_count() == 1\n")

    assert (printed.stdout, printed.stderr) == ("", "")
