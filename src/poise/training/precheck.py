"""The check before training: incompatible settings, suspicious ones, the cost of the run and, optionally, a warm-up.

Nothing is written. The recipe is checked first, then the data, then the players. A few real steps give the time per
step; in the warm-up, D alone is trained against an untrained G, which shows whether it can learn at all (tip T24).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poise.core.ranks import ALONE
from poise.core.types import MoveContext, Side
from poise.data.config import ImageDataConfig, loading_memory
from poise.data.source import BadFile, DataSplits, SizedSource
from poise.engine.batches import notes_on_starts
from poise.engine.compute import choose_compute
from poise.engine.step import make_move
from poise.errors import RecipeError
from poise.measure.evaluator import notes_on_known_images
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.checks.suspicious import untrained_layers_note, unused_labels_note
from poise.recipe.model import Recipe
from poise.runs import state_tensors
from poise.training import run_info
from poise.training.component_checks import check_components
from poise.training.initial_weights import describe_initial_weights, read_initial_weights
from poise.training.output_ranges import check_output_ranges, label_dominates
from poise.training.rank_checks import check_division, of_one_part
from poise.training.repeats import Repeats, count_repeats
from poise.training.state import TrainState, check_single_sample_batch
from poise.training.step_time import StepTime, row_seconds, time_steps
from poise.user_code.loading import allow_user_code
from poise.utils.printing import agree, count_noun
from poise.watch.base import EQUILIBRIUM_LOSS, FAMILIES
from poise.watch.monitor import MonitorConfig, idle_settings

MAX_SIZE_RATIO = 20
"""The largest ratio of the players' numbers of weights without a warning (tip T22). The G of SNGAN and SAGAN has
fifteen times as many weights as D at the shipped width, and these train (docs/zoo.md)."""

MAX_COPIES, MIN_IMAGES_PER_CLASS = 0.01, 3.0
"""The largest fraction of copies and the smallest number of images per class without a warning."""

WARM_UP_MOVES, BLOCK = 400, 50
"""The largest number of moves of the warm-up, and the number of moves over which the loss is averaged."""

PASSING_LOSS, PASSING_ACCURACY = 0.2, 0.95
"""The warm-up is passed with a loss below this fraction of the equilibrium, or with an accuracy above this."""


class Estimate(NamedTuple):
    """The estimated cost of a run, from a few real steps on this machine.

    Attributes:
        step_time: the time of a step.
        seconds: the time of all steps and logged rows, without evaluations.
        megabytes: the peak memory of this process, or of the GPU; None if the system does not report it.
        save_megabytes: the size of one checkpoint.
        parameters: the number of parameters of each player and of G's encoder.
    """

    step_time: StepTime
    seconds: float
    megabytes: float | None
    save_megabytes: float
    parameters: dict[str, int]

    @property
    def seconds_per_step(self) -> float:
        """The mean time of a step in which both players move."""
        return self.step_time.seconds

    def as_json(self) -> dict[str, Any]:
        """The estimate as `check --json` prints it."""
        entries = self._asdict()
        del entries["step_time"]
        return {"seconds_per_step": self.seconds_per_step, **entries}


class WarmUp(NamedTuple):
    """The result of the warm-up.

    Attributes:
        moves: the number of moves that were made.
        losses: the mean loss of each block of 50 moves.
        passed: whether the player has learned anything.
        words: the result as a message.
    """

    moves: int
    losses: list[float]
    passed: bool
    words: str


class Report(NamedTuple):
    """The result of the check.

    Attributes:
        findings: refusals and warnings.
        notes: what else there is to know.
        estimate: the cost of the run; None if nothing was built.
        warm_up: the result of the warm-up; None without one.
        bad_files: the files and folders of the data that can't be used.
    """

    findings: Findings
    notes: list[str]
    estimate: Estimate | None
    warm_up: WarmUp | None
    bad_files: Sequence[BadFile] = ()

    def as_json(self) -> dict[str, Any]:
        """The report as `check --json` prints it."""
        report: dict[str, Any] = {
            "refusals": [finding._asdict() for finding in self.findings.refusals],
            "warnings": [finding._asdict() for finding in self.findings.warnings],
            "notes": self.notes,
            "bad_files": [file._asdict() for file in self.bad_files],
        }
        if self.estimate is not None:
            report["estimate"] = self.estimate.as_json()
        if self.warm_up is not None:
            report["warm_up"] = self.warm_up._asdict()
        return report


def check(
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    with_data: bool = True,
    warm_up: bool = False,
    device: str = "auto",
    precision: str = "auto",
    accumulate: int = 1,
    trust_code: bool = False,
) -> Report:
    """Check a recipe, its data and its players.

    Args:
        recipe: the recipe.
        data_root: the folder that is searched for data sets given by name.
        with_data: whether to load the data; otherwise only the recipe is checked.
        warm_up: whether to train D alone for some hundred moves.
        device: as for training.
        precision: as for training.
        accumulate: as for training.
        trust_code: whether Python files that the recipe names may be run.

    Raises:
        DataError: the data can't be data.
        CheckpointError: `[init]` names no run, or one without a valid checkpoint.
        RecipeError: the device is not available, or user code is not trusted.
    """
    allow_user_code(recipe, trust_code)
    findings, notes = check_compatibility(recipe), notes_on_monitor(recipe)
    if not findings.refusals and isinstance(recipe.data, ImageDataConfig):
        findings = check_compatibility(recipe, (3, *recipe.data.height_width))
    if findings.refusals or not with_data:
        return Report(findings, notes, None, None)
    compute = choose_compute(device, precision, recipe, accumulate)
    with loading_memory(recipe.data):
        data = recipe.data.load(data_root)
    notes += data.notes + unused_labels_note(recipe, len(data.train.classes)) + untrained_layers_note(recipe)
    notes += notes_on_starts(recipe.latent, data)
    notes += [] if recipe.measure is None else notes_on_known_images(data)
    findings = check_compatibility(recipe, data.train.shape, len(data.train.classes), data.train.parts)
    findings.warnings += [Finding("data", warning.message, warning.tip, warning.cure) for warning in data.warnings]
    if isinstance(data.train, SizedSource):
        _check_images(recipe, data, findings)
    if findings.refusals:
        return Report(findings, notes, None, None, data.bad_files)
    try:
        check_division(recipe, ALONE, accumulate)
        initial = None if recipe.init is None else read_initial_weights(recipe.init, trust_code=trust_code)
        tensors, known = (None, ()) if initial is None else (initial.tensors, initial.classes)
        state = TrainState(recipe, compute, data, tensors, initial_classes=known)
        notes += state.critics.notes
        notes += [] if initial is None else describe_initial_weights(initial, state.game, data.train.classes)
        check_single_sample_batch(of_one_part(recipe, ALONE, accumulate), compute, data)
        check_components(state)
        findings.warnings += check_output_ranges(recipe, data.train)
        if recipe.labels.g is not None:
            classes = len(data.train.classes)
            findings.warnings += label_dominates(state.game.g.net, state.sampling_latent, classes, state.streams)
    except RecipeError as error:
        findings.refuse(error)
        return Report(findings, notes, None, None, data.bad_files)
    with_width = [side for side, network in recipe.network.configs.items() if hasattr(network, "width")]
    if recipe.network.d is None or not recipe.network.d.small_on_purpose:
        _compare_sizes(run_info.parameter_counts(state.game), findings, with_width)
    learner = Side.D if recipe.has_discriminator else Side.G
    result: WarmUp | None = None
    if warm_up:
        result = warm_up_discriminator(state) if recipe.has_discriminator else warm_up_reconstruction(state)
    if result is not None and not result.passed:
        cure = f"check the data, {learner.upper()}'s learning rate and its network first"
        findings.warnings.append(Finding(f"network.{learner}", result.words, "T24", cure))
    state.initialize()
    return Report(findings, notes, _estimate(state), result, data.bad_files)


def notes_on_monitor(recipe: Recipe) -> list[str]:
    """A note on each setting of a detector in the table `[monitor]` that can't act in runs of this recipe."""
    idle = idle_settings(recipe.monitor or MonitorConfig(), FAMILIES.get(str(recipe.objective.tag())))
    return [f"monitor.{table}.{name} has no effect: {reason}" for table, name, reason in idle]


