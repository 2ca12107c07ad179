"""The training loop of a rank other than 0, which makes the same steps and writes nothing."""

from __future__ import annotations

from typing import NoReturn

from poise.data.source import DataSplits
from poise.engine.compute import ComputeSettings
from poise.recipe.model import Recipe
from poise.runs.folder import RunFolder
from poise.runs.run import Run
from poise.training.agreement import CONTINUE, ROLL_BACK, STOP, Agreement, Order, resumable
from poise.training.due import averages_metrics, saves
from poise.training.initial_weights import InitialWeights
from poise.training.signals import Signals
from poise.training.state import TrainState


class Follower:
    """Takes part in the training of a run that rank 0 leads; see `Trainer`, whose loop this one mirrors.

    Args:
        recipe: the recipe.
        folder: the run folder, which is only read.
        compute: device and precision.
        data: the data splits.
        signals: says whether this rank has been asked to stop.
        agreement: the communication with the other ranks.
        resume: whether to continue from the newest checkpoint in `folder`.
        initial: the weights that the players start from.
        original: the recipe that the run was started with, if it has been changed since.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        compute: ComputeSettings,
        data: DataSplits,
        signals: Signals,
        agreement: Agreement,
        *,
        resume: bool,
        initial: InitialWeights | None = None,
        original: Recipe | None = None,
    ) -> None:
        self.recipe, self.folder, self.signals, self.agreement = recipe, folder, signals, agreement
        tensors, classes = (None, ()) if initial is None else (initial.tensors, initial.classes)
        copies = folder.critics if resume else None
        self.state = TrainState(recipe, compute, data, tensors, copies, agreement.ranks, original, classes)
        if resume:
            self.state.resume(folder.saves)
        self.first = self.state.steps_done

    def run(self) -> Run:
        """Follow rank 0 to the last step.

        Raises:
            RankFailed, RankLost: another rank has ended.
            PoiseError: see `poise.training.train.train`.
        """
        self.signals.deferred = True
        with resumable(self.folder), self.agreement.failures():
            while self._agree() == ROLL_BACK:  # rank 0 has opened the run folder, and rolled back if an alarm wants it
                pass
            self.state.share()
            while self.state.steps_done < self.recipe.steps:
                self._step()
            self._agree()  # rank 0 has finished
        return Run(self.folder.path, trust_code=True)

    def _step(self) -> None:
        with self.agreement.step():
            self.state.step()
        done, recipe = self.state.steps_done, self.recipe
        averaged = averages_metrics(recipe, done)
        if averaged:
            self.state.average_metrics()
        order = self._agree(STOP if self.signals.requested_by else CONTINUE)  # rank 0 has logged and evaluated
        if order == ROLL_BACK:
            return
        if order == STOP and not averaged:
            self.state.average_metrics()
        if order == STOP or saves(recipe, done):
            if self._agree() == ROLL_BACK:  # rank 0 has saved
                return
            if order == STOP and done < recipe.steps:
                self._wait_for_the_end()

    def _agree(self, order: Order = CONTINUE) -> Order:
        """The order that all ranks follow; one to roll back is carried out."""
        order = self.agreement.on(order)
        if order == ROLL_BACK:
            self.state.roll_back(self.folder.saves)
            self.agreement.on()  # rank 0 has rolled back as well
            self.state.share()
        return order

    def _wait_for_the_end(self) -> NoReturn:
        """Wait until rank 0 says why it ends."""
        while True:
            self._agree()
