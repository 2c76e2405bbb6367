"""The Terraform module against the code: what one names, the other means."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.docs.repository import codes, read, section, source_strings, table
from tests.warehouse import COLUMNS, sources, views

from run_log.core import Settings
from run_log.core.settings import MAX_STATS_SHARDS
from run_log.pubsub._provision import (
    ACK_DEADLINE,
    MAX_DELIVERY_ATTEMPTS,
    RETENTION,
)
from run_log.stores.firestore._documents import STATS_SHARDS
from run_log.stores.firestore._notices import NOTICES
from run_log.stores.firestore.client import RUNS
from run_log.stores.stored.fields import EXPIRE_AT

from .command_line import SETTINGS, health_paths, options
from .terraform_module import FOLDER, REPOSITORY, TerraformModule

INDEXES = REPOSITORY / "infra" / "firestore.indexes.json"
CHECK = "RUN_LOG_TERRAFORM_CHECK"


@pytest.fixture(scope="module")
def module() -> TerraformModule:
    """Return the module, parsed once."""
    return TerraformModule()


def _seconds(duration: timedelta) -> str:
    return f"{int(duration.total_seconds())}s"


def _default(field: str) -> Any:
    return Settings.model_fields[field].default


def test_names(module: TerraformModule) -> None:
    """With the module's defaults everything has the names that run-log has as defaults."""
    assert _default("topic") == module.attribute("google_pubsub_topic", "events", "name")
    assert _default("dead_letter_topic") == module.attribute("google_pubsub_topic", "dead_letters", "name")
    assert _default("subscription") == module.attribute("google_pubsub_subscription", "projector", "name")
    assert _default("root_collection") == module.value("${var.root_collection}")
    assert _default("stats_shards") == module.value("${var.stats_shards}")
    assert f"var.stats_shards <= {MAX_STATS_SHARDS}" in module.text


def test_subscriptions(module: TerraformModule) -> None:
    """The subscriptions are those that `run-log provision` makes."""
    for name in ("projector", "dead_letters"):
        subscription = module.resources["google_pubsub_subscription"][name]
        *_, lease = str(subscription["ack_deadline_seconds"]).strip("${}").split()
        assert int(ACK_DEADLINE.total_seconds()) == int(lease)
        assert _seconds(RETENTION) == subscription["message_retention_duration"]
    for name in ("projector", "dead_letters", "archive"):
        assert [{"ttl": ""}] == module.resources["google_pubsub_subscription"][name]["expiration_policy"]
    projector = module.resources["google_pubsub_subscription"]["projector"]
    assert "retry_policy" not in projector
    assert [
        {
            "dead_letter_topic": "${google_pubsub_topic.dead_letters.id}",
            "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS,
        }
    ] == projector["dead_letter_policy"]
    assert _default("dead_letter_topic") == module.attribute(
        "google_pubsub_subscription", "dead_letters", "name"
    )


def test_a_push_is_waited_for_as_long_as_it_may_take(module: TerraformModule) -> None:
    """Cloud Run gives a push as long as Pub/Sub waits for its answer."""
    timeout = module.attribute("google_cloud_run_v2_service", "projector", "template", "timeout")

    waited = module.resources["google_pubsub_subscription"]["projector"]["ack_deadline_seconds"]
    assert f"local.is_push ? {timeout.removesuffix('s')} : " in waited


