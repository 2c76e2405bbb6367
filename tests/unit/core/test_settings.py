from __future__ import annotations

import os

import pytest

from run_log.core import ConfigurationError, Settings
from run_log.core.settings import variable

FIELDS = ["backend", "project", "topic", "subscription", "dead_letter_topic", "root_collection", "database"]


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("run_log.core.settings._told", set[str]())
    for name in os.environ:
        if name.startswith("RUN_LOG_") or name in {"GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"}:
            monkeypatch.delenv(name)


def test_the_defaults_are_the_contract() -> None:
    """Nothing set means an embedded memory log and these names."""
    settings = Settings.from_env({})

    assert (settings.backend, settings.project, settings.database) == ("memory", None, "(default)")
    assert (settings.topic, settings.subscription) == ("run-log-events", "run-log-projector")
    assert settings.dead_letter_topic == "run-log-dead-letters"
    assert settings.root_collection == "autopilot_runs"


@pytest.mark.parametrize("field", FIELDS)
def test_each_variable_of_the_process_is_read(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting has its environment variable. One that is set to nothing leaves the default."""
    monkeypatch.setenv(variable(field), "")
    assert Settings() == Settings.from_env() == Settings.from_env({})

    monkeypatch.setenv(variable(field), "some-value")
    assert getattr(Settings.from_env(), field) == "some-value"


def test_the_environment_given_is_the_only_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an environment given, the process's own does not matter: neither its values nor its mistakes."""
    monkeypatch.setenv("RUN_LOG_TOPIC", "of-the-process")
    monkeypatch.setenv("RUN_LOG_TOPC", "misspelt")
    settings = Settings.from_env({"RUN_LOG_DATABASE": "given"})

    assert (settings.topic, settings.database) == ("run-log-events", "given")


def test_the_constructor_fills_in_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings made by hand are what they are given, then what the environment says, without its mistakes."""
    monkeypatch.setenv("RUN_LOG_TOPIC", "of-the-process")
    monkeypatch.setenv("RUN_LOG_BACKEND", "of-the-process")
    settings = Settings(backend="firestore")

    assert ("firestore", "of-the-process") == (settings.backend, settings.topic)

    monkeypatch.setenv("RUN_LOG_TOPC", "x")
    with pytest.raises(ConfigurationError, match="did you mean RUN_LOG_TOPIC"):
        Settings()


def test_settings_that_are_made_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model of somebody else holds settings, they are those that it was given."""
    settings = Settings(topic="of-the-deployment")
    monkeypatch.setenv("RUN_LOG_DATABASE", "of-later")

    assert settings == Settings.model_validate(settings)


def test_googles_older_project_variable_is_read() -> None:
    """The project comes from GOOGLE_CLOUD_PROJECT, else from GCLOUD_PROJECT."""
    older = {"GCLOUD_PROJECT": "older"}

    assert Settings.from_env(older).project == "older"
    assert Settings.from_env({**older, "GOOGLE_CLOUD_PROJECT": "newer"}).project == "newer"
    assert Settings.from_env({**older, "GOOGLE_CLOUD_PROJECT": ""}).project == "older"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((name, "RUN_LOG_TOPIC") for name in ("RUN_LOG_TOPC", "RUN_LOG_TPOIC", "run_log_topic")),
        ("RUN_LOG_BACK_END", "RUN_LOG_BACKEND"),
        ("RUN_LOG_BACKEN", "RUN_LOG_BACKEND"),
        ("RUNLOG_BACKEND", "RUN_LOG_BACKEND"),
        ("RUN_LOG_SQLLITE_PATH", "RUN_LOG_SQLITE_PATH"),
        ("RUN_LOG_ROOT_COLLECTOIN", "RUN_LOG_ROOT_COLLECTION"),
        ("RUN_LOG_SUBSCRPTOIN", "RUN_LOG_SUBSCRIPTION"),
        ("RUN_LOG_DEADLETTERTOPIC", "RUN_LOG_DEAD_LETTER_TOPIC"),
        ("RUN_LOG_REDACT_KEY", "RUN_LOG_REDACT_KEYS"),
        ("RUN_LOG_PUSH_AUHT", "RUN_LOG_PUSH_AUTH"),
        ("RUN_LOG_RETENTION", "RUN_LOG_RETENTION_DAYS"),
        ("RUN_LOG_REDACT", "RUN_LOG_REDACT_KEYS"),
        ("RUN_LOG_SPOOL", "RUN_LOG_SPOOL_DIR"),
    ],
)
def test_a_misspelt_variable_is_refused(name: str, meant: str) -> None:
    """A variable that is nearly one of ours is an error that says which was meant, never ignored."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({name: "x"})

    assert f"{name} is no setting of run-log: did you mean {meant}?" == str(caught.value)


@pytest.mark.parametrize("field", [name for name in Settings.model_fields if name != "project"])
def test_any_slip_of_the_hand_is_refused(field: str) -> None:
    """Whichever letter of a setting is missing, doubled, or swapped with its neighbour, it is an error."""
    name = variable(field).removeprefix("RUN_LOG_")
    slips = {
        slip
        for at, letter in enumerate(name)
        for slip in (
            name[:at] + name[at + 1 :],
            name[:at] + letter + name[at:],
            name[:at] + name[at + 1 : at + 2] + letter + name[at + 2 :],
        )
        if slip != name
    }

    passed = [slip for slip in slips if not _is_refused(f"RUN_LOG_{slip}")]
    assert [] == passed


def _is_refused(name: str) -> bool:
    try:
        Settings.from_env({name: "x"})
    except ConfigurationError:
        return True
    return False


@pytest.mark.parametrize(
    "name",
    [
        *("LEVEL", "PORT", "DEBUG", "FORMAT", "DIR", "FILE", "HOME", "VERSION", "HOST", "URL", "PATH"),
        *("NAME", "ENV", "CONFIG", "TIMEOUT", "TOKEN", "DATA", "DATABASE_URL", "DB", "BACKUP", "MAX_BYTES"),
        *("TRACE", "KEY", "MODE", "TYPE", "BUCKET", "QUEUE", "BATCH_SIZE", "TOPIC_PREFIX", "XYZZY_PLUGH"),
    ],
)
def test_a_variable_of_others_is_told_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A variable that is nobody's we know changes nothing, and is a warning in the log, once a process."""
    read = [Settings.from_env({f"RUN_LOG_{name}": "s3cret"}) for _ in range(2)]

    assert [Settings.from_env({})] * 2 == read
    (text,) = [record.getMessage() for record in caplog.records]
    assert text.startswith(
        f"run_log_unknown_variable variable='RUN_LOG_{name}' hint='not a setting of run-log"
    )
    assert "s3cret" not in text


