"""How the samples of a run are looked at: which images a sample consists of, and how they are drawn beside each other.

An ordinary sample is one image (or point). A translation is seen beside what it was made from, in groups of images:

    a_to_b, pairs       source | output | target
    a_to_b              source | output
    both_ways           a | G_AB(a) | G_BA(G_AB(a)) and b | G_BA(b) | G_AB(G_BA(b))
    same                source | output

In the sample grids of training, a G that takes labels translates each image with several of them, one output each.
Translated vectors are seen as points over those of the target domain, in the plane in which these vary most.

Sample grids of training, `poise sample`, model cards and arrays of samples all come from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import Shape
from poise.data.source import DataSplits
from poise.networks.translation import Direction, Parts, split_parts
from poise.recipe.model import Recipe
from poise.runs.generate import generate
from poise.utils.image_grid import (
    GAP,
    columns_of_groups,
    grid_capacity,
    image_grid,
    on_main_plane,
    scatter_plot,
    side_by_side,
)
from poise.utils.images import Bytes

Images = Mapping[str, Tensor]
"""The images of n samples by name, n x C_k x H x W each, in the order in which they are drawn."""

BOTH_WAYS = (("source_a", "output_b", "cycle_a"), ("source_b", "output_a", "cycle_b"))


class SampleView(NamedTuple):
    """How the samples of a run are looked at.

    Attributes:
        direction: the direction of G; None if it does not translate.
        parts: the number of channels of each domain in a sample; empty for ordinary data.
        paired: whether the data has the true translation of each image.
        alpha: whether the second of two channels, and the fourth of four, is an alpha channel.
        labels: the labels that an image is translated with side by side; empty for one label per sample.
    """

    direction: Direction | None = None
    parts: Parts = ()
    paired: bool = False
    alpha: bool = True
    labels: tuple[int, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe, data: DataSplits) -> SampleView:
        """The view of a run on this data."""
        source = data.train
        alpha = bool(source.parts) or getattr(recipe.data, "alpha", True)
        return cls(recipe.network.direction, source.parts, source.paired, alpha)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The names of the images of a sample, group by group; none if a sample is one image or point."""
        if self.direction == "both_ways":
            return BOTH_WAYS
        outputs = tuple(f"output_{label}" for label in self.labels) or ("output",)
        if self.direction == "a_to_b" and self.paired:
            return (("source", *outputs, "target"),)
        if self.direction is not None:
            return (("source", *outputs),)
        return (("a", "b"),) if len(self.parts) == 2 else ()

    @property
    def is_plain(self) -> bool:
        """Whether a sample is one image or point."""
        return not self.groups

    @property
    def images_per_sample(self) -> int:
        """The number of images that show a sample."""
        return sum(map(len, self.groups)) or 1

    @property
    def group_size(self) -> int:
        """The number of images that are drawn as a group."""
        return len(self.groups[0]) if self.groups else 1

    @property
    def caption(self) -> str:
        """What the groups of images of a sample are, for a message: "source | output | target"."""
        return " and ".join(" | ".join(name.replace("_", " ") for name in group) for group in self.groups)

    def generate(
        self, net: nn.Module, starts: Tensor, labels: Tensor | None, streams: RandomStreams, first_block: int = 0
    ) -> dict[str, Tensor]:
        """The images of samples by name, in the order of `groups`; see `runs.generate.generate`.

        Args:
            net: the generator.
            starts: its latents: the samples of the data that it starts from, B x shape, if it translates.
            labels: int64, B; None if G takes none, or if each image gets all `labels` of the view.
            streams: the random streams of random layers.
            first_block: the number of the first block.
        """

        def run(inputs: Tensor, labels: Tensor | None = labels) -> Tensor:
            return generate(net, inputs, labels, streams=streams, first_block=first_block)

        if self.labels:
            return self._with_each_label(starts, run)
        samples = run(starts)
        if self.direction is None:
            return self.split(samples)
        if self.direction == "same":
            return {"source": starts, "output": samples}
        a, b = split_parts(starts, self.parts)
        to_a, to_b = split_parts(samples, self.parts)
        if self.direction == "a_to_b":
            is_seen = self.paired or b.dim() == 2  # vectors are seen among those of the target, whether paired or not
            return {"source": a, "output": to_b} | ({"target": b} if is_seen else {})
        back_to_a, back_to_b = split_parts(run(samples), self.parts)
        images = (a, to_b, back_to_a), (b, to_a, back_to_b)
        return {
            name: image
            for names, group in zip(BOTH_WAYS, images, strict=True)
            for name, image in zip(names, group, strict=True)
        }

    def _with_each_label(self, starts: Tensor, run: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """The images of a G that translates one way, with an output for each of `labels`."""
        parts = self.parts if self.direction == "a_to_b" else (starts.shape[1],)
        first, *others = split_parts(starts, parts)
        numbers = {f"output_{label}": torch.full((len(starts),), label, device=starts.device) for label in self.labels}
        outputs = {name: split_parts(run(starts, labels), parts)[-1] for name, labels in numbers.items()}
        return {"source": first} | outputs | ({"target": others[0]} if self.paired and others else {})

    def split(self, samples: Tensor) -> dict[str, Tensor]:
        """The images of samples that were not translated, B x shape, by name: both domains, or all as one."""
        if self.groups:
            return dict(zip("ab", split_parts(samples, self.parts), strict=True))
        return {"images" if samples.dim() == 4 else "points": samples}

    def capacity(self, shape: Shape, gap: int = GAP) -> int:
        """The largest number of samples of `shape` in a grid; see `grid_capacity`."""
        rows, columns = grid_capacity(shape, gap, self.group_size)
        per_row = columns // self.images_per_sample
        return rows * per_row if per_row else max(1, rows // len(self.groups))

    def draw(self, images: Images, columns: int | None = None, gap: int = GAP) -> Bytes:
        """The grid of samples that consist of several images.

        Args:
            images: see `generate`.
            columns: the number of samples in a row; by default, and if there is no room for as many, so many that the
                grid is about as high as wide.
            gap: see `image_grid`.
        """
        if all(image.dim() == 2 for image in images.values()):
            output, real = images.get("output", images.get("output_b")), images.get("target", images.get("source_b"))
            output, real = images["b"] if output is None else output, images["b"] if real is None else real
            return scatter_plot(*on_main_plane(output, real))
        tiles = side_by_side([images[name] for group in self.groups for name in group], alpha=self.alpha)
        shape, per_sample, group = tuple(tiles.shape[1:]), self.images_per_sample, self.group_size
        room = grid_capacity(shape, gap, group)[1] // per_sample
        if not room:  # the groups of a sample are below each other
            return image_grid(tiles, group, alpha=self.alpha, gap=gap, group=group)
        columns = columns or columns_of_groups(len(tiles) // per_sample, per_sample, shape, gap) // per_sample
        return image_grid(tiles, min(columns, room) * per_sample, alpha=self.alpha, gap=gap, group=group)


PLAIN = SampleView()
"""The view of a run whose samples are single images or points."""
