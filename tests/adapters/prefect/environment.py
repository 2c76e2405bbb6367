"""What Prefect, and a server of its own in the same process, are told."""

from __future__ import annotations

from pathlib import Path

from tests.ports import unused_port


def environ_in(folder: Path) -> dict[str, str]:
    """Return the variables that keep runs, and Prefect's server, in *folder*."""
    return {
        "RUN_LOG_BACKEND": "sqlite",
        "RUN_LOG_SQLITE_PATH": str(folder / "runs"),
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{unused_port()}/api",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # What the server would spend its start on.
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",  # the program makes the tables
        "DO_NOT_TRACK": "1",
    }
