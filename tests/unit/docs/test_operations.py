from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Any

import typer

from run_log.console.app import app
from run_log.console.exit_codes import ExitCode
from run_log.console.work.opening import REACH_SECONDS, TOLD_AFTER_SECONDS
from run_log.core import DeadLetterReason, Outcome, Settings
from run_log.core.logs import LeftOut
from run_log.core.settings import TEST_VARIABLES, variable
from run_log.producer._metrics import DropReason
from run_log.projector import GroupLimits, PullLimits
from run_log.projector.dead_letters import letters
from run_log.pubsub._provision import MAX_DELIVERY_ATTEMPTS, RETENTION
from run_log.stores.committing.commits import CommitOutcome

from .repository import codes, one_line, read, section, source_strings, table

OPERATIONS = read("docs/operations.md")


def test_settings() -> None:
    """Every setting is listed with its default, and so are the other variables and the back ends."""
    rows = table(OPERATIONS, "variable")
    _, of_tests = one_line(OPERATIONS).split(" Tests also read ")

    defaults = {variable(name): field.default for name, field in Settings.model_fields.items()}
    shown = {
        name: [] if value in (None, ()) else [str(value).lower() if isinstance(value, bool) else str(value)]
        for name, value in defaults.items()
    }
    emulators: dict[str, list[str]] = {"FIRESTORE_EMULATOR_HOST": [], "PUBSUB_EMULATOR_HOST": []}
    assert {**shown, **emulators} == {name: codes(row[1]) for row in rows for name in codes(row[0])}
    assert set(codes(of_tests.split(". ")[0])) == TEST_VARIABLES
    back_ends = {entry.name for entry in entry_points(group="run_log.backends")}
    assert {*back_ends, "create_run_log_service"} == set(codes(rows[0][2]))


def _commands(path: str, command: Any) -> list[str]:
    if not hasattr(command, "commands"):
        return [path]
    return [one for name, inner in command.commands.items() for one in _commands(f"{path} {name}", inner)]


def test_commands() -> None:
    """Every command and every exit code is listed, and nothing that is none."""
    calls = [codes(row[0])[0].split(" --")[0] for row in table(OPERATIONS, "command")]

    listed = {" ".join(word for word in call.split() if word.islower()) for call in calls}
    assert set(_commands("run-log", typer.main.get_command(app))) == listed
    assert [code.value for code in ExitCode] == [int(row[0]) for row in table(OPERATIONS, "exit code")]


def test_times() -> None:
    """How long a command waits for an answer, and how long stopping takes, are as documented."""
    said, limits = one_line(section(OPERATIONS, "## Commands")), PullLimits()

    assert f"Without an answer within {REACH_SECONDS:g} s it exits with 5" in said
    assert f"After {TOLD_AFTER_SECONDS:g} s it says what it waits for" in said
    assert 10 >= limits.stop_seconds + limits.drain_seconds + limits.settle_seconds
    assert "within 10 s of a SIGTERM" in said


def test_dead_letters() -> None:
    """Every attribute and reason of a dead letter is listed; deliveries and retention are as provisioned."""
    said = one_line(section(OPERATIONS, "## Dead letters"))

    ours = {value for name, value in vars(letters).items() if re.fullmatch(r"[A-Z]\w+_ATTRIBUTE", name)}
    assert ours == {codes(row[0])[0] for row in table(OPERATIONS, "attribute")}
    reasons = [codes(row[0])[0] for row in table(OPERATIONS, "reason")]
    assert {*(reason.value for reason in DeadLetterReason), "unknown"} == set(reasons)
    assert RETENTION.days == 7
    assert "keeps them for seven days" in said
    assert f"delivered {MAX_DELIVERY_ATTEMPTS} times" in said
    assert f"delivered {GroupLimits().deliveries} times" in said


def test_metrics() -> None:
    """Every instrument is listed with the values of its label, and every span."""
    rows = {codes(row[0])[0]: codes(row[1]) for row in table(OPERATIONS, "metric")}
    _, spans = section(OPERATIONS, "## Metrics").split("\nSpans:")

    instruments = source_strings(
        "create_counter", "create_up_down_counter", "create_histogram", "create_observable_gauge"
    )
    assert instruments == set(rows)
    assert ["reason", *DropReason] == rows["run_log.emitter.dropped"]
    assert ["outcome", *Outcome] == rows["run_log.projector.events"]
    assert ["reason"] == rows["run_log.projector.dead_letters"]
    assert ["reason", *LeftOut] == rows["run_log.logs.left_out"]
    assert ["outcome", *CommitOutcome] == rows["run_log.store.commits"]
    assert source_strings("start_as_current_span", "span") == set(codes(spans))


def test_logs() -> None:
    """Every event that is logged is listed once, under a level that it is logged with, and no other."""
    errors = source_strings("error", "exception", "log")
    warnings = source_strings("warning", "log")
    infos = source_strings("info", "debug")

    parts = re.split(r"^### .+$", section(OPERATIONS, "## Logs"), flags=re.MULTILINE)
    levels = [[codes(row[0])[0] for row in table(part, "event")] for part in parts[1:]]
    for listed, logged in zip(levels, (errors, warnings, infos), strict=True):
        assert set(listed) <= logged
    every = {name for name in errors | warnings | infos if name.startswith("run_log_")}
    assert sorted(every) == sorted(event for listed in levels for event in listed)
