"""How Firestore is set up, as far as queries cannot tell."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final

from google.cloud.firestore_admin_v1 import FirestoreAdminClient

from run_log.stores._documents import EXPIRE_AT

from ._connection import RPC_TIMEOUT_SECONDS, RUNS, VENDOR_ERRORS, Connection

_NOWHERE: Final = "run-log-doctor"


async def server_time(connection: Connection, root_collection: str) -> datetime:
    """Return the time by Firestore's clock, at which it answered a read.

    Raises:
        StoreUnavailableError: It does not answer.
        ConfigurationError: It is not there, or does not let us in.
    """
    reference = connection.client().collection(root_collection).document(_NOWHERE)
    try:
        snapshot: Any = await reference.get(retry=None, timeout=RPC_TIMEOUT_SECONDS)
    except VENDOR_ERRORS as error:
        raise connection.error(error) from error
    moment: datetime = snapshot.read_time
    return moment


async def ttl_is_active(connection: Connection) -> bool:
    """Return whether Firestore deletes runs that have expired; its emulator never does.

    Raises:
        StoreUnavailableError: It does not answer.
        ConfigurationError: It does not let us see, for which it wants roles/datastore.indexAdmin or a viewer.
    """
    return await asyncio.to_thread(_ttl_is_active, connection)


def _ttl_is_active(connection: Connection) -> bool:
    name = (
        f"projects/{connection.project}/databases/{connection.database}/collectionGroups/{RUNS}"
        f"/fields/{EXPIRE_AT}"
    )
    admin: Any = FirestoreAdminClient(credentials=connection.credentials)
    with admin:
        try:
            field: Any = admin.get_field(name=name, retry=None, timeout=RPC_TIMEOUT_SECONDS)
        except VENDOR_ERRORS as error:
            raise connection.error(error) from error
    return bool(field.ttl_config.state.name == "ACTIVE")
