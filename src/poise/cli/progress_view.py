"""What a person sees while a run goes: a live panel on a terminal, a line per row elsewhere. All on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Group
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from poise.core.metrics_log import Row
from poise.core.types import Side
from poise.training.listener import StartInfo
from poise.utils.console import TerminalConsole, styled_text
from poise.utils.printing import count_noun, overwrite_line, print_line, printable
from poise.watch.base import Alarm

TRACK_WIDTH = 41
LOG2 = math.log(2)
QUIET_SECONDS, MESSAGE_INTERVAL = 1.0, 5.0
"""Where lines are all there is, one says how far work is after a second in silence, then one every five seconds."""
LEVEL_STYLES = {"note": "bold", "warning": "bold yellow", "failure": "bold red"}


def format_duration(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def equilibrium_label(equilibrium: float) -> str:
    """How an equilibrium is called: "log 2", or a plain number."""
    return {LOG2: "log 2", -LOG2: "-log 2"}.get(equilibrium, f"{equilibrium:.2f}")


def track_position(loss: float, equilibrium: float) -> int:
    """Where a loss stands on a track that goes from 0 to three times its equilibrium."""
    share = loss / (3 * equilibrium) if math.isfinite(loss) else 1.0
    share = min(1.0, max(0.0, share))
    return round((share if equilibrium > 0 else 1 - share) * (TRACK_WIDTH - 1))


def track(loss: float, equilibrium: float | None) -> Text:
    """A line of dots with the loss on it and a mark where neither player has the better of the other."""
    if not equilibrium:  # none, or 0, which has no scale
        return Text("")
    cells = ["·"] * TRACK_WIDTH
    mark, here = track_position(equilibrium, equilibrium), track_position(loss, equilibrium)
    cells[mark] = "┊"
    cells[here] = "●"
    text = Text("".join(cells), style="dim")
    text.stylize("bold green" if abs(here - mark) <= TRACK_WIDTH // 8 else "bold yellow", here, here + 1)
    return text


class RunProgress:
    """How far the run is and how long it will take; asks only a clock that never jumps."""

    def __init__(self, start: StartInfo) -> None:
        self.first, self.steps, self.batch = start.first, start.steps, start.batch
        self.step, self.began = start.first, time.monotonic()

    def left(self) -> str:
        """Time left at the pace so far."""
        done = self.step - self.first
        return format_duration((time.monotonic() - self.began) / done * (self.steps - self.step)) if done else "?"


def describe_balance(row: Row) -> list[str]:
    """How the players stand, in words: whatever of it this game has numbers for."""
    mean = {name: stat.mean for name, stat in row.stats.items()}
    told = [f"{name} {mean[f'g/{name}']:.4g}" for name in ("elbo", "reconstruction", "kl") if f"g/{name}" in mean]
    if "d/real_accuracy" in mean:
        told.append(f"D right on real {mean['d/real_accuracy']:.0%}, on fake {mean['d/fake_accuracy']:.0%}")
    elif "d/accuracy" in mean:
        told.append(f"D right on {mean['d/accuracy']:.0%} of pairs")
    if "d/class_accuracy" in mean and "g/class_accuracy" in mean:
        told.append(f"class right on {mean['d/class_accuracy']:.0%}, of G's {mean['g/class_accuracy']:.0%}")
    if "d/wasserstein" in mean:
        told.append(f"Wasserstein estimate {mean['d/wasserstein']:.3f}")
    if "g/convergence" in mean:
        told.append(f"convergence {mean['g/convergence']:.3f}, k {mean['g/k']:.3f}")
    return told


class PlainView:
    """One line per row: for log files and pipes."""

    def __init__(self) -> None:
        self._pace: RunProgress | None = None
        self._equilibrium: str = ""
        self._due = time.monotonic() + QUIET_SECONDS

    def on_start(self, start: StartInfo) -> None:
        """What is trained, where, on what."""
        self._pace = RunProgress(start)
        levels = ", ".join(sorted({equilibrium_label(value) for value in start.equilibrium.values()}))
        self._equilibrium = f" (equilibrium: {levels})" if levels else ""
        self.on_message(f"{start.name}, {count_noun(start.steps - start.first, 'step')}, into {start.folder}")
        for line in start.lines:
            self.on_message(f"  {line}")

    def on_step(self, step: int) -> None:
        """Remember how far it is."""
        self._due = time.monotonic() + QUIET_SECONDS
        if self._pace is not None:
            self._pace.step = step

    def on_row(self, row: Row) -> None:
        """The row in words."""
        if self._pace is None:
            return
        self._pace.step = row.step
        told = {name: stat.mean for name, stat in row.stats.items()}
        losses = [f"{side.upper()} {told[n]:.3f}" for side in Side if (n := f"{side}/adversarial") in told]
        self.on_message(
            f"step {row.step:,}/{self._pace.steps:,}  {told['time/images_per_second']:,.0f} images/s  "
            f"{self._pace.left()} left  "
            f"{'  '.join(losses)}{self._equilibrium}  {'  '.join(describe_balance(row))}"
        )

    def on_message(self, sentence: str) -> None:
        """A line."""
        self._due = time.monotonic() + QUIET_SECONDS
        print_line(sentence, err=True)

    def on_progress(self, what: str, share: float) -> None:
        """A line about long work, one every five seconds."""
        if what and time.monotonic() >= self._due:
            self.on_message(f"{what} ..." if share == 0 else f"{what} ({share:.0%})")
            self._due += MESSAGE_INTERVAL - QUIET_SECONDS

    def on_alarm(self, alarm: Alarm) -> None:
        """What was seen, and what to do."""
        self.on_message(f"{alarm.level} at step {alarm.step:,}, {alarm.detector}: {alarm.message}; {alarm.advice}")

    def on_end(self) -> None:
        """Nothing to take down."""


class NotebookView(PlainView):
    """One line that is written over twice a second, and whole lines above it: plain text that every notebook shows."""

    def __init__(self) -> None:
        super().__init__()
        self._losses = ""
        self._width, self._next = 0, 0.0

    def on_step(self, step: int) -> None:
        """Write over the line, unless that was done a moment ago."""
        super().on_step(step)
        now = time.monotonic()
        if self._pace is not None and now >= self._next:
            self._next = now + 0.5
            self._draw(f"step {step:,}/{self._pace.steps:,}  {self._pace.left()} left{self._losses}")

    def on_row(self, row: Row) -> None:
        """Remember the losses; the next tick shows them."""
        told = {name: stat.mean for name, stat in row.stats.items()}
        losses = [f"{side.upper()} {told[n]:.3f}" for side in Side if (n := f"{side}/adversarial") in told]
        rate = f"  {told['time/images_per_second']:,.0f} images/s  "
        self._losses = rate + "  ".join(losses) + self._equilibrium
        self._next = 0.0

    def on_message(self, sentence: str) -> None:
        """A line that stays, above the one that is written over."""
        self._draw(sentence)
        self._finish()

    def on_progress(self, what: str, share: float) -> None:
        """Write long work over the line, twice a second at most."""
        now = time.monotonic()
        if not what:
            self._draw("")
            self._width, self._next = 0, 0.0
        elif now >= self._next:
            self._next = now + 0.5
            self._draw(f"{what} ...")

    def on_end(self) -> None:
        """Leave the last line standing."""
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
    """The view that fits where this process prints."""
    if in_notebook():
        return NotebookView()
    return LiveView() if LiveView.is_supported() else PlainView()


class QuietLive(RichLive):
    """A panel whose thread survives a terminal that is gone."""

    def refresh(self) -> None:
        """Draw, if that is still possible."""
        with suppress(OSError, ValueError):
            super().refresh()


class LiveView:
    """A panel that redraws itself twice a second."""

    def __init__(self, console: TerminalConsole | None = None) -> None:
        self.console = console or TerminalConsole(err=True)
        self._live: RichLive | None = None
        self._doing = ""
        self._start: StartInfo | None = None
        self._pace: RunProgress | None = None
        self._row: Row | None = None

    @staticmethod
    def is_supported() -> bool:
        """Whether somebody is looking: stderr is a terminal that can move its cursor."""
        console = TerminalConsole(err=True)
        return console.is_terminal and not console.is_dumb_terminal

    def on_start(self, start: StartInfo) -> None:
        """Say what is trained, then open the panel."""
        self._start, self._pace = start, RunProgress(start)
        self.console.print(styled_text((printable(f"{start.name}, into {start.folder}"), "bold")))
        for line in start.lines:
            self.on_message(f"  {line}")
        self.on_end()  # what was shown of the work before
        self._open(self.panel)

    def on_step(self, step: int) -> None:
        """Remember how far it is; drawing is the panel's own affair."""
        if self._pace is not None:
            self._pace.step = step

    def on_row(self, row: Row) -> None:
        """Remember the newest row."""
        self._row = row

    def on_message(self, sentence: str) -> None:
        """A line above the panel."""
        self.console.print(printable(sentence))

    def on_alarm(self, alarm: Alarm) -> None:
        """The same in colour, above the panel."""
        head = printable(f"step {alarm.step:,} {alarm.level}: {alarm.message}")
        self.console.print(styled_text((head, LEVEL_STYLES[alarm.level])))
        self.console.print(styled_text((printable(f"  {alarm.advice} ({alarm.detector}, {alarm.tip})"), "dim")))

    def on_progress(self, what: str, share: float) -> None:
        """A line of the panel about long work; where there is no panel, a line that goes when the work is done."""
        self._doing = f"{what} ..." if what else ""
        if what and self._live is None:
            self._open(self._work, passing=True)
        elif not what and self._live is not None and self._live.transient:
            self.on_end()

    def _open(self, shown: Callable[[], Group | Text], *, passing: bool = False) -> None:
        console = self.console
        self._live = QuietLive(get_renderable=shown, console=console, refresh_per_second=2, transient=passing)
        self._live.start(refresh=passing)

    def _work(self) -> Text:
        return Text(printable(self._doing), style="dim")

    def on_end(self) -> None:
        """Leave the last panel standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def panel(self) -> Group | Text:
        """The panel as it is now."""
        if self._start is None or self._pace is None:
            return Text("")
        pace, row = self._pace, self._row
        rate = f"{row.stats['time/images_per_second'].mean:,.0f} images/s" if row else "first steps ..."
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=pace.steps, completed=pace.step, width=TRACK_WIDTH)
        head.add_row(bar, f"step {pace.step:,} of {pace.steps:,}", rate, f"{pace.left()} left")
        work = [self._work()] if self._doing else []
        return Group(head, self._losses(row), *work) if row else Group(head, *work)

    def _losses(self, row: Row) -> Table:
        assert self._start is not None
        table = Table.grid(padding=(0, 2))
        for side, who in ((Side.D, "D"), (Side.G, "G")):
            if f"{side}/adversarial" not in row.stats:  # nobody to play against, or no move yet
                continue
            loss = row.stats[f"{side}/adversarial"].mean
            even = self._start.equilibrium.get(side)
            told = "" if even is None else f"┊ {equilibrium_label(even)}"
            table.add_row(track(loss, even), f"{who} loss {loss:6.3f}", Text(told, style="dim"))
        for sentence in describe_balance(row):
            table.add_row(Text(sentence), "", "")
        return table
