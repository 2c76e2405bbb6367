import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from run_log.testing import EmulatorError, EmulatorNotFoundError, Faults, InMemoryTopic
from run_log.testing.pytest_plugin import skipping_without_emulators

TESTS = """
pytest_plugins = ["run_log.testing.pytest_plugin"]

def test_firestore(firestore_emulator): ...
def test_pubsub(pubsub_emulator): ...
"""


@pytest.mark.parametrize("environ", [{}, {"RUN_LOG_REQUIRE_EMULATORS": "0"}])
def test_a_missing_emulator_skips_with_the_reason(environ: dict[str, str]) -> None:
    """Where an emulator cannot be found, the test is skipped, and told what was looked at."""
    with pytest.raises(pytest.skip.Exception, match="nothing there"), skipping_without_emulators(environ):
        raise EmulatorNotFoundError("nothing there")


@pytest.mark.parametrize("required", ["1", "true", "TRUE"])
def test_a_missing_emulator_fails_where_emulators_are_required(required: str) -> None:
    """With RUN_LOG_REQUIRE_EMULATORS set, a missing emulator fails the test."""
    environ = {"RUN_LOG_REQUIRE_EMULATORS": required}

    with pytest.raises(pytest.fail.Exception, match="nothing there"), skipping_without_emulators(environ):
        raise EmulatorNotFoundError("nothing there")


def test_an_emulator_that_fails_to_start_is_not_skipped() -> None:
    """An emulator that is there and broken is an error, not a reason to skip."""
    with pytest.raises(EmulatorError, match="broken"), skipping_without_emulators({}):
        raise EmulatorError("broken")


@pytest.mark.process
def test_a_session_without_emulators_skips_what_needs_them(tmp_path: Path) -> None:
    """On a machine without emulators, the tests that need them are skipped, and told how to get them."""
    (tmp_path / "test_emulators.py").write_text(TESTS)
    hidden = {
        "FIRESTORE_EMULATOR_HOST",
        "PUBSUB_EMULATOR_HOST",
        "RUN_LOG_EMULATOR_ROOT",
        "RUN_LOG_REQUIRE_EMULATORS",
    }
    environ = {name: value for name, value in os.environ.items() if name not in hidden}

    result = subprocess.run(  # noqa: S603  # this Python, and the tests above
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", tmp_path.name],
        cwd=tmp_path.parent,
        env={**environ, "PATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "2 skipped" in result.stdout
    assert "gcloud components install" in result.stdout
    assert 0 == result.returncode


def test_what_a_test_gets(emulator_project: str, in_memory_topic: InMemoryTopic) -> None:
    """A project id is one that Google Cloud would take. A topic has no faults at first."""
    assert re.fullmatch(r"run-log-[0-9a-f]{12}", emulator_project)
    assert Faults() == in_memory_topic.faults


@pytest.mark.process
def test_the_kit_does_not_need_pytest() -> None:
    """Importing the kit imports neither pytest nor the plugin, so that programs can use it."""
    source = (
        "import sys, run_log.testing; print({'pytest', 'run_log.testing.pytest_plugin'} & set(sys.modules))"
    )

    result = subprocess.run(  # noqa: S603  # this Python, and the source above
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60
    )

    assert "set()\n" == result.stdout
