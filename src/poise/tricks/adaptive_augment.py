"""Adaptive augmentation (ADA: Karras et al. 2020, arXiv:2006.06676; tip M02): as much as D's memory calls for.

Every change is made to a picture with probability p only, so that for p below about 0.8 G can tell what is a change and
what is the data. p follows D's overconfidence: r_t = E sign(D(x)) over the reals of the last `every` steps; above the
target p rises by batch x every / speed, below it falls (section 3), however many moves D has in a step. The changes are
those of the paper's "bgc" (appendix B), each drawn for each picture:

    blit      mirrored (half of the time), turned by 0, 90, 180 or 270 degrees, moved by whole pixels up to 1/8
    geometry  scaled by 2^N(0, 0.2^2), turned by any angle (with 1 - sqrt(1 - p), before and after), stretched by
              2^N(0, 0.2^2) one way and shrunk the other, moved by N(0, 1/8^2) of the side
    colour    brightness + N(0, 0.2^2), contrast x 2^N(0, 0.5^2), light and dark exchanged (half of the time), hue
              turned by any angle, saturation x 2^N(0, 1^2)

The paper's filters against aliasing are left out: all moves are one bilinear resampling. A move by parts of the side is
made in the old picture, where the paper makes it in the new one.
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
from poise.tricks.augment_ops import per_sample, requires_images, resample_images
from poise.tricks.base import TrickConfig, TrickContext

if TYPE_CHECKING:
    from poise.core.player import Player

Policy = Literal["blit", "geometry", "colour"]
OCTAVE = math.log(2)


class Draws:
    """Random numbers for one pile, B at a time, each with the picture's coin: no change where the coin says so.

    Args:
        p: the probability of a change, 0-dim.
    """

    def __init__(self, images: Tensor, p: Tensor, generator: torch.Generator) -> None:
        self.like, self.p, self.generator = images, p, generator

    def coin(self, p: Tensor | None = None) -> Tensor:
        """B times whether a change is made."""
        return self.uniform(0.0, 1.0) < (self.p if p is None else p)

    def uniform(self, low: float, high: float) -> Tensor:
        """B numbers in [low, high)."""
        like = self.like
        draws = torch.rand(len(like), generator=self.generator, device=like.device, dtype=torch.float32)
        return draws.mul_(high - low).add_(low)

    def normal(self, sigma: float) -> Tensor:
        """B numbers ~ N(0, sigma^2)."""
        like = self.like
        return torch.randn(len(like), generator=self.generator, device=like.device).mul_(sigma)

    def if_so(self, changed: Tensor, otherwise: float, p: Tensor | None = None) -> Tensor:
        """`changed` where the coin falls so."""
        return torch.where(self.coin(p), changed, otherwise)


def matrix(a: Tensor | float, b: Tensor | float, c: Tensor | float, d: Tensor | float, like: Tensor) -> Tensor:
    """B matrices [[a, b], [c, d]]."""
    rows = [n if isinstance(n, Tensor) else torch.full_like(like, n) for n in (a, b, c, d)]
    return torch.stack(rows, 1).view(-1, 2, 2)


def turned(angle: Tensor) -> Tensor:
    """B rotations."""
    return matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos(), angle)


def moved(images: Tensor, policy: tuple[Policy, ...], draws: Draws) -> Tensor:
    """`blit` and `geometry`: for each place of the new picture, where to read in the old one."""
    size = images.shape[2]
    ones = torch.ones(len(images), device=images.device)
    back, shift = matrix(1.0, 0.0, 0.0, 1.0, ones), torch.zeros(len(images), 2, device=images.device)
    if "blit" in policy:
        mirror = draws.if_so(draws.uniform(0, 1).round() * 2 - 1, 1.0)
        quarters = draws.if_so(draws.uniform(0, 4).floor(), 0.0)
        cos, sin = (quarters == 0).float() - (quarters == 2).float(), (quarters == 1).float() - (quarters == 3).float()
        back = matrix(cos, -sin, sin, cos, ones) @ matrix(mirror, 0.0, 0.0, 1.0, ones)
        steps = torch.stack([draws.uniform(-0.125, 0.125) * size for _ in range(2)], 1).round()
        shift = torch.where(draws.coin()[:, None], steps, shift)
    if "geometry" in policy:
        p_turn = 1 - (1 - draws.p.clamp(0, 1)).sqrt()
        scale = draws.if_so((draws.normal(0.2) * OCTAVE).exp(), 1.0)
        before, after = (draws.if_so(draws.uniform(-math.pi, math.pi), 0.0, p_turn) for _ in range(2))
        stretch = draws.if_so((draws.normal(0.2) * OCTAVE).exp(), 1.0)
        shape = turned(before) @ matrix(scale * stretch, 0.0, 0.0, scale / stretch, ones) @ turned(after)
        drift = torch.stack([draws.normal(0.125) * size for _ in range(2)], 1)
        back, shift = back @ shape, shift + torch.where(draws.coin()[:, None], drift, torch.zeros_like(drift))
    middle = (size - 1) / 2
    axis = torch.arange(size, device=images.device, dtype=torch.float32) - middle
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack((x, y)).flatten(1)
    read = back @ places + shift[:, :, None] + middle
    return resample_images(images, *read.view(-1, 2, size, size).unbind(1))


def coloured(images: Tensor, draws: Draws) -> Tensor:
    """`colour`: brightness, contrast, light for dark; hue and saturation where there are three channels."""
    bright = draws.if_so(draws.normal(0.2), 0.0)
    contrast = draws.if_so((draws.normal(0.5) * OCTAVE).exp(), 1.0)
    negative = draws.if_so(draws.uniform(0, 1).round() * 2 - 1, 1.0)
    hue = draws.if_so(draws.uniform(-math.pi, math.pi), 0.0)
    saturation = draws.if_so((draws.normal(1.0) * OCTAVE).exp(), 1.0)
    images = (images + per_sample(images, bright)) * per_sample(images, contrast)
    if images.shape[1] != 3:
        return images * per_sample(images, negative)
    light = images.mean(1, keepdim=True)
    chroma = images - light
    # a turn about the grey axis: cos and sin times the chroma and its cross product with (1, 1, 1) / sqrt(3)
    crossed = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3)
    around = chroma * per_sample(images, hue.cos()) + crossed * per_sample(images, hue.sin())
    changes = light * per_sample(images, negative - 1) + (around * per_sample(images, saturation) - chroma)
    return images + changes  # exactly the picture where there are none


class AdaptiveAugmentConfig(TrickConfig):
    """`target` for r_t; `speed`: the pictures in which p may go from 0 to 1.

    Where `speed` is 0, p is `start`, which may then be a dial.
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
    def _one_rule_for_p(self) -> Self:
        if self.speed and isinstance(self.start, Schedule):
            reject_value(
                "p follows 'speed' or a dial, not both",
                found=f"speed = {self.speed:g}",
                key="start",
                cure="set speed to 0",
            )
        return self

    @property
    def needs_score_sign(self) -> bool:
        """Unless p stands still."""
        return self.speed > 0

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Square pictures."""
        return requires_images(shape)

    def build(self, name: str, context: TrickContext) -> AdaptiveAugment:
        """See `AdaptiveAugment`."""
        return AdaptiveAugment(name, self, context.decision_threshold or 0.0)


class AdaptiveAugment(InputTransform, PostUpdate):
    """The view, and what moves p after D's moves. p, the sum of signs and the count of moves stay on the device.

    It acts before DiffAugment, whose cutout it would resample, and before noise.
    """

    rank: ClassVar[int] = -2

    def __init__(self, name: str, told: AdaptiveAugmentConfig, decision_threshold: float) -> None:
        super().__init__(name)
        self.told, self.decision_threshold = told, decision_threshold
        self.register_buffer(
            "p", torch.tensor(told.start.value_at(0.0) if isinstance(told.start, Schedule) else told.start)
        )
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("moves", torch.zeros(()))

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        """Each picture changed with probability p."""
        told = self.told
        if not told.speed:
            if (p := current_value(told.start, context)) == 0:
                return images
            self.p.fill_(p)
        draws = Draws(images, self.p, context.generator(f"{self.name}/{origin}"))
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would round places by half a pixel of 64
            if "blit" in told.policy or "geometry" in told.policy:
                images = moved(images, told.policy, draws)
            return coloured(images, draws) if "colour" in told.policy else images

    @torch.no_grad()
    def after_update(self, player: Player, move: MoveData) -> None:
        """One step of p in every `every`-th step, at D's first move in it; the rows show p and r_t."""
        if player.side is not Side.D or not self.told.speed:
            return
        context = move.context
        sign = (move.score("real") - self.decision_threshold).sign().mean()
        move.logged["r_t"] = sign
        move.logged[f"{self.name}_p"] = self.p.clone()
        every = self.told.every
        self.signs += sign
        self.moves += 1
        if context.turn == 0 and (context.step + 1) % every == 0:
            step = (self.signs / self.moves - self.told.target).sign() * context.batch_size * every / self.told.speed
            self.p.add_(step).clamp_(0, 1)
            self.signs.zero_()
            self.moves.zero_()
