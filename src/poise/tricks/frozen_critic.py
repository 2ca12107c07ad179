"""A frozen network that judges G's images beside D (tip T13; Mirjalili, Raschka et al. 2018, arXiv:1712.00321).

In a semi-adversarial network, G translates a face so that a matcher still recognises the person, while a classifier of
an attribute sees the attribute that G was asked for. Neither is trained with G. With x what G starts from, y the label
that it is given, p(x) the probabilities of a classifier, c(x) the most probable class and f(x) features of unit length,
the term is the mean of

    goal        output "class"                  output "features"
    keep        -log p_c(x)(G(x))               |f(G(x)) - f(x)|^2
    change      -log(1 - p_c(x)(G(x)))          max(0, <f(G(x)), f(x)>)
    label       -log p_y(G(x))
    match                                       |E f(G(x)) - E f(real)|^2, of features as they are

The paper has `label` for its attribute, and for its matcher the squared distance of features, which are not scaled to
unit length there. For two classes, `change` is the paper's cross-entropy to the opposite class; for more it asks for
any other class. Features change until they are orthogonal, because their distance has no natural bound. `label` and
`match` don't look at x, so they are for any G: `match` is feature matching (Salimans et al. 2016) in a network that is
not trained with G (dos Santos et al. 2019, arXiv:1904.02762).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from poise.core.config import component_union, reject_value
from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, bounds, in_range
from poise.core.types import Side, to_float32
from poise.networks.critics import Critic, CriticConfig, CriticNeeds, TrainedCritic
from poise.networks.translation import TRANSLATED, Direction, split_parts
from poise.tricks.base import TrickConfig, TrickContext
from poise.tricks.feature_matching import feature_matching_loss

if TYPE_CHECKING:
    AnyCritic = CriticConfig
else:
    AnyCritic = component_union(CriticConfig, "poise.networks", "poise.user_code")

Goal = Literal["keep", "change", "label", "match"]

NAMES = {"class": "classes", "features": "features"}


def other_class(logits: Tensor, classes: Tensor) -> Tensor:
    """-E log(1 - p_c), 0-dim, 0 and up: small if the class is not c; differentiable also where p_c rounds to 1.

    For two classes it is the cross-entropy to the opposite class (Mirjalili et al. 2018, arXiv:1712.00321).

    Args:
        logits: B x K, for at least two classes.
        classes: c of each sample, int64, B.
    """
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return (logits.logsumexp(1) - others.logsumexp(1)).mean()


def squared_feature_distance(features: Tensor, targets: Tensor) -> Tensor:
    """E |f - t|^2 of features scaled to unit length, 0-dim, from 0 to 4: twice (1 - their cosine similarity).

    The term of the matcher in Mirjalili et al. 2018, arXiv:1712.00321, where features are not scaled. Both arguments
    are B x F.
    """
    return 2 * (1 - cosine_similarity(features, targets)).mean()


def feature_overlap(features: Tensor, targets: Tensor) -> Tensor:
    """E max(0, cosine similarity) of features, B x F each, 0-dim, from 0 to 1; poise's own term for `change`."""
    return cosine_similarity(features, targets).relu().mean()


