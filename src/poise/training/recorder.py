"""Writes what a run logs: rows, sample grids and frames, and the first two to the trackers that the recipe names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from poise.core.metrics_log import Row, row_to_json
from poise.core.random_streams import RandomStreams
from poise.latents import Latent
from poise.runs.folder import RunFolder
from poise.runs.frame_file import FrameFile
from poise.runs.frames import Records
from poise.runs.generate import generate, sample_latents
from poise.runs.jsonl import JsonLinesFile
from poise.runs.sample_view import PLAIN, SampleView
from poise.training.trackers.base import TrackedRun, Tracker
from poise.utils.files import make_folder, remove_file, write_bytes
from poise.utils.image_grid import MAX_CLASS_ROWS, encode_png, evenly_spaced, grid_capacity, num_shown, sample_grid
from poise.utils.images import Bytes
from poise.utils.system import disk_errors


class Recorder:
    """Writes the logs of one run folder.

    A run can't be resumed without its rows. Sample grids, frames and trackers are only for viewing, so training
    continues without them if they fail.

    Args:
        folder: the run folder, which this run has claimed.
        since: the step from which the run is resumed; everything logged after it is deleted.
        notify: called with a message the first time that grids or frames can't be written, or a tracker fails.
        trackers: where else the run is logged.
        config: the recipe in its canonical form, for the trackers.
    """

    def __init__(
        self,
        folder: RunFolder,
        since: int,
        notify: Callable[[str], None],
        trackers: Sequence[Tracker],
        config: dict[str, Any],
    ) -> None:
        self.folder, self.since, self.notify, self.trackers = folder, since, notify, trackers
        self.run = TrackedRun(folder.path.resolve(), config)
        self.rows, self.frames = JsonLinesFile(folder.rows, notify), FrameFile(folder.frames)
        self._failed: set[str] = set()

    def open(self) -> None:
        """Prepare the files for writing, after all checks of the run have passed."""
        self.folder.drop_after(self.since)
        self._try("sample grids", self._drop_grids_after, self.since)
        self._try("frames", self.frames.drop_after, self.since)
        for tracker in self.trackers:
            self._try(tracker.title, tracker.open, self.run, self.since)

    def roll_back(self, step: int) -> None:
        """Delete what was logged after `step`, except the alarms, which give the reason."""
        self.rows.drop_after(step)
        self.folder.drop_after(step)
        self._try("sample grids", self._drop_grids_after, step)
        self._try("frames", self.frames.drop_after, step)
        for tracker in self.trackers:
            self._try(tracker.title, tracker.open, self.run, step)

    def row(self, row: Row) -> None:
        """Write a row to `rows.jsonl`, and its means to the trackers.

        Raises:
            DiskError: rows could not be written three times in succession.
        """
        self.rows.append(row_to_json(row))
        self.scalars(row.step, {name: stat.mean for name, stat in row.stats.items()})

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers to the trackers."""
        for tracker in self.trackers:
            self._try(tracker.title, tracker.add_scalars, step, numbers)

    def sample_grid(self, grid: Bytes, step: int) -> None:
        """Write a sample grid to `samples/` and to the trackers."""
        png = encode_png(grid)
        self._try("sample grids", self._write_grid, png, self.folder.sample_grid(step))
        for tracker in self.trackers:
            self._try(tracker.title, tracker.add_image, step, "samples", png, grid.shape)

    def frame(self, draw: Callable[[], Records], header: bytes) -> None:
        """Draw a frame and write it to `frames.bin`, see `FrameFile.append`."""
        self._try("frames", lambda: self.frames.append(draw(), header))

    def close(self, state: str) -> None:
        """Tell the trackers that the run has ended, in the state "done", "stopped" or "failed"."""
        for tracker in self.trackers:
            self._try(tracker.title, tracker.close, state)

    def _drop_grids_after(self, step: int) -> None:
        for path in self.folder.samples.glob("step-*.png"):
            if path.stem.removeprefix("step-").isdecimal() and int(path.stem.removeprefix("step-")) > step:
                remove_file(path)

    def _write_grid(self, png: bytes, path: Path) -> None:
        with disk_errors(path):
            make_folder(path.parent)
        write_bytes(path, png)

    def _try(self, name: str, write: Callable[..., None], *args: Any) -> None:
        """Write something optional; later writes are tried even after a failure, because a full disk may be cleared."""
        try:
            write(*args)
        except Exception as error:  # a library may raise anything
            if name not in self._failed:
                self._failed.add(name)
                reason = str(error) or type(error).__name__
                self.notify(f"{name} can't be written, training continues without them: {reason}")


MAX_SIDE_BY_SIDE = 10
"""The largest number of classes with which an image is translated in a sample grid."""


class SampleGrids:
    """Draws the sample grids of a run, always from the same latents.

    If G takes labels, each class has a row, and all rows have the same latents, so that they differ by the label only.
    Of more than 16 classes, 16 are shown. Translations are shown beside what they were made from, see `SampleView`; an
    image is translated with up to 10 classes side by side.

    Args:
        latent: the distribution of the latents.
        count: the largest number of images in a grid.
        real: real samples; they give the format of the grid, and points are drawn over them.
        streams: the run's random streams.
        classes: the number of classes if G takes labels, otherwise 0.
        view: how samples are looked at.

    Attributes:
        notes: messages about samples or classes that the grid has no room for.
    """

    def __init__(
        self,
        latent: Latent,
        count: int,
        real: Tensor,
        streams: RandomStreams,
        classes: int = 0,
        *,
        view: SampleView = PLAIN,
    ) -> None:
        if classes and not view.is_plain and real.dim() == 4:
            view = view._replace(labels=tuple(evenly_spaced(classes, MAX_SIDE_BY_SIDE).tolist()))
        self.view, self.real, self.streams = view, real, streams
        self.labels, self.columns = None, None
        shape = tuple(real.shape[1:])
        wanted = max(1, count // view.images_per_sample)
        shown = num_shown(shape, wanted) if view.is_plain else min(wanted, view.capacity(shape))
        self.notes = (
            [f"the sample grid has room for {shown:,} of {wanted:,} samples (log.sheet)"] if shown < wanted else []
        )
        self.latents = sample_latents(latent, shown, streams, "sheet")
        if view.labels:
            if len(view.labels) < classes:
                self.notes.append(f"the sample grid shows {len(view.labels)} of {classes:,} classes")
        elif classes:
            max_rows, max_columns = grid_capacity(shape)
            labels = evenly_spaced(classes, min(shown, MAX_CLASS_ROWS, max_rows))
            if len(labels) < classes:
                self.notes = [f"the sample grid shows {len(labels)} of {classes:,} classes"]
            self.columns = max(1, min(shown // len(labels), 10, max_columns))
            self.latents = self.latents[: self.columns].repeat(len(labels), 1)
            self.labels = labels.to(self.latents.device).repeat_interleave(self.columns)

    def draw(self, net: nn.Module) -> Bytes:
        """The grid of samples from `net`, whose mode is restored."""
        if not self.view.is_plain:
            return self.view.draw(self.view.generate(net, self.latents, self.labels, self.streams))
        samples = generate(net, self.latents, self.labels, streams=self.streams)
        return sample_grid(samples, self.real, self.columns, alpha=self.view.alpha)
