"""The guard: hears a run's rows through a monitor, writes its alarms down, and says what is to be done about them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping

from poise.errors import DiskError
from poise.files import write_folder
from poise.printing import counted
from poise.recipe.model import Recipe
from poise.rows import Stat, stats_of
from poise.system import on_disk
from poise.training import save
from poise.training.folder import RunFolder
from poise.training.lines import Lines
from poise.training.watcher import Watcher
from poise.watch.advice import after_not_finite
from poise.watch.base import FAMILIES, LEVELS, Alarm
from poise.watch.heard import SHORT
from poise.watch.logs import measured_of
from poise.watch.monitor import DETECTORS, Monitor, Monitoring

NOT_FINITE = "not_finite"


class Setback(Exception):
    """Where a run can't go on from: the loop goes back to its last save, or ends."""

    def __init__(self, alarm: Alarm, *, ends: bool) -> None:
        super().__init__(alarm.message)
        self.alarm, self.ends = alarm, ends


class Guard:
    """One run's.

    Args:
        recipe: says which policies hold.
        folder: where alarms are written.
        first: the step that is resumed from: what was heard up to it is heard again, silently.
        watcher: told of every alarm.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, first: int, watcher: Watcher) -> None:
        self.how, self.folder, self.watcher = recipe.monitor or Monitoring(), folder, watcher
        self.alarms = Lines(folder.alarms, watcher.say)
        self.written = 0
        self.counts: Counter[str] = Counter()
        """Alarms so far, by detector."""
        self.monitor = Monitor(self.how, FAMILIES.get(str(recipe.objective.tag())), max(SHORT, recipe.steps))
        lines = [(line["step"], stats_of(line)) for line in (folder.read_rows(first) if first else [])]
        lines += [(line["step"], measured_of(line)) for line in (folder.read_measures(first) if first else [])]
        for step, numbers in sorted(lines, key=lambda line: line[0]):
            self.monitor.hear(step, numbers)

    def hear(self, step: int, numbers: Mapping[str, Stat], where: str = "") -> None:
        """Hear a row; write down, say and act on what is alarming in it.

        Args:
            step: steps done.
            numbers: by the names of `rows.jsonl`.
            where: what is known of a number that is not finite.

        Raises:
            Setback: an alarm's policy is to go back, or to stop.
        """
        for alarm in self.monitor.hear(step, numbers):
            told = f"{alarm.message}, first {where}" if where and alarm.detector == NOT_FINITE else alarm.message
            self.heed(alarm._replace(message=told))

    def not_finite(self, step: int, what: str) -> None:
        """The same for what was found without a row.

        Raises:
            Setback: as above.
        """
        level = LEVELS.get(self.how.policy_of(NOT_FINITE), "failure")
        advice, tip = after_not_finite(self.monitor.heard, self.monitor.family), DETECTORS[NOT_FINITE].tip
        self.heed(Alarm(step, NOT_FINITE, level, f"{what} is not finite any more", advice, tip))

    def heed(self, alarm: Alarm) -> None:
        """Write an alarm down, say it, and do what its policy says.

        Raises:
            Setback: that is to go back, or to stop.
        """
        policy = self.how.policy_of(alarm.detector)
        if policy == "off":
            return
        self.alarms.add(alarm._asdict())
        self.written += 1
        self.counts[alarm.detector] += 1
        self.watcher.alarm(alarm)
        if policy == "keep":
            self._keep(alarm)
        if policy in ("roll_back", "stop"):
            raise Setback(alarm, ends=policy == "stop")

    def begin(self, recorded: int | None, first: int) -> None:
        """Drop the alarms that were raised after the save that is resumed from: its first `recorded` lines are left."""
        kept = self.folder.read_alarms(until=first) if recorded is None else self.folder.read_alarms(most=recorded)
        self.folder.keep(self.folder.alarms, kept)
        self.written, self.counts = len(kept), Counter(line["detector"] for line in kept)

    def summary(self) -> str:
        """All alarms of the run, in a clause; nothing where there were none."""
        if not self.counts:
            return ""
        each = ", ".join(name if n == 1 else f"{name} ({n:,})" for name, n in self.counts.items())
        look = f"see poise watch {shlex.quote(str(self.folder.path))}"
        return f"{counted(self.counts.total(), 'alarm')}: {each}; {look}"

    def go_back(self, step: int) -> None:
        """The run is back at `step`."""
        self.monitor.go_back(step)

    def _keep(self, alarm: Alarm) -> None:
        """Put the newest save from before the alarm where nothing is pruned, unless the best is kept already."""
        if any(self.folder.best.glob("step-*")):
            return
        saves = {place: step for place in self.folder.saves.glob("step-*") if (step := save.step_of(place)) is not None}
        before = [place for place, step in saves.items() if step <= alarm.step]
        if before:
            newest = max(before, key=saves.__getitem__)
            try:
                with on_disk(self.folder.kept):
                    write_folder(
                        self.folder.kept / newest.name, {one.name: one.read_bytes() for one in newest.iterdir()}
                    )
            except DiskError as error:
                self.watcher.say(f"could not keep the save of step {saves[newest]:,}, training goes on: {error}")
                return
            self.watcher.say(f"the save of step {saves[newest]:,} is kept in {self.folder.kept}")
