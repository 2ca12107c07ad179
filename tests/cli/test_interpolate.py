"""`poise interpolate --between` and `--towards`: interpolations that start with real images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from contracts.tiny import recipe
from poise.interpolation import lerp, slerp
from poise.runs.encode import EncodedSamples, class_directions, encode_training_samples
from poise.runs.run import Run
from poise.training.train import train
from poise.utils.image_grid import GAP, image_grid
from poise.utils.images import to_bytes

STEPS = 4
CODED: dict[str, Any] = {
    "network": {"g": {"kind": "mlp", "width": 16, "depth": 1}, "e": {"kind": "mlp", "width": 16, "depth": 1}},
    "optimizer": {"g": {"kind": "adam", "lr": 2e-2}},
    "tempo": {"kind": "alone"},
    "latent": {"kind": "gaussian", "dim": 3},
    "batch": 16,
    "steps": 40,
}
FREE = {
    "network": {"g": CODED["network"]["g"], "e": {"kind": "free_codes"}},
    "latent": {"kind": "sphere", "dim": 3},
    "objective": {"kind": "reconstruction"},
    "steps": 5,
}
LAG = {"kind": "averaged_weights", "half_life": 2000.0, "ramp_up": 0.0}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty-six pictures of 8 x 8 in three classes, 60 to train on: each class is bright in rows of its own."""
    path, random = tmp_path_factory.mktemp("data") / "pictures.npz", np.random.Generator(np.random.Philox(5))
    labels = np.arange(66) % 3
    images = random.integers(0, 60, (66, 8, 8, 1))
    images[np.arange(66)[:, None], 2 * labels[:, None] + np.arange(2)] += 190
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


@pytest.fixture(scope="module")
def runs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE whose averaged weights lag behind, one of points, a GAN and free codes."""
    out = tmp_path_factory.mktemp("runs")
    data = {"data": {"kind": "npz", "path": str(pictures), "size": 8}}
    elbo = {"objective": {"kind": "elbo", "sigma": 0.1}}
    normed = {"network": CODED["network"] | {"e": {"kind": "dcgan", "width": 4}}}
    train(recipe("pictures", LAG, **(CODED | elbo | data | normed)), out / "vae")
    train(recipe("points", **(CODED | elbo | {"steps": 2})), out / "toy")
    train(recipe("pictures", **(data | {"steps": 2})), out / "dcgan")
    train(recipe("pictures", **(CODED | FREE | data)), out / "free")
    result = {"conditioning": {"g": {"kind": "concat", "dim": 2}}}
    train(recipe("pictures", **(CODED | elbo | data | result | {"steps": 2})), out / "labelled")
    return out


@pytest.fixture
def vae(runs: Path) -> Run:
    return Run(runs / "vae")


def sheet(path: Path, columns: int) -> list[list[np.ndarray]]:
    """The tiles of a sheet of grey 8 x 8 pictures, row by row, brought back to their size."""
    with Image.open(path) as opened:
        pixels = np.asarray(opened)
    side, rest = divmod(pixels.shape[1] - GAP, columns)
    scale, odd = divmod(side - GAP, 8)
    assert (rest, odd, (pixels.shape[0] - GAP) % side) == (0, 0, 0), "not a sheet of that many columns"
    rows = []
    for top in range(GAP, pixels.shape[0], side):
        tiles = [pixels[top : top + side - GAP, at : at + side - GAP] for at in range(GAP, pixels.shape[1], side)]
        assert all(np.array_equal(t, t[::scale, ::scale].repeat(scale, 0).repeat(scale, 1)) for t in tiles)
        rows.append([tile[::scale, ::scale] for tile in tiles])
    return rows


@pytest.fixture
def walk(poise: Any, tmp_path: Path) -> Callable[..., list[list[np.ndarray]]]:
    """`walk(run, columns, "--between", 3, 17)`: the tiles of the sheet."""

    def walked(run: Path, columns: int, *words: object) -> list[list[np.ndarray]]:
        result = poise("interpolate", run, "--steps", STEPS, "--out", tmp_path / "walk.png", *words)
        assert (result.code, result.out) == (0, ""), result.err
        return sheet(tmp_path / "walk.png", columns)

    return walked


def grey(images: Tensor) -> list[np.ndarray]:
    """Pictures as a sheet has them."""
    return list(to_bytes(images)[..., 0])


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for rounding: another batch size may add up in another order."""
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= 1)


