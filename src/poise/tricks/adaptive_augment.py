"""Adaptive augmentation (ADA: Karras et al. 2020, arXiv:2006.06676; tip M02): augment more as D overfits.

Each transformation is applied to an image with probability p only: below about p = 0.8, G can still tell the
augmentations from the data. p follows D's overfitting, measured by r_t = E sign(D(x)) over the real samples of the last
`every` steps: p rises by batch x every / speed while r_t is above the target, and falls by the same amount below it
(section 3), whatever the number of D's moves in a step. The transformations are those of the paper's "bgc" (appendix
B), each drawn for each image:

    blit      flip (half of the time), rotation by 0, 90, 180 or 270 degrees, shift by whole pixels up to 1/8
    geometry  scale by 2^N(0, 0.2^2), rotation by any angle (with 1 - sqrt(1 - p), before and after), stretch by
              2^N(0, 0.2^2) along one axis and its inverse along the other, shift by N(0, 1/8^2) of each side
    colour    brightness + N(0, 0.2^2), contrast x 2^N(0, 0.5^2), inverted lightness (half of the time), hue rotated
              by any angle, saturation x 2^N(0, 1^2)

Rotations are about the centre of the image, whether or not it is square, and beyond its edges it is reflected. The
paper's anti-aliasing filters are left out: all geometric transformations are one bilinear resampling. Fractional shifts
are made in the coordinates of the input image; the paper makes them in those of the output.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, Strict, model_validator
from torch import Tensor

from poise.core.config import reject_value
from poise.core.hooks import InputTransform, PostUpdate
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, Schedule, current_value, in_range
from poise.core.types import MoveContext, Origin, Shape, Side
from poise.tricks.augment_ops import map_colours, per_sample, requires_images, resample_images
from poise.tricks.base import TrickConfig, TrickContext

if TYPE_CHECKING:
    from poise.core.player import Player

Policy = Literal["blit", "geometry", "colour"]
LOG_2 = math.log(2)


class AugmentSampler:
    """Random parameters for one batch, B at a time; a parameter takes effect with the probability of augmentation only.

    Args:
        images: the images to augment, B x C x H x W.
        p: the probability that a transformation is applied, 0-dim.
        generator: the source of the random numbers.
    """

    def __init__(self, images: Tensor, p: Tensor, generator: torch.Generator) -> None:
        self.like, self.p, self.generator = images, p, generator

    def applied(self, p: Tensor | None = None) -> Tensor:
        """Whether a transformation is applied, bool, B."""
        return self.uniform(0.0, 1.0) < (self.p if p is None else p)

    def uniform(self, low: float, high: float) -> Tensor:
        """B numbers from U[low, high)."""
        like = self.like
        draws = torch.rand(len(like), generator=self.generator, device=like.device, dtype=torch.float32)
        return draws.mul_(high - low).add_(low)

    def normal(self, sigma: float) -> Tensor:
        """B numbers from N(0, sigma^2)."""
        like = self.like
        return torch.randn(len(like), generator=self.generator, device=like.device).mul_(sigma)

    def or_identity(self, values: Tensor, identity: float, p: Tensor | None = None) -> Tensor:
        """`values` where the transformation is applied, `identity` elsewhere, B."""
        return torch.where(self.applied(p), values, identity)


def matrix(a: Tensor | float, b: Tensor | float, c: Tensor | float, d: Tensor | float, like: Tensor) -> Tensor:
    """B matrices [[a, b], [c, d]]."""
    rows = [n if isinstance(n, Tensor) else torch.full_like(like, n) for n in (a, b, c, d)]
    return torch.stack(rows, 1).view(-1, 2, 2)


def rotation(angle: Tensor) -> Tensor:
    """B rotation matrices."""
    return matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos(), angle)


def transform_geometry(images: Tensor, policy: tuple[Policy, ...], sampler: AugmentSampler) -> Tensor:
    """Apply `blit` and `geometry`: compute for each output pixel where to sample the input image."""
    height, width = images.shape[2:]
    ones = torch.ones(len(images), device=images.device)
    inverse, shift = matrix(1.0, 0.0, 0.0, 1.0, ones), torch.zeros(len(images), 2, device=images.device)
    if "blit" in policy:
        flip = sampler.or_identity(sampler.uniform(0, 1).round() * 2 - 1, 1.0)
        quarters = sampler.or_identity(sampler.uniform(0, 4).floor(), 0.0)
        cos, sin = (quarters == 0).float() - (quarters == 2).float(), (quarters == 1).float() - (quarters == 3).float()
        inverse = matrix(cos, -sin, sin, cos, ones) @ matrix(flip, 0.0, 0.0, 1.0, ones)
        pixels = torch.stack([sampler.uniform(-0.125, 0.125) * side for side in (width, height)], 1).round()
        shift = torch.where(sampler.applied()[:, None], pixels, shift)
    if "geometry" in policy:
        p_rotation = 1 - (1 - sampler.p.clamp(0, 1)).sqrt()
        scale = sampler.or_identity((sampler.normal(0.2) * LOG_2).exp(), 1.0)
        before, after = (sampler.or_identity(sampler.uniform(-math.pi, math.pi), 0.0, p_rotation) for _ in range(2))
        stretch = sampler.or_identity((sampler.normal(0.2) * LOG_2).exp(), 1.0)
        shape = rotation(before) @ matrix(scale * stretch, 0.0, 0.0, scale / stretch, ones) @ rotation(after)
        fraction = torch.stack([sampler.normal(0.125) * side for side in (width, height)], 1)
        shift = shift + torch.where(sampler.applied()[:, None], fraction, torch.zeros_like(fraction))
        inverse = inverse @ shape
    columns, rows = (torch.arange(side, device=images.device, dtype=torch.float32) for side in (width, height))
    y, x = torch.meshgrid(rows - (height - 1) / 2, columns - (width - 1) / 2, indexing="ij")
    output_pixels = torch.stack((x, y)).flatten(1)
    input_x, input_y = (inverse @ output_pixels + shift[:, :, None]).view(-1, 2, height, width).unbind(1)
    return resample_images(images, input_x + (width - 1) / 2, input_y + (height - 1) / 2)


def transform_colour(
    images: Tensor, sampler: AugmentSampler, parts: tuple[int, ...] = (), *, alpha: bool = True
) -> Tensor:
    """Apply `colour`: brightness, contrast and lightness inversion; hue and saturation if there are three colours.

    The images of one sample get the same changes; see `augment_ops.map_colours`.
    """
    brightness = sampler.or_identity(sampler.normal(0.2), 0.0)
    contrast = sampler.or_identity((sampler.normal(0.5) * LOG_2).exp(), 1.0)
    negative = sampler.or_identity(sampler.uniform(0, 1).round() * 2 - 1, 1.0)
    hue = sampler.or_identity(sampler.uniform(-math.pi, math.pi), 0.0)
    saturation = sampler.or_identity((sampler.normal(1.0) * LOG_2).exp(), 1.0)

    def change(colours: Tensor) -> Tensor:
        colours = (colours + per_sample(colours, brightness)) * per_sample(colours, contrast)
        if colours.shape[1] != 3:
            return colours * per_sample(colours, negative)
        light = colours.mean(1, keepdim=True)
        chroma = colours - light
        # rotate about the grey axis: cos and sin times the chroma and its cross product with (1, 1, 1) / sqrt(3)
        cross = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3)
        rotated = chroma * per_sample(colours, hue.cos()) + cross * per_sample(colours, hue.sin())
        changes = light * per_sample(colours, negative - 1) + (rotated * per_sample(colours, saturation) - chroma)
        return colours + changes  # exactly the image if nothing is applied

    return map_colours(images, change, parts, alpha=alpha)


class AdaptiveAugmentConfig(TrickConfig):
    """`target` is the target for r_t; `speed` is the number of images in which p can rise from 0 to 1.

    If `speed` is 0, p is `start`, which may then be a schedule.
    """

    kind: Literal["adaptive_augment"] = "adaptive_augment"
    tip: ClassVar[str] = "M02"
    source: ClassVar[str] = "Karras et al. 2020, arXiv:2006.06676"

    policy: Annotated[tuple[Policy, ...], Strict(False), Field(max_length=3)] = ("blit", "geometry", "colour")
    target: float = Field(default=0.6, ge=-1, le=1)
    speed: float = Field(default=500_000.0, ge=0)
    every: int = Field(default=4, ge=1)
    start: Annotated[Schedulable, in_range(0, 1)] = 0.0

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.speed and isinstance(self.start, Schedule):
            reject_value(
                "p is controlled by 'speed' or by a schedule, not by both",
                found=f"speed = {self.speed:g}",
                key="start",
                cure="set speed to 0",
            )
        return self

    @property
    def needs_score_sign(self) -> bool:
        """True unless p is fixed."""
        return self.speed > 0

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """It needs images."""
        return requires_images(shape)

    def build(self, name: str, context: TrickContext) -> AdaptiveAugment:
        """See `AdaptiveAugment`."""
        parts, alpha = context.data_spec.parts, context.alpha
        return AdaptiveAugment(name, self, context.decision_threshold or 0.0, parts, alpha=alpha)


class AdaptiveAugment(InputTransform, PostUpdate):
    """Augments D's input and adapts p after D's moves.

    p, the sum of signs and the number of moves are buffers, so nothing here waits for the device. The trick acts before
    DiffAugment, whose cutout it would resample, and before noise.

    Args:
        name: see `Trick`.
        config: the settings.
        decision_threshold: the score whose sign counts.
        parts: see `augment_ops.map_colours`.
        alpha: see `augment_ops.map_colours`.
    """

    rank: ClassVar[int] = -2

    def __init__(
        self,
        name: str,
        config: AdaptiveAugmentConfig,
        decision_threshold: float,
        parts: tuple[int, ...] = (),
        *,
        alpha: bool = True,
    ) -> None:
        super().__init__(name)
        self.config, self.decision_threshold, self.parts, self.alpha = config, decision_threshold, parts, alpha
        self.register_buffer(
            "p", torch.tensor(config.start.value_at(0.0) if isinstance(config.start, Schedule) else config.start)
        )
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("moves", torch.zeros(()))

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        """Apply each transformation to each image with probability p."""
        config = self.config
        if not config.speed:
            if (p := current_value(config.start, context)) == 0:
                return images
            self.p.fill_(p)
        sampler = AugmentSampler(images, self.p, context.generator(f"{self.name}/{origin}"))
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 rounds coordinates by half a pixel in 64
            if "blit" in config.policy or "geometry" in config.policy:
                images = transform_geometry(images, config.policy, sampler)
            if "colour" not in config.policy:
                return images
            return transform_colour(images, sampler, self.parts, alpha=self.alpha)

    @torch.no_grad()
    def after_update(self, player: Player, move: MoveData) -> None:
        """Update p in every `every`-th step, after D's first move in it; p and r_t are logged."""
        if player.side is not Side.D or not self.config.speed:
            return
        context = move.context
        sign = context.ranks.mean((move.score("real") - self.decision_threshold).sign().mean())
        move.logged["r_t"] = sign
        move.logged[f"{self.name}_p"] = self.p.clone()
        every = self.config.every
        self.signs += sign
        self.moves += 1
        if context.turn == 0 and (context.step + 1) % every == 0:
            step = (
                (self.signs / self.moves - self.config.target).sign() * context.batch_size * every / self.config.speed
            )
            self.p.add_(step).clamp_(0, 1)
            self.signs.zero_()
            self.moves.zero_()
