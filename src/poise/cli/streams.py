"""stdout and stderr that survive their reader: a closed terminal or pipe does not end a command."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

READER_GONE = (errno.EPIPE, errno.EIO, errno.ESHUTDOWN, errno.ECONNRESET, errno.ENXIO, errno.EBADF)
"""The error numbers of a pipe, a terminal or a socket whose reader is gone."""


class LenientStream:
    """A text stream that drops what can no longer be written.

    Args:
        stream: the stream to write to; None if there is none, as under pythonw.
        all_errors: whether every error is ignored, or only that the reader is gone, so that a full disk still raises.
    """

    def __init__(self, stream: TextIO | None, *, all_errors: bool) -> None:
        self._stream = io.StringIO() if stream is None else stream
        self._all_errors = all_errors
        self.gone = stream is None

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        if not isinstance(text, str):
            raise TypeError("a text stream takes str")
        self._attempt(self._stream.write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write the lines, or drop them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream, or drop its buffer."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, method: Any, *arguments: Any) -> None:
        if self.gone:
            return
        try:
            method(*arguments)
        except UnicodeError:  # this line can't be encoded; the next one may be
            if not self._all_errors:
                raise
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            if not (self._all_errors or isinstance(error, ValueError) or error.errno in READER_GONE):
                raise
            self.gone = True


@contextmanager
def lenient_streams(*, own_process: bool) -> Iterator[None]:
    """In the block, let stdout ignore that its reader is gone, and stderr ignore all errors.

    Args:
        own_process: whether the process belongs to the command line alone. If so, closed standard file descriptors are
            opened, so that no file opened later gets the number of stderr, and Python's final flush of the streams is
            silenced.
    """
    if own_process:
        _fill_descriptors()
    original = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = LenientStream(original[0], all_errors=False), LenientStream(original[1], all_errors=True)  # type: ignore[assignment]
    try:
        yield
    finally:
        wrapped, (sys.stdout, sys.stderr) = (sys.stdout, sys.stderr), original
        if own_process:
            _mute(wrapped)


def _fill_descriptors() -> None:
    """Open the null device for each of the descriptors 0, 1 and 2 that is closed."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)


def _mute(streams: tuple[Any, ...]) -> None:
    """Redirect the streams that are gone to the null device: Python flushes them again at exit and would complain."""
    for number, stream in enumerate(streams, 1):
        if isinstance(stream, LenientStream):
            try:
                stream.flush()
            except OSError:  # reported already; the flush at exit would report it again
                stream.gone = True
            if stream.gone:
                with suppress(OSError):
                    null = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(null, number)
                    os.close(null)
