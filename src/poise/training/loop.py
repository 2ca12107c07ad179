"""The run around the step: load, build, resume, then step, row, sheet, save until it is done."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from poise.core import Moment
from poise.data.source import Loaded, PictureEntry, Pictures
from poise.errors import DiskError, Diverged, OutOfMemory, RecipeError, SaveError, Stopped
from poise.randomness import Dice
from poise.recipe.fit import fit
from poise.recipe.model import Recipe, differences
from poise.recipe.read import decode
from poise.recipe.text import read_file
from poise.training import save, state
from poise.training.build import build
from poise.training.feed import Feed
from poise.training.folder import RunFolder, free_name
from poise.training.ledger import Ledger, Row, Stat
from poise.training.machine import Machine, choose
from poise.training.record import Recorder, Sheets
from poise.training.run import Run
from poise.training.signals import Signals
from poise.training.step import alternate
from poise.training.watcher import Nobody, Start, Watcher

FAILED_SAVES = 3


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    data_root: Path | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Train a GAN and leave everything about it in a run folder.

    Args:
        recipe: what to train.
        out: the run folder; left out, `runs/NAME`, numbered if it is taken.
        resume: go on with the run in `out`, bit for bit if machine and libraries are the same.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto", "fp32" or "bf16" (autocast).
        data_root: where data sets by name are looked for.
        watcher: looks on.

    Raises:
        RecipeError, DataError, SaveError: before anything is written.
        Diverged, DiskError, OutOfMemory: during training; earlier saves stay.
        Stopped: by a signal, with the state saved.
    """
    watcher = watcher or Nobody()
    with Signals() as signals, _room_to_compute(recipe):
        folder = RunFolder(free_name(Path("runs") / recipe.name) if out is None else Path(out))
        folder.inspect(resume=resume)
        machine = choose(device, precision, recipe)
        fit(recipe).raise_first()
        if resume:
            _same_run(decode(read_file(folder.recipe), str(folder.recipe)), recipe)
        if isinstance(recipe.data, PictureEntry):
            fit(recipe, (3, recipe.data.size, recipe.data.size)).raise_first()
        loaded = recipe.data.load(data_root)
        findings = fit(recipe, loaded.train.shape)
        findings.raise_first()
        notes = loaded.notes + [f"{w.field}: {w.message}; {w.cure}" for w in findings.warnings]
        past = _past(folder, notes) if resume else None
        if past is not None and past.step > recipe.steps:
            done = f"it has done {past.step:,} steps"
            raise RecipeError("the run is further already", where="steps", found=str(recipe.steps), cure=done)
        with folder.claimed():
            return Training(recipe, folder, machine, loaded, past, notes, watcher, signals).run()


