"""The check before training: what does not fit, what is doubtful, what it will cost; and whether D can learn at all.

Nothing is written. The recipe is looked at first, then the data, then the players that they make: a few real steps tell
the time, D alone against an untrained G tells whether there is anything to learn (tip T24).
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from poise.core.types import MoveContext, Side
from poise.data.source import DataSplits, ImageDataConfig, SizedSource, loading_memory
from poise.engine.compute import choose_compute
from poise.engine.step import make_move
from poise.errors import RecipeError
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.checks.suspicious import unused_labels_note
from poise.recipe.model import Recipe
from poise.runs import state_tensors
from poise.training import run_info
from poise.training.output_ranges import check_output_ranges, label_dominates
from poise.training.state import TrainState, check_single_sample_batch
from poise.user_code.loading import allow_user_code
from poise.utils.printing import agree, count_noun
from poise.watch.base import EQUILIBRIUM_LOSS, FAMILIES

APART = 20
"""How many times as many weights one player may have before it is spoken of (tip T22): SNGAN's and SAGAN's G have
fifteen times D's at the shipped width, and train (docs/zoo.md)."""

LOOKED_AT = 20_000
"""Pictures among which copies are looked for."""

COPIES, SINGLE = 0.01, 3.0
"""The share of copies, and the pictures per class, from which on either is spoken of."""

TIMED, PATIENCE = 5, 20.0
"""Steps that are timed, and the seconds after which no further one is begun."""

ALONE, BLOCK = 400, 50
"""Moves that D gets in the warm-up, and how many of them are told as one."""

TOLD, RIGHT = 0.2, 0.95
"""The warm-up is passed with a loss below this share of the even level, or with this share of right answers."""


class Estimate(NamedTuple):
    """What a run will cost, by a few real steps on this machine.

    Attributes:
        seconds_per_step: their median.
        seconds: of all steps, without measuring.
        megabytes: that this process held at most; None where the system does not say.
        save_megabytes: of one save.
        parameters: of each player, and of G's encoder.
    """

    seconds_per_step: float
    seconds: float
    megabytes: float | None
    save_megabytes: float
    parameters: dict[str, int]


class WarmUp(NamedTuple):
    """How D did alone.

    Attributes:
        moves: that it made.
        losses: its adversarial loss, in blocks of 50 moves.
        passed: whether it learned to tell.
        words: what that means.
    """

    moves: int
    losses: list[float]
    passed: bool
    words: str


class Report(NamedTuple):
    """All that was found."""

    findings: Findings
    notes: list[str]
    estimate: Estimate | None
    warm_up: WarmUp | None

    def as_json(self) -> dict[str, Any]:
        """As `check --json` prints it."""
        told: dict[str, Any] = {
            "refusals": [finding._asdict() for finding in self.findings.refusals],
            "warnings": [finding._asdict() for finding in self.findings.warnings],
            "notes": self.notes,
        }
        if self.estimate is not None:
            told["estimate"] = self.estimate._asdict()
        if self.warm_up is not None:
            told["warm_up"] = self.warm_up._asdict()
        return told


