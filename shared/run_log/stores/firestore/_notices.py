"""Notices in Firestore: ``{root}_notices/{kind}/notices/{key}``, beside the root collection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from run_log.core.ids import document_id
from run_log.stores.notices import Notice, NoticeKind
from run_log.stores.stored.fields import EXPIRE_AT
from run_log.stores.stored.reading import is_expired

from ._documents import Write, set_fields
from .client import Connection, Patience, fields_of

NOTICES: Final = "notices"
"""The collection of the notices of one kind. One name for all roots: the TTL policy is of that."""

# Of 3 kB each at most: far from the 10 MB that a commit may have.
_MOST_WRITES: Final = 400


class FirestoreNotices:
    """The notices beside a root collection."""

    def __init__(self, connection: Connection, root_collection: str, patience: Patience) -> None:
        self._connection = connection
        self._collection = f"{root_collection}_{NOTICES}"
        self._patience = patience

    async def put(self, kind: NoticeKind, notices: Sequence[Notice]) -> None:
        """Keep *notices*; see `NoticeStore.put_notices`."""
        await self._commit([self._putting(kind, notice) for notice in notices])

    async def remove(self, kind: NoticeKind, keys: Iterable[str]) -> None:
        """Remove notices; see `NoticeStore.remove_notices`."""
        await self._commit([Write(delete=self._name(kind, key)) for key in keys])

    async def read(self, kind: NoticeKind, most: int, now: datetime) -> list[Any]:
        """Read the texts of notices; see `StoredRuns.read_notices`."""
        kinds = self._connection.client().collection(self._collection)
        notices = kinds.document(kind.value).collection(NOTICES)
        # By the index that Firestore has of each field unless it is told otherwise.
        query = notices.order_by("at", direction="DESCENDING").limit(most)
        found = [
            fields_of(document.fields)
            for document in await self._patience.run(partial(self._connection.query, query))
        ]
        # A time that something else wrote is no reason to hide what is said.
        return [
            fields.get("text")
            for fields in found
            if not isinstance(end := fields.get(EXPIRE_AT), datetime) or not is_expired(end, now)
        ]

    async def _commit(self, writes: Sequence[Any]) -> None:
        for start in range(0, len(writes), _MOST_WRITES):
            part = writes[start : start + _MOST_WRITES]
            await self._patience.run(partial(self._connection.commit, part))

    def _putting(self, kind: NoticeKind, notice: Notice) -> Any:
        write = Write()
        write.update.name = self._name(kind, notice.key)
        fields = {"at": notice.at, EXPIRE_AT: notice.expires_at, "text": notice.text}
        set_fields(write.update.fields, {name: value for name, value in fields.items() if value is not None})
        return write

    def _name(self, kind: NoticeKind, key: str) -> str:
        root = self._connection.documents_name
        return f"{root}/{self._collection}/{kind.value}/{NOTICES}/{document_id(key)}"
