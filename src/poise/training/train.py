"""How a run begins: the recipe checked, the data loaded, the folder claimed. Nothing is written before that."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from poise.data.source import ImageDataConfig, loading_memory
from poise.engine.compute import choose_compute
from poise.errors import CheckpointError, RecipeError, memory_errors
from poise.measure.extractors import check_features
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.suspicious import unused_labels_note
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences
from poise.runs.code_copies import substitute_missing
from poise.runs.folder import RunFolder, unused_name
from poise.runs.reload import moved_note, reload_data
from poise.runs.run import Run
from poise.training.listener import NullListener, ProgressListener, SafeListener
from poise.training.output_ranges import check_output_ranges
from poise.training.signals import Signals
from poise.training.state import check_single_sample_batch
from poise.training.trainer import Trainer
from poise.user_code.loading import allow_user_code
from poise.utils.printing import count_noun
from poise.utils.progress import progress_to


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    data_root: Path | None = None,
    listener: ProgressListener | None = None,
    trust_code: bool = False,
) -> Run:
    """Train a GAN and leave everything about it in a run folder.

    Args:
        recipe: what to train.
        out: the run folder; left out, `runs/NAME`, numbered if it is taken.
        resume: go on with the run in `out`, bit for bit if machine and libraries are the same.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto", "fp32" or "bf16" (autocast).
        data_root: where data sets by name are looked for.
        listener: looks on.
        trust_code: whether Python files that the recipe names may run (docs/custom-components.md).

    Raises:
        RecipeError, DataError, CheckpointError: before anything is written.
        Diverged, DiskError, OutOfMemory: during training; earlier saves stay.
        Stopped: by a signal, with the state saved.
    """
    with Signals() as signals, _room_to_compute(recipe), _listening(listener, signals) as listener:
        folder = RunFolder(unused_name(Path("runs") / recipe.name) if out is None else Path(out))
        stamp = folder.stamp()
        folder.check(resume=resume)
        if not resume or folder.start_over:
            _outside(folder.path, recipe)
        known = _known(folder) if resume else {}
        code = substitute_missing(recipe, folder.code, known.get("code", {}))
        allow_user_code(recipe, trust_code)
        compute = choose_compute(device, precision, recipe)
        check_compatibility(recipe).raise_first()
        notes = [f"nothing had been saved in {folder.path} yet: it is begun anew"] if folder.start_over else []
        resume = resume and not folder.start_over
        notes += _same_run(folder, recipe) if resume else []
        if isinstance(recipe.data, ImageDataConfig):
            check_compatibility(recipe, (3, recipe.data.size, recipe.data.size)).raise_first()
        fingerprint = known.get("data", {}).get("fingerprint")
        with loading_memory(recipe.data):
            again = (fingerprint, folder.path, data_root)
            loaded = reload_data(recipe.data, *again) if resume else recipe.data.load(data_root)
        findings = check_compatibility(recipe, loaded.train.shape, len(loaded.train.classes))
        findings.raise_first()
        if recipe.measure is not None:
            check_features(recipe.measure.features, loaded.train)
        if not resume:
            check_single_sample_batch(recipe, compute, loaded)
            findings.warnings += check_output_ranges(recipe, loaded.train)
        notes += code + loaded.notes + unused_labels_note(recipe, len(loaded.train.classes))
        notes += [f"warning, data: {doubt.message}; {doubt.cure}" for doubt in loaded.warnings]
        notes += [f"{w.field}: {w.message}; {w.cure}" for w in findings.warnings]
        training = Trainer(recipe, folder, compute, loaded, notes, listener, signals, resume=resume)
        if training.first > recipe.steps:
            done = f"it has done {count_noun(training.first, 'step')}"
            raise RecipeError("the run is further already", where="steps", found=str(recipe.steps), cure=done)
        with folder.claim() as note:
            _still(folder, stamp)
            training.notes += [note] if note else []
            return training.run()


def _outside(out: Path, recipe: Recipe) -> None:
    """Refuse a run inside the folder of its own pictures: what it draws would be among them the next time."""
    path = getattr(recipe.data, "path", None)
    if path is None or not Path(path).expanduser().is_dir():
        return
    data = Path(path).expanduser().resolve()
    if out.resolve().is_relative_to(data):
        cure = f"choose an --out outside of it, for example --out {shlex.quote(str(data.with_name(out.name)))}"
        what = "a run can't lie in the folder of its own pictures"
        raise RecipeError(what, where=f"--out {out}", found=str(data), cure=cure)


@contextmanager
def _listening(listener: ProgressListener | None, signals: Signals) -> Iterator[SafeListener]:
    """The watcher, made safe, who hears how far all work inside is."""
    safe = SafeListener(listener or NullListener(), signals.request_stop)
    with progress_to(safe.on_progress):
        yield safe


def _still(folder: RunFolder, stamp: tuple[bytes, list[str]]) -> None:
    """Refuse to go by what has been read of a folder, if another run has written there before it was claimed."""
    if folder.stamp() != stamp:
        cure = "look at it, then give the command again if there is anything left to do"
        raise RecipeError("another run has written here meanwhile", where=f"--out {folder.path}", cure=cure)


def _same_run(folder: RunFolder, new: Recipe) -> list[str]:
    """Refuse what a resumed run may not change; notes on what it may, if earlier steps went by it."""
    try:
        old = folder.parse_recipe(decode)
    except CheckpointError as error:
        return [f"{error.where}: {error.what}: it is written anew; the saves tell whether the recipe is theirs"]
    changed = differences(old, new)
    if changed:
        cure = "take it back, or start a new run"
        found = f"other {', '.join(changed)}"
        raise RecipeError("a resumed run must keep its recipe", where="--resume", found=found, cure=cure)
    notes = moved_note(old.data, new.data)
    if old.steps != new.steps and 'over = "progress"' in new.to_toml():
        was = f"{count_noun(old.steps, 'step')} before, {new.steps:,} now"
        notes += [f"{was}: dials over progress go by the new length from here on, so this is not a run of that length"]
    return notes


def _known(folder: RunFolder) -> dict[str, Any]:
    """What `run.json` says of the run that is resumed, as far as it can be read; the saves know the same."""
    with suppress(CheckpointError):
        return folder.read_info()
    return {}


def _room_to_compute(recipe: Recipe) -> AbstractContextManager[None]:
    cure = f"a smaller batch needs less: --set batch={max(1, recipe.batch // 2)}"
    return memory_errors("the device has too little memory", f"batch {recipe.batch}", cure)
