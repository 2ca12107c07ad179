"""A G that starts from images, as a function that translates them."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import Shape
from poise.data.config import ImageDataConfig
from poise.data.fit import TargetFormat
from poise.errors import RecipeError
from poise.networks.base import TranslatorConfig
from poise.networks.translation import DOMAINS, GeneratedPart, Parts, translator_to
from poise.recipe.model import Recipe
from poise.runs.generate import generate
from poise.utils.printing import count_noun

OneDirection = Literal["a_to_b", "b_to_a"]
ONE_DIRECTION: tuple[OneDirection, ...] = ("a_to_b", "b_to_a")
AnyDirection = Literal["a_to_b", "b_to_a", "same"]


class Translator:
    """A G that starts from images, as a function of images.

    Layers that draw random numbers when G generates, such as the dropout of pix2pix (tip T18), keep doing so.

    Args:
        net: G.
        recipe: its recipe.
        shape: the shape of a sample.
        parts: the number of channels of each domain in a sample.
        direction: of a G that translates both ways, `a_to_b` (the default) or `b_to_a`.
        label: the label of all images; None if G takes none.

    Attributes:
        direction: `a_to_b` or `b_to_a`, or `same` for a G that translates within one domain.

    Raises:
        RecipeError: G does not start from samples of the data, or does not translate in this direction.
    """

    def __init__(
        self,
        net: nn.Module,
        recipe: Recipe,
        shape: Shape,
        parts: Parts,
        direction: OneDirection | None = None,
        label: int | None = None,
    ) -> None:
        self.recipe, self.label = recipe, label
        self.direction = _direction(recipe, direction)
        self.part = part_of(self.direction, parts)
        self.in_shape = self.part.source_shape_of(shape)
        self.net = translator_to(net, self.part)

    @property
    def data_size(self) -> tuple[int, int]:
        """Height and width of the data's images."""
        return self.in_shape[1], self.in_shape[2]

    @property
    def format(self) -> TargetFormat:
        """The format that images are converted to, apart from their size."""
        data = self.recipe.data
        assert isinstance(data, ImageDataConfig)
        return data.target_format(self.in_shape[0])._replace(size=self.data_size)

    def keeps_size(self, size: tuple[int, int]) -> bool:
        """Whether an image of this height and width is translated at its own size."""
        config = self.recipe.network.g
        assert isinstance(config, TranslatorConfig)
        return config.translates_size(self.in_shape, size)

    @property
    def size_multiple(self) -> int | None:
        """See `TranslatorConfig.size_multiple`."""
        config = self.recipe.network.g
        assert isinstance(config, TranslatorConfig)
        return config.size_multiple(self.in_shape)

    @property
    def least_size(self) -> int | None:
        """See `TranslatorConfig.least_size`."""
        config = self.recipe.network.g
        assert isinstance(config, TranslatorConfig)
        return config.least_size(self.in_shape)

    @cached_property
    def is_random(self) -> bool:
        """Whether two translations of an image differ, because layers draw random numbers."""
        noise = torch.randn(2, *self.in_shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
        return not torch.equal(self(noise, 0), self(noise, 1))

    def __call__(self, images: Tensor, seed: int = 0, number: int = 0) -> Tensor:
        """The translations of images, B x C x H x W in [-1, 1], B x C' x H x W.

        Args:
            images: all of one size, see `keeps_size`.
            seed: the seed of layers that draw random numbers.
            number: the number of the batch, for the same.

        Raises:
            RecipeError: the images are integers, or have another number of channels, or a size that the network can't
                translate.
        """
        check_sources(images, self.recipe, self.in_shape, "images")
        labels = None if self.label is None else torch.full((len(images),), self.label)
        streams = RandomStreams(seed)
        block = max(1, len(images))
        return generate(self.net, images.float(), labels, streams=streams, block=block, first_block=number)


def check_sources(sources: Tensor, recipe: Recipe, shape: Shape, where: str) -> None:
    """Refuse what is no batch of images, or of vectors, that a G can start from.

    Args:
        sources: what it is given.
        recipe: the recipe of G.
        shape: the shape of a source in the data.
        where: the name of the argument, for messages.

    Raises:
        RecipeError: they are integers, or have another number of dimensions or channels, or a size that the network
            can't translate.
    """
    config = recipe.network.g
    assert isinstance(config, TranslatorConfig)
    noun = "images" if len(shape) == 3 else "vectors"
    if not sources.is_floating_point():
        found = str(sources.dtype).removeprefix("torch.")
        what = "images must be numbers in [-1, 1]" if noun == "images" else "vectors must be floating-point numbers"
        cure = "convert uint8 from 0 to 255: images.float() / 127.5 - 1" if noun == "images" else "convert them"
        raise RecipeError(what, where=where, found=found, cure=cure)
    _, *found_shape = sources.shape or (0,)
    fits = len(found_shape) == len(shape) and found_shape[0] == shape[0]
    if fits and len(shape) == 3:
        fits = config.translates_size(shape, (found_shape[1], found_shape[2]))
    if not fits:
        cure = f"use B x {' x '.join(map(str, shape))}, like the data"
        sizes = sizes_in_words(config.size_multiple(shape), config.least_size(shape)) if noun == "images" else ""
        cure += f"; {sizes}" if sizes else ""
        found = " x ".join(map(str, sources.shape)) or "a scalar"
        raise RecipeError(f"{noun} of this shape can't be translated", where=where, found=found, cure=cure)


def sizes_in_words(multiple: int | None, least: int | None) -> str:
    """Which heights and widths of images a network translates, as a clause; empty if only those of the data.

    Args:
        multiple: see `TranslatorConfig.size_multiple`; None or 0 if they must be those of the data.
        least: see `TranslatorConfig.least_size`.
    """
    if not multiple:
        return ""
    which = "anything" if multiple == 1 else f"any multiples of {multiple}"
    return f"height and width may be {which} from {count_noun(least or 1, 'pixel')} on"


def part_of(direction: AnyDirection, parts: Parts) -> GeneratedPart:
    """The part of a sample that is generated by translating in this direction."""
    return (
        GeneratedPart()
        if direction == "same"
        else GeneratedPart(parts, DOMAINS.index("a" if direction == "b_to_a" else "b"))
    )


def _direction(recipe: Recipe, asked: OneDirection | None) -> AnyDirection:
    """The direction in which images are translated.

    Raises:
        RecipeError: G does not translate, or not in this direction, or there is no such direction.
    """
    known = recipe.network.direction
    if asked not in (None, *ONE_DIRECTION):
        cure = f"a_to_b or b_to_a{', or leave it out' if known != 'both_ways' else ''}"
        raise RecipeError("there is no such direction", where="--direction", found=f"'{asked}'", cure=cure)
    if known is None:
        what = "this run's generator starts from noise, not from images"
        recipes = "pix2pix, cyclegan, simgan and semi-adversarial"
        cure = f"sample from it: poise sample RUN; recipes that translate are {recipes}"
        raise RecipeError(what, where="network.g", found=f"'{recipe.network.g.tag()}'", cure=cure)
    if known == "same":
        if asked is not None:
            what = "this generator translates within one domain"
            raise RecipeError(what, where="--direction", found=asked, cure="leave it out")
        return "same"
    if known == "a_to_b" and asked == "b_to_a":
        what = "this generator translates from a to b only"
        cure = "train one that translates both ways, such as the recipe cyclegan, or exchange a and b in the data"
        raise RecipeError(what, where="--direction", found=asked, cure=cure)
    return asked or "a_to_b"
