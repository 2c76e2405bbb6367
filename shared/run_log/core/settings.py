"""The settings of a deployment. No other module reads the environment for one."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from .errors import ConfigurationError
from .logs import get_logger

PREFIX: Final = "RUN_LOG_"

# Variables with the prefix that only the tests and the testing kit read.
_OF_TESTS: Final = (
    *("REQUIRE_EMULATORS", "EMULATOR_ROOT", "TRACE_FILE", "TRACE_SHARE"),
    *("TERRAFORM_CHECK", "REQUIRE_BROWSER", "CHROMIUM"),
)
TEST_VARIABLES: Final = frozenset(f"{PREFIX}{name}" for name in _OF_TESTS)

# The variables that Kubernetes sets in every pod for a Service named ``run-log`` or ``run-log-...``
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables), and Docker for a
# linked container.
_SERVICE_LINK: Final = re.compile(
    r"RUN_LOG_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?|ENV_\w+)=.*"
    r"|RUN_LOG_(?:\w+_)?PORT=(?:tcp|udp|sctp)://.*"
    r"|RUN_LOG_(?:\w+_)?NAME=/.*",
    re.DOTALL,
)

# Every reader adds up all of them, so each one costs a read.
MAX_STATS_SHARDS: Final = 500
"""The most documents over which a workflow's stats are spread: as many as one commit has runs."""

ResourceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$")]
"""A Pub/Sub resource id (https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names)."""


def _collection_id(value: str) -> str:
    if "/" in value or value in {".", ".."} or (value.startswith("__") and value.endswith("__")):
        raise ValueError(f"{value!r} is no Firestore collection id: no '/', not '.' or '..', not '__x__'")
    return value


CollectionId = Annotated[str, StringConstraints(min_length=1, max_length=375), AfterValidator(_collection_id)]
"""A Firestore collection id (https://firebase.google.com/docs/firestore/quotas#collections_documents_and_fields)."""


_logger: Final = get_logger("run_log.core")
# Unknown variables that this process has already warned of.
_told: Final[set[str]] = set()


def _names(value: object) -> object:
    if isinstance(value, str):
        return tuple(name for each in value.split(",") if (name := each.strip()))
    return value


