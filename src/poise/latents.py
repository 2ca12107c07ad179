"""Latent distributions.

There are four distributions over R^dim (tip T03 recommends a Gaussian or a sphere over a cube), each sampled by a pure
function of (n, dim, generator); codes beside noise (InfoGAN); and the distribution of the data itself, from which
translation between domains starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, PrivateAttr, Strict, model_validator
from torch import Tensor

from poise.core.config import ComponentConfig, reject_value
from poise.core.random_streams import RandomStreams
from poise.errors import RecipeError
from poise.truncation import check_threshold, check_truncation, truncate_gaussian


def gaussian(n: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
    """z ~ N(0, I), n x dim.

    Args:
        n: the number of latents.
        dim: the dimension.
        generator: random numbers, on the device of the latents; by default PyTorch's global generator of the default
            device.

    Raises:
        ValueError: the generator is something else, such as a seed.
    """
    return torch.randn(n, dim, generator=generator, device=_device(generator))


def _device(generator: torch.Generator | None) -> torch.device | None:
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator):
        cure = "for a seed give torch.Generator().manual_seed(seed)"
        raise ValueError(f"the generator must be a torch.Generator, found {generator!r}; {cure}")
    return generator.device


def sphere(n: int, dim: int, generator: torch.Generator | None = None, length: float = 1.0) -> Tensor:
    """z uniform on the sphere of radius `length`, n x dim: normalised Gaussian vectors, scaled; see `gaussian`.

    Raises:
        ValueError: the length is not above 0.
    """
    if not length > 0:
        raise ValueError(f"the length must be above 0, found {length:g}")
    return scale_to_length(gaussian(n, dim, generator), length)


def scale_to_length(codes: Tensor, length: float) -> Tensor:
    """Scale each row of `codes`, n x dim, to the Euclidean norm `length`."""
    unit = torch.nn.functional.normalize(codes, dim=1)
    return unit if length == 1 else unit * length


def uniform(n: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
    """z uniform in the cube [-1, 1]^dim, n x dim (Radford 2015); see `gaussian`."""
    return torch.rand(n, dim, generator=generator, device=_device(generator)).mul_(2).sub_(1)


LARGEST_BELOW_1 = 1 - 2**-24
"""The largest float32 below 1."""


def truncated(n: int, dim: int, generator: torch.Generator | None = None, threshold: float = 2.0) -> Tensor:
    """z ~ N(0, 1) given |z| <= threshold, per coordinate, n x dim (Brock 2019, arXiv:1809.11096, section 3.1).

    Sampled without rejection, by the inverse of the distribution function: z = sqrt(2) erfinv(u erf(t / sqrt 2)) with
    t the threshold and u uniform in [-1, 1]. The generator is as for `gaussian`.

    Raises:
        ValueError: the threshold is not above 0.
    """
    check_threshold(threshold)
    bound = math.erf(threshold / math.sqrt(2))
    u = uniform(n, dim, generator).mul_(bound).clamp_(-LARGEST_BELOW_1, LARGEST_BELOW_1)  # erfinv(-1) is infinite
    return torch.erfinv(u).mul_(math.sqrt(2)).clamp_(-threshold, threshold)


def gaussian_norm_range(dim: int, tail: float = 1e-3) -> tuple[float, float]:
    """The norms between which ||z|| of z ~ N(0, I) lies with probability 1 - 2 `tail`.

    ||z||^2 has a chi-squared distribution with `dim` degrees of freedom, whose quantiles these are: 7.9 to 12.2 for a
    dimension of 100, where the mean is 10.
    """
    from scipy.special import gammaincinv  # sampling does not need scipy

    low, high = (math.sqrt(2 * float(gammaincinv(dim / 2, share))) for share in (tail, 1 - tail))
    return low, high


DrawSamples = Callable[[int, torch.Generator], Tensor]
"""Draws n samples of the data, n x shape, with a generator, on the generator's device."""

DrawBlock = Callable[[int, int, RandomStreams, str], Tensor]
"""Draws samples of the data in an order; see `Latent.block`."""

Dim = Annotated[int, Field(ge=1, le=65536)]


class CodeLayout(NamedTuple):
    """Which columns of a latent are codes: first the categories, as one-hot vectors, then the continuous codes.

    Attributes:
        categories: the number of categories of each discrete code.
        numbers: the number of continuous codes.
    """

    categories: tuple[int, ...]
    numbers: int

    @property
    def size(self) -> int:
        """The number of columns."""
        return sum(self.categories) + self.numbers

    def split(self, codes: Tensor) -> tuple[Tensor, ...]:
        """The columns of each discrete code, n x k, and last those of all continuous ones, of codes, n x `size`."""
        return codes.split([*self.categories, self.numbers], 1)


