"""Samples of a generator: sample i is a function of (seed, i), however many are asked for.

Latents are drawn and the network is evaluated in blocks of `BLOCK` samples, each block with random streams of its own.
The last block is drawn whole and cut, and the network sees it filled up to its full size: a kernel may compute in
another order at another batch size, and then even the last bits of a sample would depend on n. Labels follow a sequence
whose beginning does not depend on its length either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams, derive_seed
from poise.latents import Latent
from poise.networks.base import call_network

BLOCK = 32
"""Samples in a block: small enough that a single sample costs milliseconds, and large enough to fill the kernels."""

GOLDEN = (5**0.5 - 1) / 2


def sample_latents(latent: Latent, n: int, streams: RandomStreams, stream: str) -> Tensor:
    """n latents, n x dim; latent i depends on the dice's seed, the stream's name and i alone."""
    blocks = [latent.sample(BLOCK, streams(stream, block)) for block in range(-(-n // BLOCK))]
    return torch.cat(blocks)[:n]


def no_interrupt() -> None:
    """Interrupts nothing."""


@torch.no_grad()
def generate(
    net: nn.Module,
    latents: Tensor,
    labels: Tensor | None = None,
    *,
    streams: RandomStreams,
    block: int = BLOCK,
    interrupt: Callable[[], None] = no_interrupt,
) -> Tensor:
    """Samples for `latents` (and labels) in evaluation mode and float32; the network's own mode is put back after.

    Sample i depends on its latent, its label and i alone. Layers that draw in sampling too (standing dropout) draw from
    `streams`, from a stream for each block: the same call gives the same samples. Callers with a fixed number may
    take another `block`. `interrupt` is called before each block, and may raise.
    """
    training, made = net.training, list[Tensor]()
    net.eval()
    try:
        with streams.seeded_global("sample/layers"):
            for number, start in enumerate(range(0, len(latents), block)):
                interrupt()
                streams.seed_global("sample/layers", number)
                z = latents[start : start + block]
                kinds = None if labels is None else _filled(labels[start : start + block], block)
                made.append(call_network(net, _filled(z, block), kinds)[: len(z)].float())
        return torch.cat(made)
    finally:
        net.train(training)


def _filled(rows: Tensor, block: int) -> Tensor:
    """`block` rows: the last one stands in for those that are missing."""
    missing = block - len(rows)
    return torch.cat((rows, rows[-1:].expand(missing, *rows.shape[1:]))) if missing else rows


def proportional_labels(n: int, counts: Sequence[int], seed: int) -> Tensor:
    """n labels, int64, in the shares of `counts`, the number of training pictures of each class.

    Label i is the class in which u_i = frac(u_0 + i (sqrt(5) - 1) / 2) falls when the classes lie side by side in
    [0, 1), each as wide as its share; u_0 depends on the seed. So label i depends on (seed, i) alone, and any n labels
    in a row hold each class within a sample or two of n times its share (Weyl 1916; the golden ratio spreads such a
    sequence most evenly). A class without pictures is never asked for.

    Raises:
        ValueError: there is no picture of any class.
    """
    edges = torch.tensor(counts, dtype=torch.float64).cumsum(0)
    if not len(edges) or edges[-1] <= 0:
        raise ValueError("labels need at least one class with a picture")
    first = derive_seed(seed, "sample/labels") / 2**64
    u = (first + torch.arange(n, dtype=torch.float64) * GOLDEN) % 1.0
    return torch.searchsorted(edges, u * edges[-1], right=True).clamp_max(_last(counts))


def _last(counts: Sequence[int]) -> int:
    """The last class with a picture: where a product is rounded up to the end."""
    return max(kind for kind, count in enumerate(counts) if count)


def labels_by_class(n: int, classes: int) -> Tensor:
    """n labels that rise from 0, each class as often as any other or once less; the first n classes if n is fewer."""
    return torch.arange(n) * min(n, classes) // max(n, 1)
