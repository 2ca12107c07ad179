"""Writes `frames.bin`, the frames of a game in the plane; `frames.py` describes the file."""

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
        header: `frames.encode_header`. A file with another header, of another version or a damaged one, is replaced.
    """

    def __init__(self, path: Path, header: bytes) -> None:
        self.path, self.header = path, header
        self._next: int | None = None

    def append(self, record: Records) -> None:
        """Write a frame. Frames that an earlier session has written after its step are deleted.

        Raises:
            DiskError: the file can't be written; a slot written in part is skipped by readers.
        """
        if self._next is None or not self.path.is_file():
            self._next = self._prepare(int(record["step"]))
        number, self._next = self._next, self._next + 1
        data = numbered(record, number)
        overwrite(self.path, dict.fromkeys(offsets(number), data))

    def drop_after(self, step: int) -> None:
        """Delete the frames after `step`, after a roll-back; see `drop_frames_after`."""
        self._next = None
        drop_frames_after(self.path, step)

    def _prepare(self, step: int) -> int:
        """Create the file, or delete its frames after `step`; returns the number of the next frame."""
        frames = None
        with suppress(CheckpointError):
            frames = read_frames(self.path)
        if frames is None or frames.header.tobytes() != self.header:
            write_bytes(self.path, self.header)
            return 0
        _keep_until(self.path, frames, step)
        kept = frames.until(step).records["number"]
        return int(kept[-1]) + 1 if len(kept) else 0


def drop_frames_after(path: Path, step: int) -> None:
    """Delete the frames after `step` from a file, if it exists and is a file of frames.

    Raises:
        DiskError: it can't be written; the old version stays.
    """
    frames = None
    with suppress(CheckpointError):
        frames = read_frames(path)
    if frames is not None:
        _keep_until(path, frames, step)


def _keep_until(path: Path, frames: Frames, step: int) -> None:
    """Write the file anew, without the frames after `step`, if there are any."""
    kept = frames.until(step)
    if len(kept.records) < len(frames.records):
        write_bytes(path, layout(kept))


def layout(frames: Frames) -> bytes:
    """The contents of a file with these frames, each in all its slots unless a later one has that slot."""
    content = bytearray(frames.header.tobytes())
    for record in frames.records:
        data = record.tobytes()
        for offset in offsets(int(record["number"])):
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data
    return bytes(content)
