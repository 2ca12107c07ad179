"""The ten places where a trick can act. Read this second, after `training/step.py`.

    TEMPO > OPPONENT > z > G > fakes > OFFER > VIEW > D judges
          > AIM > objective > PICK + TERMs > backward > GRADS > step > AFTER

(SURGERY is the tenth: it acts once, when a network is built.) Each seam is an abstract `nn.Module`, so
that a trick's pool, counter or average is saved and resumed with the weights. A trick that acts in two
places inherits two seams. `sides` says in whose moves it acts; `folds` below apply a list of them in
order, and an empty list costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from poise.core import Batch, Exchange, Moment, Moves, Pile, Side, Subject, Targets
from poise.dials import Dial, value
from poise.randomness import Dice

if TYPE_CHECKING:
    from poise.objectives.base import Objective
    from poise.players import Player

BOTH = frozenset(Side)


class Stage(NamedTuple):
    """What a trick is built for: the game as it is before step 0.

    Attributes:
        nets: the players' networks.
        subject: what there is to learn.
        undecided: the score of a sample that D can't place, where the objective has one.
        objective: what the players are charged by.
    """

    nets: Mapping[Side, nn.Module]
    subject: Subject
    undecided: float | None = 0.0
    objective: Objective | None = None


class Trick(nn.Module, ABC):
    """A named switch. `name` is its kind in the recipe (numbered if it stands there twice).

    The name is also the root of its random streams: `moment.generator(self.name)`.
    """

    sides: ClassVar[frozenset[Side]] = BOTH

    rank: ClassVar[int] = 0
    """Where the order of two tricks at one seam changes what they do, the one of the lower number acts first, whatever
    the recipe says. The recipe's order decides among equals."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Clock:
    """Tells the layers that surgery put into a network when it is: they are handed maps, not moments.

    Copies of a network (an average, a past self) share it.
    """

    def __init__(self) -> None:
        self._now: Moment | None = None
        self._calls: Counter[str] = Counter()

    @property
    def now(self) -> Moment | None:
        """The move that is being made; None between moves, when samples are drawn."""
        return self._now

    @now.setter
    def now(self, moment: Moment | None) -> None:
        self._now = moment
        self._calls.clear()

    def generator(self, name: str) -> torch.Generator | None:
        """The random numbers called `name` in this move; between moves PyTorch's global ones.

        A layer that is passed twice in a move (prior samples, then rebuilt ones) draws from another stream each time.
        """
        if self._now is None:
            return None
        self._calls[name] += 1
        return self._now.again(self._calls[name] - 1).generator(name)

    def __deepcopy__(self, memo: object) -> Self:
        return self


class Surgery(Trick):
    """Changes a network once, when it is built."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.clock = Clock()

    @abstractmethod
    def operate(self, side: Side, net: nn.Module) -> nn.Module:
        """The network of `side`, changed."""


class Tempo(nn.Module, ABC):
    """Who moves how often. A choice of the recipe: there is always exactly one."""

    style: ClassVar[Literal["alternate", "simultaneous", "alone"]] = "alternate"
    """Which of the functions in `training/step.py` a step is."""

    order: tuple[Side, Side] = (Side.D, Side.G)
    """Who moves first in a step."""

    most: Moves
    """The most moves either player can get in one step."""

    @abstractmethod
    def again(self, moment: Moment, before: Exchange | None) -> bool:
        """Whether `moment.side` moves once more in this step.

        Args:
            moment: of the move in question; `turn` counts the moves that this side has made already.
            before: this side's last move of this step. Looking at its numbers waits for the device.
        """


class Opponent(Trick):
    """Who plays against the side that moves."""

    @abstractmethod
    def stand_in(self, side: Side, net: nn.Module, moment: Moment) -> nn.Module:
        """The network that plays `side` in this move: `net`, or somebody in its place."""


class Offered(NamedTuple):
    """A pile of fakes in two parts, which together are as many as before.

    Attributes:
        new: the first ones of G's newest fakes, which nobody has replaced.
        old: what D is handed in place of the others.
    """

    new: Batch
    old: Batch


class Offer(Trick):
    """What D is handed: acts on the fake pile of D's move, before anybody looks."""

    sides = frozenset({Side.D})

    @abstractmethod
    def offer(self, fake: Batch, moment: Moment) -> Offered:
        """What is replaced among G's newest fakes, n of them, with the classes that all were asked for.

        Several such tricks share the pile: each is handed only what is still new, so that no old fake is replaced or
        stored once more.
        """


class View(Trick):
    """What D sees: acts on real and fake alike, in both players' moves, differentiably."""

    @abstractmethod
    def view(self, images: Tensor, pile: Pile, moment: Moment) -> Tensor:
        """The pile as D sees it."""


