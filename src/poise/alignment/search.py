"""The search for a map without known pairs: several adversarial runs, whose maps are refined and compared.

Each start is an ordinary training run with a seed of its own, in a folder of its own, and so with its own random map at
the start. Whenever the recipe saves a checkpoint, the map is refined (`refinement.py`) and judged by the criterion that
needs no dictionary. The best map of all is kept. The search ends early when the best map is clearly right
(`AGREEMENT`, `PAIRED`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.alignment.neighbours import unit_rows
from poise.alignment.refinement import Round, held_out_agreement, refine
from poise.core.metrics_log import Row
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

AGREEMENT = 0.9
"""The share of its pairs that must be confirmed (`held_out_agreement`) for a map to be clearly right."""

PAIRED = 0.5
"""The share of the vectors, of the smaller set, that must have a pair under such a map.

What both shares are for right and for wrong maps is in docs/notes/align.md.
"""


class Evaluation(NamedTuple):
    """A map of one start, after its refinement.

    Attributes:
        start: the number of the start, from 1.
        step: the step after which the map was taken.
        before: the criterion of the map as it was trained.
        criterion: that of the refined map.
        pairs: the number of mutual nearest neighbours that the refined map was fitted to.
        share: the share of the vectors, of the smaller set, that have a pair.
        agreement: see `held_out_agreement`.
    """

    start: int
    step: int
    before: float
    criterion: float
    pairs: int
    share: float
    agreement: float

    @property
    def is_clear(self) -> bool:
        """Whether the map is clearly right, see `AGREEMENT` and `PAIRED`."""
        return self.agreement >= AGREEMENT and self.share >= PAIRED


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
) -> Found:
    """Train up to `starts` maps adversarially, refine them, and return the best one.

    Args:
        recipe: the recipe of a start, whose G is a linear map; start k has the seed `recipe.seed` + k - 1.
        source: the normalised vectors of its data, N x d.
        target: the same, M x d.
        folder: where the run folders `start-1`, `start-2` and so on are made.
        starts: the largest number of starts.
        device: see `train`.
        listener: is told of alarms and of the progress of long work; of other messages during the first start only.
        notify: is called with each evaluation.

    Raises:
        PoiseError: see `train`.
        Stopped: a signal or the listener has stopped the search.
    """
    judged = unit_rows(source[:JUDGED]), unit_rows(target[:JUDGED])
    evaluations: list[Evaluation] = []
    best: tuple[Evaluation, Tensor] | None = None
    for start in range(1, starts + 1):
        seeded = recipe.model_copy(update={"seed": recipe.seed + start - 1})
        heard = _Quiet(listener or NullListener(), first=start == 1)
        try:
            with (
                open_trainer(seeded, folder / f"start-{start}", device=device, listener=heard) as trainer,
                trainer.session(),
            ):
                while trainer.done < seeded.steps:
                    trainer.step()
                    if trainer.done % seeded.log.saves and trainer.done < seeded.steps:
                        continue
                    evaluation, weights = _evaluate(trainer, start, *judged)
                    evaluations.append(evaluation)
                    if best is None or evaluation.criterion > best[0].criterion:
                        best = evaluation, weights
                    if notify is not None:
                        notify(evaluation)
                    if best[0].is_clear and trainer.done < seeded.steps:
                        trainer.stop("poise align, which has found a clear map")
        except Stopped as stopped:
            if best is None or not best[0].is_clear:
                reason = re.split("[,;]", str(stopped))[0]
                cure = f"repeat the command with another --out; the runs so far are in {folder}"
                raise Stopped(f"{reason}, in start {start} of {starts}", cure=cure) from None
        if best is not None and best[0].is_clear:
            break
    assert best is not None, "the last step of each start is evaluated"
    return Found(best[1], best[0], tuple(evaluations), best[0].is_clear)


def map_of(net: nn.Module) -> Tensor:
    """The matrix of a G that is a linear map, d x d, on the host."""
    (weights,) = net.parameters()
    return weights.detach().float().cpu().clone()


def _evaluate(trainer: Trainer, start: int, source: Tensor, target: Tensor) -> tuple[Evaluation, Tensor]:
    """The evaluation of the map as it is now, and the refined map."""
    with reporting(f"refining the map of start {start}, step {trainer.done:,}"), torch.no_grad():
        refinement = refine(map_of(trainer.state.game.sampling_network()), source, target, ROUNDS)
        best: Round = refinement.best
        agreement = held_out_agreement(best.weights, source, target)
    before, share = refinement.rounds[0].criterion, best.pairs / min(len(source), len(target))
    return Evaluation(start, trainer.done, before, best.criterion, best.pairs, share, agreement), best.weights


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
