"""Word vectors: a vector for each word of a vocabulary, read from and written to the files of the usual programs.

Points without words are vectors too: an `.npy` array, or an `.npz` archive without `words`. Nothing here needs torch.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from poise.data.word_vector_files import Entries, Vector, binary_entries, text_entries
from poise.errors import DataError
from poise.utils.files import open_atomic
from poise.utils.printing import agree, count_noun

FORMATS = "one of .vec, .txt (text), .bin (word2vec), each also with .gz, .npz (words, vectors) and .npy"

ENTRY_FORMATS: Mapping[str, Callable[[IO[bytes], str], Entries]] = {
    ".vec": text_entries,
    ".txt": text_entries,
    ".bin": binary_entries,
}


SEPARATORS = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
"""What separates words or lines in the files that words are written to, and what is read in its place."""

ESCAPES = str.maketrans(SEPARATORS)


class WordVectors(NamedTuple):
    """The words of a vocabulary and their vectors.

    Attributes:
        words: N distinct words, the most frequent first.
        vectors: float32, N x d, finite.
        notes: sentences on what was left out or changed when they were read.
    """

    words: tuple[str, ...]
    vectors: Vector
    notes: tuple[str, ...] = ()

    def most_frequent(self, n: int) -> WordVectors:
        """The first n words."""
        return WordVectors(self.words[:n], self.vectors[:n], self.notes)


Normalisation = Literal["centre", "unit"]


def normalise(vectors: Vector, steps: Sequence[Normalisation]) -> Vector:
    """Normalise vectors, N x d, in steps; the steps of MUSE are `centre` and `unit`, in any order.

    `centre` subtracts the mean of all vectors, and `unit` divides each vector by its norm; a vector of zeros stays.
    """
    for step in steps:
        if step == "centre":
            vectors = vectors - vectors.mean(0, dtype=np.float64).astype(np.float32)
        else:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            norms[norms == 0] = 1
            vectors = (vectors / norms).astype(np.float32)
    return vectors


def format_of(path: Path) -> str:
    """The ending that says the format of a file, in lower case: that before `.gz` of a compressed one."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def is_word_vectors(path: Path) -> bool:
    """Whether a file holds vectors, by its ending; an archive does if it has an array `vectors`."""
    ending = format_of(path)
    if not path.is_file() or ending not in (*ENTRY_FORMATS, ".npz", ".npy"):
        return False
    if ending != ".npz":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "vectors.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_word_vectors(path: Path, limit: int | None = None) -> WordVectors:
    """Read a file of vectors. Of a word that occurs again only the first vector, the most frequent one, is kept.

    Bytes of a word that are not valid UTF-8 become escapes such as `\\xff`, and so do tabs and line breaks in a word
    (`\\t`): no line of a text could hold them, and not every reader of the binary format keeps them.

    Args:
        path: the file; its ending says the format: `FORMATS`.
        limit: the number of words, at least 1, after which reading ends; None to read all.

    Raises:
        DataError: the file is missing, damaged, has another format, or holds no vectors.
    """
    ending = format_of(path)
    try:
        if ending in ENTRY_FORMATS:
            with cast("IO[bytes]", gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")) as stream:
                return _from_entries(ENTRY_FORMATS[ending](stream, str(path)), limit, str(path))
        if ending in (".npz", ".npy"):
            return _from_arrays(_load_arrays(path), limit, str(path))
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), cure="check the spelling") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"can't be read: {reason}", where=str(path)) from None
    raise DataError("not a format of word vectors", where=str(path), cure=f"use {FORMATS}")


def _from_entries(entries: Entries, limit: int | None, path: str) -> WordVectors:
    """Collect the entries of a file up to a limit."""
    announced, rows = entries
    found: dict[str, Vector] = {}
    repeated = invalid = escaped = 0
    for entry in rows:
        decoded = entry.word.decode("utf-8", "backslashreplace")
        invalid += "\\x" in decoded and b"\\x" not in entry.word
        word = decoded.translate(ESCAPES)
        escaped += word != decoded
        if word in found:
            repeated += 1
            continue
        found[word] = entry.vector
        if len(found) == limit:
            break
    if not found:
        raise DataError("no word vectors", where=path, cure="use a file with at least one word")
    notes = []
    if repeated:
        notes.append(f"{count_noun(repeated, 'word')} of {path} {agree(repeated, 'repeats', 'repeat')} an earlier one")
    if invalid:
        what = f"{agree(invalid, 'is', 'are')} not valid UTF-8"
        notes.append(f"{count_noun(invalid, 'word')} of {path} {what}; the bytes are written as \\x..")
    notes += _escape_note(escaped, path)
    if announced.words is not None and len(found) != limit and len(found) + repeated != announced.words:
        total = count_noun(len(found) + repeated, "word")
        notes.append(f"{path} announces {announced.words:,} words in its first line and has {total}")
    return WordVectors(tuple(found), np.stack(list(found.values())), tuple(notes))


