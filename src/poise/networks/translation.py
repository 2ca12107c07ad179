"""Which part of a sample each network reads, where a sample is one image (or vector) of each of two domains a and b.

The domains are stacked along the first dimension of a sample: `parts` = (1, 3) is a grey image a on top of a colour
image b. Translators and discriminators are ordinary modules; the modules of this file select their parts and put the
results together, so that a game has one G and one D whatever happens inside.

`network.direction`, for G, whose input has the shape of a sample:

    a_to_b       (a, b) to (a, G(a)): pix2pix, SimGAN
    both_ways    (a, b) to (G_BA(b), G_AB(a)), with two networks: CycleGAN
    same         x to G(x): data with one part

`network.judges`, for D:

    all          the whole sample: the D of pix2pix, which sees the source beside the target (the default)
    b            the target alone
    each         D_A(a) and D_B(b), two networks, with their scores side by side as patches: CycleGAN

A pack of m samples (the trick `packing`) is m samples on top of each other, of which the same parts are read.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from poise.core.types import DiscriminatorOutput, Shape
from poise.errors import RecipeError
from poise.networks.base import DiscriminatorConfig, TranslatorConfig
from poise.networks.conditioning import GeneratorConditioning

Direction = Literal["a_to_b", "both_ways", "same"]
Judges = Literal["all", "b", "each"]
Parts = tuple[int, ...]
Domain = Literal["a", "b"]

DOMAINS: tuple[Domain, ...] = ("a", "b")
"""The names of the domains, in the order of the parts."""

TRANSLATED: dict[Direction, tuple[int, ...]] = {"a_to_b": (1,), "both_ways": (0, 1), "same": (0,)}
"""The domains, as indices of parts, whose images G generates."""


def split_parts(samples: Tensor, parts: Parts) -> list[Tensor]:
    """The images of each domain, B x C_k x ..., of samples, B x sum(C_k) x ..., or of packs of m: B x m C_k x ... ."""
    if samples.shape[1] == sum(parts):
        return list(samples.split(parts, 1))
    packed = samples.unflatten(1, (-1, sum(parts)))
    return [part.flatten(1, 2) for part in packed.split(parts, 2)]


def swap_domains(samples: Tensor, parts: Parts) -> Tensor:
    """(b, a) of (a, b): the input with which a G of both directions maps each image to its own domain."""
    a, b = split_parts(samples, parts)
    return torch.cat((b, a), 1)


def part_shapes(shape: Shape, parts: Parts) -> list[Shape]:
    """The shape of each domain's image in a sample, or in a pack of samples, of `shape`."""
    pack = shape[0] // sum(parts)
    return [(pack * part, *shape[1:]) for part in parts]


class GeneratedPart(NamedTuple):
    """The part of a sample that G generated: what is measured, and written to files.

    Attributes:
        parts: the number of channels of each domain in a sample; fewer than two if all of it was generated.
        index: the domain, as an index of `parts`.
    """

    parts: Parts = ()
    index: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole sample."""
        return len(self.parts) < 2

    @property
    def domain(self) -> Domain:
        """The name of the domain."""
        return DOMAINS[self.index]

    @property
    def source_index(self) -> int:
        """The domain that it was generated from, as an index of `parts`."""
        return 0 if self.is_whole else 1 - self.index

    def of(self, samples: Tensor) -> Tensor:
        """The part of samples, B x shape."""
        return samples if self.is_whole else split_parts(samples, self.parts)[self.index]

    def source_of(self, starts: Tensor) -> Tensor:
        """The images that it was generated from, of the samples that G started from."""
        return starts if self.is_whole else split_parts(starts, self.parts)[self.source_index]

    def shape_of(self, shape: Shape) -> Shape:
        """Its shape in a sample of `shape`."""
        return shape if self.is_whole else part_shapes(shape, self.parts)[self.index]

    def source_shape_of(self, shape: Shape) -> Shape:
        """The shape of the images that it was generated from, for samples of `shape`."""
        return shape if self.is_whole else part_shapes(shape, self.parts)[self.source_index]


def generated_part(
    direction: Direction | None, parts: Parts, domain: Domain | None = None, where: str = "--domain"
) -> GeneratedPart:
    """The part of a sample that G generated in a domain.

    Args:
        direction: the direction of G; None if it does not translate.
        parts: the number of channels of each domain in a sample.
        domain: the domain; by default b if G generates it, otherwise everything.
        where: what an error names.

    Raises:
        RecipeError: there is no such domain, or G generates no images of it.
    """
    if domain is not None and domain not in DOMAINS:
        raise RecipeError("there is no such domain", where=where, found=f"'{domain}'", cure="a or b")
    if direction is None or direction == "same":
        if domain is not None:
            what = "samples of this generator are of one domain"
            raise RecipeError(what, where=where, found=domain, cure="leave it out")
        return GeneratedPart()
    index = DOMAINS.index(domain or "b")
    if index not in TRANSLATED[direction]:
        what = "this generator translates from a to b and generates no images of a"
        raise RecipeError(what, where=where, found=str(domain), cure="leave it out")
    return GeneratedPart(parts, index)


def generated_parts(direction: Direction | None, parts: Parts) -> list[GeneratedPart]:
    """All parts of a sample that G generated, one per domain."""
    if direction is None or direction == "same":
        return [GeneratedPart()]
    return [GeneratedPart(parts, index) for index in TRANSLATED[direction]]


class TranslateAToB(nn.Module):
    """(a, b) to (a, G(a)), or to (a, G(a, y)) if G takes labels."""

    def __init__(self, net: nn.Module, parts: Parts) -> None:
        super().__init__()
        self.net, self.parts, self.takes_labels = net, parts, getattr(net, "takes_labels", False)

    def forward(self, samples: Tensor, *labels: Tensor) -> Tensor:
        """B x shape to the same shape."""
        a, _ = split_parts(samples, self.parts)
        return torch.cat((a, self.net(a, *labels)), 1)


class OnePerDomain(nn.Module):
    """Two networks side by side; what counts layers counts them in each, see `separate_networks`."""

    def __init__(self, networks: dict[str, nn.Module], parts: Parts) -> None:
        super().__init__()
        self.networks, self.parts = nn.ModuleDict(networks), parts


class TranslateBothWays(OnePerDomain):
    """(a, b) to (G_BA(b), G_AB(a))."""

    def forward(self, samples: Tensor) -> Tensor:
        """B x shape to the same shape."""
        a, b = split_parts(samples, self.parts)
        return torch.cat((self.networks["b_to_a"](b), self.networks["a_to_b"](a)), 1)


class JudgeTarget(nn.Module):
    """D(b), with D's features."""

    def __init__(self, net: nn.Module, parts: Parts) -> None:
        super().__init__()
        self.net, self.parts, self.width = net, parts, getattr(net, "width", None)

    def forward(self, samples: Tensor) -> DiscriminatorOutput:
        """The output for B samples."""
        return self.net(split_parts(samples, self.parts)[1])


