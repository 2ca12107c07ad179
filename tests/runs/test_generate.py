"""Sample i is a function of the seed and i, for any number of samples: latents, networks, random layers, labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import recipe, session
from poise.core.random_streams import RandomStreams
from poise.data.source import ImageDataset
from poise.errors import RecipeError
from poise.latents import Gaussian, Latent, Sphere, Truncated, Uniform
from poise.measure.catalogue import select_measures
from poise.runs.evaluate import measure_run
from poise.runs.folder import RunFolder
from poise.runs.generate import BLOCK, generate, sample_latents
from poise.runs.run import Run
from poise.training.evaluation import PeriodicEvaluator
from poise.training.train import train
from poise.utils.images import Bytes, to_float

COUNTS = (1, 3, 9, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 5, 3 * BLOCK)
MOST = 3 * BLOCK
NOISE, DROPOUT = {"kind": "layer_noise"}, {"kind": "standing_dropout"}


@pytest.mark.parametrize("kind", [Gaussian, Sphere, Uniform, Truncated])
@pytest.mark.parametrize("dim", [1, 2, 3, 7, 16, 100])
def test_a_latent_depends_only_on_its_index(kind: type[Latent], dim: int) -> None:
    law = kind(dim=dim)
    whole = sample_latents(law, MOST, RandomStreams(5), "sample")
    assert whole.shape == (MOST, dim)
    for n in COUNTS:
        assert torch.equal(sample_latents(law, n, RandomStreams(5), "sample"), whole[:n])
    assert not torch.equal(sample_latents(law, 9, RandomStreams(6), "sample"), whole[:9])
    assert not torch.equal(sample_latents(law, 9, RandomStreams(5), "measure"), whole[:9])
    assert dim == 1 or len(whole.unique(dim=0)) == MOST, "no block repeats another"


@pytest.mark.parametrize("tricks", [(), (NOISE,), (DROPOUT,), (NOISE, DROPOUT)], ids=["plain", "noise", "drop", "both"])
@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_a_sample_depends_only_on_its_index(world: str, tricks: tuple[dict[str, Any], ...]) -> None:
    net = session(world, *tricks).play(2).game.g.net
    z = torch.randn(MOST, 3, generator=RandomStreams(1)("z"))
    labels = torch.arange(MOST) % 4 if world == "labelled" else None
    whole = generate(net, z, labels, streams=RandomStreams(0))
    for n in COUNTS:
        some = generate(net, z[:n], None if labels is None else labels[:n], streams=RandomStreams(0))
        assert torch.equal(some, whole[:n])
    if tricks:
        same = generate(
            net, z[:1].expand(MOST, -1), None if labels is None else labels[:1].expand(MOST), streams=RandomStreams(0)
        )
        assert len(same.flatten(1).unique(dim=0)) > MOST // 2, "layers draw anew for every sample and every block"


@pytest.mark.parametrize("kind", ["gaussian", "sphere", "uniform", "truncated"])
@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_fewer_samples_are_the_first_of_more(tmp_path: Path, world: str, kind: str) -> None:
    run = train(recipe(world, DROPOUT, steps=2, latent={"kind": kind, "dim": 5}), tmp_path / "run")
    whole = run.sample(70, seed=3)
    labels = run.labels(70, seed=3)
    for n in (1, 3, 9, 33):
        assert torch.equal(Run(run.path).sample(n, seed=3), whole[:n])
        fewer = run.labels(n, seed=3)
        assert (fewer is None) == (labels is None) == (world != "labelled")
        assert fewer is None or labels is None or torch.equal(fewer, labels[:n])
    assert not torch.equal(run.sample(3, seed=4), whole[:3])


@pytest.mark.parametrize("tricks", [(), ({"kind": "averaged_weights"},), ({"kind": "mean_weights"},)], ids=str)
@pytest.mark.parametrize("raw", [False, True])
def test_the_generator_of_a_run_computes_its_samples(
    tmp_path: Path, tricks: tuple[dict[str, Any], ...], raw: bool
) -> None:
    """With batch norm, which in training mode would mix the samples of a batch and change its statistics."""
    network = {"kind": "mlp", "width": 8, "norm": "batch"}
    run = train(recipe("points", *tricks, steps=3, network={"g": network, "d": {"kind": "mlp"}}), tmp_path / "run")
    net = run.generator(raw=raw)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        points = net(run.latents(6))
    assert torch.allclose(points, run.sample(6, raw=raw), atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_what_cannot_be_sampled(tmp_path: Path, world: str) -> None:
    """No samples are an empty tensor; fewer than none, and labels that do not fit, are refused."""
    run = train(recipe(world, steps=2), tmp_path / "run")
    assert run.sample(0).shape == (0, *run.shape)
    assert all(len(images) == 0 for images in run.sample_images(0).values())
    labels = torch.zeros(3, dtype=torch.int64)
    for draw_fewer in (run.sample, run.latents, run.labels):
        with pytest.raises(RecipeError, match="the number of samples can't be negative"):
            draw_fewer(-1)
    if world == "labelled":
        assert torch.equal(run.sample(3, labels=labels), run.sample(3, label=0))
        for draw in (run.sample, run.sample_images):
            with pytest.raises(RecipeError, match="label: give either label or labels, found 1"):
                draw(3, label=1, labels=labels)
        wrong = {
            "labels: must be 3 integers": {"labels": labels[:2]},
            "label: must be the name of a class": {"label": 99},
        }
        wrong |= {
            "label: no such class, found 'one'": {"label": "one"},
            "labels: must be from 0": {"labels": labels - 1},
        }
        assert torch.equal(run.sample(3, label=run.classes[1]), run.sample(3, label=1))
    else:
        wrong = {"takes no labels": {"label": 0}, "this run's generator takes no labels": {"labels": labels}}
    for message, given in wrong.items():
        with pytest.raises(RecipeError, match=message):
            run.sample(3, **given)
        with pytest.raises(RecipeError, match=message):
            run.sample_images(3, **given)
    with pytest.raises(RecipeError, match="there is no such domain, found 'z'"):
        run.sample(3, domain="z")  # type: ignore[arg-type]


# ---- conditional runs on unbalanced classes ------------------------------------------


SHARES = (900, 80, 20)


def shades(counts: tuple[int, ...], seed: int) -> tuple[Bytes, np.ndarray]:
    """Noise images of 4 x 4 pixels with a different brightness for each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).integers(0, 60, (len(labels), 4, 4, 1))
    return (noise + 90 * labels[:, None, None, None]).astype(np.uint8), labels