def check(
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    with_data: bool = True,
    warm_up: bool = False,
    device: str = "auto",
    precision: str = "auto",
    trust_code: bool = False,
) -> Report:
    """Look at a recipe, its data and its players.

    Args:
        recipe: what shall be trained.
        data_root: where data sets by name are looked for.
        with_data: whether to load the data; without it the recipe alone is looked at.
        warm_up: whether D trains alone for some hundred moves.
        device: as for training.
        precision: as for training.
        trust_code: whether Python files that the recipe names may run.

    Raises:
        DataError: the data can't be loaded.
        RecipeError: the device is not there, or code is not trusted.
    """
    allow_user_code(recipe, trust_code)
    findings, notes = check_compatibility(recipe), list[str]()
    if not findings.refusals and isinstance(recipe.data, ImageDataConfig):
        findings = check_compatibility(recipe, (3, recipe.data.size, recipe.data.size))
    if findings.refusals or not with_data:
        return Report(findings, notes, None, None)
    compute = choose_compute(device, precision, recipe)
    with loading_memory(recipe.data):
        loaded = recipe.data.load(data_root)
    notes += loaded.notes + unused_labels_note(recipe, len(loaded.train.classes))
    findings = check_compatibility(recipe, loaded.train.shape, len(loaded.train.classes))
    findings.warnings += [Finding("data", doubt.message, doubt.tip, doubt.cure) for doubt in loaded.warnings]
    if isinstance(loaded.train, SizedSource):
        _pictures(recipe, loaded, findings)
    if findings.refusals:
        return Report(findings, notes, None, None)
    try:
        here = TrainState(recipe, compute, loaded)
        check_single_sample_batch(recipe, compute, loaded)
        findings.warnings += check_output_ranges(recipe, loaded.train)
        if recipe.labels.g is not None:
            classes = len(loaded.train.classes)
            findings.warnings += label_dominates(here.game.g.net, recipe.latent, classes, here.streams)
    except RecipeError as error:
        findings.refuse(error)
        return Report(findings, notes, None, None)
    wide = [side for side, network in recipe.network if hasattr(network, "width")]
    _capacities(run_info.parameter_counts(here.game), findings, wide)
    learner = Side.D if recipe.has_discriminator else Side.G
    told = (
        None
        if not warm_up
        else warm_up_discriminator(here)
        if recipe.has_discriminator
        else warm_up_reconstruction(here)
    )
    if told is not None and not told.passed:
        cure = f"look at the data, at {learner.upper()}'s rate and at its network before anything else"
        findings.warnings.append(Finding(f"network.{learner}", told.words, "T24", cure))
    here.initialize()
    return Report(findings, notes, _estimate(here), told)


def _pictures(recipe: Recipe, loaded: DataSplits, findings: Findings) -> None:
    """Too few, all alike, copies of one another, classes that are none."""
    train = loaded.train
    assert isinstance(train, SizedSource)

    def warn(where: str, message: str, tip: str, cure: str) -> None:
        findings.warnings.append(Finding(where, message, tip, cure))

    if len(train) < recipe.batch:
        reason = f"a batch of {recipe.batch} has pictures twice: there {agree(len(train), 'is', 'are')} {len(train):,}"
        warn("batch", reason, "M02", f"set it to {max(2, len(train) // 2)}, or bring more pictures")
    images = train.gather(train.evenly_spaced(LOOKED_AT)).images
    flat = images.flatten(1)
    plain = int((flat.amin(1) == flat.amax(1)).sum())
    if plain > COPIES * len(flat):
        warn(
            "data",
            f"{plain:,} of {len(flat):,} pictures {agree(plain, 'is', 'are')} of one colour",
            "T01",
            "look at them, and leave them out",
        )
    digests = {hashlib.blake2b(row.numpy().tobytes(), digest_size=8).digest() for row in flat}
    if (copies := len(flat) - len(digests)) > max(COPIES * len(flat), plain):
        told = agree(copies, "is a copy of another", "are copies of others")
        reason = f"{copies:,} of {len(flat):,} pictures {told}: G will draw those more often"
        warn("data", reason, "M02", "leave the copies out")
    classes = len(train.classes)
    if classes == 1:
        reason = f"all pictures are of one class, '{train.classes[0]}'"
        warn("data", reason, "T13", "name the folder above the classes, or leave the labels out")
    elif classes and len(train) / classes < SINGLE:
        reason = f"{count_noun(classes, 'class', 'classes')} for {count_noun(len(train), 'picture')} are hardly classes"
        warn("data", reason, "T13", "name the folder one level up, or put all pictures into one")


def _capacities(sizes: dict[str, int], findings: Findings, wide: Sequence[str] = ("g", "d")) -> None:
    """Players of very different size; the advice names the widths of those that have one."""
    if "d" not in sizes:
        return
    sizes = {side: sizes[side] for side in ("g", "d")}
    larger, smaller = sorted(sizes, key=sizes.__getitem__, reverse=True)
    if sizes[larger] > APART * max(1, sizes[smaller]):
        told = f"{count_noun(sizes[larger], 'weight')} against {sizes[smaller]:,}"
        reason = f"{larger.upper()} has {sizes[larger] / max(1, sizes[smaller]):.0f} times as many weights: {told}"
        ways = [f"network.{side}.width {how}" for side, how in ((smaller, "higher"), (larger, "lower")) if side in wide]
        cure = (
            f"set {' or '.join(ways)}" if ways else f"give {smaller.upper()} more channels, or {larger.upper()} fewer"
        )
        findings.warnings.append(Finding(f"network.{larger}", reason, "T22", cure))


