"""What a run leaves behind as it goes: rows, sheets and TensorBoard events, the same numbers in each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from poise.data.source import Bytes
from poise.files import append_line, make_folder
from poise.latents import Latent
from poise.randomness import Dice
from poise.rows import Row, as_json
from poise.sheets import CLASS_ROWS, draw, held, most, spread, write_png
from poise.system import on_disk
from poise.training.folder import RunFolder
from poise.training.sampling import generate, latents


class Recorder:
    """Writes to one run folder.

    Args:
        folder: the claimed folder.
        since: the step that is resumed from; what was recorded after it is dropped.
    """

    def __init__(self, folder: RunFolder, since: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a tenth of a second: only a run pays for it

        self.folder, self.since = folder, since
        self._writer = SummaryWriter
        self._owed: list[dict[str, Any]] = []
        self._events: SummaryWriter | None = None

    def begin(self) -> None:
        """The first writing."""
        self.folder.cut(self.since)
        with on_disk(self.folder.path):
            make_folder(self.folder.samples)
            purge = self.since + 1 if self.since else None
            self._events = self._writer(str(self.folder.tensorboard), purge_step=purge)

    def go_back(self, step: int) -> None:
        """What was recorded after `step` is dropped; alarms stay, they say why."""
        self._owed.clear()
        self.folder.cut(step)
        if self._events is not None:
            self._events.close()
        with on_disk(self.folder.path):
            self._events = self._writer(str(self.folder.tensorboard), purge_step=step + 1)

    def row(self, row: Row) -> None:
        """One row, as events and to `rows.jsonl`; one that the disk refuses is written with the next.

        Raises:
            DiskError: the disk refused.
        """
        if self._events is not None:
            for name, stat in row.stats.items():
                self._events.add_scalar(name, stat.mean, row.step)
        self._owed.append(as_json(row))
        self.settle()

    def settle(self) -> None:
        """Write the rows that the disk refused so far.

        Raises:
            DiskError: it refused again.
        """
        while self._owed:
            append_line(self.folder.rows, self._owed[0])
            del self._owed[0]

    def sheet(self, sheet: Bytes, step: int) -> Path:
        """One sheet, to `samples/` and as an event."""
        path = self.folder.samples / f"step-{step:08d}.png"
        write_png(sheet, path)
        if self._events is not None:
            self._events.add_image("samples", sheet, step, dataformats="HWC")
        return path

    def close(self) -> None:
        """Finish the events."""
        if self._events is not None:
            self._events.close()


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
