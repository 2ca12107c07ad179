"""The progress of a study on stderr, as a live table or as one line per finished run, and the estimate of its time."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from poise.cli.run_progress import format_duration
from poise.study.folder import StudyFolder, unused_results
from poise.study.records import Arm, RunResult
from poise.utils.console import TerminalConsole, styled_text
from poise.utils.printing import count_noun, print_line

if TYPE_CHECKING:
    from poise.study.expand import Expansion
    from poise.study.prepare import Options

MAX_FAILURES = 5
"""The number of failed runs in the live table."""

MAX_OUTCOME = 45
"""The number of characters of their reasons there."""


class StudyProgress:
    """What is done and what remains of a study.

    Args:
        expansion: the expanded plan.
        results: the results so far, which the study extends.
        folder: the study's folder.
    """

    def __init__(self, expansion: Expansion, results: dict[str, RunResult], folder: StudyFolder) -> None:
        self.results, self.folder = results, folder
        self.total = len(expansion.recipes)
        self.first, self.started = self.done, time.monotonic()
        self.arms: dict[str, tuple[Arm, str]] = {
            run: (arm, seed) for arm in expansion.study.arms for seed, run in arm.runs.items()
        }
        self.measure = {base.name: base.measures[0].name for base in expansion.study.bases}

    @property
    def done(self) -> int:
        """The number of runs that have a result."""
        return len(self.results)

    def remaining(self) -> str:
        """The remaining time at the average speed so far."""
        new = self.done - self.first
        if new <= 0:
            return "?"
        return format_duration((time.monotonic() - self.started) / new * (self.total - self.done))

    def name(self, run: str) -> str:
        """The base, the arm and the seed of a run."""
        arm, seed = self.arms[run]
        return f"{arm.base}, {arm.name}, seed {seed}"

    def outcome(self, result: RunResult) -> str:
        """The first measure of a run, or how it failed."""
        if result.state != "done":
            return f"{result.state}: {result.reason}"
        measure = self.measure[self.arms[result.run][0].base]
        value = result.values.get(measure)
        return f"{measure} {value:.4g}" if value is not None else f"no {measure}"

    def summary(self) -> str:
        """A line about the whole study."""
        counts = Counter(result.state for result in self.results.values())
        failed = ", ".join(f"{count} {state}" for state, count in counts.items() if state != "done")
        return f"{self.done:,} of {count_noun(self.total, 'run')} done{f' ({failed})' if failed else ''}"


class PlainStudyView:
    """Prints one line per finished run: for log files and pipes."""

    progress: StudyProgress | None = None

    def on_message(self, sentence: str) -> None:
        """Print it."""
        print_line(sentence, err=True)

    def on_start(self, expansion: Expansion, results: dict[str, RunResult], folder: StudyFolder) -> None:
        """Print what was dropped from the plan, and what is done already."""
        self.progress = StudyProgress(expansion, results, folder)
        for note in expansion.notes:
            self.on_message(note)
        self.on_message(self.progress.summary())

    def on_update(self, running: list[str]) -> None:
        """Do nothing."""

    def on_result(self, result: RunResult) -> None:
        """Print the run and its outcome."""
        if (progress := self.progress) is not None:
            share = f"{progress.done:,}/{progress.total:,}"
            left = f"{progress.remaining()} left"
            self.on_message(f"{share}  {progress.name(result.run)}: {progress.outcome(result)}  ({left})")

    def on_end(self) -> None:
        """Do nothing."""


class LiveStudyView(PlainStudyView):
    """A table of the running and the failed runs that is updated in place."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._failures: list[RunResult] = []
        self._last: RunResult | None = None

    def on_start(self, expansion: Expansion, results: dict[str, RunResult], folder: StudyFolder) -> None:
        """Print what was dropped from the plan, and show the table."""
        super().on_start(expansion, results, folder)
        self._failures = [result for result in results.values() if result.state != "done"]
        self._live = Live(console=TerminalConsole(err=True), auto_refresh=False, transient=True)
        self._live.start()

    def on_update(self, running: list[str]) -> None:
        """Update the table."""
        if self._live is not None and self.progress is not None:
            self._live.update(self._render(self.progress, running), refresh=True)

    def on_result(self, result: RunResult) -> None:
        """Remember the run for the next update."""
        self._last = result
        if result.state != "done":
            self._failures.append(result)

    def on_end(self) -> None:
        """Remove the table and print the summary."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            if self.progress is not None:
                self.on_message(self.progress.summary())

    def _render(self, progress: StudyProgress, running: list[str]) -> Group:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for run in running:
            step, steps = read_step(progress.folder.runs / run), progress.arms[run][0].steps
            table.add_row(styled_text(("running", "bold")), progress.name(run), f"step {step:,} of {steps:,}")
        if self._last is not None and self._last.state == "done":
            table.add_row(styled_text(("done", "green")), progress.name(self._last.run), progress.outcome(self._last))
        for result in self._failures[-MAX_FAILURES:]:
            table.add_row(
                styled_text(("failed", "red")), progress.name(result.run), _shortened(progress.outcome(result))
            )
        bar = ProgressBar(total=progress.total, completed=progress.done, width=40)
        return Group(bar, Text(f" {progress.summary()}, {progress.remaining()} left"), table)


def _shortened(outcome: str) -> str:
    """The first clause of the reason of a failure, so that the table fits on the screen; the report has all of it."""
    clause = outcome.partition(";")[0]
    return clause if len(clause) <= MAX_OUTCOME else f"{clause[: MAX_OUTCOME - 1]}…"


def read_step(folder: Path) -> int:
    """The step of the last logged row of a run; 0 if there is none."""
    with suppress(OSError, ValueError, KeyError, IndexError, TypeError), (folder / "rows.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 20_000))
        complete = file.read().split(b"\n")[:-1]
        return int(json.loads(complete[-1])["step"])
    return 0


def choose_study_view() -> PlainStudyView:
    """The live table on a terminal, lines elsewhere."""
    return LiveStudyView() if sys.stderr.isatty() and TerminalConsole(err=True).is_terminal else PlainStudyView()


def print_estimate(plan_file: Path, folder: StudyFolder, workers: int, options: Options) -> None:
    """Print what a study would train and how long that would take on this machine.

    Args:
        plan_file: the plan.
        folder: the study's folder; what it has results of is not trained again.
        workers: the number of runs at the same time.
        options: see `Options`.

    Raises:
        PoiseError: see `prepare`.
    """
    from poise.study.budget import Load, estimate_seconds, format_hours
    from poise.study.plan import BASE, read_plan
    from poise.study.prepare import prepare, time_recipe, timing_file

    plan = read_plan(plan_file)
    times = timing_file(plan, folder.timing, options)
    expansion = prepare(plan, plan_file, times, options, folder.last_started(plan.name))
    folder.check_outside(expansion.recipes.values())
    results, unused = folder.results_of(expansion.recipes)
    done = set(results)
    recipe = {(arm.base, arm.name): expansion.recipes[next(iter(arm.runs.values()))] for arm in expansion.study.arms}
    loads: list[Load] = []
    names, numbers = [Column(name, overflow="fold") for name in ("base", "arm", "changes")], ("steps", "seeds", "new")
    table = Table(*names[:2], *(Column(name, justify="right") for name in numbers), names[2])
    table.box, table.pad_edge = None, False
    for arm in expansion.study.arms:
        new = len(set(arm.runs.values()) - done)
        done |= set(arm.runs.values())  # runs that several arms share are counted once
        loads.append(Load(recipe[arm.base, BASE], recipe[arm.base, arm.name], new))
        table.add_row(arm.base, arm.name, f"{arm.steps:,}", str(len(arm.runs)), str(new), "; ".join(arm.changes))
    TerminalConsole().print(table)
    for note in expansion.notes:
        print_line(note)
    if unused:
        print_line(unused_results(unused) + ("" if results else ", and --resume is refused"))
    runs, comparisons = len(expansion.recipes), len(expansion.study.comparisons)
    new_runs = sum(load.runs for load in loads)
    print_line(f"{count_noun(runs, 'run')}, {new_runs:,} new; {count_noun(comparisons, 'comparison')}")
    if not new_runs:
        return
    seconds = estimate_seconds(loads, lambda base: time_recipe(base, plan, options), plan.evaluations)
    print_line(
        f"about {format_hours(seconds)}, {format_duration(seconds / workers)} with {count_noun(workers, 'worker')}, "
        "if each arm is as fast as its base"
    )