def _check_images(recipe: Recipe, data: DataSplits, findings: Findings) -> None:
    """Warn if there are few images, copies, images of a single colour or implausible classes.

    Of two domains each is checked; pairs are copies if both of their images are.
    """
    train = data.train
    assert isinstance(train, SizedSource)
    domains = [one for one in train.domain_sources if isinstance(one, SizedSource)] or [train]

    def warn(field: str, message: str, tip: str, cure: str) -> None:
        findings.warnings.append(Finding(field, message, tip, cure))

    fewest = min(map(len, domains))
    if fewest < recipe.batch:
        available = f"there {agree(fewest, 'is', 'are')} only {fewest:,}"
        reason = f"a batch of {recipe.batch} contains some images twice, because {available}"
        warn("batch", reason, "M02", f"set it to {max(2, fewest // 2)}, or add images")
    for name, source in zip(("a: ", "b: ") if len(domains) > 1 else ("",), domains, strict=True):
        found = count_repeats(source, mirror=recipe.mirrors_images)
        if found.plain > MAX_COPIES * found.total:
            reason = (
                f"{name}{found.plain:,} of {found.total:,} images {agree(found.plain, 'is', 'are')} of a single colour"
            )
            warn("data", reason, "T01", "check these images, and remove them")
        if not train.paired and (reason := _copies(found, "images", found.plain)):
            warn("data", name + reason, "M02", "remove the copies")
    if train.paired and (reason := _copies(count_repeats(train, mirror=recipe.mirrors_images), "pairs")):
        warn("data", reason, "M02", "remove the copies")
    classes = len(train.classes)
    if classes == 1:
        reason = f"all images are of one class, '{train.classes[0]}'"
        warn("data", reason, "T13", "name the parent folder of the classes, or remove the labels from the recipe")
    elif classes and len(train) / classes < MIN_IMAGES_PER_CLASS:
        reason = (
            f"{count_noun(classes, 'class', 'classes')} for {count_noun(len(train), 'image')} are probably not classes"
        )
        warn("data", reason, "T13", "name the folder one level up, or put all images into one folder")


