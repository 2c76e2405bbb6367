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
    """Return the module, parsed once."""
    return TerraformModule()


@pytest.fixture(scope="module")
def example() -> dict[str, dict[str, Any]]:
    """Return the example's variables, its outputs and the arguments of the module in it, by kind and name."""
    loads = cast("Callable[..., dict[str, Any]]", hcl2.loads)  # pyright: ignore[reportUnknownMemberType]
    parsed = loads(read(f"{EXAMPLE}/main.tf"))
    return {
        kind: {name.strip('"'): value for block in parsed[kind] for name, value in block.items()}
        for kind in ("variable", "output", "module")
    }


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

    read_it = subprocess.run(  # noqa: S603 - reads our own document, and runs nothing
        [shell, "-n", "-c", COMMANDS], capture_output=True, text=True, check=False, timeout=60
    )

    assert (0, "") == (read_it.returncode, read_it.stderr)


def test_every_command_of_ours() -> None:
    """The command line takes each call of `run-log` as it stands."""
    calls = _calls(".venv/bin/run-log")

    assert ["doctor", "--probe", "60"] in calls
    for arguments in calls:
        assert options(arguments)


def test_what_terraform_gets_and_gives(example: dict[str, dict[str, Any]]) -> None:
    """Each apply and destroy sets all of the example's variables and no other; its outputs are read."""
    calls = [call for call in _calls("terraform") if {"apply", "destroy"} & set(call)]
    (outputs,) = re.findall(r"^for output in (.+); do$", COMMANDS, re.MULTILINE)

    given = [{value.partition("=")[0] for value in call if "=" in value[1:]} - {"-chdir"} for call in calls]
    assert [set(example["variable"])] * len(given) == given
    assert {"apply", "destroy"} == {call[1] for call in calls}
    assert {f"-chdir={EXAMPLE}"} == {call[0] for call in _calls("terraform")}
    assert set(outputs.split()) == set(example["output"])


def test_the_names(module: TerraformModule, example: dict[str, dict[str, Any]]) -> None:
    """Each name with an underscore is the module's or the example's, and the example does not set it yet."""
    said = dict(re.findall(r"^(\w+) += (\S+)$", "".join(blocks(DEPLOY, "hcl")), re.MULTILINE))
    words = {word for code in codes(DEPLOY) for word in code.split()}
    named = {word for word in words if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)}
    given = example["module"]["run_log"]

    assert said
    assert set(said) <= set(module.variables) - set(given)
    assert said["projector_mode"].strip('"') in module.variables["projector_mode"]["description"]
    assert named
    assert named <= set(module.variables) | module.outputs | set(example["variable"])
    assert {"eur3", "database_location"} <= words
    assert given["database_location"].strip('"') == "eur3"


def test_what_is_deleted_is_what_was_created(module: TerraformModule) -> None:
    """Bucket, database and account have the names that the module gives them."""
    name = module.value("${var.name}")
    account = module.attribute("google_service_account", "producer", "account_id")

    assert f"gs://$PROJECT-{name}-archive/**" in DEPLOY
    assert '"${var.project_id}-${var.name}-archive"' in module.text
    assert f"--database={module.value('${var.database_name}')}" in DEPLOY
    assert f"{account}@PROJECT.iam.gserviceaccount.com" in codes(DEPLOY)


def test_files_and_versions() -> None:
    """Files, versions of the image, Python and Terraform, and extras that the page names exist."""
    (build,) = [call for call in _calls("docker") if call[0] == "build"]
    (terraform,) = re.findall(r'required_version = ">= ([\d.]+)"', read(f"{EXAMPLE}/main.tf"))

    assert (REPOSITORY / build[build.index("--file") + 1]).is_file()
    assert (REPOSITORY / "tools" / "bootstrap").is_file()
    assert f"run-log:{PROJECT['version']}" in DEPLOY
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in DEPLOY
    assert f"({terraform} or later)" in DEPLOY
    extras = set(re.findall(r"extra `(\w+)`", DEPLOY))
    assert {"producer", "stores"} <= extras <= set(PROJECT["optional-dependencies"])