class JudgeEach(OnePerDomain):
    """D_A(a) and D_B(b): scores, B x (P_A + P_B), and the features of both, if both have some, one after the other."""

    def __init__(self, networks: dict[str, nn.Module], parts: Parts) -> None:
        super().__init__(networks, parts)
        widths = [width for net in networks.values() if isinstance(width := getattr(net, "width", None), int)]
        self.width = sum(widths) if len(widths) == len(networks) else None

    def forward(self, samples: Tensor) -> DiscriminatorOutput:
        """The output for B samples."""
        images = split_parts(samples, self.parts)
        outputs = [self.networks[name](part) for name, part in zip("ab", images, strict=True)]
        score = torch.cat([output.score.reshape(len(output.score), -1) for output in outputs], 1)
        features = [output.features for output in outputs]
        return DiscriminatorOutput(score, None if self.width is None else torch.cat(features, 1))


class OneTranslation(nn.Module):
    """The translation to one domain that a G of two does: from images of the other, B x C x H x W.

    Args:
        net: G, for whole samples; the part that it does not read is blank.
        part: the domain.
    """

    def __init__(self, net: nn.Module, part: GeneratedPart) -> None:
        super().__init__()
        self.net, self.part, self.takes_labels = net, part, getattr(net, "takes_labels", False)

    def forward(self, images: Tensor, *labels: Tensor) -> Tensor:
        """The translated images."""
        blank = images.new_zeros(len(images), self.part.parts[self.part.index], *images.shape[2:])
        halves = (blank, images) if self.part.index == 0 else (images, blank)
        return self.part.of(self.net(torch.cat(halves, 1), *labels))


def translator_to(net: nn.Module, part: GeneratedPart) -> nn.Module:
    """The network of a G that maps images of one domain to those of the other, `part`."""
    if part.is_whole:
        return net
    if isinstance(net, TranslateBothWays):
        return net.networks["b_to_a" if part.domain == "a" else "a_to_b"]
    return net.net if isinstance(net, TranslateAToB) and part.domain == "b" else OneTranslation(net, part)


def build_translation(
    config: TranslatorConfig,
    direction: Direction,
    shape: Shape,
    parts: Parts,
    conditioning: GeneratorConditioning | None = None,
    num_classes: int = 0,
) -> nn.Module:
    """The G of `config` and `direction`, B x shape to the same shape, with initial weights from the global generator.

    Args:
        config: the translator.
        direction: see above.
        shape: the shape of a sample.
        parts: the number of channels (or vector entries) of each domain; not used by `same`.
        conditioning: how G is conditioned on the label, if it translates one way; None if it is not.
        num_classes: the number of classes.
    """

    def translator(in_shape: Shape, out_shape: Shape) -> nn.Module:
        if conditioning is None:
            return config.build_translator_layers(in_shape, out_shape)
        net = config.build_translator_layers(conditioning.input_shape(in_shape), out_shape)
        return conditioning.wrap(net, num_classes)

    if direction == "same":
        return translator(shape, shape)
    a, b = part_shapes(shape, parts)
    if direction == "a_to_b":
        return TranslateAToB(translator(a, b), parts)
    return TranslateBothWays({"a_to_b": translator(a, b), "b_to_a": translator(b, a)}, parts)


def build_judges(config: DiscriminatorConfig, judges: Judges, shape: Shape, parts: Parts) -> nn.Module:
    """The D of `config` and `judges` for samples, or packs of samples, of `shape`; see `build_translation`."""
    if judges == "all":
        return config.build_layers(shape)
    a, b = part_shapes(shape, parts)
    if judges == "b":
        return JudgeTarget(config.build_layers(b), parts)
    return JudgeEach({"a": config.build_layers(a), "b": config.build_layers(b)}, parts)


def separate_networks(net: nn.Module) -> list[nn.Module]:
    """The two networks inside `net` if it has one per domain, otherwise `net` itself."""
    for module in net.modules():
        if isinstance(module, OnePerDomain):
            return list(module.networks.values())
    return [net]


def judge_of_domain(d: nn.Module, part: GeneratedPart) -> nn.Module | None:
    """The discriminator that judges this part of a sample alone, as a network of its own; None if `d` has none."""
    if part.is_whole:
        return d
    if isinstance(d, JudgeEach):
        return d.networks[part.domain]
    return d.net if isinstance(d, JudgeTarget) and part.domain == "b" else None
