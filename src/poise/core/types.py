"""The data types of a training step.

`MoveContext` says which move of which step is being made, `Batch` holds samples with their labels,
`DiscriminatorOutput` is what a discriminator returns for them, and `Targets` are what D is trained towards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.core.ranks import ALONE, PartOfRank, Ranks
from poise.errors import RecipeError

Shape = tuple[int, ...]
"""The shape of one sample: (channels, height, width) for images, (2,) for points in the plane."""

OutputKind = Literal["score", "energy"]
"""What D's score means: an unbounded score, or the negative of an energy (a reconstruction error), at most 0."""

ExtraOutput = Literal["features", "classes", "codes"]
"""What D may return beside its score: the features of its last hidden layer, class logits, and what it predicts of
the codes in z."""

Origin = Literal["real", "fake", "between"]
"""Where samples come from: the data, the generator, or a penalty that interpolates between both."""


class Side(StrEnum):
    """One of the two players: the discriminator (or critic) `d`, or the generator `g`."""

    D = "d"
    G = "g"

    @property
    def opponent(self) -> Side:
        """The other player."""
        return Side.G if self is Side.D else Side.D


def packed_shape(shape: Shape, m: int) -> Shape:
    """The shape of m samples in a pack: m times the channels of an image, or m times the coordinates of a point."""
    return (m * shape[0], *shape[1:])


class Batch(NamedTuple):
    """Samples on the device.

    Attributes:
        images: float, B x C x H x W in [-1, 1], or B x 2 for the plane.
        labels: int64, B: the class of each real sample, or the class that G was conditioned on. None if no part of the
            game uses labels.
    """

    images: Tensor
    labels: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A function of the images, and of the labels if there are any."""
        return Batch(function(self.images), None if self.labels is None else function(self.labels))


class DataSpec(NamedTuple):
    """What networks must know about the data before they are built.

    Attributes:
        shape: the shape of one sample.
        num_classes: the number of classes; 0 if the data has no labels.
        calibration_samples: a few real samples in [-1, 1], for virtual batch norm; None if none are at hand.
        num_samples: the number of training samples; 0 if the source is endless.
        parts: the number of channels (or vector entries) of each domain in a sample, such as (1, 3); empty for ordinary
            data.
    """

    shape: Shape
    num_classes: int = 0
    calibration_samples: Tensor | None = None
    num_samples: int = 0
    parts: tuple[int, ...] = ()


class MoveCounts(NamedTuple):
    """The number of moves that each player makes in one step."""

    d: int
    g: int


@dataclass(frozen=True, slots=True)
class MoveContext:
    """Which move of which training step is being made.

    A move is one optimiser update of one player. A step consists of D's moves followed by G's, unless the tempo says
    otherwise.

    Attributes:
        step: the number of steps done before this one; the first is 0.
        steps: the number of steps in the whole run.
        batch_size: the number of real, and of fake, samples in a move, on all ranks together.
        streams: the run's named random streams.
        side: the player that moves.
        turn: the index of the move among the moves of that player in this step.
        call: the index of a repeated computation within the move, such as a second forward pass.
        ranks: the processes that make this move together, each with its part of the batch.
        rank: the rank whose random numbers `generator` gives.
        accumulate: the number of parts of the batch whose gradients are computed one after another on each rank.
        part: which of these parts this is; 0 as long as the move has not been divided.
    """

    step: int
    steps: int
    batch_size: int
    streams: RandomStreams
    side: Side = Side.D
    turn: int = 0
    call: int = 0
    ranks: Ranks = ALONE
    rank: int = 0
    accumulate: int = 1
    part: int = 0

    @property
    def progress(self) -> float:
        """The fraction of the run that is done, 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0

    @property
    def images_seen(self) -> int:
        """The number of real images used so far: step x batch size."""
        return self.step * self.batch_size

    def for_move(self, side: Side, turn: int) -> MoveContext:
        """The context of one move of this step."""
        step, steps, batch, streams, ranks = self.step, self.steps, self.batch_size, self.streams, self.ranks
        return MoveContext(step, steps, batch, streams, side, turn, 0, ranks, self.rank, self.accumulate)

    @property
    def parts(self) -> tuple[MoveContext, ...]:
        """The contexts of the parts of this move, whose gradients are added up; mostly a single one."""
        if self.accumulate == 1:
            return (self,)
        ranks = (PartOfRank(self.ranks, part, self.accumulate) for part in range(self.accumulate))
        return tuple(replace(self, ranks=one, rank=one.rank, part=part) for part, one in enumerate(ranks))

    def with_call(self, call: int) -> MoveContext:
        """The context of the `call`-th repetition of a computation in this move, with random numbers of its own."""
        return replace(self, call=call) if call else self

    @property
    def of_all_ranks(self) -> MoveContext:
        """This context with random numbers that are the same on all ranks: those of rank 0."""
        return replace(self, rank=0) if self.rank else self

    def generator(self, name: str) -> torch.Generator:
        """A generator for the stream `name` of this move: a function of seed, name, player, step, turn, call and rank.

        On rank 0 it is that of a run on a single rank.
        """
        again = f"/call {self.call}" if self.call else ""
        other = f"/rank {self.rank}" if self.rank else ""
        return self.streams(f"{self.side.value}/{name}{again}{other}", self.step, self.turn)