class Latent(ComponentConfig):
    """The distribution of the generator's input z: the `[latent]` table of a recipe."""

    no_mode: ClassVar[str] = ""
    """Why all latents have the same density, as a clause; empty if they do not."""

    is_space: ClassVar[bool] = True
    """Whether there are latents between any two, so that one can interpolate and search."""

    dim: Dim = 100

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n latents, n x dim, on the generator's device."""
        raise NotImplementedError

    @property
    def in_words(self) -> str:
        """How a latent is drawn, as a clause for a reader who does not have poise."""
        raise NotImplementedError

    @property
    def code_layout(self) -> CodeLayout:
        """The columns that G should make visible (InfoGAN): by default all of them, as continuous codes."""
        return CodeLayout((), self.dim)

    def block(self, number: int, n: int, streams: RandomStreams, stream: str) -> Tensor:
        """The latents n * number to n * number + n - 1 of a sequence, n x dim.

        Args:
            number: the number of the block.
            n: the number of latents in a block.
            streams: the random streams, whose seed and device matter.
            stream: the name of the stream that is the sequence.
        """
        return self.sample(n, streams(stream, number))

    def bind(self, draw: DrawSamples, draw_block: DrawBlock | None = None) -> Self:
        """The distribution with the data that it draws from; itself if it does not depend on data.

        Args:
            draw: draws samples of the data.
            draw_block: draws those of `block`, if not at random.
        """
        return self

    def project(self, codes: Tensor) -> Tensor:
        """Map an encoder's codes, n x dim, to latents of G, also in training: to the sphere, or the codes themselves.

        Codes of the other distributions with a bounded support are not clamped, as a clamp has no gradient.
        """
        return codes

    def to_support(self, latents: Tensor) -> Tensor:
        """Map latents, n x dim, such as those of an interpolation, to the nearest ones in the support.

        A support without bounds changes nothing. Neither does that of codes: between two classes lie mixtures of both.
        """
        return self.project(latents)

    def project_to_typical(self, codes: Tensor) -> Tensor:
        """Map codes, n x dim, to the nearest latents of which the distribution has at least 99.8 %; differentiable.

        By default the nearest ones in the support.
        """
        return self.to_support(codes)

    def truncate(self, latents: Tensor, truncation: float) -> Tensor:
        """Map latents, n x dim, to latents nearer to the mode of the distribution: refused, unless overridden.

        Args:
            latents: samples of the distribution.
            truncation: F, above 0 and at most 1; at 1 the latents themselves are returned.

        Raises:
            RecipeError: F is out of range, or below 1 for a distribution without truncation.
        """
        check_truncation(truncation)
        if truncation == 1:
            return latents
        what = f"latents of kind '{self.tag()}' can't be truncated"
        if self.no_mode:
            what = f"{what}: all of them have the same density, as {self.no_mode}"
        cure = 'train with latent kind "gaussian" or "truncated", or sample without truncation'
        raise RecipeError(what, where="latent.kind", cure=cure)

    @property
    def max_norm(self) -> float:
        """The largest norm in the support; if that is unbounded, the norm that one latent in a thousand exceeds."""
        raise NotImplementedError

    @property
    def std(self) -> float:
        """The standard deviation of one coordinate: the scale for inputs that are concatenated to z."""
        return 1.0


