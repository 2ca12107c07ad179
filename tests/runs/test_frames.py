"""`frames.bin`: what is read is what was written, and what is damaged, foreign or written in part is skipped."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from poise.errors import CheckpointError, DiskError
from poise.runs.frame_file import FrameFile
from poise.runs.frames import (
    GRID,
    HEADER,
    LEVELS,
    MAX_SIZE,
    POINTS,
    REALS,
    RECORD,
    SLOTS,
    Region,
    encode_frame,
    encode_header,
    parse_frames,
    read_frames,
    restore_points,
)
from poise.utils.system import system

RNG = np.random.default_rng(0)
REAL = RNG.uniform((-1, 0), (1, 4), (REALS, 2)).astype("f4")
REGION, START = Region.around(REAL), encode_header(REAL)


def frame(step: int) -> np.ndarray:
    """A frame of random points."""
    return encode_frame(step, REGION, RNG.normal(size=(POINTS, 2)), RNG.normal(size=(POINTS, 2)), np.arange(1024.0))


def file_with(path: Path, count: int) -> FrameFile:
    """A file of frames of the steps 0, 10, 20, ..."""
    file = FrameFile(path)
    for number in range(count):
        file.append(frame(10 * number), START)
    return file


def steps(path: Path) -> list[int]:
    """The steps of the frames in a file."""
    frames = read_frames(path)
    assert frames is not None
    return [int(step) for step in frames.records["step"]]


# ---- the format ------------------------------------------------------------------------------------------


def test_layout_of_the_header_by_hand() -> None:
    data = encode_header(REAL)
    assert len(data) == HEADER.itemsize == 8 + 12 + 16 + 4 + 4 * REALS + 4
    magic, *numbers = struct.unpack_from("<8s6H", data)
    assert (magic, numbers) == (b"POISEFRM", [1, RECORD.itemsize, 256, 32, 64, 16])
    left, bottom, right, top, reals, zero = struct.unpack_from("<4f2H", data, 20)
    low, high = REAL.min(0), REAL.max(0)
    np.testing.assert_allclose([left, bottom], low - 0.25 * (high - low), rtol=1e-5)
    np.testing.assert_allclose([right, top], high + 0.25 * (high - low), rtol=1e-5)
    assert (reals, zero) == (512, 0)
    numbers = np.frombuffer(data, "<u2", 2 * REALS, 40).reshape(REALS, 2)
    restored = (left, bottom) + numbers / 65535 * np.subtract((right, top), (left, bottom))
    np.testing.assert_allclose(restored, REAL, atol=1e-4)
    assert struct.unpack_from("<I", data, len(data) - 4)[0] == zlib.crc32(data[:-4])


def test_layout_of_a_record_by_hand(tmp_path: Path) -> None:
    points = RNG.uniform((-1, 0), (1, 4), (POINTS, 2))
    pushes = np.zeros((POINTS, 2))
    pushes[:2] = (0.5, -2), (1, 2)
    scores = np.linspace(-3, 5, GRID * GRID)
    FrameFile(tmp_path / "frames.bin").append(encode_frame(7, REGION, points, pushes, scores, 0.5), START)
    data = (tmp_path / "frames.bin").read_bytes()[HEADER.itemsize :][: RECORD.itemsize]
    assert len(data) == 32 + 4 * POINTS + 2 * POINTS + GRID * GRID
    checksum, number, step, low, high, threshold, largest = struct.unpack_from("<2IQ4f", data)
    assert (number, step, low, high, threshold, largest) == (0, 7, -3, 5, 0.5, 2)
    assert checksum == zlib.crc32(data[4:])
    width, height = REGION.right - REGION.left, REGION.top - REGION.bottom
    stored = np.frombuffer(data, "<u2", 2 * POINTS, 32).reshape(-1, 2) / 65535
    restored = (REGION.left - width, REGION.bottom - height) + stored * (3 * width, 3 * height)
    np.testing.assert_allclose(restored, points, atol=3 * height / 65535)
    arrows = np.frombuffer(data, "i1", 2 * POINTS, 32 + 4 * POINTS).reshape(-1, 2)
    assert arrows[:3].tolist() == [[32, -127], [64, 127], [0, 0]]
    grid = np.frombuffer(data, "u1", GRID * GRID, 32 + 6 * POINTS).reshape(GRID, GRID)
    assert (grid[0, 0], grid[-1, -1]) == (0, 255)
    assert grid.ravel().tolist() == sorted(grid.ravel())


def test_row_0_of_the_grid_is_the_bottom_row() -> None:
    centres = Region(0, 10, 32, 42).cell_centres().reshape(GRID, GRID, 2)
    assert centres[0, 0].tolist() == [0.5, 10.5]
    assert centres[0, -1].tolist() == [31.5, 10.5]
    assert centres[-1, 0].tolist() == [0.5, 41.5]


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.array([[3.0, 1.0], [5.0, 1.0]])])
def test_region_of_points_without_extent_has_one(points: np.ndarray) -> None:
    region = Region.around(points)
    assert region.left < points[:, 0].min() <= points[:, 0].max() < region.right
    assert region.bottom < points[:, 1].min() <= points[:, 1].max() < region.top


def test_values_that_are_not_finite_are_left_out() -> None:
    points, pushes, scores = np.zeros((POINTS, 2)), np.ones((POINTS, 2)), np.linspace(0, 1, GRID * GRID)
    points[0], points[1], points[2] = np.nan, np.inf, -np.inf
    pushes[0], pushes[1] = (np.nan, np.inf), (4, -4)
    scores[0], scores[1], scores[-1] = np.nan, -np.inf, np.inf
    record = encode_frame(0, REGION, points, pushes, scores)
    assert record["points"][:3].tolist() == [[0, 0], [65535, 65535], [0, 0]]
    assert record["gradients"][:2].tolist() == [[0, 0], [127, -127]]
    assert record["gradient_max"] == 4
    assert 0 < record["score_min"] < record["score_max"] < 1
    assert record["scores"][0, :2].tolist() == [0, 0]
    assert record["scores"][-1, -1] == 255
    blind = encode_frame(0, REGION, points, None, np.full(GRID * GRID, np.nan))
    assert (blind["score_min"], blind["score_max"], blind["gradient_max"]) == (0, 0, 0)
    assert np.isnan(blind["threshold"])
    assert not blind["scores"].any()
    assert not blind["gradients"].any()


def test_points_outside_are_moved_to_the_edge_of_the_threefold_region() -> None:
    points = np.zeros((POINTS, 2))
    points[0], points[1] = (1e9, REGION.bottom), (REGION.left - 0.9 * (REGION.right - REGION.left), -1e9)
    restored = restore_points(encode_frame(0, REGION, points)["points"], REGION.spread())
    width, height = REGION.right - REGION.left, REGION.top - REGION.bottom
    np.testing.assert_allclose(restored[0], (REGION.right + width, REGION.bottom), atol=1e-3)
    np.testing.assert_allclose(restored[1], (points[1, 0], REGION.bottom - height), atol=1e-3)


# ---- the ring --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 64, 65, 300, 1000])
def test_latest_frames_are_dense_and_earlier_ones_thinned(tmp_path: Path, count: int) -> None:
    file_with(tmp_path / "frames.bin", count)
    numbers = [step // 10 for step in steps(tmp_path / "frames.bin")]
    kept = {n for k in range(LEVELS) for n in range(0, count, 1 << k) if n + (SLOTS << k) > (count - 1) >> k << k}
    assert numbers == sorted(kept)
    assert numbers[0] == 0
    assert numbers[-SLOTS:] == list(range(max(0, count - SLOTS), count))
    assert (tmp_path / "frames.bin").stat().st_size <= MAX_SIZE < 2_700_000


def test_file_without_a_frame() -> None:
    frames = parse_frames(encode_header(REAL), "frames.bin")
    assert (len(frames.records), frames.region) == (0, REGION)


def test_what_a_page_gets(tmp_path: Path) -> None:
    file_with(tmp_path / "frames.bin", 5)
    frames = read_frames(tmp_path / "frames.bin")
    assert frames is not None
    data = frames.after(20).to_bytes()
    assert data[: HEADER.itemsize] == encode_header(REAL)
    records = np.frombuffer(data, RECORD, offset=HEADER.itemsize)
    assert records["step"].tolist() == [30, 40]
    assert all(zlib.crc32(record.tobytes()[4:]) == record["checksum"] for record in records)


def test_resumed_run_continues_after_its_step(tmp_path: Path) -> None:
    path = tmp_path / "frames.bin"
    file_with(path, 200)
    kept = [step for step in steps(path) if step <= 1505]
    again = FrameFile(path)
    again.drop_after(1505)
    assert steps(path) == kept
    again.append(frame(1507), START)
    again.append(frame(1509), START)
    assert steps(path) == [*kept, 1507, 1509]
    again.drop_after(1507)
    assert steps(path) == [*kept, 1507]
    again.append(frame(1508), START)
    assert steps(path) == [*kept, 1507, 1508]


def test_frames_that_could_not_be_deleted_are_deleted_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "frames.bin"
    file_with(path, 100)
    FrameFile(path).append(frame(405), START)
    assert steps(path)[-2:] == [400, 405]


def test_frames_of_one_step_stay_in_their_order(tmp_path: Path) -> None:
    file = FrameFile(tmp_path / "frames.bin")
    for threshold in (1, 2, 3):
        file.append(encode_frame(5, REGION, np.zeros((POINTS, 2)), threshold=threshold), START)
    frames = read_frames(tmp_path / "frames.bin")
    assert frames is not None
    assert frames.records["threshold"].tolist() == [1, 2, 3]


def test_file_deleted_during_training_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "frames.bin"
    file = file_with(path, 3)
    path.unlink()
    file.append(frame(99), START)
    assert steps(path) == [99]


# ---- damage ----------------------------------------------------------------------------------------------


def test_no_file(tmp_path: Path) -> None:
    assert read_frames(tmp_path / "frames.bin") is None
    FrameFile(tmp_path / "frames.bin").drop_after(0)
    assert not list(tmp_path.iterdir())


def test_damaged_and_half_written_records_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "frames.bin"
    file_with(path, 10)
    content = bytearray(path.read_bytes())
    content[HEADER.itemsize + 3 * RECORD.itemsize + 500] ^= 1  # frame 3, which has no other slot
    content[HEADER.itemsize + 4 * RECORD.itemsize] ^= 1  # frame 4, which is in other levels too
    path.write_bytes(content)
    assert steps(path) == [0, 10, 20, 40, 50, 60, 70, 80, 90]
    os.truncate(path, HEADER.itemsize + 9 * RECORD.itemsize + 100)
    assert steps(path) == [0, 10, 20, 50, 60, 70, 80]


@pytest.mark.parametrize("offset", [8, 10, 12, 16, 20, 40, 2000, 2090])
def test_damaged_header_is_an_error(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "frames.bin"
    file_with(path, 1)
    content = bytearray(path.read_bytes())
    content[offset] ^= 255
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged|version 254"):
        read_frames(path)


@pytest.mark.parametrize("content", [b"", b"POISEFRM", b"\x89PNG" * 1000, encode_header(REAL)[:-1]])
def test_foreign_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "frames.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a file of frames"):
        read_frames(path)
    file = FrameFile(path)
    file.drop_after(0)
    assert path.read_bytes() == content
    file.append(frame(3), START)
    assert steps(path) == [3]


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can't be read"):
        read_frames(tmp_path)


def test_other_real_points_replace_the_file(tmp_path: Path) -> None:
    path = tmp_path / "frames.bin"
    file_with(path, 5)
    FrameFile(path).append(frame(60), encode_header(REAL + 1))
    assert steps(path) == [60]


@pytest.mark.parametrize("written", [0, 1, RECORD.itemsize // 2])
def test_full_disk_loses_one_frame_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    path = tmp_path / "frames.bin"
    file, real_write, remaining = file_with(path, 3), system.write, [written]

    def full(handle: int, data: bytes | memoryview) -> int:
        if not remaining[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real_write(handle, bytes(data)[: remaining[0]])
        remaining[0] -= count
        return count

    with monkeypatch.context() as patch:
        patch.setattr(system, "write", full)
        with pytest.raises(DiskError, match=r"frames\.bin"):
            file.append(frame(30), START)
    assert steps(path) == [0, 10, 20]
    file.append(frame(40), START)
    assert steps(path) == [0, 10, 20, 40]


def test_reader_does_not_import_torch() -> None:
    code = "import sys, poise.runs.frames; raise SystemExit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
