"""What a trick's recipe entry promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import nn

from poise.core.config import ComponentConfig
from poise.core.hooks import Trick
from poise.core.types import DataSpec, ExtraOutput, Shape, Side
from poise.objectives.base import Objective


class TrickContext(NamedTuple):
    """What a trick is built for: the game as it is before step 0.

    Attributes:
        networks: the players' networks.
        data_spec: what there is to learn.
        decision_threshold: the score of a sample that D can't place, where the objective has one.
        objective: what the players are charged by.
    """

    networks: Mapping[Side, nn.Module]
    data_spec: DataSpec
    decision_threshold: float | None = 0.0
    objective: Objective | None = None


class TrickConfig(ComponentConfig):
    """A trick in a recipe: `tricks = [{kind = "..."}]`, their order decides only between equals (`Trick.rank`)."""

    tip: ClassVar[str]
    """Its row in the catalogue of tips: "T07a"."""

    source: ClassVar[str]
    """The paper, with its arXiv number where it has one."""

    needs_targets: ClassVar[bool] = False
    """Whether it acts on D's targets, which the objective must then take."""

    needs_independent_scores: ClassVar[bool] = False
    """Whether it is only what its paper says if D judges each sample by itself (no batch norm in D)."""

    duplicate_note: ClassVar[str] = "each of them acts"
    """What two of its kind in one recipe come to, as the end of a warning."""

    needs_discriminator: ClassVar[bool] = True
    """Whether it acts on D or on what D says, so that it has no place in a game for one."""

    @property
    def needs_codes(self) -> bool:
        """Whether it reads the codes of reals, which takes an encoder."""
        return self.needs_code_variance

    @property
    def needs_code_variance(self) -> bool:
        """Whether it reads the region that a code may lie in."""
        return False

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """What D must say beside its score; "classes" takes labelled data and gives D a classifier's head."""
        return frozenset()

    @property
    def bounds_lipschitz(self) -> bool:
        """Whether it holds D's slope, which an objective without bounds needs."""
        return False

    @property
    def trick_name(self) -> str:
        """What it is called in a run, before it is numbered."""
        return str(self.tag())

    @property
    def pack(self) -> int:
        """How many samples it lets D judge at once."""
        return 1

    @property
    def needs_score_sign(self) -> bool:
        """Whether it reads from D's score on which side D sees a sample, which not every objective's scores say."""
        return False

    @property
    def selects_samples(self) -> bool:
        """Whether it leaves out some of G's costs."""
        return False

    @property
    def needs_separate_fake_loss(self) -> bool:
        """Whether it takes the objective's cost of fakes by itself, which not every objective has."""
        return False

    @property
    def has_sampling_network(self) -> bool:
        """Whether it keeps a network that samples come from."""
        return False

    @property
    def couples_samples(self) -> bool:
        """Whether a sample's score depends on the others of its pile with it."""
        return False

    def comparison_group(self, scores: int) -> int | None:
        """How many of a pile's `scores` samples it compares with each other; None if it compares none."""
        return None

    @property
    def first_active_step(self) -> int:
        """The steps that a run must have before it does anything."""
        return 0

    @property
    def modifies_score(self) -> bool:
        """Whether it puts something beside D's score, which an energy (a reconstruction error) can't take."""
        return False

    @property
    def num_stored(self) -> int:
        """How many samples it keeps, in memory and in every save."""
        return 0

    def num_replaced(self, fakes: int) -> int:
        """How many of `fakes` new fakes, at most, D is shown stored ones for."""
        return 0

    def steps_to_fill(self, fakes: int) -> float:
        """The steps until its pool is full, if it is offered `fakes` new fakes in each; infinity for never."""
        return 0

    @property
    def replaces_all_fakes(self) -> bool:
        """Whether no fake counts as new once it has acted, so that another of its sort would have nothing to do."""
        return False

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Why it can't act on samples of `shape`, and the cure; None if it can."""
        return None

    def build(self, name: str, context: TrickContext) -> Trick:
        """The module that acts, named `name`."""
        raise NotImplementedError
