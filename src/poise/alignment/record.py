"""What a search has found so far: every evaluation and the best map, in a file from which the search is continued.

`search.npz` is an archive of NumPy, whose entries have checksums: `map` (the best refined map, d x d), `evaluations`
(a row for each, with the fields of `Evaluation`), `recipe` (that of the starts, as TOML, with the seed of the first
one), `data` (the fingerprint of the vectors) and `format`.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.errors import CheckpointError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import dotted_fields, parse_toml
from poise.utils.files import open_atomic
from poise.utils.printing import shorten_list

FILE = "search.npz"
FORMAT = 1

AGREEMENT = 0.9
"""The fraction of its pairs that must be confirmed (`held_out_agreement`) for a map to be clearly right.

It must be exceeded significantly, by an exact binomial test at the level `SIGNIFICANCE`.
"""

SIGNIFICANCE = 0.05

PAIRED = 0.5
"""The fraction of the vectors, of the smaller set, that must have a pair under such a map."""

PAIRS = 50
"""The least number of pairs under such a map: with fewer, nearly all may be confirmed under a wrong map.

What these are for right and for wrong maps is in docs/notes/align.md.
"""

LOCATION = ("data.a", "data.b")
"""The fields of a recipe that may change when a search is continued; the vectors are checked instead."""


class Evaluation(NamedTuple):
    """A map of one start, after its refinement.

    Attributes:
        start: the number of the start, from 1.
        step: the step after which the map was taken.
        before: the criterion of the map as it was trained.
        criterion: that of the refined map.
        pairs: the number of mutual nearest neighbours that the refined map was fitted to.
        share: the share of the vectors, of the smaller set, that have a pair.
        agreement: see `held_out_agreement`.
    """

    start: int
    step: int
    before: float
    criterion: float
    pairs: int
    share: float
    agreement: float

    @property
    def is_clear(self) -> bool:
        """Whether the map is clearly right, see `AGREEMENT`, `PAIRED` and `PAIRS`."""
        if self.agreement < AGREEMENT or self.share < PAIRED or self.pairs < PAIRS:
            return False
        from scipy.stats import binomtest

        confirmed = round(self.agreement * self.pairs)
        return bool(binomtest(confirmed, self.pairs, AGREEMENT, "greater").pvalue <= SIGNIFICANCE)


@dataclass
class SearchRecord:
    """The evaluations of a search and its best map.

    Attributes:
        folder: the folder of the search.
        recipe: that of the starts, with the seed of the first one.
        fingerprint: that of the normalised vectors.
        evaluations: all evaluations, in their order.
        weights: the best map, refined, d x d, on the host; None before the first evaluation.
    """

    folder: Path
    recipe: Recipe
    fingerprint: str
    evaluations: list[Evaluation] = field(default_factory=list)
    weights: Tensor | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / FILE

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the highest criterion, the earlier one of equals; None before the first one."""
        return max(self.evaluations, key=lambda found: found.criterion, default=None)

    @property
    def is_clear(self) -> bool:
        """Whether the best map is clearly right."""
        return self.best is not None and self.best.is_clear

    def steps(self, start: int) -> set[int]:
        """The steps of a start after which its map has been evaluated."""
        return {found.step for found in self.evaluations if found.start == start}

    def add(self, found: Evaluation, weights: Tensor) -> None:
        """Record an evaluation and its map, on the disk too.

        Raises:
            DiskError: the file can't be written; the old version stays.
        """
        self.evaluations.append(found)
        if self.best is found:
            self.weights = weights
        self.write()

    def write(self) -> None:
        """Write the file.

        Raises:
            DiskError: it can't be written; the old version stays.
        """
        with open_atomic(self.path) as stream:
            np.savez(
                stream,
                allow_pickle=False,
                map=np.empty((0, 0), np.float32) if self.weights is None else self.weights.numpy(),
                evaluations=np.array(self.evaluations, np.float64).reshape(-1, len(Evaluation._fields)),
                recipe=np.array(self.recipe.to_toml()),
                data=np.array(self.fingerprint),
                format=np.array(FORMAT),
            )

    def check_same(self, recipe: Recipe, fingerprint: str) -> None:
        """Check that a search with this recipe and these vectors is a continuation of this one.

        Raises:
            RecipeError: the recipe is another one; names the fields.
            CheckpointError: the vectors are others.
        """
        before, now = dotted_fields(self.recipe.canonical()), dotted_fields(recipe.canonical())
        changed = sorted(
            name for name in before.keys() | now.keys() if before.get(name) != now.get(name) and name not in LOCATION
        )
        if changed:
            cure = "give the same options as before, or none, or choose another --out"
            found = f"different values of {shorten_list(changed)}"
            raise RecipeError("a resumed alignment must keep its recipe", where="--resume", found=found, cure=cure)
        if fingerprint != self.fingerprint:
            cure = "restore those files, or choose another --out"
            raise CheckpointError("these are not the vectors of this alignment", where=str(self.folder), cure=cure)


def read_record(folder: Path) -> SearchRecord:
    """The record of a search.

    Raises:
        CheckpointError: there is none, it is damaged, or a newer version of poise has written it.
    """
    path = folder / FILE
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if int(arrays["format"]) > FORMAT:
            found = f"format {int(arrays['format'])}"
            what = "was written by a newer version of poise"
            raise CheckpointError(what, where=str(path), found=found, cure="update poise")
        recipe = decode(parse_toml(str(arrays["recipe"]), str(path)), str(path))
        evaluations = [_evaluation(row) for row in arrays["evaluations"].tolist()]
        weights = torch.from_numpy(arrays["map"]) if evaluations else None
        return SearchRecord(folder, recipe, str(arrays["data"]), evaluations, weights)
    except (FileNotFoundError, NotADirectoryError):
        cure = "start it without --resume"
        raise CheckpointError("no alignment to resume", where=str(folder), cure=cure) from None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, RecipeError) as error:
        cure = "start again with another --out"
        raise CheckpointError("is damaged", where=str(path), found=type(error).__name__, cure=cure) from None
    except OSError as error:
        raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(path)) from None


def _evaluation(row: list[float]) -> Evaluation:
    start, step, before, criterion, pairs, share, agreement = row
    return Evaluation(int(start), int(step), before, criterion, int(pairs), share, agreement)
