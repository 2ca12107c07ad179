"""`poise align`: vectors in, map and dictionary out; and what is wrong is said before anything is trained."""

from __future__ import annotations

import json
import os
import shlex
import signal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import poise as library
from poise.alignment import record
from poise.data.clouds import CloudsConfig
from poise.data.word_vectors import WordVectors, read_word_vectors, write_word_vectors

SMALL = ["--set", "network.d.width=4", "--set", "batch=8", "--set", "log.saves=1", "--set", "log.sheet=4"]
SMALL += ["--set", "log.to=[]", "--steps", 2, "--starts", 8]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The vectors of two languages in space, and a dictionary of which one word has no vector.

    Two words of b contain what separates words or lines in a text.
    """
    folder = tmp_path_factory.mktemp("words")
    sets = CloudsConfig(count=80, dim=3, clusters=6, spread=0.3).read()
    a, b, dictionary = folder / "a.vec", folder / "b.bin", folder / "a-b.txt"
    write_word_vectors(a, WordVectors(tuple(f"a{word}" for word in sets.a.words), sets.a.vectors))
    write_word_vectors(b, WordVectors(tuple(f"b{word}" for word in sets.b.words), sets.b.vectors))
    b.write_bytes(b.read_bytes().replace(b"b78 ", b"b\t8 ").replace(b"b79 ", b"b\n9 "))
    dictionary.write_text("".join(f"a{i}\tb{i}\n" for i in range(0, 60, 2)) + "unknown b0\n")
    return a, b, dictionary


def test_two_files_are_mapped_onto_each_other(poise: Any, files: tuple[Path, ...], tmp_path: Path) -> None:
    a, b, dictionary = files
    result = poise("align", a, b, "--out", tmp_path / "out", "--dictionary", dictionary, *SMALL)
    assert result.code == 0, result.err
    verdict, scores, last = result.out.splitlines()
    assert verdict.startswith("a clear map: start ")
    assert scores.startswith("P@1 ")
    assert scores.endswith(" of 30 of the 31 words of the dictionary")
    assert last == f"{tmp_path / 'out'}: map.npy, dictionary.tsv, mapped and target vectors, align.json"
    assert "start 1, step 1: criterion 0." in result.err
    assert "vectors: 80 vectors of 3 entries, and 80 vectors of 3 entries" in result.err
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    written = {"map.npy", "dictionary.tsv", "mapped.vec", "target.bin", "align.json", "search.npz", "align.lock"}
    assert names == written
    lines = (tmp_path / "out" / "dictionary.tsv").read_text().split("\n")
    assert {line.count("\t") for line in lines[:-1]} == {2}
    assert len(lines) == 1 + 80 * 5 + 1
    assert f"2 words of {b} contain a tab or a line break" in result.err
    mapped, target = (read_word_vectors(tmp_path / "out" / name) for name in ("mapped.vec", "target.bin"))
    assert mapped.words[5] == "a5"
    assert np.allclose(mapped.vectors, target.vectors, atol=1e-2)


def test_json_is_one_object_and_python_gives_the_same(poise: Any, files: tuple[Path, ...], tmp_path: Path) -> None:
    a, b, dictionary = files
    result = poise("align", a, b, "--out", tmp_path / "cli", "--dictionary", dictionary, "--json", *SMALL)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found == json.loads((tmp_path / "cli" / "align.json").read_text())
    assert found["clear"]
    assert found["dictionary"]["words"] == 30
    assert 0.5 < found["dictionary"]["p@1"] <= found["dictionary"]["p@5"] <= 1
    changes = [text for text in SMALL if "=" in str(text)]
    same = library.align(a, b, tmp_path / "api", dictionary=dictionary, steps=2, starts=8, changes=changes)
    assert np.array_equal(same.map.numpy(), np.load(tmp_path / "cli" / "map.npy"))
    assert same.as_json() == found | {"folder": str(tmp_path / "api")}


def test_what_is_wrong_is_said_before_anything_is_written(poise: Any, files: tuple[Path, ...], tmp_path: Path) -> None:
    a, b, _ = files
    other = tmp_path / "other.txt"
    other.write_text("casa\thouse\n")
    wide = tmp_path / "wide.npy"
    np.save(wide, np.ones((20, 4), np.float32))
    broken = tmp_path / "broken.vec"
    broken.write_text("2 3\nword 1 2\n")
    for arguments, code, message in [
        ((a, b, "--dictionary", other), 3, f"{other}: no pair of this dictionary has vectors on both sides"),
        ((a, b, "--dictionary", tmp_path / "none"), 3, "none: no such file"),
        ((a, wide), 3, f"data: the vectors of both sets must have equally many entries, found 3 in {a}, 4 in {wide}"),
        ((broken, b), 3, f"{broken}:2: must be a word and 3 numbers"),
        ((tmp_path / "missing.vec", b), 3, "missing.vec: no such file"),
        ((a, b, "--set", 'network.direction="both_ways"'), 2, "poise align needs a linear map"),
        ((a, b, "--starts", 0), 2, "--starts"),
    ]:
        result = poise("align", *arguments, "--out", tmp_path / "out")
        assert (result.code, result.out) == (code, ""), result.err
        assert message in result.err
        assert not (tmp_path / "out").exists()


def test_an_interrupted_alignment_is_continued_by_the_command_that_is_printed(
    poise: Any, files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, dictionary = files
    monkeypatch.setattr(record, "AGREEMENT", 1.1)
    options = ["--dictionary", dictionary, *SMALL, "--starts", 2]
    assert poise("align", a, b, "--out", tmp_path / "whole", *options).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(record.SearchRecord, "add", interrupted(record.SearchRecord.add))
        result = poise("align", a, b, "--out", tmp_path / "out", *options)
    assert (result.code, result.out) == (75, "")
    command = shlex.split(result.err.splitlines()[-1].partition("; continue with: ")[2])
    assert command == [
        "poise",
        "align",
        "--resume",
        "--out",
        str(tmp_path / "out"),
        *map(str, options[:2]),
        "--starts",
        "2",
    ]
    result = poise(*command[1:])
    assert result.code == 0, result.err
    assert "resuming after 2 evaluations of 1 start; the best one has criterion 0." in result.err
    for name in ("map.npy", "dictionary.tsv", "mapped.vec", "target.bin", "search.npz"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    moved = tmp_path / "moved.vec"
    moved.write_bytes(a.read_bytes())
    assert poise("align", moved, b, "--resume", "--out", tmp_path / "out", "--starts", 2).code == 0
    for words, code, message in [
        ((b, a, "--resume", "--out", tmp_path / "out"), 4, "these are not the vectors of this alignment"),
        (("--resume", "--out", tmp_path / "out", "--seed", 1), 2, "found different values of seed"),
        (("--resume", "--out", tmp_path / "out", "--most-frequent", 9), 2, "values of data.most_frequent"),
        (("--resume",), 2, "--resume: needs the folder of the alignment; give it with --out"),
        ((a, "--resume", "--out", tmp_path / "out"), 2, "SRC TGT: needs two files of vectors"),
        ((), 2, "SRC TGT: needs two files of vectors; poise align SRC TGT, or poise align --resume --out DIR"),
    ]:
        result = poise("align", *words)
        assert (result.code, result.out) == (code, ""), result.err
        assert message in result.err


def interrupted(then: Any) -> Any:
    """`then`, after the first call of which Ctrl-C is pressed."""
    calls = count(1)

    def wrapped(*arguments: Any) -> None:
        then(*arguments)
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    return wrapped