class DiscriminatorOutput(NamedTuple):
    """What D returns for a batch.

    Attributes:
        score: float, B; higher means more real. An autoencoder D returns the negative of its reconstruction error. A D
            that scores P patches of each sample returns B x P.
        features: float, B x F: the activations of D's last hidden layer, for heads and loss terms.
        classes: float, B x classes: the logits of an auxiliary classifier, if D has one.
        codes: float, B x codes: the predicted codes of a generated sample, or B / m x m codes of packs of m, if D
            predicts them (InfoGAN).
    """

    score: Tensor
    features: Tensor | None = None
    classes: Tensor | None = None
    codes: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> DiscriminatorOutput:
        """A function of the scores and of each other output that there is."""
        extras = (None if extra is None else function(extra) for extra in self[1:])
        return DiscriminatorOutput(function(self.score), *extras)

    def select(self, samples: slice) -> DiscriminatorOutput:
        """The output for a slice of the batch."""
        return self.map(lambda output: output[samples])


def concat_outputs(outputs: Sequence[DiscriminatorOutput]) -> DiscriminatorOutput:
    """D's outputs for several batches in one."""
    score, *extras = zip(*outputs, strict=True)
    return DiscriminatorOutput(torch.cat(score), *(None if parts[0] is None else torch.cat(parts) for parts in extras))


class Targets(NamedTuple):
    """The targets of D's classification, as probabilities of "real"; hard targets are 1 and 0.

    Attributes:
        real: float, B or B x P, for the scores of the real samples.
        fake: float, B or B x P, for those of the fake samples.
    """

    real: Tensor
    fake: Tensor


class EncoderOutput(NamedTuple):
    """What an encoder returns for a batch: a latent code for each sample, or a Gaussian over codes.

    Attributes:
        mean: float, B x dim: the code, or the mean of the Gaussian.
        log_var: float, B x dim: the log-variance of the Gaussian along each axis; None for a deterministic code.
    """

    mean: Tensor
    log_var: Tensor | None = None


class ReconstructedBatch(NamedTuple):
    """Samples that were encoded and decoded again.

    Attributes:
        codes: the encoder's output.
        latents: float, B x dim: the codes, or one draw from each Gaussian.
        images: float, B x shape: what G generates from these latents.
    """

    codes: EncoderOutput
    latents: Tensor
    images: Tensor


def check_floats(samples: Tensor, where: str) -> None:
    """Refuse samples that are whole numbers, such as images as bytes, whose values from 0 to 255 would count as floats.

    Raises:
        RecipeError: they are.
    """
    if not samples.is_floating_point():
        found = str(samples.dtype).removeprefix("torch.")
        cure = "images in [-1, 1] are x / 127.5 - 1"
        raise RecipeError("needs floating-point samples", where=where, found=found, cure=cure)


def to_float32(values: Tensor) -> Tensor:
    """Convert to float32, unless it is float64. Losses and penalties are always summed in this precision."""
    return values if values.dtype == torch.float64 else values.float()


def to_float64(values: Tensor) -> Tensor:
    """Convert to float64, or to float32 on a device without float64 (mps)."""
    return values.float() if values.device.type == "mps" else values.double()


def check_floating_point(latents: Tensor) -> None:
    """Raise a ValueError if latents are integers, as a computation with them would be cut to integers."""
    if not latents.is_floating_point():
        raise ValueError(f"latents must be floating-point numbers, found {latents.dtype}")


def per_sample(values: Tensor) -> Tensor:
    """One value per sample, B, of scores or losses, B or B x P: those of a sample's patches are averaged."""
    return values if values.dim() == 1 else values.flatten(1).mean(1)


def for_patches(values: Tensor, scores: Tensor) -> Tensor:
    """Values of samples, B, in a shape that broadcasts with `scores`, B or B x P: B, or B x 1."""
    return values.reshape(-1, *(1 for _ in scores.shape[1:]))


def per_score(score: Tensor, gradient: Tensor) -> Tensor:
    """The input gradient with one entry per score: B x shape, or the concatenated gradients of each pack."""
    return gradient if len(gradient) == len(score) else gradient.reshape(len(score), -1)
