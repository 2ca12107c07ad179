"""`poise translate`: names, sizes, directions, copies, what is continued and what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise.errors import DiskError, RecipeError
from poise.runs import translate_folder
from poise.runs.generate import BLOCK
from poise.runs.run import Run
from poise.utils.images import to_bytes, to_float
from two_domains import CLASSES, SIDE, trained, translating, use_data

DROPOUT, AVERAGED = {"kind": "standing_dropout"}, {"kind": "averaged_weights", "half_life": 5.0, "ramp_up": 0.0}
BY_LABEL: dict[str, Any] = {
    "conditioning": {"g": {"kind": "channels", "dim": 4}},
    "network": translating("a_to_b").canonical()["network"] | {"g": {"kind": "unet", "width": 4, "norm": "batch"}},
}
RUNS: dict[str, tuple[str, str, list[dict[str, Any]], dict[str, Any]]] = {
    "pairs": ("a_to_b", "pairs", [], {}),
    "random": ("a_to_b", "pairs", [DROPOUT], {}),
    "cycle": ("both_ways", "domains", [AVERAGED], {}),
    "same": ("same", "same", [], {}),
    "labels": ("a_to_b", "labelled pairs", [], BY_LABEL),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, (direction, kind, tricks, changes) in RUNS.items():
        with pytest.MonkeyPatch.context() as patch:
            use_data(patch, kind)
            folders[name] = trained(tmp_path_factory.mktemp("runs") / name, direction, *tricks, **changes).path
    return folders


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data of the run is not needed."""

    def missing(self: object, root: object = None) -> None:
        raise AssertionError("the data was loaded")

    monkeypatch.setattr("poise.data.digits.DigitsConfig.load", missing)


