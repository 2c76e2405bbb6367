"""Celery's broker in a folder, which needs no server, for several processes at once."""

from __future__ import annotations

import json
import time
import uuid
from importlib import import_module
from pathlib import Path
from typing import Any

filesystem: Any = import_module("kombu.transport.filesystem")


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu is not there where this is checked
    """Kombu's, but a message is there as a whole or not at all: kombu's readers may see half of one."""

    def _put(self, queue: str, payload: Any, **_: object) -> None:
        name = f"{time.monotonic_ns()}_{uuid.uuid4()}.{queue}.msg"
        begun = Path(self.control_folder, name)
        begun.write_text(json.dumps(payload, default=str))
        begun.rename(Path(self.data_folder_out, name))


class Transport(filesystem.Transport):  # type: ignore[misc]  # see above
    """The transport of these channels."""

    Channel = Channel
