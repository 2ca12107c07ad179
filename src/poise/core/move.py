"""The data of one move: its samples, D's outputs for them, and functions that compute more on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from poise.core.double_backward import input_gradients
from poise.core.types import (
    DiscriminatorOutput,
    ExtraOutput,
    MoveContext,
    Origin,
    ReconstructedBatch,
    concat_outputs,
    per_sample,
    per_score,
    to_float32,
)


@dataclass(slots=True)
class MoveData:
    """Everything that the objective and the tricks may use in one move.

    If D scores several samples at once (packing), there is one score per pack, and input gradients are those of packs.
    If D scores patches, a sample has P scores, and its input gradient is that of their mean.

    Attributes:
        context: which move this is.
        latents: float, B x dim: the latents of the fake samples.
        fake: float, B x shape: the fake samples before input transforms; penalties differentiate at this point.
        real: float, B x shape: the real samples before input transforms; in G's move only if some part of the game uses
            them.
        labels: int64, B: the classes of the real samples.
        fake_labels: int64, B: the classes that G was conditioned on; equal to `labels` unless fakes were replaced.
        differentiated: the origins of the samples whose input gradient some loss term needs.
        discriminated: the origins of the samples that D is run on.
        generate_fn: generates samples from other latents.
        reconstruct_fn: encodes the real samples and decodes their codes.
        outputs: D's outputs by origin.
        discriminate_fn: runs D on other samples, through the input transforms of this move.
        logged: scalars of this move that are logged.
        selected: int64, n: the indices of the fake samples whose losses count, if a trick selects some; None if all do.
        generated: float, B x shape: what G made of the latents; equal to `fake` unless some of that was replaced.
    """

    context: MoveContext
    latents: Tensor
    fake: Tensor
    real: Tensor | None = None
    labels: Tensor | None = None
    fake_labels: Tensor | None = None
    differentiated: tuple[Origin, ...] = ()
    discriminated: frozenset[Origin] = frozenset({"real", "fake"})
    generate_fn: Callable[[Tensor], Tensor] | None = None
    reconstruct_fn: Callable[[], ReconstructedBatch] | None = None
    outputs: dict[Origin, DiscriminatorOutput] = field(default_factory=dict)
    discriminate_fn: Callable[[Tensor, Tensor | None], DiscriminatorOutput] | None = None
    logged: dict[str, Tensor] = field(default_factory=dict)
    selected: Tensor | None = None
    generated: Tensor = field(init=False)
    _input_gradients: dict[Origin, Tensor] = field(default_factory=dict)
    _reconstruction: ReconstructedBatch | None = None

    def __post_init__(self) -> None:
        self.generated = self.fake

    def detach(self) -> MoveData:
        """The same data without the graphs, and without the memory that they hold."""
        outputs = {origin: output.map(Tensor.detach) for origin, output in self.outputs.items()}
        logged = {name: value.detach() for name, value in self.logged.items()}
        real = None if self.real is None else self.real.detach()
        same = {"outputs": outputs, "logged": logged, "_input_gradients": {}, "_reconstruction": None}
        move = replace(self, latents=self.latents.detach(), fake=self.fake.detach(), real=real, **same)
        move.generated = self.generated.detach()
        return move

    def samples(self, origin: Origin) -> Tensor:
        """The samples of one origin before input transforms, B x shape."""
        samples = self.fake if origin == "fake" else self.real
        assert samples is not None, f"no part of the game needs {origin} samples in {self.context.side}'s move"
        return samples

    @property
    def discriminates_real(self) -> bool:
        """Whether D is run on the real samples in this move; an encoder alone may need them too."""
        return self.real is not None and "real" in self.discriminated

    @property
    def pack(self) -> int:
        """The number of samples per score of D; 1 before D has been run."""
        return len(self.fake) // len(self.outputs["fake"].score) if self.outputs else 1

    def labels_of(self, origin: Origin) -> Tensor | None:
        """The labels of the samples of one origin, B, or None; interpolated samples have the real labels."""
        return self.fake_labels if origin == "fake" else self.labels

    def score(self, origin: Origin) -> Tensor:
        """D's scores of the samples of one origin, B or B x P, in float32 or higher precision."""
        return to_float32(self._output(origin).score)

    @property
    def selected_score(self) -> Tensor:
        """D's scores of the fake samples whose losses count: `score("fake")`, or n means over patches of a selection.

        A term that stands for a change of the objective's loss of the fake samples uses these.
        """
        score = self.score("fake")
        return score if self.selected is None else per_sample(score)[self.selected]

    def extra_output(self, origin: Origin, name: ExtraOutput) -> Tensor:
        """Another output of D for the samples of one origin, in float32 or higher precision."""
        output = getattr(self._output(origin), name)
        assert output is not None, f"this D does not return {name}"
        return to_float32(output)

    def _output(self, origin: Origin) -> DiscriminatorOutput:
        if (output := self.outputs.get(origin)) is None:
            cure = f'let the trick\'s class declare needs_output = frozenset({{"{origin}"}})'
            raise LookupError(f"D is not run on {origin} samples in {self.context.side}'s move: {cure}")
        return output

    @property
    def reconstruction(self) -> ReconstructedBatch:
        """The reconstruction of the real samples, computed on first use; without a gradient in D's move."""
        if self._reconstruction is None:
            assert self.reconstruct_fn is not None, "this game has no encoder"
            self._reconstruction = self.reconstruct_fn()
        return self._reconstruction

    def generate_from(self, latents: Tensor) -> Tensor:
        """G's samples for n <= B other latents, n x dim, and the first n labels; without a gradient in D's move."""
        assert self.generate_fn is not None, "the move has not been sampled yet"
        return self.generate_fn(latents)

    def discriminate(self, images: Tensor, labels: Tensor | None) -> DiscriminatorOutput:
        """D's output for other samples."""
        assert self.discriminate_fn is not None, "D has not been run yet"
        return self.discriminate_fn(images, labels)

    def input_gradient_at(self, images: Tensor) -> Tensor:
        """The gradient of D's score with respect to other samples, same shape, differentiable in D's weights."""
        images = images.detach().requires_grad_()
        score = to_float32(self.discriminate(images, self.labels).score)
        (gradient,) = input_gradients(per_sample(score).sum(), [images])
        return per_score(score, gradient)

    def input_gradient(self, origin: Origin) -> Tensor:
        """The gradient of D's score with respect to the samples of one origin, one entry per score, differentiable.

        One call of `autograd.grad` computes it for all origins in `differentiated`, so R1 and R2 together cost one
        backward pass. The sum of the scores is differentiated: its gradient at sample i is that of score i, provided
        that D keeps no batch statistics.
        """
        if not self._input_gradients:
            first, *rest = (per_sample(self.score(some)).sum() for some in self.differentiated)
            gradients = input_gradients(sum(rest, first), [self.samples(some) for some in self.differentiated])
            self._input_gradients = {
                some: per_score(self.score(some), gradient)
                for some, gradient in zip(self.differentiated, gradients, strict=True)
            }
        return self._input_gradients[origin]


