from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points

import typer

from run_log.console.app import app
from run_log.console.exit_codes import ExitCode
from run_log.console.work.opening import REACH_SECONDS, TOLD_AFTER_SECONDS
from run_log.core import DeadLetterReason, Outcome, Settings
from run_log.core.logs import LeftOut
from run_log.core.settings import TEST_VARIABLES, variable
from run_log.producer._metrics import DropReason
from run_log.projector import PullLimits
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


def test_settings() -> None:
    """Every setting is listed with its variable and default, and nothing else is but the emulators."""
    rows = table(section(OPERATIONS, "## Settings"), "variable")

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
    (line,) = [line for line in OPERATIONS.splitlines() if line.startswith("Tests also read")]

    assert set(codes(line)) == TEST_VARIABLES


def test_commands() -> None:
    """Every command is listed, and nothing that is none."""
    rows = table(section(OPERATIONS, "## Commands"), "command")

    calls = [codes(row[0])[0].split(" --")[0] for row in rows]
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
    rows = table(section(OPERATIONS, "## Commands"), "exit code")

    assert [code.value for code in ExitCode] == [int(row[0]) for row in rows]


def test_how_long_a_command_waits() -> None:
    """How long a command waits for a first answer, and when it says so, are as documented."""
    said = one_line(section(OPERATIONS, "## Commands"))

    assert (3, 1) == (REACH_SECONDS, TOLD_AFTER_SECONDS)
    assert "Without an answer within 3 s it exits with 5" in said
    assert "After 1 s it says what it waits for" in said


def test_how_long_stopping_takes() -> None:
    """The time that stopping takes, as documented, is what the worker's limits add up to, with room."""
    limits = PullLimits()

    assert "within 10 s" in section(OPERATIONS, "## Commands")
    assert 10 >= limits.stop_seconds + limits.drain_seconds + limits.settle_seconds


def test_dead_letters() -> None:
    """Every attribute of a dead letter and every reason is listed."""
    rows = {codes(row[0])[0]: row[1] for row in table(section(OPERATIONS, "## Dead letters"), "attribute")}

    ours = {REASON_ATTRIBUTE, ERROR_ATTRIBUTE, MESSAGE_ID_ATTRIBUTE, LEFT_OUT_ATTRIBUTE}
    assert {*ours, PACKED_ATTRIBUTE, CUT_ATTRIBUTE} == set(rows)
    assert [reason.value for reason in DeadLetterReason] == codes(rows[REASON_ATTRIBUTE])


def test_what_pubsub_does_with_dead_letters() -> None:
    """The documented retention and number of deliveries are what provisioning asks for."""
    said = one_line(section(OPERATIONS, "## Dead letters"))

    assert 7 == RETENTION.days
    assert "keeps them for seven days" in said
    assert f"delivered {MAX_DELIVERY_ATTEMPTS} times" in said


def test_metrics() -> None:
    """Every instrument is listed with the values of its label."""
    rows = {codes(row[0])[0]: codes(row[1]) for row in table(section(OPERATIONS, "## Metrics"), "metric")}

    instruments = source_strings(
        "create_counter", "create_up_down_counter", "create_histogram", "create_observable_gauge"
    )
    assert instruments == set(rows)
    assert ["reason", *(reason.value for reason in DropReason)] == rows["run_log.emitter.dropped"]
    assert ["outcome", *(outcome.value for outcome in Outcome)] == rows["run_log.projector.events"]
    assert ["reason"] == rows["run_log.projector.dead_letters"]
    assert ["reason", *(reason.value for reason in LeftOut)] == rows["run_log.logs.left_out"]
    assert ["outcome", *(outcome.value for outcome in CommitOutcome)] == rows["run_log.store.commits"]


def test_logs() -> None:
    """Every event that is logged is listed, and no other."""
    rows = table(section(OPERATIONS, "## Logs"), "event")

    logged = source_strings("debug", "info", "warning", "error", "exception", "log")
    assert {name for name in logged if name.startswith("run_log_")} == {codes(row[0])[0] for row in rows}


def test_spans() -> None:
    """Every span is listed."""
    _, spans = section(OPERATIONS, "## Metrics").split("\nSpans:")

    assert source_strings("start_as_current_span", "span") == set(codes(spans))
