"""What a trick's recipe entry promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from poise.core import Said, Side
from poise.entries import Part
from poise.seams import Trick


class TrickEntry(Part):
    """A trick in a recipe: `tricks = [{kind = "..."}]`, in the order in which they act."""

    tip: ClassVar[str]
    """Its row in the catalogue of tips: "T07a"."""

    source: ClassVar[str]
    """The paper, with its arXiv number where it has one."""

    needs_targets: ClassVar[bool] = False
    """Whether it acts on D's targets, which the objective must then take."""

    needs_own_scores: ClassVar[bool] = False
    """Whether it is only what its paper says if D judges each sample by itself (no batch norm in D)."""

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

    def build(self, name: str, nets: Mapping[Side, nn.Module]) -> Trick:
        """The module that acts, named `name`; `nets` are the players' networks as they are before step 0."""
        raise NotImplementedError
