"""Random numbers with names.

Every stream (the data's order, latents, noise, labels, initial weights) is a function of
(seed, name, step, turn) and of nothing else. So a new trick moves nobody else's dice, two runs that
differ in one trick differ in nothing else, and a resumed run needs no generator's state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def derive_seed(seed: int, name: str, *index: int) -> int:
    """A 64-bit seed for the stream `name` at `index`: BLAKE2b of the words, so that neighbours share nothing.

    PyTorch's CPU generator (Mersenne Twister) takes 32 bits of it, CUDA's (Philox) all 64.
    """
    words = "/".join((str(seed), name, *map(str, index)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")


def filling(like: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """An empty tensor that lies in memory as `like` does, and the same memory as one row, to be filled.

    Drawing into a row is several times as fast as into a map in channels_last.
    """
    empty = torch.empty_like(like, dtype=dtype)  # dense, whatever `like` is a view of
    return empty, empty.as_strided((empty.numel(),), (1,))


def normal_like(like: Tensor, sigma: float, generator: torch.Generator | None) -> Tensor:
    """sigma eps, eps ~ N(0, I), of the shape of `like`."""
    drawn, row = filling(like)
    row.normal_(0.0, sigma, generator=generator)
    return drawn


class RandomStreams:
    """The generators of one run: `streams("g/latents", step, turn)` is ready to draw from.

    Args:
        seed: the run's seed, 0 or more.
        device: where the numbers are drawn.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.device = torch.device(device)
        self._generators: dict[str, torch.Generator] = {}

    def __call__(self, name: str, *index: int) -> torch.Generator:
        """The generator of stream `name`, set to its beginning at `index`."""
        generator = self._generators.get(name)
        if generator is None:
            generator = self._generators[name] = torch.Generator(self.device)
        return generator.manual_seed(derive_seed(self.seed, name, *index))

    def seed_global(self, name: str, *index: int) -> None:
        """Set PyTorch's global generators, which dropout and others' code draw from, to stream `name`."""
        seed = derive_seed(self.seed, name, *index)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    @contextmanager
    def seeded_global(self, name: str, *index: int) -> Iterator[None]:
        """Let code that knows only PyTorch's global generator draw from stream `name`; put it back after."""
        before = torch.mps.get_rng_state() if self.device.type == "mps" else None
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            self.seed_global(name, *index)
            try:
                yield
            finally:
                if before is not None:
                    torch.mps.set_rng_state(before)
