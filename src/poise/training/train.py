"""The start of a run: the recipe is checked, the data loaded and the folder claimed before anything is written."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from poise.core.ranks import ALONE, Ranks
from poise.data.config import ImageDataConfig, loading_memory
from poise.engine.batches import notes_on_starts
from poise.engine.compute import choose_compute, is_available
from poise.errors import CheckpointError, PoiseError, RankLost, RecipeError, memory_errors
from poise.measure.evaluator import notes_on_known_images
from poise.measure.extractors import check_features
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.suspicious import untrained_layers_note, unused_labels_note
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences
from poise.runs import checkpoint_folder
from poise.runs.code_copies import notes_on_copies, substitute_missing
from poise.runs.folder import RunFolder, Stamp, unused_name
from poise.runs.reload import moved_note, reload_data, root_of_run
from poise.runs.resume import KEEP, find_stage
from poise.runs.run import Run
from poise.training.agreement import Agreement
from poise.training.component_checks import check_components
from poise.training.follower import Follower
from poise.training.initial_weights import read_initial_weights
from poise.training.listener import NullListener, ProgressListener, SafeListener
from poise.training.machine_checks import check_same_data, check_same_start, check_shared_folder
from poise.training.output_ranges import check_output_ranges
from poise.training.rank_checks import check_advise, check_division, division_note, of_one_part
from poise.training.signals import Signals
from poise.training.state import check_single_sample_batch
from poise.training.trackers.choose import check_trackers
from poise.training.trainer import Trainer
from poise.user_code.loading import allow_user_code
from poise.utils.launcher import number_of_ranks
from poise.utils.paths import expand_home, folder_around
from poise.utils.printing import count_noun, shorten_list
from poise.utils.progress import progress_to


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    accumulate: int | None = None,
    data_root: Path | None = None,
    listener: ProgressListener | None = None,
    trust_code: bool = False,
) -> Run:
    """Train a GAN and write everything about the run to a run folder.

    Args:
        recipe: what to train.
        out: the run folder. The default is `runs/NAME`, with a number if this folder exists.
        resume: continue the run in `out`. On the same machine with the same libraries the result is bit-identical.
        device: "auto", "cpu", "cuda", "cuda:1". "auto" is the device of the run that is resumed, if it is available.
        precision: "auto", "fp32" or "bf16" (autocast). "auto" is the precision of the run that is resumed.
        accumulate: the number of parts of a batch whose gradients are computed one after another, which saves memory;
            None for that of the run that is resumed, or else 1.
        data_root: the folder that is searched for data sets given by name; None for that of the run that is resumed,
            or else `data` in the current directory.
        listener: notified as training proceeds.
        trust_code: whether Python files that the recipe names may be run (docs/custom-components.md).

    Raises:
        RecipeError, DataError, CheckpointError: before anything is written.
        Diverged, DiskError, OutOfMemory: during training; earlier checkpoints stay.
        Stopped: a signal or the listener has stopped the run; its state is saved.
    """
    with _ranks(device) as (ranks, own_device):
        start = _Start(recipe, out, resume, own_device, precision, accumulate, data_root, trust_code)
        with _open(start, listener, ranks) as run:
            return run.run()


@contextmanager
def open_trainer(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    accumulate: int | None = None,
    data_root: Path | None = None,
    listener: ProgressListener | None = None,
    trust_code: bool = False,
) -> Iterator[Trainer]:
    """Check a recipe and its data, claim the run folder, and prepare the trainer whose steps are made in this block.

    The arguments and errors are those of `train`, which runs the trainer to the last step. Nothing is written before
    `Trainer.session` begins.
    """
    start = _Start(recipe, out, resume, device, precision, accumulate, data_root, trust_code)
    with _open(start, listener, ALONE) as run:
        assert isinstance(run, Trainer)
        yield run


@contextmanager
def _ranks(device: str) -> Iterator[tuple[Ranks, str]]:
    """The ranks that a launcher has started, and the name of this one's device."""
    if number_of_ranks() == 1:
        yield ALONE, device
        return
    from poise.core.process_ranks import connected_ranks

    with connected_ranks(device) as connected:
        yield connected


