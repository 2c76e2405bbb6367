from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from run_log.core import ConfigurationError, Settings, variable

FIELDS = [
    "backend",
    "project",
    "topic",
    "subscription",
    "dead_letter_topic",
    "root_collection",
    "database",
    "sqlite_path",
]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Every setting has its environment variable."""
    monkeypatch.setenv(variable(field), "some-value")

    assert getattr(Settings.from_env(), field) == "some-value"


@pytest.mark.parametrize("field", FIELDS)
def test_an_empty_variable_is_not_set(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable set to nothing leaves the default, as shells and manifests often do."""
    monkeypatch.setenv(variable(field), "")

    assert Settings() == Settings.from_env()


def test_the_environment_given_is_the_only_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an environment given, the process's own does not matter: neither its values nor its mistakes."""
    monkeypatch.setenv("RUN_LOG_TOPIC", "of-the-process")
    monkeypatch.setenv("RUN_LOG_TOPC", "misspelt")
    settings = Settings.from_env({"RUN_LOG_DATABASE": "given"})

    assert (settings.topic, settings.database) == ("run-log-events", "given")


def test_the_constructor_fills_in_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings made by hand are what they are given, then what the environment says."""
    monkeypatch.setenv("RUN_LOG_TOPIC", "of-the-process")
    monkeypatch.setenv("RUN_LOG_BACKEND", "of-the-process")
    settings = Settings(backend="firestore")

    assert ("firestore", "of-the-process") == (settings.backend, settings.topic)


def test_the_constructor_refuses_a_misspelt_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """However settings are made, a misspelt variable is an error."""
    monkeypatch.setenv("RUN_LOG_TOPC", "x")

    with pytest.raises(ConfigurationError, match="did you mean RUN_LOG_TOPIC"):
        Settings()


def test_googles_older_project_variable_is_read() -> None:
    """The project comes from GOOGLE_CLOUD_PROJECT, else from GCLOUD_PROJECT."""
    older = {"GCLOUD_PROJECT": "older"}

    assert Settings.from_env(older).project == "older"
    assert Settings.from_env({**older, "GOOGLE_CLOUD_PROJECT": "newer"}).project == "newer"
    assert Settings.from_env({**older, "GOOGLE_CLOUD_PROJECT": ""}).project == "older"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RUN_LOG_TOPC", "did you mean RUN_LOG_TOPIC?"),
        ("RUN_LOG_BACK_END", "did you mean RUN_LOG_BACKEND?"),
        ("run_log_topic", "did you mean RUN_LOG_TOPIC?"),
        ("RUN_LOG_XYZZY_PLUGH", "the known ones are RUN_LOG_BACKEND, "),
    ],
)
def test_a_misspelt_variable_is_refused(name: str, hint: str) -> None:
    """A variable with our prefix that means nothing is an error with a suggestion, never ignored."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({name: "x"})

    assert f"{name} is no setting of run-log: " in str(caught.value)
    assert hint in str(caught.value)


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
    """A value that Google would refuse later is refused at the start, with variable and value named."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({variable(field): value})

    assert f"{variable(field)}={value!r}: " in str(caught.value)


def test_several_bad_values_are_told_at_once() -> None:
    """One error lists every variable at fault."""
    with pytest.raises(ConfigurationError, match=r"(?s)RUN_LOG_TOPIC.*RUN_LOG_ROOT_COLLECTION"):
        Settings.from_env({"RUN_LOG_TOPIC": "!", "RUN_LOG_ROOT_COLLECTION": "a/b"})


def test_settings_do_not_change() -> None:
    """Settings are read once and then fixed."""
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.topic = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

    assert settings.topic == "run-log-events"


def test_the_variable_of_a_setting() -> None:
    """Messages name a setting as the variable its operator sets."""
    assert variable("dead_letter_topic") == "RUN_LOG_DEAD_LETTER_TOPIC"
    assert variable("project") == "GOOGLE_CLOUD_PROJECT"
