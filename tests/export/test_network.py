"""The plain copy, its inputs, truncation, and layers that draw random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from export.untrained import thin, untrained
from poise.errors import RecipeError
from poise.export.exporter import export_generator
from poise.export.formats import FORMATS, missing_packages
from poise.export.network import ExportedGenerator, GeneratorInputs, is_random, plain_copy, replace_by_means, seeded
from poise.networks.norms import spectral_norm_
from poise.tricks.layers import StochasticLayer

Z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def test_a_plain_copy_has_plain_weights() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.Unflatten(1, (6, 1, 1)), nn.ConvTranspose2d(6, 2, 4))
    spectral_norm_(net)
    net.to(memory_format=torch.channels_last).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    plain = plain_copy(net)
    assert sorted(plain.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert all(
        tensor.is_contiguous() and not tensor.requires_grad for tensor in plain.state_dict(keep_vars=True).values()
    )
    assert net.training
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    torch.testing.assert_close(plain(Z), net.eval()(Z))


class Truncating(nn.Module):
    """w to mean + F (w - mean), as in StyleGAN."""

    takes_truncation: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.truncation: float | Tensor = 1.0
        self.register_buffer("mean", torch.tensor([1.0, 2.0]))

    def forward(self, w: Tensor) -> Tensor:
        if isinstance(self.truncation, Tensor) or self.truncation != 1:
            return self.mean.lerp(w, self.truncation)
        return w


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_truncation_is_an_input_of_a_network_that_can_truncate(form: str, tmp_path: Path) -> None:
    if missing_packages(form):
        pytest.skip("the extra 'export' is not installed")
    net = nn.Sequential(nn.Linear(3, 2), Truncating())
    generator = ExportedGenerator(net).eval()
    assert (generator.takes_labels, generator.takes_truncation) == (False, True)
    assert torch.equal(generator(Z), net(Z))
    assert torch.equal(generator(Z, truncation=torch.tensor(0.0)), torch.tensor([[1.0, 2.0]]).expand(4, 2))
    assert net[1].truncation == 1.0

    class NoDescription:
        is_image = False

        def as_text(self) -> dict[str, str]:
            return {"generator": "poise"}

    inputs = GeneratorInputs(Z, truncation=torch.tensor(0.5))
    data = FORMATS[form].encode(generator, inputs, NoDescription())  # type: ignore[arg-type]
    generate = FORMATS[form].open(data, tmp_path)
    for strength in (0.0, 0.25, 1.0):
        found = generate(GeneratorInputs(Z[:2], truncation=torch.tensor(strength)))
        torch.testing.assert_close(found, generator(Z[:2], truncation=torch.tensor(strength)).detach())


NOISY: dict[str, Any] = {"tricks": [{"kind": "layer_noise", "sigma": 0.5}, {"kind": "standing_dropout"}]}
FADED: dict[str, Any] = {"tricks": [{"kind": "layer_noise", "sigma": {"kind": "linear", "start": 0.5, "end": 0.0}}]}


def test_random_layers_are_kept_by_safetensors(tmp_path: Path) -> None:
    run = untrained(thin("ring", **NOISY), tmp_path)
    export = export_generator(run, "safetensors")
    assert export.description.random_layers == "kept"
    assert export.comparison.difference == 0
    assert ["draws random numbers" in note for note in export.notes] == [True]


@pytest.mark.parametrize("form", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_random_layers_of_graphs_take_their_numbers_from_an_input(form: str, tmp_path: Path) -> None:
    if missing_packages(form):
        pytest.skip("the extra 'export' is not installed")
    run = untrained(thin("ring", **NOISY), tmp_path)
    export = export_generator(run, form)
    assert (export.inputs, export.description.random_layers) == (("latents", "noise"), "given as the input noise")
    assert [f"{export.description.noise_dim:,} numbers from N(0, 1)" in note for note in export.notes] == [True]
    layers = [module for module in run.generator().modules() if isinstance(module, StochasticLayer)]
    widths = [module.out_features for module in run.generator().modules() if isinstance(module, nn.Linear)][:-1]
    assert export.description.noise_dim == 2 * sum(widths)
    assert len(layers) == 2 * len(widths)
    generate = FORMATS[form].open(export.data, tmp_path)
    latents = run.latents(1).expand(4000, -1)
    numbers = torch.randn(4000, export.description.noise_dim, generator=torch.Generator().manual_seed(5))
    samples = generate(GeneratorInputs(latents, noise=numbers))
    assert torch.equal(samples, generate(GeneratorInputs(latents, noise=numbers)))
    with torch.no_grad(), seeded(0):
        drawn = run.generator()(latents)
    spread = drawn.std(0)
    assert spread.min() > 0
    torch.testing.assert_close(samples.mean(0), drawn.mean(0), rtol=0, atol=float(0.1 * spread.min()))
    torch.testing.assert_close(samples.std(0), spread, rtol=0.1, atol=0)


def test_noise_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    run = untrained(thin("ring", **NOISY), tmp_path)
    generator = ExportedGenerator(plain_copy(run.generator())).eval()
    inputs = GeneratorInputs(run.latents(3))
    with pytest.raises(RecipeError, match=r"does not fit.*found B x 5.*none: its layers draw"):
        generator(inputs.latents, noise=torch.zeros(3, 5))
    generator.take_noise_as_input(inputs)
    with pytest.raises(RecipeError, match=rf"found B x 5.*give B x {generator.noise_dim}"):
        generator(inputs.latents, noise=torch.zeros(3, 5))


class RandomShift(nn.Module):
    """A random layer that knows nothing of exports."""

    def forward(self, z: Tensor) -> Tensor:
        return z + torch.randn(z.shape[0], 1)


def test_a_random_layer_that_takes_no_noise_is_refused_by_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = untrained(thin("ring", tricks=[]), tmp_path)
    net = nn.Sequential(nn.Linear(run.recipe.latent.dim, 2), RandomShift())
    monkeypatch.setattr(type(run), "generator", lambda self, raw=False: net)
    with pytest.raises(RecipeError, match=r"draws random numbers.*--format safetensors keeps them"):
        export_generator(run, "pt2")


@pytest.mark.parametrize("form", ["safetensors", "pt2"])
def test_random_layers_are_replaced_by_their_means(form: str, tmp_path: Path) -> None:
    run = untrained(thin("ring", **NOISY), tmp_path)
    export = export_generator(run, form, no_noise=True)
    assert export.description.random_layers == "replaced by their means"
    assert ["replaced by the mean" in note for note in export.notes] == [True]
    candidate = FORMATS[form].open(export.data, tmp_path)
    inputs = GeneratorInputs(run.latents(6))
    assert torch.equal(candidate(inputs), candidate(inputs))
    draws = torch.stack([run.generator()(inputs.latents).detach() for _ in range(50)])
    assert draws.std(0).min() > 0  # the run's own network still draws
    plain = plain_copy(run.generator())
    assert replace_by_means(plain) > 0
    assert not any(isinstance(module, StochasticLayer) for module in plain.modules())
    torch.testing.assert_close(candidate(inputs), plain(inputs.latents))


def test_noise_that_has_faded_is_no_obstacle(tmp_path: Path) -> None:
    run = untrained(thin("ring", **FADED), tmp_path)
    for module in run.generator().modules():
        if isinstance(module, StochasticLayer):
            module.strength_reached.fill_(0.0)
    export = export_generator(run, "pt2")
    assert (export.description.random_layers, export.notes) == ("none", [])
    assert export.comparison.passed


def test_randomness_is_noticed_and_the_global_state_is_kept() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    assert is_random(ExportedGenerator(nn.Dropout(0.5).train()), GeneratorInputs(Z))
    assert not is_random(ExportedGenerator(nn.Dropout(0.5).eval()), GeneratorInputs(Z))
    with seeded(1):
        torch.rand(3)
    assert torch.equal(before, torch.random.get_rng_state())
