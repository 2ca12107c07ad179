"""Two sets of vectors: how they are read, normalised and drawn, and clouds of which one is a rotation of the other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from poise.core.random_streams import RandomStreams
from poise.data.clouds import CloudsConfig, random_orthogonal
from poise.data.vectors import VectorsConfig, VectorSets
from poise.data.word_vectors import WordVectors, normalise, write_word_vectors
from poise.engine.batches import StartingSamples
from poise.errors import DataError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table

STREAMS = RandomStreams(3)


def words(path: Path, n: int, dim: int, seed: int = 0) -> Path:
    vectors = np.random.default_rng(seed).normal(1, 1, (n, dim)).astype(np.float32)
    write_word_vectors(path, WordVectors(tuple(f"w{i}" for i in range(n)), vectors))
    return path


def two_files(tmp_path: Path, n: int = 30, dim: int = 4) -> VectorsConfig:
    a, b = words(tmp_path / "a.npz", n, dim), words(tmp_path / "b.npz", n + 10, dim, 1)
    return VectorsConfig(a=str(a), b=str(b), most_frequent=20)


def test_a_sample_is_a_normalised_vector_of_each_set(tmp_path: Path) -> None:
    config = two_files(tmp_path)
    data = config.load()
    source = data.train
    assert isinstance(source, VectorSets)
    assert (source.shape, source.parts, data.held_out) == ((8,), (4, 4), None)
    expected = [2 * normalise(one.vectors, config.normalisation) for one in config.read()]
    drawn = source.batch(0, 500, STREAMS).images
    for part, of_set in zip(drawn.split(4, 1), expected, strict=True):
        assert torch.allclose(part.square().mean(1), torch.ones(500), atol=1e-5)
        rows = (part[:, None] == torch.from_numpy(of_set)).all(2)
        assert rows.any(1).all()
        assert rows.any(0).nonzero().flatten().tolist() == list(range(20)), "the most frequent ones, and all of them"
        assert torch.equal(source.domain_sources[0].drawn, torch.from_numpy(expected[0])[:20])


def test_draws_are_a_function_of_seed_and_index_and_independent_of_each_other(tmp_path: Path) -> None:
    source = two_files(tmp_path).load().train
    batch = source.batch(5, 400, STREAMS).images
    assert torch.equal(batch, source.batch(5, 400, RandomStreams(3)).images)
    assert not torch.equal(batch, source.batch(6, 400, STREAMS).images)
    assert not torch.equal(batch, source.batch(5, 400, RandomStreams(4)).images)
    a, b = batch.split(4, 1)
    index = [(part[:, None] == one.drawn).all(2).int().argmax(1) for part, one in zip((a, b), source.sets, strict=True)]
    assert len(set(zip(*(rows.tolist() for rows in index), strict=True))) > 200, "of 400 combinations"
    starts = StartingSamples(two_files(tmp_path).load()).block(0, 50, STREAMS, "sheet")
    assert starts.shape == (50, 8)
    assert source.preview(7).shape == (7, 8)


def test_the_fingerprint_is_that_of_the_vectors_wherever_they_are(tmp_path: Path) -> None:
    config = two_files(tmp_path)
    moved = words(tmp_path / "moved.npz", 30, 4)
    other = words(tmp_path / "other.npz", 30, 4, 7)
    print_of = [
        config.model_copy(update={"a": str(path)}).load().train.fingerprint for path in (config.a, moved, other)
    ]
    assert print_of[0] == print_of[1] != print_of[2]
    assert config.model_copy(update={"most_frequent": 10}).load().train.fingerprint != print_of[0]


def test_few_vectors_and_zeros_are_reported(tmp_path: Path) -> None:
    config = two_files(tmp_path)
    assert (config.load().notes, config.load().warnings) == ([], [])
    vectors = np.ones((12, 4), np.float32)
    vectors[[2, 5]] = 0
    np.save(tmp_path / "few.npy", vectors)
    few = config.model_copy(update={"b": str(tmp_path / "few.npy")}).load()
    assert few.notes == ["2 vectors of b are zero and can't be mapped"]
    [warning] = few.warnings
    assert warning.message == "a map has 4 x 4 numbers, and the smaller set has only 12 vectors"
    assert warning.cure == "use 16 or more, or vectors of fewer dimensions"


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    config = two_files(tmp_path)
    assert len(config.read().a.words) == 30
    words(Path(config.a), 31, 4)
    assert len(config.read().a.words) == 31
    assert len(config.model_copy(update={"vocabulary": 12}).read().b.words) == 12


def test_what_cannot_be_aligned_is_refused(tmp_path: Path) -> None:
    config = two_files(tmp_path)
    wide, short = words(tmp_path / "wide.npz", 30, 5), words(tmp_path / "short.npz", 9, 4)
    broken = tmp_path / "broken.vec"
    broken.write_text("3 4\na 1 2 3 4\nb 1 2\n")
    for path, message in {
        wide: r"data: .*equally many entries, found 5 in .*wide\.npz, 4 in .*b\.npz; train both",
        short: r"data\.a: needs at least 10 vectors, found 9 vectors in .*short\.npz; use a larger set",
        broken: r"broken\.vec:3: must be a word and 4 numbers",
        tmp_path / "missing.vec": r"missing\.vec: no such file; check the spelling",
    }.items():
        with pytest.raises(DataError, match=message):
            config.model_copy(update={"a": str(path)}).load()


def test_one_cloud_is_a_rotation_of_the_other() -> None:
    config = CloudsConfig(count=400, dim=6, clusters=20, spread=0.3)
    a, b, rotation = config.clouds()
    assert torch.allclose(rotation @ rotation.T, torch.eye(6), atol=1e-5)
    assert torch.allclose(a @ rotation.T, b, atol=1e-5)
    noisy = config.model_copy(update={"noise": 0.1}).clouds()
    assert float((noisy.b - b).std() / b.std()) == pytest.approx(0.1, rel=0.05)
    assert not torch.equal(config.model_copy(update={"draw": 1}).clouds().a, a)
    sets = config.read()
    assert sets.a.words == sets.b.words == tuple(map(str, range(400)))
    assert np.array_equal(sets.a.vectors, a.numpy())


def test_clusters_have_zipf_weights() -> None:
    a = CloudsConfig(count=6000, dim=8, clusters=3, spread=0.0).clouds().a
    _, counts = a.unique(dim=0, return_counts=True)
    shares = sorted((counts / 6000).tolist(), reverse=True)
    assert shares == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.03)


def test_random_orthogonal_matrices_are_of_both_kinds() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = [random_orthogonal(3, generator) for _ in range(400)]
    determinants = torch.stack([matrix.det() for matrix in matrices])
    assert torch.allclose(determinants.abs(), torch.ones(400), atol=1e-5)
    assert 150 < int((determinants > 0).sum()) < 250
    assert float(torch.stack(matrices).mean(0).abs().max()) < 4 / math.sqrt(3 * 400)


def test_unknown_steps_of_normalisation_are_refused() -> None:
    table = load_table("align")
    table["data"] = {"kind": "clouds", "normalisation": ["unit", "whiten"]}
    with pytest.raises(RecipeError, match="normalisation"):
        decode(table)
