"""`poise project`: the latent of an image, the files, what is printed, and errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.tiny import recipe
from poise.measure import classifier
from poise.networks.mlp import MLPGenerator
from poise.runs.project import Projection, ProjectionSettings, project
from poise.runs.run import Run
from poise.training.train import train
from poise.utils.image_grid import GAP
from poise.utils.images import to_bytes, to_float

SHAPE = (8, 8, 1)
MLP = {"kind": "mlp", "width": 16, "depth": 1}
CODED = {"tempo": {"kind": "alone"}, "steps": 60, "batch": 16, "optimizer": {"g": {"kind": "adam", "lr": 2e-2}}}


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """n images in three classes, each of which is bright in rows of its own, and their labels."""
    random, labels = np.random.Generator(np.random.Philox(n)), np.arange(n) % 3
    pixels = random.integers(0, 60, (n, *SHAPE))
    pixels[np.arange(n)[:, None], 2 * labels[:, None] + np.arange(2)] += 190
    return pixels.astype(np.uint8), labels


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A GAN without labels, one with them, a VAE, and free codes. The classifier of the labelled images is quick."""
    out = tmp_path_factory.mktemp("runs")
    pixels, _ = images(66)
    np.savez(out / "plain.npz", images=pixels)
    pixels, labels = images(210)
    np.savez(out / "classes.npz", images=pixels, labels=labels)
    plain, classes = (
        {"data": {"kind": "npz", "path": str(out / f"{name}.npz"), "size": 8}} for name in ("plain", "classes")
    )
    average = {"kind": "averaged_weights", "half_life": 200.0, "ramp_up": 0.0}
    train(recipe("pictures", average, **plain, network={"g": MLP, "d": MLP}, steps=20), out / "gan")
    conditional = {
        "conditioning": {"g": {"kind": "concat", "dim": 2}},
        "optimizer": {side: {"kind": "adam", "lr": 5e-2} for side in "gd"},
    }
    train(
        recipe("pictures", **(plain | classes | conditional), network={"g": MLP, "d": MLP}, steps=40), out / "labelled"
    )
    coded = {"network": {"g": MLP, "e": MLP}, "objective": {"kind": "elbo", "sigma": 0.1}}
    train(recipe("pictures", **(CODED | plain | coded)), out / "vae")
    free = {"network": {"g": MLP, "e": {"kind": "free_codes"}}, "objective": {"kind": "reconstruction"}}
    train(recipe("pictures", **(CODED | plain | free), latent={"kind": "sphere", "dim": 3}), out / "free")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "SAMPLES_SEEN", (1280, 1280))
        yield out


@pytest.fixture
def own_sample(runs: Path, tmp_path: Path) -> Path:
    """A sample of the GAN, as a file."""
    Image.fromarray(to_bytes(Run(runs / "gan").sample(90, seed=3))[-1, ..., 0]).save(tmp_path / "sample.png")
    return tmp_path / "sample.png"


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def projected(run: Path, image: np.ndarray, **settings: Any) -> Projection:
    return project(Run(run), to_float(torch.from_numpy(image[None]))[0], ProjectionSettings(**settings))


def test_own_sample_is_found(poise: Any, runs: Path, own_sample: Path, tmp_path: Path) -> None:
    result = poise("project", runs / "gan", own_sample, "--out", tmp_path / "steps.png", "--steps", 200)
    assert (result.code, result.out) == (0, ""), result.err
    found = arrays(tmp_path / "steps.npz")
    assert set(found) == {"latent", "image", "target", "distance", "step", "space"}
    assert (found["latent"].shape, found["latent"].dtype, str(found["space"])) == ((3,), np.float32, "z")
    assert np.array_equal(found["target"][..., 0], np.asarray(Image.open(own_sample)))
    assert found["image"].shape == SHAPE
    assert found["image"].dtype == np.uint8
    assert abs(found["image"].astype(int) - found["target"]).mean() < 3
    assert found["step"][0] == 0
    assert found["step"][-1] == 200
    assert found["distance"].min() < found["distance"][0] / 10
    printed = result.err.splitlines()
    assert (
        f"{tmp_path / 'steps.png'}: the image, the start (the nearest of 64 random samples), steps 4, 16," in printed[0]
    )
    assert printed[1] == f"{tmp_path / 'steps.npz'}: latent z (3 numbers), images, distances"
    assert (
        f"distance from the image: {found['distance'][0]:.3g} at the start, {found['distance'].min():.3g} at"
        in printed[2]
    )
    assert "a random sample: " in printed[2]
    assert "the nearest of 60 training images: " in printed[2]
    assert printed[3] == "the distance is in pixels at 2 sizes"


