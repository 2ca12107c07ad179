"""The progress of a run on stderr: a live panel on a terminal, one line per logged row elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from rich.console import Group
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from poise.cli.run_progress import LongWork, RunProgress
from poise.core.metrics_log import Row
from poise.core.types import Side
from poise.training.listener import StartInfo
from poise.utils.console import TerminalConsole, styled_text
from poise.utils.printing import count_noun, overwrite_line, print_line, printable
from poise.watch.base import Alarm

TRACK_WIDTH = 41
LOG2 = math.log(2)
QUIET_SECONDS, MESSAGE_INTERVAL = 1.0, 5.0
"""`PlainView` reports long work after one second without output, and then every five seconds."""
SHORT_WORK = 0.5
"""Seconds after which work appears in the panel, so that short work does not flicker."""
LEVEL_STYLES = {"note": "bold", "warning": "bold yellow", "failure": "bold red"}


def equilibrium_label(equilibrium: float) -> str:
    """The value of a loss at equilibrium as text: "log 2", or a number."""
    return {LOG2: "log 2", -LOG2: "-log 2"}.get(equilibrium, f"{equilibrium:.2f}")


def equilibrium_note(equilibrium: Mapping[Side, float]) -> str:
    """The losses of both players at equilibrium in brackets, or the one of both if they are equal; empty if unknown."""
    labels = {side: equilibrium_label(equilibrium[side]) for side in Side if side in equilibrium}
    if not labels:
        return ""
    if len(set(labels.values())) == 1:
        return f" (equilibrium: {next(iter(labels.values()))})"
    return f" (equilibrium: {', '.join(f'{side.upper()} {label}' for side, label in labels.items())})"


def track_position(loss: float, equilibrium: float) -> int:
    """The position of a loss on a track that goes from 0 to three times its equilibrium."""
    share = loss / (3 * equilibrium) if math.isfinite(loss) else 1.0
    share = min(1.0, max(0.0, share))
    return round((share if equilibrium > 0 else 1 - share) * (TRACK_WIDTH - 1))


def track(loss: float, equilibrium: float | None) -> Text:
    """A row of dots that shows the loss and, by a mark, its equilibrium, at which the players are balanced."""
    if not equilibrium:  # unknown, or 0, which gives no scale
        return Text("")
    cells = ["·"] * TRACK_WIDTH
    mark, position = track_position(equilibrium, equilibrium), track_position(loss, equilibrium)
    cells[mark] = "┊"
    cells[position] = "●"
    text = Text("".join(cells), style="dim")
    text.stylize("bold green" if abs(position - mark) <= TRACK_WIDTH // 8 else "bold yellow", position, position + 1)
    return text


def describe_balance(row: Row) -> list[str]:
    """Short descriptions of the balance between the players, as far as the row has metrics for them."""
    mean = {name: stat.mean for name, stat in row.stats.items()}
    parts = [f"{name} {mean[f'g/{name}']:.4g}" for name in ("elbo", "reconstruction", "kl") if f"g/{name}" in mean]
    if "d/real_accuracy" in mean:
        parts.append(f"D accuracy on real {mean['d/real_accuracy']:.0%}, on fake {mean['d/fake_accuracy']:.0%}")
    elif "d/accuracy" in mean:
        parts.append(f"D accuracy on pairs {mean['d/accuracy']:.0%}")
    if "d/class_accuracy" in mean and "g/class_accuracy" in mean:
        parts.append(f"class accuracy on real {mean['d/class_accuracy']:.0%}, on fake {mean['g/class_accuracy']:.0%}")
    if "d/wasserstein" in mean:
        parts.append(f"Wasserstein estimate {mean['d/wasserstein']:.3f}")
    if "g/convergence" in mean:
        parts.append(f"convergence {mean['g/convergence']:.3f}, k {mean['g/k']:.3f}")
    return parts


def describe_rate(row: Row) -> list[str]:
    """The throughput of a row, such as "640 images/s"; none if all its steps were made by an earlier process."""
    rate = row.stats.get("time/images_per_second")
    return [] if rate is None else [f"{rate.mean:,.0f} images/s"]


def describe_losses(row: Row) -> list[str]:
    """The loss of each player that has one, such as "D 0.693"."""
    mean = {name: stat.mean for name, stat in row.stats.items()}
    return [f"{side.upper()} {mean[n]:.3f}" for side in Side if (n := f"{side}/adversarial") in mean]


class PlainView:
    """Prints one line per logged row: for log files and pipes."""

    def __init__(self) -> None:
        self._progress: RunProgress | None = None
        self._work = LongWork()
        self._equilibrium: str = ""
        self._next_report = time.monotonic() + QUIET_SECONDS

    def on_start(self, start: StartInfo) -> None:
        """Print what is trained, on what data, and where the run is written."""
        self._progress = RunProgress(start)
        self._equilibrium = equilibrium_note(start.equilibrium)
        steps = count_noun(start.steps - start.first, "step")
        if start.first >= start.steps:
            steps = f"complete at step {start.first:,} (--steps N trains it further)"
        self.on_message(f"{start.name}, {steps}, run folder {start.folder}")
        for line in start.lines:
            self.on_message(f"  {line}")

    def on_step(self, step: int) -> None:
        """Record the current step."""
        self._next_report = time.monotonic() + QUIET_SECONDS
        if self._progress is not None:
            self._progress.on_step(step)

    def on_row(self, row: Row) -> None:
        """Print the row."""
        if self._progress is None:
            return
        place = f"step {row.step:,}/{self._progress.steps:,}"
        losses = f"{'  '.join(describe_losses(row))}{self._equilibrium}"
        parts = [place, *describe_rate(row), self._progress.times(), losses, *describe_balance(row)]
        self.on_message("  ".join(filter(None, parts)))

    def on_message(self, sentence: str) -> None:
        """Print a line."""
        self._next_report = time.monotonic() + QUIET_SECONDS
        print_line(sentence, err=True)

    def on_progress(self, what: str, share: float) -> None:
        """Print a line about long work, every five seconds; what is reported only once is too short for a line."""
        begins = self._work.report(what)
        if what and not begins and time.monotonic() >= self._next_report:
            self.on_message(self._work.describe(share))
            self._next_report += MESSAGE_INTERVAL - QUIET_SECONDS

    def on_alarm(self, alarm: Alarm) -> None:
        """Print the alarm and its advice."""
        self.on_message(f"{alarm.level} at step {alarm.step:,}, {alarm.detector}: {alarm.message}; {alarm.advice}")

    def on_end(self) -> None:
        """Nothing to close."""


class NotebookView(PlainView):
    """A status line that is overwritten twice a second, with messages above it, as plain text for any notebook."""

    def __init__(self) -> None:
        super().__init__()
        self._losses = ""
        self._width, self._next_draw = 0, 0.0

    def on_step(self, step: int) -> None:
        """Update the status line, at most twice a second; that of the last step stays."""
        super().on_step(step)
        now = time.monotonic()
        if self._progress is not None and (now >= self._next_draw or step == self._progress.steps):
            self._next_draw = now + 0.5
            self._draw(f"step {step:,}/{self._progress.steps:,}  {self._progress.times()}{self._losses}")
            if step == self._progress.steps:
                self._finish()

    def on_row(self, row: Row) -> None:
        """Record the losses for the next update of the status line."""
        self._losses = "".join(f"  {part}" for part in (*describe_rate(row), *describe_losses(row))) + self._equilibrium
        self._next_draw = 0.0

    def on_message(self, sentence: str) -> None:
        """Print a line above the status line."""
        self._draw(sentence)
        self._finish()

    def on_progress(self, what: str, share: float) -> None:
        """Show long work in the status line, at most twice a second."""
        now = time.monotonic()
        self._work.report(what)
        if not what:
            self._draw("")
            self._width, self._next_draw = 0, 0.0
        elif now >= self._next_draw:
            self._next_draw = now + 0.5
            self._draw(self._work.describe())

    def on_end(self) -> None:
        """End the status line."""
        self._finish()

    def _draw(self, line: str) -> None:
        overwrite_line(line, self._width)
        self._width = len(line)

    def _finish(self) -> None:
        if self._width:
            print_line("")
        self._width = 0


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook (Jupyter, Colab, VS Code)."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def choose_view() -> PlainView | LiveView:
    """The view for the output of this process: notebook, terminal, or anything else."""
    if in_notebook():
        return NotebookView()
    return LiveView() if LiveView.is_supported() else PlainView()


class QuietLive(RichLive):
    """A panel whose drawing thread survives the loss of the terminal."""

    def refresh(self) -> None:
        """Draw, if the terminal still exists."""
        with suppress(OSError, ValueError):
            super().refresh()


class LiveView:
    """A panel that is redrawn twice a second."""

    def __init__(self, console: TerminalConsole | None = None) -> None:
        self.console = console or TerminalConsole(err=True)
        self._live: RichLive | None = None
        self._work = LongWork()
        self._start: StartInfo | None = None
        self._progress: RunProgress | None = None
        self._row: Row | None = None

    @staticmethod
    def is_supported() -> bool:
        """Whether stderr is a terminal that can move its cursor."""
        console = TerminalConsole(err=True)
        return console.is_terminal and not console.is_dumb_terminal

    def on_start(self, start: StartInfo) -> None:
        """Print what is trained, then open the panel if there are steps to make."""
        self._start, self._progress, self._row = start, RunProgress(start), None
        self.console.print(styled_text((printable(f"{start.name}, run folder {start.folder}"), "bold")))
        for line in start.lines:
            self.on_message(f"  {line}")
        self.on_end()  # closes the line about earlier work
        if start.first < start.steps:
            self._open(self.panel)

    def on_step(self, step: int) -> None:
        """Record the current step; the panel draws itself, and closes after the last step."""
        if self._progress is not None:
            self._progress.on_step(step)
            if step == self._progress.steps:
                self.on_end()  # so that the messages about the whole run come below it

    def on_row(self, row: Row) -> None:
        """Record the newest row."""
        self._row = row

    def on_message(self, sentence: str) -> None:
        """Print a line above the panel."""
        self.console.print(printable(sentence))

    def on_alarm(self, alarm: Alarm) -> None:
        """Print the alarm in colour above the panel."""
        head = printable(f"step {alarm.step:,} {alarm.level}: {alarm.message}")
        self.console.print(styled_text((head, LEVEL_STYLES[alarm.level])))
        self.console.print(styled_text((printable(f"  {alarm.advice} ({alarm.detector}, {alarm.tip})"), "dim")))

    def on_progress(self, what: str, share: float) -> None:
        """Show long work in the panel, or, before it is open, in a line that disappears when the work is done."""
        self._work.report(what)
        if what and self._live is None:
            self._open(self._work_line, transient=True)
        elif not what and self._live is not None and self._live.transient:
            self.on_end()

    def _open(self, render: Callable[[], Group | Text], *, transient: bool = False) -> None:
        console = self.console
        self._live = QuietLive(get_renderable=render, console=console, refresh_per_second=2, transient=transient)
        self._live.start(refresh=transient)

    def _work_line(self) -> Text:
        return Text(printable(self._work.describe()), style="dim")

    def on_end(self) -> None:
        """Close the panel, which stays on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def panel(self) -> Group | Text:
        """The current content of the panel."""
        if self._start is None or self._progress is None:
            return Text("")
        progress, row = self._progress, self._row
        rate = " ".join(describe_rate(row)) if row else "first steps ..."
        header = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=progress.steps, completed=progress.step, width=TRACK_WIDTH)
        header.add_row(bar, f"step {progress.step:,} of {progress.steps:,}", rate)
        work = [self._work_line()] if self._work.what and self._work.seconds >= SHORT_WORK else []
        return Group(header, Text(progress.times()), *([self._losses(row)] if row else []), *work)

    def _losses(self, row: Row) -> Table:
        assert self._start is not None
        table = Table.grid(padding=(0, 2))
        for side, name in ((Side.D, "D"), (Side.G, "G")):
            if f"{side}/adversarial" not in row.stats:  # no opponent, or no update yet
                continue
            loss = row.stats[f"{side}/adversarial"].mean
            equilibrium = self._start.equilibrium.get(side)
            label = "" if equilibrium is None else f"┊ {equilibrium_label(equilibrium)}"
            table.add_row(track(loss, equilibrium), f"{name} loss {loss:6.3f}", Text(label, style="dim"))
        for sentence in describe_balance(row):
            table.add_row(Text(sentence), "", "")
        return table
