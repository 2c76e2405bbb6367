"""Documents of the service that run-log began from, in a root collection of Firestore."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from run_log.core import ConfigurationError, Settings
from run_log.core.settings import check_collection_id

from .errors import LeftOut
from .found import Found

OWN: Final = "run-log itself wrote it (run-log rebuild --from root:... copies such runs)"


async def root_runs(settings: Settings, name: str, assumed: Counter[str]) -> AsyncGenerator[Sequence[Found]]:
    """Yield the documents of the root collection *name*, page by page, as `rebuild` reads them.

    What is assumed to read them is counted in *assumed*.

    Raises:
        ConfigurationError: *name* is no collection, or the one that is written to.
        NotFoundError: The root collection does not exist, or is empty.
        StoreUnavailableError: Firestore does not answer.
    """
    from run_log.stores.firestore import FirestoreRoot  # noqa: PLC0415 - Google's library is an extra

    check_collection_id(name)
    if settings.backend != "sqlite" and name == settings.root_collection:
        raise ConfigurationError(
            f"{name} is the live root collection (RUN_LOG_ROOT_COLLECTION): set it to another one, or copy "
            f"this one with `run-log rebuild --from root:{name} --into NEW`"
        )
    root = FirestoreRoot.from_settings(settings, name)
    try:
        await root.now()
        after: str | None = ""
        while after is not None:
            page = await root.page(after)
            after = page.after
            assumed.update(page.assumed)
            found = [
                # Only what run-log wrote has a history.
                Found(place="/".join(run.event.key), what=LeftOut(OWN) if run.history else run.event)
                for run in page.runs
            ]
            found += [
                Found(place=place, what=LeftOut("it is no run", str(each.error)), record=each.body)
                for place, each in page.unreadable.items()
            ]
            yield found
    finally:
        await root.close()
