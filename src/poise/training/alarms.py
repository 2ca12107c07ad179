"""The guard: hears a run's rows through a monitor, writes its alarms down, and says what is to be done about them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping

from poise.core.metrics_log import Stat, stats_from_json
from poise.errors import DiskError
from poise.recipe.model import Recipe
from poise.runs import checkpoint
from poise.runs.folder import RunFolder
from poise.runs.jsonl import JsonLinesFile
from poise.training.listener import ProgressListener
from poise.utils.files import write_folder
from poise.utils.printing import count_noun
from poise.utils.system import disk_errors
from poise.watch.advice import after_not_finite
from poise.watch.base import FAMILIES, LEVELS, Alarm
from poise.watch.history import SHORT
from poise.watch.logs import measures_to_metrics
from poise.watch.monitor import DETECTORS, Monitor, MonitorConfig

NOT_FINITE = "not_finite"


class AlarmTriggered(Exception):
    """Where a run can't go on from: the loop goes back to its last save, or ends."""

    def __init__(self, alarm: Alarm, *, ends: bool) -> None:
        super().__init__(alarm.message)
        self.alarm, self.ends = alarm, ends


class AlarmHandler:
    """One run's.

    Args:
        recipe: says which policies hold.
        folder: where alarms are written.
        first: the step that is resumed from: what was heard up to it is heard again, silently.
        listener: told of every alarm.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, first: int, listener: ProgressListener) -> None:
        self.monitoring, self.folder, self.listener = recipe.monitor or MonitorConfig(), folder, listener
        self.alarms = JsonLinesFile(folder.alarms, listener.on_message)
        self.num_written = 0
        self.counts: Counter[str] = Counter()
        """Alarms so far, by detector."""
        self.monitor = Monitor(self.monitoring, FAMILIES.get(str(recipe.objective.tag())), max(SHORT, recipe.steps))
        lines = [(line["step"], stats_from_json(line)) for line in (folder.read_rows(first) if first else [])]
        lines += [(line["step"], measures_to_metrics(line)) for line in (folder.read_measures(first) if first else [])]
        for step, numbers in sorted(lines, key=lambda line: line[0]):
            self.monitor.hear(step, numbers)

    def process(self, step: int, numbers: Mapping[str, Stat], where: str = "") -> None:
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
            self.handle(alarm._replace(message=told))

    def not_finite(self, step: int, what: str) -> None:
        """The same for what was found without a row.

        Raises:
            Setback: as above.
        """
        level = LEVELS.get(self.monitoring.policy_of(NOT_FINITE), "failure")
        advice, tip = after_not_finite(self.monitor.history, self.monitor.family), DETECTORS[NOT_FINITE].tip
        self.handle(Alarm(step, NOT_FINITE, level, f"{what} is not finite any more", advice, tip))

    def handle(self, alarm: Alarm) -> None:
        """Write an alarm down, say it, and do what its policy says.

        Raises:
            Setback: that is to go back, or to stop.
        """
        policy = self.monitoring.policy_of(alarm.detector)
        if policy == "off":
            return
        self.alarms.append(alarm._asdict())
        self.num_written += 1
        self.counts[alarm.detector] += 1
        self.listener.on_alarm(alarm)
        if policy == "keep":
            self._keep_checkpoint(alarm)
        if policy in ("roll_back", "stop"):
            raise AlarmTriggered(alarm, ends=policy == "stop")

    def resume_at(self, recorded: int | None, first: int) -> None:
        """Drop the alarms that were raised after the save that is resumed from: its first `recorded` lines are left."""
        kept = self.folder.read_alarms(until=first) if recorded is None else self.folder.read_alarms(most=recorded)
        self.folder.rewrite(self.folder.alarms, kept)
        self.num_written, self.counts = len(kept), Counter(line["detector"] for line in kept)

    def summary(self) -> str:
        """All alarms of the run, in a clause; nothing where there were none."""
        if not self.counts:
            return ""
        each = ", ".join(name if n == 1 else f"{name} ({n:,})" for name, n in self.counts.items())
        look = f"see poise watch {shlex.quote(str(self.folder.path))}"
        return f"{count_noun(self.counts.total(), 'alarm')}: {each}; {look}"

    def roll_back(self, step: int) -> None:
        """The run is back at `step`."""
        self.monitor.roll_back(step)

    def _keep_checkpoint(self, alarm: Alarm) -> None:
        """Put the newest save from before the alarm where nothing is pruned, unless the best is kept already."""
        if any(self.folder.best.glob("step-*")):
            return
        saves = {
            place: step for place in self.folder.saves.glob("step-*") if (step := checkpoint.step_of(place)) is not None
        }
        before = [place for place, step in saves.items() if step <= alarm.step]
        if before:
            newest = max(before, key=saves.__getitem__)
            try:
                with disk_errors(self.folder.kept):
                    write_folder(
                        self.folder.kept / newest.name, {one.name: one.read_bytes() for one in newest.iterdir()}
                    )
            except DiskError as error:
                self.listener.on_message(
                    f"could not keep the save of step {saves[newest]:,}, training goes on: {error}"
                )
                return
            self.listener.on_message(f"the save of step {saves[newest]:,} is kept in {self.folder.kept}")
