"""Named random streams.

Every stream (the order of the data, latents, noise, labels, initial weights) is a function of (seed, name, step, turn)
and of nothing else. So a new trick does not change the random numbers of others, two runs that differ in one trick
differ in nothing else, and a resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_global_generators = threading.RLock()
"""Held while PyTorch's global generators are borrowed, because threads that build networks share them."""


def derive_seed(seed: int, name: str, *index: int) -> int:
    """A 64-bit seed for the stream `name` at `index`: the BLAKE2b hash of both, so that similar names are unrelated.

    PyTorch's CPU generator (Mersenne Twister) takes 32 bits of it, CUDA's (Philox) all 64.
    """
    words = "/".join((str(seed), name, *map(str, index)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")


def empty_with_flat_view(like: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """An empty tensor with the memory format of `like`, and a 1-dim view of its memory.

    Drawing into the 1-dim view is several times faster than into a tensor in channels_last.
    """
    empty = torch.empty_like(like, dtype=dtype)  # dense, whatever `like` is a view of
    return empty, empty.as_strided((empty.numel(),), (1,))


def normal_like(like: Tensor, sigma: float, generator: torch.Generator | None) -> Tensor:
    """sigma eps with eps ~ N(0, I), of the shape of `like`."""
    noise, flat = empty_with_flat_view(like)
    flat.normal_(0.0, sigma, generator=generator)
    return noise


class RandomStreams:
    """The random streams of one run: `streams("g/latents", step, turn)` is a seeded generator.

    Args:
        seed: the seed of the run, at least 0.
        device: the device of the generators.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.device = torch.device(device)
        self._generators: dict[str, torch.Generator] = {}

    def __call__(self, name: str, *index: int) -> torch.Generator:
        """The generator of the stream `name`, seeded for `index`."""
        generator = self._generators.get(name)
        if generator is None:
            generator = self._generators[name] = torch.Generator(self.device)
        return generator.manual_seed(derive_seed(self.seed, name, *index))

    def seed_global(self, name: str, *index: int) -> None:
        """Seed PyTorch's global generators, which dropout and user code draw from, for the stream `name`.

        They are those of the CPU and of the device of these streams, which need not be the current one.
        """
        seed = derive_seed(self.seed, name, *index)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.init()  # there are no generators before
            number = torch.cuda.current_device() if self.device.index is None else self.device.index
            torch.cuda.default_generators[number].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    @contextmanager
    def seeded_global(self, name: str, *index: int) -> Iterator[None]:
        """Let PyTorch's global generators draw from the stream `name`, and restore their state afterwards.

        Other threads that do so wait meanwhile.
        """
        before = torch.mps.get_rng_state() if self.device.type == "mps" else None
        with _global_generators, torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            self.seed_global(name, *index)
            try:
                yield
            finally:
                if before is not None:
                    torch.mps.set_rng_state(before)