class Settings(BaseModel):
    """What a deployment sets, each as an environment variable.

    The constructor reads the environment for each setting that it is not given. It refuses a ``RUN_LOG_*``
    variable that is nearly one of these. It ignores any other, which may belong to another program, and logs
    a warning once a process. `from_env` also turns a bad value into a `ConfigurationError` that names the
    variable.
    """

    # Not pydantic-settings: it reads no mapping but `os.environ`, and checks no names. What is left for it is
    # one line, and to import it takes longer than `runs list` takes to read a file.
    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str = "memory"
    """``RUN_LOG_BACKEND``: the back end of the run log that `create_run_log_service` makes."""
    project: str | None = None
    """``GOOGLE_CLOUD_PROJECT``: None takes the project of the credentials."""
    topic: ResourceId = "run-log-events"
    """``RUN_LOG_TOPIC``: where events are published."""
    subscription: ResourceId = "run-log-projector"
    """``RUN_LOG_SUBSCRIPTION``: where the projector pulls."""
    dead_letter_topic: ResourceId = "run-log-dead-letters"
    """``RUN_LOG_DEAD_LETTER_TOPIC``: where messages go that cannot be projected."""
    root_collection: CollectionId = "autopilot_runs"
    """``RUN_LOG_ROOT_COLLECTION``: the Firestore collection that holds the projection."""
    database: str = "(default)"
    """``RUN_LOG_DATABASE``: the Firestore database."""
    stats_shards: int = Field(default=1, ge=1, le=MAX_STATS_SHARDS)
    """``RUN_LOG_STATS_SHARDS``: the number of documents over which writes spread a workflow's stats."""
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    """``RUN_LOG_RETENTION_DAYS``: how long after its latest event an ended run expires; None for never."""
    sqlite_path: str = "run-log.sqlite3"
    """``RUN_LOG_SQLITE_PATH``: the file that holds the runs of the SQLite back end."""
    push_auth: Literal["oidc", "iam"] | None = None
    """``RUN_LOG_PUSH_AUTH``: who verifies a push: the projector itself (oidc), or the platform (iam)."""
    push_audience: str | None = None
    """``RUN_LOG_PUSH_AUDIENCE``: the audience in the subscription's push configuration."""
    push_service_account: str | None = None
    """``RUN_LOG_PUSH_SERVICE_ACCOUNT``: the e-mail address of the service account in that configuration."""
    dashboard_auth: Literal["none", "iap", "oidc", "iam"] = "none"
    """``RUN_LOG_DASHBOARD_AUTH``: who is let into the dashboard. ``none`` is this machine alone; with ``iap``
    and ``oidc`` the dashboard verifies tokens itself; with ``iam`` Cloud Run does."""
    dashboard_audience: str | None = None
    """``RUN_LOG_DASHBOARD_AUDIENCE``: whom those tokens have to be for."""
    dashboard_issuer: str = "https://accounts.google.com"
    """``RUN_LOG_DASHBOARD_ISSUER``: who signs the tokens of ``oidc``."""
    dashboard_users: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """``RUN_LOG_DASHBOARD_USERS``: who of those with a valid token is let in: e-mail addresses, and
    ``@domain`` for all of one, separated by commas; empty for everybody."""
    dashboard_read_only: bool = False
    """``RUN_LOG_DASHBOARD_READ_ONLY``: whether paused runs cannot be answered in the dashboard."""
    openlineage_auth: Literal["none", "oidc", "iam"] = "none"
    """``RUN_LOG_OPENLINEAGE_AUTH``: who may send events of OpenLineage. ``none`` is this machine alone; with
    ``oidc`` tokens of Google's are verified here; with ``iam`` Cloud Run does that."""
    openlineage_audience: str | None = None
    """``RUN_LOG_OPENLINEAGE_AUDIENCE``: whom those tokens have to be for."""
    openlineage_accounts: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """``RUN_LOG_OPENLINEAGE_ACCOUNTS``: the e-mail addresses of the accounts that may send events, separated
    by commas; empty for all whom Cloud Run lets in."""
    buffer_events: int = Field(default=10_000, ge=0)
    """``RUN_LOG_BUFFER_EVENTS``: the most events that an emitter holds while the broker is slow or away."""
    buffer_bytes: int = Field(default=32 * 2**20, ge=0)
    """``RUN_LOG_BUFFER_BYTES``: the most bytes of these events."""
    spool_dir: str | None = None
    """``RUN_LOG_SPOOL_DIR``: where undelivered events are kept for the next start; None keeps none."""
    spool_max_bytes: int = Field(default=64 * 2**20, ge=0)
    """``RUN_LOG_SPOOL_MAX_BYTES``: the most bytes that this directory takes."""
    redact_keys: str | None = None
    """``RUN_LOG_REDACT_KEYS``: names of secrets, separated by commas, besides the built-in ones; ``-name``
    removes one, ``-*`` all."""
    redact_text: bool = True
    """``RUN_LOG_REDACT_TEXT``: whether redaction also replaces secrets in texts: values, errors, reasons."""
    label_fields: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """``RUN_LOG_LABEL_FIELDS``: names of fields of a platform's own runs that become labels, separated by
    commas."""
    end_flush_seconds: float | None = Field(default=None, ge=0, le=3_600, allow_inf_nan=False)
    """``RUN_LOG_END_FLUSH_SECONDS``: how long the end of a recorded run waits for delivery. With None it
    waits in a forked process, and where the platform may stop the CPU after a response."""
    handle_sigterm: bool = True
    """``RUN_LOG_HANDLE_SIGTERM``: whether the emitter delivers on a SIGTERM that nobody else handles."""
    stderr_notice: bool = True
    """``RUN_LOG_STDERR_NOTICE``: whether a process that loses run states says so once on stderr."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any, info: ValidationInfo) -> Any:
        """Read the environment for what is not *given*; refuse misspelt variables."""
        if isinstance(given, cls):
            return given
        environ: Mapping[str, str] = os.environ if info.context is None else info.context
        _check_names(environ)
        named = {name: environ.get(variable(name)) for name in cls.model_fields}
        named["project"] = named["project"] or environ.get("GCLOUD_PROJECT")
        # Compose files and templates often leave a variable empty that is not set.
        return {name: value for name, value in named.items() if value} | given

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the variables of *environ*.

        Raises:
            ConfigurationError: A variable is misspelt or has a value that cannot be used.
        """
        try:
            return cls.model_validate({}, context=environ)
        except ValidationError as error:
            faults = "; ".join(
                f"{variable(str(fault['loc'][0]))}={fault['input']!r}: {fault['msg']}"
                for fault in error.errors(include_url=False)
            )
            raise ConfigurationError(f"a setting cannot be used: {faults}") from error


