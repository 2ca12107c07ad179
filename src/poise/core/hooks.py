"""The hooks of a training step: the ten places where a trick can act. Read this after `engine/step.py`.

    tempo > opponent swap > z > G > fake samples > fake replacement > input transforms > D > target transforms
          > objective > sample selection, loss terms > backward > gradient transforms > optimiser > post-update

(The tenth is the network transform, which acts once, when a network is built.) Each hook is an abstract `nn.Module`,
so that a trick's pool, counter or average is saved and resumed like the weights. A trick that acts at two places
inherits from two hooks. `sides` says in which player's moves it acts. The `apply_...` functions run a list of tricks in
order; an empty list costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from poise.core.move import MoveData
from poise.core.random_streams import RandomStreams
from poise.core.schedules import Schedulable, current_value
from poise.core.types import Batch, MoveContext, MoveCounts, Origin, Side, Targets, per_sample
from poise.retired import TRICK_MEMBERS, adopt

if TYPE_CHECKING:
    from poise.core.player import Player

BOTH_SIDES = frozenset(Side)


class Trick(nn.Module, ABC):
    """A named switch of a recipe.

    Args:
        name: its kind in the recipe, numbered if the kind occurs twice. It is also the root of its random streams:
            `context.generator(self.name)`.
    """

    sides: ClassVar[frozenset[Side]] = BOTH_SIDES
    """The players in whose moves it acts."""

    rank: ClassVar[int] = 0
    """The order at one hook: lower ranks act first, and tricks of equal rank in the order of the recipe."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        adopt(cls, TRICK_MEMBERS)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class LayerContext:
    """Gives inserted layers the context of the current move, for which `forward` has no argument.

    Copies of a network (an average, a past copy) share it.
    """

    def __init__(self) -> None:
        self._move: MoveContext | None = None
        self._calls: Counter[str] = Counter()

    @property
    def current(self) -> MoveContext | None:
        """The move that is being made; None between moves, when samples are generated."""
        return self._move

    @current.setter
    def current(self, context: MoveContext | None) -> None:
        self._move = context
        self._calls.clear()

    def generator(self, name: str) -> torch.Generator | None:
        """A generator for the stream `name` of this move; between moves None, which means PyTorch's global generator.

        A layer that runs twice in a move (on prior samples, then on reconstructions) draws from two streams.
        """
        if self._move is None:
            return None
        self._calls[name] += 1
        return self._move.with_call(self._calls[name] - 1).generator(name)

    def __deepcopy__(self, memo: object) -> Self:
        return self


class NetworkTransform(Trick):
    """Changes a network once, when it is built."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.layer_context = LayerContext()

    @abstractmethod
    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """The changed network of `side`, which may be `net` itself, changed in place, or a module around it."""


class Tempo(nn.Module, ABC):
    """Decides which player moves how often. A recipe has exactly one tempo."""

    step_kind: ClassVar[Literal["alternate", "simultaneous", "alone"]] = "alternate"
    """Which step function runs: `alternate`, `simultaneous` (`engine/step.py`) or `reconstruction_step`."""

    order: tuple[Side, Side] = (Side.D, Side.G)
    """The order of the players in a step."""

    max_moves: MoveCounts
    """The largest number of moves that each player can make in one step."""

    @abstractmethod
    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """Whether `context.side` makes another move in this step.

        Args:
            context: the context of that move; `context.turn` is the number of moves that the player has made already.
            last: the player's last move in this step. Reading its values waits for the device.
        """


class OpponentSwap(Trick):
    """Replaces the network of the player that does not move, for one move."""

    @abstractmethod
    def select_network(self, side: Side, net: nn.Module, context: MoveContext) -> nn.Module:
        """The network that plays `side` in this move: `net` or a replacement."""


class ReplacedFakes(NamedTuple):
    """A batch of fake samples in two parts, of the same total size as before.

    Attributes:
        kept: the first of G's newest samples, which no trick has replaced.
        replacements: the samples that replace the others.
    """

    kept: Batch
    replacements: Batch


class FakeReplacement(Trick):
    """Replaces some of the fake samples in D's move, before anything else uses them."""

    sides = frozenset({Side.D})

    @abstractmethod
    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        """Split a batch of G's newest samples into those that stay and replacements for the others.

        If there are several such tricks, each one gets only the samples that no other has replaced, so that no stored
        sample is replaced or stored again.
        """


class InputTransform(Trick):
    """Transforms D's input, differentiably, for real and fake samples and in both players' moves."""

    @abstractmethod
    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        """The transformed samples, of the same shape."""


class TargetTransform(Trick):
    """Transforms the targets of D's classification."""

    sides = frozenset({Side.D})

    @abstractmethod
    def transform_targets(self, targets: Targets, context: MoveContext) -> Targets:
        """The targets that D is trained towards."""


class SampleSelection(Trick):
    """Selects the samples whose losses count, before the objective's mean over the batch is taken."""

    @abstractmethod
    def select_samples(self, scores: Tensor, move: MoveData) -> Tensor | None:
        """The indices of the samples to keep, among those that are left; None to keep all.

        Args:
            scores: D's scores of the fake samples that are left, n, without a gradient; of patches their mean.
            move: the data of the move.
        """


