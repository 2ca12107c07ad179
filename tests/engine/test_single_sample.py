"""Batches of one sample: networks declare the smallest batch that they can be trained with, and others are refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import recipe as tiny
from poise.core.config import find_components
from poise.engine.compute import choose_compute
from poise.errors import RecipeError
from poise.networks.base import DiscriminatorConfig, EncoderConfig, GeneratorConfig, NetworkConfig, TranslatorConfig
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table, recipe_names
from poise.training.state import check_single_sample_batch
from poise.user_code.loading import allow_user_code

NORMS = ("batch", "spectral_batch", "instance", "virtual", "none")
DIM, REFERENCE = 3, 16


def entries() -> list[tuple[type[NetworkConfig], NetworkConfig, tuple[int, ...]]]:
    """All networks with every norm that they support, for points and small images."""
    found = []
    for base in (GeneratorConfig, DiscriminatorConfig, EncoderConfig):
        for entry in find_components(base, "poise.networks").values():
            if issubclass(entry, TranslatorConfig):
                continue
            fields = entry.model_fields
            grid = [[{"norm": norm} for norm in NORMS] if "norm" in fields else [{}]]
            grid += [[{}, {"depth": 1}] if "depth" in fields else [{}]]
            for norm, depth in itertools.product(*grid):
                made: Any = entry(**norm, **depth, **({"width": 4} if "width" in fields else {}))
                found += [
                    (base, made, shape) for shape in ((2,), (1, 8, 8), (1, 16, 16)) if not made.incompatibility(shape)
                ]
    return found


def built(base: type[NetworkConfig], entry: Any, shape: tuple[int, ...]) -> tuple[nn.Module, Callable[[int], Tensor]]:
    """The network and its input."""
    if base is GeneratorConfig:
        return entry.build(DIM, shape, reference=torch.randn(REFERENCE, DIM)), lambda n: torch.randn(n, DIM)
    sizes = (shape,) if base is DiscriminatorConfig else (shape, DIM, 50)
    net = entry.build(*sizes, reference=torch.randn(REFERENCE, *shape))
    return net, torch.arange if getattr(entry, "by_index", False) else lambda n: torch.randn(n, *shape)


def test_networks_declare_their_smallest_batch() -> None:
    wrong = []
    for base, entry, shape in entries():
        net, batches = built(base, entry, shape)
        net.train()
        least = entry.min_batch(shape)
        net(batches(least))
        if least > 1:
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                net(batches(least - 1))
            wrong += [entry] if not fails_alone(entry) else []
    assert not wrong


def fails_alone(entry: Any) -> bool:
    return entry.tag() == "unrolled" or entry.norm in ("batch", "spectral_batch")


def of_one(name: str, batch: int = 1) -> Recipe:
    """A shipped recipe with narrow networks and the given batch size."""
    result = load_table(name) | {"batch": batch, "steps": 3}
    for network in (part for part in result["network"].values() if isinstance(part, dict)):
        network |= {"width": 4} if "width" in network else {}
    if "size" in result["data"]:
        result["data"]["size"] = 16
    return decode(result)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_a_step_or_is_refused(name: str) -> None:
    recipe = of_one(name)
    loaded = recipe.data.load()
    refused = check_compatibility(recipe, loaded.train.shape, len(loaded.train.classes)).refusals
    if name == "gan":
        assert [one.field for one in refused] == ["network.g.norm"]
        assert "set batch to 2 or more" in refused[0].cure
        recipe = of_one(name, 2)
        assert not check_compatibility(recipe, loaded.train.shape).refusals
        return
    if not refused:
        check_single_sample_batch(recipe, choose_compute("cpu", "fp32", recipe), loaded)


def test_a_pack_counts_as_one_sample(tmp_path: Path) -> None:
    """A packed D gets half as many inputs."""
    base = tiny("points", {"kind": "packing", "samples": 2}, batch=2)
    config = base.canonical()
    config["network"]["d"] |= {"norm": "batch", "depth": 2}
    (refused,) = check_compatibility(decode(config), (2,)).refusals
    assert (refused.field, refused.cure) == ("network.d.norm", 'set batch to 4 or more, or this norm to "none"')
    assert not check_compatibility(decode(config | {"batch": 4}), (2,)).refusals


OWN = """
from torch import nn

class G(nn.Module):
    def __init__(self, latent, shape):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(latent, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, shape[0]))
    def forward(self, z):
        return self.layers(z)

class D(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(shape[0], 1)
    def forward(self, x):
        said = self.layer(x)
        assert not self.training or len(x) > 2, "too few"
        return said
"""


@pytest.mark.parametrize(
    ("side", "found"), [("g", "ValueError: Expected more than 1"), ("d", "AssertionError: too few")]
)
def test_user_code_that_needs_two_samples(side: str, found: str, tmp_path: Path, poise: Callable[..., Any]) -> None:
    """`train` and `check` refuse it before anything is written; a batch of two is trained."""
    file, out = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(OWN)
    own = f'network.{side}={{kind="python", file="{file}", name="{side.upper()}"}}'
    words = ["ring", "--trust-code", "--steps", 2, "--set", own, "--set", "measure=none", "--set", "batch=1"]
    for command in (["check"], ["train", "--out", out]):
        result = poise(command[0], *words, *command[1:])
        assert result.code == 2
        assert result.last.startswith("poise: batch: a step fails with one sample in a batch")
        assert found in result.last
        assert "set it to 2 or more" in result.last
    assert not out.exists()
    result = poise("train", *words[:-1], "batch=2", "--out", out)
    assert result.code == 0, result.err


def test_a_larger_batch_is_not_tried(tmp_path: Path) -> None:
    """The trial would cost an additional step."""
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    own = {"kind": "python", "file": str(file), "name": "G"}
    recipe = decode(load_table("ring") | {"batch": 1, "network": load_table("ring")["network"] | {"g": own}})
    allow_user_code(recipe, True)
    compute, loaded = choose_compute("cpu", "fp32", recipe), recipe.data.load()
    with pytest.raises(RecipeError, match="one sample in a batch"):
        check_single_sample_batch(recipe, compute, loaded)
    check_single_sample_batch(recipe.model_copy(update={"batch": 2}), compute, loaded)
