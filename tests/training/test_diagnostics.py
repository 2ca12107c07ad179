"""Diagnostics: each is compared with numpy for a G of known samples, and none of them affects the run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import CPU, recipe
from poise.core.random_streams import RandomStreams
from poise.core.types import Side
from poise.data.source import DataSplits, ImageDataset
from poise.data.toys import RingConfig
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.networks.base import call_network
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.labels import proportional_labels
from poise.training import state
from poise.training.diagnostics import COUNT, Diagnostics
from poise.training.train import train
from poise.utils.images import to_float
from runs.small_runs import digits, ring, traces
from two_domains import splits, translating

Numbers = npt.NDArray[np.float64]
Answer = Callable[[Tensor, Tensor | None], Tensor]
CONCAT: dict[str, Any] = {"conditioning": {"g": {"kind": "concat", "dim": 4}}}
BOTH: dict[str, Any] = {"conditioning": {"g": {"kind": "concat", "dim": 4}, "d": {"kind": "projection"}}}
NAMES = {
    "d/update",
    "g/update",
    "g/diversity",
    "g/shades",
    "g/newness",
    "g/nearest_ratio",
    "g/feature_diversity",
    "g/label_effect",
}


class FixedGenerator(nn.Module):
    """A G of known samples; it records the mode in which it is called."""

    takes_labels = True

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer, self.modes = answer, list[bool]()

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        self.modes.append(self.training)
        return self.answer(latents, labels)


def photos(n: int, size: int = 8, seed: int = 0, classes: int = 0) -> ImageDataset:
    """Noise images with some black and white pixels."""
    rng = np.random.default_rng(seed)
    images = np.clip(rng.normal(128, 110, (n, size, size, 1)), 0, 255).astype(np.uint8)
    labels = np.arange(n) % classes if classes else None
    return ImageDataset(images, labels, tuple(map(str, range(classes))))


def build_diagnostics(
    world: str = "pictures", *tricks: dict[str, Any], loaded: DataSplits | None = None, **changes: Any
) -> Diagnostics:
    """The diagnostics of a tiny game, whose `game.g.net` can be replaced."""
    config = recipe(world, *tricks, **changes)
    if loaded is None and world == "points":
        loaded = config.data.load()
    return diagnostics_of(config, loaded or DataSplits(photos(90, classes=4), photos(30, seed=1, classes=4)))


def diagnostics_of(config: Recipe, loaded: DataSplits) -> Diagnostics:
    game = build_game(config, loaded.train.spec(), ComputeSettings(CPU, "fp32"), RandomStreams(0))
    return Diagnostics(config, loaded, game, CPU)


def plant(one: Diagnostics, answer: Answer) -> dict[str, float]:
    """The diagnostics with a G of these samples."""
    one.game.g.net = FixedGenerator(answer)
    return {name: stat.mean for name, stat in one.compute().items()}


def always(samples: Tensor) -> Answer:
    """The same samples for all latents."""
    return lambda latents, _: samples[: len(latents)]


def noise(*shape: int, seed: int = 5, sigma: float = 0.6) -> Tensor:
    drawn = np.random.default_rng(seed).normal(0, sigma, shape)
    return torch.from_numpy(np.clip(drawn, -1, 1)).float()


def flat(samples: Tensor) -> Numbers:
    return samples.double().numpy().reshape(len(samples), -1)


def apart(a: Numbers, b: Numbers) -> Numbers:
    """The distances from each row of `a` to each row of `b`."""
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def mean_pair(samples: Tensor) -> float:
    """The mean distance between two samples."""
    rows = flat(samples)
    return float(apart(rows, rows)[np.triu_indices(len(rows), 1)].mean())


def signed(pictures: ImageDataset) -> Numbers:
    """All images in [-1, 1], N x H x W."""
    return pictures.images[..., 0].astype(np.float64) / 127.5 - 1


def evenly(pictures: ImageDataset, n: int) -> Numbers:
    places = np.linspace(0, len(pictures) - 1, min(n, len(pictures))).astype(int)
    return signed(pictures)[places]


def shrunk(images: Numbers, by: int) -> Numbers:
    n, height, width = images.shape
    return images.reshape(n, height // by, by, width // by, by).mean((2, 4)).reshape(n, -1)


def test_the_number_of_samples() -> None:
    one = build_diagnostics()
    asked: list[int] = []
    plant(one, lambda latents, _: (asked.append(len(latents)), noise(len(latents), 1, 8, 8))[1])
    assert asked == [COUNT] == [64]


# ---- diversity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (2,)], ids=["pictures", "points"])
def test_a_collapsed_g_has_no_diversity(shape: tuple[int, ...]) -> None:
    result = plant(
        build_diagnostics("pictures" if len(shape) == 3 else "points"), always(torch.full((COUNT, *shape), 0.25))
    )
    assert result["g/diversity"] == 0.0


def test_real_samples_have_diversity_1() -> None:
    one = build_diagnostics()
    others = torch.from_numpy(signed(photos(COUNT, seed=9))).float()[:, None]
    assert plant(one, always(others))["g/diversity"] == pytest.approx(1.0, abs=0.05)
    assert plant(one, always(one.real))["g/diversity"] == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("world", ["pictures", "points"])
def test_diversity_against_numpy(world: str) -> None:
    one = build_diagnostics(world)
    fake = noise(COUNT, *((1, 8, 8) if world == "pictures" else (2,)))
    real = one.real if world == "points" else torch.from_numpy(evenly(photos(90), COUNT))
    assert world == "pictures" or torch.equal(real, RingConfig().load().train.preview(COUNT))
    assert plant(one, always(fake))["g/diversity"] == pytest.approx(mean_pair(fake) / mean_pair(real), rel=1e-5)


# ---- shades ----------------------------------------------------------------------------------------------


def test_a_saturated_g_has_no_grey() -> None:
    assert plant(build_diagnostics(), always(noise(COUNT, 1, 8, 8).sign()))["g/shades"] == 0.0


def test_shades_against_numpy() -> None:
    """Pixels at 0.95 and beyond are black or white."""
    fake = noise(COUNT, 1, 8, 8)
    fake[0, 0, 0, :3] = torch.tensor([0.94, -0.94, 0.96])
    real = np.abs(evenly(photos(90), COUNT)) < 0.95
    assert 0.5 < real.mean() < 0.95
    wanted = (np.abs(flat(fake)) < 0.95).mean() / real.mean()
    assert plant(build_diagnostics(), always(fake))["g/shades"] == pytest.approx(wanted, rel=1e-6)


# ---- newness ---------------------------------------------------------------------------------------------


def test_training_images_have_newness_0() -> None:
    copies = torch.from_numpy(signed(photos(90)))[7 : 7 + COUNT, None].float()
    assert plant(build_diagnostics(), always(copies))["g/newness"] == pytest.approx(0.0, abs=1e-3)


def test_held_out_images_have_newness_1() -> None:
    """No training image is also held out."""
    held = torch.from_numpy(signed(photos(30, seed=1)))[:, None].float().repeat(3, 1, 1, 1)
    assert plant(build_diagnostics(), always(held[:COUNT]))["g/newness"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("size", "by"), [(8, 1), (16, 1), (32, 2)])
def test_newness_against_numpy(size: int, by: int) -> None:
    """Images are compared at no more than 16 x 16 pixels, as means over blocks."""
    loaded = DataSplits(photos(90, size), photos(30, size, seed=1))
    fake = noise(COUNT, 1, size, size)
    known = shrunk(signed(photos(90, size)), by)

    def away(images: Numbers) -> float:
        return float(np.sort(apart(shrunk(images, by), known).min(1))[(len(images) - 1) // 2])

    wanted = away(fake.double().numpy()[:, 0]) / away(signed(photos(30, size, seed=1)))
    one = build_diagnostics(loaded=loaded, data={"kind": "digits", "size": size})
    assert plant(one, always(fake))["g/newness"] == pytest.approx(wanted, rel=1e-3)


def test_at_most_five_thousand_training_images_are_searched() -> None:
    one = build_diagnostics(loaded=DataSplits(photos(5100), photos(30, seed=1)))
    (examined,) = one.examined
    assert examined.memorization is not None
    assert len(examined.memorization.known) == 5000


# ---- features of D ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, CONCAT, BOTH], ids=["no labels", "for G", "for both"])
def test_feature_diversity_against_numpy(changes: dict[str, Any]) -> None:
    """In evaluation mode, real samples with their own labels."""
    one = build_diagnostics(**changes)
    fake, d = noise(COUNT, 1, 8, 8), one.game.d.net
    for _ in range(3):
        call_network(d, noise(16, 1, 8, 8, sigma=2.0), torch.zeros(16, dtype=torch.int64))  # statistics of its own
    d.eval()
    places = np.linspace(0, 89, COUNT).astype(int)
    real = torch.from_numpy(evenly(photos(90), COUNT)).float()[:, None]
    labels = proportional_labels(COUNT, (23, 23, 22, 22), 0) if changes else None
    with torch.no_grad():
        result = [
            call_network(d, fake, labels).features,
            call_network(d, real, torch.from_numpy(places % 4) if changes == BOTH else None).features,
        ]
    d.train()
    wanted = mean_pair(result[0]) / mean_pair(result[1])
    assert plant(one, always(fake))["g/feature_diversity"] == pytest.approx(wanted, rel=1e-4)


def test_d_gets_real_images_with_their_own_labels() -> None:
    one, seen = build_diagnostics(**BOTH), []
    one.game.d.net.register_forward_pre_hook(lambda _, given: seen.append(given))
    fake = noise(COUNT, 1, 8, 8)
    plant(one, always(fake))
    assert len(seen) == 2
    (first, asked), (real, kinds) = seen
    assert torch.equal(first, fake)
    assert torch.equal(asked, proportional_labels(COUNT, (23, 23, 22, 22), 0))
    assert torch.equal(real, one.real)
    assert kinds.tolist() == [int(i) % 4 for i in np.linspace(0, 89, COUNT).astype(int)]


# ---- labels ----------------------------------------------------------------------------------------------


def test_a_g_that_ignores_labels_has_no_label_effect() -> None:
    table = noise(COUNT, 1, 8, 8)
    assert plant(build_diagnostics(**CONCAT), always(table))["g/label_effect"] == 0.0


@pytest.mark.parametrize(("classes", "looked_at"), [(2, 2), (4, 4), (10, 10), (16, 16), (40, 16)])
def test_label_effect_against_numpy(classes: int, looked_at: int) -> None:
    """Each latent with the next label, relative to the next sample of the same label; at most 16 classes."""
    loaded = DataSplits(photos(90, classes=classes), photos(30, seed=1, classes=classes))
    one = build_diagnostics(loaded=loaded, **CONCAT)
    heads, tails = noise(classes, 8, 8, seed=1).double(), noise(COUNT, 8, 8, seed=2).double()

    def answer(latents: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return (heads[labels] + (1 + labels[:, None, None]) * tails[: len(latents)])[:, None]

    def made(labels: npt.NDArray[np.int64]) -> Numbers:
        result = heads.numpy()[labels] + (1 + labels)[:, None, None] * tails.numpy()
        return result.reshape(COUNT, -1)

    sizes = np.bincount(np.arange(90) % classes)[:looked_at].tolist()
    own = proportional_labels(COUNT, sizes, 0).numpy()
    by_label = np.linalg.norm(made((own + 1) % looked_at) - made(own), axis=1).mean()
    groups = [np.flatnonzero(own == kind) for kind in range(looked_at)]
    by_latent = np.mean([np.linalg.norm(made(own)[i] - made(own)[j]) for g in groups for i, j in pairwise(g)])
    assert plant(one, answer)["g/label_effect"] == pytest.approx(by_label / by_latent, rel=1e-5)


def test_labels_have_the_class_frequencies_of_the_data() -> None:
    """Otherwise their diversity would differ from that of the data, of which nine tenths are of one class here."""
    images, labels = photos(200).images, np.repeat([0, 1, 2], [180, 16, 4])
    loaded = DataSplits(ImageDataset(images, labels, ("a", "b", "c")), photos(30, seed=1))
    one = build_diagnostics(loaded=loaded, **CONCAT)
    assert one.labels is not None
    assert abs(one.labels.bincount(minlength=3) - COUNT * torch.tensor([0.9, 0.08, 0.02])).max() < 2


@pytest.mark.parametrize("labels", [np.zeros(90, int), np.full(90, 2)])
def test_a_single_class_has_no_label_effect(labels: npt.NDArray[np.int64]) -> None:
    one = build_diagnostics(
        loaded=DataSplits(ImageDataset(photos(90).images, labels, ("a", "b", "c")), photos(30, seed=1)), **CONCAT
    )
    assert "g/label_effect" not in plant(one, always(noise(COUNT, 1, 8, 8)))


# ---- two domains -----------------------------------------------------------------------------------------


def translated(kind: str, direction: str) -> tuple[Diagnostics, DataSplits]:
    loaded = splits(kind)
    return diagnostics_of(translating(direction), loaded), loaded


def test_the_sources_beside_translations_are_not_examined() -> None:
    """a stays diverse, whatever G does; b collapses, is saturated, or is a copy of training images."""
    one, loaded = translated("pairs", "a_to_b")
    collapsed = plant(one, lambda both, _: torch.cat((both[:, :1], torch.full_like(both[:, 1:], 0.5)), 1))
    assert collapsed["g/diversity"] == 0
    saturated = plant(one, lambda both, _: torch.cat((both[:, :1], both[:, 1:].sign()), 1))
    assert saturated["g/shades"] == 0
    train = to_float(loaded.train.gather(torch.arange(48)).images)[:, 1:]  # type: ignore[attr-defined]
    copies = plant(one, lambda both, _: torch.cat((both[:, :1], train.repeat(2, 1, 1, 1)[: len(both)]), 1))
    assert copies["g/newness"] == pytest.approx(0, abs=1e-2)
    assert copies["g/nearest_ratio"] < 0.1
    perfect = plant(one, lambda both, _: both)
    assert perfect["g/diversity"] == pytest.approx(1, abs=0.1)
    assert perfect["g/newness"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("collapsed", ["a", "b"])
def test_with_both_directions_the_worse_one_counts(collapsed: str) -> None:
    one, _ = translated("domains", "both_ways")

    def answer(both: Tensor, _: Tensor | None) -> Tensor:
        a, b = both[:, :1], both[:, 1:]
        return torch.cat((a.mean().expand_as(a), b) if collapsed == "a" else (a, b.mean().expand_as(b)), 1)

    assert plant(one, answer)["g/diversity"] < 1e-6
    assert plant(one, lambda both, _: both)["g/diversity"] == pytest.approx(1, abs=0.15)
    assert math.isnan(plant(one, lambda both, _: torch.cat((both[:, :1] * math.nan, both[:, 1:]), 1))["g/diversity"])


# ---- the norm of the last update ------------------------------------------------------------------------------


def test_update_is_the_norm_of_the_last_update() -> None:
    one = build_diagnostics()
    one.before_step()
    wanted = {}
    with torch.no_grad():
        for side, sigma in ((Side.D, 0.1), (Side.G, 3.0)):
            moves = [torch.randn(w.shape) * sigma for w in one.game.players[side].weights]
            wanted[side] = float(np.linalg.norm(np.concatenate([m.double().numpy().ravel() for m in moves])))
            for weight, move in zip(one.game.players[side].weights, moves, strict=True):
                weight += move
    result = {name: stat.mean for name, stat in one.compute().items()}
    assert result["d/update"] == pytest.approx(wanted[Side.D], rel=1e-4)
    assert result["g/update"] == pytest.approx(wanted[Side.G], rel=1e-4)


def test_a_row_has_the_update_of_its_last_step(tmp_path: Path) -> None:
    """Not of all steps since the previous row. With SGD it is the learning rate times the gradient norm."""
    sgd = {"kind": "sgd", "lr": 0.05}
    changes = {"optimizer": {"g": sgd, "d": sgd}, "log": {"rows": 4, "samples": 100, "saves": 100, "sheet": 4}}
    train(recipe("points", steps=9, **changes), tmp_path / "run")
    train(recipe("points", steps=9, **{**changes, "log": changes["log"] | {"rows": 1}}), tmp_path / "each")
    (few, each) = (rows(tmp_path / name) for name in ("run", "each"))
    assert [row["step"] for row in few] == [4, 8, 9]
    for row in few:
        (same,) = (one["stats"] for one in each if one["step"] == row["step"])
        for side in ("d", "g"):
            assert row["stats"][f"{side}/update"] == same[f"{side}/update"]
            length = 0.05 * same[f"{side}/grad_norm"]["mean"]
            assert same[f"{side}/update"]["mean"] == pytest.approx(length, rel=1e-3)


# ---- side effects ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "tricks", "changes", "left_out"),
    [
        ("points", [], {}, {"g/shades", "g/newness", "g/nearest_ratio", "g/label_effect"}),
        ("pictures", [], {}, {"g/label_effect"}),
        ("pictures", [], CONCAT, set()),
        ("pictures", [], BOTH, set()),
        ("pictures", [{"kind": "packing", "samples": 2}], {}, {"g/feature_diversity", "g/label_effect"}),
        ("pictures", [{"kind": "auxiliary_classifier"}], CONCAT, set()),
    ],
    ids=["points", "pictures", "labels for G", "labels for both", "packing", "classifier"],
)
def test_diagnostics_that_do_not_apply_are_left_out(
    world: str, tricks: list[dict[str, Any]], changes: dict[str, Any], left_out: set[str]
) -> None:
    one = build_diagnostics(world, *tricks, **changes)
    one.before_step()
    result = one.compute()
    assert set(result) == NAMES - left_out
    assert all(np.isfinite(stat.mean) and stat.std == 0 and stat.min == stat.max for stat in result.values())


def test_newness_needs_held_out_images_and_update_a_step() -> None:
    assert set(build_diagnostics(loaded=DataSplits(photos(90))).compute()) == {
        "g/diversity",
        "g/shades",
        "g/feature_diversity",
    }


def test_a_d_without_features_has_no_feature_diversity() -> None:
    config = recipe("pictures")
    loaded = DataSplits(photos(90), photos(30, seed=1))
    game = build_game(config, loaded.train.spec(), ComputeSettings(CPU, "fp32"), RandomStreams(0))
    game.d.net.width = None
    assert "g/feature_diversity" not in Diagnostics(config, loaded, game, CPU).compute()


@pytest.mark.parametrize("training", [True, False])
def test_networks_run_in_evaluation_mode_and_their_mode_is_restored(training: bool) -> None:
    one = build_diagnostics(**CONCAT)
    g, d = FixedGenerator(always(noise(COUNT, 1, 8, 8))), one.game.d.net
    one.game.g.net, modes = g, []
    d.register_forward_pre_hook(lambda net, _: modes.append(net.training))
    g.train(training)
    d.train(training)
    one.compute()
    assert (g.training, d.training) == (training, training)
    assert all(module.training == training for module in d.modules())
    assert g.modes == [False, False]
    assert modes == [False, False]


def test_buffers_weights_gradients_and_random_state_are_unchanged() -> None:
    """With dropout in evaluation mode in both players, which uses the global generator."""
    torch.manual_seed(11)
    one = build_diagnostics("pictures", {"kind": "standing_dropout"}, {"kind": "layer_noise"}, **BOTH)
    one.game.d.net.register_forward_pre_hook(lambda _, given: (given[0] + torch.randn_like(given[0]), *given[1:]))
    one.before_step()
    before = {name: tensor.clone() for name, tensor in one.game.state_dict().items()}
    torch.manual_seed(12)
    streams = torch.random.get_rng_state()
    first = one.compute()
    assert torch.equal(torch.random.get_rng_state(), streams)
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.game.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for p in one.game.players.values() for weight in p.weights)
    torch.manual_seed(13)
    assert one.compute() == {name: stat for name, stat in first.items() if "update" not in name}
    torch.manual_seed(14)
    streams = torch.random.get_rng_state()
    Diagnostics(recipe("pictures"), DataSplits(photos(90), photos(30, seed=1)), one.game, CPU)
    assert torch.equal(torch.random.get_rng_state(), streams)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


class NoDiagnostics:
    """Diagnostics that compute nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def before_step(self) -> None:
        pass

    def compute(self) -> dict[str, Any]:
        return {}