class LossTerm(Trick):
    """Adds a term to the loss of a move.

    Args:
        name: see `Trick`.
        weight: the factor of the term.
        every: the term is computed in every n-th step only and then multiplied by n, which keeps its mean contribution.
    """

    needs_input_gradient: ClassVar[frozenset[Origin]] = frozenset()
    """The origins of the samples whose input gradient it uses (`MoveData.input_gradient`)."""

    needs_output: ClassVar[frozenset[Origin]] = frozenset()
    """The origins of the samples for which it uses D's output."""

    needs_real: ClassVar[bool] = False
    """Whether it uses the real samples, or their codes, even if D is not run on them."""

    def __init__(self, name: str, weight: Schedulable, every: int = 1) -> None:
        super().__init__(name)
        self.weight, self.every = weight, every

    def is_due(self, context: MoveContext) -> bool:
        """Whether the term is computed in this step: in every n-th, and only if its weight is not 0."""
        return context.step % self.every == 0 and current_value(self.weight, context) != 0

    def scale(self, context: MoveContext) -> float:
        """The factor of the term in this step: weight x every."""
        return current_value(self.weight, context) * self.every

    @abstractmethod
    def loss(self, move: MoveData) -> Tensor:
        """The term before it is scaled, 0-dim. This value is logged."""


class GradientTransform(Trick):
    """Changes the gradients between the backward pass and the optimiser's update."""

    @abstractmethod
    def transform_gradients(self, player: Player, move: MoveData) -> None:
        """Change the gradients of `player` in place."""


class PostUpdate(Trick):
    """Updates what the trick keeps, after a player's update."""

    @abstractmethod
    def after_update(self, player: Player, move: MoveData) -> None:
        """Update what this trick keeps, from the player and the data of its move."""

    def sampling_network(self, side: Side) -> nn.Module | None:
        """The network to sample from in place of the trained one, if this trick keeps one (an average of weights)."""
        return None


def apply_opponent_swaps(tricks: Sequence[OpponentSwap], side: Side, net: nn.Module, context: MoveContext) -> nn.Module:
    """The network that plays `side` in this move, the same on all ranks."""
    for trick in tricks:
        net = trick.select_network(side, net, context.of_all_ranks)
    return net


def concat_batches(first: Batch, second: Batch) -> Batch:
    """Both batches in one; without labels if one of them has none."""
    images = torch.cat((first.images, second.images))
    if first.labels is None or second.labels is None:
        return Batch(images, None)
    return Batch(images, torch.cat((first.labels, second.labels)))


def apply_fake_replacements(tricks: Sequence[FakeReplacement], fake: Batch, context: MoveContext) -> Batch:
    """The batch of fake samples after all replacements; each trick replaces some of the samples that are still new.

    The tricks get the fake samples of all ranks, so that what they keep is the same on each. If gradients are
    accumulated, they get the parts of the batch one after another.
    """
    if not tricks:
        return fake
    replaced: list[Batch] = []
    ranks, common = context.ranks.simultaneous, context.of_all_ranks.with_call(context.part)
    fake = fake.map(ranks.gather)
    for trick in tricks:
        if len(fake.images):
            fake, replacements = trick.replace_fakes(fake, common)
            replaced += [replacements] if len(replacements.images) else []
    for replacements in reversed(replaced):  # every sample keeps its index in the batch
        fake = concat_batches(fake, replacements)
    return fake.map(ranks.part)


def apply_input_transforms(
    tricks: Sequence[InputTransform], images: Tensor, origin: Origin, context: MoveContext
) -> Tensor:
    """The samples after all input transforms."""
    for trick in tricks:
        images = trick.transform_input(images, origin, context)
    return images


def apply_target_transforms(tricks: Sequence[TargetTransform], targets: Targets, context: MoveContext) -> Targets:
    """The targets after all target transforms."""
    for trick in tricks:
        targets = trick.transform_targets(targets, context)
    return targets


def apply_sample_selections(
    tricks: Sequence[SampleSelection], losses: tuple[Tensor, ...], move: MoveData
) -> tuple[Tensor, ...]:
    """The losses of the selected samples: the same indices of each tensor, B; of B x P, the mean over the patches.

    The indices are kept in `move.selected`, for terms that belong to the objective's loss.
    """
    if not tricks:
        return losses
    scores, selected = per_sample(move.score("fake").detach()), None
    for trick in tricks:
        if (indices := trick.select_samples(scores, move)) is not None:
            losses, scores = tuple(per_sample(loss)[indices] for loss in losses), scores[indices]
            selected = indices if selected is None else selected[indices]
    move.selected = selected
    return losses


def apply_network_transforms(
    tricks: Sequence[NetworkTransform], side: Side, net: nn.Module, streams: RandomStreams
) -> nn.Module:
    """The network after all transforms of its side; new weights are drawn from a stream of each trick."""
    for trick in tricks:
        if side in trick.sides:
            with streams.seeded_global(f"init/{side}/{trick.name}"):
                net = trick.transform_network(side, net)
    return net
