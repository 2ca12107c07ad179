"""What a run leaves behind as it goes: rows, sheets and TensorBoard events, the same numbers in each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from poise.data.source import Bytes
from poise.errors import DiskError
from poise.files import make_folder, write_bytes
from poise.latents import Latent
from poise.randomness import Dice
from poise.rows import Row, as_json
from poise.sheets import CLASS_ROWS, as_png, draw, held, most, spread
from poise.system import on_disk
from poise.training.events import Events
from poise.training.folder import RunFolder
from poise.training.lines import Lines
from poise.training.sampling import generate, latents


class Recorder:
    """Writes to one run folder. Rows are needed to go on; events and sheets are for looking at, and may fail.

    Args:
        folder: the claimed folder.
        since: the step that is resumed from; what was recorded after it is dropped.
        say: told once of each sort of thing that can't be written.
    """

    def __init__(self, folder: RunFolder, since: int, say: Callable[[str], None]) -> None:
        self.folder, self.since, self.say = folder, since, say
        self.rows, self.events = Lines(folder.rows, say), Events(folder.tensorboard)
        self._failed: set[str] = set()

    def begin(self) -> None:
        """The first writing."""
        self.folder.cut(self.since)
        self.events.begin(self.since + 1 if self.since else None)

    def go_back(self, step: int) -> None:
        """What was recorded after `step` is dropped; alarms stay, they say why."""
        self.rows.cut(step)
        self.folder.cut(step)
        self.events.begin(step + 1)

    def row(self, row: Row) -> None:
        """One row, to `rows.jsonl` and as events.

        Raises:
            DiskError: the disk has refused rows three times in a row.
        """
        self.rows.add(as_json(row))
        means = {name: stat.mean for name, stat in row.stats.items()}
        self._try("TensorBoard events", self.events.scalars, row.step, means)

    def sheet(self, sheet: Bytes, step: int) -> None:
        """One sheet, to `samples/` and as an event."""
        png = as_png(sheet)
        self._try("sample sheets", self._write_sheet, png, self.folder.samples / f"step-{step:08d}.png")
        self._try("TensorBoard events", self.events.image, step, "samples", png, sheet.shape)

    def _write_sheet(self, png: bytes, path: Path) -> None:
        with on_disk(path):
            make_folder(path.parent)
        write_bytes(path, png)

    def _try(self, what: str, write: Callable[..., None], *things: Any) -> None:
        """Write what a run can do without; each time anew, for a full disk may be cleared."""
        try:
            write(*things)
        except (DiskError, OSError, ImportError) as error:
            if what not in self._failed:
                self._failed.add(what)
                self.say(f"{what} can't be written, training goes on without them: {error}")


class Sheets:
    """The same fixed latents each time (mission: always the same, in a grid, every so often).

    Where G takes labels, each class has a row, and every row has the same latents: what differs is the label. Of many
    classes 16 have one. `told` says what is not shown.
    """

    def __init__(
        self, latent: Latent, count: int, real: Tensor, dice: Dice, classes: int = 0, *, alpha: bool = True
    ) -> None:
        self.alpha = alpha
        shown = held(tuple(real.shape[1:]), count)
        self.told = [f"a grid of samples has room for {shown:,} of {count:,} (log.sheet)"] if shown < count else []
        count = shown
        self.latents, self.real, self.dice = latents(latent, count, dice, "sheet"), real, dice
        self.labels, self.columns = None, None
        if classes:
            down, across = most(tuple(real.shape[1:]))
            kinds = spread(classes, min(count, CLASS_ROWS, down))
            if len(kinds) < classes:
                self.told = [f"a grid of samples shows {len(kinds)} of the {classes:,} classes"]
            self.columns = max(1, min(count // len(kinds), 10, across))
            self.latents = self.latents[: self.columns].repeat(len(kinds), 1)
            self.labels = kinds.to(self.latents.device).repeat_interleave(self.columns)

    def draw(self, net: nn.Module) -> Bytes:
        """The sheet of `net`, which is left as it was."""
        return draw(generate(net, self.latents, self.labels, dice=self.dice), self.real, self.columns, alpha=self.alpha)
