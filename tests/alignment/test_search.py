"""The search over starts, and the files that it leads to, on clouds so small that three steps are enough."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignment.vectors import cloud, rotation
from poise.alignment import record as recording
from poise.alignment.align import align
from poise.alignment.neighbours import unit_rows
from poise.alignment.record import FILE, Evaluation
from poise.alignment.refinement import (
    apply_map,
    held_out_agreement,
    num_pairs,
    procrustes,
    refine,
    share_of_pairs,
)
from poise.alignment.search import search
from poise.data.clouds import CloudsConfig, random_orthogonal
from poise.data.word_vectors import read_word_vectors
from poise.errors import RecipeError, Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.training.listener import NullListener

TINY: dict[str, Any] = {"kind": "clouds", "count": 80, "dim": 3, "clusters": 6, "spread": 0.3}


def tiny(**changes: Any) -> Recipe:
    """Two steps of eight points in space, with an evaluation after each."""
    table = load_table("align") | {"steps": 2, "batch": 8, "data": TINY}
    table["network"]["d"]["width"] = 4
    table["log"] = {"rows": 2, "samples": 2, "saves": 1, "sheet": 4, "to": []}
    return decode(table | changes)


def test_pairs_of_a_right_map_are_confirmed_and_those_of_a_wrong_one_are_not() -> None:
    source, truth = cloud(300, 12, 0), rotation(12, 1)
    target = unit_rows(source @ truth.T + 0.03 * torch.randn(300, 12, generator=torch.Generator().manual_seed(2)))
    assert held_out_agreement(procrustes(source, target), source, target) > 0.95
    assert held_out_agreement(rotation(12, 5), source, target) < 0.5
    assert held_out_agreement(torch.eye(12), source[:1], target[:1]) == 0


@pytest.mark.parametrize(("count", "dim"), [(1000, 8), (1500, 16)])
def test_pairs_of_vectors_without_structure_are_not_confirmed(count: int, dim: int) -> None:
    """Also where there are far more pairs than dimensions, so that the refinement fits most of them."""
    generator = torch.Generator().manual_seed(0)
    source, target = (unit_rows(torch.randn(count, dim, generator=generator)) for _ in range(2))
    best = refine(random_orthogonal(dim, generator), source, target).best
    assert best.pairs > 0.5 * count
    assert held_out_agreement(best.weights, source, target) < 0.7

    noise = 0.02 * torch.randn(count, dim, generator=generator)
    rotated = unit_rows(source @ random_orthogonal(dim, generator).T + noise)
    assert held_out_agreement(procrustes(source, rotated), source, rotated) > 0.95


def evaluation_of(weights: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> Evaluation:
    """The evaluation of a map after its refinement."""
    best = refine(weights, source, target).best
    pairs, agreement = num_pairs(best, source, target), held_out_agreement(best.weights, source, target)
    return Evaluation(1, 1, 0.0, best.criterion, pairs, share_of_pairs(pairs, source, target), agreement)


def test_no_map_between_small_sets_without_structure_is_clear() -> None:
    """Few pairs confirm each other by chance: the share alone would let wrong maps of such sets pass."""
    generator = torch.Generator().manual_seed(3)
    source, target = (unit_rows(torch.randn(40, 5, generator=generator)) for _ in range(2))
    wrong = [evaluation_of(random_orthogonal(5, generator), source, target) for _ in range(25)]
    assert any(one.agreement >= 0.9 and one.share >= 0.5 for one in wrong)
    assert not any(one.is_clear for one in wrong)


@pytest.mark.parametrize(
    ("pairs", "agreement", "share", "clear"),
    [
        (36, 1.0, 0.6, False),
        (62, 0.935, 0.62, False),
        (116, 0.905, 0.58, False),
        (2000, 0.97, 0.45, False),
        (60, 0.983, 1.0, True),
        (1480, 0.97, 0.74, True),
    ],
)
def test_when_a_map_is_clear(pairs: int, agreement: float, share: float, clear: bool) -> None:
    """The first three are wrong maps of 60, 100 and 200 vectors in 5 dimensions (docs/notes/align.md)."""
    assert Evaluation(1, 1, 0.0, 0.0, pairs, share, agreement).is_clear == clear


def test_a_search_ends_when_a_map_is_clear(tmp_path: Path) -> None:
    told: list[Evaluation] = []
    recipe = tiny()
    data = recipe.data
    assert isinstance(data, CloudsConfig)
    source, target = (data.normalised(one) for one in data.read())
    found = search(recipe, source, target, tmp_path, starts=8, notify=told.append)
    assert found.evaluations == tuple(told)
    assert found.is_clear
    assert found.best is max(told, key=lambda evaluation: evaluation.criterion)
    assert [e.is_clear for e in told] == [False] * (len(told) - 1) + [True]
    assert torch.allclose(found.weights, data.clouds().rotation, atol=1e-3)
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == [FILE, *(f"start-{k}" for k in range(1, told[-1].start + 1))]
    seeds = [(tmp_path / name / "recipe.toml").read_text().count(f"seed = {k}\n") for k, name in enumerate(folders[1:])]
    assert seeds == [1] * told[-1].start, "each start has a seed of its own"


def test_without_a_clear_map_all_starts_are_made_and_the_best_map_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "AGREEMENT", 1.1)
    result = align(tiny(), tmp_path / "out", starts=2)
    evaluations = result.found.evaluations
    assert [(e.start, e.step) for e in evaluations] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert result.found.best.criterion == max(e.criterion for e in evaluations)
    assert not result.found.is_clear
    assert json.loads((tmp_path / "out" / "align.json").read_text())["clear"] is False
    with pytest.raises(
        RecipeError, match="has an alignment already; continue it with --resume, or choose another folder"
    ):
        align(tiny(), tmp_path / "out")


def test_the_files_are_those_of_the_map(tmp_path: Path) -> None:
    result = align(tiny(), tmp_path, starts=8)
    data = tiny().data
    assert isinstance(data, CloudsConfig)
    source, target = (data.normalised(one) for one in data.read())
    weights = torch.from_numpy(np.load(tmp_path / "map.npy"))
    assert torch.equal(weights, result.map)
    mapped, targets = (read_word_vectors(tmp_path / f"{name}.npz") for name in ("mapped", "target"))
    assert np.allclose(mapped.vectors, (source @ weights.T).numpy(), atol=1e-6)
    assert np.array_equal(targets.vectors, target.numpy())
    lines = [line.split("\t") for line in (tmp_path / "dictionary.tsv").read_text().splitlines()]
    assert lines[0] == ["source", "target", "csls"]
    assert len(lines) == 1 + 80 * 5
    firsts = lines[1::5]
    assert [line[0] for line in firsts] == list(map(str, range(80)))
    assert sum(line[0] == line[1] for line in firsts) > 60, "in space, some points are hubs even for CSLS"
    assert all(float(a[2]) >= float(b[2]) for a, b in pairwise(lines[1:6]))
    assert torch.allclose(apply_map(weights, source), unit_rows(target), atol=1e-2)


def test_a_listener_can_stop_the_search(tmp_path: Path) -> None:
    class Impatient(NullListener):
        def on_message(self, sentence: str) -> None:
            raise Stopped("enough")

    with pytest.raises(
        Stopped, match="stopped by enough before the first step, in start 1 of 3; continue with: "
    ) as error:
        align(tiny(), tmp_path, starts=3, listener=Impatient())
    assert str(error.value).endswith(f"poise align --resume --out {tmp_path} --starts 3")
    assert not (tmp_path / "align.json").exists()


def test_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.kind: poise align maps sets of vectors, found 'ring'"):
        align(decode(load_table("ring")), tmp_path)