class FrozenCriticConfig(TrickConfig):
    """`weight` relative to the adversarial loss; `network` is the critic, see `poise.networks.critics`."""

    kind: Literal["frozen_critic"] = "frozen_critic"
    tip: ClassVar[str] = "T13"
    source: ClassVar[str] = "Mirjalili, Raschka et al. 2018, arXiv:1712.00321"
    compares_domains: ClassVar[bool] = True
    may_repeat: ClassVar[bool] = True

    weight: Annotated[Schedulable, in_range(0)] = 1.0
    goal: Goal = "keep"
    output: Literal["class", "features"] = "class"
    network: AnyCritic = Field(default=TrainedCritic())

    @model_validator(mode="after")
    def _goal_has_output(self) -> Self:
        needed = {"label": "class", "match": "features"}.get(self.goal, self.output)
        if self.output != needed:
            what, cure = f"the goal '{self.goal}' compares {NAMES[needed]}", f'set it to "{needed}"'
            reject_value(what, key="output", found=f'"{self.output}"', cure=cure)
        return self

    @property
    def directions(self) -> frozenset[Direction]:  # type: ignore[bad-override]
        """All of them for `keep` and `change`: without translation there is nothing to keep or change."""
        return frozenset(TRANSLATED) if self.goal in ("keep", "change") else frozenset()

    @property
    def needs_labels(self) -> bool:
        """Whether it compares with the label that G was given."""
        return self.goal == "label"

    @property
    def critic(self) -> CriticNeeds | None:
        """The network, unless the weight is always 0."""
        if not any(bounds(self.weight)):
            return None
        return CriticNeeds(self.network, classes=self.output == "class", labels_of_data=self.needs_labels)

    def build(self, name: str, context: TrickContext) -> FrozenCritic:
        """See `FrozenCritic`."""
        return (MatchingCritic if self.goal == "match" else FrozenCritic)(name, self, context)


class FrozenCritic(LossTerm):
    """Adds the term to G's loss, and logs how often its aim is met, as `g/..._met`: with classes, the share of samples
    whose class is as it should be.

    Args:
        name: see `Trick`.
        config: the settings.
        context: gives the network, which is not part of this module's state, and how G translates.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, config: FrozenCriticConfig, context: TrickContext) -> None:
        super().__init__(name, config.weight)
        self.goal, self.output = config.goal, config.output
        self.direction: Direction = context.direction or "same"
        self.parts = context.data_spec.parts if self.direction != "same" else ()
        self._critic = (context.critics.get(name),)  # in a tuple, so that it is no submodule

    @property
    def critic(self) -> Critic:
        """The network."""
        (critic,) = self._critic
        assert critic is not None, "this game was built without its critics, which only training needs"
        return critic

    def translated(self, samples: Tensor, *, sources: bool = False) -> Tensor:
        """The images of the domains that G generates, n x C x H x W, in samples, B x shape; n is 2 B for two domains.

        Args:
            samples: real or fake samples, or what G started from.
            sources: whether to take the image of the other domain, from which that one is translated.
        """
        if not self.parts:
            return to_float32(samples)
        images = split_parts(to_float32(samples), self.parts)
        return torch.cat([images[1 - k if sources else k] for k in TRANSLATED[self.direction]])

    def loss(self, move: MoveData) -> Tensor:
        """See the formulas above."""
        images = self.translated(move.fake)
        if self.goal == "label":
            return self._class_loss(move, self._logits(images), move.fake_labels)
        with torch.no_grad():
            before = self.critic(self.translated(move.latents, sources=True))
        if self.output == "class":
            assert before.logits is not None, "a critic without classes is refused before"
            return self._class_loss(move, self._logits(images), before.logits.argmax(1))
        compare = squared_feature_distance if self.goal == "keep" else feature_overlap
        return compare(self.critic(images).features, before.features)

    def _logits(self, images: Tensor) -> Tensor:
        logits = self.critic(images).logits
        assert logits is not None, "a critic without classes is refused before"
        return logits

    def _class_loss(self, move: MoveData, logits: Tensor, classes: Tensor | None) -> Tensor:
        assert classes is not None, "a recipe without labels is refused before"
        same = (logits.detach().argmax(1) == classes).float().mean()
        move.logged[f"{self.name}_met"] = 1 - same if self.goal == "change" else same
        return other_class(logits, classes) if self.goal == "change" else cross_entropy(logits, classes)


class MatchingCritic(FrozenCritic):
    """Adds the distance between the mean features of G's images and of real ones."""

    needs_real: ClassVar[bool] = True

    def loss(self, move: MoveData) -> Tensor:
        """See `feature_matching_loss`."""
        with torch.no_grad():
            real = self.critic(self.translated(move.samples("real"))).features
        return feature_matching_loss(real, self.critic(self.translated(move.fake)).features)