def tell_ranks(error: Exception, device: str) -> None:
    """Tell the other ranks of an error that comes before `train`, in which they wait for this rank.

    Args:
        error: the error.
        device: see `train`.

    Raises:
        RankFailed: rank 0 ends at the same time, so that its message is enough.
    """
    with suppress(RankLost, RecipeError), _ranks(device) as (ranks, _):
        Agreement(ranks).fail(error)


class _Start(NamedTuple):
    """The arguments of `train`, without the listener."""

    recipe: Recipe
    out: str | Path | None
    resume: bool
    device: str
    precision: str
    accumulate: int | None
    data_root: Path | None
    trust_code: bool


def _with_recorded(start: _Start, ranks: Ranks) -> _Start:
    """The arguments, with what the run that is resumed computed with before where they leave the choice.

    Of several ranks, each has its own device. One that is not available any more is chosen anew.
    """
    if not start.resume or start.out is None:
        return start
    folder = RunFolder(Path(start.out))
    known = _read_info(folder) or checkpoint_folder.newest_manifest(folder.saves)
    device, precision, accumulate = known.get("device"), known.get("precision"), known.get("accumulate")
    if start.device == "auto" and ranks.size == 1 and isinstance(device, str) and is_available(device):
        start = start._replace(device=device)
    if start.precision == "auto" and precision in ("fp32", "bf16"):
        start = start._replace(precision=precision)
    if start.accumulate is None and isinstance(accumulate, int) and accumulate > 1:
        start = start._replace(accumulate=accumulate)
    return start


@contextmanager
def _open(start: _Start, listener: ProgressListener | None, ranks: Ranks) -> Iterator[Trainer | Follower]:
    """Prepare the trainer, see `open_trainer`, or its follower on a rank other than 0."""
    agreement, heard = Agreement(ranks), listener if ranks.leads else None
    start = _with_recorded(start, ranks)
    with Signals() as signals, _memory_errors(start), _safe_listener(heard, signals) as safe, ExitStack() as claimed:
        run = None
        while run is None:  # a second time only if the default folder has been taken meanwhile
            run = _prepare_and_claim(start, safe, signals, agreement, claimed)
        yield run


def _prepare_and_claim(
    start: _Start, listener: ProgressListener, signals: Signals, agreement: Agreement, claimed: ExitStack
) -> Trainer | Follower | None:
    """Do what `_prepare` does, and claim the folder until `claimed` is closed.

    Returns:
        The trainer or follower; None if no folder was named and another process has taken the default one since its
        name was chosen. Several ranks have no other choice then, as each of them has chosen it.

    Raises:
        RecipeError, DataError, CheckpointError, DiskError: see `train`.
    """
    with agreement.failures():
        run, stamp = _prepare(start, listener, signals, agreement)
        if not isinstance(run, Follower):
            try:
                note = claimed.enter_context(run.folder.claim())
                _refuse_changed_folder(run.folder, stamp)
            except RecipeError:
                if start.out is not None or agreement.ranks.size > 1:
                    raise
                claimed.close()
                return None
            run.notes += [note] if note else []
        check_shared_folder(agreement, run.folder)
        return run


