"""The alarm handler: passes a run's metrics to the monitor, writes its alarms to a file and applies their policies."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from poise.core.metrics_log import Stat, stats_from_json
from poise.errors import DiskError
from poise.recipe.advice import fit_advice
from poise.recipe.model import Recipe
from poise.runs import checkpoint_folder
from poise.runs.folder import RunFolder
from poise.runs.jsonl import JsonLinesFile
from poise.training import due
from poise.training.listener import ProgressListener
from poise.utils.printing import count_noun
from poise.utils.system import disk_errors
from poise.watch.advice import recover_from_non_finite
from poise.watch.base import FAMILIES, LEVELS, Alarm, Policy
from poise.watch.history import MIN_RUN_LENGTH
from poise.watch.logs import measures_to_metrics
from poise.watch.monitor import DETECTORS, Monitor, MonitorConfig

NOT_FINITE = "not_finite"

ROLLING_BACK: tuple[Policy, ...] = ("roll_back", "advise")
"""The policies of alarms after which the run returns to a checkpoint."""

INTERRUPTING: tuple[Policy, ...] = ("stop", *ROLLING_BACK)
"""The policies of alarms after which the run does not go on with the next step."""


class AlarmTriggered(Exception):
    """The policy of an alarm is to roll back to a checkpoint or to stop the run.

    Args:
        alarm: the alarm, as its detector raised it.
        advice: its advice for the recipe of the run.
        stops: whether the run stops; otherwise it is rolled back.
        advises: whether a change of the alarm's advice is tried then.
    """

    def __init__(self, alarm: Alarm, advice: str, *, stops: bool, advises: bool = False) -> None:
        super().__init__(alarm.message)
        self.alarm, self.advice, self.stops, self.advises = alarm, advice, stops, advises


def last_sound_step(alarm: Alarm) -> int:
    """The step up to which checkpoints may be returned to. After `not_finite` all may, as they are all finite."""
    return alarm.step if alarm.detector == NOT_FINITE else alarm.since


def decisive_alarm(alarms: Sequence[Alarm], policies: Mapping[str, Policy]) -> Alarm | None:
    """The alarm of a row whose policy decides how the run goes on; None if none of them interrupts it.

    An alarm that stops the run comes before one that rolls it back. Of several of these it is the one that leads
    furthest back, so that the run returns to a checkpoint from before all of their signs; of equal ones the first.

    Args:
        alarms: the alarms, in the order of their detectors.
        policies: the policy of each detector.
    """
    interrupting = [alarm for alarm in alarms if policies[alarm.detector] in INTERRUPTING]
    return min(
        interrupting,
        key=lambda alarm: (policies[alarm.detector] != "stop", last_sound_step(alarm)),
        default=None,
    )


class AlarmHandler:
    """Monitors one run and handles its alarms.

    Args:
        recipe: its table `monitor` sets the policies, and the advice of alarms is fitted to it, see `fit_advice`.
        folder: the run folder; alarms are appended to its `alarms.jsonl`.
        first: the step from which the run is resumed. The monitor gets the metrics up to this step first, and the
            alarms that they raise are ignored.
        listener: notified of every alarm.
        returns: the steps to which the run has been rolled back, in increasing order, see `TrainState`.
    """

    def __init__(
        self, recipe: Recipe, folder: RunFolder, first: int, listener: ProgressListener, returns: Sequence[int] = ()
    ) -> None:
        self.recipe, self.folder, self.listener = recipe, folder, listener
        self.monitoring = recipe.monitor or MonitorConfig()
        self.alarms = JsonLinesFile(folder.alarms, listener.on_message)
        self.last_step, self.num_written = recipe.steps, 0
        self.counts: Counter[str] = Counter()
        """The number of alarms so far, by detector."""
        self.logged: list[Alarm] = []
        """The alarms in `alarms.jsonl`, in the order of its lines."""
        self.family, self.returns = FAMILIES.get(str(recipe.objective.tag())), tuple(returns)
        self.monitor = self._monitor_at(first)

    def _monitor_at(self, step: int) -> Monitor:
        """A monitor that has heard the rows and measures up to and including `step`, after the last roll-back."""
        monitor = Monitor(self.monitoring, self.family, max(MIN_RUN_LENGTH, self.last_step))
        monitor.judge_from(max(self.returns, default=0))
        past = [(line["step"], stats_from_json(line)) for line in (self.folder.read_rows(step) if step else [])]
        measures = self.folder.read_measures(step) if step else []
        past += [(line["step"], measures_to_metrics(line)) for line in measures]
        for at, metrics in sorted(past, key=lambda line: line[0]):
            monitor.hear(at, metrics)
        return monitor

    def _recall(self, step: int) -> None:
        """Let the monitor, which has heard the rows up to `step`, keep the alarms that were logged for them.

        They are others than it has found if the run has got another length since. Alarms from after the first step that
        the run returned to may be of discarded rows.
        """
        self.monitor.recall(self.logged, min((step, *self.returns)))

    def process(self, step: int, metrics: Mapping[str, Stat], where: str = "") -> None:
        """Pass metrics to the monitor and handle the alarms that they raise.

        Args:
            step: the number of steps done.
            metrics: statistics by the names of `rows.jsonl`.
            where: where a number that is not finite occurred first, if this is known; added to the message.

        Raises:
            AlarmTriggered: the policy of an alarm is to roll back or to stop.
        """
        alarms = self.monitor.hear(step, metrics)
        if step == self.last_step:
            alarms += self.monitor.flush()  # no more rows will complete the batch
        if where:
            alarms = [
                alarm._replace(message=f"{alarm.message}, first in {where}") if alarm.detector == NOT_FINITE else alarm
                for alarm in alarms
            ]
        if alarms:
            self.handle(*alarms)

    def not_finite(self, step: int, name: str) -> None:
        """Raise and handle an alarm about a number that is not finite and is not in a logged row.

        Args:
            step: the number of steps done.
            name: what is not finite.

        Raises:
            AlarmTriggered: the policy of the alarm is to roll back or to stop.
        """
        level = LEVELS.get(self.monitoring.policy_of(NOT_FINITE), "failure")
        advice, tip = recover_from_non_finite(self.monitor.history, self.monitor.family), DETECTORS[NOT_FINITE].tip
        since = self.monitor.history.step  # of the newest row, which was finite
        self.handle(Alarm(step, NOT_FINITE, level, f"{name} is not finite", advice, tip, since))

    def handle(self, *alarms: Alarm) -> None:
        """Write the alarms of a row to `alarms.jsonl`, pass them to the listener and apply their policies.

        All are written before the first policy is applied. Of several alarms that interrupt the run, one decides, see
        `decisive_alarm`.

        Raises:
            AlarmTriggered: the policy of an alarm is to roll back or to stop.
        """
        policies = {alarm.detector: self.monitoring.policy_of(alarm.detector) for alarm in alarms}
        raised = [alarm for alarm in alarms if policies[alarm.detector] != "off"]
        for alarm in raised:
            self._log(alarm)
        for alarm in raised:
            if policies[alarm.detector] == "keep":
                self._keep_checkpoint(alarm)
        decisive = decisive_alarm(raised, policies)
        if decisive is not None:
            policy, advice = policies[decisive.detector], self._fit(decisive).advice
            raise AlarmTriggered(decisive, advice, stops=policy == "stop", advises=policy == "advise")

    def _log(self, alarm: Alarm) -> None:
        alarm = self._fit(alarm)
        self.alarms.append(alarm._asdict())
        self.logged.append(alarm)
        self.num_written += 1
        self.counts[alarm.detector] += 1
        self.listener.on_alarm(alarm)

    def _fit(self, alarm: Alarm) -> Alarm:
        """The alarm with advice that fits the recipe of the run."""
        return alarm._replace(advice=fit_advice(alarm.advice, self.recipe.canonical()))

    def resume_at(self, num_alarms: int | None, first: int) -> None:
        """Delete the alarms that were raised after the checkpoint from which the run is resumed, and recall the others.

        Args:
            num_alarms: the number of lines of `alarms.jsonl` at that checkpoint. If it is None, the alarms up to step
                `first` stay.
            first: the step of the checkpoint.
        """
        remaining = (
            self.folder.read_alarms(until=first) if num_alarms is None else self.folder.read_alarms(most=num_alarms)
        )
        self.folder.rewrite(self.folder.alarms, remaining)
        self.num_written, self.counts = len(remaining), Counter(line["detector"] for line in remaining)
        self.logged = [Alarm(**{name: line[name] for name in Alarm._fields if name in line}) for line in remaining]
        self._recall(first)

    def summary(self) -> str:
        """How the run has ended, as a message: "done", the alarms that are still open, and the number of all alarms.

        An alarm is open if its condition held to the end. Those of level "note" are only counted.
        """
        if not self.counts:
            return "done"
        counts = ", ".join(name if n == 1 else f"{name} ({n:,})" for name, n in self.counts.items())
        hint = f"see poise watch {shlex.quote(str(self.folder.path))}"
        notes = sum(n for name, n in self.counts.items() if LEVELS.get(self.monitoring.policy_of(name)) == "note")
        kinds = [count_noun(n, kind) for n, kind in ((self.counts.total() - notes, "alarm"), (notes, "note")) if n]
        total = f"{' and '.join(kinds)}: {counts}; {hint}"
        open_alarms = [alarm for alarm in self.monitor.open_alarms() if alarm.level != "note"]
        if not open_alarms:
            return f"done, with {total}"
        problems = [f"{alarm.message} ({alarm.detector}, step {alarm.step:,})" for alarm in open_alarms]
        return f"done, but {'; '.join(problems)}; {total}"

    def roll_back(self, step: int) -> None:
        """Go on as a run does that is resumed at `step`, whose rows and measures are those up to there."""
        self.returns = (*(one for one in self.returns if one < step), step)
        self.monitor = self._monitor_at(step)
        self._recall(step)

    @property
    def horizon(self) -> int | None:
        """The step from before which a checkpoint is kept; None if no alarm about a window needs it.

        The policy `keep` needs it as long as there are no best weights, but only if there is none for a roll-back,
        which would otherwise lead further back than necessary.
        """
        returning = self._longest_window(ROLLING_BACK)
        longest = self._longest_window(("keep",)) if returning is None and not self._has_best else returning
        return None if longest is None else self.monitor.history.step - longest

    def _longest_window(self, policies: tuple[Policy, ...]) -> int | None:
        names = [name for name in DETECTORS if name != NOT_FINITE and self.monitoring.policy_of(name) in policies]
        return self.monitor.longest_window(names)

    @property
    def _has_best(self) -> bool:
        return any(self.folder.best.glob("step-*"))

    def _keep_checkpoint(self, alarm: Alarm) -> None:
        """Copy the checkpoint that a roll-back would return to, or else the oldest, to `kept/`, which is never pruned.

        Nothing is copied if the run keeps its best weights anyway.
        """
        if self._has_best:
            return
        valid = checkpoint_folder.choosable(self.folder.saves, partial(due.saves, self.recipe))
        if not valid:
            return
        sound = last_sound_step(alarm)
        step = checkpoint_folder.sound_step(valid, sound)
        try:
            with disk_errors(self.folder.kept):
                checkpoint_folder.copy(valid[step], self.folder.kept)
        except DiskError as error:
            message = f"could not keep the checkpoint of step {step:,}, training continues: {error}"
        else:
            message = f"the checkpoint of step {step:,} is kept in {self.folder.kept}"
            if step > sound:
                began = f"{alarm.detector}, which began after step {sound:,}"
                message += f"; it is the oldest one, but later than the first sign of {began}"
        self.listener.on_message(message)
