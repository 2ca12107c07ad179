"""Tiny games for tests: five worlds, games built by hand, and a session that records what it samples.

`points` is a fully connected pair on the ring, without statistics over the batch; `pictures` is a DCGAN with
batch norm on 40 random 8 x 8 images, so that six steps of eight reach the second epoch; `labelled` is the same on
images of four classes, brighter for higher classes, on which G is conditioned; `coded` is `pictures` with an encoder.
`translated` has a G that translates both ways between two domains of such images, and a D with patches for each domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from poise.core.config import find_components
from poise.core.hooks import Tempo, Trick
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.random_streams import RandomStreams
from poise.core.ranks import ALONE, Ranks
from poise.core.types import DiscriminatorOutput, MoveContext, Side
from poise.data.source import DataSplits, ImageDataset, Source
from poise.data.toys import RingConfig
from poise.engine import reconstruction_step, step
from poise.engine.batches import RealBatches, bind_latent
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings, Precision
from poise.engine.game import Discriminate, Game, discriminate_separately
from poise.engine.step_metrics import StepMetrics
from poise.latents import Gaussian, Latent
from poise.objectives.base import Objective
from poise.objectives.pointwise import NonSaturating
from poise.recipe.checks.compatibility import Findings, check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.state_tensors import collect_tensors, load_tensors
from poise.tempo import Ratio
from poise.training.critics import make_critics
from poise.training.state import STEP_FUNCTIONS, running_statistics
from poise.utils.threads import num_threads

CPU = torch.device("cpu")
BATCH = 8
WORLDS = ("points", "pictures", "labelled")
CODED = "coded"
TRANSLATED = "translated"
CLASSES = ("night", "dusk", "dawn", "noon")

_PARTS: dict[str, dict[str, Any]] = {
    "points": {
        "data": {"kind": "ring"},
        "network": {
            "g": {"kind": "mlp", "width": 6, "depth": 1},
            "d": {"kind": "mlp", "width": 6, "depth": 1},
        },
    },
    "pictures": {
        "data": {"kind": "digits", "size": 8},
        "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2}},
    },
}
_PARTS["translated"] = {
    "data": {"kind": "digits", "size": 8},
    "latent": {"kind": "source"},
    "network": {
        "g": {"kind": "translator", "width": 2, "blocks": 1, "downsamplings": 1, "norm": "batch"},
        "d": {"kind": "patch", "width": 2, "layers": 1, "norm": "none"},
        "direction": "both_ways",
        "judges": "each",
    },
}
_PARTS["labelled"] = _PARTS["pictures"] | {"conditioning": {"g": {"kind": "concat", "dim": 4}}}

_AUTOENCODERS: dict[str, dict[str, Any]] = {
    "points": {"kind": "flat_autoencoder", "width": 6, "depth": 1, "code": 2},
    "pictures": {"kind": "autoencoder", "width": 2, "code": 4},
    "labelled": {"kind": "autoencoder", "width": 2, "code": 4},
    "coded": {"kind": "autoencoder", "width": 2, "code": 4},
    "translated": {"kind": "autoencoder", "width": 2, "code": 4},
}

ENCODERS: dict[str, dict[str, Any]] = {
    "points": {"kind": "mlp", "width": 6, "depth": 1},
    "pictures": {"kind": "dcgan", "width": 2},
    "labelled": {"kind": "dcgan", "width": 2},
    "coded": {"kind": "dcgan", "width": 2},
    "translated": {"kind": "dcgan", "width": 2},
}
_PARTS["coded"] = _PARTS["pictures"] | {"network": {**_PARTS["pictures"]["network"], "e": ENCODERS["coded"]}}


def recipe(world: str, *tricks: dict[str, Any], **changes: Any) -> Recipe:
    """The recipe of a tiny run in `world`; `changes` replace whole tables."""
    table: dict[str, Any] = {
        "steps": 12,
        "batch": BATCH,
        "latent": {"kind": "gaussian", "dim": 3},
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": {"kind": "adam", "lr": 1e-2}, "d": {"kind": "adam", "lr": 1e-2}},
        "tempo": {"kind": "ratio"},
        "tricks": list(tricks),
    }
    return decode(table | _PARTS[world] | changes)


def suited(world: str, objective: str) -> dict[str, Any]:
    """The tables that an objective needs in `world`: a suitable D, or an encoder and no D."""
    tables: dict[str, Any] = {"objective": {"kind": objective}}
    reads = find_components(Objective, "poise.objectives")[objective].output_kinds  # type: ignore[attr-defined]
    if reads == {"energy"}:
        tables["network"] = {**_PARTS[world]["network"], "d": _AUTOENCODERS[world]}
    if not reads:
        tables |= without_discriminator(world)
    return tables


def without_discriminator(world: str) -> dict[str, Any]:
    """The tables for training without a discriminator, except for the objective."""
    return {
        "network": {"g": _PARTS[world]["network"]["g"], "e": ENCODERS[world]},
        "optimizer": {"g": {"kind": "adam", "lr": 1e-2}},
        "tempo": {"kind": "alone"},
    }


def with_encoder(world: str) -> dict[str, Any]:
    """The networks of `world` with an encoder."""
    return {"network": {**_PARTS[world]["network"], "e": ENCODERS[world]}}


@cache
def source(world: str) -> Source:
    """The data of `world`."""
    if world == "points":
        return RingConfig().load().train
    random = np.random.Generator(np.random.Philox(7))
    if world in ("pictures", CODED):
        return ImageDataset(random.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8))
    if world == TRANSLATED:
        both = ImageDataset(random.integers(0, 256, (40, 8, 8, 2), dtype=np.uint8))
        both.parts = (1, 1)
        return both
    labels = np.arange(40) % len(CLASSES)
    noise = random.integers(0, 64, (40, 8, 8, 1))
    return ImageDataset((labels[:, None, None, None] * 64 + noise).astype(np.uint8), labels, CLASSES)


def findings_of(config: Recipe, world: str) -> Findings:
    """What is found about a recipe with the data of `world`."""
    data = source(world)
    return check_compatibility(config, data.shape, len(data.classes), data.parts)


def one_thread() -> AbstractContextManager[None]:
    """Use one thread: on a busy machine, waiting for others takes a hundred times longer than a tiny network."""
    return num_threads(1)


@contextmanager
def own_convolutions() -> Iterator[None]:
    """Use PyTorch's own convolutions: oneDNN prepares each one, which for tiny images takes longer than convolving."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


