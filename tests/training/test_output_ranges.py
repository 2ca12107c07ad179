"""User-defined networks with unsuitable output ranges give a warning; valid and shipped ones don't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.data.source import DataSplits
from poise.latents import Gaussian, Sphere
from poise.networks.base import TranslatorConfig
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table, recipe_names
from poise.training.output_ranges import (
    OutputRange,
    check_output_ranges,
    label_dominates,
    output_range,
    sample_range_warning,
    score_range_warning,
)
from poise.user_code.loading import allow_user_code

SIZE = 8
G_ENDS = {
    "tanh": "nn.Tanh()",
    "hardtanh": "nn.Hardtanh()",
    "linear": "nn.Identity()",
    "clamped": "Do(lambda x: x.clamp(-1, 1))",
    "rescaled": "Do(lambda x: 2 * torch.sigmoid(x) - 1)",
    "sine": "Do(torch.sin)",
}
BAD_G = {
    "sigmoid": ("nn.Sigmoid()", "[0, 1]"),
    "half": ("Do(lambda x: x.tanh() / 2 + 0.5)", "[0, 1]"),
    "clamped from 0": ("nn.Hardtanh(0.0, 1.0)", "[0, 1]"),
    "softmax": ("nn.Softmax(1)", "[0, 1]"),
    "bytes": ("Do(lambda x: 255 * x.sigmoid())", "255"),
    "hundreds": ("Do(lambda x: 100 * x.sigmoid())", "100"),
    "relu": ("nn.ReLU()", "never below 0"),
    "signed bytes": ("Do(lambda x: 127 * (x + 0.5).tanh())", "first samples lie in ["),
}
BAD_D = {
    "sigmoid": ("nn.Sigmoid()", "[0, 1]"),
    "of two": ("Do(lambda x: torch.cat([x, -x], 1).softmax(1)[:, 1])", "[0, 1]"),
    "of one": ("nn.Softmax(1)", "score is 1 for all inputs"),
    "relu": ("nn.Softplus()", "never below 0"),
    "log": ("nn.LogSigmoid()", "never above 0"),
}
MINE = """
import torch
from math import prod
from torch import nn
from poise.core.types import DiscriminatorOutput

class Do(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what
    def forward(self, x):
        return self.what(x)

class G(nn.Module):
    def __init__(self, latent, shape, norm=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(latent, 32), nn.BatchNorm1d(32) if norm else nn.Identity(), nn.ReLU(),
                                    nn.Linear(32, prod(shape)), G_END, nn.Unflatten(1, shape))
    def forward(self, z):
        return self.layers(z)

class D(nn.Module):
    width = 32
    def __init__(self, shape, norm=False, bias=0.0, small=1.0, verdict=False):
        super().__init__()
        self.verdict = verdict
        between = nn.LayerNorm(32) if norm else nn.Identity()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), 32), between, nn.LeakyReLU(0.2))
        self.score = nn.Linear(32, 1)
        nn.init.constant_(self.score.bias, bias)
        with torch.no_grad():
            self.score.weight *= small
        self.end = D_END
    def forward(self, x):
        features = self.trunk(x)
        said = self.end(self.score(features))
        return DiscriminatorOutput(said.flatten(), features) if self.verdict else said