class Training:
    """One run in progress: everything between the data and the last save."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        machine: Machine,
        loaded: Loaded,
        past: save.Save | None,
        notes: list[str],
        watcher: Watcher,
        signals: Signals,
    ) -> None:
        self.recipe, self.folder, self.machine, self.loaded = recipe, folder, machine, loaded
        self.watcher, self.signals, self.notes = watcher, signals, list(notes)
        self.dice = Dice(recipe.seed, machine.device)
        self.source = loaded.train
        self.fingerprint = self.source.fingerprint
        self.game = build(recipe, self.source.shape, machine, self.dice)
        self.feed = Feed(self.source, machine.device, self.game.tempo.most.d)
        self.ledger = Ledger()
        self.first, self.before, self.failed = 0, 0.0, 0
        if past is not None:
            self._go_on(past)
        self.recorder = Recorder(folder, self.first)
        self.done, self.clock = self.first, time.perf_counter()

    def run(self) -> Run:
        """Train to the end.

        Raises:
            see `train`.
        """
        ended = "failed"
        try:
            self._open()
            self.signals.patient = True
            self._steps()
            ended = "done"
        except Stopped:
            ended = "stopped"
            raise
        finally:
            self.watcher.end()
            self.recorder.close()
            with suppress(DiskError):
                self._tell(ended)
        return Run(self.folder.path)

    def _steps(self) -> None:
        recipe, log = self.recipe, self.recipe.log
        self.clock = time.perf_counter()
        self.done, self.told = self.first, (self.first, self.before)
        if self.done == 0:
            self._sheet()
        while self.done < recipe.steps:
            moment = Moment(self.done, recipe.steps, recipe.batch, self.dice)
            self.dice.settle("step", self.done)
            alternate(self.game, self.feed, moment, self.ledger)
            self.done += 1
            last, asked = self.done == recipe.steps, self.signals.asked  # asked once: it may come at any time
            if last or self.done % log.rows == 0:
                self._row()
            if last or self.done % log.samples == 0:
                self._sheet()
            if last or self.done % log.saves == 0 or asked:
                self._save(must=last or asked is not None)
            self.watcher.tick(self.done)
            if asked and not last:
                cure = f"go on with: poise train --resume --out {self.folder.path}"
                raise Stopped(f"stopped by {asked} after step {self.done}, state saved; {cure}")

    def _row(self) -> None:
        seconds = self._seconds()
        stats = self.ledger.stats()
        rate = (self.done - self.told[0]) * self.recipe.batch / max(1e-9, seconds - self.told[1])
        stats["time/images_per_second"] = Stat(rate, 0.0, rate, rate)
        self.told = (self.done, seconds)
        row = Row(self.done, self.done * self.recipe.batch, round(seconds, 3), stats)
        self.recorder.row(row)
        self.watcher.row(row)
        for name in ("d/adversarial", "g/adversarial"):
            if name in stats and not math.isfinite(stats[name].mean):
                cure = "a lower learning rate or a gradient penalty may hold it; earlier saves are kept"
                raise Diverged("is not finite any more", where=f"{name} at step {self.done}", cure=cure)

    def _sheet(self) -> None:
        self.recorder.sheet(self.sheets.draw(self.game.shown()), self.done)

    def _save(self, *, must: bool) -> None:
        """Save; a refusing disk is survived until it has refused three times in a row, or this save must be."""
        try:
            tensors = state.gather(self.game, self.ledger)
            facts = {"recipe": self.recipe.hash, "data": self.fingerprint, **self.machine.facts()}
            save.write(self.folder.saves, self.done, tensors, {"seconds": self._seconds()}, facts)
            save.prune(self.folder.saves, self.recipe.log.keep)
            self.failed = 0
            self._tell("running")
        except (OSError, SaveError, DiskError) as error:
            self.failed += 1
            if must or self.failed >= FAILED_SAVES:
                raise DiskError(f"could not save: {error}", where=str(self.folder.saves)) from None
            self.watcher.say(f"could not save at step {self.done}, training goes on: {error}")

    def _seconds(self) -> float:
        return self.before + time.perf_counter() - self.clock

    def _go_on(self, past: save.Save) -> None:
        if past.manifest.get("data") != self.fingerprint:
            raise SaveError("the data is not what this run was trained on", where=str(self.folder.path))
        state.restore(self.game, self.ledger, past.tensors)
        self.first, self.before = past.step, float(past.state["seconds"])
        then, now = past.manifest, self.machine.facts()
        changed = [f"{key} {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]]
        if changed:
            self.notes.append(f"resumed, but not promised to be exact: {', '.join(changed)}")

    def _open(self) -> None:
        """The first writing: everything has been checked."""
        self.folder.write_text(self.folder.recipe, self.recipe.to_toml())
        self._tell("running")
        if self.loaded.bad:
            listed = "".join(f"{_cell(bad.name)},{_cell(bad.reason)}\n" for bad in self.loaded.bad)
            self.folder.write_text(self.folder.path / "bad_images.csv", "name,reason\n" + listed)
        save.prune(self.folder.saves, self.recipe.log.keep)
        self.recorder.begin()
        real = self.source.some(self.recipe.log.sheet)
        self.sheets = Sheets(self.recipe.latent, self.recipe.log.sheet, self.source.shape, real, self.dice)
        self.watcher.start(
            Start(
                name=self.recipe.name,
                first=self.first,
                steps=self.recipe.steps,
                batch=self.recipe.batch,
                lines=[*self._facts(), *self.notes],
                equilibrium=self.recipe.objective.equilibrium,
                folder=str(self.folder.path),
            )
        )

    def _facts(self) -> list[str]:
        sizes = self._parameters()
        data = f"{len(self.source):,} pictures" if isinstance(self.source, Pictures) else "endless points"
        return [
            f"{self.recipe.data.name()}: {data}, {'x'.join(map(str, self.source.shape))}",
            f"G {sizes['g']:,} and D {sizes['d']:,} parameters",
            f"{self.machine.device}, {self.machine.precision}, {torch.get_num_threads()} threads",
        ]

    def _parameters(self) -> dict[str, int]:
        return {side.value: sum(w.numel() for w in p.weights) for side, p in self.game.players.items()}

    def _tell(self, how: str) -> None:
        source = self.source
        info: dict[str, Any] = {
            "name": self.recipe.name,
            "state": how,
            "step": self.done,
            "steps": self.recipe.steps,
            "seconds": round(self._seconds(), 3),
            "recipe": self.recipe.hash,
            **self.machine.facts(),
            "data": {
                "kind": self.recipe.data.name(),
                "fingerprint": self.fingerprint,
                "shape": list(source.shape),
                "classes": list(source.classes),
                "count": len(source) if isinstance(source, Pictures) else None,
                "bad": len(self.loaded.bad),
            },
            "parameters": self._parameters(),
        }
        self.folder.write_json(self.folder.info, info)


def _past(folder: RunFolder, notes: list[str]) -> save.Save:
    """The save to go on with; the damaged ones that were passed over go into `notes`."""
    past, damaged = save.newest(folder.saves)
    if past is None:
        found = "; ".join(damaged) or "none at all"
        raise SaveError("no valid save to go on with", where=str(folder.saves), found=found, cure="start a new run")
    notes += [f"passed over a damaged save: {sentence}" for sentence in damaged]
    return past


def _same_run(old: Recipe, new: Recipe) -> None:
    changed = differences(old, new)
    if changed:
        cure = "take it back, or start a new run"
        raise RecipeError(
            "a resumed run must keep its recipe",
            where="--resume",
            found=f"other {', '.join(changed)}",
            cure=cure,
        )


def _cell(text: str) -> str:
    return '"' + ascii(text)[1:-1].replace('"', '""') + '"'


@contextmanager
def _room_to_compute(recipe: Recipe) -> Iterator[None]:
    """Turn the device's "out of memory", however it is worded, into an error with a cure."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not ("allocate" in str(error) and "memory" in str(error)):
            raise
        cure = f"a smaller batch needs less: --set batch={max(1, recipe.batch // 2)}"
        raise OutOfMemory("the device has too little memory", found=f"batch {recipe.batch}", cure=cure) from None
