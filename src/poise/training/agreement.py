"""How the ranks of a run agree after each step on what comes next, and how each learns that another one has failed.

All communication outside of a step begins with one collective: every rank gives an order or an exit code, and all of
them get the highest. So the ranks can't misunderstand each other wherever one of them fails. A rank that has given an
exit code never communicates again; nor does one that fails within a step, where the others wait for something else:
they notice that its connections are closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from poise.core.ranks import Ranks
from poise.errors import PoiseError, RankFailed, RankLost, is_out_of_memory
from poise.runs.folder import RunFolder
from poise.training.signals import SignalReceived
from poise.user_code.loading import fault_of_user_code

Order = Literal[0, 1, 2]

CONTINUE: Order = 0
STOP: Order = 1
"""A signal has asked a rank to stop: rank 0 saves the state of this step."""

ROLL_BACK: Order = 2
"""All ranks return to the newest checkpoint; rank 0 has deleted those that are too new."""

FAILED, LEADER_FAILED = 1000, 2000
"""An exit code plus one of these numbers says that a rank, or rank 0, ends."""


def exit_code(error: BaseException) -> int:
    """The exit code of a process that ends with this error."""
    if isinstance(error, PoiseError):
        return error.exit_code
    if isinstance(error, SignalReceived):
        return 75
    if isinstance(error, KeyboardInterrupt):
        return 130
    if is_out_of_memory(error):
        return 7
    fault = fault_of_user_code(error)
    return 1 if fault is None else fault.exit_code


@contextmanager
def resumable(folder: RunFolder) -> Iterator[None]:
    """Let the error about a rank that is lost in this block say how the run is continued.

    Args:
        folder: the run folder.
    """
    try:
        yield
    except RankLost as error:
        saved = any(folder.saves.glob("step-*"))
        cure = "continue from the last checkpoint" if saved else "there is no checkpoint yet, start again"
        cure += f" with: {folder.resume_command}"
        raise RankLost(error.what, where=error.where, found=error.found, cure=cure) from None


class Agreement:
    """The communication of a run's ranks outside of its steps.

    Args:
        ranks: the ranks.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._over = ranks.size == 1

    def on(self, order: Order = CONTINUE) -> Order:
        """The order that all ranks follow: the highest that any of them gives. Waits for all of them.

        Raises:
            RankFailed: another rank ends.
            RankLost: another rank has died or doesn't answer.
        """
        if self._over:
            return order
        self._over = True  # unless this succeeds
        highest = self.ranks.highest(order)
        if highest >= FAILED:
            raise RankFailed(highest % FAILED)
        self._over = False
        return STOP if highest == STOP else ROLL_BACK if highest == ROLL_BACK else CONTINUE

    def texts(self, text: str) -> list[str]:
        """The texts that the ranks give, in their order. Waits for all of them, and raises the errors of `on`."""
        self.on()  # no rank has ended, so all of them give one
        return self.ranks.texts(text)

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks that this one ends with an error, if they can be told.

        Raises:
            RankFailed: rank 0 ends at the same time, so that its message is enough.
        """
        if not self._over:
            self._over = True
            base = LEADER_FAILED if self.ranks.leads else FAILED
            with suppress(RankLost):
                highest = self.ranks.highest(base + exit_code(error))
                if highest >= LEADER_FAILED and not self.ranks.leads:
                    raise RankFailed(highest % FAILED) from None

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Tell the other ranks of an error of this block."""
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step, in which the other ranks can't be told of an error."""
        before, self._over = self._over, True
        yield
        self._over = before

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let rank 0 run this block before the others do, so that they find what it has put into a cache."""
        if not self.ranks.leads:
            self.on()
        with self.failures():
            yield
        if self.ranks.leads:
            self.on()
