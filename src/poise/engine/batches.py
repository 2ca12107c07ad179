"""The samples of the data that a move gets, and which of them are flipped, are functions of (seed, step, turn).

`RealBatches` loads D's real samples in the order of epochs; `bind_latent` gives them to a G that starts from samples.
Where the samples of such a G are looked at or measured, `StartingSamples` says which ones it starts from.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams, derive_seed
from poise.core.ranks import ALONE, Ranks
from poise.core.types import MoveContext
from poise.data.source import DataSplits, SizedSource, Source
from poise.latents import Latent
from poise.utils.images import flip_where, send, to_float
from poise.utils.printing import count_noun


def flip_at_random(images: Tensor, seed: int, index: int, ranks: Ranks = ALONE) -> Tensor:
    """Images, B x H x W x C, of which each one is flipped left to right with probability 1/2.

    Which ones are flipped is a function of (seed, index) only. As G then learns the distribution of images and flips,
    this is for images whose flips are as likely as themselves. StyleGAN2-ADA's `--mirror` instead doubles the data set
    (its `xflip`), so that each epoch has every image and its flip once; the distribution is the same.

    Args:
        images: the images of batch `index`, or a rank's part of them.
        seed: the seed of the run.
        index: the index of the batch.
        ranks: the ranks that the batch is divided among.

    Source: Karras et al. 2020 (StyleGAN2-ADA, arXiv:2006.06676), and the authors' `training/dataset.py`.
    """
    # drawn with numpy, so that the flips do not depend on the device
    generator = np.random.Generator(np.random.Philox(derive_seed(seed, "data/mirror", index)))
    flipped = torch.from_numpy(generator.random(len(images) * ranks.size) < 0.5)
    return flip_where(ranks.part(flipped), images)


def bind_latent(latent: Latent, source: Source, device: torch.device, *, mirror: bool = False) -> Latent:
    """A latent distribution that draws from `source`; `latent` itself unless it is the distribution of the data.

    The random numbers are drawn on the host, so that they do not depend on the device and nothing waits for it: the
    seed of the given generator seeds one of the host.

    Args:
        latent: the distribution of G's input.
        source: the data.
        device: where the samples are needed.
        mirror: whether they are flipped left to right with probability 1/2.
    """

    def draw(n: int, generator: torch.Generator) -> Tensor:
        host = torch.Generator().manual_seed(generator.initial_seed())
        images = source.draw(n, host)
        if mirror:
            images = flip_where(torch.rand(n, generator=host) < 0.5, images)
        return to_device(images, device)

    return latent.bind(draw)


class StartingSamples:
    """The samples that G starts from where its own are looked at or measured, if it starts from samples at all.

    They are held-out ones, if any, in a random order: each occurs once before any occurs twice. Images of two domains
    that are no pairs have orders of their own, so that image i of one domain has nothing to do with image i of the
    other.

    Args:
        data: the data splits.
    """

    def __init__(self, data: DataSplits) -> None:
        self.held_out = data.held_out is not None
        self.source = data.held_out or data.train
        unrelated = len(self.source.parts) > 1 and not self.source.paired
        self.domains: tuple[Source, ...] = self.source.domain_sources if unrelated else (self.source,)

    def block(self, number: int, n: int, streams: RandomStreams, stream: str) -> Tensor:
        """Samples n * number to n * number + n - 1, on the host in the form of `Source.batch`; see `Latent.block`."""
        images = [self._part(k, number, n, streams, stream) for k in range(len(self.domains))]
        return images[0] if len(images) == 1 else torch.cat(images, -1)

    def labels(self, domain: int, number: int, n: int, streams: RandomStreams, stream: str) -> Tensor | None:
        """The labels of the images of a domain in the same samples, B; None if they have none."""
        k = min(domain, len(self.domains) - 1)
        source = self.domains[k]
        if not isinstance(source, SizedSource):
            return None
        return source.gather_labels(source.batch_indices(number, n, self._order(k, streams, stream)))

    def notes(self, n: int = 0, translated: Iterable[int] = ()) -> list[str]:
        """What should be known of n samples that G makes of these images, a sentence each; none if they are new to it.

        Vectors are always those of training, of which none are held out.

        Args:
            n: the number of samples.
            translated: the domains, as indices, whose images are translated; those of pairs are equally many.
        """
        domains = [source for source in self.domains if isinstance(source, SizedSource)]
        if len(self.source.shape) != 3 or len(domains) < len(self.domains):  # which are endless
            return []
        notes = []
        if not self.held_out:
            where = "where samples are looked at or measured"
            notes.append(f"no images are held out: {where}, G starts from those that it is trained on")
        available = min((len(domains[min(k, len(domains) - 1)]) for k in translated), default=n)
        if n > available:
            which = "held-out image" if self.held_out else "image"
            notes.append(f"{n:,} samples start from {count_noun(available, which)}: the same ones occur again")
        return notes

    def _part(self, k: int, number: int, n: int, streams: RandomStreams, stream: str) -> Tensor:
        source = self.domains[k]
        if not isinstance(source, SizedSource):  # endless, without an order
            return source.draw(n, RandomStreams(streams.seed)(stream, number, k))
        return source.gather(source.batch_indices(number, n, self._order(k, streams, stream))).images

    @staticmethod
    def _order(k: int, streams: RandomStreams, stream: str) -> RandomStreams:
        """Streams whose seed determines the order of the samples of domain k."""
        return RandomStreams(derive_seed(streams.seed, stream, k))


def notes_on_starts(latent: Latent, data: DataSplits) -> list[str]:
    """See `StartingSamples.notes`; none if G does not start from samples."""
    return [] if latent.is_space else StartingSamples(data).notes()


def sampling_latent(latent: Latent, data: DataSplits, device: torch.device) -> Latent:
    """The latent distribution for samples that are looked at or measured: see `StartingSamples`."""
    if latent.is_space:
        return latent
    starts = StartingSamples(data)

    def draw_block(number: int, n: int, streams: RandomStreams, stream: str) -> Tensor:
        return to_device(starts.block(number, n, streams, stream), device)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return to_device(starts.source.draw(n, torch.Generator().manual_seed(generator.initial_seed())), device)

    return latent.bind(draw, draw_block)


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Samples of the data on the device, images in [-1, 1]."""
    return to_float(images, device) if images.dtype == torch.uint8 else send(images, device)


