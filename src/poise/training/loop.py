"""The run around the step: step, row, sheet, save until it is done. `begin.py` is how it comes to it.

A monitor hears every row. Where its alarm says that the run can't go on like this, the loop goes back to the last save
and tries at a lower rate; `guard.py` is between the two.
"""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from typing import Any, NoReturn

from torch import Tensor

from poise.data.source import Loaded
from poise.errors import DiskError, Diverged, SaveError, Stopped
from poise.files import sync_file, write_json, write_text
from poise.printing import counted
from poise.recipe.model import Recipe
from poise.rows import Row, Stat
from poise.training import about, save
from poise.training.folder import RunFolder
from poise.training.guard import Guard, Setback
from poise.training.lines import TRIES, Lines
from poise.training.machine import Machine
from poise.training.measuring import Gauge
from poise.training.record import Recorder, Sheets
from poise.training.run import Run
from poise.training.signals import Arrived, Signals
from poise.training.standing import Standing
from poise.training.watcher import Watcher
from poise.watch.logs import measured_of


class Training:
    """One run in progress: everything between the data and the last save."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        machine: Machine,
        loaded: Loaded,
        notes: list[str],
        watcher: Watcher,
        signals: Signals,
        *,
        resume: bool,
    ) -> None:
        self.recipe, self.folder, self.loaded = recipe, folder, loaded
        self.watcher, self.signals, self.notes = watcher, signals, list(notes)
        self.here = Standing(recipe, machine, loaded)
        if resume:
            self.notes += self.here.take_up(folder.saves)
        self.first, self.failed = self.here.done, 0
        self.recorder = Recorder(folder, self.first, watcher.say)
        self.gauge = None
        if recipe.measure:
            self.gauge = Gauge(recipe, loaded, folder, self.first, machine.device, watcher.say, signals.interrupt)
        self.guard = Guard(recipe, folder, self.first, watcher)
        if self.first:
            folder.read_alarms(until=self.first, most=self.here.alarms)  # refused here, before anything is written
        self.clock = time.perf_counter()

    def run(self) -> Run:
        """Train to the end; `train` lists the errors."""
        ended = "failed"
        try:
            self._open()
            self.signals.patient = True
            self._steps()
            self._end()
            ended = "done"
            if self.gauge is not None and (told := self.gauge.summary()):
                self.watcher.say(told)
            if alarms := self.guard.summary():
                self.watcher.say(f"done, with {alarms}")
        except (Stopped, Arrived, KeyboardInterrupt):
            ended = "stopped"
            raise
        finally:
            self.signals.patient = True  # a further signal must not break off what follows
            self.watcher.end()
            if ended != "done":
                with suppress(DiskError):
                    self._tell(ended)
        return Run(self.folder.path, trust_code=True)  # it has run already

    def _end(self) -> None:
        """Only what `run.json` says is done, is done: like any save, that has three tries."""
        for left in reversed(range(TRIES)):
            try:
                self._tell("done")
                self.folder.tidy(anew=False)  # what could not be removed at once
                return
            except DiskError:
                if not left:
                    raise

    @property
    def done(self) -> int:
        """Steps done."""
        return self.here.done

    def _steps(self) -> None:
        self.clock = time.perf_counter()
        self.told = (self.done, self.here.seconds)
        if self.done == 0:
            self._sheet()
        elif self.gauge is not None and self.gauge.due(self.done) and not self.gauge.knows(self.done):
            self._measure(self.gauge)  # a signal broke it off
            if self.signals.asked:
                self._stop(self.signals.asked)
        while self.done < self.recipe.steps:
            try:
                self._step()
            except Setback as setback:
                self._go_back(setback)

    def _step(self) -> None:
        """One step, and whatever is due after it."""
        log, end = self.recipe.log, self.recipe.steps
        row_due = self.done + 1 == end or (self.done + 1) % log.rows == 0
        if row_due:
            self.here.vitals.before()
        self.here.step()
        last, measured = self.done == end, True
        if row_due:
            self._row()
        if last or self.done % log.samples == 0:
            self._sheet()
        if self.gauge is not None and self.gauge.due(self.done):
            measured = self._measure(self.gauge)
        asked = self.signals.asked  # read once: it may come at any time
        if last or self.done % log.saves == 0 or asked:
            self._save(must=last or asked is not None)
        self.watcher.tick(self.done)
        if asked and not (last and measured):
            self._stop(asked)

    def _stop(self, asked: str) -> NoReturn:
        cure = f"go on with: poise train --resume --out {shlex.quote(str(self.folder.path))}"
        raise Stopped(f"stopped by {asked} after step {self.done}, state saved; {cure}")

    def _row(self) -> None:
        seconds, here = self._seconds(), self.here
        bad = here.first_bad()
        stats = here.ledger.stats() | here.vitals.take()
        rate = (self.done - self.told[0]) * self.recipe.batch / max(1e-9, seconds - self.told[1])
        stats["time/images_per_second"] = Stat.of(rate)
        self.told = (self.done, seconds)
        row = Row(self.done, self.done * self.recipe.batch, round(seconds, 3), stats)
        self.recorder.row(row)
        self.watcher.row(row)
        self.guard.hear(self.done, stats, f"{bad}; no such step was made" if bad else "")

    def _sheet(self) -> None:
        self.recorder.sheet(self.sheets.draw(self.here.game.shown()), self.done)

    def _measure(self, gauge: Gauge) -> bool:
        """Measure; weights that are the best so far are kept beside the newest ones.

        Returns:
            False if a signal broke it off; a resumed run measures first.
        """
        began, shown = time.perf_counter(), self.here.game.shown()
        if bad := self.here.unsound(shown):
            self.guard.not_finite(self.done, f"{bad} of what samples come from")
            return True
        try:
            result = gauge.take(self.here.game, self.done)
        except Arrived:
            return False
        if gauge.is_best(self.done):
            try:
                save.write(self.folder.best, self.done, *self._kept())
                save.prune(self.folder.best, 1)
            except (OSError, SaveError, DiskError) as error:
                self.watcher.say(f"could not keep the best weights, of step {self.done}: {error}")
            except Diverged as error:
                self.guard.not_finite(self.done, error.where)
        self.watcher.say(gauge.words(result, self.done))
        self.told = (self.told[0], self.told[1] + time.perf_counter() - began)  # no part of the training's pace
        self.guard.hear(self.done, measured_of(gauge.line(result, self.done)))
        return True

    def _save(self, *, must: bool) -> None:
        """Save; a refusing disk is survived until it has refused three times in a row, or this save must be."""
        if not self.here.ledger.sound():  # since the last row: what is spoiled is not saved
            self.guard.not_finite(self.done, self.here.first_bad() or "a reading")
        try:
            for lines in self._lines():
                lines.flush()
                sync_file(lines.path)  # a save stands on them: the monitor hears them again
            save.write(self.folder.saves, self.done, *self._kept())
            save.prune(self.folder.saves, self.recipe.log.keep)
            self.failed = 0
            self._tell("running")
        except Diverged as error:
            self.guard.not_finite(self.done, error.where)
            if must:  # the alarm's policy was to go on: there is nothing to end with
                raise
        except (OSError, SaveError, DiskError) as error:
            self.failed += 1
            if must or self.failed >= TRIES:
                raise DiskError(f"could not save: {error}", where=str(self.folder.saves)) from None
            self.watcher.say(f"could not save at step {self.done}, training goes on: {error}")

    def _lines(self) -> list[Lines]:
        return [self.recorder.rows, self.guard.alarms, *([self.gauge.lines] if self.gauge is not None else [])]

    def _kept(self) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any], frozenset[str]]:
        return *self.here.kept(self._seconds(), self.guard.written), self.here.constant

    def _seconds(self) -> float:
        return self.here.seconds + time.perf_counter() - self.clock

    def _go_back(self, setback: Setback) -> None:
        """To the last save, or the beginning, with lower rates.

        Raises:
            Diverged: it had to too often, or the alarm ends the run.
        """
        alarm, how = setback.alarm, self.guard.how
        where = f"{alarm.detector} at step {alarm.step:,}"
        if setback.ends or self.here.setbacks >= how.roll_backs:
            after = "" if setback.ends else f" after {counted(self.here.setbacks, 'return')} to earlier saves"
            raise Diverged(f"{alarm.message}{after}", where=where, cure=f"{alarm.advice}; earlier saves are kept")
        seconds = self._seconds()
        self.here.go_back(self.folder.saves)
        self.here.seconds, self.clock = seconds, time.perf_counter()
        self.told = (self.done, seconds)
        self.recorder.go_back(self.done)
        self.guard.go_back(self.done)
        if self.gauge is not None:
            self.gauge.go_back(self.done)
            save.drop(self.folder.best, self.done)
        times = f"{self.here.setbacks} of {how.roll_backs}"
        self.watcher.say(f"back to step {self.done:,}, return {times}; rates are multiplied with {self.here.pace:g}")

    def _open(self) -> None:
        """The first writing: everything has been checked."""
        self.folder.tidy(anew=self.folder.anew)
        write_text(self.folder.recipe, self.recipe.to_toml())
        self._tell("running")
        about.keep_code(self.recipe, self.folder)
        if self.loaded.bad:
            self.notes += about.list_bad(self.loaded.bad, self.folder)
        save.prune(self.folder.saves, self.recipe.log.keep)
        save.drop(self.folder.best, -1 if self.gauge is not None and self.gauge.anew else self.first)
        self.recorder.begin()
        self.guard.begin(self.here.alarms, self.first)
        here, recipe = self.here, self.recipe
        real = here.source.some(recipe.log.sheet)
        classes = len(here.source.classes) if recipe.labels.g else 0
        alpha = getattr(recipe.data, "alpha", True)
        self.sheets = Sheets(recipe.latent, recipe.log.sheet, real, here.dice, classes, alpha=alpha)
        self.notes += self.sheets.told
        self.watcher.start(
            about.start(recipe, here.game, here.source, here.machine, self.first, self.notes, self.folder)
        )

    def _tell(self, how: str) -> None:
        here = self.here
        info: dict[str, Any] = {
            "name": self.recipe.name,
            "state": how,
            "step": self.done,
            "steps": self.recipe.steps,
            "seconds": round(self._seconds(), 3),
            "recipe": self.recipe.hash,
            **here.exactness(),
            "data": about.data_facts(self.recipe, here.source, len(self.loaded.bad)),
            "parameters": about.parameters(here.game),
        }
        if here.setbacks:
            info["setbacks"] = here.setbacks
        if self.guard.counts:
            info["alarms"] = dict(self.guard.counts)
        if self.gauge is not None and (best := self.gauge.facts()):
            info["best"] = best
        write_json(self.folder.info, info)
