"""Frames of GANs on 2-D points: what `frames.bin` in a run folder contains, byte by byte.

A frame is what a page draws of a game whose samples are points: generated points, the direction in which G is pushed at
each of them, and D's score on a grid, quantised to 2.6 kB. Real points and the region that is shown are in the header,
because they do not change.

The file is a ring of records in `LEVELS` levels of `SLOTS` slots. Level k has every 2^k-th frame, in slot
(number / 2^k) mod 64. So the last 64 frames are all there, earlier ones are thinned by halves, nothing is ever moved,
and the file never exceeds 2.7 MB. Each record has a checksum: one that was written in part is skipped, and so is one
that has never been written.

Nothing here needs torch. `frame_file.py` writes the file, and docs/run-folder.md describes it for other programs.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.errors import CheckpointError

Floats = npt.NDArray[np.floating[Any]]
Records = npt.NDArray[np.void]

MAGIC, VERSION = b"POISEFRM", 1
POINTS, GRID, SLOTS, LEVELS, REALS = 256, 32, 64, 16, 512
"""Generated points in a frame, cells on a side of the grid, slots in a level, levels, and real points."""

MARGIN = 0.25
"""How far the region exceeds the real points on each side, as a fraction of their extent."""

SPREAD = 3.0
"""Generated points are stored over the region made this many times as wide and high about its centre."""

U16, U8, I8 = 65535, 255, 127

HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u2"),
        ("record_size", "<u2"),
        ("points", "<u2"),
        ("grid", "<u2"),
        ("slots", "<u2"),
        ("levels", "<u2"),
        ("region", "<f4", (4,)),
        ("reals", "<u2"),
        ("zero", "<u2"),
        ("real_points", "<u2", (REALS, 2)),
        ("checksum", "<u4"),
    ]
)
"""The header; `region` is left, bottom, right, top, and `checksum` the CRC-32 of everything before it."""

RECORD = np.dtype(
    [
        ("checksum", "<u4"),
        ("number", "<u4"),
        ("step", "<u8"),
        ("score_min", "<f4"),
        ("score_max", "<f4"),
        ("threshold", "<f4"),
        ("gradient_max", "<f4"),
        ("points", "<u2", (POINTS, 2)),
        ("gradients", "i1", (POINTS, 2)),
        ("scores", "u1", (GRID, GRID)),
    ]
)
"""A record; `checksum` is the CRC-32 of everything after it."""

MAX_SIZE = HEADER.itemsize + LEVELS * SLOTS * RECORD.itemsize
"""The size of a file in which every slot has been used, in bytes."""


class Region(NamedTuple):
    """The part of the plane that is shown."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, points: Floats) -> Region:
        """The region of real points, N x 2, with a margin; a side on which they hardly differ gets some width."""
        low, high = points.min(0).astype(float), points.max(0).astype(float)
        widest = float((high - low).max()) or 1.0
        half, centre = np.maximum(high - low, widest / 10) * (0.5 + MARGIN), (low + high) / 2
        return cls(*map(float, (centre - half).astype("<f4")), *map(float, (centre + half).astype("<f4")))

    def spread(self) -> Region:
        """The region over which generated points are stored, `SPREAD` times as wide and high."""
        x, y = (SPREAD - 1) / 2 * (self.right - self.left), (SPREAD - 1) / 2 * (self.top - self.bottom)
        return Region(self.left - x, self.bottom - y, self.right + x, self.top + y)

    def cell_centres(self) -> Floats:
        """The centres of the grid's cells, GRID * GRID x 2, float32: from the bottom row up, each from the left."""
        inner = (np.arange(GRID) + 0.5) / GRID
        x, y = self.left + inner * (self.right - self.left), self.bottom + inner * (self.top - self.bottom)
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype("f4")