def test_settings(module: TerraformModule) -> None:
    """Every variable that the module sets is a setting, and the projector is given all that are its own."""
    named = set(re.findall(r"\b(?:RUN_LOG|GOOGLE_CLOUD|FIRESTORE|PUBSUB)_[A-Z_]+\b", module.text))
    named = {name for name in named if name != "FIRESTORE_NATIVE"}

    assert named <= SETTINGS
    written: str = module.local("projector_environment")
    assert {
        "GOOGLE_CLOUD_PROJECT",
        "RUN_LOG_SUBSCRIPTION",
        "RUN_LOG_DEAD_LETTER_TOPIC",
        "RUN_LOG_DATABASE",
        "RUN_LOG_ROOT_COLLECTION",
        "RUN_LOG_STATS_SHARDS",
        "RUN_LOG_RETENTION_DAYS",
        "RUN_LOG_PUSH_AUTH",
    } == set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", written))
    shown: str = module.local("dashboard_environment")
    of_dashboard = {name for name in SETTINGS if name.startswith("RUN_LOG_DASHBOARD_")}
    # The issuer is that of oidc; who is let in is a matter of IAP's.
    optional = {"RUN_LOG_DASHBOARD_ISSUER", "RUN_LOG_DASHBOARD_USERS"}
    assert of_dashboard - optional == set(re.findall(r"\bRUN_LOG_DASHBOARD_[A-Z_]+\b", shown))


def test_a_retention_outlives_what_may_be_replayed(module: TerraformModule) -> None:
    """Runs are kept for longer than dead letters are."""
    (validation,) = module.variables["run_retention_days"]["validation"]

    assert f"var.run_retention_days > {RETENTION.days}" in validation["condition"]


def test_indexes(module: TerraformModule) -> None:
    """The module makes the indexes and exemptions that firestore.indexes.json lists, and no others."""
    deployed = json.loads(INDEXES.read_text(encoding="utf-8"))

    assert RUNS == module.local("runs")
    assert [
        (
            index["queryScope"],
            [[field["fieldPath"], field.get("order") or field["arrayConfig"]] for field in index["fields"]],
        )
        for index in deployed["indexes"]
    ] == [(index["query_scope"], index["fields"]) for index in module.local("composite_indexes")]
    overrides = [one for one in deployed["fieldOverrides"] if not one.get("ttl")]
    assert {one["collectionGroup"] for one in overrides if one["fieldPath"] == "*"} == set(
        module.local("unindexed_collections")
    )
    assert {_default("root_collection"), STATS_SHARDS, RUNS} == set(module.local("unindexed_collections"))
    assert {
        one["fieldPath"]: [[index["queryScope"], index["order"]] for index in one["indexes"]]
        for one in overrides
        if one["fieldPath"] != "*"
    } == module.local("single_field_indexes")


def test_what_expires(module: TerraformModule) -> None:
    """Firestore deletes runs and notices by the field that says when they expire, which is in no index."""
    for field, collection in (("ttl", RUNS), ("notices_ttl", NOTICES)):
        assert (collection, EXPIRE_AT) == tuple(
            module.attribute("google_firestore_field", field, name) for name in ("collection", "field")
        )
        assert [{}] == module.resources["google_firestore_field"][field]["index_config"]
    assert 2 == module.text.count("ttl_config {")


def test_commands_and_ports(module: TerraformModule) -> None:
    """What the containers are started with is what the command line takes; probes ask where it answers."""
    kinds = {"google_cloud_run_v2_worker_pool": "pull", "google_cloud_run_v2_service": "push"}
    containers = {
        mode: module.resources[kind]["projector"]["template"][0]["containers"][0]
        for kind, mode in kinds.items()
    }
    pull = options(module.value(containers["pull"]["args"]))
    push = options(module.value(containers["push"]["args"]))

    port = module.local("health_port")
    assert ("0.0.0.0", port) == (pull["health_host"], pull["health_port"])  # noqa: S104 - a container's
    assert ("0.0.0.0", port) == (push["host"], push["port"])  # noqa: S104
    assert [{"container_port": port}] == module.value(containers["push"]["ports"])
    shown = module.resources["google_cloud_run_v2_service"]["dashboard"]["template"][0]["containers"][0]
    assert "0.0.0.0" == options(module.value(shown["args"]))["host"]  # noqa: S104
    assert [{"container_port": port}] == module.value(shown["ports"])
    assert [{"port": port}] == module.value(shown["startup_probe"])[0]["tcp_socket"]
    for container in containers.values():
        for probe in ("startup_probe", "liveness_probe"):
            (asked,) = module.value(container[probe])[0]["http_get"]
            assert port == asked["port"]
            assert asked["path"] in health_paths()