"""


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return decode(load_table("dcgan") | {"data": {"kind": "digits", "size": SIZE}}).data.load()


@pytest.fixture
def own(tmp_path: Path, digits: DataSplits) -> Callable[..., list[str]]:
    """The warnings for a user-defined G, D or both with these output layers; random streams are not used."""

    def look(g: str = "", d: str = "", recipe: str = "dcgan", changes: dict[str, Any] | None = None, **options: Any):
        file = tmp_path / f"mine{len(list(tmp_path.iterdir()))}.py"
        file.write_text(MINE.replace("G_END", g or "nn.Tanh()").replace("D_END", d or "nn.Identity()"))
        result = load_table(recipe) | {"data": {"kind": "digits", "size": SIZE}} | (changes or {})
        for side, end in (("g", g), ("d", d)):
            if end:
                part = {"kind": "python", "file": str(file), "name": side.upper(), "options": options}
                result["network"] = result["network"] | {side: part}
        made: Recipe = decode(result)
        allow_user_code(made, True)
        before = torch.random.get_rng_state()
        found = check_output_ranges(made, digits.train)
        assert torch.equal(before, torch.random.get_rng_state())
        return [f"{one.field}: {one.message}" for one in found]

    return look


@pytest.mark.parametrize("end", G_ENDS.values(), ids=G_ENDS)
@pytest.mark.parametrize("norm", [False, True])
def test_a_valid_g(own: Callable[..., list[str]], end: str, norm: bool) -> None:
    assert own(g=end, norm=norm) == []


@pytest.mark.parametrize(("end", "word"), BAD_G.values(), ids=BAD_G)
def test_a_g_out_of_range(own: Callable[..., list[str]], end: str, word: str) -> None:
    (message,) = own(g=end)
    assert message.startswith("network.g: ")
    assert word in message
    assert "[-1, 1]" in message


@pytest.mark.parametrize(
    "options",
    [{}, {"norm": True}, {"bias": 0.5, "small": 0.01}, {"bias": 0.5, "small": 0.01, "norm": True}, {"verdict": True}],
    ids=str,
)
@pytest.mark.parametrize("recipe", ["dcgan", "hinge-sngan", "wgan", "ring"])
def test_a_valid_d(own: Callable[..., list[str]], options: dict[str, Any], recipe: str) -> None:
    """Also an untrained one whose few scores all lie around 0.5."""
    assert own(d="nn.Identity()", recipe=recipe, **options) == []


@pytest.mark.parametrize(("end", "word"), BAD_D.values(), ids=BAD_D)
@pytest.mark.parametrize("verdict", [False, True])
def test_a_d_without_logits(own: Callable[..., list[str]], end: str, word: str, verdict: bool) -> None:
    (message,) = own(d=end, verdict=verdict)
    assert message.startswith("network.d: ")
    assert word in message
    assert "'non_saturating' needs unbounded scores (logits)" in message


def test_which_objectives_need_logits(own: Callable[..., list[str]]) -> None:
    """Least squares with targets 0 and 1 accepts [0, 1]; objectives that compare scores accept a single sign."""
    assert own(d="nn.Sigmoid()", recipe="lsgan") == []
    for recipe in ("wgan", "hinge-sngan", "dcgan"):
        assert len(own(d="nn.Sigmoid()", recipe=recipe)) == 1
    relativistic = {"objective": {"kind": "relativistic"}}
    assert own(d="nn.Softplus()", changes=relativistic) == []
    assert own(d="nn.Softplus()", recipe="wgan") == []
    assert len(own(d="nn.Sigmoid()", changes=relativistic)) == 1


def test_labels_and_packing(own: Callable[..., list[str]]) -> None:
    result = own(g="nn.Sigmoid()", d="nn.Sigmoid()", recipe="cgan")
    assert [one.split(":")[0] for one in result] == ["network.g", "network.d"]
    packed = {"tricks": [{"kind": "packing", "samples": 2}]}
    assert len(own(d="nn.Sigmoid()", changes=packed)) == 1
    assert own(d="nn.Identity()", changes=packed) == []


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_networks_have_valid_ranges(name: str, digits: DataSplits) -> None:
    """They are not checked in a run, because their classes declare the output; here they are."""
    result = load_table(name)
    points = result["data"]["kind"] in ("ring", "grid")
    shape = (2,) if points else (1, SIZE, SIZE)
    for network in (part for part in result["network"].values() if isinstance(part, dict)):
        network |= {"width": 4} if "width" in network else {}
    recipe = decode(result | ({} if points else {"data": {"kind": "digits", "size": SIZE}}))
    g, d = recipe.network.g, recipe.network.d
    torch.manual_seed(1)
    translates = isinstance(g, TranslatorConfig)
    z = torch.rand(16, *shape) if translates else torch.randn(16, recipe.latent.dim)
    if not points and not g.incompatibility(shape):
        net = g.build_translator(shape, shape) if translates else g.build(recipe.latent.dim, shape, reference=z)
        assert sample_range_warning(output_range(net, lambda net: net(z))) == []
    if d is not None and d.output_kind == "score" and not d.incompatibility(shape):
        x = torch.cat([2 * torch.rand(8, *shape) - 1, torch.randn(8, *shape)])
        net = d.build(shape, reference=x)
        assert score_range_warning(output_range(net, lambda net: net(x).score), "any") == []


def test_non_finite_outputs_give_no_warning() -> None:
    result = output_range(nn.Linear(2, 2), lambda net: torch.tensor([float("nan")]))
    assert score_range_warning(result, "any") == []
    assert sample_range_warning(OutputRange(-1, 1, -1, 1)) == []


def test_check_and_train_print_the_warning(poise: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE.replace("G_END", "nn.Tanh()").replace("D_END", "nn.Sigmoid()"))
    words = ["dcgan", "--trust-code", "--steps", 1, "--set", f"data.size={SIZE}", "--set", "batch=4"]
    words += ["--set", "measure=none", "--set", "network.g.width=4", "--set", "log.sheet=4"]
    words += ["--set", f'network.d={{kind="python", file="{file}", name="D"}}']
    result = poise("check", *words)
    assert result.code == 0, result.err
    assert "all its scores lie in [0, 1]" in result.out.replace("\n", " ")
    result = poise("train", *words, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    assert "network.d: all its scores lie in [0, 1]" in result.err


class LabelScaled(nn.Module):
    """A G in which the label has `loud` times the effect of z."""

    takes_labels = True

    def __init__(self, loud: float) -> None:
        super().__init__()
        self.z, self.label, self.loud = nn.Linear(8, 16), nn.Embedding(4, 16), loud

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.z(latents) + self.loud * self.label(labels)


@pytest.mark.parametrize(("loud", "warned"), [(0.0, False), (1.0, False), (50.0, True)])
def test_a_dominant_label_gives_a_warning(loud: float, warned: bool) -> None:
    torch.manual_seed(0)
    found = label_dominates(LabelScaled(loud).train(), Gaussian(dim=8), 4, RandomStreams(0))
    assert [finding.field for finding in found] == (["latent"] if warned else [])
    quiet = label_dominates(LabelScaled(1.0), Sphere(dim=8, length=0.01), 4, RandomStreams(0))
    assert [finding.field for finding in quiet] == ["latent"], "a very short z is dominated as well"
