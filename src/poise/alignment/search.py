"""The search for a map without known pairs: several adversarial runs, whose maps are refined and compared.

Each start is an ordinary training run with a seed of its own, in a folder of its own, and so with its own random map at
the start. Whenever the recipe saves a checkpoint, the map is refined (`refinement.py`) and judged by the criterion that
needs no dictionary. The best map of all is kept. The search ends early when the best map is clearly right
(`Evaluation.is_clear`), and can be continued when it was interrupted (`record.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.alignment.neighbours import unit_rows
from poise.alignment.record import Evaluation, SearchRecord
from poise.alignment.refinement import Round, held_out_agreement, num_pairs, refine, share_of_pairs
from poise.core.metrics_log import Row
from poise.data.vectors import VectorSets
from poise.errors import Stopped
from poise.recipe.model import Recipe
from poise.training.listener import NullListener, ProgressListener, StartInfo
from poise.training.train import open_trainer
from poise.training.trainer import Trainer
from poise.utils.progress import reporting

JUDGED = 3_000
"""The number of most frequent vectors of each set by which maps are refined and judged during the search.

The time grows with its square."""

ROUNDS = 30
"""The largest number of rounds of a refinement; most end earlier, see `refine`."""


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        weights: the best map, refined, d x d, on the host.
        best: its evaluation.
        evaluations: all of them, in their order.
        is_clear: whether the search ended because this map is clearly right.
    """

    weights: Tensor
    best: Evaluation
    evaluations: tuple[Evaluation, ...]
    is_clear: bool


def search(
    recipe: Recipe,
    source: Tensor,
    target: Tensor,
    folder: Path,
    *,
    starts: int = 10,
    device: str = "auto",
    listener: ProgressListener | None = None,
    notify: Callable[[Evaluation], None] | None = None,
    record: SearchRecord | None = None,
) -> Found:
    """Train up to `starts` maps adversarially, refine them, and return the best one.

    What has been found is recorded after every evaluation, and a start that was interrupted is resumed, so a search
    that is continued ends with the same result.

    Args:
        recipe: the recipe of a start, whose G is a linear map; start k has the seed `recipe.seed` + k - 1.
        source: the normalised vectors of its data, N x d.
        target: the same, M x d.
        folder: where the run folders `start-1`, `start-2` and so on are made, and the record of the search.
        starts: the largest number of starts.
        device: see `train`.
        listener: is told of alarms and of the progress of long work; of other messages during the first start only.
        notify: is called with each evaluation.
        record: what has been found before, if the search is continued.

    Raises:
        PoiseError: see `train`.
        Stopped: a signal or the listener has stopped the search.
    """
    judged = unit_rows(source[:JUDGED]), unit_rows(target[:JUDGED])
    if record is None:
        record = SearchRecord(folder, recipe, fingerprint_of(source, target))
    first = True
    for start in range(1, starts + 1):
        if record.is_clear:
            break
        if recipe.steps in record.steps(start):
            continue
        seeded = recipe.model_copy(update={"seed": recipe.seed + start - 1})
        try:
            _make_start(seeded, start, judged, record, device, _Quiet(listener or NullListener(), first=first), notify)
        except Stopped as stopped:
            if not record.is_clear:
                raise Stopped(f"{re.split('[,;]', str(stopped))[0]}, in start {start} of {starts}") from None
        first = False
    assert record.best is not None, "the last step of each start is evaluated"
    assert record.weights is not None, "the best map is recorded with its evaluation"
    return Found(record.weights, record.best, tuple(record.evaluations), record.is_clear)


def _make_start(
    recipe: Recipe,
    start: int,
    judged: tuple[Tensor, Tensor],
    record: SearchRecord,
    device: str,
    listener: ProgressListener,
    notify: Callable[[Evaluation], None] | None,
) -> None:
    """Train the map of one start, or resume it, and record its evaluations.

    Raises:
        Stopped: the map is clearly right, or see `search`.
    """
    folder, known = record.folder / f"start-{start}", record.steps(start)
    resume = any((folder / "saves").glob("step-*"))  # without a checkpoint it begins again
    with open_trainer(recipe, folder, resume=resume, device=device, listener=listener) as trainer:
        record.write()
        with trainer.session():
            while True:
                done = trainer.done
                if done and (done % recipe.log.saves == 0 or done == recipe.steps) and done not in known:
                    record.add(*_evaluate(trainer, start, *judged))
                    if notify is not None:
                        notify(record.evaluations[-1])
                    if record.is_clear and done < recipe.steps:
                        trainer.stop("poise align, which has found a clear map")
                known.discard(done)  # after a roll-back another map is evaluated at this step
                if done == recipe.steps:
                    break
                trainer.step()


def fingerprint_of(source: Tensor, target: Tensor) -> str:
    """A hash of both sets of normalised vectors."""
    return VectorSets(source, target, len(source)).fingerprint


def map_of(net: nn.Module) -> Tensor:
    """The matrix of a G that is a linear map, d x d, on the host."""
    (weights,) = net.parameters()
    return weights.detach().float().cpu().clone()


def evaluate_map(
    weights: Tensor, source: Tensor, target: Tensor, start: int = 1, step: int = 0
) -> tuple[Evaluation, Tensor]:
    """Refine a map, and evaluate the refined one.

    Args:
        weights: the map, d x d.
        source: N x d, rows of length 1, the most frequent first.
        target: M x d, the same.
        start: the start that the map belongs to, which the evaluation names.
        step: the step after which it was taken, the same.

    Returns:
        the evaluation, and the best map of the refinement, d x d.
    """
    refinement = refine(weights, source, target, ROUNDS)
    best: Round = refinement.best
    pairs = num_pairs(best, source, target)
    agreement, share = held_out_agreement(best.weights, source, target), share_of_pairs(pairs, source, target)
    before = refinement.rounds[0].criterion
    return Evaluation(start, step, before, best.criterion, pairs, share, agreement), best.weights


def _evaluate(trainer: Trainer, start: int, source: Tensor, target: Tensor) -> tuple[Evaluation, Tensor]:
    """The evaluation of the map as it is now, and the refined map."""
    with reporting(f"refining the map of start {start}, step {trainer.done:,}"), torch.no_grad():
        weights = map_of(trainer.state.game.sampling_network())
        return evaluate_map(weights, source, target, start, trainer.done)


class _Quiet(NullListener):
    """Forwards what concerns the search as a whole: alarms, long work, and what the first start says of its data."""

    def __init__(self, listener: ProgressListener, *, first: bool) -> None:
        self.listener, self.first = listener, first

    def on_start(self, start: StartInfo) -> None:
        """Forward the sentences on device, data and players."""
        for line in start.lines if self.first else ():
            self.listener.on_message(line)

    def on_step(self, step: int) -> None:
        """Forward nothing; a listener may stop the search by raising `Stopped` elsewhere."""

    def on_row(self, row: Row) -> None:
        """Forward nothing."""

    def on_progress(self, what: str, share: float) -> None:
        """See `ProgressListener`; not every listener has this method."""
        if (method := getattr(self.listener, "on_progress", None)) is not None:
            method(what, share)