class Perfect(nn.Module):
    """A G that returns a new real image of the given class."""

    takes_labels = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []
        self.pools = [to_float(torch.from_numpy(shades((500,), seed)[0] + 90 * seed)) for seed in range(len(SHARES))]

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        self.asked.append(labels)
        places = (z.abs().sum(1) * 1e4).long() % 500
        return torch.stack([self.pools[label][place] for label, place in zip(labels, places, strict=True)])


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("skewed")
    images, labels = shades(SHARES, 7)
    np.savez(folder / "p.npz", images=images, labels=labels)
    data = {"kind": "npz", "path": str(folder / "p.npz"), "size": 4, "held_out": 0.3}
    config = recipe(
        "labelled",
        steps=2,
        data=data,
        network={"g": {"kind": "mlp", "width": 4}, "d": {"kind": "mlp", "width": 4}},
        measure={"every": 2, "measures": ["fid"], "features": "pixels"},
    )
    run = train(config, folder / "run")
    run.game.g.net = Perfect()
    return run


def test_a_perfect_sampler_of_unbalanced_data_scores_at_the_floor(skewed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With equally frequent labels it would be far from the data."""
    result, _ = measure_run(skewed, select_measures("fid,precision,recall"), features="pixels")
    fid = result.results["fid"]
    assert fid.floor is not None
    assert fid.value.value < 2 * fid.floor.value
    assert result.results["recall"].value.value > 0.9
    monkeypatch.setattr(ImageDataset, "class_counts", (1, 1, 1))
    equal, _ = measure_run(skewed, select_measures("fid"), features="pixels")
    assert equal.results["fid"].value.value > 20 * fid.value.value


def test_run_json_has_the_class_counts(skewed: Run) -> None:
    counts = skewed.info["data"]["class_counts"]
    assert sum(counts) == skewed.info["data"]["count"] == 700
    assert skewed.class_counts == tuple(counts) == skewed.load().train.class_counts
    labels = skewed.labels(1000)
    assert labels is not None
    assert (labels.bincount() - 1000 * torch.tensor(counts) / 700).abs().max() < 2


def test_periodic_evaluation_uses_the_class_frequencies_of_the_data(skewed: Run, tmp_path: Path) -> None:
    evaluator = PeriodicEvaluator(
        skewed.recipe, skewed.load(), RunFolder(tmp_path), 0, torch.device("cpu"), lambda _: None
    )
    net = skewed.game.g.net
    net.asked.clear()
    result = evaluator.evaluate(skewed.game, 1)
    found = torch.cat(net.asked)[: result.n].bincount(minlength=3) / result.n
    assert (found - torch.tensor(SHARES) / 1000).abs().max() < 0.02
    floor = result.results["fid"].floor
    assert floor is not None
    assert result.results["fid"].value.value < 2 * floor.value
