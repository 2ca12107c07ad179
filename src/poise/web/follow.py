"""Reads `rows.jsonl` while it grows: at once to a good approximation, then completely, then what is new.

A file of millions of rows takes minutes to read. So a large one is first read at a thousand evenly spaced offsets,
which gives curves at once, and then from the beginning in a thread that rests as long as it works.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from poise.web.cards import RunEntry
from poise.web.files import open_below
from poise.web.series import RowSeries

LARGE = 8 * 1024**2
"""A file of which more than so many bytes are unread is not read within a request."""

CHUNK = 512 * 1024
MAX_LINE = 1024**2
"""A longer line is skipped."""

SAMPLES = 1_000
MAX_FOLLOWED = 32
"""The largest number of runs whose series are kept in memory."""

MARK = 64
"""The bytes before the offset that are compared, so that a file that was replaced in place is noticed."""


class RowFollower:
    """The series of one run's rows.

    Args:
        root: the runs directory.
        parts: the folders from it to the run.
    """

    def __init__(self, root: Path, parts: tuple[str, ...]) -> None:
        self.root, self.parts = root, parts
        self.closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._restart(None)

    def names(self) -> list[str]:
        """The names of the series."""
        with self._lock:
            return sorted(self._current().metrics)

    def view(self, names: list[str], start: float, end: float, points: int) -> dict[str, Any]:
        """The answer to `/api/runs/{id}/series`; see `RowSeries.view`.

        Returns:
            The series, the steps of the first and last row, the number of rows, whether all rows have been read
            (otherwise the series consist of samples), and the generation, which is another one after rows that were
            read have been deleted or replaced, as when the run went back to an earlier step.
        """
        with self._lock:
            series = self._current()
            about = {"first": series.first, "last": series.last, "rows": series.rows, "complete": self._thread is None}
            return about | {"generation": self._generation, "series": series.view(names, start, end, points)}

    def _current(self) -> RowSeries:
        """The series as the file is now."""
        if self._thread is None:
            if self._unread() <= LARGE:
                while self._read_chunk():
                    pass
            else:
                self._sampled = self._sample() if self._offset == 0 else None
                self._thread = threading.Thread(target=self._read_all, daemon=True)
                self._thread.start()
        return self._series if self._sampled is None else self._sampled

    def _read_all(self) -> None:
        more = True
        while more and not self.closed:
            begun = time.monotonic()
            with self._lock:
                more = self._read_chunk()
                if not more:
                    self._sampled, self._thread = None, None
            time.sleep(time.monotonic() - begun)

    def _restart(self, inode: int | None) -> None:
        self._inode, self._offset, self._mark = inode, 0, b""
        self._rest, self._skipping = b"", False
        self._series = RowSeries()
        self._sampled: RowSeries | None = None
        self._generation = secrets.token_hex(8)

    def _unread(self) -> int:
        """The number of bytes to read. A file that is another or shorter than before is read from its beginning."""
        try:
            with self._open() as stream:
                self._check(stream)
                return os.fstat(stream.fileno()).st_size - self._offset
        except OSError:
            self._restart(None)
            return 0

    def _check(self, stream: BinaryIO) -> None:
        status = os.fstat(stream.fileno())
        stream.seek(max(0, self._offset - len(self._mark)))
        same = status.st_ino == self._inode and stream.read(len(self._mark)) == self._mark
        if not same:
            self._restart(status.st_ino)

    def _open(self) -> BinaryIO:
        return open_below(self.root, *self.parts, "rows.jsonl")

    def _read_chunk(self) -> bool:
        """Read on; returns whether there may be more."""
        try:
            with self._open() as stream:
                self._check(stream)
                stream.seek(self._offset)
                chunk = stream.read(CHUNK)
        except OSError:
            self._restart(None)
            return False
        self._offset += len(chunk)
        self._mark = (self._mark + chunk)[-MARK:]
        self._take(chunk)
        return len(chunk) == CHUNK

    def _take(self, chunk: bytes) -> None:
        """Add whole lines; the rest waits for its end."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif line:
                self._series.add_line(line)
        if len(rest) > MAX_LINE:
            rest, self._skipping = b"", True
        self._rest = rest

    def _sample(self) -> RowSeries:
        """Rows at evenly spaced offsets: the first, and one after each line break that follows an offset; the last."""
        series = RowSeries()
        try:
            with self._open() as stream:
                size = os.fstat(stream.fileno()).st_size
                for number in range(SAMPLES):
                    stream.seek(size * number // SAMPLES)
                    if number:
                        stream.readline(MAX_LINE)
                    series.add_line(stream.readline(MAX_LINE))
                stream.seek(max(0, size - MAX_LINE // 16))
                for line in stream.read().split(b"\n")[1:]:
                    series.add_line(line)
        except OSError:
            pass
        return series


class SeriesStore:
    """The series of the runs that were asked for last.

    Args:
        root: the runs directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._followed: OrderedDict[str, RowFollower] = OrderedDict()

    def of(self, entry: RunEntry) -> RowFollower:
        """The series of a run; those of the run that was not asked for longest are forgotten if there are too many."""
        with self._lock:
            follower = self._followed.pop(entry.id, None) or RowFollower(self.root, entry.parts)
            self._followed[entry.id] = follower
            while len(self._followed) > MAX_FOLLOWED:
                self._followed.popitem(last=False)[1].closed = True
            return follower