class RealBatches:
    """Loads the real samples of each move onto the device.

    G's move k gets the real samples of D's move k. So a relativistic objective compares the same pairs in both moves
    (Jolicoeur-Martineau 2019), and G's moves don't change the order in which D sees the data. G is conditioned on the
    labels of the same batch, which makes classes as frequent as they are in the data.

    Args:
        source: the training data.
        device: where the samples are needed.
        max_d_moves: the largest number of moves that D can make in a step.
        mirror: whether the images are flipped at random, see `flip_at_random`.
    """

    def __init__(self, source: Source, device: torch.device, max_d_moves: int, *, mirror: bool = False) -> None:
        self.source, self.device, self.max_d_moves, self.mirror = source, device, max_d_moves, mirror

    def load(
        self, context: MoveContext, *, real: bool = True, labels: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """This move's real samples, B x shape in [-1, 1], and their labels, B; None for what is not requested.

        Raises:
            ValueError: labels are requested and the data has none.
        """
        batch = self._batch(context)
        images, classes = None, None
        if real:
            images, classes = self.source.part_of_batch(*batch, context.ranks)
            if self.mirror:
                images = flip_at_random(images, context.streams.seed, batch[0], context.ranks)
        elif labels:
            classes = self.source.batch_labels(*batch)
            classes = classes if classes is None else context.ranks.part(classes)
        samples = None if images is None else to_device(images, self.device)
        if not labels:
            return samples, None
        if classes is None:
            raise ValueError("this data has no labels")  # `check_compatibility` refuses such a recipe with a cure
        return samples, send(classes, self.device)

    def indices(self, context: MoveContext) -> Tensor:
        """The indices of this move's real samples in the data, int64, B.

        Raises:
            ValueError: the data is endless.
        """
        if not isinstance(self.source, SizedSource):
            raise ValueError("endless data has no indices")  # `check_players` refuses such a recipe with a cure
        indices = context.ranks.part(self.source.batch_indices(*self._batch(context)))
        return send(indices, self.device)

    def _batch(self, context: MoveContext) -> tuple[int, int, RandomStreams]:
        """The arguments of `Source.batch`: the batch's index, its size, the streams that order the data."""
        index = context.step * self.max_d_moves + min(context.turn, self.max_d_moves - 1)
        return index, context.batch_size, context.streams
