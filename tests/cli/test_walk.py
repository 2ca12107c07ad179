"""`poise interpolate --through`: a closed walk as a GIF, or as an MP4 that PyAV reads back."""

from __future__ import annotations

import importlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise.cli.walk import frame_time
from poise.errors import DiskError
from poise.interpolation import lerp
from poise.runs.run import Run
from poise.runs.walk import closed_walk, walk_positions
from poise.utils.images import to_bytes
from poise.utils.video import video_frame, write_video


def test_positions_are_equally_spaced_and_closed() -> None:
    assert walk_positions(2, 4) == [(0, 0.0), (0, 0.5), (1, 0.0), (1, 0.5)]
    positions = [keyframe + fraction for keyframe, fraction in walk_positions(3, 7)]
    assert np.allclose(positions, np.arange(7) * 3 / 7)
    with pytest.raises(ValueError, match="too few"):
        walk_positions(3, 2)


def test_closed_walk_passes_through_every_latent_and_returns() -> None:
    keyframes = torch.randn(2, 3, 5)
    points = torch.stack(list(closed_walk(keyframes, 12, lerp)), dim=1)
    assert torch.equal(points[:, ::4], keyframes)
    steps = (points - points.roll(-1, 1)).norm(dim=2)
    torch.testing.assert_close(steps[:, -1], (keyframes[:, 2] - keyframes[:, 0]).norm(dim=1) / 4)


def test_frames_for_videos() -> None:
    assert video_frame(np.full((4, 6, 1), 7, np.uint8)).tolist() == [[[7] * 3] * 6] * 4
    assert video_frame(np.zeros((3, 6, 3), np.uint8)).shape == (6, 12, 3)
    clear = np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)
    assert video_frame(clear)[0, ::2].tolist() == [[255] * 3, [9] * 3]


def test_time_of_a_frame() -> None:
    assert frame_time(None, gif=False) == pytest.approx(1000 / 30)
    assert [frame_time(fps, gif=True) for fps in (None, 30, 120)] == [40, 30, 20]


def decoded(path: Path) -> tuple[Any, list[np.ndarray], float]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = stream.codec_context.name, stream.codec_context.pix_fmt, stream.frames, stream.width, stream.height
        seconds = float(stream.duration * stream.time_base)
        return facts, [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], seconds


def test_video_is_read_back(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    out = tmp_path / "walk.mp4"
    result = poise("interpolate", digits_run, "--through", 3, "--seconds", 2, "--seed", 4, "--out", out)
    assert (result.code, result.out) == (0, ""), result.err
    assert "60 frames in 2 s, 256 x 256 pixels, enlarged 8 times" in result.last
    assert [path.name for path in tmp_path.iterdir()] == ["walk.mp4"]
    facts, frames, seconds = decoded(out)
    assert facts == ("h264", "yuv420p", 60, 256, 256)
    assert len(frames) == 60
    assert seconds == pytest.approx(2, abs=0.01)
    samples = to_bytes(Run(digits_run).sample(3, 4))[..., 0].astype(int)
    for number, sample in ((0, samples[0]), (20, samples[1]), (40, samples[2])):
        seen = frames[number][4::8, 4::8].mean(2)
        assert np.abs(seen - sample).mean() < 6
    apart = [np.abs(one.astype(int) - other).mean() for one, other in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert apart[-1] < 3 * max(apart[:-1]), "the last frame does not lead to the first one"
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart


def test_a_full_disk_leaves_no_video(tmp_path: Path) -> None:
    """FFmpeg writes past `poise.utils.system`, so a limit of the size of files stands for the full disk."""
    pytest.importorskip("av")
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DiskError, match="can't be written: File too large"):
            write_video(tmp_path / "a.mp4", frames, 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_frame_leaves_the_old_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"old")

    def frames() -> Iterator[np.ndarray]:
        yield np.zeros((16, 16, 3), np.uint8)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / "a.mp4", frames(), 30)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.mp4", b"old")]


def test_video_forth_and_back(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    assert poise("interpolate", ring_run, "--steps", 4, "--rows", 5, "--out", tmp_path / "a.mp4").code == 0
    facts, frames, _ = decoded(tmp_path / "a.mp4")
    assert facts[2:] == (6, 640, 640)
    assert np.abs(frames[1].astype(int) - frames[-1]).mean() < 1


def test_gif_is_a_closed_walk(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "walk.gif"
    words = ("--through", 2, "--seconds", 0.4, "--fps", 20, "--rows", 2)
    assert poise("interpolate", digits_run, *words, "--out", out).code == 0
    with Image.open(out) as film:
        assert film.n_frames == 8
        assert film.info["duration"] == 50
        assert film.info["loop"] == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--through", 3], ["--out", "an animation", ".mp4"]),
        (["--through", 3, "--out", "a.gif", "--steps", 5], ["--steps", "--through"]),
        (["--through", 3, "--out", "a.gif", "--towards", "1"], ["--towards", "--through"]),
        (["--through", 3, "--out", "a.gif", "--data-root", "."], ["--data-root", "--through"]),
        (["--between", 0, 1, "--rows", 3, "--out", "a.gif"], ["--rows", "two images have one interpolation"]),
        (["--seconds", 3, "--out", "a.gif"], ["--seconds", "--through"]),
        (["--fps", 3, "--out", "a.gif"], ["--fps", "--through"]),
        (["--through", 1, "--out", "a.gif"], ["--through", "2"]),
        (["--through", 50, "--seconds", 1, "--out", "a.gif"], ["25 frames", "50 latents", "--seconds"]),
        (["--through", 3, "--seconds", 3600, "--out", "a.gif"], ["1,000 frames", ".mp4"]),
    ],
    ids=str,
)
def test_refused(
    poise: Any, ring_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    poise("interpolate", ring_run, *words).assert_error(2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_without_pyav(poise: Any, ring_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.import_module

    def missing(name: str, *more: Any) -> Any:
        if name.startswith("av"):
            raise ImportError(name)
        return original(name, *more)

    monkeypatch.setattr(importlib, "import_module", missing)
    result = poise("interpolate", ring_run, "--through", 3, "--out", tmp_path / "a.mp4")
    result.assert_error(2, "PyAV", "pip install 'poise[video]'")
    assert list(tmp_path.iterdir()) == []
