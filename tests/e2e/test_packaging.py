"""The wheel, installed with each extra alone: what it holds, what works, and what an error says."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from .installing import UNREACHABLE, clean_environment, is_required

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(900),  # it builds and installs, from wherever packages come
]

REPOSITORY = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
SOURCES = ("producer", "projector", "dashboard", "shared", "console")

EMULATORS = {
    "FIRESTORE_EMULATOR_HOST": "127.0.0.1:1",
    "PUBSUB_EMULATOR_HOST": "127.0.0.1:1",
    "GOOGLE_CLOUD_PROJECT": "p",
}


def uv(*arguments: str | Path) -> str:
    """Run uv in the repository and return what it printed."""
    result = subprocess.run(  # noqa: S603 - the uv of our own lock
        [UV, *arguments],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if result.returncode and any(sign in result.stderr for sign in UNREACHABLE) and not is_required():
        pytest.skip(f"no package index: {result.stderr.splitlines()[-1].strip()}")
    assert result.returncode == 0, result.stderr
    return result.stdout


class Installations:
    """Environments with the wheel and one extra each, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        uv("build", "--quiet", "--wheel", "--out-dir", folder, REPOSITORY)
        (self.wheel,) = folder.glob("*.whl")

    def bin(self, extra: str) -> Path:
        """Return the folder of the programs of the environment with *extra*; an empty one is none."""
        environment = self._folder / f"with-{extra or 'nothing'}"
        ready = environment / "ready"
        if not ready.exists():
            locked = self._folder / "locked.txt"
            if not locked.exists():
                only_ours = (
                    *("--no-dev", "--all-extras", "--no-extra", "beam"),
                    *("--no-emit-project", "--no-hashes"),
                )
                locked.write_text(uv("export", "--quiet", "--locked", *only_ours))
            uv("venv", "--quiet", "--clear", "--python", sys.executable, environment)
            wanted = f"run-log[{extra}] @ {self.wheel.as_uri()}"
            python = environment / "bin" / "python"
            uv("pip", "install", "--quiet", "--python", python, "--constraints", locked, wanted)
            ready.touch()
        return environment / "bin"

    def run(
        self, extra: str, program: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run *program* of the environment with *extra*, far from the repository."""
        name, *arguments = program
        return subprocess.run(  # noqa: S603 - what this test has installed
            [self.bin(extra) / name, *arguments],
            cwd=self._folder,
            env={**clean_environment(), "NO_GCE_CHECK": "true", **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def python(self, extra: str, code: str, environ: Mapping[str, str] | None = None) -> str:
        """Run *code* in the environment with *extra* and return what it printed; a failure raises."""
        result = self.run(extra, ["python", "-W", "error::DeprecationWarning:run_log", "-c", code], environ)
        assert result.returncode == 0, result.stderr
        return result.stdout


# Four environments are made and installed, each when it is first asked for.
@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installations:
    """Return the wheel, built once, and what installs it."""
    return Installations(tmp_path_factory.mktemp("packaging"))


def test_what_the_wheel_holds(installed: Installations) -> None:
    """The wheel holds every source file of every package with its py.typed, the schema, and no tests."""
    expected = {
        path.relative_to(REPOSITORY / source).as_posix()
        for source in SOURCES
        for path in (REPOSITORY / source / "run_log").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    with zipfile.ZipFile(installed.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert expected == held
    assert "run_log/core/schemas/run-state-1-0-1.json" in held
    assert "run_log/__init__.py" not in held
    packages = {name.split("/")[1] for name in held}
    expected_packages = {
        "core",
        "stores",
        "pubsub",
        "http",
        "testing",
        "producer",
        "projector",
        "adapters",
        "dashboard",
    }
    assert expected_packages | {"console"} == packages
    assert {f"run_log/{package}/py.typed" for package in packages} <= held


@pytest.mark.parametrize("extra", ["", "producer", "stores", "projector"])
def test_every_package_imports(installed: Installations, extra: str) -> None:
    """With any extra and with none, every package that users import can be imported."""
    packages = ("core", "stores", "producer", "projector", "projector.beam", "testing", "console")

    printed = installed.python(
        extra,
        "".join(f"import run_log.{package} as package; print(package.__name__)\n" for package in packages),
    )

    assert [f"run_log.{package}" for package in packages] == printed.split()


def test_the_demo_needs_no_extra(installed: Installations) -> None:
    """The demo runs with no extra."""
    demo = installed.run("", ["run-log", "demo"])

    assert (0, "") == (demo.returncode, demo.stderr)
    assert "Stats equal a recount of the runs." in demo.stdout


def test_packages_load_no_vendor(installed: Installations) -> None:
    """Importing packages loads no Google library and no console library, even where they are installed."""
    printed = installed.python(
        "projector",
        "import sys\n"
        "import run_log.producer, run_log.stores, run_log.projector, run_log.testing\n"
        "unwanted = ('google', 'grpc', 'typer', 'rich', 'structlog', 'tenacity', 'click')\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in unwanted))\n",
    )

    assert "[]\n" == printed


def test_a_producer_needs_no_firestore(installed: Installations) -> None:
    """With the extra producer alone, runs are published without Firestore's library."""
    printed = installed.python(
        "producer",
        "from importlib.util import find_spec\n"
        "from run_log.producer import RunEventEmitter\n"
        "emitter = RunEventEmitter.from_env()\n"
        "emitter.close()\n"
        "print(find_spec('google.cloud.pubsub_v1') is not None, find_spec('google.cloud.firestore'))\n",
        EMULATORS,
    )

    assert "True None\n" == printed


def test_a_reader_needs_no_pubsub(installed: Installations) -> None:
    """With the extra stores alone, Firestore is read without Pub/Sub's library."""
    printed = installed.python(
        "stores",
        "from importlib.util import find_spec\n"
        "from run_log.stores import FirestoreRunLogService, create_run_log_service\n"
        "FirestoreRunLogService.from_env()\n"
        "print(type(create_run_log_service('firestore')).__name__, find_spec('google.pubsub_v1'))\n",
        EMULATORS,
    )

    assert "FirestoreRunLogService None\n" == printed


IMPORT = "from run_log.stores import FirestoreRunLogService"
CREATE = "from run_log.stores import create_run_log_service; create_run_log_service('{}')".format
EMITTER = "from run_log.producer import RunEventEmitter; RunEventEmitter.from_env()"


@pytest.mark.parametrize(
    ("extra", "code", "error", "hint"),
    [
        ("", IMPORT, "ImportError", "stores"),
        ("producer", IMPORT, "ImportError", "stores"),
        ("", CREATE("firestore"), "ConfigurationError", "stores"),
        ("", CREATE("pubsub"), "ConfigurationError", "stores"),
        ("producer", CREATE("firestore"), "ConfigurationError", "stores"),
        ("stores", CREATE("pubsub"), "ConfigurationError", "producer"),
        ("producer", CREATE("pubsub"), "ConfigurationError", "stores"),
        ("", EMITTER, "ConfigurationError", "producer"),
    ],
)
def test_what_is_not_installed_says_so(
    installed: Installations, extra: str, code: str, error: str, hint: str
) -> None:
    """What needs an extra that is not installed raises an error that says which one to install."""
    result = installed.run(extra, ["python", "-c", code], EMULATORS)

    last = result.stderr.splitlines()[-1]
    assert 1 == result.returncode
    assert error in last.split(":")[0]
    assert f"pip install '{installed.wheel}[{hint}]'" in last


# Which extra each command needs, with none installed: tests/unit/console/test_without_extras.py.
@pytest.mark.parametrize(
    ("extra", "command", "hint"),
    [
        ("stores", ["provision"], "producer"),
        ("producer", ["projector", "pull"], "projector"),
        ("stores", ["projector", "pull"], "projector"),
    ],
)
def test_a_command_says_which_extra_it_needs(
    installed: Installations, extra: str, command: list[str], hint: str
) -> None:
    """A command that needs an extra which is not installed ends with 2 and one line that names it."""
    result = installed.run(extra, ["run-log", *command], EMULATORS)

    assert (2, "") == (result.returncode, result.stdout)
    (line,) = result.stderr.splitlines()
    assert line.endswith(f"pip install '{installed.wheel}[{hint}]'")


def test_a_workflow_runs_on_without_its_extra(installed: Installations) -> None:
    """Where the back end's extra is not installed, a workflow runs on, and the log says which it needs."""
    code = (
        "import logging\n"
        "handler = logging.StreamHandler()\n"
        "handler.setFormatter(logging.Formatter('%(message)s %(error)s', defaults={'error': ''}))\n"
        "logging.getLogger().addHandler(handler)\n"
        "from run_log.producer import record_run\n"
        "with record_run('w') as run:\n"
        "    run.set_result({'done': True})\n"
        "print('went on')\n"
    )

    result = installed.run("", ["python", "-c", code], {**EMULATORS, "RUN_LOG_BACKEND": "pubsub"})

    assert (0, "went on\n") == (result.returncode, result.stdout)
    assert "run_log_publish_failed" in result.stderr
    assert f"pip install '{installed.wheel}[producer]'" in result.stderr
