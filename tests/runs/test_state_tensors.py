"""Tied weights, weights with two names, views of one memory, and buffers that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.game import Game
from poise.engine.step_metrics import StepMetrics
from poise.errors import Diverged
from poise.recipe.decode import decode
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.run import Run
from poise.runs.state_tensors import align_wrappers, collect_tensors
from poise.training.train import train
from poise.tricks.averaged_weights import ema_update_
from runs.small_runs import ring

PARTS = '''
from math import prod

import torch
from torch import nn


class Tied(nn.Module):
    """A network with one layer under two names, and a mask of -inf."""

    def __init__(self, shape):
        super().__init__()
        self.again = nn.Linear(8, 8)
        self.register_buffer("mask", torch.triu(torch.full((4, 4), float("-inf")), 1))
        first, last = nn.Linear(prod(shape), 8), nn.Linear(8, 1)
        self.body = nn.Sequential(nn.Flatten(), first, nn.ReLU(), self.again, self.again, last)

    def forward(self, x):
        return self.body(x)


class TiedG(nn.Module):
    """The same for G, with a matrix and its transpose."""

    def __init__(self, latent, shape):
        super().__init__()
        self.shape, self.up, self.down = shape, nn.Linear(latent, 8), nn.Linear(latent, 8)
        self.down.weight = self.up.weight
        self.register_buffer("mask", torch.triu(torch.full((4, 4), float("-inf")), 1))
        self.last = nn.Linear(16, prod(shape))

    def forward(self, z):
        return self.last(torch.cat((self.up(z), self.down(z)), 1)).reshape(-1, *self.shape)
'''


def tied(file: Path, steps: int, *tricks: dict[str, Any]) -> Any:
    return decode(
        {
            "steps": steps,
            "batch": 8,
            "data": {"kind": "ring"},
            "latent": {"kind": "gaussian", "dim": 2},
            "network": {
                "g": {"kind": "python", "file": str(file), "name": "TiedG"},
                "d": {"kind": "python", "file": str(file), "name": "Tied"},
            },
            "objective": {"kind": "non_saturating"},
            "optimizer": {"g": {"kind": "adam"}, "d": {"kind": "adam"}},
            "tempo": {"kind": "ratio"},
            "tricks": list(tricks),
            "log": {"rows": 1, "samples": 99, "saves": 3, "sheet": 4},
            "measure": {"every": 3, "measures": ["coverage"], "n": 10},
        }
    )


TRICKS = {
    "averaged_weights": {},
    "mean_weights": {"every": 2},
    "past_selves": {"every": 3, "duration": 1},
    "historical_averaging": {},
}


@pytest.mark.parametrize("kind", TRICKS)
def test_a_tied_network_resumes_exactly(tmp_path: Path, kind: str) -> None:
    file, trick = tmp_path / "mine.py", {"kind": kind, **TRICKS[kind]}
    file.write_text(PARTS)
    train(tied(file, 6, trick), tmp_path / "whole", trust_code=True)
    train(tied(file, 3, trick), tmp_path / "half", trust_code=True)
    train(tied(file, 6, trick), tmp_path / "half", trust_code=True, resume=True)
    ends = [checkpoint_folder.newest_valid(tmp_path / name / "saves")[0] for name in ("whole", "half")]
    assert ends[0] is not None
    assert ends[1] is not None
    assert (ends[0].path / checkpoint.TENSORS).read_bytes() == (ends[1].path / checkpoint.TENSORS).read_bytes()
    aliases = ends[0].manifest["aliases"]
    assert aliases["game/g.net.down.weight"] == "game/g.net.up.weight"
    assert any("body" in name and aliases[name].startswith("game/d.net.") for name in aliases)
    net = Run(tmp_path / "half", trust_code=True).game.g.net
    assert net.down.weight.data_ptr() == net.up.weight.data_ptr()
    assert not (tmp_path / "whole" / "alarms.jsonl").exists()


def shared() -> dict[str, Tensor]:
    base = torch.arange(12.0)
    return {
        "base": base,
        "same": base.view(12),
        "other shape": base.view(3, 4),
        "part": base[2:5],
        "across": base.view(3, 4).t(),
        "nothing": torch.zeros(0, 3),
        "nothing else": torch.zeros(0, 3),
        "number": torch.tensor(3),
        "first": base[0],
        "spread": torch.ones(1).expand(5),
        "bits": torch.tensor([True, False]),
    }


def test_views_of_one_memory_are_saved_by_value(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 1, shared(), {"seconds": 0.0}, {})
    found = checkpoint.read(tmp_path / "step-00000001").tensors
    assert found.keys() == shared().keys()
    for name, tensor in shared().items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype


def test_only_finite_buffers_must_stay_finite(tmp_path: Path) -> None:
    tensors = {"game/mask": torch.tensor([0.0, -torch.inf]), "game/weight": torch.ones(2)}
    with pytest.raises(Diverged, match="game/mask"):
        checkpoint.write(tmp_path, 1, tensors, {"seconds": 0.0}, {})
    checkpoint.write(tmp_path, 1, tensors, {"seconds": 0.0}, {}, {"game/mask"})
    with pytest.raises(Diverged, match="game/weight"):
        checkpoint.write(tmp_path, 2, {"game/weight": torch.tensor([torch.nan])}, {"seconds": 0.0}, {}, {"game/mask"})


def test_an_average_keeps_a_mask() -> None:
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
            self.register_buffer("count", torch.ones(2))

    mean, live = Masked(), Masked()
    live.count.mul_(3)
    ema_update_(mean, live, 0.5)
    assert mean.mask.tolist() == [0.0, -torch.inf]
    assert mean.count.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (1, 1)])
def test_names_follow_the_wrappers_of_a_network(before: int, after: int) -> None:
    """A D that scores packs is wrapped, so all of its tensors have another name; optimisers use it too."""

    def packed(samples: int) -> Game:
        table = ring(2).canonical()
        table["tricks"] = [{"kind": "packing", "samples": samples}]
        recipe = decode(table)
        return build_game(recipe, DataSpec((2,), 0), ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(0))

    old, new = packed(before), packed(after)
    tensors = collect_tensors(old, StepMetrics())
    aligned = align_wrappers(new, tensors)
    assert aligned.keys() == collect_tensors(new, StepMetrics()).keys()
    assert len(aligned) == len(tensors)
    fits = {name for name, tensor in new.state_dict().items() if aligned[f"game/{name}"].shape == tensor.shape}
    assert len(new.state_dict().keys() - fits) == (before != after)