class Aim(Trick):
    """What D is asked to say: acts on the targets of D's move."""

    sides = frozenset({Side.D})

    @abstractmethod
    def aim(self, targets: Targets, moment: Moment) -> Targets:
        """The targets that D is trained on."""


class Pick(Trick):
    """Whose costs count: acts on the objective's costs, before their mean is taken."""

    @abstractmethod
    def pick(self, scores: Tensor, exchange: Exchange) -> Tensor | None:
        """The places of the costs that count, among those that still do; None for all.

        Args:
            scores: D's scores of the fakes whose costs are left, n, without gradient.
        """


class Term(Trick):
    """What else a move costs, beside the adversarial part.

    Args:
        weight: what the cost is multiplied with.
        every: due in every n-th step only, and then multiplied by n, so that its mean force stays.
    """

    slopes: ClassVar[frozenset[Pile]] = frozenset()
    """The piles whose gradient through D it reads (`Exchange.slope`)."""

    piles: ClassVar[frozenset[Pile]] = frozenset()
    """The piles whose verdicts it reads."""

    reads_reals: ClassVar[bool] = False
    """Whether it reads the reals, or their codes, even where D does not judge them."""

    def __init__(self, name: str, weight: Dial, every: int = 1) -> None:
        super().__init__(name)
        self.weight, self.every = weight, every

    def due(self, moment: Moment) -> bool:
        """Whether it acts in this step: every n-th, and with a weight."""
        return moment.step % self.every == 0 and value(self.weight, moment) != 0

    def force(self, moment: Moment) -> float:
        """What the cost is multiplied with in this step: weight x every."""
        return value(self.weight, moment) * self.every

    @abstractmethod
    def cost(self, exchange: Exchange) -> Tensor:
        """The cost itself, 0-dim, before the weight; this is what the rows show."""


class Grads(Trick):
    """What the optimiser may use: acts on the gradients in place, between backward and step."""

    @abstractmethod
    def adjust(self, player: Player, exchange: Exchange) -> None:
        """Change `player`'s gradients in place."""


class After(Trick):
    """What is remembered: acts once a player's step is done."""

    @abstractmethod
    def remember(self, player: Player, exchange: Exchange) -> None:
        """Take from the move what this trick keeps."""

    def shown(self, side: Side) -> nn.Module | None:
        """A network that samples should come from in place of the live one, if this trick keeps one."""
        return None


def fold_opponent(opponents: Sequence[Opponent], side: Side, net: nn.Module, moment: Moment) -> nn.Module:
    """`net`, or who stands in for it."""
    for trick in opponents:
        net = trick.stand_in(side, net, moment)
    return net


def joined(first: Batch, second: Batch) -> Batch:
    """One pile of two."""
    images = torch.cat((first.images, second.images))
    if first.labels is None or second.labels is None:
        return Batch(images, None)
    return Batch(images, torch.cat((first.labels, second.labels)))


def fold_offer(offers: Sequence[Offer], fake: Batch, moment: Moment) -> Batch:
    """The fake pile after all offers, each of which takes its share of what is still new."""
    old: list[Batch] = []
    for trick in offers:
        if len(fake.images):
            fake, replaced = trick.offer(fake, moment)
            old += [replaced] if len(replaced.images) else []
    for replaced in reversed(old):  # every fake stays at its place in the pile
        fake = joined(fake, replaced)
    return fake


def fold_views(views: Sequence[View], images: Tensor, pile: Pile, moment: Moment) -> Tensor:
    """The pile through all views, in their order."""
    for trick in views:
        images = trick.view(images, pile, moment)
    return images


def fold_aims(aims: Sequence[Aim], targets: Targets, moment: Moment) -> Targets:
    """The targets after all aims, in their order."""
    for trick in aims:
        targets = trick.aim(targets, moment)
    return targets


def fold_picks(picks: Sequence[Pick], costs: tuple[Tensor, ...], exchange: Exchange) -> tuple[Tensor, ...]:
    """The costs that count: of each expectation (a tensor, B) the same places."""
    if not picks:
        return costs
    scores = exchange.score("fake").detach()
    for trick in picks:
        if (places := trick.pick(scores, exchange)) is not None:
            costs, scores = tuple(cost[places] for cost in costs), scores[places]
    return costs


def fold_surgery(surgeries: Sequence[Surgery], side: Side, net: nn.Module, dice: Dice) -> nn.Module:
    """The network after all surgery that is meant for its side; new weights are each trick's own stream."""
    for trick in surgeries:
        if side in trick.sides:
            with dice.everywhere(f"init/{side}/{trick.name}"):
                net = trick.operate(side, net)
    return net
