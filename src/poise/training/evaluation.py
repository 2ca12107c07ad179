"""Evaluating a run while it trains, every so many steps (`runs/evaluate.py` does it afterwards, from the folder)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.data.source import DataSplits
from poise.engine.game import Game
from poise.errors import CheckpointError
from poise.measure.catalogue import MEASURES, EvaluationResult, select_measures
from poise.measure.evaluator import Evaluator
from poise.recipe.model import Recipe
from poise.runs import checkpoint
from poise.runs.encode import make_reconstructor
from poise.runs.evaluate import draw_samples, labels_to_request
from poise.runs.folder import RunFolder
from poise.runs.generate import no_interrupt
from poise.runs.jsonl import JsonLinesFile
from poise.utils.progress import report


class Best(NamedTuple):
    """The best figure so far, and the step it is of."""

    step: int
    value: float


class PeriodicEvaluator:
    """Measures a run as it goes, without touching any of its random numbers.

    Args:
        recipe: with a table `measure`.
        loaded: its data.
        folder: the run's.
        first: the step that is resumed from; the best of the lines up to it is remembered.
        device: where the latents are drawn.
        notify: told, once each, of work that takes its time.
        interrupt: called often; what it raises ends a measuring, of which nothing is written then.
    """

    def __init__(
        self,
        recipe: Recipe,
        loaded: DataSplits,
        folder: RunFolder,
        first: int,
        device: torch.device,
        notify: Callable[[str], None],
        interrupt: Callable[[], None] = no_interrupt,
    ) -> None:
        assert recipe.measure is not None
        self.recipe, self.loaded, self.folder, self.device, self.notify = recipe, loaded, folder, device, notify
        self.interrupt = interrupt
        self.lines = JsonLinesFile(folder.measures, notify)
        self._said: set[str] = set()
        self._measuring = "measuring"
        self.how = recipe.measure
        self.measures = select_measures(self.how.measures)
        self.selecting_measure = MEASURES[self.how.measures[0]]
        self.best: Best | None = None
        self.last: float | None = None
        self.last_step = first
        for line in folder.read_measures(first) if first else []:
            self._update_best(line["step"], line["measures"].get(self.selecting_measure.name))
        self.anew = first > 0 and self._measured_otherwise()
        if self.best is not None and (self.anew or not self._best_is_readable(self.best.step)):
            self.best = self.last = None

    @cached_property
    def evaluator(self) -> Evaluator:
        """Made ready at the first measuring."""
        return Evaluator(self.recipe.data, self.loaded, self.how.features, self.how.n, progress=self._report_progress)

    def _measured_otherwise(self) -> bool:
        """Whether the run that is resumed was measured so that its figures can't be compared with ours."""
        try:
            before = self.folder.read_recipe().get("measure", {})
        except CheckpointError:
            return False  # nobody can tell
        now = self.how.model_dump(mode="json")
        heads = [(told.get("features"), told.get("n"), *told.get("measures", ())[:1]) for told in (before, now)]
        return heads[0] != heads[1]

    def has_result(self, step: int) -> bool:
        """Whether the run was measured after `step` steps."""
        return any(line["step"] == step for line in self.folder.read_measures(step))

    def is_due(self, step: int) -> bool:
        """Whether to measure after `step` steps."""
        return step == self.recipe.steps or step % self.how.every == 0

    def evaluate(self, game: Game, step: int) -> EvaluationResult:
        """Measure what samples come from now, and write the line."""
        streams, net = RandomStreams(0, self.device), game.sampling_network()

        def labels(n: int) -> Tensor | None:
            return labels_to_request(self.recipe, self.loaded, n, streams.seed)

        self._measuring = f"measuring at step {step:,}"
        report(self._measuring, 0.0)
        try:
            result = self.evaluator.measure(
                lambda n: draw_samples(self.recipe, net, n, labels(n), streams, self.interrupt),
                self.measures,
                labels,
                reconstructor=make_reconstructor(self.recipe, game, streams),
            )
        finally:
            report("", 1.0)
        line = self.to_json(result, step)
        self.lines.append(line)
        self._update_best(step, line["measures"].get(self.selecting_measure.name))
        return result

    def to_json(self, result: EvaluationResult, step: int) -> dict[str, Any]:
        """What was measured, as a line of `measures.jsonl`."""
        floors = {name: told.floor.value for name, told in result.results.items() if told.floor is not None}
        figures = {name: told.value.value for name, told in result.results.items()}
        return {"step": step, "measures": figures, "floor": floors, "n": result.n, "features": result.features}

    def roll_back(self, step: int) -> None:
        """Forget what was measured after `step`: the run is back there."""
        self.lines.drop_after(step)
        self.best = self.last = None
        for line in [*self.folder.read_measures(step), *self.lines.pending]:
            self._update_best(line["step"], line["measures"].get(self.selecting_measure.name))
        if self.best is not None and not self._best_is_readable(self.best.step):
            self.best = self.last = None  # a later one had taken its place, and is gone too

    def _best_is_readable(self, step: int) -> bool:
        """Whether the best weights, of `step`, can be had; if they are damaged, that is said."""
        place = self.folder.best / f"step-{step:08d}"
        if not place.is_dir():
            return False
        try:
            checkpoint.verify(place)
        except CheckpointError as error:
            self.notify(
                f"the best weights are damaged, and the best from here on are kept: {self.folder.best / str(error)}"
            )
            return False
        return True

    def describe(self, result: EvaluationResult, step: int) -> str:
        """What was measured, in a line."""
        told = [
            f"{name} {one.value.value:.4g}" + (f" (floor {one.floor.value:.4g})" if one.floor is not None else "")
            for name, one in result.results.items()
        ]
        told += [f"no {name}: {why}" for name, why in result.skipped.items() if name not in self._said]
        notes = [note for note in result.notes if note not in self._said]
        self._said.update(result.skipped, notes)  # once is enough
        ends = (["the best so far"] if self.is_best(step) else []) + notes
        return "; ".join([f"step {step:,}: {', '.join(told)}", *ends])

    def is_best(self, step: int) -> bool:
        """Whether the weights after `step` steps are the best so far."""
        return self.best is not None and self.best.step == step

    def summary(self) -> str:
        """The best against the last, in a line."""
        if self.best is None or self.last is None:
            return ""
        name, best, last = self.selecting_measure.name, self.best, self.last
        if self.last_step == best.step:
            return f"{name} {last:.4g} at step {best.step:,}, the best so far and the last"
        gap = f" ({(last / best.value - 1):+.0%})" if best.value > 0 else ""
        return f"{name}: best {best.value:.4g} at step {best.step:,}, kept in {self.folder.best}; last {last:.4g}{gap}"

    def best_info(self) -> dict[str, Any] | None:
        """The same for `run.json`."""
        if self.best is None:
            return None
        return {
            "measure": self.selecting_measure.name,
            "step": self.best.step,
            "value": self.best.value,
            "last": self.last,
        }

    def _report_progress(self, what: str, share: float) -> None:
        self.interrupt()
        report(f"{self._measuring}: {what}", share)
        if what.startswith("training") and what not in self._said:
            self._said.add(what)
            self.notify(f"{what}; it is kept for the next time")

    def _update_best(self, step: int, value: float | None) -> None:
        if value is None:
            return
        self.last, self.last_step = value, step
        sign = 1 if self.selecting_measure.better == "less" else -1
        if self.best is None or sign * value < sign * self.best.value:
            self.best = Best(step, value)