def is_cloud_run_service(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is a Cloud Run service or function, and not a job or a worker pool."""
    # https://cloud.google.com/run/docs/container-contract#env-vars
    return bool(environ.get("K_SERVICE"))


def check_collection_id(value: str) -> str:
    """Return *value* if Firestore accepts it as the id of a collection. ConfigurationError if it does not."""
    try:
        return TypeAdapter[str](CollectionId).validate_python(value)
    except ValidationError as error:
        raise ConfigurationError(f"root_collection: {error.errors()[0]['msg']}") from error


def variable(field: str) -> str:
    """Return the environment variable that sets *field*."""
    return "GOOGLE_CLOUD_PROJECT" if field == "project" else PREFIX + field.upper()


def _known_variables() -> frozenset[str]:
    return TEST_VARIABLES | {variable(name) for name in Settings.model_fields if name != "project"}


def _check_names(environ: Mapping[str, str]) -> None:
    """Refuse variables that are nearly ours, and warn of those that are unknown."""
    known = {_letters(name): name for name in sorted(_known_variables())}
    misspelt: list[str] = []
    unknown: list[str] = []
    for name in sorted(environ):
        if not _letters(name).startswith(_letters(PREFIX)) or name in known.values():
            continue
        if _SERVICE_LINK.fullmatch(f"{name}={environ[name]}"):
            continue
        meant = _meant(_letters(name), known)
        if meant is not None:
            misspelt.append(f"{name} is no setting of run-log: did you mean {meant}?")
        elif name.upper().startswith(PREFIX):
            unknown.append(name)
    if misspelt:
        raise ConfigurationError("; ".join(misspelt))
    for name in unknown:
        if name not in _told:
            _told.add(name)
            _logger.warning("run_log_unknown_variable", variable=name, hint=_hint(name))


def _letters(name: str) -> str:
    return name.upper().replace("_", "")


def _meant(letters: str, known: Mapping[str, str]) -> str | None:
    """Return the *known* variable that was meant: few letters are different, or the end is left out."""
    prefix = len(_letters(PREFIX))
    given = letters[prefix:]
    for other, name in known.items():
        wanted = other[prefix:]
        # One letter in five, so that short names do not match any other.
        if _is_near(given, wanted, max(1, len(wanted) // 5)):
            return name
        if wanted.startswith(given) and 2 * len(given) > len(wanted) and name not in TEST_VARIABLES:
            return name
    return None


def _is_near(one: str, other: str, slips: int) -> bool:
    """Return whether at most *slips* letters are missing, added, changed or swapped with their neighbour."""
    # Not difflib's ratio of equal letters: it is as high for TOPIC and PORT as for TOPIC and TPOIC.
    if one == other or slips == 0:
        return one == other
    if one[:1] == other[:1]:
        return _is_near(one[1:], other[1:], slips)
    ways = [(one[1:], other), (one, other[1:]), (one[1:], other[1:])]
    if one[1::-1] == other[:2]:
        ways.append((one[2:], other[2:]))
    return any(_is_near(*way, slips - 1) for way in ways)


def _hint(name: str) -> str:
    # Compared without the prefix, which alone would make any two variables similar.
    known = [variable.removeprefix(PREFIX) for variable in _known_variables()]
    close = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1)
    meant = f"did you mean {PREFIX}{close[0]}?" if close else "it may belong to another program"
    return f"not a setting of run-log, ignored; {meant}"
