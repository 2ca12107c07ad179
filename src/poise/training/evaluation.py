"""The periodic evaluation of a run while it trains; `runs/evaluate.py` evaluates a run folder afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poise.core.random_streams import RandomStreams
from poise.data.source import DataSplits
from poise.data.toys import PlaneConfig
from poise.engine.game import Game
from poise.errors import CheckpointError
from poise.measure.base import MISSING_REASONS, Requirement
from poise.measure.catalogue import MEASURES, EvaluationResult, MeasureResult, select_measures
from poise.measure.config import MeasureConfig
from poise.measure.evaluator import ENOUGH_TO_RANK, Evaluator
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.encode import make_reconstructor
from poise.runs.evaluate import MeasuredSamples
from poise.runs.folder import RunFolder
from poise.runs.generate import no_interrupt
from poise.runs.jsonl import JsonLinesFile
from poise.utils.printing import count_noun
from poise.utils.progress import report, reporting

PATIENCE = 3
"""The number of successive measurements without a new best value after which a run is said to improve no longer; one or
two may be worse by chance."""


SETTINGS = ("n", "features")
"""The keys of a line of `measures.jsonl` that must be equal for two values to be comparable."""


def reasons_of_later_measures(recipe: Recipe) -> dict[str, str]:
    """The reasons for which measures of the finished D or game are skipped in training, by those of other runs.

    Empty if the run can't have them afterwards either; then the reasons of other runs hold.
    """
    has_unconditional_d = recipe.has_discriminator and recipe.pack == 1 and recipe.labels.d is None
    is_game_of_points = recipe.has_discriminator and isinstance(recipe.data, PlaneConfig) and recipe.latent.is_space
    later: dict[Requirement, bool] = {"d": has_unconditional_d, "game": is_game_of_points}
    after = "it is computed after training, by poise measure"
    return {MISSING_REASONS[requirement]: after for requirement, is_met in later.items() if is_met}


def settings_of(config: MeasureConfig) -> dict[str, Any]:
    """What two values of a run must share to be comparable, as JSON; the manifest of a checkpoint in `best/` has it."""
    return {"measures": [config.measures[0]], "n": config.n, "features": config.features, "domain": config.domain}


class Best(NamedTuple):
    """The best value so far of the measure that selects checkpoints, and its step."""

    step: int
    value: float


class PeriodicEvaluator:
    """Measures a run while it trains, without using any of its random streams.

    Args:
        recipe: a recipe with a table `measure`.
        data: the data splits.
        folder: the run folder.
        first: the step from which the run is resumed; the best value is that of the lines up to it.
        device: the device of the latents.
        notify: called with a message, once each, about long work and damaged checkpoints.
        interrupt: called often; an exception that it raises ends the evaluation, and nothing is written.

    Attributes:
        settings: see `settings_of`.
        notes: a message if the checkpoint in `best/` was measured with other settings.
        num_since_best: the number of measurements since the best one.
        n: the number of samples of the last measurement.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSplits,
        folder: RunFolder,
        first: int,
        device: torch.device,
        notify: Callable[[str], None],
        interrupt: Callable[[], None] = no_interrupt,
    ) -> None:
        assert recipe.measure is not None
        self.recipe, self.data, self.folder, self.device, self.notify = recipe, data, folder, device, notify
        self.interrupt = interrupt
        self.measured = MeasuredSamples(recipe, data, RandomStreams(0, device), interrupt=interrupt)
        self.lines = JsonLinesFile(folder.measures, notify)
        self._reported: set[str] = set()
        self._title = "measuring"
        self.config = recipe.measure
        self.measures = select_measures(self.config.measures)
        self.selecting_measure = MEASURES[self.config.measures[0]]
        self.best: Best | None = None
        self.last: float | None = None
        self.last_step, self.num_since_best, self.n = first, 0, 0
        self.settings = settings_of(self.config)
        self._former_settings = self._settings_in_folder() if first else self.settings
        self._restore_best(folder.read_measures(first) if first else [])
        self.notes = self._describe_changes(first)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The evaluator, prepared on first use."""
        return Evaluator(
            self.recipe.data, self.measured.data, self.config.features, self.config.n, progress=self._report_progress
        )

    def _settings_in_folder(self) -> dict[str, Any]:
        """The settings in the `recipe.toml` of a run that is resumed; the present ones if it can't be read."""
        try:
            before = self.folder.parse_recipe(decode).measure
        except CheckpointError:
            return self.settings
        return {} if before is None else settings_of(before)

    def _changed_settings(self, manifest: Mapping[str, Any]) -> list[str]:
        """The settings that differ from those with which a checkpoint in `best/` was measured, by its manifest.

        Earlier versions have not recorded them there: then they are those of `recipe.toml`.
        """
        recorded = manifest.get("measure", self._former_settings)
        before = recorded if isinstance(recorded, Mapping) else {}
        return [f"measure.{name}" for name, value in self.settings.items() if before.get(name) != value]

    def _describe_changes(self, first: int) -> list[str]:
        """A message if the checkpoint in `best/`, not later than `first`, was measured with other settings."""
        former = {} if self.best else checkpoint_folder.valid_steps(self.folder.best)
        step = max((step for step in former if step <= first), default=None)
        if step is None:
            return []
        changed = self._changed_settings(checkpoint.verify(self._path_of_best(step)))
        if not changed:
            return []
        text = f"{' and '.join(changed)} changed: earlier values are not comparable"
        return [f"{text}; the former best, of step {step:,}, stays in {self.folder.best} until a new one is measured"]

    def _path_of_best(self, step: int) -> Path:
        return self.folder.best / f"step-{step:08d}"

    def has_result(self, step: int) -> bool:
        """Whether `measures.jsonl` has a line for `step`."""
        return any(line["step"] == step for line in self.folder.read_measures(step))

    def evaluate(self, game: Game, step: int) -> EvaluationResult:
        """Measure the network that samples are drawn from, and append the results to `measures.jsonl`."""
        measured, net = self.measured, game.sampling_network()
        self._title = f"measuring at step {step:,}"
        with reporting(self._title):
            result = self.evaluator.measure(
                partial(measured.samples, net),
                self.measures,
                measured.labels,
                reconstructor=make_reconstructor(self.recipe, game, measured.streams),
                translation=partial(measured.translation, net),
            )
        later = reasons_of_later_measures(self.recipe)
        result = result._replace(skipped={name: later.get(reason, reason) for name, reason in result.skipped.items()})
        line = self.to_json(result, step)
        self.lines.append(line)
        self._update_best(line)
        return result

    def to_json(self, result: EvaluationResult, step: int) -> dict[str, Any]:
        """Results as a line of `measures.jsonl`."""
        floors = {name: one.floor.value for name, one in result.results.items() if one.floor is not None}
        values = {name: one.value.value for name, one in result.results.items()}
        baselines = {name: one.baseline for name, one in result.results.items() if one.baseline is not None}
        line = {"step": step, "measures": values, "floor": floors, "n": result.n, "features": result.features}
        return line | ({"baseline": baselines} if baselines else {})

    def roll_back(self, step: int) -> None:
        """Delete the results after `step`, to which the run has been rolled back."""
        self.lines.drop_after(step)
        self._restore_best([*self.folder.read_measures(step), *self.lines.pending])

    def _restore_best(self, lines: list[dict[str, Any]]) -> None:
        """Find the best of the lines that are comparable with the last one, and whose weights are in `best/`.

        The weights of the best line may not be there: their checkpoint could not be written, or a later one had
        replaced it and was deleted when the run was rolled back. Then the newest checkpoint in `best/` counts. None
        does that was measured with other settings.
        """
        self.best = self.last = None
        last = tuple(map(lines[-1].get, SETTINGS)) if lines else ()
        comparable = [line for line in lines if tuple(map(line.get, SETTINGS)) == last]
        for line in comparable:
            self._update_best(line)
        if self.best is None or self._best_is_readable(self.best.step):
            return
        name, lost = self.selecting_measure.name, self.best.step
        known = [(line["step"], line["measures"][name]) for line in comparable if name in line["measures"]]
        readable = [place for place, (step, _) in enumerate(known) if step != lost and self._best_is_readable(step)]
        self.best = Best(*known[readable[-1]]) if readable else None
        self.last = self.last if readable else None
        self.num_since_best = len(known) - 1 - readable[-1] if readable else self.num_since_best

    def _best_is_readable(self, step: int) -> bool:
        """Whether the best checkpoint, of `step`, exists, is valid (notifies if it is damaged) and is comparable."""
        path = self._path_of_best(step)
        if not path.is_dir():
            return False
        try:
            return not self._changed_settings(checkpoint.verify(path))
        except CheckpointError as error:
            self.notify(
                f"the best checkpoint is damaged, the best of later ones will be kept: {self.folder.best / str(error)}"
            )
            return False

    def describe(self, result: EvaluationResult, step: int) -> str:
        """Results as a message."""
        values = [f"{name} {one.value.value:.4g}{_references(one)}" for name, one in result.results.items()]
        values += [f"no {name}: {reason}" for name, reason in result.skipped.items() if name not in self._reported]
        notes = [note for note in result.notes if note not in self._reported]
        selecting = self.selecting_measure.name
        if self.best is None and selecting in result.skipped and selecting not in self._reported:
            notes.append(f"without {selecting}, the first of measure.measures, no best weights are kept")
        self._reported.update(result.skipped, notes)  # reported only once
        values = values or [f"{' and '.join(result.skipped)} could not be computed again"]
        remarks = ["the best so far"] if self.is_best(step) else []
        if self.best is not None and self.is_stalled:
            name, best = self.selecting_measure.name, self.best
            remarks = [f"{name} has not improved since step {best.step:,} ({best.value:.4g})"]
        remarks += notes
        return "; ".join([f"step {step:,}: {', '.join(values)}", *remarks])

    def is_best(self, step: int) -> bool:
        """Whether the weights of `step` are the best so far."""
        return self.best is not None and self.best.step == step

    def summary(self) -> str:
        """A message about the best and the last value of the selecting measure; empty if there is none."""
        if self.best is None or self.last is None:
            return ""
        name, best, last = self.selecting_measure.name, self.best, self.last
        if self.last_step == best.step:
            return f"{name} {last:.4g} at step {best.step:,}, which is both the best and the last"
        gap = f" ({(last / best.value - 1):+.0%})" if best.value > 0 else ""
        kept = f", kept in {self.folder.best}" if self.best_is_kept else ""
        remark = f"; none of the last {self.num_since_best} measurements was better" if self.is_stalled else ""
        if self.n > 0 and not self.can_rank:
            remark = f"; {count_noun(self.n, 'sample')} can't rank checkpoints: compare the sample grids"
        return f"{name}: best {best.value:.4g} at step {best.step:,}{kept}; last {last:.4g}{gap}{remark}"

    @property
    def best_is_kept(self) -> bool:
        """Whether the best checkpoint is in `best/`; the disk may have refused it."""
        return self.best is not None and self._path_of_best(self.best.step).is_dir()

    @property
    def can_rank(self) -> bool:
        """Whether there are enough samples for the measure to tell better checkpoints from worse ones."""
        return self.n >= ENOUGH_TO_RANK

    @property
    def is_stalled(self) -> bool:
        """Whether the selecting measure has not improved in the last `PATIENCE` measurements or more.

        Always false with too few samples to tell.
        """
        return self.num_since_best >= PATIENCE and self.can_rank

    def best_info(self) -> dict[str, Any] | None:
        """The best and the last value for `run.json`; None if there is none."""
        if self.best is None:
            return None
        return {
            "measure": self.selecting_measure.name,
            "step": self.best.step,
            "value": self.best.value,
            "last": self.last,
        }

    def _report_progress(self, task: str, fraction: float) -> None:
        self.interrupt()
        report(f"{self._title}: {task}", fraction)
        if task.startswith("training") and task not in self._reported:
            self._reported.add(task)
            self.notify(f"{task}; it is cached for later evaluations")

    def _update_best(self, line: dict[str, Any]) -> None:
        """Take a line of `measures.jsonl` into account."""
        step, value = line["step"], line["measures"].get(self.selecting_measure.name)
        if value is None:
            return
        self.last, self.last_step, self.num_since_best = value, step, self.num_since_best + 1
        self.n = line.get("n") or 0  # a line of another program may lack it
        sign = 1 if self.selecting_measure.better == "less" else -1
        if self.best is None or sign * value < sign * self.best.value:
            self.best, self.num_since_best = Best(step, value), 0


def _references(result: MeasureResult) -> str:
    """The value of real data and the baseline of a result in brackets; empty if there are none."""
    known = {"real data": None if result.floor is None else result.floor.value, "untranslated": result.baseline}
    texts = [f"{name} {value:.4g}" for name, value in known.items() if value is not None]
    return f" ({', '.join(texts)})" if texts else ""
