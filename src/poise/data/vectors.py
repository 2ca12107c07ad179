"""`vectors`: two sets of vectors that are not paired, such as the words of two languages (Conneau et al. 2018).

A sample is a vector of a and, after it, one of b, drawn independently of each other. There are no images: a vector has
no layout and no range. It is normalised as a whole (`word_vectors.normalise`) and multiplied by sqrt(d), so that the
mean square of the entries of a vector of length 1 is 1, as of other data; a linear map is the same with that factor.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, Strict
from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.core.types import Batch
from poise.data.config import PointsConfig
from poise.data.listing import display_name
from poise.data.paths import PathText
from poise.data.source import DataSplits, DataWarning, Source
from poise.data.word_vectors import Normalisation, WordVectors, normalise, read_word_vectors
from poise.errors import DataError
from poise.utils.paths import expand_home
from poise.utils.printing import agree, count_noun

MIN_VECTORS = 10
"""The smallest number of vectors of a set: of fewer, CSLS has no neighbours to compare with, and D sees no density."""


FEWEST_PER_DIMENSION = 4
"""The number of vectors per dimension below which a warning says that there are few."""

NO_MEASURES = "sets of vectors have no measures: poise align says how good a map is"


class VectorSet(Source):
    """Vectors, of which the first, the most frequent ones, are drawn at random with replacement.

    Args:
        vectors: float32, N x d.
        most_frequent: the number of vectors that are drawn from; all of them if there are fewer.
        name: the name of the random stream that the draws come from.
    """

    def __init__(self, vectors: Tensor, most_frequent: int, name: str) -> None:
        self.vectors, self.drawn, self.name = vectors, vectors[:most_frequent], name
        self.shape = (vectors.shape[1],)
        self.contents = f"{count_noun(len(vectors), 'vector')} of {count_noun(vectors.shape[1], 'entry', 'entries')}"

    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        """Batch `index`: a function of (seed, index), drawn on the host so that it does not depend on the device."""
        return Batch(self.draw(size, RandomStreams(streams.seed)(f"data/{self.name}", index)))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """See `Source.draw`: n x d."""
        return self.drawn[torch.randint(len(self.drawn), (n,), generator=generator)]

    def preview(self, n: int) -> Tensor:
        """n vectors, evenly spaced over those that are drawn from; some repeat if there are fewer."""
        return self.drawn[torch.arange(n) * len(self.drawn) // n]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the vectors and of the number that are drawn from."""
        header = repr((tuple(self.vectors.shape), len(self.drawn)))
        return hashlib.sha256(header.encode() + self.vectors.numpy().tobytes()).hexdigest()[:16]


class VectorSets(Source):
    """A vector of a and one of b, B x 2d, drawn independently of each other.

    Args:
        a: the sources.
        b: the targets, with equally many entries.
        most_frequent: see `VectorSet`.
    """

    def __init__(self, a: Tensor, b: Tensor, most_frequent: int) -> None:
        self.sets = VectorSet(a, most_frequent, "a"), VectorSet(b, most_frequent, "b")
        self.parts = (a.shape[1], b.shape[1])
        self.shape = (sum(self.parts),)
        self.contents = f"{self.sets[0].contents}, and {self.sets[1].contents}"

    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        """See `VectorSet.batch`; each set has a random stream of its own."""
        return Batch(torch.cat([one.batch(index, size, streams).images for one in self.sets], 1))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """See `Source.draw`."""
        return torch.cat([one.draw(n, generator) for one in self.sets], 1)

    def preview(self, n: int) -> Tensor:
        """See `VectorSet.preview`."""
        return torch.cat([one.preview(n) for one in self.sets], 1)

    @property
    def domain_sources(self) -> tuple[VectorSet, VectorSet]:
        """The sources and the targets."""
        return self.sets

    @property
    def fingerprint(self) -> str:
        """A hash of those of both sets."""
        return hashlib.sha256("/".join(one.fingerprint for one in self.sets).encode()).hexdigest()[:16]


class TwoSets(NamedTuple):
    """Two sets of vectors as they were read, before they are normalised."""

    a: WordVectors
    b: WordVectors


