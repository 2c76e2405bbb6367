from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
import typer

from run_log.console.app import app
from run_log.console.exit_codes import ExitCode
from run_log.console.work.opening import REACH_SECONDS, TOLD_AFTER_SECONDS
from run_log.core import DeadLetterReason, Outcome, Settings
from run_log.core.logs import LeftOut
from run_log.core.settings import TEST_VARIABLES, variable
from run_log.producer import DropReason
from run_log.projector import GroupLimits, PullLimits
from run_log.projector.dead_letters.letters import (
    CUT_ATTRIBUTE,
    ERROR_ATTRIBUTE,
    LEFT_OUT_ATTRIBUTE,
    MESSAGE_ID_ATTRIBUTE,
    PACKED_ATTRIBUTE,
    REASON_ATTRIBUTE,
)
from run_log.pubsub._provision import MAX_DELIVERY_ATTEMPTS, RETENTION
from run_log.stores.committing.commits import CommitOutcome

from .repository import codes, one_line, read, section, source_strings, table

OPERATIONS = read("docs/operations.md")
LOGGED = {
    "Errors": source_strings("error", "exception", "log"),
    "Warnings": source_strings("warning", "log"),
    "Info": source_strings("info", "debug"),
}


def test_settings() -> None:
    """Every setting is listed with its variable and default, and nothing else is but the emulators."""
    rows = table(OPERATIONS, "variable")

    listed = {name: codes(row[1]) for row in rows for name in codes(row[0])}
    emulators: dict[str, list[str]] = {"FIRESTORE_EMULATOR_HOST": [], "PUBSUB_EMULATOR_HOST": []}
    settings = {
        variable(name): [_shown(field.default)] if field.default is not None else []
        for name, field in Settings.model_fields.items()
    }
    assert {**settings, **emulators} == listed


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_back_ends() -> None:
    """The backend setting lists every registered back end."""
    (row,) = [row for row in table(OPERATIONS, "variable") if codes(row[0]) == ["RUN_LOG_BACKEND"]]

    registered = {entry.name for entry in entry_points(group="run_log.backends")}
    assert registered == set(codes(row[2])) - {"create_run_log_service"}


def test_variables_of_tests() -> None:
    """The variables that only tests read are listed."""
    _, said = one_line(OPERATIONS).split(" Tests also read ")

    assert set(codes(said.split(". ")[0])) == TEST_VARIABLES


def test_commands() -> None:
    """Every command is listed, and nothing that is none."""
    calls = [codes(row[0])[0].split(" --")[0] for row in table(OPERATIONS, "command")]

    listed = {" ".join(word for word in call.split() if word.islower()) for call in calls}
    assert set(_commands("run-log", app)) == listed


def _commands(path: str, group: typer.Typer) -> Iterator[str]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name or command.callback.__name__}"
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(f"{path} {inner.name}", inner.typer_instance)


def test_exit_codes() -> None:
    """Every exit code is listed."""
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

    ours = {REASON_ATTRIBUTE, ERROR_ATTRIBUTE, MESSAGE_ID_ATTRIBUTE, LEFT_OUT_ATTRIBUTE}
    assert {*ours, PACKED_ATTRIBUTE, CUT_ATTRIBUTE} == {
        codes(row[0])[0] for row in table(OPERATIONS, "attribute")
    }
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


@pytest.mark.parametrize(("level", "logged"), LOGGED.items())
def test_the_logs_of_a_level(level: str, logged: set[str]) -> None:
    """Each event that is listed under a level is logged with that level."""
    listed = re.split(r"^(Errors|Warnings|Info)\.", section(OPERATIONS, "## Logs"), flags=re.MULTILINE)

    assert {codes(row[0])[0] for row in table(listed[listed.index(level) + 1], "event")} <= logged


def test_logs() -> None:
    """Every event that is logged is listed once, and no other."""
    listed = [codes(row[0])[0] for row in table(section(OPERATIONS, "## Logs"), "event")]

    logged: set[str] = set().union(*LOGGED.values())
    assert sorted(name for name in logged if name.startswith("run_log_")) == sorted(listed)