def _copies(found: Repeats, what: str, expected: int = 0) -> str:
    """What is wrong with samples of which too many are copies; empty if nothing is.

    Args:
        found: see `count_repeats`.
        what: "images" or "pairs".
        expected: how many copies need no words, because something else is said of them.
    """
    if found.copies <= max(MAX_COPIES * found.total, expected):
        return ""
    verb = agree(found.copies, "is a copy of another", "are copies of others")
    flips = f" or of {agree(found.copies, 'its flip', 'their flips')}" if found.flips else ""
    return f"{found.copies:,} of {found.total:,} {what} {verb}{flips}: G will generate those more often"


def _compare_sizes(sizes: dict[str, int], findings: Findings, with_width: Sequence[str] = ("g", "d")) -> None:
    """Warn if the players differ much in size; the advice names `width` for those networks that have this field."""
    if "d" not in sizes:
        return
    sizes = {side: sizes[side] for side in ("g", "d")}
    larger, smaller = sorted(sizes, key=sizes.__getitem__, reverse=True)
    if sizes[larger] > MAX_SIZE_RATIO * max(1, sizes[smaller]):
        ratio = sizes[larger] / max(1, sizes[smaller])
        counts = f"{sizes[larger]:,} against {sizes[smaller]:,}"
        reason = f"{larger.upper()} has {ratio:.0f} times as many weights as {smaller.upper()}: {counts}"
        changes = ((smaller, "higher"), (larger, "lower"))
        widths = [f"network.{side}.width {change}" for side, change in changes if side in with_width]
        other = f"give {smaller.upper()} more channels, or {larger.upper()} fewer"
        cure = f"set {' or '.join(widths)}" if widths else other
        findings.warnings.append(Finding(f"network.{larger}", reason, "T22", cure))


