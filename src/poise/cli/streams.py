"""stdout and stderr whose reader may go away: a closed terminal or pipe never ends a command."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO, errno.ESHUTDOWN, errno.ECONNRESET, errno.ENXIO, errno.EBADF)
"""What a system says of a pipe, a terminal or a socket that nobody reads any more."""


class LenientStream:
    """A text stream that drops what can't be written any more.

    Args:
        stream: written to; None where there is none, as under pythonw.
        all_errors: whether every failure is forgiven, or only that the reader is gone; a full disk then still raises.
    """

    def __init__(self, stream: TextIO | None, *, all_errors: bool) -> None:
        self._stream = io.StringIO() if stream is None else stream
        self._all_errors = all_errors
        self.gone = stream is None

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        if not isinstance(text, str):
            raise TypeError("a text stream takes str")
        self._attempt(self._stream.write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write all lines, or drop them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, or drop what was waiting."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, method: Any, *arguments: Any) -> None:
        if self.gone:
            return
        try:
            method(*arguments)
        except UnicodeError:  # one line that this stream has no letters for; the next may do
            if not self._all_errors:
                raise
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            if not (self._all_errors or isinstance(error, ValueError) or error.errno in GONE):
                raise
            self.gone = True


@contextmanager
def lenient_streams(*, ours: bool) -> Iterator[None]:
    """Let stdout forgive a reader that is gone, and stderr everything, as long as this is open.

    Args:
        ours: whether the process is the command line's own: then missing file descriptors are filled too, so that no
            file that is opened later gets the number of stderr, and nothing is said of the streams at the very end.
    """
    if ours:
        _fill_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = LenientStream(before[0], all_errors=False), LenientStream(before[1], all_errors=True)  # type: ignore[assignment]
    try:
        yield
    finally:
        wrapped, (sys.stdout, sys.stderr) = (sys.stdout, sys.stderr), before
        if ours:
            _mute(wrapped)


def _fill_descriptors() -> None:
    """Point 0, 1 and 2 at nothing where they are closed."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)


def _mute(streams: tuple[Any, ...]) -> None:
    """Point the streams that are gone at nothing: Python flushes them once more at its end, and would complain."""
    for number, stream in enumerate(streams, 1):
        if isinstance(stream, LenientStream):
            try:
                stream.flush()
            except OSError:  # it was told already, and would be told again
                stream.gone = True
            if stream.gone:
                with suppress(OSError):
                    nothing = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nothing, number)
                    os.close(nothing)