def thin(file: Path) -> Recipe:
    """Images of two classes, with batch norm and labels in both players and averaged weights."""
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), np.uint8)
    np.savez(file, images=images, labels=np.arange(80) % 2)
    table = {**digits(9).canonical(), "data": {"kind": "npz", "path": str(file), "size": 8, "held_out": 0.25}}
    table["log"] = {"rows": 4, "samples": 5, "saves": 6, "sheet": 4}
    return decode({**table, **BOTH})


@pytest.mark.parametrize("which", ["points", "pictures"])
def test_diagnostics_do_not_change_a_run(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ring(9) if which == "points" else thin(tmp_path / "p.npz")
    train(config, tmp_path / "seen")
    assert not (tmp_path / "seen" / "alarms.jsonl").exists()
    monkeypatch.setattr(state, "Diagnostics", NoDiagnostics)
    train(config, tmp_path / "alone")
    seen, alone = traces(tmp_path / "seen"), traces(tmp_path / "alone")
    wanted = {"d/update", "g/update", "g/diversity", "g/feature_diversity"}
    wanted |= {"g/shades", "g/newness", "g/nearest_ratio", "g/label_effect"} if which == "pictures" else set()
    for row, other in zip(seen["rows"], alone["rows"], strict=True):  # type: ignore[call-overload]
        assert set(row["stats"]) - set(other["stats"]) == wanted  # in every row
        row["stats"] = {name: stat for name, stat in row["stats"].items() if name not in wanted}
    assert seen == alone


# ---- real samples that have no spread, no shades, no distance -------------------------------------------------


def _alike() -> DataSplits:
    return DataSplits(
        ImageDataset(np.full((90, 8, 8, 1), 100, np.uint8)), ImageDataset(np.full((30, 8, 8, 1), 100, np.uint8))
    )


def _binary() -> DataSplits:
    images = np.random.default_rng(0).integers(0, 2, (120, 8, 8, 1)).astype(np.uint8) * 255
    return DataSplits(ImageDataset(images[:90]), ImageDataset(images[90:]))


def _copied() -> DataSplits:
    return DataSplits(photos(90), photos(90))


@pytest.mark.parametrize(
    ("loaded", "without"),
    [
        (_alike, {"g/diversity", "g/newness", "g/nearest_ratio", "g/feature_diversity"}),
        (_binary, {"g/shades"}),
        (_copied, {"g/newness", "g/nearest_ratio"}),
    ],
    ids=["all alike", "black and white", "held out and trained on"],
)
def test_a_ratio_to_zero_is_left_out(loaded: Callable[[], DataSplits], without: set[str]) -> None:
    """A number that is not finite would roll back a healthy run."""
    result = plant(build_diagnostics(loaded=loaded()), always(noise(COUNT, 1, 8, 8)))
    there = set(result) - {"g/train_ratio"}  # where both sides have 50 pictures
    assert there == {"g/diversity", "g/shades", "g/newness", "g/nearest_ratio", "g/feature_diversity"} - without


def test_labels_of_a_g_that_ignores_its_latents() -> None:
    """It has one sample per class: G has collapsed, and no diagnostic is infinite."""
    heads = noise(4, 1, 8, 8)

    def answer(latents: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return heads[labels]

    assert all(np.isfinite(value) for value in plant(build_diagnostics(**CONCAT), answer).values())