def test_a_warning_says_what_may_have_been_meant(caplog: pytest.LogCaptureFixture) -> None:
    """What is too far from a setting to be an error is still told with the nearest one."""
    Settings.from_env({"RUN_LOG_COLLECTION": "runs"})

    assert "did you mean RUN_LOG_ROOT_COLLECTION?" in caplog.records[0].getMessage()


def _service_links(service: str) -> dict[str, str]:
    """Return what Kubernetes, and Docker before it, puts into the environment for *service*."""
    alias = service.upper().replace("-", "_")
    links = {
        f"{alias}_SERVICE_HOST": "10.0.0.11",
        f"{alias}_SERVICE_PORT": "80",
        f"{alias}_SERVICE_PORT_HTTP": "80",
        f"{alias}_SERVICE_PORT_GRPC_WEB": "81",
        f"{alias}_PORT": "tcp://10.0.0.11:80",
        f"{alias}_NAME": "/web/db",
        f"{alias}_ENV_PASSWORD": "s3cret",
    }
    for protocol in ("tcp", "udp", "sctp"):
        port = f"{alias}_PORT_80_{protocol.upper()}"
        links |= {port: f"{protocol}://10.0.0.11:80", f"{port}_ADDR": "10.0.0.11"}
        links |= {f"{port}_PORT": "80", f"{port}_PROTO": protocol}
    return links


@pytest.mark.parametrize(
    "service",
    ["run-log", "run-log-topic", "run-log-backend-x", "run-log-2", "run-log-service", "run-log-port"],
)
def test_service_links_are_passed_over(service: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a Service or a linked container of our name puts into the environment changes and says nothing."""
    assert Settings.from_env({}) == Settings.from_env(_service_links(service))
    assert [] == caplog.records


def test_variables_of_the_tests_are_known() -> None:
    """What only the testing kit reads is no mistake."""
    assert Settings() == Settings.from_env({"RUN_LOG_REQUIRE_EMULATORS": "1"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("topic", "ab"),
        ("topic", "1starts-with-a-digit"),
        ("topic", "projects/p/topics/t"),
        ("subscription", "has space"),
        ("dead_letter_topic", "x" * 256),
        ("root_collection", "a/b"),
        ("root_collection", "."),
        ("root_collection", "__reserved__"),
    ],
)
def test_a_bad_value_is_refused_with_its_variable(field: str, value: str) -> None:
    """A value that Google would refuse later is refused at the start, each with its variable and value."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({variable(field): value, "RUN_LOG_STATS_SHARDS": "0"})

    assert f"{variable(field)}={value!r}: " in str(caught.value)
    assert "RUN_LOG_STATS_SHARDS='0': " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"), [("", ()), ("tenant", ("tenant",)), (" tenant , team,", ("tenant", "team"))]
)
def test_label_fields_are_separated_by_commas(text: str, names: tuple[str, ...]) -> None:
    """Names may have spaces around them, and none is none."""
    assert names == Settings.from_env({"RUN_LOG_LABEL_FIELDS": text}).label_fields
