"""The network that is exported: a plain copy of a run's generator, with named inputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from poise.errors import RecipeError
from poise.networks.base import call_network
from poise.networks.noise_input import NoiseInput, take_noise_as_input_
from poise.tricks.layers import StochasticLayer
from poise.truncation import truncated_layers, truncating_layers

SOURCE = "source"
"""The name of the input of a generator that starts from images."""


class ImageSizes(NamedTuple):
    """The heights and widths of images that a generator translates: multiples of `multiple`, from `least` on."""

    multiple: int
    least: int


class GeneratorInputs(NamedTuple):
    """The inputs of a generator.

    Attributes:
        latents: float32, B x dim; the images, B x C x H x W, of a G that starts from images.
        labels: int64, B; None if the generator is not conditional.
        truncation: float32, 0-dim: 1 for none, less for nearer to the mean; None if the network can't be truncated.
        noise: float32, B x the numbers that the layers of one sample draw, each from N(0, 1); None if the layers draw
            them themselves, or none draws any.
        first: the name of the first input.
        sizes: the heights and widths that the images may have; None if they have one size, and for latents.
    """

    latents: Tensor
    labels: Tensor | None = None
    truncation: Tensor | None = None
    noise: Tensor | None = None
    first: str = "latents"
    sizes: ImageSizes | None = None

    @property
    def positional(self) -> tuple[Tensor, ...]:
        """The latents and, if there are any, the labels."""
        return (self.latents,) if self.labels is None else (self.latents, self.labels)

    @property
    def by_keyword(self) -> dict[str, Tensor]:
        """The truncation and the noise, which are passed by keyword because labels may be absent before them."""
        inputs = {"truncation": self.truncation, "noise": self.noise}
        return {name: value for name, value in inputs.items() if value is not None}

    @property
    def named(self) -> dict[str, Tensor]:
        """All inputs that there are, by name and in order."""
        inputs = {self.first: self.latents, "labels": self.labels} | self.by_keyword
        return {name: value for name, value in inputs.items() if value is not None}


class ExportedGenerator(nn.Module):
    """A generator with the inputs that every export has: `generator(latents[, labels][, truncation=F][, noise=E])`.

    The output is float32, B x shape: images in [-1, 1], or points.

    A layer that truncates declares `takes_truncation = True` and reads the strength from its attribute `truncation`,
    which may be a number or a 0-dim tensor; a graph can't contain a branch that depends on a tensor. The attribute is
    set for the duration of a call, as the labels of a class-conditional norm are, because the layers in between pass
    on feature maps only. The same goes for the noise, which is an input after `take_noise_as_input`.

    Args:
        net: the network, with an attribute `takes_labels = True` if it needs labels.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self._noise_inputs: list[NoiseInput] = []

    @torch.no_grad()
    def take_noise_as_input(self, example: GeneratorInputs) -> None:
        """Let the layers that draw random numbers take them from the input `noise`; `example` shows how many."""
        inputs = take_noise_as_input_(self.net)
        self(*example.positional, **example.by_keyword)
        self._noise_inputs = [one for one in inputs if one.shape is not None]

    @property
    def noise_dim(self) -> int:
        """How many random numbers the input `noise` has for each sample; 0 if there is no such input."""
        return sum(self._noise_counts())

    def _noise_counts(self) -> list[int]:
        return [math.prod(one.shape or ()) for one in self._noise_inputs]

    @contextmanager
    def _given(self, noise: Tensor | None) -> Iterator[None]:
        """Let the layers use this noise for the duration of a call; None to let them draw it.

        Raises:
            RecipeError: it has not `noise_dim` numbers for each sample, or the layers draw them themselves.
        """
        if noise is None:
            yield
            return
        if not self._noise_inputs or noise.shape[1] != self.noise_dim:
            expected = (
                f"B x {self.noise_dim}" if self._noise_inputs else "none: its layers draw random numbers themselves"
            )
            found = f"B x {noise.shape[1]}"
            raise RecipeError(
                "the noise does not fit this generator", where="noise", found=found, cure=f"give {expected}"
            )
        for one, numbers in zip(self._noise_inputs, noise.split(self._noise_counts(), dim=1), strict=True):
            one.given = numbers
        try:
            yield
        finally:
            for one in self._noise_inputs:
                one.given = None

    @property
    def takes_labels(self) -> bool:
        """Whether the network is conditional on labels."""
        return bool(getattr(self.net, "takes_labels", False))

    @property
    def takes_truncation(self) -> bool:
        """Whether a layer of the network can truncate."""
        return bool(truncating_layers(self.net))

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The samples; without `truncation` the network's own setting is used, without `noise` it is drawn."""
        truncated = nullcontext() if truncation is None else truncated_layers(self.net, truncation)
        with truncated, self._given(noise):
            return call_network(self.net, latents, labels).float()


class ExportedTranslator(ExportedGenerator):
    """A generator that starts from images: `generator(source[, labels])`, with `source`, float32, B x C x H x W."""

    def forward(  # pyrefly: ignore[bad-override-param-name]
        self,
        source: Tensor,
        labels: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The translated images."""
        return super().forward(source, labels, truncation, noise)


def plain_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose state is what a foreign program expects.

    Parametrised weights, such as those with a spectral norm, are replaced by their values, so that the state has one
    entry `weight` per layer. No tensor has a gradient or a channels_last layout, and tensors on other devices are
    copied to the CPU.
    """
    plain = copy.deepcopy(net).eval().requires_grad_(False).cpu()
    for module in list(plain.modules()):
        if is_parametrized(module):
            _remove_parametrizations(module)
    with torch.no_grad():
        for tensor in [*plain.parameters(), *plain.buffers()]:
            tensor.data = tensor.detach().clone(memory_format=torch.contiguous_format)
    return plain.requires_grad_(False)


def _remove_parametrizations(module: nn.Module) -> None:
    """Replace parametrised weights by their values.

    `torch.nn.utils.parametrize.remove_parametrizations` also deletes the property `weight` from the module's class,
    which a copy shares with the original.
    """
    values = {name: getattr(module, name).detach() for name in list(module.parametrizations)}  # type: ignore[arg-type]
    module.__class__ = type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def replace_by_means(net: nn.Module) -> int:
    """Replace each layer that is random in evaluation by its mean, in place.

    Returns:
        The number of layers that were replaced.
    """
    layers = [
        (parent, name, mean)
        for parent in net.modules()
        for name, child in parent.named_children()
        if (mean := mean_layer(child)) is not None
    ]
    for parent, name, mean in layers:
        setattr(parent, name, mean)
    return len(layers)


def mean_layer(layer: nn.Module) -> nn.Module | None:
    """The mean of a layer that is random in evaluation; None for other layers.

    Layer noise, h + sigma eps, and standing dropout, h m / (1 - rate), both have the mean h. Any other layer that draws
    random numbers has a method `mean_layer` that returns the module to use instead, or None if it is not random in
    evaluation.
    """
    if isinstance(layer, StochasticLayer):
        return nn.Identity()
    make = getattr(layer, "mean_layer", None)
    return None if make is None else make()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's global generator with this seed; its state is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def is_random(generator: ExportedGenerator, inputs: GeneratorInputs) -> bool:
    """Whether the generator's output depends on PyTorch's global random numbers."""
    outputs = []
    for seed in (0, 1):
        with seeded(seed):
            outputs.append(generator(*inputs.positional, **inputs.by_keyword))
    return not torch.equal(*outputs)
