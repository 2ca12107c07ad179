"""A TensorBoard event writer that runs in the training thread, so that a failed write never stops or blocks a run.

PyTorch's `SummaryWriter` writes in another thread. After the first write that fails, this thread prints a traceback,
and its queue raises an error in the run or blocks it. Here each event is encoded by TensorBoard's record writer and
appended to the file in one piece.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO
from itertools import count
from typing import Any, ClassVar

from poise.training.trackers.base import TrackedRun, Tracker
from poise.utils.files import append_bytes, make_folder
from poise.utils.system import disk_errors

_numbers = count()


class TensorBoardTracker(Tracker):
    """Writes event files to the folder `tensorboard` of the run."""

    title: ClassVar[str] = "TensorBoard events"

    def open(self, run: TrackedRun, since: int) -> None:
        """Start a new file, which makes TensorBoard discard what earlier files have after step `since`."""
        place = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers):06d}"  # TensorBoard reads in the order of names
        self.path = run.path / "tensorboard" / f"events.out.tfevents.{int(time.time()):010d}.{place}"
        earlier = any(self.path.parent.glob("events.out.tfevents.*"))
        self.purge_step, self._has_header = since + 1 if earlier else None, False

    def add_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.add_scalars`.

        Raises:
            DiskError: the file can't be written; none of the numbers is written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[missing-module-attribute]

        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._write([_event(step=step, summary=Summary(value=[value])) for value in values])

    def add_image(self, step: int, name: str, png: bytes, shape: tuple[int, ...]) -> None:
        """See `Tracker.add_image`.

        Raises:
            DiskError: the file can't be written; nothing of the image is written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[missing-module-attribute]

        height, width, channels = shape
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png)
        self._write([_event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))])

    def close(self, state: str) -> None:
        """Nothing is left to do: each event is written at once."""

    def _write(self, events: list[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[missing-module-attribute]
        from tensorboard.summary.writer.record_writer import RecordWriter

        header = []
        if not self._has_header:
            header = [_event(file_version="brain.Event:2")]
            if self.purge_step is not None:
                header += [_event(step=self.purge_step, session_log=SessionLog(status=SessionLog.START))]
        records = BytesIO()
        for event in header + events:
            RecordWriter(records).write(event.SerializeToString())
        with disk_errors(self.path):
            make_folder(self.path.parent)
        append_bytes(self.path, records.getvalue())
        self._has_header = True


def _event(**fields: Any) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[missing-module-attribute]

    return Event(wall_time=time.time(), **fields)
