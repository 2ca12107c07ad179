"""What a run leaves behind as it goes: rows, sheets and TensorBoard events, the same numbers in each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from poise.core.metrics_log import Row, row_to_json
from poise.core.random_streams import RandomStreams
from poise.errors import DiskError
from poise.latents import Latent
from poise.runs.folder import RunFolder
from poise.runs.generate import generate, sample_latents
from poise.runs.jsonl import JsonLinesFile
from poise.training.tensorboard import TensorBoardWriter
from poise.utils.files import make_folder, write_bytes
from poise.utils.image_grid import CLASS_ROWS, encode_png, evenly_spaced, grid_capacity, num_shown, sample_grid
from poise.utils.images import Bytes
from poise.utils.system import disk_errors


class Recorder:
    """Writes to one run folder. Rows are needed to go on; events and sheets are for looking at, and may fail.

    Args:
        folder: the claimed folder.
        since: the step that is resumed from; what was recorded after it is dropped.
        notify: told once of each sort of thing that can't be written.
    """

    def __init__(self, folder: RunFolder, since: int, notify: Callable[[str], None]) -> None:
        self.folder, self.since, self.notify = folder, since, notify
        self.rows, self.events = JsonLinesFile(folder.rows, notify), TensorBoardWriter(folder.tensorboard)
        self._failed: set[str] = set()

    def open(self) -> None:
        """The first writing."""
        self.folder.drop_after(self.since)
        self.events.open(self.since + 1 if self.since else None)

    def roll_back(self, step: int) -> None:
        """What was recorded after `step` is dropped; alarms stay, they say why."""
        self.rows.drop_after(step)
        self.folder.drop_after(step)
        self.events.open(step + 1)

    def row(self, row: Row) -> None:
        """One row, to `rows.jsonl` and as events.

        Raises:
            DiskError: the disk has refused rows three times in a row.
        """
        self.rows.append(row_to_json(row))
        means = {name: stat.mean for name, stat in row.stats.items()}
        self._try("TensorBoard events", self.events.add_scalars, row.step, means)

    def sample_grid(self, sheet: Bytes, step: int) -> None:
        """One sheet, to `samples/` and as an event."""
        png = encode_png(sheet)
        self._try("sample sheets", self._write_sheet, png, self.folder.samples / f"step-{step:08d}.png")
        self._try("TensorBoard events", self.events.add_image, step, "samples", png, sheet.shape)

    def _write_sheet(self, png: bytes, path: Path) -> None:
        with disk_errors(path):
            make_folder(path.parent)
        write_bytes(path, png)

    def _try(self, what: str, write: Callable[..., None], *things: Any) -> None:
        """Write what a run can do without; each time anew, for a full disk may be cleared."""
        try:
            write(*things)
        except (DiskError, OSError, ImportError) as error:
            if what not in self._failed:
                self._failed.add(what)
                self.notify(f"{what} can't be written, training goes on without them: {error}")


class SampleGrids:
    """The same fixed latents each time (mission: always the same, in a grid, every so often).

    Where G takes labels, each class has a row, and every row has the same latents: what differs is the label. Of many
    classes 16 have one. `told` says what is not shown.
    """

    def __init__(
        self, latent: Latent, count: int, real: Tensor, streams: RandomStreams, classes: int = 0, *, alpha: bool = True
    ) -> None:
        self.alpha = alpha
        shown = num_shown(tuple(real.shape[1:]), count)
        self.notes = [f"a grid of samples has room for {shown:,} of {count:,} (log.sheet)"] if shown < count else []
        count = shown
        self.latents, self.real, self.streams = sample_latents(latent, count, streams, "sheet"), real, streams
        self.labels, self.columns = None, None
        if classes:
            down, across = grid_capacity(tuple(real.shape[1:]))
            kinds = evenly_spaced(classes, min(count, CLASS_ROWS, down))
            if len(kinds) < classes:
                self.notes = [f"a grid of samples shows {len(kinds)} of the {classes:,} classes"]
            self.columns = max(1, min(count // len(kinds), 10, across))
            self.latents = self.latents[: self.columns].repeat(len(kinds), 1)
            self.labels = kinds.to(self.latents.device).repeat_interleave(self.columns)

    def draw(self, net: nn.Module) -> Bytes:
        """The sheet of `net`, which is left as it was."""
        return sample_grid(
            generate(net, self.latents, self.labels, streams=self.streams), self.real, self.columns, alpha=self.alpha
        )