def test_who_may_what(module: TerraformModule) -> None:
    """Exactly the grants that the module's README lists are made, each of a role and none on the project."""
    kinds = [kind for kind in module.resources if kind.endswith("_iam_member")]
    granted = sorted(
        role for kind in kinds for one in module.resources[kind].values() if "/" in (role := one["role"])
    )
    rows = table(section(read("infra/terraform/README.md"), "## Who may what"), "account")
    listed = sorted(role for row in rows for role in codes(row[1]) if role.startswith("roles/"))

    assert listed == granted
    for one in module.resources["google_project_iam_member"].values():
        assert one["condition"], "a role on the whole project"
    (writer,) = module.resources["google_project_iam_custom_role"].values()
    (row,) = [row for row in rows if "storage.objects.create" in row[1]]
    assert codes(row[1]) == writer["permissions"]


def test_alerts(module: TerraformModule) -> None:
    """Each alert is in the operations document, which says what to do, and no other is."""
    rows = table(section(read("docs/operations.md"), "## Alerts"), "alert")

    made = module.resources["google_monitoring_alert_policy"].values()
    assert {f"run-log: {codes(row[0])[0]}" for row in rows} == {
        module.value(one["display_name"]) for one in made
    }
    assert all(one["notification_channels"] == "${var.notification_channels}" for one in made)


def test_what_the_documents_name(module: TerraformModule) -> None:
    """The names in the module's README and among the alerts are variables, outputs or logged events."""
    alerts = section(read("docs/operations.md"), "## Alerts")
    words = [word for code in codes(read("infra/terraform/README.md") + alerts) for word in code.split()]

    named = {word for word in words if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)}
    logged = source_strings("warning", "error")
    assert set() == named - set(module.variables) - module.outputs - logged - {EXPIRE_AT}
    assert named & set(module.variables)
    assert named & logged


def test_the_log_that_is_counted(module: TerraformModule) -> None:
    """The event whose lines are counted by reason is one that the projector logs."""
    written = module.attribute("google_logging_metric", "dead_letters", "filter")
    (event,) = re.findall(r"jsonPayload\.message=\\?\"(\w+)", written)

    assert event in source_strings("warning")


@pytest.mark.process
def test_the_formatting() -> None:
    """Every file of the module is formatted as Terraform has it."""
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not on PATH")

    done = subprocess.run(  # noqa: S603 - only compares
        [terraform, "fmt", "-check", "-recursive", "-no-color", FOLDER],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (0, "") == (done.returncode, done.stdout)


@pytest.mark.process
def test_the_module_does_what_its_own_tests_say() -> None:
    """The module and its example are valid, and its tests pass against a mock of the provider."""
    if not os.environ.get(CHECK) or shutil.which("terraform") is None:
        pytest.skip(f"{CHECK} names no program that checks a module offline, or terraform is not on PATH")

    done = subprocess.run(  # noqa: S603 - our own script
        [REPOSITORY / "tools" / "terraform-check"], capture_output=True, text=True, check=False, timeout=110
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed, 0 failed", done.stdout)


def test_the_warehouse(module: TerraformModule) -> None:
    """The table has the columns that the views are tested with. A view comes after those it is made of."""
    columns = re.findall(r'\{ name = "(\w+)", type = "(\w+)", mode = "NULLABLE" \}', module.text)
    layers = module.local("warehouse_views")

    assert [name for name, _ in columns] == list(COLUMNS)
    assert views().keys() == layers.keys()
    for name, text in views().items():
        assert all(layers[source] < layers[name] for source in sources(text) - {"messages"})
    subscription = module.resources["google_pubsub_subscription"]["warehouse"]
    assert [{"ttl": ""}] == subscription["expiration_policy"]
    assert "dead_letter_policy" not in subscription
