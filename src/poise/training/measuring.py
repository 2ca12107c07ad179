"""Measuring a run: at a cadence as it goes, and afterwards from its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from poise.core import Batch, Moment
from poise.data.source import Loaded
from poise.data.toys import PlaneEntry
from poise.errors import SaveError
from poise.measure.base import Measure
from poise.measure.bench import Bench
from poise.measure.catalogue import MEASURES, Result, chosen
from poise.measure.duality import duality_gap
from poise.progress import Progress, report, silent
from poise.randomness import Dice
from poise.recipe.model import Recipe
from poise.training import save
from poise.training.coding import coder
from poise.training.folder import RunFolder
from poise.training.game import Game, apart
from poise.training.lines import Lines
from poise.training.run import Run
from poise.training.sampling import generate, labels_in_shares, latents, no_interrupt

PLAYED = 512
"""Points in a batch of the duality gap."""


class Best(NamedTuple):
    """The best figure so far, and the step it is of."""

    step: int
    value: float


class Gauge:
    """Measures a run as it goes, without touching any of its random numbers.

    Args:
        recipe: with a table `measure`.
        loaded: its data.
        folder: the run's.
        first: the step that is resumed from; the best of the lines up to it is remembered.
        device: where the latents are drawn.
        say: told, once each, of work that takes its time.
        interrupt: called often; what it raises ends a measuring, of which nothing is written then.
    """

    def __init__(
        self,
        recipe: Recipe,
        loaded: Loaded,
        folder: RunFolder,
        first: int,
        device: torch.device,
        say: Callable[[str], None],
        interrupt: Callable[[], None] = no_interrupt,
    ) -> None:
        assert recipe.measure is not None
        self.recipe, self.loaded, self.folder, self.device, self.say = recipe, loaded, folder, device, say
        self.interrupt = interrupt
        self.lines = Lines(folder.measures, say)
        self._said: set[str] = set()
        self._measuring = "measuring"
        self.how = recipe.measure
        self.measures = chosen(self.how.measures)
        self.chooses = MEASURES[self.how.measures[0]]
        self.best: Best | None = None
        self.last: float | None = None
        self.last_step = first
        for line in folder.read_measures(first) if first else []:
            self._hear(line["step"], line["measures"].get(self.chooses.name))
        self.anew = first > 0 and self._measured_otherwise()
        if self.best is not None and (self.anew or not self._kept(self.best.step)):
            self.best = self.last = None

    @cached_property
    def bench(self) -> Bench:
        """Made ready at the first measuring."""
        return Bench(self.recipe.data, self.loaded, self.how.features, self.how.n, tell=self._tell)

    def _measured_otherwise(self) -> bool:
        """Whether the run that is resumed was measured so that its figures can't be compared with ours."""
        try:
            before = self.folder.read_recipe().get("measure", {})
        except SaveError:
            return False  # nobody can tell
        now = self.how.model_dump(mode="json")
        heads = [(told.get("features"), told.get("n"), *told.get("measures", ())[:1]) for told in (before, now)]
        return heads[0] != heads[1]

    def knows(self, step: int) -> bool:
        """Whether the run was measured after `step` steps."""
        return any(line["step"] == step for line in self.folder.read_measures(step))

    def due(self, step: int) -> bool:
        """Whether to measure after `step` steps."""
        return step == self.recipe.steps or step % self.how.every == 0

    def take(self, game: Game, step: int) -> Result:
        """Measure what samples come from now, and write the line."""
        dice, net = Dice(0, self.device), game.shown()

        def labels(n: int) -> Tensor | None:
            return _asked(self.recipe, self.loaded, n, dice.seed)

        self._measuring = f"measuring at step {step:,}"
        report(self._measuring, 0.0)
        try:
            result = self.bench.measure(
                lambda n: _drawn(self.recipe, net, n, labels(n), dice, self.interrupt),
                self.measures,
                labels,
                coder=coder(self.recipe, game, dice),
            )
        finally:
            report("", 1.0)
        line = self.line(result, step)
        self.lines.add(line)
        self._hear(step, line["measures"].get(self.chooses.name))
        return result

    def line(self, result: Result, step: int) -> dict[str, Any]:
        """What was measured, as a line of `measures.jsonl`."""
        floors = {name: told.floor.value for name, told in result.told.items() if told.floor is not None}
        figures = {name: told.figure.value for name, told in result.told.items()}
        return {"step": step, "measures": figures, "floor": floors, "n": result.n, "features": result.features}

    def go_back(self, step: int) -> None:
        """Forget what was measured after `step`: the run is back there."""
        self.lines.cut(step)
        self.best = self.last = None
        for line in [*self.folder.read_measures(step), *self.lines.waiting]:
            self._hear(line["step"], line["measures"].get(self.chooses.name))
        if self.best is not None and not self._kept(self.best.step):
            self.best = self.last = None  # a later one had taken its place, and is gone too

    def _kept(self, step: int) -> bool:
        """Whether the best weights, of `step`, can be had; if they are damaged, that is said."""
        place = self.folder.best / f"step-{step:08d}"
        if not place.is_dir():
            return False
        try:
            save.check(place)
        except SaveError as error:
            self.say(
                f"the best weights are damaged, and the best from here on are kept: {self.folder.best / str(error)}"
            )
            return False
        return True

    def words(self, result: Result, step: int) -> str:
        """What was measured, in a line."""
        told = [
            f"{name} {one.figure.value:.4g}" + (f" (floor {one.floor.value:.4g})" if one.floor is not None else "")
            for name, one in result.told.items()
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
        name, best, last = self.chooses.name, self.best, self.last
        if self.last_step == best.step:
            return f"{name} {last:.4g} at step {best.step:,}, the best so far and the last"
        gap = f" ({(last / best.value - 1):+.0%})" if best.value > 0 else ""
        return f"{name}: best {best.value:.4g} at step {best.step:,}, kept in {self.folder.best}; last {last:.4g}{gap}"

    def facts(self) -> dict[str, Any] | None:
        """The same for `run.json`."""
        if self.best is None:
            return None
        return {"measure": self.chooses.name, "step": self.best.step, "value": self.best.value, "last": self.last}

    def _tell(self, what: str, share: float) -> None:
        self.interrupt()
        report(f"{self._measuring}: {what}", share)
        if what.startswith("training") and what not in self._said:
            self._said.add(what)
            self.say(f"{what}; it is kept for the next time")

    def _hear(self, step: int, value: float | None) -> None:
        if value is None:
            return
        self.last, self.last_step = value, step
        sign = 1 if self.chooses.better == "less" else -1
        if self.best is None or sign * value < sign * self.best.value:
            self.best = Best(step, value)


def measure_run(
    run: Run,
    measures: Sequence[Measure],
    *,
    n: int | None = None,
    features: str = "auto",
    seed: int = 0,
    raw: bool = False,
    data_root: Path | None = None,
    tell: Progress = silent,
) -> tuple[Result, Bench]:
    """Measure samples of a run against what its data holds out, with floors; and the bench they were measured on.

    Args:
        run: finished or running.
        measures: see `chosen`.
        n: how many samples; see `Bench`.
        features: see `extractor`.
        seed: which latents.
        raw: the live weights, not the averaged ones.
        data_root: where data sets by name are looked for.
        tell: told of work that takes its time.

    Raises:
        DataError: the data is not there, or not what the run was trained on.
        RecipeError, SaveError: see `extractor` and `Run`.
    """
    recipe, game = run.recipe, run.game
    loaded = run.load(data_root)
    bench = Bench(recipe.data, loaded, features, n, d=_readable_d(run), tell=tell, trust_code=run.trust_code)
    net, dice = game.shown(raw=raw), Dice(seed)

    def labels(count: int) -> Tensor | None:
        return _asked(recipe, loaded, count, seed)

    def samples(count: int) -> Tensor:
        tell("sampling", 0.0)
        return _drawn(recipe, net, count, labels(count), dice)

    plane, d = isinstance(recipe.data, PlaneEntry), game.d
    play = _play(recipe, game, d.net, run.save.step) if plane and d is not None else None
    return bench.measure(samples, measures, labels, play, coder(recipe, game, dice)), bench


def _readable_d(run: Run) -> Callable[[], nn.Module] | str:
    """D, or why its features can't be read one sample at a time without labels."""
    if run.recipe.pack > 1:
        return f"this D judges {run.recipe.pack} samples at once"
    if run.recipe.labels.d is not None:
        return "this D wants labels"
    if run.game.d is None:
        return "this run has no discriminator"
    d = run.game.d.net
    return "this D has no features" if getattr(d, "width", None) is None else lambda: d


def _asked(recipe: Recipe, loaded: Loaded, n: int, seed: int) -> Tensor | None:
    """n labels for a generator that takes them, in the shares of the training pictures; None for one that does not."""
    return None if recipe.labels.g is None else labels_in_shares(n, loaded.train.class_counts, seed)


def _drawn(
    recipe: Recipe,
    net: nn.Module,
    n: int,
    labels: Tensor | None,
    dice: Dice,
    interrupt: Callable[[], None] = no_interrupt,
) -> Tensor:
    """n samples; the latents depend on the dice's seed alone."""
    asked = None if labels is None else labels.to(dice.device)
    return generate(net, latents(recipe.latent, n, dice, "measure"), asked, dice=dice, interrupt=interrupt)


def _play(recipe: Recipe, game: Game, judge: nn.Module, step: int) -> Callable[[], float]:
    """The duality gap of this game: V is what D's objective is worth to it, with the sign turned."""
    source = recipe.data.load().train
    dice = Dice(0)
    moment = Moment(step, recipe.steps, PLAYED, dice)

    def value(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
        index = 2 * batch if batch >= 0 else -2 * batch - 1
        real = source.batch(index, PLAYED, dice)
        fake = Batch(g(recipe.latent.draw(PLAYED, dice("measure/gap", index))))
        verdicts = apart(d, real, fake)
        costs = game.objective.d_costs(verdicts["real"].score, verdicts["fake"].score, None, moment)
        return -sum((cost.mean() for cost in costs[1:]), costs[0].mean())

    return lambda: duality_gap(game.g.net, judge, value, dice("measure/nudge"))
