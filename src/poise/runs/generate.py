"""Generates samples so that sample i is a function of (seed, i), however many are generated.

Latents are drawn and the network is evaluated in blocks of `BLOCK` samples, each with a random stream of its own. The
last block of latents is drawn completely and then cut, and the network gets it padded to its full size: a kernel may
sum in another order at another batch size, and then the last bits of a sample would depend on n.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.latents import Latent
from poise.networks.base import call_network
from poise.runs.labels import check_number

BLOCK = 32
"""The number of samples in a block: one sample takes only milliseconds, and the kernels are still well used."""


def sample_latents(latent: Latent, n: int, streams: RandomStreams, stream: str) -> Tensor:
    """n latents, n x dim; latent i depends on the seed of the streams, the stream's name and i alone.

    Raises:
        RecipeError: n is negative.
    """
    check_number(n)
    blocks = [latent_block(latent, block, streams, stream) for block in range(max(1, -(-n // BLOCK)))]
    return torch.cat(blocks)[:n]


def latent_block(latent: Latent, number: int, streams: RandomStreams, stream: str) -> Tensor:
    """The latents of the block `number`, BLOCK x dim: those from index number * BLOCK on, see `sample_latents`."""
    return latent.block(number, BLOCK, streams, stream)


def no_interrupt() -> None:
    """The default of `interrupt`: does nothing."""


@torch.no_grad()
def generate(
    net: nn.Module,
    latents: Tensor,
    labels: Tensor | None = None,
    *,
    streams: RandomStreams,
    block: int = BLOCK,
    interrupt: Callable[[], None] = no_interrupt,
    first_block: int = 0,
) -> Tensor:
    """Generate samples in evaluation mode and float32. The network's mode is restored afterwards.

    Sample i depends on its latent, its label and i alone. Layers that are random in evaluation too (standing dropout)
    draw from `streams`, from one stream per block: the same call gives the same samples.

    Args:
        net: the generator.
        latents: float, n x dim; n may be 0.
        labels: int64, n; None if G takes none.
        streams: the random streams of random layers.
        block: the number of samples per forward pass; callers that always generate the same number may change it.
        interrupt: called before each block; may raise.
        first_block: the number of the first block, if the latents are not the first ones of their stream.
    """
    training, samples = net.training, list[Tensor]()
    net.eval()
    try:
        with streams.seeded_global("sample/layers"):
            for number, start in enumerate(range(0, max(1, len(latents)), block), first_block):
                interrupt()
                streams.seed_global("sample/layers", number)
                z = latents[start : start + block]
                classes = None if labels is None else _padded(labels[start : start + block], block)
                samples.append(call_network(net, _padded(z, block), classes)[: len(z)].float())
        return torch.cat(samples)
    finally:
        net.train(training)


def _padded(rows: Tensor, block: int) -> Tensor:
    """Pad to `block` rows by repeating the last one."""
    missing = block - len(rows) if len(rows) else 0
    return torch.cat((rows, rows[-1:].expand(missing, *rows.shape[1:]))) if missing else rows
