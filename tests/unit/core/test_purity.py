from __future__ import annotations

import pytest

from .builders import run_python

pytestmark = pytest.mark.process


def test_the_core_loads_no_vendor_and_no_console() -> None:
    """Importing the core loads no Google library, no gRPC, no retry library and nothing of the console."""
    printed = run_python(
        "import sys\n"
        "import run_log.core.logs\n"
        "unwanted = ('google', 'grpc', 'typer', 'rich', 'structlog', 'tenacity', 'click')\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in unwanted))\n"
    )

    assert printed.stdout == "[]\n"


def test_the_core_starts_no_thread() -> None:
    """Importing the core starts no thread and prints nothing."""
    printed = run_python("import threading, run_log.core\nassert threading.active_count() == 1\n")

    assert (printed.stdout, printed.stderr) == ("", "")