def made(run: Run, latents: Tensor) -> list[np.ndarray]:
    """What the live weights make of latents."""
    with torch.no_grad():
        return grey(run.generator(raw=True).eval()(latents))


def codes(run: Run, *places: int) -> tuple[list[np.ndarray], Tensor]:
    """Training pictures, and their codes by the network itself."""
    source = run.load().train
    images = source.gather(torch.tensor(places)).images.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        return grey(images), run.game.g.encoder.eval()(images).mean


# ---------------------------------------------------------------- --between


def test_between_has_the_images_at_both_ends(vae: Run, walk: Any) -> None:
    (tiles,) = walk(vae.path, STEPS + 2, "--between", 3, 17)
    (first, last), latents = codes(vae, 3, 17)
    assert np.array_equal(tiles[0], first)
    assert np.array_equal(tiles[-1], last)
    rebuilt = made(vae, latents)
    assert near(tiles[1], rebuilt[0])
    assert near(tiles[-2], rebuilt[1])
    assert not near(rebuilt[0], rebuilt[1])
    with torch.no_grad():
        averaged = grey(vae.generator().eval()(latents))
    assert not near(averaged[0], rebuilt[0]), "else it is not seen whose weights these are"


@pytest.mark.parametrize(("words", "path"), [([], slerp), (["--path", "slerp"], slerp), (["--path", "lerp"], lerp)])
def test_between_uses_the_given_path(vae: Run, walk: Any, words: list[str], path: Any) -> None:
    (tiles,) = walk(vae.path, STEPS + 2, "--between", 3, 16, *words)
    _, (start, end) = codes(vae, 3, 16)
    wanted = made(vae, torch.stack([path(start, end, at / (STEPS - 1)) for at in range(STEPS)]))
    assert all(near(tile, other) for tile, other in zip(tiles[1:-1], wanted, strict=True))


def test_reversed_ends_give_the_reversed_interpolation(vae: Run, walk: Any) -> None:
    (there,), (back,) = (walk(vae.path, STEPS + 2, "--between", *ends) for ends in ((3, 17), (17, 3)))
    assert all(near(one, other) for one, other in zip(there, back[::-1], strict=True))


def test_from_an_image_to_itself(vae: Run, walk: Any) -> None:
    (tiles,) = walk(vae.path, STEPS + 2, "--between", 59, 59)
    assert np.array_equal(tiles[0], tiles[-1])
    assert all(np.array_equal(tile, tiles[1]) for tile in tiles[1:-1])


def test_free_codes(runs: Path, walk: Any) -> None:
    """A code of its own for each training picture, brought to the sphere. The great circle between two stays there; the
    straight path is straight, and leaves it."""
    run = Run(runs / "free")
    (tiles,) = walk(run.path, STEPS + 2, "--between", 5, 8, "--path", "lerp")
    (first, last), _ = codes(Run(runs / "vae"), 5, 8)
    assert np.array_equal(tiles[0], first)
    assert np.array_equal(tiles[-1], last)
    start, end = torch.nn.functional.normalize(run.game.g.encoder.net.weight.detach()[[5, 8]], dim=1)
    ways = torch.stack([lerp(start, end, at / (STEPS - 1)) for at in range(STEPS)])
    assert all(near(tile, other) for tile, other in zip(tiles[1:-1], made(run, ways), strict=True))
    arc = torch.stack([slerp(start, end, at / (STEPS - 1)) for at in range(STEPS)])
    (tiles,) = walk(run.path, STEPS + 2, "--between", 5, 8)
    assert all(near(tile, other) for tile, other in zip(tiles[1:-1], made(run, arc), strict=True))


# ---------------------------------------------------------------- --towards


def test_towards_starts_with_real_images_of_other_classes(vae: Run, walk: Any) -> None:
    rows = walk(vae.path, STEPS + 1, "--towards", "2", "--rows", 5)
    assert len(rows) == 5
    source = vae.load().train
    every = [picture.tobytes() for picture in grey(source.preview(60))]
    places = [every.index(tiles[0].tobytes()) for tiles in rows]
    assert sorted(set(places)) == places
    labels = source.gather_labels(torch.arange(60))
    assert 2 not in labels[places].tolist()
    assert set(labels[places].tolist()) == {0, 1}

    _, latents = codes(vae, *range(60))
    means = torch.stack([latents[labels == kind].mean(0) for kind in range(3)])
    for tiles, place in zip(rows, places, strict=True):
        way = means[2] - means[labels[place]]
        wanted = made(vae, torch.stack([latents[place] + at / (STEPS - 1) * way for at in range(STEPS)]))
        assert all(near(tile, other) for tile, other in zip(tiles[1:], wanted, strict=True))
    assert any(not near(tiles[1], tiles[-1]) for tiles in rows)