def join_parts(moves: Sequence[MoveData], context: MoveContext) -> MoveData:
    """The data of a move whose batch has been divided into parts, with the samples of all of them.

    Logged values are means over the parts, and the functions are those of the last part.

    Args:
        moves: the parts, without graphs, in their order; a single one is returned as it is.
        context: which move this is.
    """
    last = moves[-1]
    if len(moves) == 1:
        return last

    def join(name: str) -> Any:
        parts = [getattr(move, name) for move in moves]
        return None if parts[0] is None else torch.cat(parts)

    joined = {name: join(name) for name in ("latents", "fake", "real", "labels", "fake_labels")}
    outputs = {origin: concat_outputs([move.outputs[origin] for move in moves]) for origin in last.outputs}
    logged = {name: torch.stack([move.logged[name] for move in moves]).mean(0) for name in last.logged}
    whole = replace(last, context=context, outputs=outputs, logged=logged, selected=_join_selected(moves), **joined)
    whole.generated = join("generated")
    return whole


def _join_selected(moves: Sequence[MoveData]) -> Tensor | None:
    """The selected samples of all parts, as indices of the whole batch."""
    if all(move.selected is None for move in moves):
        return None
    found, start = [], 0
    for move in moves:
        score = move.score("fake")
        everything = torch.arange(len(score), device=score.device)
        found.append(start + (everything if move.selected is None else move.selected))
        start += len(score)
    return torch.cat(found)