def _prepare(
    start: _Start, listener: ProgressListener, signals: Signals, agreement: Agreement
) -> tuple[Trainer | Follower, Stamp]:
    """Check everything and load the data, without writing anything; returns the state of the folder as well.

    Raises:
        RecipeError, DataError, CheckpointError: see `train`.
    """
    recipe, resume, ranks = start.recipe, start.resume, agreement.ranks
    folder = RunFolder(unused_name(Path("runs") / recipe.name) if start.out is None else Path(start.out))
    stamp = folder.stamp()
    folder.check(resume=resume)
    if not resume or folder.start_over:
        _refuse_out_in_data(folder.path, recipe)
    info = _read_info(folder) if resume else {}
    code_notes = substitute_missing(recipe, folder.code, info.get("code", {}))
    allow_user_code(recipe, start.trust_code)
    accumulate = 1 if start.accumulate is None else start.accumulate
    compute = choose_compute(start.device, start.precision, recipe, accumulate)
    check_compatibility(recipe).raise_first()
    check_division(recipe, ranks, accumulate, resume=resume and not folder.start_over)
    check_advise(recipe, ranks)
    check_trackers(recipe.log.to)
    notes = [f"{folder.path} has no checkpoint yet: the run starts from the beginning"] if folder.start_over else []
    resume = resume and not folder.start_over
    initial, original = None, None
    if resume:
        stage = find_stage(folder, _with_known_checksum(folder, recipe))
        recipe, original = stage.recipe, stage.original
        notes += _check_same_recipe(folder, recipe, stage.known)
        _check_same_origin(folder, recipe, trust_code=start.trust_code)
        check_division(recipe, ranks, accumulate, resume=True)
    elif recipe.init is not None:
        initial = read_initial_weights(recipe.init, trust_code=start.trust_code)
        notes += notes_on_copies(recipe, RunFolder(expand_home(recipe.init.run)).code)
        recipe = recipe.model_copy(update={"init": initial.init})
    if isinstance(recipe.data, ImageDataConfig):
        check_compatibility(recipe, (3, *recipe.data.height_width)).raise_first()
    fingerprint, root = info.get("data", {}).get("fingerprint"), start.data_root
    check_same_start(agreement, recipe, compute, resume=resume)
    with agreement.leader_first(), loading_memory(recipe.data):
        root = root_of_run(root, info, recipe.data, folder.path)
        data = reload_data(recipe.data, fingerprint, folder.path, root) if resume else recipe.data.load(root)
    check_same_data(agreement, data.train.fingerprint)
    findings = check_compatibility(recipe, data.train.shape, len(data.train.classes), data.train.parts)
    findings.raise_first()
    if recipe.measure is not None:
        check_features(recipe.measure.features, data.train)
    if not resume:
        check_single_sample_batch(of_one_part(recipe, ranks, accumulate), compute, data)
        findings.warnings += check_output_ranges(recipe, data.train)
    notes += code_notes + data.notes + unused_labels_note(recipe, len(data.train.classes))
    notes += notes_on_starts(recipe.latent, data)
    notes += [] if recipe.measure is None else notes_on_known_images(data)
    notes += untrained_layers_note(recipe) + division_note(recipe, ranks, accumulate)
    notes += [f"warning, data: {warning.message}; {warning.cure}" for warning in data.warnings]
    notes += [f"{warning.field}: {warning.message}; {warning.cure}" for warning in findings.warnings]
    with agreement.leader_first():  # which may train a classifier of the data, for the cache
        if ranks.leads:
            run: Trainer | Follower = Trainer(
                recipe,
                folder,
                compute,
                data,
                notes,
                listener,
                signals,
                agreement,
                resume=resume,
                initial=initial,
                original=original,
                data_root=root,
            )
        else:
            run = Follower(
                recipe, folder, compute, data, signals, agreement, resume=resume, initial=initial, original=original
            )
    check_components(run.state)
    if run.first > recipe.steps:
        cure = f"set it to {run.first} or more"
        what = f"the run has already done {count_noun(run.first, 'step')}"
        raise RecipeError(what, where="steps", found=str(recipe.steps), cure=cure)
    return run, stamp


def _refuse_out_in_data(out: Path, recipe: Recipe) -> None:
    """Refuse a run folder inside the folder of the training images, because its sample grids would become images."""
    data = folder_around(recipe.data.paths, out)
    if data is not None:
        outside = data.with_name(out.resolve().name)
        cure = f"choose an --out outside this folder, for example --out {shlex.quote(str(outside))}"
        what = "a run folder can't be inside the folder of its training images"
        raise RecipeError(what, where=f"--out {out}", found=str(data), cure=cure)


