"""Writes `frames.bin`, the frames of a GAN on 2-D points; `frames.py` describes the file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from poise.errors import CheckpointError
from poise.runs.frames import Frames, Records, numbered, offsets, read_frames
from poise.utils.files import overwrite, write_bytes


class FrameFile:
    """The file of frames of one run, as its only writer. It is created with the first frame.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next: int | None = None

    def append(self, record: Records, header: bytes) -> None:
        """Write a frame. Frames that an earlier session has written after its step are deleted.

        Args:
            record: `frames.encode_frame`.
            header: `frames.encode_header`, always the same one. An earlier file with another header, of another version
                or a damaged one, is replaced.

        Raises:
            DiskError: the file can't be written; a slot written in part is skipped by readers.
        """
        if self._next is None or not self.path.is_file():
            self._next = self._prepare(int(record["step"]), header)
        number, self._next = self._next, self._next + 1
        data = numbered(record, number)
        overwrite(self.path, dict.fromkeys(offsets(number), data))

    def drop_after(self, step: int) -> None:
        """Delete the frames after `step` if there are any, when a run is resumed or rolled back.

        Raises:
            DiskError: the file can't be written; the old version stays.
        """
        self._next = None
        with suppress(CheckpointError):
            if (frames := read_frames(self.path)) is not None:
                self._keep(frames, step)

    def _prepare(self, step: int, header: bytes) -> int:
        """Create the file, or delete its frames after `step`; returns the number of the next frame."""
        with suppress(CheckpointError):
            frames = read_frames(self.path)
            if frames is not None and frames.header.tobytes() == header:
                return self._keep(frames, step)
        write_bytes(self.path, header)
        return 0

    def _keep(self, frames: Frames, step: int) -> int:
        """Write the file anew, without the frames after `step`, if there are any; returns the number of the next."""
        kept = frames.until(step)
        if len(kept.records) < len(frames.records):
            write_bytes(self.path, layout(kept))
        return int(kept.records["number"][-1]) + 1 if len(kept.records) else 0


def layout(frames: Frames) -> bytes:
    """The contents of a file with these frames, each in all its slots unless a later one has that slot."""
    content = bytearray(frames.header.tobytes())
    for record in frames.records:
        data = record.tobytes()
        for offset in offsets(int(record["number"])):
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data
    return bytes(content)
