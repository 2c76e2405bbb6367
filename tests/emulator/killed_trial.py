"""Projectors killed while they work, at full size: ``python -m tests.emulator.killed_trial --seeds 20``."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from tests.processes import started

from run_log.core import Message, RunStatus
from run_log.stores import FirestoreRunLogService
from run_log.testing import FirestoreEmulator, PubSubEmulator

from .projector_kit import Workload, ended, projecting
from .pubsub_kit import RawPubSub

RUNS: Final = 1_800
"""Of three events each."""
POISON: Final = [Message(data=b"no event %d" % number) for number in range(8)]
ROUNDS: Final = 4
SOON: Final = 120.0
"""Seconds after the last kill in which all has to be exact."""

_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one."""

    seed: int
    published: int
    exact_after: float | None
    """Seconds from the last kill until runs, stats and dead letters were right; None for never."""
    codes: tuple[int | None, ...]
    """With which the last projectors ended by themselves."""
    is_exact: bool
    """Whether all was right when they had ended."""
    letters: int
    """Dead letters, with those that were kept again."""

    @property
    def is_right(self) -> bool:
        """Whether all that is promised was held."""
        soon = self.exact_after is not None and self.exact_after <= SOON
        return soon and self.is_exact and not any(self.codes)


async def try_killing(seed: int, *, runs: int = RUNS, rounds: int = ROUNDS) -> Trial:
    """Publish *runs* with poison among them, kill two projectors in each round, then let two work to the end.

    Args:
        seed: Of all that is left to chance.
        runs: How many.
        rounds: How many.
    """
    chance = random.Random(seed)
    raw = RawPubSub.provisioned()
    load = Workload(runs, steps=(RunStatus.RUNNING, RunStatus.PAUSED), seed=seed)
    published = raw.publish(POISON[::2])
    published += load.publish(raw, load.events, repeats=1 / 3)
    published += raw.publish(POISON[1::2])
    for _ in range(rounds):
        await asyncio.gather(_killed(chance.uniform(2, 4)), _killed(chance.uniform(2, 4)))
    killed_at = time.monotonic()
    store = FirestoreRunLogService.from_env()
    letters: Counter[bytes] = Counter()
    exact_after: float | None = None
    options = ("projector", "pull", "--until-idle", "70")
    async with started(*options) as first, started(*options) as second:
        ending = asyncio.gather(ended(first, within=600), ended(second, within=600))
        while not ending.done():
            await asyncio.wait({ending}, timeout=_LOOK_SECONDS)
            if exact_after is None and await is_exact(raw, load, store, letters):
                exact_after = time.monotonic() - killed_at
        ends = await ending
    was_exact = await is_exact(raw, load, store, letters)
    await store.close()
    return Trial(
        seed=seed,
        published=len(published),
        exact_after=exact_after,
        codes=tuple(end.code for end in ends),
        is_exact=was_exact,
        letters=letters.total(),
    )


async def _killed(seconds: float) -> None:
    async with projecting() as process:
        await asyncio.sleep(seconds)
        process.kill()
        await process.communicate()


async def is_exact(
    raw: RawPubSub, load: Workload, store: FirestoreRunLogService, letters: Counter[bytes]
) -> bool:
    """Return whether every run, the stats and the dead letters are those of a fold of what was published."""
    letters.update(await asyncio.to_thread(_letters, raw))
    if not await load.is_done(store) or set(letters) != {message.data for message in POISON}:
        return False
    try:
        await load.verify(store)
    except AssertionError:
        return False
    return True


def _letters(raw: RawPubSub) -> list[bytes]:
    """Take the dead letters that are there now."""
    path = raw.connection.subscription_path(raw.settings.dead_letter_topic)
    with raw.connection.subscriber() as subscriber:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # discouraged, but exactly the question
            request = {"subscription": path, "max_messages": 100, "return_immediately": True}
            found = subscriber.pull(request=request, timeout=30).received_messages
        if found:
            subscriber.acknowledge(subscription=path, ack_ids=[item.ack_id for item in found])
    return [item.message.data for item in found]


def main() -> int:
    """Try as many seeds as asked for, each on emulators of its own; return 1 unless all were right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    asked: Any = parser.parse_args()
    right = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        with FirestoreEmulator() as firestore, PubSubEmulator() as pubsub:
            os.environ.update({**firestore.environment, **pubsub.environment})
            os.environ["GOOGLE_CLOUD_PROJECT"] = f"killed-{seed}"
            trial = asyncio.run(try_killing(seed))
        for emulator in (firestore, pubsub):
            del os.environ[emulator.host_variable]
        right += trial.is_right
        sys.stdout.write(f"{'right' if trial.is_right else 'WRONG'} {trial}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{right} of {asked.seeds} right\n")
    return int(right < asked.seeds)


if __name__ == "__main__":
    sys.exit(main())
