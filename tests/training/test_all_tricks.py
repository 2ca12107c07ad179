"""All compatible tricks in one run on digits: it trains, resumes bit-identically and records them."""

from __future__ import annotations

import math
import os
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest

from contracts.rows.translation import CRITIC
from poise.core.config import find_components
from poise.errors import Stopped
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.run import Run
from poise.training.listener import NullListener
from poise.training.train import train
from poise.tricks.base import TrickConfig

STEPS, STOP = 24, 14
KNOWN: dict[str, type[TrickConfig]] = find_components(TrickConfig, "poise.tricks")  # type: ignore[assignment]
BUSY: dict[str, dict[str, Any]] = {
    "past_selves": {"every": 7, "duration": 3},
    "mean_weights": {"last": 3, "every": 4},
    "experience_replay": {"size": 64},
    "history": {"size": 64},
    "adaptive_augment": {"speed": 5000.0},
    "weight_clipping": {"limit": 0.5},
    "gradient_clipping": {"max_norm": 5.0},
    "minibatch_discrimination": {"kernels": 8},
    "frozen_critic": {"goal": "match", "output": "features", "network": CRITIC},
}
"""Settings with which all of them act within 24 steps, and a critic without training and translation."""

TRICKS = {kind: entry for kind, entry in KNOWN.items() if not entry(**BUSY.get(kind, {})).directions}
"""All but the losses of translation, for which G would have to start from images."""

ALONE = {"auxiliary_classifier": "packing"}
"""Tricks that are left out because they exclude another one."""


def recipe() -> Recipe:
    """All tricks with small players, and spectral norm in D, so that the penalties are well-defined."""
    player = {"kind": "dcgan", "width": 4}
    tricks = [{"kind": kind, **BUSY.get(kind, {})} for kind in TRICKS if kind not in ALONE]
    return decode(
        {
            "name": "all-tips",
            "steps": STEPS,
            "batch": 16,
            "data": {"kind": "digits", "size": 16},
            "latent": {"kind": "gaussian", "dim": 16},
            "network": {"g": player, "d": {**player, "norm": "spectral"}, "e": player},
            "objective": {"kind": "non_saturating"},
            "optimizer": {"g": {"kind": "adam"}, "d": {"kind": "adam"}},
            "tempo": {"kind": "ratio"},
            "tricks": tricks,
            "log": {"rows": 6, "samples": 12, "saves": 12, "sheet": 4},
        }
    )


class StopAt(NullListener):
    """Sends this process SIGTERM once a step is done."""

    def on_step(self, step: int) -> None:
        if step == STOP - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_tricks_left_out_are_incompatible() -> None:
    config = recipe().canonical()
    on = [trick["kind"] for trick in config["tricks"]]
    findings = check_compatibility(recipe(), (1, 16, 16), 10)
    assert not findings.refusals
    doubted = {on[int(finding.field.split(".")[1])] for finding in findings.warnings}
    tied = {kind for kind, entry in TRICKS.items() if entry.needs_independent_scores}  # beside batch discrimination
    # never shown, beside instance noise and with flipped digits
    assert doubted == tied | {"mean_weights", "consistency"}
    for kind, other in ALONE.items():
        assert other in TRICKS
        more = decode(
            config | {"tricks": [*config["tricks"], {"kind": kind}], "conditioning": {"g": {"kind": "concat"}}}
        )
        assert check_compatibility(more, (1, 16, 16), 10).refusals, f"'{kind}' fits: put it in"


@pytest.mark.slow
def test_all_tricks_train_resume_exactly_and_are_recorded(tmp_path: Path) -> None:
    whole = train(recipe(), tmp_path / "whole", trust_code=True)
    with pytest.raises(Stopped):
        train(recipe(), tmp_path / "half", listener=StopAt(), trust_code=True)
    half = train(recipe(), tmp_path / "half", resume=True, trust_code=True)
    assert half.checkpoint.tensors.keys() == whole.checkpoint.tensors.keys()
    for name, tensor in whole.checkpoint.tensors.items():
        assert tensor.equal(half.checkpoint.tensors[name]), name
        assert not tensor.is_floating_point() or tensor.isfinite().all(), name

    on = [trick["kind"] for trick in tomllib.loads((whole.path / "recipe.toml").read_text())["tricks"]]
    assert sorted([*on, *ALONE]) == sorted(TRICKS)
    result = logged_metrics(whole)
    assert result == logged_metrics(half)
    for row in result:
        assert all(math.isfinite(number) for number in row.values())
    assert (whole.sample(8, seed=1) == half.sample(8, seed=1)).all()
    for name in ("r1", "r2", "wgan_gp", "dragan", "lecam", "consistency", "historical_averaging", "r_t"):
        assert f"d/{name}" in result[-1]
    names = ("feature_matching", "pulling_away", "historical_averaging", "gradient_clipping", "orthogonal")
    for name in (*names, "posterior_kl", "feature_reconstruction", "judged_reconstruction", "frozen_critic"):
        assert f"g/{name}" in result[-1]


def logged_metrics(run: Run) -> list[dict[str, float]]:
    """The means of the rows, without timings."""
    return [
        {name: stat["mean"] for name, stat in row["stats"].items() if not name.startswith("time/")} for row in run.rows
    ]
