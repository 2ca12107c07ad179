"""`poise sample` and `poise interpolate`: files, seeds, weights, and runs in progress."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.recipe.decode import decode
from poise.recipe.toml import read_file
from poise.runs.run import Run
from poise.training.listener import NullListener
from poise.training.train import train


def images(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        assert list(arrays) == ["images"]
        return arrays["images"]


def frames(path: Path) -> list[bytes]:
    with Image.open(path) as film:
        found = []
        for k in range(getattr(film, "n_frames", 1)):
            film.seek(k)
            found.append(film.convert("RGB").tobytes())
        return found


# ---- sample -------------------------------------------------------------------------------------------


def test_grid_is_written_into_the_run_by_default(poise: Any, ring_copy: Path) -> None:
    result = poise("sample", ring_copy)
    assert (result.code, result.out) == (0, "")
    assert str(ring_copy / "sample.png") in result.err
    with Image.open(ring_copy / "sample.png") as sheet:
        sheet.load()
        assert sheet.format == "PNG"


def test_npz_of_images(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    result = poise("sample", digits_run, "--n", 7, "--npz", path)
    assert (result.code, result.out) == (0, "")
    found = images(path)
    assert found.dtype == np.uint8
    assert found.shape == (7, 32, 32, 1)
    assert len(np.unique(found)) > 10
    assert list(tmp_path.iterdir()) == [path]
    assert not (digits_run / "sample.png").exists()  # who asks for the samples alone gets no sheet


def test_png_and_npz_at_once(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    assert poise("sample", digits_run, "--n", 4, "--npz", tmp_path / "a.npz", "--out", tmp_path / "a.png").code == 0
    assert images(tmp_path / "a.npz").shape == (4, 32, 32, 1)
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.mode == "L"


def test_npz_of_points(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    assert poise("sample", ring_run, "--n", 9, "--npz", tmp_path / "a.npz").code == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["points"].shape == (9, 2)
        assert np.isfinite(arrays["points"]).all()


def test_seeds(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    """The same seed gives the same bytes, also on paper; another gives others; more samples begin alike."""
    one, two, other, more = (tmp_path / f"{name}.npz" for name in ("one", "two", "other", "more"))
    sheets = tmp_path / "one.png", tmp_path / "two.png"
    for path, sheet in ((one, sheets[0]), (two, sheets[1])):
        assert poise("sample", digits_run, "--n", 5, "--seed", 3, "--npz", path, "--out", sheet).code == 0
    assert poise("sample", digits_run, "--n", 5, "--seed", 4, "--npz", other).code == 0
    assert one.read_bytes() == two.read_bytes()
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    assert (images(one) != images(other)).any()
    assert poise("sample", digits_run, "--n", 5, "--npz", more).code == 0
    assert (images(more) != images(one)).any()  # left out, the seed is 0


def test_raw_weights_differ_from_averaged_ones(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    for name, options in (("averaged", []), ("raw", ["--raw"])):
        assert poise("sample", digits_run, "--n", 5, "--npz", tmp_path / f"{name}.npz", *options).code == 0
    assert (images(tmp_path / "averaged.npz") != images(tmp_path / "raw.npz")).mean() > 0.1
    run = Run(digits_run)
    assert run.generator(raw=True) is run.game.g.net
    assert run.generator() is not run.generator(raw=True)


def test_sampling_does_not_change_the_run(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in digits_run.rglob("*") if path.is_file()}
    for command in ("sample", "interpolate"):
        assert poise(command, digits_run, "--out", tmp_path / f"{command}.png").code == 0
    assert {path: path.read_bytes() for path in digits_run.rglob("*") if path.is_file()} == before


def test_running_run(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    """From the newest save, while `run.json` says "running"; looking changes nothing about the run."""
    taken: list[tuple[int, str, bytes]] = []
    out = tmp_path / "run"

    class Looker(NullListener):
        def on_step(self, step: int) -> None:
            if step in (2, 4, 7):
                result = poise("sample", out, "--raw", "--out", tmp_path / "look.png")
                state = json.loads((out / "run.json").read_text())["state"]
                taken.append((result.code, state, b"" if result.code else (tmp_path / "look.png").read_bytes()))

    train(decode(read_file(ring_run / "recipe.toml")), out, listener=Looker())
    assert [(code, state) for code, state, _ in taken] == [(4, "running"), (0, "running"), (0, "running")]
    assert taken[1][2] != taken[2][2]  # from step 3, then from step 6
    last = [run / "saves" / "step-00000008" / "tensors.safetensors" for run in (ring_run, out)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_no_checkpoint_yet(poise: Any, ring_copy: Path, tmp_path: Path) -> None:
    (ring_copy / "saves").rename(tmp_path / "elsewhere")
    info = json.loads((ring_copy / "run.json").read_text())
    (ring_copy / "run.json").write_text(json.dumps(info | {"state": "running"}))
    poise("sample", ring_copy).assert_error(
        4, "saves", "no valid checkpoint", "none at all; a run saves its first one at step 3"
    )


@pytest.mark.parametrize("option", [(), ("--best",)])
def test_checkpoints_that_were_not_copied_with_a_run(poise: Any, ring_copy: Path, option: tuple[str, ...]) -> None:
    shutil.rmtree(ring_copy / "saves")
    shutil.rmtree(ring_copy / "best", ignore_errors=True)
    info = json.loads((ring_copy / "run.json").read_text())
    best = {"measure": "fid", "value": 1.0, "step": 3, "last": 1.0}
    (ring_copy / "run.json").write_text(json.dumps(info | {"best": best}))
    poise("sample", ring_copy, *option).assert_error(
        4, "none at all; the run has written some, which were deleted or not copied with it"
    )


def test_older_checkpoint_if_the_newest_is_damaged(poise: Any, ring_copy: Path, tmp_path: Path) -> None:
    intact, damaged = tmp_path / "intact.npz", tmp_path / "damaged.npz"
    assert poise("sample", ring_copy, "--npz", intact).code == 0
    spoil(ring_copy / "saves" / "step-00000008" / "tensors.safetensors")
    assert poise("sample", ring_copy, "--npz", damaged).code == 0
    assert intact.read_bytes() != damaged.read_bytes()
    spoil(ring_copy / "saves" / "step-00000006" / "state.json")
    result = poise("sample", ring_copy, "--npz", tmp_path / "no.npz")
    result.assert_error(4, "no valid checkpoint", "step-00000006: state.json", "step-00000008: tensors.safetensors")


def spoil(path: Path) -> None:
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("command", ["sample", "interpolate"])
@pytest.mark.parametrize("out", [["--out", "x.png"], []], ids=["out", "default"])
@pytest.mark.parametrize("run", ["nowhere", "empty", "file"])
def test_no_run(
    poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, out: list[str], run: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    poise(command, run, *out).assert_error(4, run, "not a run folder")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


@pytest.mark.parametrize(
    ("command", "options", "parts"),
    [
        ("sample", ["--label", "3"], ["--label", "no labels"]),
        ("sample", ["--out", "x.jpg"], ["--out", "must end in .png", "'x.jpg'", "x.png"]),
        ("sample", ["--npz", "x.npy"], ["--npz", "must end in .npz", "'x.npy'"]),
        ("sample", ["--out", "no/x.png"], ["--out", "its folder does not exist", "'no'"]),
        ("sample", ["--out", "folder.png"], ["--out", "is a folder"]),
        ("sample", ["--n", "0"], ["--n", "1"]),
        ("sample", ["--n", "many"], ["--n"]),
        ("sample", ["--seed", "-1"], ["--seed", "0"]),
        ("interpolate", ["--path", "zigzag"], ["--path", "'slerp'", "'lerp'"]),
        ("interpolate", ["--steps", "1"], ["--steps", "2"]),
        ("interpolate", ["--rows", "0"], ["--rows", "1"]),
        ("interpolate", ["--out", "x.jpg"], ["--out", ".png, .gif or .mp4", "'x.jpg'"]),
        ("interpolate", ["--out", "no/x.gif"], ["--out", "its folder does not exist"]),
    ],
)
def test_invalid_options(
    poise: Any,
    ring_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    poise(command, ring_run, *options).assert_error(2, *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
    assert not (ring_run / "sample.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(("command", "name"), [("sample", "x.png"), ("sample", "x.npz"), ("interpolate", "x.gif")])
def test_full_disk(poise: Any, ring_run: Path, tmp_path: Path, command: str, name: str) -> None:
    full = tmp_path / name
    full.symlink_to("/dev/full")
    option = "--npz" if name.endswith("npz") else "--out"
    poise(command, ring_run, option, full).assert_error(6, "No space left on device", name)


# ---- interpolate --------------------------------------------------------------------------------------


def walk(poise: Any, run: Path, out: Path, *options: object) -> np.ndarray:
    result = poise("interpolate", run, "--steps", 5, "--rows", 3, "--out", out, *options)
    assert (result.code, result.out) == (0, "")
    with Image.open(out) as sheet:
        return np.asarray(sheet)


def test_paths_differ_except_at_both_ends(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    great, straight = (walk(poise, digits_run, tmp_path / f"{p}.png", "--path", p) for p in ("slerp", "lerp"))
    assert great.shape == straight.shape
    width = (great.shape[1] - 2) // 5  # five tiles, each with a gap to its right, after a gap on the left
    columns = [np.arange(2, width) + k * width for k in range(5)]
    for column in (columns[0], columns[-1]):
        assert (great[:, column] == straight[:, column]).all()
    assert (great[:, columns[2]] != straight[:, columns[2]]).any()
    assert (great[:, columns[0]] != great[:, columns[-1]]).any()
    assert (walk(poise, digits_run, tmp_path / "again.png") == great).all()  # slerp is the default
    assert (walk(poise, digits_run, tmp_path / "seed.png", "--seed", 1) != great).any()
    assert (walk(poise, digits_run, tmp_path / "raw.png", "--raw") != great).any()


@pytest.mark.parametrize("path", ["slerp", "lerp"])
def test_gif_runs_forth_and_back(poise: Any, ring_run: Path, tmp_path: Path, path: str) -> None:
    out = tmp_path / "walk.gif"
    result = poise("interpolate", ring_run, "--path", path, "--steps", 6, "--rows", 50, "--out", out)
    assert (result.code, result.out) == (0, "")
    found = frames(out)
    assert len(found) == 2 * 6 - 2
    assert found[1] == found[-1]
    assert found[0] != found[5]
    with Image.open(out) as film:
        assert film.format == "GIF"
        assert film.info["loop"] == 0


def test_shortest_gif(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "walk.GIF"
    assert poise("interpolate", ring_run, "--steps", 2, "--rows", 30, "--out", out).code == 0
    assert len(frames(out)) == 2


def test_a_folder_of_runs_is_no_run(poise: Any, tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text("{}")
    poise("sample", tmp_path / "runs").assert_error(4, "not a run folder", f"poise runs {tmp_path / 'runs'} lists")
