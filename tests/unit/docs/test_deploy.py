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

from .repository import REPOSITORY, blocks, codes, read

DEPLOY = read("docs/deploy.md")
EXAMPLE = "infra/terraform/examples/basic"
PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
COMMANDS = "".join(blocks(DEPLOY, "sh"))


@pytest.fixture(scope="module")
def module() -> TerraformModule:
    """Return the module that the page applies."""
    return TerraformModule()


def _example(kind: str) -> dict[str, Any]:
    """Return the example's blocks of a kind, by name."""
    loads = cast("Callable[..., dict[str, Any]]", hcl2.loads)  # pyright: ignore[reportUnknownMemberType]
    written = loads(read(f"{EXAMPLE}/main.tf"))[kind]
    return {name.strip('"'): value for block in written for name, value in block.items()}


def _calls(program: str) -> list[list[str]]:
    """Return the arguments of each call of *program* on the page."""
    lines = [line.strip() for line in COMMANDS.replace("\\\n", " ").splitlines()]
    return [shlex.split(line.partition("|")[0])[1:] for line in lines if line.startswith(f"{program} ")]


@pytest.mark.process
def test_the_commands_are_shell() -> None:
    """The shell can read every command."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("bash is not on PATH")

    subprocess.run([shell, "-n", "-c", COMMANDS], check=True, timeout=60)  # noqa: S603 - it only reads them


def test_every_command_of_ours() -> None:
    """The command line takes each call of `run-log` as it stands."""
    calls = _calls(".venv/bin/run-log")

    assert ["doctor", "--probe", "60"] in calls
    assert all(options(arguments) for arguments in calls)


def test_what_terraform_gets_and_gives() -> None:
    """Each apply and destroy sets all of the example's variables and no other; its outputs are read."""
    calls = [call for call in _calls("terraform") if {"apply", "destroy"} & set(call)]
    (outputs,) = re.findall(r"^for output in (.+); do$", COMMANDS, re.MULTILINE)

    for call in calls:
        given = {value.partition("=")[0] for value in call if "=" in value[1:]}
        assert {*_example("variable"), "-chdir"} == given
    assert {"apply", "destroy"} == {call[1] for call in calls}
    assert {f"-chdir={EXAMPLE}"} == {call[0] for call in _calls("terraform")}
    shown = set(re.findall(r"output (\w+)`", DEPLOY))
    assert {*outputs.split(), *shown} == set(_example("output"))


def test_the_names(module: TerraformModule) -> None:
    """Each name with an underscore is the module's or the example's, and the example does not set it yet."""
    said = dict(re.findall(r"^(\w+) += (\S+)$", "".join(blocks(DEPLOY, "hcl")), re.MULTILINE))
    words = {word for code in codes(DEPLOY) for word in code.split()}
    given = _example("module")["run_log"]

    assert {"projector_mode", "deletion_protection"} <= set(said) <= set(module.variables) - set(given)
    assert said["projector_mode"].strip('"') in module.variables["projector_mode"]["description"]
    named = {word for word in words if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)}
    assert "database_location" in named <= {*module.variables, *module.outputs, *_example("variable")}
    assert given["database_location"].strip('"') == "eur3"
    assert "eur3" in words


def test_what_is_deleted_is_what_was_created(module: TerraformModule) -> None:
    """Bucket, database and account have the names that the module gives them."""
    account = module.attribute("google_service_account", "producer", "account_id")

    assert f"gs://$PROJECT-{module.value('${var.name}')}-archive/**" in DEPLOY
    assert '"${var.project_id}-${var.name}-archive"' in module.text
    assert f"--database={module.value('${var.database_name}')}" in DEPLOY
    assert f"{account}@PROJECT.iam.gserviceaccount.com" in codes(DEPLOY)


def test_files_and_versions() -> None:
    """Files, versions of the image, Python and Terraform, and extras that the page names exist."""
    (build,) = [call for call in _calls("docker") if call[0] == "build"]
    (terraform,) = re.findall(r'required_version = ">= ([\d.]+)"', read(f"{EXAMPLE}/main.tf"))
    extras = set(re.findall(r"extra `(\w+)`", DEPLOY))

    assert (REPOSITORY / build[build.index("--file") + 1]).is_file()
    assert (REPOSITORY / "tools" / "bootstrap").is_file()
    assert f"run-log:{PROJECT['version']}" in DEPLOY
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in DEPLOY
    assert f"({terraform} or later)" in DEPLOY
    assert {"producer", "stores"} <= extras <= set(PROJECT["optional-dependencies"])
