"""Starts the worker: commands on stdin, replies on stdout. See `worker.py`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

from poise.errors import PoiseError, Stopped
from poise.playground.commands import COMMANDS, parse_arguments
from poise.playground.worker import Received, Worker
from poise.utils.printing import print_error

GRACE = 10.0
"""The seconds that a step may still take after stdin was closed, before the process ends without saving."""


class CommandReader:
    """Reads commands in a thread, so that those that come during a step are not waited for.

    Args:
        lines: the lines of stdin.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._received: SimpleQueue[Received | None] = SimpleQueue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def get(self, seconds: float | None) -> Received | None:
        """See `worker.GetCommand`."""
        try:
            received = self._received.get(timeout=seconds) if seconds != 0 else self._received.get_nowait()
        except Empty:
            return None
        if received is None:
            raise EOFError
        return received

    def _read(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            try:
                self._received.put(parse_line(line))
            except PoiseError as error:  # the server checks what it sends
                print_error(f"playground: {error}")
        self._received.put(None)
        time.sleep(GRACE)
        os._exit(1)


def parse_line(line: bytes) -> Received:
    """The command of a line.

    Raises:
        PoiseError: it is none.
    """
    try:
        content: dict[str, Any] = json.loads(line)
        name, arguments = str(content["command"]), json.dumps(content["arguments"]).encode()
        if name not in COMMANDS:
            raise KeyError(name)
    except (ValueError, KeyError, TypeError):
        raise PoiseError("not a command", where="stdin") from None
    return Received(name, parse_arguments(name, arguments))


def main() -> None:
    """Play until stdin is closed."""
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="ascii")
    os.dup2(2, 1)  # whatever a library prints is no reply
    torch.set_num_threads(1)  # these networks are too small to be shared by threads

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content, allow_nan=False) + "\n")

    with suppress(EOFError, Stopped, BrokenPipeError):
        Worker(Path(sys.argv[1]), CommandReader(sys.stdin.buffer).get, reply).run()


if __name__ == "__main__":
    main()