class Gaussian(Latent):
    """z ~ N(0, I)."""

    kind: Literal["gaussian"] = "gaussian"

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See `gaussian`."""
        return gaussian(n, self.dim, generator)

    @property
    def in_words(self) -> str:
        """See `Latent.in_words`."""
        return "each coordinate from N(0, 1)"

    def truncate(self, latents: Tensor, truncation: float) -> Tensor:
        """See `truncate_gaussian`."""
        check_truncation(truncation)
        return truncate_gaussian(latents, truncation)

    @property
    def max_norm(self) -> float:
        """The upper end of `gaussian_norm_range`."""
        return gaussian_norm_range(self.dim)[1]

    def project_to_typical(self, codes: Tensor) -> Tensor:
        """The codes, scaled where their norm is outside `gaussian_norm_range`."""
        low, high = gaussian_norm_range(self.dim)
        norms = codes.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return codes * (norms.clamp(low, high) / norms)


class Sphere(Latent):
    """z uniform on a sphere of radius `length`; "sqrt_dim" gives each coordinate variance 1 (StyleGAN's z)."""

    no_mode: ClassVar[str] = "they lie on a sphere"

    kind: Literal["sphere"] = "sphere"
    length: Annotated[float, Field(gt=0)] | Literal["sqrt_dim"] = 1.0

    @property
    def radius(self) -> float:
        """The radius as a number."""
        return math.sqrt(self.dim) if isinstance(self.length, str) else self.length

    @property
    def max_norm(self) -> float:
        """The radius."""
        return self.radius

    @property
    def std(self) -> float:
        """radius / sqrt(dim)."""
        return self.radius / math.sqrt(self.dim)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See `sphere`."""
        return sphere(n, self.dim, generator, self.radius)

    @property
    def in_words(self) -> str:
        """See `Latent.in_words`."""
        return f"each coordinate from N(0, 1), then scaled to the Euclidean norm {self.radius:g}"

    def project(self, codes: Tensor) -> Tensor:
        """The codes, scaled to the radius."""
        return scale_to_length(codes, self.radius)


class Uniform(Latent):
    """z uniform in the cube [-1, 1]^dim."""

    no_mode: ClassVar[str] = "they are uniform in a cube"

    kind: Literal["uniform"] = "uniform"

    @property
    def max_norm(self) -> float:
        """That of a corner, sqrt(dim)."""
        return math.sqrt(self.dim)

    @property
    def std(self) -> float:
        """1 / sqrt(3)."""
        return 1 / math.sqrt(3)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See `uniform`."""
        return uniform(n, self.dim, generator)

    @property
    def in_words(self) -> str:
        """See `Latent.in_words`."""
        return "each coordinate uniform in [-1, 1]"

    def to_support(self, latents: Tensor) -> Tensor:
        """The latents, clamped to the cube."""
        return latents.clamp(-1, 1)


class Truncated(Latent):
    """z ~ N(0, 1) given |z| <= `threshold`, per coordinate."""

    kind: Literal["truncated"] = "truncated"
    threshold: float = Field(default=2.0, gt=0)

    @property
    def max_norm(self) -> float:
        """That of a corner, threshold sqrt(dim)."""
        return self.threshold * math.sqrt(self.dim)

    @property
    def std(self) -> float:
        """sqrt(1 - 2 t phi(t) / (2 Phi(t) - 1)) for the threshold t, with the normal density phi and cdf Phi."""
        t = self.threshold
        density = math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        return math.sqrt(max(0.0, 1 - 2 * t * density / math.erf(t / math.sqrt(2))))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See `truncated`."""
        return truncated(n, self.dim, generator, self.threshold)

    @property
    def in_words(self) -> str:
        """See `Latent.in_words`."""
        return f"each coordinate from N(0, 1), redrawn until within +-{self.threshold:g}"

    def truncate(self, latents: Tensor, truncation: float) -> Tensor:
        """F z: the threshold becomes F times as large."""
        check_truncation(truncation)
        return truncation * latents

    def to_support(self, latents: Tensor) -> Tensor:
        """The latents, clamped to the threshold."""
        return latents.clamp(-self.threshold, self.threshold)


def codes(n: int, layout: CodeLayout, generator: torch.Generator) -> Tensor:
    """Uniform categories as one-hot vectors, and continuous codes, uniform in [-1, 1]; n x layout.size (Chen 2016)."""
    chosen = [torch.randint(k, (n,), generator=generator, device=generator.device) for k in layout.categories]
    one_hot = [
        torch.nn.functional.one_hot(c, k).to(torch.float32) for c, k in zip(chosen, layout.categories, strict=True)
    ]
    return torch.cat((*one_hot, uniform(n, layout.numbers, generator)), 1)


def _columns(start: int, count: int) -> str:
    """The subject of a clause on some columns of a latent, counted from 0, with its verb."""
    return f"column {start} is" if count == 1 else f"columns {start} to {start + count - 1} are"


class Codes(Latent):
    """Codes and noise (InfoGAN: Chen et al. 2016, arXiv:1606.03657): `dim` coordinates in all.

    First come the discrete codes, a uniform category each, as one-hot vectors of the lengths in `categories`; then
    `continuous` more, uniform in [-1, 1]; the others are N(0, 1). The paper has 62 coordinates of noise on MNIST.
    """

    kind: Literal["codes"] = "codes"
    dim: Dim = 74
    categories: Annotated[tuple[Annotated[int, Field(ge=2, le=10_000)], ...], Strict(False)] = (10,)
    continuous: int = Field(default=2, ge=0, le=65536)

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        size = self.code_layout.size
        if not size:
            reject_value("there are no codes", key="categories", cure='use latent kind "gaussian"')
        if size > self.dim:
            reject_value(f"the codes alone have {size} coordinates", key="dim", found=str(self.dim))
        return self

    @property
    def code_layout(self) -> CodeLayout:
        """See the class."""
        return CodeLayout(self.categories, self.continuous)

    @property
    def in_words(self) -> str:
        """See `Latent.in_words`; says which columns are what."""
        clauses, start = list[str](), 0
        for size, same in groupby(self.categories):
            count = len(list(same))
            what = f"{count} one-hot vectors of {size} columns each" if count > 1 else "a one-hot vector"
            clauses.append(f"{_columns(start, size * count)} {what} (1 in a column at random, 0 in the others)")
            start += size * count
        for count, what in ((self.continuous, "uniform in [-1, 1]"), (self.num_noise, "from N(0, 1)")):
            clauses += [f"{_columns(start, count)} {what}"] if count else []
            start += count
        return "; ".join(clauses)

    @property
    def num_noise(self) -> int:
        """The number of coordinates that are noise."""
        return self.dim - self.code_layout.size

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See `codes` and `gaussian`."""
        return torch.cat((codes(n, self.code_layout, generator), gaussian(n, self.num_noise, generator)), 1)

    def truncate(self, latents: Tensor, truncation: float) -> Tensor:
        """The noise is truncated, see `truncate_gaussian`; the codes stay as they are.

        Raises:
            RecipeError: F is out of range, or below 1 for latents without noise.
        """
        check_truncation(truncation)
        if truncation < 1 and not self.num_noise:
            what = f"latents of kind '{self.tag()}' can't be truncated here: all {self.dim} coordinates are codes"
            cure = "train with a larger dim, whose other coordinates are noise, or sample without truncation"
            raise RecipeError(what, where="latent.dim", cure=cure)
        size = self.code_layout.size
        return torch.cat((latents[:, :size], truncate_gaussian(latents[:, size:], truncation)), 1)

    @property
    def max_norm(self) -> float:
        """That of the largest codes with noise at the upper end of `gaussian_norm_range`."""
        noise = gaussian_norm_range(self.num_noise)[1] if self.num_noise else 0.0
        return math.sqrt(len(self.categories) + self.continuous + noise**2)

    def project_to_typical(self, codes: Tensor) -> Tensor:
        """The nearest categories, with the gradient of the codes; continuous codes clamped; noise as a Gaussian's."""
        size = self.code_layout.size
        *discrete, numbers = self.code_layout.split(codes[:, :size])
        nearest = [torch.nn.functional.one_hot(part.argmax(1), part.shape[1]).to(part.dtype) for part in discrete]
        held = [vertex + (part - part.detach()) for part, vertex in zip(discrete, nearest, strict=True)]
        noise = codes[:, size:]
        if self.num_noise:
            noise = Gaussian(dim=self.num_noise).project_to_typical(noise)
        return torch.cat((*held, numbers.clamp(-1, 1), noise), 1)


class SourceLatent(Latent):
    """G starts from a random sample of the data, B x shape, as in translation between images; it has no dimension.

    It must be bound to the data (`bind`) before it can be sampled.
    """

    no_mode: ClassVar[str] = "they are samples of the data"
    is_space: ClassVar[bool] = False

    kind: Literal["source"] = "source"
    dim: Literal[0] = Field(default=0, exclude=True)  # pyrefly: ignore[bad-override]
    _draw: DrawSamples | None = PrivateAttr(default=None)
    _draw_block: DrawBlock | None = PrivateAttr(default=None)

    def bind(self, draw: DrawSamples, draw_block: DrawBlock | None = None) -> Self:
        """See `Latent.bind`."""
        bound = self.model_copy()
        bound._draw, bound._draw_block = draw, draw_block
        return bound

    def block(self, number: int, n: int, streams: RandomStreams, stream: str) -> Tensor:
        """See `Latent.block`."""
        draw_block = self._draw_block
        if draw_block is None:
            return super().block(number, n, streams, stream)
        return draw_block(number, n, streams, stream)

    def truncate(self, latents: Tensor, truncation: float) -> Tensor:
        """Samples of the data can't be nearer to a mode.

        Raises:
            RecipeError: F is out of range, or below 1.
        """
        check_truncation(truncation)
        if truncation == 1:
            return latents
        what = "this generator starts from samples of the data, which can't be truncated"
        raise RecipeError(what, where="latent.kind", found=f"'{self.tag()}'", cure="sample without truncation")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n samples of the data, n x shape.

        Raises:
            RecipeError: the data is not at hand.
        """
        if self._draw is None:
            cure = "give it the samples to start from"
            raise RecipeError("this generator starts from samples of the data", where="latent.kind", cure=cure)
        return self._draw(n, generator)

    @property
    def in_words(self) -> str:
        """See `Latent.in_words`."""
        return "samples of the data"

    @property
    def max_norm(self) -> float:
        """Infinite: nothing is searched in this space."""
        return math.inf
