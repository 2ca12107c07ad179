"""The base class of all trick configs: what a trick declares about itself, so that recipes can be checked."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from torch import nn

from poise.core.config import ComponentConfig
from poise.core.hooks import Trick
from poise.core.types import DataSpec, ExtraOutput, Shape, Side
from poise.latents import CodeLayout
from poise.networks.critics import Critic, CriticNeeds
from poise.networks.translation import Direction
from poise.objectives.base import Objective


class TrickContext(NamedTuple):
    """What a trick is built from: the game before step 0.

    Attributes:
        networks: the players' networks.
        data_spec: the shape of the data and its classes.
        decision_threshold: the score at which D is undecided between real and fake; None if the objective has none.
        objective: the recipe's objective.
        direction: how G translates between domains; None if it does not.
        critics: the frozen networks that tricks need, by the name of the trick; empty where no loss is computed.
        code_layout: which coordinates of the latents are codes.
        alpha: whether the second of two channels of an image, and the fourth of four, is an alpha channel.
    """

    networks: Mapping[Side, nn.Module]
    data_spec: DataSpec
    decision_threshold: float | None = 0.0
    objective: Objective | None = None
    direction: Direction | None = None
    critics: Mapping[str, Critic] = MappingProxyType({})
    code_layout: CodeLayout | None = None
    alpha: bool = True


class TrickConfig(ComponentConfig):
    """A trick in a recipe: `tricks = [{kind = "..."}]`.

    The order in the list only matters between tricks of equal rank (`Trick.rank`).
    """

    tip: ClassVar[str]
    """The id of its entry in the catalogue of tips, such as "T07a"."""

    source: ClassVar[str]
    """The paper, with its arXiv number if it has one."""

    needs_targets: ClassVar[bool] = False
    """Whether it changes D's targets, which the objective must then accept."""

    needs_g_target: ClassVar[bool] = False
    """Whether it changes the target in G's loss, which the objective must then have."""

    needs_independent_scores: ClassVar[bool] = False
    """Whether it matches its paper only if D scores each sample independently of the batch (no batch norm in D)."""

    may_repeat: ClassVar[bool] = False
    """Whether it is normal that a recipe has several of this kind, as each of them does something else."""

    duplicate_note: ClassVar[str] = "each of them acts"
    """What happens if a recipe has two tricks of this kind; the end of a warning."""

    needs_discriminator: ClassVar[bool] = True
    """Whether it uses D or D's output and so cannot be used in training without a discriminator."""

    directions: ClassVar[frozenset[Direction]] = frozenset()
    """The values of `network.direction` with which it can be used; empty if it does not concern translation."""

    needs_pairs: ClassVar[bool] = False
    """Whether the two images of a sample must belong together, as those of pix2pix do and those of CycleGAN don't."""

    compares_domains: ClassVar[bool] = False
    """Whether it compares an image of one domain with an image of the other, which needs equal numbers of channels."""

    changes_generator: ClassVar[bool] = False
    """Whether it changes what G computes when it is built, so that samples can't be generated without it."""

    @property
    def needs_labels(self) -> bool:
        """Whether it uses the labels that G was given, which requires a G that is conditioned on them."""
        return False

    @property
    def critic(self) -> CriticNeeds | None:
        """The frozen network that it needs, see `TrickContext.critics`; None if it needs none."""
        return None

    @property
    def needs_codes(self) -> bool:
        """Whether it uses the latent codes of real samples, which requires an encoder."""
        return self.needs_code_variance

    @property
    def needs_code_variance(self) -> bool:
        """Whether it uses the variance of the codes, which requires an encoder that returns a Gaussian."""
        return False

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """What D must return besides its score; "classes" requires labelled data and adds a classifier head to D."""
        return frozenset()

    @property
    def bounds_lipschitz(self) -> bool:
        """Whether it bounds D's input gradient, as an unbounded objective requires."""
        return False

    @property
    def keeps_spectral_norm(self) -> bool:
        """Whether a D whose weights have spectral norm still has a bounded input gradient with it."""
        return not self.modifies_score

    @property
    def trick_name(self) -> str:
        """Its name in a run, without the number that a duplicate gets."""
        return str(self.tag())

    @property
    def pack(self) -> int:
        """The number of samples that D scores jointly."""
        return 1

    @property
    def needs_score_sign(self) -> bool:
        """Whether it compares D's score with the decision threshold, which not every objective has."""
        return False

    @property
    def selects_samples(self) -> bool:
        """Whether it removes some samples from G's loss."""
        return False

    @property
    def needs_separate_fake_loss(self) -> bool:
        """Whether it needs the objective's loss of fake samples alone, which not every objective has."""
        return False

    @property
    def has_sampling_network(self) -> bool:
        """Whether it keeps a network from which samples are generated."""
        return False

    @property
    def couples_samples(self) -> bool:
        """Whether it makes a sample's score depend on the other samples of the batch."""
        return False

    @property
    def penalised_with_others(self) -> bool:
        """Whether published methods combine it with penalties of D's input gradient although it couples samples."""
        return False

    def comparison_group(self, num_scores: int) -> int | None:
        """The number of samples that it compares with each other in a batch with `num_scores` scores; None if none."""
        return None

    @property
    def first_active_step(self) -> int:
        """The number of steps that a run must have before the trick has an effect."""
        return 0

    @property
    def modifies_score(self) -> bool:
        """Whether it adds to D's score, which an energy (a reconstruction error) does not allow."""
        return False

    @property
    def num_stored(self) -> int:
        """The number of samples that it stores, in memory and in every checkpoint."""
        return 0

    def num_replaced(self, num_fakes: int) -> int:
        """The largest number of `num_fakes` new fake samples that it replaces by stored ones."""
        return 0

    def steps_to_fill(self, num_fakes: int) -> float:
        """The number of steps until its pool is full, with `num_fakes` new samples per step; infinity for never."""
        return 0

    @property
    def replaces_all_fakes(self) -> bool:
        """Whether no sample counts as new after it, so that another such trick has nothing to replace."""
        return False

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Why it cannot be used for samples of `shape`, and the cure; None if it can."""
        return None

    def build(self, name: str, context: TrickContext) -> Trick:
        """The module that acts, named `name`."""
        raise NotImplementedError