@contextmanager
def _safe_listener(listener: ProgressListener | None, signals: Signals) -> Iterator[SafeListener]:
    """The listener without its errors; it also gets the progress of long work within the context."""
    safe = SafeListener(listener or NullListener(), signals.request_stop)
    with progress_to(safe.on_progress):
        yield safe


def _refuse_changed_folder(folder: RunFolder, stamp: Stamp) -> None:
    """Refuse a folder that another run has changed since it was read, before it was claimed."""
    if folder.stamp() != stamp:
        cure = "check the folder, then repeat the command if necessary"
        what = "another run has written to this folder in the meantime"
        raise RecipeError(what, where=f"--out {folder.path}", cure=cure)


def _with_known_checksum(folder: RunFolder, new: Recipe) -> Recipe:
    """The recipe of a resumed run, with the checksum of the initial weights from its first start if it has none."""
    if new.init is None or new.init.sha256 is not None:
        return new
    with suppress(CheckpointError):
        if (old := folder.parse_recipe(decode).init) is not None:
            return new.model_copy(update={"init": new.init.model_copy(update={"sha256": old.sha256})})
    return new


def _check_same_origin(folder: RunFolder, new: Recipe, *, trust_code: bool) -> None:
    """Refuse a new path of the run that a resumed run started from, unless the weights there are the same.

    Raises:
        RecipeError: they are not, or can't be read.
    """
    with suppress(CheckpointError):
        old = folder.parse_recipe(decode)
        if new.init is None or old.init is None or new.init.run == old.init.run:
            return
    if new.init is None:
        return
    try:
        read_initial_weights(new.init, trust_code=trust_code)
    except PoiseError as error:
        what = "does not have the weights that this run started from"
        cure = "leave the option out, as a resumed run does not need them"
        raise RecipeError(what, where=f"--init-from {new.init.run}", found=error.what, cure=cure) from None


def _check_same_recipe(folder: RunFolder, new: Recipe, known: Collection[str] = ()) -> list[str]:
    """Refuse changes that a resumed run does not allow; returns notes on allowed changes that affect earlier steps.

    `known` has the cores of all recipes that the run has had, if it has changed its recipe (`find_stage`).
    """
    try:
        old = folder.parse_recipe(decode)
    except CheckpointError as error:
        return [f"{error.where}: {error.what}: it is written anew, and the checkpoints are checked instead"]
    changed = differences(old, new)
    if changed and old.core not in known:
        found = f"different values of {shorten_list(changed)}"
        raise RecipeError("a resumed run must keep its recipe", where="--resume", found=found, cure=KEEP)
    notes = moved_note(old.data, new.data)
    if old.steps != new.steps and 'over = "progress"' in new.to_toml():
        lengths = f"{count_noun(old.steps, 'step')} before, {new.steps:,} now"
        notes += [f"{lengths}: schedules over progress follow the new length from here on, not in the earlier steps"]
    return notes


def _read_info(folder: RunFolder) -> dict[str, Any]:
    """The contents of `run.json`; empty if it can't be read, because the checkpoints hold the same information."""
    with suppress(CheckpointError):
        return folder.read_info()
    return {}


def _memory_errors(start: _Start) -> AbstractContextManager[None]:
    """Convert errors of memory; the cure is less memory for each pass. A resumed run must keep its batch."""
    batch, more = start.recipe.batch, max(4, 2 * (start.accumulate or 1))
    parts = f"a batch in parts: --accumulate {more}" if batch % more == 0 else ""
    cure = f"a smaller batch needs less: --set batch={max(1, batch // 2)}" + (f"; so does {parts}" if parts else "")
    if start.resume:
        cure = f"less is needed for {parts}" if parts else "continue it on a device with more memory"
    return memory_errors("the device has too little memory", f"batch {batch}", cure)