def noise(height: int = SIDE, width: int = SIDE, channels: int = 1, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return image[..., 0] if channels == 1 else image


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Grey images of the size of the data, in two folders, one of them as a TIFF."""
    folder = tmp_path / "photos"
    save(folder / "one.png", noise(seed=1))
    save(folder / "sub" / "two.tif", noise(seed=2))
    save(folder / "sub" / "deep.er" / "three.bmp", noise(seed=3))
    return folder


def translated(run: Path, pixels: np.ndarray, **options: Any) -> np.ndarray:
    """The translation of one image, H x W or H x W x C, by the Python function."""
    image = to_float(torch.from_numpy(pixels.reshape(1, *pixels.shape[:2], -1)))
    found = to_bytes(Run(run).translate(image, **options))[0]
    return found[..., 0] if found.shape[2] == 1 else found


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def nearly(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal up to rounding: kernels may sum in another order for another number of images."""
    return found.shape == expected.shape and int(np.abs(found.astype(int) - expected.astype(int)).max()) <= 1


def test_each_image_becomes_a_file_of_its_name(poise: Any, runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = poise("translate", runs["pairs"], "--data", photos, "--out", out, "--grid", tmp_path / "grid.png")
    assert (result.code, result.out) == (0, ""), result.err
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"one.png", "sub/two.png", "sub/deep.er/three.png", "translations.json"}
    for name, seed in (("one.png", 1), ("sub/two.png", 2), ("sub/deep.er/three.png", 3)):
        assert nearly(read(out / name), translated(runs["pairs"], noise(seed=seed))), name
    assert "3 images translated from a to b by step 4" in result.err
    grid = read(tmp_path / "grid.png")
    assert grid.shape[2] == 3
    assert json.loads((out / "translations.json").read_text())["direction"] == "a_to_b"


def test_archives_and_single_files(poise: Any, runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.*")):
            if path.is_file():
                archive.write(path, path.relative_to(photos))
    np.savez(tmp_path / "photos.npz", images=np.stack([noise(seed=seed) for seed in (1, 2)]))
    expected = {"photos": {"one", "two", "three"}, "photos.zip": {"one", "two", "three"}}
    expected |= {"photos.npz": {"00000000", "00000001"}, "photos/one.png": {"one"}}
    for number, (data, names) in enumerate(expected.items()):
        out = tmp_path / f"out{number}"
        assert poise("translate", runs["pairs"], "--data", tmp_path / data, "--out", out).code == 0
        assert {path.stem for path in out.rglob("*.png")} == names
    first = read(tmp_path / "out0" / "one.png")
    assert np.array_equal(read(tmp_path / "out1" / "one.png"), first)
    assert nearly(read(tmp_path / "out2" / "00000000.png"), first)


def test_sizes_are_kept_where_the_network_allows_it(poise: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    """A U-Net with two halvings keeps multiples of 4; what it can't keep is fitted and said."""
    for name, size in {"small": (4, 8), "large": (20, 32), "odd": (15, 16), "wide": (16, 18)}.items():
        save(tmp_path / "in" / f"{name}.png", noise(*size))
    result = poise("translate", runs["pairs"], "--data", tmp_path / "in", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    sizes = {path.stem: read(path).shape[:2] for path in (tmp_path / "out").glob("*.png")}
    assert sizes == {"small": (4, 8), "large": (20, 32), "odd": (SIDE, SIDE), "wide": (SIDE, SIDE)}
    assert "2 of 4 images were fitted to 16 x 16 pixels like the data" in result.err
    assert "height and width may be any multiples of 4 from 4 pixels on" in result.err
    assert nearly(read(tmp_path / "out" / "large.png"), translated(runs["pairs"], noise(20, 32)))
    kept = poise("translate", runs["pairs"], "--data", tmp_path / "in" / "large.png", "--out", tmp_path / "kept")
    assert "fitted" not in kept.err


def test_both_directions(poise: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    """With the averaged weights, or with those that trained."""
    grey, colour = save(tmp_path / "grey.png", noise()), save(tmp_path / "colour.png", noise(channels=3))
    cases: dict[str, tuple[Path, list[str], np.ndarray, dict[str, Any]]] = {
        "there": (grey, [], noise(), {}),
        "back": (colour, ["--direction", "b_to_a"], noise(channels=3), {"direction": "b_to_a"}),
        "raw": (grey, ["--raw"], noise(), {"raw": True}),
    }
    found = {}
    for name, (image, options, pixels, same) in cases.items():
        assert poise("translate", runs["cycle"], "--data", image, "--out", tmp_path / name, *options).code == 0
        found[name] = read(tmp_path / name / f"{image.stem}.png")
        assert nearly(found[name], translated(runs["cycle"], pixels, **same)), name
    assert found["there"].shape == (SIDE, SIDE, 3)
    assert found["back"].shape == (SIDE, SIDE)
    assert not np.array_equal(found["there"], found["raw"])
    assert poise("translate", runs["same"], "--data", grey, "--out", tmp_path / "same").code == 0


def test_dropout_stays_on_and_gives_copies(poise: Any, runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    """The only noise of pix2pix (T18): copies and seeds differ, and the same command gives the same files."""
    outs = {"one": [], "again": [], "other": ["--seed", 1], "copies": ["--copies", 3]}
    for name, options in outs.items():
        assert poise("translate", runs["random"], "--data", photos, "--out", tmp_path / name, *options).code == 0
    one, again, other = (read(tmp_path / name / "sub" / "two.png") for name in ("one", "again", "other"))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    copies = [read(tmp_path / "copies" / "sub" / f"two-{number}.png") for number in (1, 2, 3)]
    assert np.array_equal(copies[0], one), "the first copy is the translation of this seed"
    assert len({copy.tobytes() for copy in copies}) == 3
    grid = tmp_path / "g.png"
    result = poise(
        "translate", runs["random"], "--data", photos, "--out", tmp_path / "copies", "--copies", 3, "--grid", grid
    )
    assert "9 files, 9 of them were there already" in result.err
    assert grid.is_file()
    words = ("translate", runs["pairs"], "--data", photos, "--out", tmp_path / "no")
    poise(*words, "--copies", 2).assert_error(2, "--copies", "draws no random numbers", "leave it out")
    assert not (tmp_path / "no").exists()


def test_a_g_that_takes_labels_translates_to_a_class(
    poise: Any, runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    words = ("translate", runs["labels"], "--data", photos / "one.png")
    poise(*words, "--out", tmp_path / "no").assert_error(2, "--label", "translates to a class", "one, two, three, four")
    found = {}
    for name in CLASSES[1:3]:
        assert poise(*words, "--out", tmp_path / name, "--label", name).code == 0
        found[name] = read(tmp_path / name / "one.png")
        expected = translated(runs["labels"], noise(seed=1), label=CLASSES.index(name))
        assert nearly(found[name], expected)
    assert not np.array_equal(*found.values())
    poise(*words, "--out", tmp_path / "two", "--label", "one").assert_error(2, "another label", "two instead of one")


def test_an_interrupted_folder_is_continued(
    poise: Any, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same result to the bit, also of random layers; complete batches are not translated again."""
    for number in range(2 * BLOCK + 3):
        save(tmp_path / "in" / f"{number:03d}.png", noise(seed=number))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ("translate", runs["random"], "--data", tmp_path / "in")
    assert poise(*words, "--out", whole).code == 0
    calls: list[int] = []
    write = translate_folder.write_files

    def stopping(contents: dict[Path, bytes]) -> None:
        calls.append(len(contents))
        if len(calls) == 2:
            raise DiskError("the disk is full")
        write(contents)

    monkeypatch.setattr(translate_folder, "write_files", stopping)
    poise(*words, "--out", broken).assert_error(6, "the disk is full")
    assert len(list(broken.glob("*.png"))) == BLOCK
    (broken / "005.png").unlink()
    result = poise(*words, "--out", broken)
    assert result.code == 0, result.err
    assert calls[2:] == [1, BLOCK, 3]
    assert f"{BLOCK - 1} of them were there already" in result.err
    for path in whole.glob("*.png"):
        assert path.read_bytes() == (broken / path.name).read_bytes(), path.name
    assert not list(broken.glob(".*"))


@pytest.mark.parametrize("kind", ["pairs", "random"])
def test_images_that_have_changed_are_translated_again(
    poise: Any, runs: dict[str, Path], photos: Path, tmp_path: Path, kind: str
) -> None:
    """The folder is then as a new one would be. If layers are random, all are, as a batch shares its random numbers."""
    out, words = tmp_path / "out", ("translate", runs[kind], "--data", photos, "--out")
    assert poise(*words, out).code == 0
    save(photos / "sub" / "two.tif", noise(seed=7))
    result = poise(*words, out)
    again = "3 of them" if kind == "random" else "2 of them were there already, 1 of them"
    assert f"{again} translated again, because images have changed" in result.err
    assert "again" not in poise(*words, out).err
    save(photos / "a.png", noise(seed=8))
    result = poise(*words, out)
    assert ("3 of them translated again" if kind == "random" else "3 of them were there already") in result.err
    assert poise(*words, tmp_path / "new").code == 0
    for path in (tmp_path / "new").rglob("*.png"):
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "new")).read_bytes(), path.name
    (photos / "a.png").unlink()
    poise(*words, out).assert_error(2, "translations of images that are no longer there", "'a.png'")
    assert (out / "a.png").is_file()


def test_an_image_of_another_size_changes_the_batches_of_the_others(
    poise: Any, runs: dict[str, Path], tmp_path: Path
) -> None:
    """Images of one size share a batch, and with it random numbers."""
    photos, words = tmp_path / "photos", ("translate", runs["random"], "--data", tmp_path / "photos", "--out")
    for number in range(4):
        save(photos / f"{number}.png", noise(seed=number))
    assert poise(*words, tmp_path / "out").code == 0
    save(photos / "0.png", noise(20, 32))
    assert poise(*words, tmp_path / "out").code == 0
    assert poise(*words, tmp_path / "new").code == 0
    for path in (tmp_path / "new").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_a_grid_says_how_many_images_it_shows(
    poise: Any, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poise.utils.image_grid.MAX_SIDE", 50)
    for number in range(5):
        save(tmp_path / "in" / f"{number}.png", noise(seed=number))
    words = ("translate", runs["pairs"], "--data", tmp_path / "in", "--out", tmp_path / "out")
    result = poise(*words, "--grid", tmp_path / "grid.png")
    assert f"{tmp_path / 'grid.png'}: 2 images, source | output, the first of 5: no more fit into a grid" in result.err
    assert max(read(tmp_path / "grid.png").shape[:2]) <= 50


def test_a_folder_of_an_older_version_is_continued(
    poise: Any, runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    words = ("translate", runs["random"], "--data", photos, "--out", tmp_path / "out")
    assert poise(*words).code == 0
    record = json.loads((tmp_path / "out" / "translations.json").read_text())
    del record["sources"]
    (tmp_path / "out" / "translations.json").write_text(json.dumps(record))
    (tmp_path / "out" / "one.png").unlink()
    assert "2 of them were there already" in poise(*words).err
    assert "sources" in json.loads((tmp_path / "out" / "translations.json").read_text())


def test_no_images_and_other_numbers(runs: dict[str, Path]) -> None:
    run = Run(runs["pairs"])
    image = torch.rand(1, 1, SIDE, SIDE) * 2 - 1
    assert run.translate(image[:0]).shape == (0, *run.translate(image).shape[1:])
    assert torch.equal(run.translate(image.double()), run.translate(image))
    with pytest.raises(RecipeError, match=r"images must be numbers in \[-1, 1\], found uint8"):
        run.translate(image.to(torch.uint8))


def test_other_translations_are_not_mixed(poise: Any, runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    words = ("translate", runs["cycle"], "--out", out)
    assert poise(*words, "--data", photos).code == 0
    shutil.copytree(photos, moved)
    poise(*words, "--data", photos, "--seed", 4).assert_error(2, "translations of another seed", "0 instead of 4")
    poise(*words, "--data", photos, "--direction", "b_to_a").assert_error(2, "another direction", "a_to_b")
    poise(*words, "--data", moved).assert_error(2, "translations of another data")
    poise(*words, "--data", photos, "--raw").assert_error(2, "translations of another weights")
    poise("translate", runs["pairs"], "--out", out, "--data", photos).assert_error(2, "translations of another run")
    (out / "note.txt").write_text("mine")
    poise(*words, "--data", photos).assert_error(2, "has other files in it", "note.txt")
    (out / "note.txt").unlink()
    (out / "translations.json").write_text("{")
    poise(*words, "--data", photos).assert_error(2, "translations.json can't be read")
    (out / "translations.json").unlink()
    poise(*words, "--data", photos).assert_error(2, "has other files in it")


def test_what_can_not_be_used_is_named(poise: Any, runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"not an image")
    cut = save(photos / "cut.png", noise(64, 64)).read_bytes()
    (photos / "cut.png").write_bytes(cut[: len(cut) // 2])
    result = poise("translate", runs["pairs"], "--data", photos, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert "not translated: broken.png: not an image" in result.err
    assert "not translated: cut.png: " in result.err
    assert "3 images translated" in result.err
    assert not (tmp_path / "out" / "cut.png").exists()
    words = ("translate", runs["pairs"], "--data", photos / "cut.png", "--out", tmp_path / "none")
    poise(*words).assert_error(3, "none of the images can be used", "cut.png")
    (photos / "cut.png").unlink()
    (photos / "broken.png").unlink()
    assert poise("translate", runs["pairs"], "--data", photos, "--out", tmp_path / "none").code == 0


def test_refusals(
    poise: Any, runs: dict[str, Path], ring_run: Path, digits_run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def refused(
        code: int, *parts: str, run: Path = runs["pairs"], data: Path = photos, to: Path = out, more: Any = ()
    ) -> None:
        poise("translate", run, "--data", data, "--out", to, *more).assert_error(code, *parts)

    for run in (ring_run, digits_run):
        refused(2, "starts from noise", "poise sample RUN", run=run)
    refused(2, "from a to b only", "cyclegan", more=("--direction", "b_to_a"))
    refused(2, "within one domain", "leave it out", run=runs["same"], more=("--direction", "a_to_b"))
    refused(2, "folder of images", "outside of it", to=photos / "out")
    refused(2, "takes no labels", more=("--label", "cat"))
    refused(3, "no such file or folder", data=tmp_path / "nowhere")
    refused(3, "the folder of a run", data=runs["pairs"])
    (tmp_path / "empty").mkdir()
    refused(3, "there are no images", data=tmp_path / "empty")
    (tmp_path / "text.txt").write_text("x")
    refused(3, "not a file of images", data=tmp_path / "text.txt")
    refused(2, "is a file", to=tmp_path / "text.txt")
    save(photos / "one.bmp", noise())
    refused(3, "two images would be written to one.png", "one.bmp and one.png", "rename one of them")
    assert not out.exists()


def test_images_of_another_shape_are_refused_in_python(runs: dict[str, Path]) -> None:
    run = Run(runs["pairs"])
    for shape in ((1, 3, SIDE, SIDE), (1, 1, 15, 16), (1, SIDE, SIDE)):
        with pytest.raises(RecipeError, match="like the data"):
            run.translate(torch.zeros(shape))


@pytest.mark.parametrize("sizes", [[(16, 16)] * 70, [(16, 16), (8, 8)] * 20, [(64, 64)] * 5, [(900, 900)] * 3])
def test_batches_are_bounded_in_images_and_pixels(sizes: list[tuple[int, int]]) -> None:
    planned = [translate_folder.Planned(None, size, (str(number),)) for number, size in enumerate(sizes)]  # type: ignore[arg-type]
    found = list(translate_folder.batches(planned, (16, 16)))
    assert [one for batch in found for one in batch] == planned
    for batch in found:
        assert len({one.size for one in batch}) == 1
        assert len(batch) <= BLOCK
        height, width = batch[0].size
        assert len(batch) == 1 or len(batch) * height * width <= BLOCK * 16 * 16


def test_names_of_files() -> None:
    names: Callable[..., tuple[str, ...]] = translate_folder.file_names
    assert names("x.jpg") == ("x.png",)
    assert names("a.b/x.y.jpeg") == ("a.b/x.y.png",)
    assert names("00000001") == ("00000001.png",)
    assert names("x.png", 2) == ("x-1.png", "x-2.png")
