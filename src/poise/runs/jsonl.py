"""Files of lines that a disk may refuse for a while: rows, measures and alarms get the same three tries as saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from poise.errors import DiskError
from poise.utils.files import append_line

MAX_ATTEMPTS = 3
"""How many failures in a row are survived, less one."""


class JsonLinesFile:
    """One file of lines. A line that could not be written is kept, and written before the next one.

    Args:
        path: the file.
        notify: told of the first failure.
    """

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        self.path, self.notify = path, notify
        self.waiting: list[dict[str, Any]] = []
        self.failed = 0

    def append(self, line: dict[str, Any]) -> None:
        """Write a line after those that wait.

        Raises:
            DiskError: the disk has refused three times in a row.
        """
        self.waiting.append(line)
        try:
            self.flush()
        except DiskError as error:
            self.failed += 1
            if self.failed >= MAX_ATTEMPTS:
                raise
            if self.failed == 1:
                self.notify(f"could not write to {self.path.name}, it is tried again with the next line: {error}")

    def flush(self) -> None:
        """Write what waits.

        Raises:
            DiskError: the disk refused; what is left waits on.
        """
        while self.waiting:
            append_line(self.path, self.waiting[0])
            del self.waiting[0]
            self.failed = 0

    def drop_after(self, step: int) -> None:
        """Forget the waiting lines after `step`: the run went back there."""
        self.waiting = [line for line in self.waiting if line["step"] <= step]