class VectorSetsConfig(PointsConfig):
    """The base of data that consists of two sets of vectors.

    D's samples are drawn from the `most_frequent` first vectors of each set, since those of rare words are noisy.
    `normalisation` lists the steps that each set is normalised by; see `word_vectors.normalise`. Centring is possible,
    but it removes what D finds first: the mean.
    """

    most_frequent: int = Field(default=75_000, ge=1)
    normalisation: Annotated[tuple[Normalisation, ...], Strict(False)] = ("unit",)

    @abstractmethod
    def read(self) -> TwoSets:
        """Both sets.

        Raises:
            DataError: a file is missing or damaged, or the sets can't be mapped onto each other.
        """

    def normalised(self, one: WordVectors) -> Tensor:
        """The normalised vectors of a set, float32, N x d."""
        return torch.from_numpy(normalise(one.vectors, self.normalisation))

    def load(self, root: Path | None = None) -> DataSplits:
        """Both sets, normalised; `root` is not used, and nothing is held out.

        Raises:
            DataError: see `read`.
        """
        sets = self.read()
        a, b = (self.normalised(one) * one.vectors.shape[1] ** 0.5 for one in sets)
        source = VectorSets(a, b, self.most_frequent)
        notes = [*sets.a.notes, *sets.b.notes]
        for name, vectors in (("a", a), ("b", b)):
            if zeros := int((vectors == 0).all(1).sum()):
                notes.append(
                    f"{count_noun(zeros, 'vector')} of {name} {agree(zeros, 'is', 'are')} zero and can't be mapped"
                )
        return DataSplits(source, notes=notes, warnings=_few_vectors(len(a), len(b), a.shape[1]))


def _few_vectors(a: int, b: int, dim: int) -> list[DataWarning]:
    """A warning if the smaller set does not determine a map of d x d numbers well."""
    if min(a, b) >= FEWEST_PER_DIMENSION * dim:
        return []
    message = f"a map has {dim} x {dim} numbers, and the smaller set has only {count_noun(min(a, b), 'vector')}"
    cure = f"use {FEWEST_PER_DIMENSION * dim:,} or more, or vectors of fewer dimensions"
    return [DataWarning(message, cure, "T23")]


class VectorsConfig(VectorSetsConfig):
    """The vectors of two files, the sources `a` and the targets `b`, with the most frequent words first.

    The formats are those of `word_vectors.read_word_vectors`. Of each file the first `vocabulary` vectors are read.
    """

    kind: Literal["vectors"] = "vectors"
    a: PathText
    b: PathText
    vocabulary: int = Field(default=200_000, ge=MIN_VECTORS)

    @property
    def paths(self) -> tuple[str, ...]:
        """See `DataConfig.paths`."""
        return self.a, self.b

    def read(self) -> TwoSets:
        """See `VectorSetsConfig.read`."""
        sets = TwoSets(*(_read(path, f"data.{name}", self.vocabulary) for name, path in (("a", self.a), ("b", self.b))))
        dims = [one.vectors.shape[1] for one in sets]
        if dims[0] != dims[1]:
            found = f"{dims[0]:,} in {display_name(self.a)}, {dims[1]:,} in {display_name(self.b)}"
            cure = "train both sets with the same dimension, or reduce the larger one by PCA"
            what = "the vectors of both sets must have equally many entries"
            raise DataError(what, where="data", found=found, cure=cure)
        return sets


def _read(path: str, where: str, limit: int) -> WordVectors:
    """A set of at least `MIN_VECTORS` vectors; what has been read is kept until the file changes.

    Raises:
        DataError: see `VectorSetsConfig.read`.
    """
    location = expand_home(path)
    try:
        stat = location.stat()
        stamp = stat.st_mtime_ns, stat.st_size
    except OSError:
        stamp = 0, 0  # the error that follows says why
    words = _read_once(location, limit, stamp)
    if len(words.words) < MIN_VECTORS:
        found = f"{count_noun(len(words.words), 'vector')} in {display_name(path)}"
        raise DataError(f"needs at least {MIN_VECTORS} vectors", where=where, found=found, cure="use a larger set")
    return words


@lru_cache(maxsize=2)
def _read_once(path: Path, limit: int, stamp: tuple[int, int]) -> WordVectors:
    """Read a file, once for all runs of a process that start from it, as reading takes longer than anything else.

    Args:
        path: the file.
        limit: the number of vectors that are read.
        stamp: the time of its last change, and its size.
    """
    return read_word_vectors(path, limit)
