"""Dictionaries of word pairs in the format of MUSE, and how many of their translations a map finds.

Each line is a word and a translation of it, separated by a tab or, if neither contains one, by spaces. A word with
several translations has several lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from poise.alignment.neighbours import mean_similarities, nearest_by_cosine, nearest_by_csls
from poise.errors import DataError
from poise.utils.printing import count_noun

Dictionary = Mapping[str, frozenset[str]]
"""The translations of each word."""


def read_dictionary(path: Path) -> Dictionary:
    """Read a dictionary.

    Raises:
        DataError: the file is missing or is not UTF-8, a line is not two words, or there is none.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), cure="check the spelling") from None
    except UnicodeDecodeError as error:
        cure = "convert the file to UTF-8"
        raise DataError("not valid UTF-8", where=str(path), found=f"byte {error.start}", cure=cure) from None
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    found: dict[str, set[str]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) != 2 or not all(fields):
            cure = "separate a word from its translation by a tab"
            what = "must be a word and its translation"
            raise DataError(what, where=f"{path}:{number}", found=f"'{line[:60].strip()}'", cure=cure)
        found.setdefault(fields[0], set()).add(fields[1])
    if not found:
        raise DataError("no pairs of words", where=str(path))
    return {word: frozenset(translations) for word, translations in found.items()}


class KnownPairs(NamedTuple):
    """The part of a dictionary whose words have vectors.

    Attributes:
        sources: the indices of the words, the most frequent first.
        targets: the indices of the translations of each of them.
        total: the number of words in the dictionary.
    """

    sources: tuple[int, ...]
    targets: tuple[frozenset[int], ...]
    total: int

    @property
    def pairs(self) -> Tensor:
        """All pairs of indices, int64, n x 2."""
        return torch.tensor(
            [(i, j) for i, all_j in zip(self.sources, self.targets, strict=True) for j in sorted(all_j)]
        )


def find_pairs(dictionary: Dictionary, source: Sequence[str], target: Sequence[str], where: str) -> KnownPairs:
    """Look up the words of a dictionary; words without a vector, or whose translations have none, are left out.

    Args:
        dictionary: the dictionary.
        source: the source words.
        target: the target words.
        where: what an error names.

    Raises:
        DataError: no pair has vectors on both sides.
    """
    rows = {word: row for row, word in enumerate(target)}
    found = [
        (row, frozenset(rows[translation] for translation in dictionary.get(word, ()) if translation in rows))
        for row, word in enumerate(source)
    ]
    known = [(row, translations) for row, translations in found if translations]
    if not known:
        example = next(iter(dictionary))
        total = f"{count_noun(len(dictionary), 'word')}, such as '{example}'"
        cure = "check its order (source, then target) and whether both use capital letters"
        raise DataError("no pair of this dictionary has vectors on both sides", where=where, found=total, cure=cure)
    return KnownPairs(*zip(*known, strict=True), total=len(dictionary))  # type: ignore[call-arg]


class Precision(NamedTuple):
    """The share of words, 0 to 1, with a right translation among the k nearest targets, by k."""

    csls: Mapping[int, float]
    cosine: Mapping[int, float]


def precision(source: Tensor, target: Tensor, known: KnownPairs, ks: Sequence[int] = (1, 5, 10)) -> Precision:
    """P@k of the known words, as in MUSE: any of a word's translations is right, and every word counts once.

    Args:
        source: the mapped sources, N x d, rows of length 1.
        target: M x d, rows of length 1.
        known: the words that are looked up.
        ks: the numbers of neighbours.
    """
    rows = torch.tensor(known.sources)
    means = mean_similarities(source, target)
    csls = nearest_by_csls(source[rows], target, means.source[rows], means.target, max(ks))
    cosine = nearest_by_cosine(source[rows], target, max(ks))
    return Precision(_shares(csls.indices, known, ks), _shares(cosine.indices, known, ks))


def _shares(indices: Tensor, known: KnownPairs, ks: Sequence[int]) -> dict[int, float]:
    nearest = indices.tolist()
    return {
        k: sum(not right.isdisjoint(row[:k]) for row, right in zip(nearest, known.targets, strict=True)) / len(nearest)
        for k in ks
    }