def test_towards_is_linear_for_any_path(poise: Any, vae: Run, tmp_path: Path) -> None:
    sheets = []
    for path in ("slerp", "lerp"):
        out = tmp_path / f"{path}.png"
        result = poise("interpolate", vae.path, "--towards", "0", "--path", path, "--out", out)
        assert result.code == 0, result.err
        assert "lerp interpolation" in result.last
        sheets.append(out.read_bytes())
    assert sheets[0] == sheets[1]


def test_no_more_rows_than_images(vae: Run, walk: Any) -> None:
    labels = vae.load().train.gather_labels(torch.arange(60))
    assert len(walk(vae.path, STEPS + 1, "--towards", "1", "--rows", 100)) == int((labels != 1).sum())


# ---------------------------------------------------------------- both


@pytest.mark.parametrize(
    ("words", "tiles", "length"),
    [(["--between", 3, 17], 1, STEPS + 2), (["--towards", "2", "--rows", 4], 4, STEPS + 1)],
    ids=["between", "towards"],
)
def test_gif(poise: Any, vae: Run, tmp_path: Path, words: list[object], tiles: int, length: int) -> None:
    """There and back, all rows at once, and the first frame is real."""
    out = tmp_path / "walk.gif"
    result = poise("interpolate", vae.path, "--steps", STEPS, "--out", out, *words)
    assert (result.code, result.out) == (0, ""), result.err
    with Image.open(out) as film:
        assert film.format == "GIF"
        assert film.n_frames == 2 * length - 2
        first = np.asarray(film.convert("L"))
    assert first.shape == image_grid(torch.zeros(tiles, 1, 8, 8)).shape[:2]
    if tiles == 1:
        (real, _), _ = codes(vae, 3, 17)
        assert np.array_equal(first, image_grid(torch.from_numpy(real)[None, None].float() / 127.5 - 1)[..., 0])


