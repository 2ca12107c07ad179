"""Word vectors: every format is read as its program writes it, and what is wrong is named with its line."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from poise.data.word_vectors import WordVectors, is_word_vectors, normalise, read_word_vectors, write_word_vectors
from poise.errors import DataError

WORDS = ("the", "naïve", "New York", "日本", ",", "12")
VECTORS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def text(tmp_path: Path, content: bytes, name: str = "words.vec") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["w.vec", "w.txt", "w.npz", "w.bin"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    words = tuple(word.replace(" ", "_") if name == "w.bin" else word for word in WORDS)
    write_word_vectors(tmp_path / name, WordVectors(words, VECTORS))
    read = read_word_vectors(tmp_path / name)
    assert read.words == words
    assert read.notes == ()
    assert read.vectors.dtype == np.float32
    tolerance = 1e-5 if name in ("w.vec", "w.txt") else 0
    assert np.allclose(read.vectors, VECTORS, rtol=tolerance, atol=0)
    assert is_word_vectors(tmp_path / name)
    few = read_word_vectors(tmp_path / name, limit=2)
    assert few.words == words[:2]
    assert few.notes == ()
    assert np.array_equal(few.vectors, read.vectors[:2])


@pytest.mark.parametrize(
    "content",
    [
        b"2 3\na 1 2 3 \nb -1 0.5 1e-3 \n",  # fastText: a space ends each line
        b"2 3\r\na 1 2 3\r\nb -1 0.5 1e-3\r\n",
        b"a 1 2 3\nb -1 0.5 1e-3",  # GloVe: no header
        b"a\t1\t2\t3\nb\t-1\t0.5\t1e-3\n",
        b"\xef\xbb\xbf2 3\na  1  2  3\n\nb -1 0.5 1e-3\n\n",
    ],
)
def test_text_of_several_programs(tmp_path: Path, content: bytes) -> None:
    read = read_word_vectors(text(tmp_path, content))
    assert read.words == ("a", "b")
    assert np.array_equal(read.vectors, np.array([[1, 2, 3], [-1, 0.5, 1e-3]], np.float32))
    assert read.notes == ()


def test_a_word_may_be_anything_but_its_numbers(tmp_path: Path) -> None:
    lines = ["7 2", "at 5 1 2", ". . . 3 4", "\u00a0 5 6", "\u2028 7 8", "0.5 9 10", " 11 12", "x\u0085y 13 14"]
    read = read_word_vectors(text(tmp_path, "\n".join(lines).encode()))
    assert read.words == ("at 5", ". . .", "\u00a0", "\u2028", "0.5", "", "x\u0085y")
    assert np.array_equal(read.vectors.ravel(), np.arange(1, 15))


def test_without_a_header_the_first_line_says_how_many_numbers_there_are(tmp_path: Path) -> None:
    read = read_word_vectors(text(tmp_path, b"12 1 2\n13 3 4\n"))
    assert read.words == ("12", "13")
    assert read.vectors.shape == (2, 2)


def test_the_binary_format_with_and_without_line_breaks(tmp_path: Path) -> None:
    vectors = np.array([[1, -2], [3.5, 0x0A0A0A0A]], np.float32)  # the last bytes must not be taken for a line break
    for end in (b"\n", b""):
        records = b"".join(
            word + b" " + row.astype("<f4").tobytes() + end for word, row in zip((b"a", b"b"), vectors, strict=True)
        )
        read = read_word_vectors(text(tmp_path, b"2 2\n" + records, "w.bin"))
        assert read.words == ("a", "b")
        assert np.array_equal(read.vectors, vectors)


def test_more_words_than_announced_are_read_and_told(tmp_path: Path) -> None:
    for name, one in (("w.vec", b"%s 1 2\n"), ("w.bin", b"%s " + VECTORS[0, :2].tobytes() + b"\n")):
        path = text(tmp_path, b"2 2\n" + b"".join(one % word for word in (b"a", b"b", b"c")), name)
        read = read_word_vectors(path)
        assert read.words == ("a", "b", "c")
        assert read.notes == (f"{path} announces 2 words in its first line and has 3 words",)
        assert read_word_vectors(path, limit=2).notes == ()


def test_compressed_files(tmp_path: Path) -> None:
    path = text(tmp_path, gzip.compress(b"1 2\na 1 2\n"), "w.vec.gz")
    assert is_word_vectors(path)
    assert read_word_vectors(path).words == ("a",)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"w\.vec\.gz: can't be read"):
        read_word_vectors(path)


def test_points_without_words(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", VECTORS.astype(np.float64))
    np.savez(tmp_path / "points.npz", vectors=VECTORS)
    for name in ("points.npy", "points.npz"):
        read = read_word_vectors(tmp_path / name, limit=3)
        assert read.words == ("0", "1", "2")
        assert np.array_equal(read.vectors, VECTORS[:3])


def test_notes_say_what_was_changed(tmp_path: Path) -> None:
    path = text(tmp_path, b"9 1\na 1\nb 2\na 3\n\xff\xfe 4\n")
    read = read_word_vectors(path)
    assert read.words == ("a", "b", r"\xff\xfe")
    assert np.array_equal(read.vectors.ravel(), [1, 2, 4])
    assert read.notes == (
        f"1 word of {path} repeats an earlier one",
        rf"1 word of {path} is not valid UTF-8; the bytes are written as \x..",
        f"{path} announces 9 words in its first line and has 4 words",
    )
    arrays = tmp_path / "w.npz"
    np.savez(arrays, words=np.array(["a", "b", "a"]), vectors=VECTORS[:3])
    read = read_word_vectors(arrays)
    assert read.words == ("a", "b")
    assert np.array_equal(read.vectors, VECTORS[:2])
    assert read.notes == (f"1 word of {arrays} repeats an earlier one",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.vec", b"", "w.vec:1: no word vectors, found no lines"),
        ("w.vec", b"3 2\n", "w.vec: no word vectors; use a file with at least one word"),
        ("w.vec", b"hello world\n", "w.vec:1: no word vectors, found hello world; each line must be a word"),
        ("w.vec", b"2 3\na 1 2 3\nb 1 2\n", "w.vec:3: must be a word and 3 numbers, as the first line announces, "),
        ("w.vec", b"a 1 2\nb 1 x\n", "w.vec:2: must be a word and 2 numbers, as the first line has, found 0 numbers"),
        ("w.vec", b"2 1\na 1 2\nb 3 4\n", "w.vec:2: must be a word and 1 number, as the first line announces, found 2"),
        ("w.vec", b"# 2 3\na 1 2 3\nb 4 5 6\n", "in 'a 1 2 3'; correct the first line, or download the file again"),
        ("w.vec", b"1 2\na 1 nan\n", "w.vec:2: must be finite numbers, found nan; remove the word"),
        ("w.vec", b"1 2\na 1 1e39\n", "w.vec:2: must be finite numbers, found 1e+39"),
        ("w.bin", b"2 2\na 1234567", "w.bin: the file ends before word 1 of the 2 that it announces"),
        ("w.bin", b"2 2\na 12345678\nb", "w.bin: the file ends before word 2 of the 2 that it announces"),
        ("w.bin", b"a 1 2\n", "w.bin: not a binary file of word2vec: its first line must be the number of words"),
        ("w.bin", b"1 999999999999999999\na 1234", "w.bin: not a binary file of word2vec: its first line"),
        ("w.bin", b"1 1\na 1234b 12", "w.bin: the file goes on after the 1 words that it announces, but not with"),
        ("w.bin", bytes.fromhex("ba164f2f0c000000"), "w.bin: a model of fastText, which is not a list of word vectors"),
        ("w.bin", b"1 1\n" + b"x" * 10_001, "w.bin: word 1: no space within 10,000 bytes"),
        ("w.npz", b"PK", "w.npz: not an archive or array of NumPy"),
        ("w.png", b"", "w.png: not a format of word vectors; use one of .vec"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_word_vectors(text(tmp_path, content, name))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"words": np.array(["a"])}, "'vectors' must be numbers, N x d, found no such array"),
        ({"vectors": np.array(3.0)}, "'vectors' must be numbers, N x d, found float64, 1"),
        ({"vectors": np.ones((2, 1)), "words": np.array("a")}, "'words' must be one text for each of 2 vectors"),
        ({"vectors": np.ones(3)}, "'vectors' must be numbers, N x d, found float64, 3"),
        ({"vectors": np.array([[1.0], [np.inf]])}, "row 1: must be finite numbers"),
        ({"vectors": np.ones((2, 1)), "words": np.array(["a"])}, "'words' must be one text for each of 2 vectors"),
        ({"vectors": np.ones((1, 1)), "words": np.array(["a"], object)}, "an object array is pickled"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=re.escape(message)):
        read_word_vectors(path)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, words=np.array(["a"]), vectors=np.ones((1, 1)))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1  # the flag of the first array
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"w.npz: not an archive or array of NumPy"):
        read_word_vectors(path)


def test_a_missing_file_and_other_archives(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.vec: no such file; check the spelling"):
        read_word_vectors(tmp_path / "no.vec")
    np.savez(tmp_path / "images.npz", images=VECTORS)
    assert not is_word_vectors(tmp_path / "images.npz")
    assert not is_word_vectors(tmp_path / "no.vec")
    assert not is_word_vectors(tmp_path)


def test_tabs_and_line_breaks_in_words_are_read_as_escapes_which_every_format_can_hold(tmp_path: Path) -> None:
    """As for bytes that are not UTF-8, one word of millions is no reason to refuse a file."""
    words = ("a\tb", "c\nd", "e\rf", "plain")
    clean = (r"a\tb", r"c\nd", r"e\rf", "plain")
    records = b"".join(word.encode() + b" " + bytes(4) for word in words)
    np.savez(tmp_path / "w.npz", words=np.array(words), vectors=VECTORS[:4])
    files = [text(tmp_path, b"4 1\n" + records, "w.bin"), tmp_path / "w.npz"]
    for path in files:
        read = read_word_vectors(path)
        assert read.words == clean
        assert read.notes == (rf"3 words of {path} contain a tab or a line break, written as \t, \n, \r",)
        for ending in (".vec", ".bin", ".npz"):
            write_word_vectors(tmp_path / f"again{ending}", read)
            again = read_word_vectors(tmp_path / f"again{ending}")
            assert (again.words, again.notes) == (clean, ())
    read = read_word_vectors(text(tmp_path, b"2 2\na\tb 1 2\nc\t3\t4\n"))
    assert read.words == (r"a\tb", "c")
    assert len(read.notes) == 1


@pytest.mark.parametrize(
    ("name", "word"), [("w.vec", "a\nb"), ("w.txt", "a\tb"), ("w.txt", "a\rb"), ("w.bin", "a b"), ("w.bin", "a\nb")]
)
def test_a_word_that_a_format_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, word: str
) -> None:
    with pytest.raises(DataError, match="a word contains a separator of this format, found '"):
        write_word_vectors(tmp_path / name, WordVectors((word,), VECTORS[:1]))
    with pytest.raises(DataError, match="not a format in which word vectors are written"):
        write_word_vectors(tmp_path / "w.csv", WordVectors(("a",), VECTORS[:1]))
    assert not list(tmp_path.iterdir())


def test_normalisation() -> None:
    vectors = np.array([[3, 4], [0, 0], [-6, 8]], np.float32)
    assert np.allclose(normalise(vectors, ["unit"]), [[0.6, 0.8], [0, 0], [-0.6, 0.8]])
    assert np.allclose(normalise(vectors, ["centre"]), [[4, 0], [1, -4], [-5, 4]])
    both = normalise(vectors, ["unit", "centre"])
    assert np.allclose(both.mean(0), 0, atol=1e-6)
    both = normalise(vectors, ["centre", "unit"])
    assert np.allclose(np.linalg.norm(both, axis=1), 1)
    assert both.dtype == np.float32
    assert normalise(vectors, []) is vectors
