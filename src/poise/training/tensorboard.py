"""TensorBoard events, written by the training thread itself: a file that can't be written never ends or hangs a run.

PyTorch's SummaryWriter has a thread of its own, which prints a traceback at the first write that fails, and whose queue
then raises, or never ends, in the run. Here an event is encoded by TensorBoard's own record writer and appended whole.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from poise.utils.files import append_bytes, make_folder
from poise.utils.system import disk_errors

_numbers = count()


class TensorBoardWriter:
    """The event files of one run.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open(None)

    def open(self, purge: int | None) -> None:
        """Go on in a new file; what TensorBoard has read of steps from `purge` on is dropped, if that is given."""
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path, self.purge, self.begun = self.folder / name, purge, False

    def add_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers by name.

        Raises:
            DiskError: the disk refused; nothing of them is written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[missing-module-attribute]

        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._write([_event(step=step, summary=Summary(value=[value])) for value in values])

    def add_image(self, step: int, name: str, png: bytes, shape: tuple[int, ...]) -> None:
        """An image as PNG, H x W x C.

        Raises:
            DiskError: the disk refused; nothing of it is written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[missing-module-attribute]

        height, width, channels = shape
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png)
        self._write([_event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))])

    def _write(self, events: list[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[missing-module-attribute]
        from tensorboard.summary.writer.record_writer import RecordWriter

        head = []
        if not self.begun:
            head = [_event(file_version="brain.Event:2")]
            if self.purge is not None:
                head += [_event(step=self.purge, session_log=SessionLog(status=SessionLog.START))]
        records = BytesIO()
        for event in head + events:
            RecordWriter(records).write(event.SerializeToString())
        with disk_errors(self.path):
            make_folder(self.folder)
        append_bytes(self.path, records.getvalue())
        self.begun = True


def _event(**fields: Any) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[missing-module-attribute]

    return Event(wall_time=time.time(), **fields)
