"""What a trick's recipe entry promises."""

from __future__ import annotations

from typing import ClassVar

from poise.core import Said, Shape
from poise.entries import Part
from poise.seams import Stage, Trick


class TrickEntry(Part):
    """A trick in a recipe: `tricks = [{kind = "..."}]`, their order decides only between equals (`Trick.rank`)."""

    tip: ClassVar[str]
    """Its row in the catalogue of tips: "T07a"."""

    source: ClassVar[str]
    """The paper, with its arXiv number where it has one."""

    needs_targets: ClassVar[bool] = False
    """Whether it acts on D's targets, which the objective must then take."""

    needs_own_scores: ClassVar[bool] = False
    """Whether it is only what its paper says if D judges each sample by itself (no batch norm in D)."""

    twice: ClassVar[str] = "each of them acts"
    """What two of its kind in one recipe come to, as the end of a warning."""

    asks_d: ClassVar[bool] = True
    """Whether it acts on D or on what D says, so that it has no place in a game for one."""

    @property
    def reads_codes(self) -> bool:
        """Whether it reads the codes of reals, which takes an encoder."""
        return self.reads_region

    @property
    def reads_region(self) -> bool:
        """Whether it reads the region that a code may lie in."""
        return False

    @property
    def reads(self) -> frozenset[Said]:
        """What D must say beside its score; "classes" takes labelled data and gives D a classifier's head."""
        return frozenset()

    @property
    def bounds_slope(self) -> bool:
        """Whether it holds D's slope, which an objective without bounds needs."""
        return False

    @property
    def called(self) -> str:
        """What it is called in a run, before it is numbered."""
        return str(self.tag())

    @property
    def pack(self) -> int:
        """How many samples it lets D judge at once."""
        return 1

    @property
    def reads_sign(self) -> bool:
        """Whether it reads from D's score on which side D sees a sample, which not every objective's scores say."""
        return False

    @property
    def picks(self) -> bool:
        """Whether it leaves out some of G's costs."""
        return False

    @property
    def splits(self) -> bool:
        """Whether it takes the objective's cost of fakes by itself, which not every objective has."""
        return False

    @property
    def shows(self) -> bool:
        """Whether it keeps a network that samples come from."""
        return False

    @property
    def ties_samples(self) -> bool:
        """Whether a sample's score depends on the others of its pile with it."""
        return False

    def compares(self, scores: int) -> int | None:
        """How many of a pile's `scores` samples it compares with each other; None if it compares none."""
        return None

    @property
    def first_acts(self) -> int:
        """The steps that a run must have before it does anything."""
        return 0

    @property
    def adds_to_score(self) -> bool:
        """Whether it puts something beside D's score, which an energy (a reconstruction error) can't take."""
        return False

    @property
    def keeps(self) -> int:
        """How many samples it keeps, in memory and in every save."""
        return 0

    def replaces(self, fakes: int) -> int:
        """How many of `fakes` new fakes, at most, D is shown stored ones for."""
        return 0

    def filled(self, fakes: int) -> float:
        """The steps until its pool is full, if it is offered `fakes` new fakes in each; infinity for never."""
        return 0

    @property
    def takes_all(self) -> bool:
        """Whether no fake counts as new once it has acted, so that another of its sort would have nothing to do."""
        return False

    def misfit(self, shape: Shape) -> tuple[str, str] | None:
        """Why it can't act on samples of `shape`, and the cure; None if it can."""
        return None

    def build(self, name: str, stage: Stage) -> Trick:
        """The module that acts, named `name`."""
        raise NotImplementedError
