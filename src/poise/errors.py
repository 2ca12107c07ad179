"""What can go wrong, told to people: one class per exit code, one line per error.

Every error says what is wrong, where (a file, a key), what was found and what to do. The command line
prints that line and leaves with the class's `exit_code`; a library user catches `PoiseError`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from poise.utils.printing import one_line


class PoiseError(Exception):
    """An error with an answer.

    Args:
        what: what is wrong, as a clause: "must be at least 1".
        where: the file and key it is about: "optimizer.d.lr".
        found: what stood there instead, already printable.
        cure: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", found: str = "", cure: str = "") -> None:
        self.what, self.where, self.found, self.cure = what, where, found, cure
        told = f"{where}: {what}" if where else what
        told += f", found {found}" if found else ""
        told += f"; {cure}" if cure else ""
        super().__init__(one_line(told))


class RecipeError(PoiseError):
    """The recipe or the command line asks for something that is not there or can't be."""

    exit_code = 2


class DataError(PoiseError):
    """The pictures are missing, unreadable or too few."""

    exit_code = 3


class CheckpointError(PoiseError):
    """No checkpoint can be loaded, or it does not fit the recipe."""

    exit_code = 4


class Diverged(PoiseError):
    """Training left the finite numbers."""

    exit_code = 5


class DiskError(PoiseError):
    """The run folder can't be written."""

    exit_code = 6


WORDS_OF_MEMORY = (
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
"""How torch, CUDA, cuDNN, MPS, numpy and C++ say that there is too little memory, in small letters."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, however it is worded."""
    if (
        isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's, unimported
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS_OF_MEMORY)


class OutOfMemory(PoiseError):
    """The device has too little memory for this recipe."""

    exit_code = 7


@contextmanager
def memory_errors(what: str, found: str, cure: str) -> Iterator[None]:
    """Turn "out of memory", however it is worded, into an error with a cure.

    Raises:
        OutOfMemory: it was raised within.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(what, found=found, cure=cure) from None


class Stopped(PoiseError):
    """A signal asked for an end; the state is saved and `--resume` goes on."""

    exit_code = 75
