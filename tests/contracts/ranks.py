"""Starts the processes of several ranks without torchrun, which would take the time of another import of torch."""

from __future__ import annotations

import os
import socket


def free_port() -> int:
    """A port of this machine that nothing uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def rank_environment(rank: int, size: int, port: int, **more: str) -> dict[str, str]:
    """The environment that torchrun gives to a rank."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, ["tests", os.environ.get("PYTHONPATH")]))}
    return os.environ | paths | {"MASTER_ADDR": "127.0.0.1"} | {k: str(n) for k, n in numbers.items()} | more