def _escape_note(count: int, path: str) -> list[str]:
    """A note on words with tabs or line breaks; none without any."""
    if not count:
        return []
    what = f"{agree(count, 'contains', 'contain')} a tab or a line break, written as {', '.join(SEPARATORS.values())}"
    return [f"{count_noun(count, 'word')} of {path} {what}"]


def _load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays `words` and `vectors` of an archive, or a single array as `vectors`; pickles are not loaded.

    Raises:
        DataError: it is damaged, or pickled.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"vectors": loaded}
        with loaded:
            return {name: loaded[name] for name in ("words", "vectors") if name in loaded.files}
    except (ValueError, zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError) as error:  # e.g. encrypted
        pickled = "Object arrays" in str(error)
        what = "an object array is pickled and is not loaded" if pickled else "not an archive or array of NumPy"
        cure = "save words with np.array(words) and vectors as a float array"
        raise DataError(what, where=str(path), cure=cure) from None


def _from_arrays(arrays: Mapping[str, npt.NDArray[Any]], limit: int | None, path: str) -> WordVectors:
    """Check arrays and convert them.

    Raises:
        DataError: they have another type or shape, or a number is not finite.
    """
    vectors = np.atleast_1d(arrays.get("vectors", np.empty(0)))[:limit]
    if vectors.ndim != 2 or vectors.size == 0 or vectors.dtype.kind not in "fiu":
        found = f"{vectors.dtype}, {' x '.join(map(str, vectors.shape))}" if "vectors" in arrays else "no such array"
        raise DataError("'vectors' must be numbers, N x d", where=path, found=found, cure=f"use {FORMATS}")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(vectors, np.float32)
    bad = np.flatnonzero(~np.isfinite(converted).all(1))
    if len(bad):
        raise DataError("must be finite numbers", where=f"{path}: row {bad[0]}", cure="remove the row")
    if "words" not in arrays:
        return WordVectors(tuple(map(str, range(len(converted)))), converted)
    words = np.atleast_1d(arrays["words"])[:limit]
    if words.shape != converted.shape[:1] or words.dtype.kind not in "US":
        found = f"{words.dtype}, {' x '.join(map(str, words.shape))}"
        what = f"'words' must be one text for each of {count_noun(len(converted), 'vector')}"
        raise DataError(what, where=path, found=found)
    decoded = [word.decode("utf-8", "backslashreplace") if isinstance(word, bytes) else str(word) for word in words]
    texts = [word.translate(ESCAPES) for word in decoded]
    first = {word: row for row, word in reversed(list(enumerate(texts)))}
    rows = sorted(first.values())
    dropped = len(texts) - len(rows)
    notes = _escape_note(sum(a != b for a, b in zip(texts, decoded, strict=True)), path)
    if dropped:
        notes.append(f"{count_noun(dropped, 'word')} of {path} {agree(dropped, 'repeats', 'repeat')} an earlier one")
    return WordVectors(tuple(texts[row] for row in rows), converted[rows], tuple(notes))


def write_word_vectors(path: Path, words: WordVectors) -> None:
    """Write a file of vectors in the format of its ending, uncompressed. Text has six significant digits.

    A `.npy` array has no words.

    Raises:
        DataError: a word can't be written in this format, or the ending is none of `.vec`, `.txt`, `.bin`, `.npz` and
            `.npy`.
        DiskError: the file can't be written; the old version stays.
    """
    if path.suffix.lower() == ".npz":
        with open_atomic(path) as stream:
            np.savez(stream, allow_pickle=False, words=np.array(words.words), vectors=words.vectors)
        return
    if path.suffix.lower() == ".npy":
        with open_atomic(path) as stream:
            np.save(stream, words.vectors, allow_pickle=False)
        return
    if path.suffix.lower() not in ENTRY_FORMATS:
        cure = "use .vec, .txt, .bin, .npz or .npy"
        raise DataError("not a format in which word vectors are written", where=str(path), cure=cure)
    binary = path.suffix.lower() == ".bin"
    refuse_separators(words.words, " \n" if binary else "".join(SEPARATORS), path, "write .npz")
    with open_atomic(path) as stream:
        stream.write(b"%d %d\n" % words.vectors.shape)
        for word, vector in zip(words.words, words.vectors, strict=True):
            text = word.encode("utf-8", "surrogatepass")
            if binary:
                stream.write(text + b" " + vector.astype("<f4").tobytes() + b"\n")
            else:
                stream.write(text + b" " + b" ".join(b"%.6g" % number for number in vector.tolist()) + b"\n")


def refuse_separators(words: Iterable[str], separators: str, path: Path, cure: str = "") -> None:
    """Check that a format can hold words.

    Args:
        words: the words.
        separators: the characters that no word may contain.
        path: the file that is about to be written, for errors.
        cure: what to do instead.

    Raises:
        DataError: a word contains one of them.
    """
    for word in words:
        if any(character in word for character in separators):
            what = "a word contains a separator of this format"
            raise DataError(what, where=str(path), found=ascii(word), cure=cure)
