"""The store through which the ranks of one start find each other, without what is left of an earlier start.

torchrun keeps its store over restarts, so that a restarted rank would read the address of one that has died, and wait
for it. Its count of restarts does not tell them apart: each machine counts the failures of its own ranks alone.
"""

from __future__ import annotations

import time
import uuid

from torch.distributed import PrefixStore, Store

from poise.errors import RankLost

START = "poise/start"
"""The key of the name of the start whose ranks are gathering; empty once all of them have come."""

POLL = 0.05
"""The seconds between two looks at the store, between which a process can handle signals."""


def store_of_start(store: Store, rank: int, size: int, seconds: float) -> Store:
    """The part of a store that belongs to this start of all ranks. Waits for all of them.

    Rank 0 names the start, the others answer to this name, and when all have, rank 0 lets them go. A rank that has read
    the name of an earlier start gets no leave to go under it, and reads again.

    Args:
        store: the store that all ranks of all starts see.
        rank: the number of this rank.
        size: the number of ranks.
        seconds: the time after which a missing rank counts as lost.

    Raises:
        RankLost: a rank has not come in this time.
    """
    end = time.monotonic() + seconds
    if rank == 0:
        name = f"poise/{uuid.uuid4().hex}"
        store.set(START, name)
        others = [f"{name}/{other}" for other in range(1, size)]
        while not store.check(others):
            _wait(end, seconds, [other for other in range(1, size) if not store.check([f"{name}/{other}"])])
        store.set(START, "")
        store.set(f"{name}/go", "")
        return PrefixStore(name, store)
    name = ""
    while not (name and store.check([f"{name}/go"])):
        current = store.get(START).decode() if store.check([START]) else ""
        if current and current != name:
            name = current
            store.set(f"{name}/{rank}", "")
        _wait(end, seconds, [0])
    return PrefixStore(name, store)


def _wait(end: float, seconds: float, missing: list[int]) -> None:
    """Wait a moment.

    Raises:
        RankLost: the time is over; names the missing ranks.
    """
    if time.monotonic() > end:
        found = f"no answer from rank {', '.join(map(str, missing))} in {seconds:,g} seconds"
        raise RankLost("not all ranks have started", found=found, cure="start all ranks again")
    time.sleep(POLL)
