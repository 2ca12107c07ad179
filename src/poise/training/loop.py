"""The run around the step: step, row, sheet, save until it is done. `begin.py` is how it comes to it."""

from __future__ import annotations

import csv
import math
import time
from contextlib import suppress
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from poise.core import Moment
from poise.data.source import Finite, Loaded
from poise.errors import DiskError, Diverged, SaveError, Stopped
from poise.own.code import code_hash
from poise.randomness import Dice
from poise.recipe.model import Recipe
from poise.training import save, state
from poise.training.build import build
from poise.training.feed import Feed
from poise.training.folder import RunFolder
from poise.training.ledger import Ledger, Row, Stat
from poise.training.machine import Machine
from poise.training.measuring import Gauge
from poise.training.record import Recorder, Sheets
from poise.training.run import Run
from poise.training.signals import Signals
from poise.training.step import STEPS
from poise.training.watcher import Start, Watcher

FAILED_SAVES = 3
SHOWN_BAD = 10


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
        self.game = build(recipe, self.source.subject(), machine, self.dice)
        self.feed = Feed(self.source, machine.device, self.game.tempo.most.d)
        self.ledger = Ledger(recipe.objective.undecided)
        self.step = STEPS[self.game.tempo.style]
        self.first, self.before, self.failed = 0, 0.0, 0
        if past is not None:
            self._go_on(past)
        self.recorder = Recorder(folder, self.first)
        self.gauge = Gauge(recipe, loaded, folder, self.first, machine.device, watcher.say) if recipe.measure else None
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
            if self.gauge is not None and (told := self.gauge.summary()):
                self.watcher.say(told)
        except Stopped:
            ended = "stopped"
            raise
        finally:
            self.watcher.end()
            self.recorder.close()
            with suppress(DiskError):
                self._tell(ended)
        return Run(self.folder.path, trust_code=True)  # it has run already

    def _steps(self) -> None:
        recipe, log = self.recipe, self.recipe.log
        self.clock = time.perf_counter()
        self.done, self.told = self.first, (self.first, self.before)
        if self.done == 0:
            self._sheet()
        while self.done < recipe.steps:
            moment = Moment(self.done, recipe.steps, recipe.batch, self.dice)
            self.dice.settle("step", self.done)
            self.step(self.game, self.feed, moment, self.ledger)
            self.done += 1
            last, asked = self.done == recipe.steps, self.signals.asked  # asked once: it may come at any time
            if last or self.done % log.rows == 0:
                self._row()
            if last or self.done % log.samples == 0:
                self._sheet()
            if self.gauge is not None and self.gauge.due(self.done):
                self._measure(self.gauge)
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

    def _measure(self, gauge: Gauge) -> None:
        """Measure; weights that are the best so far are kept beside the newest ones."""
        began = time.perf_counter()
        result = gauge.take(self.game.shown(), self.done)
        if gauge.is_best(self.done):
            try:
                save.write(self.folder.best, self.done, *self._state())
                save.prune(self.folder.best, 1)
            except (OSError, SaveError, DiskError) as error:
                self.watcher.say(f"could not keep the best weights, of step {self.done}: {error}")
        self.watcher.say(gauge.words(result, self.done))
        self.told = (self.told[0], self.told[1] + time.perf_counter() - began)  # no part of the training's pace

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """What a save holds: tensors, what goes with them, what it stands on."""
        facts = {"recipe": self.recipe.hash, "data": self.fingerprint, **self._exactness()}
        return state.gather(self.game, self.ledger), {"seconds": self._seconds()}, facts

    def _save(self, *, must: bool) -> None:
        """Save; a refusing disk is survived until it has refused three times in a row, or this save must be."""
        try:
            save.write(self.folder.saves, self.done, *self._state())
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
        then, now = past.manifest, self._exactness()
        changed = [f"{key} {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]]
        if changed:
            self.notes.append(f"resumed, but not promised to be exact: {', '.join(changed)}")

    def _exactness(self) -> dict[str, Any]:
        """What exact repetition depends on, beside recipe and data."""
        code = code_hash(self.recipe)
        return self.machine.facts() | ({"code": code} if code else {})

    def _open(self) -> None:
        """The first writing: everything has been checked."""
        self.folder.write_text(self.folder.recipe, self.recipe.to_toml())
        self._tell("running")
        if self.loaded.bad:
            self._list_bad()
        save.prune(self.folder.saves, self.recipe.log.keep)
        save.drop(self.folder.best, -1 if self.gauge is not None and self.gauge.anew else self.first)
        self.recorder.begin()
        real = self.source.some(self.recipe.log.sheet)
        classes = len(self.source.classes) if self.recipe.labels.g else 0
        alpha = getattr(self.recipe.data, "alpha", True)
        self.sheets = Sheets(self.recipe.latent, self.recipe.log.sheet, real, self.dice, classes, alpha=alpha)
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

    def _list_bad(self) -> None:
        """Every picture that could not be used, with its reason, to a file; the first few to the user."""
        bad, path = self.loaded.bad, self.folder.path / "bad_images.csv"
        lines = StringIO()
        csv.writer(lines, lineterminator="\n").writerows([("name", "reason"), *bad])
        self.folder.write_text(path, lines.getvalue())
        self.notes += [f"bad: {one.name}: {one.reason}" for one in bad[:SHOWN_BAD]]
        if len(bad) > SHOWN_BAD:
            self.notes.append(f"and {len(bad) - SHOWN_BAD:,} more; all are in {path}")

    def _facts(self) -> list[str]:
        sizes = self._parameters()
        data = f"{len(self.source):,} pictures" if isinstance(self.source, Finite) else "endless points"
        return [
            f"{self.recipe.data.tag()}: {data}, {'x'.join(map(str, self.source.shape))}",
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
            **self._exactness(),
            "data": {
                "kind": self.recipe.data.tag(),
                "fingerprint": self.fingerprint,
                "shape": list(source.shape),
                "classes": list(source.classes),
                "count": len(source) if isinstance(source, Finite) else None,
                "bad": len(self.loaded.bad),
            },
            "parameters": self._parameters(),
        }
        if self.gauge is not None and (best := self.gauge.facts()):
            info["best"] = best
        self.folder.write_json(self.folder.info, info)