@pytest.mark.parametrize("words", [["--between", 3, 17], ["--towards", "2"]], ids=["between", "towards"])
def test_same_arguments_give_the_same_grid(poise: Any, vae: Run, tmp_path: Path, words: list[object]) -> None:
    """Nothing of it is drawn, and the live weights are taken, which the encoder belongs to, asked for or not."""
    before = {path: path.read_bytes() for path in vae.path.rglob("*") if path.is_file()}
    sheets = []
    for number, more in enumerate(([], [], ["--seed", 4], ["--raw"])):
        out = tmp_path / f"{number}.png"
        assert poise("interpolate", vae.path, *words, *more, "--out", out).code == 0
        sheets.append(out.read_bytes())
    assert len(set(sheets)) == 1
    assert {path: path.read_bytes() for path in vae.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("run", "words", "parts"),
    [
        ("vae", ["--between", "3", "60"], ["--between", "no such training image", "60", "0 to 59"]),
        ("vae", ["--between", "99", "3"], ["--between", "99", "0 to 59"]),
        ("vae", ["--between", "-1", "3"], ["--between", "equal to 0"]),
        ("vae", ["--between", "3"], ["--between"]),
        ("vae", ["--between", "3", "x"], ["--between", "integer"]),
        ("vae", ["--towards", "3"], ["--towards", "no such class", "'3'"]),
        ("vae", ["--towards", "cats"], ["--towards", "no such class", "'cats'"]),
        ("vae", ["--towards", ""], ["--towards", "no such class"]),
        ("vae", ["--between", "3", "4", "--towards", "1"], ["--towards", "--between"]),
        ("vae", ["--between", "3", "4", "--label", "1"], ["--label", "no labels"]),
        ("free", ["--between", "3", "60"], ["--between", "0 to 59"]),
        ("dcgan", ["--between", "3", "4"], ["has no encoder", "poise train vae"]),
        ("dcgan", ["--towards", "1"], ["has no encoder", "poise train vae"]),
        ("toy", ["--between", "3", "4"], ["endless", "--between"]),
        ("toy", ["--towards", "1"], ["--towards"]),
    ],
    ids=str,
)
def test_refused(
    poise: Any,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: str,
    words: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    poise("interpolate", runs / run, *words).assert_error(2, *parts)
    poise("interpolate", runs / run, *words, "--out", "walk.gif").assert_error(2, *parts)
    assert list(tmp_path.iterdir()) == []
    assert not (runs / run / "interpolation.png").exists()


def test_data_that_is_gone(poise: Any, runs: Path, pictures: Path, tmp_path: Path) -> None:
    """Real pictures are read from where the run had them."""
    moved = pictures.with_name("moved.npz")
    pictures.rename(moved)
    try:
        result = poise("interpolate", runs / "vae", "--between", 3, 4, "--out", tmp_path / "walk.png")
    finally:
        moved.rename(pictures)
    result.assert_error(3, "pictures.npz")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- directions


def lying(labels: list[int], latents: list[list[float]]) -> EncodedSamples:
    return EncodedSamples(torch.zeros(len(labels), 1, 2, 2), torch.tensor(latents), torch.tensor(labels))


def test_direction_is_the_difference_of_class_means() -> None:
    """Class 0 lies around (1, 0), class 1 around (0, 4), class 4 at (-3, -3); classes have no other numbers."""
    found = lying([0, 1, 0, 1, 4], [[0.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, 5.0], [-3.0, -3.0]])
    to_one = torch.tensor([[-1.0, 4.0], [0.0, 0.0], [-1.0, 4.0], [0.0, 0.0], [3.0, 7.0]])
    assert torch.equal(class_directions(found, 1), to_one)
    to_four = torch.tensor([[-4.0, -3.0], [-3.0, -7.0], [-4.0, -3.0], [-3.0, -7.0], [0.0, 0.0]])
    assert torch.equal(class_directions(found, 4), to_four)


def test_sample_of_the_target_class_is_unchanged() -> None:
    found = lying([2, 2, 2], [[1.0, 9.0], [-5.0, 2.0], [0.25, 0.0]])
    assert torch.equal(class_directions(found, 2), torch.zeros(3, 2))


def test_classes_of_unequal_size_have_equal_weight() -> None:
    found = lying([0] * 6 + [1], [[float(at)] for at in range(6)] + [[10.0]])
    assert class_directions(found, 1).flatten().tolist() == [7.5] * 6 + [0.0]


def test_encoding_of_given_indices(vae: Run) -> None:
    source = vae.load().train
    found = encode_training_samples(vae, source, torch.tensor([7, 2, 7]))
    images, latents = codes(vae, 7, 2, 7)
    assert all(np.array_equal(one, other) for one, other in zip(grey(found.images), images, strict=True))
    torch.testing.assert_close(found.latents, latents)
    assert found.labels is not None
    assert found.labels.tolist() == source.gather_labels(torch.tensor([7, 2, 7])).tolist()


def test_code_beside_a_label_is_incomplete(poise: Any, runs: Path, tmp_path: Path) -> None:
    """A conditional VAE trains and is sampled by class; its codes leave the class out, and lead to no picture alone."""
    for words in (("--between", 0, 1), ("--towards", 1)):
        result = poise("interpolate", runs / "labelled", "--out", tmp_path / "walk.png", *words)
        result.assert_error(2, "labelled", "conditioned on the class", "--label")
    assert not (tmp_path / "walk.png").exists()
    assert poise("sample", runs / "labelled", "--n", 6, "--out", tmp_path / "sheet.png").code == 0


def test_moved_data(runs: Path, pictures: Path, tmp_path: Path, poise: Any) -> None:
    """The ends of a walk are read from where --data says, if the pictures are the same."""
    run = Path(shutil.copytree(runs / "vae", tmp_path / "vae"))
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(pictures), "/never/there.npz"))
    words = ("interpolate", run, "--between", 3, 17, "--steps", STEPS, "--out", tmp_path / "walk.png")
    poise(*words).assert_error(3, "/never/there.npz", "--data")
    assert poise(*words, "--data", pictures).code == 0
    there = (tmp_path / "walk.png").read_bytes()
    words = ("interpolate", runs / "vae", *words[2:])
    assert poise(*words).code == 0
    assert (tmp_path / "walk.png").read_bytes() == there