def _estimate(here: TrainState) -> Estimate:
    """A first step to warm up, then a few on the clock."""
    began = time.perf_counter()
    here.step()
    times: list[float] = []
    while len(times) < TIMED and (not times or time.perf_counter() - began < PATIENCE):
        start = time.perf_counter()
        here.step()
        here.step_metrics.reduce()  # waits for the device
        times.append(time.perf_counter() - start)
    saved = sum(
        t.numel() * t.element_size() for t in state_tensors.collect_tensors(here.game, here.step_metrics).values()
    )
    each = median(times)
    sizes = run_info.parameter_counts(here.game)
    return Estimate(each, each * here.recipe.steps, _held(here.compute.device), saved / 1e6, sizes)


def _held(device: torch.device) -> float | None:
    """Megabytes: of the device if it has its own, else of this process; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most / 1e3


def warm_up_discriminator(here: TrainState, moves: int = ALONE) -> WarmUp:
    """D against an untrained G that keeps still: real pictures from noise is an easy task, and its loss must go to 0.

    Args:
        here: a run before its first step; it is not fit to be trained after this.
        moves: how many D gets at most; it stops when it can tell.
    """
    recipe = here.recipe
    family = FAMILIES.get(str(recipe.objective.tag()))
    losses: list[float] = []
    noise = 0.0
    for done in range(moves):
        context = MoveContext(done, max(recipe.steps, moves), recipe.batch, here.streams).for_move(Side.D, 0)
        here.streams.seed_global("step", done)
        make_move(here.game, here.batches, context, here.step_metrics)
        if (done + 1) % BLOCK:
            continue
        told = here.step_metrics.reduce()
        stats = {name: stat.mean for name, stat in told.items()}
        noise = max(noise, told["d/adversarial"].std)
        losses.append(stats["d/adversarial"])
        if family in EQUILIBRIUM_LOSS and (
            losses[-1] < TOLD * EQUILIBRIUM_LOSS[family] or stats.get("d/accuracy", 0.0) > RIGHT
        ):
            level = f"(equilibrium: {EQUILIBRIUM_LOSS[family]:.3g})"
            words = f"alone D learned to tell within {done + 1} moves: its loss is {losses[-1]:.3g} {level}"
            return WarmUp(done + 1, losses, True, words)
    fell = _fell(losses, noise)
    if family in EQUILIBRIUM_LOSS:
        level = f"(equilibrium: {EQUILIBRIUM_LOSS[family]:.3g})"
        words = f"alone against an untrained G, D's loss is {losses[-1]:.3g} {level} after {moves} moves: it can't tell"
        return WarmUp(moves, losses, False, words)
    words = f"alone D's loss went from {losses[0]:.3g} to {losses[-1]:.3g} in {moves} moves"
    return WarmUp(moves, losses, fell, words if fell else f"{words}: it learned nothing")


def warm_up_reconstruction(here: TrainState, moves: int = ALONE) -> WarmUp:
    """A game for one has no rival to be held still: what it pays must fall by itself within a few hundred steps.

    Args:
        here: a run before its first step; it is not fit to be trained after this.
        moves: how many steps it gets.
    """
    losses: list[float] = []
    noise = 0.0
    for done in range(moves):
        here.step()
        if (done + 1) % BLOCK == 0:
            told = here.step_metrics.reduce()["g/reconstruction"]
            losses.append(told.mean)
            noise = max(noise, told.std)
    fell = _fell(losses, min(noise, 0.05 * abs(losses[0])))
    words = f"what rebuilding missed went from {losses[0]:.3g} to {losses[-1]:.3g} in {moves} steps"
    return WarmUp(moves, losses, fell, words if fell else f"{words}: it learned nothing")


def _fell(losses: list[float], noise: float) -> bool:
    """Whether the last is below the first by more than chance."""
    return losses[-1] < losses[0] - max(0.05 * abs(losses[0]), noise)