def quantise_points(points: Floats, region: Region) -> npt.NDArray[np.uint16]:
    """Points, N x 2, as numbers from 0 to 65535 over a region; those outside, or not finite, are moved to its edge."""
    low, high = np.array(region[:2]), np.array(region[2:])
    share = np.nan_to_num((points - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(share.clip(0, 1) * U16).astype("<u2")


def restore_points(numbers: npt.NDArray[np.uint16], region: Region) -> Floats:
    """The points, N x 2, from `quantise_points`."""
    low, high = np.array(region[:2]), np.array(region[2:])
    return low + numbers / U16 * (high - low)


def encode_header(real: Floats) -> bytes:
    """The header of a file for a game whose real points are like `real`, REALS x 2."""
    header, region = np.zeros((), HEADER), Region.around(real)
    header["magic"], header["version"], header["record_size"] = MAGIC, VERSION, RECORD.itemsize
    header["points"], header["grid"], header["slots"], header["levels"] = POINTS, GRID, SLOTS, LEVELS
    header["region"], header["reals"], header["real_points"] = region, REALS, quantise_points(real, region)
    header["checksum"] = zlib.crc32(header.tobytes()[:-4])
    return header.tobytes()


def encode_frame(
    step: int,
    region: Region,
    points: Floats,
    pushes: Floats | None = None,
    scores: Floats | None = None,
    threshold: float | None = None,
) -> Records:
    """A record, 0-dim; its number and checksum are set when it is written. Values that are not finite are left out.

    Args:
        step: the number of steps done.
        region: the region of the file.
        points: generated points, POINTS x 2.
        pushes: the negative gradient of G's loss at each of them, POINTS x 2; None without a discriminator.
        scores: D's scores at `Region.cell_centres`, GRID * GRID; None without a discriminator.
        threshold: the score between real and fake; None if only differences of scores have a meaning.
    """
    record = np.zeros((), RECORD)
    record["step"], record["threshold"] = step, np.nan if threshold is None else threshold
    record["points"] = quantise_points(points, region.spread())
    if pushes is not None:
        finite = np.where(np.isfinite(pushes), pushes, 0).astype("f8")
        record["gradient_max"] = largest = np.abs(finite).max()
        record["gradients"] = np.rint(finite / (largest or 1) * I8)
    if scores is not None and np.isfinite(scores).any():
        low, high = (float(limit(scores[np.isfinite(scores)])) for limit in (np.min, np.max))
        share = np.nan_to_num((scores.astype("f8") - low) / (high - low or 1), nan=0.0, posinf=1.0, neginf=0.0)
        record["score_min"], record["score_max"] = low, high
        record["scores"] = np.rint(share * U8).reshape(GRID, GRID)
    return record


def numbered(record: Records, number: int) -> bytes:
    """The bytes of a record that is the frame `number`, with its checksum."""
    record = record.copy()
    record["number"] = number
    record["checksum"] = zlib.crc32(record.tobytes()[4:])
    return record.tobytes()


def offsets(number: int) -> list[int]:
    """Where frame `number` is written: its slot in every level k for which 2^k divides it, in bytes."""
    levels = (k for k in range(LEVELS) if number % (1 << k) == 0)
    return [HEADER.itemsize + (k * SLOTS + (number >> k) % SLOTS) * RECORD.itemsize for k in levels]


class Frames(NamedTuple):
    """The frames of a run.

    Attributes:
        header: `HEADER`, 0-dim.
        records: `RECORD`, ordered by number, each frame once.
    """

    header: Records
    records: Records

    @property
    def region(self) -> Region:
        """The region that is shown."""
        return Region(*map(float, self.header["region"]))

    def after(self, step: int) -> Frames:
        """The frames after `step` only."""
        return Frames(self.header, self.records[self.records["step"] > step])

    def until(self, step: int) -> Frames:
        """The frames up to and including `step`."""
        return Frames(self.header, self.records[self.records["step"] <= step])

    def to_bytes(self) -> bytes:
        """The header and the records in their order: no file of frames, but what a page gets."""
        return self.header.tobytes() + self.records.tobytes()


def parse_frames(data: bytes, where: str) -> Frames:
    """The frames in the contents of a file. Slots that are empty, damaged or written in part are skipped.

    Args:
        data: the contents.
        where: the name of the file, for errors.

    Raises:
        CheckpointError: this is not a file of frames, or its header is damaged.
    """
    if not data.startswith(MAGIC) or len(data) < HEADER.itemsize:
        raise CheckpointError("not a file of frames", where=where, cure="delete it; training writes a new one")
    header = np.frombuffer(data, HEADER, 1)[0]
    sizes = [int(header[name]) for name in ("record_size", "points", "grid", "slots", "levels", "reals")]
    left, bottom, right, top = header["region"]
    if header["version"] != VERSION:
        raise CheckpointError(
            f"has frames of version {header['version']}, but this version of poise reads {VERSION}", where=where
        )
    intact = header["checksum"] == zlib.crc32(data[: HEADER.itemsize - 4])
    usual = sizes == [RECORD.itemsize, POINTS, GRID, SLOTS, LEVELS, REALS] and left < right and bottom < top
    if not (intact and usual and np.isfinite(header["region"]).all()):
        raise CheckpointError("the header is damaged", where=where, cure="delete it; training writes a new one")
    content = memoryview(data)[HEADER.itemsize : MAX_SIZE]
    slots = np.frombuffer(content, RECORD, len(content) // RECORD.itemsize)
    intact_slots = [zlib.crc32(slot.tobytes()[4:]) == slot["checksum"] for slot in slots]
    valid = slots[np.array(intact_slots, bool)]
    _, first = np.unique(valid["number"], return_index=True)
    return Frames(header, valid[first])


def read_frames(path: Path) -> Frames | None:
    """The frames of a run, which may be training; None if it has none.

    Args:
        path: the file `frames.bin`.

    Raises:
        CheckpointError: the file is foreign, damaged or can't be read.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SIZE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    return parse_frames(data, str(path))