WAITING = ("item", "__bool__", "__float__", "__int__", "__index__", "tolist", "cpu", "numpy", "nonzero")


class NoReading(TorchDispatchMode):
    """Refuses every operation that transfers a value, or a shape that depends on one, to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = (
            "_local_scalar_dense",
            "nonzero",
            "is_nonzero",
            "equal",
            "masked_select",
            "unique",
            "repeat_interleave.Tensor",
        )
        name = str(func).removeprefix("aten.")
        masks = "index" in name and any(
            isinstance(mask, Tensor) and mask.dtype in (torch.bool, torch.uint8)
            for given in args[1:2]
            if isinstance(given, list | tuple)
            for mask in given
        )
        if name.lstrip("_").startswith(tuple(word.lstrip("_") for word in waits)) or masks:
            raise AssertionError(f"the device was waited for: {func}")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    """Makes every way of reading a value from a tensor raise."""

    def refusing(name: str) -> Callable[..., None]:
        def refuse(self: Tensor, *args: object) -> None:
            raise AssertionError(f"the device was waited for: Tensor.{name}")

        return refuse

    with ExitStack() as stack:
        stack.enter_context(NoReading())
        for name in WAITING:
            stack.enter_context(patch.object(Tensor, name, refusing(name)))
        yield


@dataclass
class Played:
    """A move, with copies of what was sampled."""

    context: MoveContext
    latents: Tensor
    fake: Tensor
    real: Tensor | None
    move: MoveData


class Session:
    """A run without a folder, which records its moves.

    Attributes:
        moves: every move.
        seen: the inputs of D's network, call by call.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        *,
        streams: RandomStreams | None = None,
        precision: Precision = "fp32",
        ranks: Ranks = ALONE,
        accumulate: int = 1,
    ):
        self.recipe, self.source, self.ranks, self.accumulate = recipe, source, ranks, accumulate
        self.streams = streams or RandomStreams(recipe.seed)
        critics = make_critics(recipe, DataSplits(source), CPU).networks
        self.game = build_game(recipe, source.spec(), ComputeSettings(CPU, precision), self.streams, critics=critics)
        self.game.latent = bind_latent(recipe.latent, source, CPU, mirror=recipe.mirrors_images)
        max_d_moves = max(1, self.game.tempo.max_moves.d)
        self.batches = RealBatches(source, CPU, max_d_moves, mirror=recipe.mirrors_images)
        self.metrics = StepMetrics(recipe.objective.decision_threshold)
        self.done = 0
        self.moves: list[Played] = []
        self.seen: list[Tensor] = []
        if self.game.d is not None:
            self.game.d.net.register_forward_pre_hook(lambda _, given: self.seen.append(given[0].detach().clone()))

    def play(self, steps: int) -> Session:
        """Train for `steps` more steps."""
        drawn = step.sample

        def draw(game: Game, batches: RealBatches, context: MoveContext) -> MoveData:
            move = drawn(game, batches, context)
            self.moves.append(Played(context, *map(copied, (move.latents, move.fake, move.real)), move))
            return move

        coded = reconstruction_step.reconstruct

        def encode(game: Game, batches: RealBatches, context: MoveContext) -> MoveData:
            move = coded(game, batches, context)
            self.moves.append(Played(context, *map(copied, (move.latents, move.fake, move.real)), move))
            return move

        with patch.object(step, "sample", draw), patch.object(reconstruction_step, "reconstruct", encode):
            for _ in range(steps):
                self.streams.seed_global("step", self.done, *([self.ranks.rank] if self.ranks.rank else []))
                STEP_FUNCTIONS[self.game.tempo.step_kind](self.game, self.batches, self.context(), self.metrics)
                self.ranks.average(running_statistics(self.game))
                self.done += 1
        return self

    def context(self) -> MoveContext:
        """The context of the next step."""
        where = {"ranks": self.ranks, "rank": self.ranks.rank, "accumulate": self.accumulate}
        return MoveContext(self.done, self.recipe.steps, self.recipe.batch, self.streams, **where)

    def saved(self) -> dict[str, Tensor]:
        """All state, as a checkpoint holds it."""
        return {
            name: tensor.detach().clone().contiguous()
            for name, tensor in collect_tensors(self.game, self.metrics).items()
        }

    def resumed(self, tensors: dict[str, Tensor] | None = None) -> Session:
        """A new session that continues from this one's state, or from `tensors`."""
        fresh = Session(self.recipe, self.source)
        load_tensors(fresh.game, fresh.metrics, self.saved() if tensors is None else tensors)
        fresh.done = self.done
        return fresh

    def of(self, side: Side) -> list[Played]:
        """The moves of one player."""
        return [played_move for played_move in self.moves if played_move.context.side is side]


