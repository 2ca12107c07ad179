"""The errors that a user can meet: one class per exit code, one line per error.

Every error says what is wrong, where (a file, a key), what was found and how to fix it. The command line prints that
line and exits with the class's `exit_code`; library users catch `PoiseError`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from poise.utils.printing import one_line


class PoiseError(Exception):
    """The base class of all errors that poise raises on purpose.

    Args:
        what: what is wrong, as a clause: "must be at least 1".
        where: the file or key that the error is about: "optimizer.d.lr".
        found: the value that was found instead, already printable.
        cure: how to fix it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", found: str = "", cure: str = "") -> None:
        self.what, self.where, self.found, self.cure = what, where, found, cure
        super().__init__(self._message())

    def _message(self) -> str:
        message = f"{self.where}: {self.what}" if self.where else self.what
        message += f", found {self.found}" if self.found else ""
        message += f"; {self.cure}" if self.cure else ""
        return one_line(message)

    def put_in_front(self, place: str) -> None:
        """Let the error name a larger place first: the file of a key, say."""
        self.where = f"{place}: {self.where}" if self.where else place
        self.args = (self._message(),)


class RecipeError(PoiseError):
    """The recipe or the command line is invalid."""

    exit_code = 2


class DataError(PoiseError):
    """The images are missing or unreadable, or there are too few of them."""

    exit_code = 3


class CheckpointError(PoiseError):
    """No checkpoint can be loaded, or it does not fit the recipe."""

    exit_code = 4


class Diverged(PoiseError):
    """Training produced values that are not finite, and the policy for this case is exhausted."""

    exit_code = 5


class DiskError(PoiseError):
    """A file or folder can't be written."""

    exit_code = 6


OUT_OF_MEMORY_MESSAGES = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "failed to allocate",
    "alloc_failed",
    "bad_alloc",
    "bad alloc",
    "not enough space",
    "insufficient memory",
)
"""Lower-case parts of the messages with which torch, CUDA, cuDNN, MPS, NumPy and C++ report too little memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there is too little memory, whatever its type and wording."""
    if (
        isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError"
    ):  # the class of torch, which is not imported here
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY_MESSAGES)


class OutOfMemory(PoiseError):
    """The device has too little memory for this recipe."""

    exit_code = 7


@contextmanager
def errors_in(place: str) -> Iterator[None]:
    """Let every error that is raised in the block name a place first, such as a file.

    Args:
        place: the file, or the part of it.
    """
    try:
        yield
    except PoiseError as error:
        error.put_in_front(place)
        raise


@contextmanager
def memory_errors(what: str, found: str, cure: str) -> Iterator[None]:
    """Convert every out-of-memory error raised in the block into an `OutOfMemory` error with a cure.

    Args:
        what: see `PoiseError`.
        found: see `PoiseError`.
        cure: see `PoiseError`.

    Raises:
        OutOfMemory: the block ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(what, found=found, cure=cure) from None


class Stopped(PoiseError):
    """A signal stopped the run; its state is saved, and `--resume` continues it."""

    exit_code = 75


class RankLost(Stopped):
    """Another process of a run on several ranks has died or doesn't answer; `--resume` continues from a checkpoint."""


class RankFailed(PoiseError):
    """Another rank has failed, which prints the reason; this one ends with the same exit code.

    Args:
        code: the exit code of the other rank.
    """

    def __init__(self, code: int) -> None:
        super().__init__("another rank has failed", cure="see its message")
        self.exit_code = code