def _estimate(state: TrainState) -> Estimate:
    """The cost of a run, from a few steps and the diagnostics of a row, which also take memory."""
    step_time, seconds_per_row = time_steps(state), row_seconds(state)
    num_rows = math.ceil(state.recipe.steps / state.recipe.log.rows)
    seconds = step_time.of_run(state.recipe.steps) + num_rows * seconds_per_row
    tensors = state_tensors.collect_tensors(state.game, state.step_metrics).values()
    checkpoint_size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    sizes = run_info.parameter_counts(state.game)
    memory = _peak_megabytes(state.compute.device)
    if memory is not None and state.compute.device.type != "cuda":
        memory += checkpoint_size / 1e6  # a checkpoint is written from a copy in this process
    return Estimate(step_time, seconds, memory, checkpoint_size / 1e6, sizes)


def _peak_megabytes(device: torch.device) -> float | None:
    """The peak memory of a CUDA device, otherwise of this process; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def warm_up_discriminator(state: TrainState, moves: int = WARM_UP_MOVES) -> WarmUp:
    """Train D against an untrained G with fixed weights.

    Telling real images from noise is an easy task, so D's loss must approach 0.

    Args:
        state: the state of a run before its first step; it can't be trained any more after this.
        moves: the largest number of moves; D stops earlier when it discriminates.
    """
    recipe = state.recipe
    family = FAMILIES.get(str(recipe.objective.tag()))
    losses: list[float] = []
    noise = 0.0  # within the last block: in the first ones the loss falls
    for done in range(moves):
        steps, parts = max(recipe.steps, moves), state.compute.accumulate
        context = MoveContext(done, steps, recipe.batch, state.streams, accumulate=parts).for_move(Side.D, 0)
        state.streams.seed_global("step", done)
        make_move(state.game, state.batches, context, state.step_metrics)
        if (done + 1) % BLOCK:
            continue
        stats = state.step_metrics.reduce()
        loss, accuracy = stats["d/adversarial"], stats.get("d/accuracy")
        noise = loss.std
        losses.append(loss.mean)
        if family in EQUILIBRIUM_LOSS and (
            loss.mean < PASSING_LOSS * EQUILIBRIUM_LOSS[family]
            or (accuracy is not None and accuracy.mean > PASSING_ACCURACY)
        ):
            level = f"its loss is {loss.mean:.3g} (equilibrium: {EQUILIBRIUM_LOSS[family]:.3g})"
            return WarmUp(done + 1, losses, True, f"D alone learned to discriminate within {done + 1} moves: {level}")
    if family in EQUILIBRIUM_LOSS:
        level = f"its loss is {losses[-1]:.3g} (equilibrium: {EQUILIBRIUM_LOSS[family]:.3g})"
        message = f"D alone, against an untrained G, can't discriminate after {moves} moves: {level}"
        return WarmUp(moves, losses, False, message)
    has_fallen = _has_fallen(losses, noise)
    message = f"the loss of D alone went from {losses[0]:.3g} to {losses[-1]:.3g} in {moves} moves"
    return WarmUp(moves, losses, has_fallen, message if has_fallen else f"{message}: D learned nothing")


def warm_up_reconstruction(state: TrainState, moves: int = WARM_UP_MOVES) -> WarmUp:
    """Train without a discriminator: the reconstruction loss must fall within a few hundred steps.

    Args:
        state: the state of a run before its first step; it can't be trained any more after this.
        moves: the number of steps.
    """
    losses: list[float] = []
    noise = 0.0
    for done in range(moves):
        state.step()
        if (done + 1) % BLOCK == 0:
            loss = state.step_metrics.reduce()["g/reconstruction"]
            losses.append(loss.mean)
            noise = loss.std
    has_fallen = _has_fallen(losses, noise)
    message = f"the reconstruction loss went from {losses[0]:.3g} to {losses[-1]:.3g} in {moves} steps"
    return WarmUp(moves, losses, has_fallen, message if has_fallen else f"{message}: G learned nothing")


def _has_fallen(losses: list[float], noise: float) -> bool:
    """Whether the last loss is below the first by more than chance."""
    return losses[-1] < losses[0] - max(0.05 * abs(losses[0]), noise)
