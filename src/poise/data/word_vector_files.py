"""The formats of word vectors, entry by entry: text (fastText's `.vec`, word2vec) and binary (word2vec).

A file of either format begins with a line that announces the number of words and of dimensions; text of other programs,
such as GloVe, lacks it. The most frequent word comes first. A word is bytes up to a separator, not a token of
Unicode: it may contain no-break spaces or a character that is not valid UTF-8, and in text even spaces.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.errors import DataError
from poise.utils.printing import count_noun

Vector = npt.NDArray[np.float32]

LONGEST_WORD = 10_000
"""The length in bytes beyond which what looks like a word is taken for the sign of another format."""

NUM_CHECKED = 100
"""The number of lines of which not most may have more numbers than the first line announces."""

MAX_DIM = 100_000
"""The largest number of dimensions that is believed of a binary file."""

FASTTEXT_MODEL = (793712314).to_bytes(4, "little")
"""The first bytes of a model that fastText saves as `.bin`, which contains parts of words and not words alone."""


class Announced(NamedTuple):
    """What the first line of a file announces: the number of words, None if it has no such line, and of dimensions."""

    words: int | None
    dim: int


class Entry(NamedTuple):
    """A word, its vector and where it is: a line of a text file, or the number of the word in a binary one."""

    word: bytes
    vector: Vector
    where: str


class Entries(NamedTuple):
    """The entries of a file, in its order, with what its first line announces."""

    announced: Announced
    entries: Iterator[Entry]


def text_entries(stream: IO[bytes], path: str) -> Entries:
    """The entries of a text file: per line a word and its numbers, separated by spaces or tabs.

    The numbers are counted from the end of the line, so that the rest is the word, whatever it contains.

    Args:
        stream: the file.
        path: its name, for errors.

    Raises:
        DataError: a line has another number of numbers than the others, or one that is not finite.
    """
    start = list(islice(stream, 2))
    start[:1] = [line.removeprefix(codecs.BOM_UTF8) for line in start[:1]]
    if start and (header := _header(start[0])):
        announced, rest, number = header, start[1:], 2
    else:
        announced, rest, number = Announced(None, _numbers_at_the_end(start[0]) if start else 0), start, 1
    if announced.dim < 1:
        cure = "each line must be a word and its numbers, as in fastText's .vec files"
        found = _shown(start[0]) if start else "no lines"
        raise DataError("no word vectors", where=f"{path}:1", found=found, cure=cure)
    return Entries(announced, _lines(chain(rest, stream), announced, path, number))


def _header(line: bytes) -> Announced | None:
    """The header that a line is, or None: two whole numbers."""
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() and len(field) < 19 for field in fields):
        return Announced(int(fields[0]), int(fields[1]))
    return None


def _numbers_at_the_end(line: bytes) -> int:
    """How many numbers follow the word at the beginning of a line; 0 if its last field is none."""
    fields = line.split()
    for count, field in enumerate(reversed(fields)):
        try:
            float(field)
        except ValueError:
            return count
    return max(len(fields) - 1, 0)  # the word is a number itself


def _lines(lines: Iterable[bytes], announced: Announced, path: str, number: int) -> Iterator[Entry]:
    dim, lines = announced.dim, iter(lines)
    start = [line.rstrip(b"\r\n \t") for line in islice(lines, NUM_CHECKED)]
    longer = [(at, line) for at, line in enumerate(start, number) if _numbers_at_the_end(line) > dim]
    if 2 * len(longer) > len(start):  # not a few words that end in a number
        cure = "correct the first line, or download the file again"
        raise _wrong_count(longer[0][1], dim, f"{path}:{longer[0][0]}", announced, cure)
    for at, full in enumerate(chain(start, lines), number):
        line = full.rstrip(b"\r\n \t")
        if not line:
            continue
        where = f"{path}:{at}"
        word, *fields = line.rsplit(None, dim)
        if len(fields) == dim - 1 and line[:1].isspace():
            word, fields = b"", [word, *fields]
        try:
            vector = np.array([float(field) for field in fields], np.float64)
        except ValueError:
            raise _wrong_count(line, dim, where, announced) from None
        if len(vector) != dim:
            raise _wrong_count(line, dim, where, announced)
        yield Entry(word, _as_float32(vector, where), where)


def _wrong_count(
    line: bytes,
    dim: int,
    where: str,
    announced: Announced,
    cure: str = "remove the line, or download the file again if it is the last one",
) -> DataError:
    origin = "the first line announces" if announced.words is not None else "the first line has"
    found = f"{count_noun(_numbers_at_the_end(line), 'number')} in '{_shown(line)}'"
    what = f"must be a word and {count_noun(dim, 'number')}, as {origin}"
    return DataError(what, where=where, found=found, cure=cure)


def _shown(line: bytes) -> str:
    text = line[:40].decode("utf-8", "backslashreplace").strip()
    return text + ("..." if len(line) > 40 else "")


def _as_float32(vector: npt.NDArray[np.floating], where: str) -> Vector:
    """The vector in float32.

    Raises:
        DataError: one of its numbers is not finite, or too large.
    """
    with np.errstate(over="ignore"):
        converted = vector.astype(np.float32)
    if not np.isfinite(converted).all():
        found = f"{vector[~np.isfinite(converted)][0]:g}"
        raise DataError("must be finite numbers", where=where, found=found, cure="remove the word")
    return converted


def binary_entries(stream: IO[bytes], path: str) -> Entries:
    """The entries of a binary file of word2vec: a line with both counts, then each word, a space and d float32.

    Args:
        stream: the file.
        path: its name, for errors.

    Raises:
        DataError: the file has another format, or ends within a vector.
    """
    first = stream.readline(LONGEST_WORD)
    if first.startswith(FASTTEXT_MODEL):
        cure = "use the .vec file that belongs to it"
        raise DataError("a model of fastText, which is not a list of word vectors", where=path, cure=cure)
    announced = _header(first)
    if announced is None or announced.words is None or not 1 <= announced.dim <= MAX_DIM:
        what = "not a binary file of word2vec: its first line must be the number of words and of dimensions"
        raise DataError(what, where=path, cure="rename a text file to .vec")
    return Entries(announced, _records(stream, announced.words, announced.dim, path))


def _records(stream: IO[bytes], count: int, dim: int, path: str) -> Iterator[Entry]:
    for number in itertools.count(1):
        where = f"{path}: word {number:,}"
        word = _word_of_record(stream, where)
        if word is None and number > count:
            return
        data = stream.read(4 * dim)
        if word is None or len(data) < 4 * dim:
            what = f"the file ends before word {number:,} of the {count:,} that it announces"
            if number > count:
                what = f"the file goes on after the {count:,} words that it announces, but not with a whole word"
            raise DataError(what, where=path, cure="download it again")
        yield Entry(word, _as_float32(np.frombuffer(data, "<f4"), where), where)


def _word_of_record(stream: IO[bytes], where: str) -> bytes | None:
    """The bytes up to the next space, without the line break that some programs write before them; None at the end."""
    word = bytearray()
    while (byte := stream.read(1)) != b" ":
        if not byte:
            return None
        word += byte
        if len(word) > LONGEST_WORD:
            what = f"no space within {LONGEST_WORD:,} bytes: not a binary file of word2vec, or a damaged one"
            raise DataError(what, where=where, cure="download it again")
    return bytes(word).removeprefix(b"\n")
