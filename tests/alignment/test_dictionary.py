"""Dictionaries in the format of MUSE, and P@k."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from alignment.vectors import cloud, slow_csls
from poise.alignment.dictionary import KnownPairs, find_pairs, precision, read_dictionary
from poise.errors import DataError


def save(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "en-de.txt"
    path.write_bytes(content)
    return path


def test_words_with_several_translations(tmp_path: Path) -> None:
    path = save(tmp_path, "\ufeffcat Katze\r\n\ncat\tKater \nNew York\tNew York\ndog  Hund\n".encode())
    expected = {"cat": {"Katze", "Kater"}, "New York": {"New York"}, "dog": {"Hund"}}
    assert read_dictionary(path) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a b\nc\n", "en-de.txt:2: must be a word and its translation, found 'c'; separate"),
        (b"a b c\n", "en-de.txt:1: must be a word and its translation, found 'a b c'"),
        (b"a\t\n", "en-de.txt:1: must be a word and its translation, found 'a'"),
        (b"\n\n", "en-de.txt: no pairs of words"),
        (b"a \xff\n", "en-de.txt: not valid UTF-8, found byte 2; convert the file to UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_dictionary(save(tmp_path, content))
    with pytest.raises(DataError, match="no such file"):
        read_dictionary(tmp_path / "no.txt")


def test_pairs_are_found_in_the_vocabularies() -> None:
    dictionary = {"b": frozenset("yz"), "a": frozenset("x"), "no": frozenset("x"), "c": frozenset("q")}
    known = find_pairs(dictionary, ("a", "b", "c"), ("z", "y", "x"), "en-de.txt")
    assert known == KnownPairs((0, 1), (frozenset({2}), frozenset({0, 1})), 4)
    assert known.pairs.tolist() == [[0, 2], [1, 0], [1, 1]]
    with pytest.raises(
        DataError, match=r"en-de\.txt: no pair of this dictionary has vectors on both sides, found 4 words"
    ):
        find_pairs(dictionary, ("A",), ("x",), "en-de.txt")


def test_precision_counts_words_as_muse_does() -> None:
    source, target = cloud(12, 3, 0), cloud(15, 3, 1)
    known = KnownPairs((1, 4, 7), (frozenset({2}), frozenset({0, 5}), frozenset({9, 14, 3})), 5)
    found = precision(source, target, known, (1, 3, 15))
    by_csls = np.argsort(-slow_csls(source, target, 10), 1)
    by_cosine = np.argsort(-(source @ target.T).numpy(), 1)
    for order, shares in ((by_csls, found.csls), (by_cosine, found.cosine)):
        for k in (1, 3, 15):
            hits = [bool(set(order[i, :k]) & right) for i, right in zip(known.sources, known.targets, strict=True)]
            assert shares[k] == pytest.approx(sum(hits) / 3)
    assert found.csls[15] == 1
    perfect = precision(target, target, KnownPairs((3, 8), (frozenset({3}), frozenset({8})), 2))
    assert perfect.csls == perfect.cosine == {1: 1.0, 5: 1.0, 10: 1.0}
