"""What the Dockerfile builds, built without Docker: its steps in an empty directory, and the result alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from tests.unit.infra.dockerfile import REPOSITORY, Instruction, stages
from tests.unit.infra.terraform_module import TerraformModule

from .installing import UNREACHABLE, clean_environment, is_required

pytestmark = pytest.mark.process

PATIENCE = 60.0
HEALTH_PORT = "8081"


class Image:
    """What the stages leave behind, in a folder that stands for the root of the file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._base = root / "usr" / "local"
        # The Python that the image brings, with its pip and nothing more.
        _run([sys.executable, "-m", "venv", self._base], root, clean_environment())
        self._environment = {**clean_environment(), "PATH": f"{self._base / 'bin'}:{os.environ['PATH']}"}
        builder, self.final = stages()
        self._folder = root
        for instruction in builder.instructions:
            self._follow(instruction)
        self._keep_only([self._in_root(one.words[1]) for one in self.final.named("COPY")])

    def command(self, *arguments: str) -> list[str]:
        """Return what a container of the image runs when it is given *arguments*, or none."""
        (entry,), (defaults,) = self.final.named("ENTRYPOINT"), self.final.named("CMD")
        return [str(self._in_root(entry.words[0])), *entry.words[1:], *(arguments or defaults.words)]

    def python(self, program: Path) -> list[str]:
        """Return what runs *program* with the Python of the image."""
        return [str(Path(self.command()[0]).with_name("python")), str(program)]

    def environment(self, **variables: str) -> dict[str, str]:
        """Return *variables* and no others: no PATH, so nothing that is run can need a shell or a program."""
        return {"PATH": "", "HOME": str(self._root), "NO_GCE_CHECK": "true", **variables}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a container of the image to its end."""
        return subprocess.run(  # noqa: S603 - what this test has installed
            self.command(*arguments),
            cwd=self._root,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def _follow(self, instruction: Instruction) -> None:
        match instruction.name:
            case "ARG" | "ENV":
                self._environment |= dict(word.split("=", 1) for word in instruction.words)
            case "WORKDIR":
                self._folder = self._in_root(instruction.text)
                self._folder.mkdir(parents=True)
            case "COPY":
                *sources, target = instruction.words
                for source in sources:
                    _copy(REPOSITORY / source, self._folder / target)
            case "RUN":
                _run(["/bin/sh", "-c", instruction.text], self._folder, self._environment)
            case _:
                raise AssertionError(f"this test does not know {instruction.name}")

    def _keep_only(self, kept: Sequence[Path]) -> None:
        for path in self._folder.iterdir():
            if path not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _in_root(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(  # noqa: S603 - our own Dockerfile's steps
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    said = done.stdout + done.stderr
    if done.returncode and any(sign in said for sign in UNREACHABLE) and not is_required():
        pytest.skip(f"no package index: {said.splitlines()[-1].strip()}")
    assert done.returncode == 0, said


# It installs what the lock names, twice, as the Dockerfile does.
@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Return the image, built once."""
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "infra" / "compose.yaml").read_text())["services"]
    return found


def test_the_image_holds_what_runs(image: Image) -> None:
    """A container says what it can do; the image holds what the lock names, and nothing for developers."""
    shown = image.run()
    sites = Path(image.command()[0]).parents[1] / "lib"
    installed = {path.name.split("-")[0] for path in sites.glob("python*/site-packages/*.dist-info")}

    assert (0, "") == (shown.returncode, shown.stderr)
    assert all(command in shown.stdout for command in ("dashboard", "projector", "provision", "sweep"))
    assert {
        "run_log",
        "fastapi",
        "jinja2",
        "google_cloud_firestore",
        "google_cloud_pubsub",
        "uvicorn",
    } <= installed
    assert not {"pytest", "mypy", "uv", "pip", "hatchling"} & installed


@pytest.mark.parametrize("kind", ["google_cloud_run_v2_worker_pool", "google_cloud_run_v2_service"])
def test_what_cloud_run_starts_says_what_it_lacks(image: Image, kind: str) -> None:
    """Started as in Cloud Run but without credentials, a projector ends with 2 and says what to do."""
    module = TerraformModule()
    (container,) = module.resources[kind]["projector"]["template"][0]["containers"]

    ended = image.run(
        *module.value(container["args"]), RUN_LOG_PUSH_AUTH="iam", K_SERVICE="run-log-projector"
    )

    assert (2, "") == (ended.returncode, ended.stdout)
    assert "run-log: no Google Cloud credentials" in ended.stderr


@contextlib.asynccontextmanager
async def _started(command: Sequence[str], environment: Mapping[str, str]) -> AsyncGenerator[Process]:
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def _free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


async def _until_it_answers(url: str) -> None:
    async with asyncio.timeout(PATIENCE), httpx2.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if (await client.get(url)).status_code == 200:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.emulator
async def test_what_compose_starts(
    image: Image, services: dict[str, Any], emulator_environment: Mapping[str, str]
) -> None:
    """The compose file's services make the topics, project, and show three runs, as text and as a page."""
    emulators = {name: value for name, value in emulator_environment.items() if value}
    port = _free_port()
    pull = [port if word == HEALTH_PORT else word for word in services["projector"]["command"]]
    _, program = services["emit"]["entrypoint"]
    emit = image.python(REPOSITORY / "infra" / Path(program).name)
    variables = {
        name: {**services[name]["environment"], **emulators}
        for name in ("provision", "projector", "dashboard", "emit")
    }

    made = await asyncio.to_thread(image.run, *services["provision"]["command"], **variables["provision"])
    async with _started(image.command(*pull), image.environment(**variables["projector"])) as projector:
        await _until_it_answers(f"http://127.0.0.1:{port}/live")
        async with (
            _started(emit, image.environment(**variables["emit"])) as emitter,
            asyncio.timeout(PATIENCE),
        ):
            out, err = await emitter.communicate()
        shown_at = _free_port()
        dashboard = image.command(*services["dashboard"]["command"], "--port", shown_at)
        async with _started(dashboard, image.environment(**variables["dashboard"])) as page:
            await _until_it_answers(f"http://127.0.0.1:{shown_at}/")
            async with httpx2.AsyncClient() as client:
                seen = (await client.get(f"http://127.0.0.1:{shown_at}/")).text
            page.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await page.communicate()
        projector.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await projector.communicate()

    assert (0, 4) == (made.returncode, made.stdout.count("created "))
    assert (0, b"") == (emitter.returncode, err)
    shown = [line.split() for line in out.decode().splitlines()]
    assert [["invoices", "success"], ["expenses", "paused"], ["reminders", "failed"]] == [
        [workflow, status] for workflow, _, status in shown
    ]
    assert (0, 0) == (projector.returncode, page.returncode)
    assert all(workflow in seen for workflow in ("invoices", "expenses", "reminders"))
