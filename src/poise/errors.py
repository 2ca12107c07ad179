"""What can go wrong, told to people: one class per exit code, one line per error.

Every error says what is wrong, where (a file, a key), what was found and what to do. The command line
prints that line and leaves with the class's `exit_code`; a library user catches `PoiseError`.
"""

from __future__ import annotations

from poise.printing import one_line


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


class SaveError(PoiseError):
    """No save can be resumed from, or one does not fit this recipe."""

    exit_code = 4


class Diverged(PoiseError):
    """Training left the finite numbers."""

    exit_code = 5


class DiskError(PoiseError):
    """The run folder can't be written."""

    exit_code = 6


class OutOfMemory(PoiseError):
    """The device has too little memory for this recipe."""

    exit_code = 7


class Stopped(PoiseError):
    """A signal asked for an end; the state is saved and `--resume` goes on."""

    exit_code = 75