def copied(tensor: Tensor | None) -> Tensor | None:
    """A copy that later changes don't affect."""
    return None if tensor is None else tensor.detach().clone()


def session(world: str, *tricks: dict[str, Any], **changes: Any) -> Session:
    """A session of `recipe` in `world`."""
    return Session(recipe(world, *tricks, **changes), source(world))


def unequal(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Names that only one has, or whose tensors differ in a bit, dtype or shape."""
    odd = list(a.keys() ^ b.keys())
    for name in a.keys() & b.keys():
        same = a[name].dtype == b[name].dtype and a[name].shape == b[name].shape
        if not (same and torch.equal(bits(a[name]), bits(b[name]))):
            odd.append(name)
    return sorted(odd)


def changed_by_resuming(run: Session, steps: int) -> list[str]:
    """Names of the state that differs between a run of twice as many steps and one that is resumed halfway."""
    resumed = run.play(steps).resumed()
    return unequal(resumed.play(steps).saved(), run.play(steps).saved())


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, so that nan equals nan and 0 is not -0."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


# ---------------------------------------------------------------- parts put together by hand


class Linear(nn.Module):
    """D(x) = <w, x> + b over all of x, with given weights."""

    def __init__(self, weight: Sequence[float], bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(score=images.flatten(1) @ self.weight + self.bias)


class Shift(nn.Module):
    """G(z) = the first coordinates of z plus a parameter."""

    def __init__(self, by: Sequence[float]) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, latents: Tensor) -> Tensor:
        return latents[:, : len(self.by)] + self.by


def by_hand(
    *tricks: Trick,
    d: nn.Module | None = None,
    g: nn.Module | None = None,
    objective: Objective | None = None,
    latent: Latent | None = None,
    tempo: Tempo | None = None,
    judge: Discriminate = discriminate_separately,
    lr: float = 0.1,
) -> Game:
    """A game in the plane with plain gradient descent; by default a linear D and a G that adds a shift."""
    d, g = d or Linear([0.5, -0.25]), g or Shift([0.3, 0.1])
    return Game(
        Player(Side.D, d, torch.optim.SGD(d.parameters(), lr=1.0), lambda _: {"lr": lr}),
        Player(Side.G, g, torch.optim.SGD(g.parameters(), lr=1.0), lambda _: {"lr": lr}),
        (objective or NonSaturating()).build(),
        latent or Gaussian(dim=2),
        tempo or Ratio(1, 1),
        list(tricks),
        judge,
    )


def ring_batches(most: int = 1) -> RealBatches:
    """Batches of the ring."""
    return RealBatches(source("points"), CPU, most)


def context(at: int = 0, *, side: Side = Side.D, turn: int = 0, seed: int = 0, steps: int = 10) -> MoveContext:
    """A context in a run of `steps`."""
    return MoveContext(at, steps, BATCH, RandomStreams(seed), side, turn)


class Counted(RealBatches):
    """Batches that record what was loaded."""

    def __init__(self, most: int = 1) -> None:
        super().__init__(source("points"), CPU, most)
        self.asked: list[tuple[Side, int, int]] = []
        self.given: list[Tensor] = []

    def load(
        self, context: MoveContext, *, real: bool = True, labels: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        drawn = super().load(context, real=real, labels=labels)
        if drawn[0] is not None:
            self.asked.append((context.side, context.step, context.turn))
            self.given.append(drawn[0].clone())
        return drawn
