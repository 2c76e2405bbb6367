from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from typing import Any, cast

import hcl2
import pytest
from tests.unit.infra.command_line import options
from tests.unit.infra.terraform_module import TerraformModule

from .repository import REPOSITORY, codes, read

DEPLOY = read("docs/deploy.md")
EXAMPLE = "infra/terraform/examples/basic"
PROJECT = tomllib.loads(read("pyproject.toml"))["project"]

_BLOCKS = re.findall(r"^```sh\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL)
_COMMANDS = [line for block in _BLOCKS for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def module() -> TerraformModule:
    """Return the module, parsed once."""
    return TerraformModule()


def _example() -> dict[str, dict[str, Any]]:
    """Return the example's variables, its outputs and the arguments of the module in it, by kind and name."""
    loads = cast("Callable[..., dict[str, Any]]", hcl2.loads)  # pyright: ignore[reportUnknownMemberType]
    parsed = loads(read(f"{EXAMPLE}/main.tf"))
    return {
        kind: {name.strip('"'): value for block in parsed[kind] for name, value in block.items()}
        for kind in ("variable", "output", "module")
    }


def _calls(program: str) -> list[list[str]]:
    """Return the arguments of each call of *program* on the page."""
    return [
        shlex.split(line.partition("|")[0])[1:]
        for line in (command.strip() for command in _COMMANDS)
        if line.startswith(f"{program} ")
    ]


def _set() -> dict[str, str]:
    """Return the module's arguments that the page says to set."""
    blocks = re.findall(r"^```hcl\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^(\w+) += (\S+)$", "".join(blocks), re.MULTILINE))


@pytest.mark.process
def test_the_commands_are_shell() -> None:
    """The shell can read every block of commands."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("bash is not on PATH")

    for block in _BLOCKS:
        read_it = subprocess.run(  # noqa: S603 - reads our own document, and runs nothing
            [shell, "-n", "-c", block], capture_output=True, text=True, check=False, timeout=60
        )
        assert (0, "") == (read_it.returncode, read_it.stderr)


def test_every_command_of_ours() -> None:
    """The command line takes each call of `run-log` as it stands."""
    calls = _calls(".venv/bin/run-log")

    assert ["doctor", "--probe", "60"] in calls
    for arguments in calls:
        assert options(arguments)


def test_terraform_is_given_what_the_example_takes() -> None:
    """Each apply and destroy gives the example's variables, all of them and no other."""
    calls = [call for call in _calls("terraform") if {"apply", "destroy"} & set(call)]

    given = [{value.partition("=")[0] for value in call if "=" in value[1:]} - {"-chdir"} for call in calls]
    assert [set(_example()["variable"])] * len(given) == given
    assert {"apply", "destroy"} == {call[1] for call in calls}
    assert {f"-chdir={EXAMPLE}"} == {call[0] for call in _calls("terraform")}


def test_what_is_read_from_terraform() -> None:
    """The outputs that become an environment are the example's own."""
    (outputs,) = re.findall(r"^for output in (.+); do$", "".join(_BLOCKS), re.MULTILINE)

    assert set(outputs.split()) == set(_example()["output"])


def test_what_is_set_in_the_example(module: TerraformModule) -> None:
    """What the page says to set are the module's variables, which the example does not set yet."""
    said = _set()

    assert said
    assert set(said) <= set(module.variables) - set(_example()["module"]["run_log"])
    assert said["projector_mode"].strip('"') in module.variables["projector_mode"]["description"]


def test_the_names(module: TerraformModule) -> None:
    """Every name with an underscore is a variable or an output of the module or of the example."""
    example = _example()
    named = {
        word for code in codes(DEPLOY) for word in code.split() if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)
    }

    assert named
    assert set() == named - set(module.variables) - module.outputs - set(example["variable"])
    assert "database_location" in example["module"]["run_log"]
    assert "`eur3`" in DEPLOY
    assert example["module"]["run_log"]["database_location"].strip('"') == "eur3"


def test_what_is_taken_away_is_what_was_made(module: TerraformModule) -> None:
    """Bucket, database and account have the names that the module gives them."""
    name = module.value("${var.name}")
    account = module.attribute("google_service_account", "producer", "account_id")

    assert f"gs://$PROJECT-{name}-archive/**" in DEPLOY
    assert '"${var.project_id}-${var.name}-archive"' in module.text
    assert f"--database={module.value('${var.database_name}')}" in DEPLOY
    assert f"{account}@PROJECT.iam.gserviceaccount.com" in codes(DEPLOY)


def test_files_and_versions() -> None:
    """Each file that a command names is there; image, Python and Terraform are of the versions that count."""
    (build,) = [call for call in _calls("docker") if call[0] == "build"]
    dockerfile = REPOSITORY / build[build.index("--file") + 1]

    assert dockerfile.is_file()
    assert (REPOSITORY / "tools" / "bootstrap").is_file()
    assert f"run-log:{PROJECT['version']}" in DEPLOY
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in DEPLOY
    (terraform,) = re.findall(r'required_version = ">= ([\d.]+)"', read(f"{EXAMPLE}/main.tf"))
    assert f"({terraform} or later)" in DEPLOY


def test_what_may_be_installed() -> None:
    """Each extra that the page names is one there is."""
    extras = set(re.findall(r"extra `(\w+)`", DEPLOY))

    assert {"producer", "stores"} <= extras <= set(PROJECT["optional-dependencies"])