def test_grid_shows_the_steps(poise: Any, runs: Path, own_sample: Path) -> None:
    run = runs / "gan"
    result = poise("project", run, own_sample, "--steps", 100)
    assert result.code == 0, result.err
    found = arrays(run / "projection.npz")
    with Image.open(run / "projection.png") as grid:
        pixels = np.asarray(grid)
    side = (pixels.shape[1] - GAP) // 9 - GAP
    tiles = [pixels[GAP:-GAP, GAP + k * (side + GAP) :][:, :side] for k in range(9)]
    assert pixels.shape == (side + 2 * GAP, 9 * (side + GAP) + GAP)
    enlarged = side // 8
    shown = projected(run, found["target"], steps=100).trajectory
    expected = [found["target"], *to_bytes(torch.stack(list(shown.snapshots.values()))), found["image"]]
    for tile, image in zip(tiles, expected, strict=True):
        assert np.array_equal(tile, image[..., 0].repeat(enlarged, 0).repeat(enlarged, 1))


def test_projection_is_a_function_of_run_image_and_seed(runs: Path) -> None:
    image = images(1)[0][0]
    first, same, other = (projected(runs / "gan", image, steps=30, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.latent, same.latent)
    assert torch.equal(first.image, same.image)
    assert first.trajectory.distances == same.trajectory.distances
    assert first.comparison == same.comparison
    assert not torch.equal(first.latent, other.latent)


def test_start_is_the_nearest_of_the_samples(runs: Path) -> None:
    image = images(1)[0][0]
    run = Run(runs / "gan")
    few, many = (projected(runs / "gan", image, steps=1, starts=starts) for starts in (1, 200))
    torch.testing.assert_close(few.trajectory.snapshots[0], run.sample(1)[0])
    assert many.start == "the nearest of 200 random samples"
    assert many.trajectory.distances[0] < few.trajectory.distances[0]
    assert few.comparison == many.comparison


def test_many_starts_are_divided_among_classes_and_this_is_said(runs: Path) -> None:
    image, cut = images(1)[0][0], "682 starts for each of 3 classes, 2,048 in all"
    of_all = projected(runs / "labelled", image, steps=1, starts=2100)
    assert of_all.start == "the nearest of 682 random samples"
    assert any(cut in note for note in of_all.notes)
    of_one = projected(runs / "labelled", image, steps=1, starts=2100, label=0)
    assert of_one.start == "the nearest of 2,100 random samples"
    assert not any("starts for each" in note for note in of_one.notes)


def test_live_or_averaged_weights(runs: Path) -> None:
    image, run = images(1)[0][0], Run(runs / "gan")
    for raw in (False, True):
        start = projected(runs / "gan", image, steps=1, starts=1, raw=raw).trajectory.snapshots[0]
        torch.testing.assert_close(start, run.sample(1, raw=raw)[0])
    assert not torch.equal(run.sample(1), run.sample(1, raw=True))


def test_training_images_are_searched(runs: Path) -> None:
    run = Run(runs / "gan")
    train_image = run.load().train.preview(60)[7]
    found = project(run, train_image, ProjectionSettings(steps=1))
    assert (found.comparison.nearest, found.comparison.num_searched) == (0, 60)


def test_class_with_the_nearest_start_is_chosen(poise: Any, runs: Path, tmp_path: Path) -> None:
    run = Run(runs / "labelled")
    for label in (0, 2):
        Image.fromarray(to_bytes(run.sample(70, seed=3, label=label))[-1, ..., 0]).save(tmp_path / "sample.png")
        words = ["project", runs / "labelled", tmp_path / "sample.png", "--steps", 5, "--out", tmp_path / "a.png"]
        result = poise(*words)
        assert result.code == 0, result.err
        chosen = int(arrays(tmp_path / "a.npz")["label"])
        assert f"the class is {run.classes[chosen]}, whose start is the nearest to the image" in result.err
        nearest = min(
            range(3),
            key=lambda k: projected(
                runs / "labelled", arrays(tmp_path / "a.npz")["target"], steps=1, label=k
            ).trajectory.distances[0],
        )
        assert chosen == nearest
        given = poise(*words, "--label", run.classes[(chosen + 1) % 3])
        assert given.code == 0, given.err
        assert "the class is" not in given.err
        assert int(arrays(tmp_path / "a.npz")["label"]) == (chosen + 1) % 3
    assert "pixels and features (classifier " in given.err


def test_encoder_gives_the_start(runs: Path) -> None:
    image = images(1)[0][0]
    start = projected(runs / "vae", image, steps=30, starts=1)
    assert start.start == "the code of the image"
    run = Run(runs / "vae")
    own = run.load().train.preview(60)[0]
    free = project(Run(runs / "free"), own, ProjectionSettings(steps=30, starts=1))
    assert free.start == "the code of the nearest training image"
    assert free.latent.norm() == pytest.approx(1)


def test_intermediate_latents_are_the_default(
    poise: Any, runs: Path, own_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G as a mapping, its first layer, and the rest."""
    words = ["project", runs / "gan", own_sample, "--out", tmp_path / "a.png", "--steps", 200]
    poise(*words, "--space", "w").assert_error(2, "--space", "no intermediate latents w", "--space z")
    monkeypatch.setattr(MLPGenerator, "map_latents", lambda net, z: net.layers[0](z), raising=False)
    monkeypatch.setattr(MLPGenerator, "synthesize", lambda net, w: net.layers[1:](w), raising=False)
    result = poise(*words)
    assert result.code == 0, result.err
    assert "the start (the mean of w)" in result.err
    found = arrays(tmp_path / "a.npz")
    assert (str(found["space"]), found["latent"].shape) == ("w", (16,))
    assert found["distance"].min() < found["distance"][0] / 10
    assert poise(*words, "--space", "z").code == 0
    assert str(arrays(tmp_path / "a.npz")["space"]) == "z"


def test_moved_data(poise: Any, runs: Path, own_sample: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "gan", tmp_path / "run"))
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace("plain.npz", "gone.npz"))
    words = ["project", run, own_sample, "--steps", 2]
    poise(*words).assert_error(3, "gone.npz", "--data")
    assert poise(*words, "--data", runs / "plain.npz").code == 0
    poise(*words, "--data", runs / "classes.npz").assert_error(3, "not what this run was trained on")


def test_changes_of_the_image_are_said(poise: Any, runs: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    result = poise("project", runs / "gan", tmp_path / "photo.jpg", "--steps", 1, "--out", tmp_path / "a.png")
    changes = "cropped from 30 x 20 to 20 x 20, converted to greyscale, converted from 20 x 20 to 8 x 8 like the data"
    assert f"{tmp_path / 'photo.jpg'}: {changes}" in result.err.splitlines()
    assert (arrays(tmp_path / "a.npz")["target"] == 90).all()


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["nowhere", "a.png"], 4, ["nowhere", "not a run folder"]),
        (["gan", "missing.png"], 3, ["IMAGE", "no such file", "missing.png"]),
        (["gan", "gan"], 3, ["IMAGE", "is a folder"]),
        (["gan", "text.png"], 3, ["text.png", "can't be used as an image", "not an image"]),
        (["gan", "a.png", "--label", "0"], 2, ["--label", "takes no labels"]),
        (["labelled", "a.png", "--label", "9"], 2, ["--label", "no such class", "'9'"]),
        (["gan", "a.png", "--out", "a.jpg"], 2, ["--out", ".png"]),
        (["gan", "a.png", "--out", "no/a.png"], 2, ["--out", "folder does not exist"]),
        (["gan", "a.png", "--steps", "0"], 2, ["--steps"]),
        (["gan", "a.png", "--starts", "0"], 2, ["--starts"]),
        (["gan", "a.png", "--seed", "-1"], 2, ["--seed"]),
        (["gan", "a.png", "--space", "x"], 2, ["--space", "'z'", "'w'"]),
        (["gan", "a.png", "--best"], 4, ["no valid checkpoint", "measure"]),
        (["gan"], 2, ["image"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_errors(
    poise: Any,
    runs: Path,
    own_sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    parts: list[str],
) -> None:
    for name in ("gan", "labelled"):
        (tmp_path / name).symlink_to(runs / name)
    own_sample.rename(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("no image")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    poise("project", *words).assert_error(code, *parts)
    assert sorted(tmp_path.iterdir()) == before


def test_points_are_refused(poise: Any, ring_run: Path, own_sample: Path) -> None:
    poise("project", ring_run, own_sample).assert_error(2, "only images can be projected", "ring")


@pytest.mark.slow
def test_held_out_digits(poise: Any, tmp_path: Path) -> None:
    """A DCGAN on digits: the projections are nearer than any sample and than the nearest training image."""
    out = tmp_path / "run"
    words = [
        "--set",
        "data.size=16",
        "--set",
        "network.g.width=16",
        "--set",
        "network.d.width=16",
        "--set",
        "measure=none",
    ]
    result = poise("train", "dcgan", "--steps", 500, "--out", out, "--set", "batch=32", *words)
    assert result.code == 0, result.err
    run = Run(out)
    held_out = run.load().held_out
    assert held_out is not None
    found = [project(run, image, ProjectionSettings()) for image in held_out.preview(10)]
    ends = [one.trajectory.distances[one.trajectory.best_step] for one in found]
    starts, nearest = [one.trajectory.distances[0] for one in found], [one.comparison.nearest for one in found]
    print(f"start {np.mean(starts):.3f}, end {np.mean(ends):.3f}, nearest training image {np.mean(nearest):.3f}")
    assert np.mean(ends) < np.mean(starts) / 3
    assert np.mean(ends) < np.mean(nearest)
