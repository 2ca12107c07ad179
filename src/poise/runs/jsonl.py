"""JSON Lines files that survive short disk failures: like checkpoints, rows, measures and alarms get three attempts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from poise.errors import DiskError
from poise.utils.files import append_line

MAX_ATTEMPTS = 3
"""The number of failures in a row that end a run."""


class JsonLinesFile:
    """One JSON Lines file. A line that could not be written is kept, and written before the next one.

    Args:
        path: the file.
        notify: called with a message at the first failure.
    """

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        self.path, self.notify = path, notify
        self.pending: list[dict[str, Any]] = []
        self.failures = 0

    def append(self, line: dict[str, Any]) -> None:
        """Write a line after the pending ones.

        Raises:
            DiskError: the disk has refused three times in a row.
        """
        self.pending.append(line)
        try:
            self.flush()
        except DiskError as error:
            self.failures += 1
            if self.failures >= MAX_ATTEMPTS:
                raise
            if self.failures == 1:
                self.notify(f"could not write to {self.path.name}, which is tried again with the next line: {error}")

    def flush(self) -> None:
        """Write the pending lines.

        Raises:
            DiskError: the disk refused; the rest stays pending.
        """
        while self.pending:
            append_line(self.path, self.pending[0])
            del self.pending[0]
            self.failures = 0

    def drop_after(self, step: int) -> None:
        """Discard the pending lines after `step`, after a rollback."""
        self.pending = [line for line in self.pending if line["step"] <= step]
