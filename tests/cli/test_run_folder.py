"""The run folder contains what users and scripts rely on."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import poise as package
from poise.core.metrics_log import Row, Stat, row_to_json
from poise.engine.step_metrics import StepMetrics, statistics
from poise.recipe.decode import decode
from poise.recipe.toml import read_file, to_toml
from poise.runs.folder import RunFolder
from poise.utils.files import append_line

STATS = {
    "d/adversarial",
    "g/adversarial",
    "d/grad_norm",
    "g/grad_norm",
    "d/real_score",
    "d/fake_score",
    "d/accuracy",
    "d/real_accuracy",
    "d/fake_accuracy",
    "time/images_per_second",
    "d/update",
    "g/update",
    "g/diversity",
    "g/feature_diversity",
}


def strictly(text: str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def rows(run: Path) -> list[dict[str, Any]]:
    return [strictly(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_names(ring_run: Path) -> None:
    here = {path.name for path in ring_run.iterdir()}
    assert here == {
        "recipe.toml",
        "run.json",
        "rows.jsonl",
        "samples",
        "saves",
        "tensorboard",
        "run.lock",
        "measures.jsonl",
        "best",
        "frames.bin",
    }
    assert not list(ring_run.rglob(".*")), "a temporary file was left behind"


def test_recipe_is_canonical_and_complete(ring_run: Path) -> None:
    path = ring_run / "recipe.toml"
    recipe = decode(read_file(path))
    assert path.read_text() == recipe.to_toml() == to_toml(recipe.canonical())
    assert (recipe.name, recipe.steps, recipe.seed, recipe.batch) == ("ring", 8, 5, 16)
    assert recipe.trick_names() == ["r1", "averaged_weights"]


def test_run_json(ring_run: Path) -> None:
    info = strictly((ring_run / "run.json").read_text())
    assert info["state"] == "done"
    assert (info["name"], info["step"], info["steps"]) == ("ring", 8, 8)
    assert info["device"] == "cpu"
    assert info["precision"] == "fp32"
    assert info["threads"] >= 1
    assert {"poise", "torch", "numpy", "python"} <= info["versions"].keys()
    assert info["versions"]["poise"] == package.__version__
    assert info["data"]["kind"] == "ring"
    assert len(info["data"]["fingerprint"]) >= 16
    assert info["data"]["shape"] == [2]
    # a hidden layer of 8 after 4 latents, two more, then two coordinates; D the same from a point and 64 features to 1
    assert info["parameters"] == {"g": 5 * 8 + 2 * 9 * 8 + 9 * 2, "d": 67 * 8 + 2 * 9 * 8 + 9}
    assert info["recipe"] == decode(read_file(ring_run / "recipe.toml")).hash


def test_rows(ring_run: Path) -> None:
    found = rows(ring_run)
    assert [row["step"] for row in found] == [2, 4, 6, 8]
    assert [row["images"] for row in found] == [32, 64, 96, 128]
    assert [row["seconds"] for row in found] == sorted(row["seconds"] for row in found)
    for row in found:
        assert list(row) == ["step", "images", "seconds", "stats"]
        assert row["stats"].keys() == STATS | {"d/r1"}  # every term has a name of its own
        for name, stat in row["stats"].items():
            assert list(stat) == ["mean", "std", "min", "max"], name
            assert stat["min"] <= stat["mean"] <= stat["max"], name
            assert stat["std"] >= 0, name
        for name in ("d/accuracy", "d/real_accuracy", "d/fake_accuracy"):
            assert 0 <= row["stats"][name]["min"] <= row["stats"][name]["max"] <= 1
        for name in ("d/grad_norm", "g/grad_norm", "time/images_per_second"):
            assert row["stats"][name]["min"] > 0


def test_adversarial_loss_is_logged_separately(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    """A penalty a million times heavier leaves the first step's loss as it is, and is itself told unweighted."""
    recipe = tmp_path / "heavy.toml"
    shutil.copy(ring_run / "recipe.toml", recipe)
    first = {}
    for gamma in ("0.1", "1e5"):
        out = tmp_path / f"gamma-{gamma}"
        result = poise(
            "train", recipe, "--steps", 1, "--out", out, "--set", f"tricks.r1.gamma={gamma}", "--set", "log.rows=1"
        )
        assert result.code == 0, result.err
        first[gamma] = rows(out)[0]["stats"]
    for name in ("d/adversarial", "d/r1"):
        assert first["0.1"][name] == first["1e5"][name]
    assert first["1e5"]["d/grad_norm"]["mean"] > 10 * first["0.1"]["d/grad_norm"]["mean"]


def test_sheets(ring_run: Path) -> None:
    sheets = sorted(path.name for path in (ring_run / "samples").iterdir())
    assert sheets == [f"step-{step:08d}.png" for step in (0, 3, 6, 8)]
    sizes = set()
    for sheet in sheets:
        with Image.open(ring_run / "samples" / sheet) as image:
            image.load()
            assert image.format == "PNG"
            sizes.add(image.size)
    assert len(sizes) == 1


def test_saves(ring_run: Path) -> None:
    saves = sorted((ring_run / "saves").iterdir())
    assert [save.name for save in saves] == ["step-00000006", "step-00000008"]  # of 3, 6 and 8 the newest two
    for save in saves:
        manifest = strictly((save / "MANIFEST.json").read_text())
        assert {path.name for path in save.iterdir()} == {"MANIFEST.json", *manifest["files"]}
        assert manifest["files"].keys() == {"tensors.safetensors", "state.json"}
        for name, result in manifest["files"].items():
            data = (save / name).read_bytes()
            assert result == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert save.name == f"step-{manifest['step']:08d}"
        assert strictly((save / "state.json").read_text())["step"] == manifest["step"]
        assert manifest["recipe"] == decode(read_file(ring_run / "recipe.toml")).hash


def test_tensorboard_has_the_numbers_of_the_rows(ring_run: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    (path,) = (ring_run / "tensorboard").iterdir()
    scalars: dict[tuple[str, int], float] = {}
    sheets: list[int] = []
    for event in EventFileLoader(str(path)).Load():
        for summary in event.summary.value:
            if summary.tag == "samples":
                sheets.append(event.step)
            else:
                scalars[summary.tag, event.step] = float(make_ndarray(summary.tensor))
    expected = {(name, row["step"]): stat["mean"] for row in rows(ring_run) for name, stat in row["stats"].items()}
    (line,) = map(strictly, (ring_run / "measures.jsonl").read_text().splitlines())
    for kind, key in (("measure", "measures"), ("floor", "floor")):
        expected |= {(f"{kind}/{name}", line["step"]): value for name, value in line[key].items()}
    assert scalars == pytest.approx(expected, rel=1e-6)
    assert sheets == [0, 3, 6, 8]


def test_training_its_recipe_again_gives_the_same_run(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert poise("train", ring_run / "recipe.toml", "--out", again).code == 0
    assert contents(again / "samples") == contents(ring_run / "samples")
    for save in ("step-00000006", "step-00000008"):
        tensors = [(run / "saves" / save / "tensors.safetensors").read_bytes() for run in (ring_run, again)]
        assert tensors[0] == tensors[1]
    timeless = [
        [{name: stat for name, stat in row["stats"].items() if not name.startswith("time/")} for row in rows(run)]
        for run in (ring_run, again)
    ]
    assert timeless[0] == timeless[1]


def test_another_seed_gives_another_run(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert poise("train", ring_run / "recipe.toml", "--seed", 6, "--out", other).code == 0
    assert contents(other / "samples") != contents(ring_run / "samples")


def test_pictures(digits_run: Path) -> None:
    info = strictly((digits_run / "run.json").read_text())
    assert info["data"]["shape"] == [1, 32, 32]
    assert info["data"]["count"] == 4000
    assert info["data"]["classes"] == list("0123456789")
    assert sorted(path.name for path in (digits_run / "samples").iterdir()) == [
        "step-00000000.png",
        "step-00000003.png",
    ]
    assert [row["step"] for row in rows(digits_run)] == [3]


# ---- numbers that are not finite ----------------------------------------------------------------------


def test_rows_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    stats = {
        "d/adversarial": Stat(math.nan, math.nan, -math.inf, math.inf),
        "g/adversarial": Stat(-0.0, 0.0, 1e308, 5e-324),
        'd/<script>"\n': Stat(2.0**53 + 2, 1.0, 0.1, 1 / 3),
    }
    folder = RunFolder(tmp_path)
    append_line(folder.rows, row_to_json(Row(3, 48, 0.5, stats)))
    append_line(folder.rows, row_to_json(Row(6, 96, 1.5, stats)))
    first, second = rows(tmp_path)
    assert (first["step"], second["step"]) == (3, 6)
    result = first["stats"]
    assert result["d/adversarial"] == {"mean": "nan", "std": "nan", "min": "-inf", "max": "inf"}
    for name in ("g/adversarial", 'd/<script>"\n'):
        assert tuple(result[name].values()) == tuple(stats[name])
    assert {name: [float(number) for number in stat.values()] for name, stat in result.items()} == {
        name: pytest.approx(list(stat), nan_ok=True) for name, stat in stats.items()
    }


@pytest.mark.parametrize(
    "series",
    [[1.0, math.nan], [math.inf, 1.0], [-math.inf, math.nan], [math.inf, -math.inf], [math.nan] * 3],
    ids=str,
)
def test_interval_with_missing_values_gives_no_warning(series: list[float]) -> None:
    stat = statistics(np.array(series))
    assert not math.isfinite(stat.mean)
    strictly(json.dumps(row_to_json(Row(1, 1, 0.0, {"d/adversarial": stat})), allow_nan=False))


def test_finite_interval() -> None:
    series = [0.1, 0.4, -0.2, 3.0]
    mean = sum(series) / 4
    spread = math.sqrt(sum((x - mean) ** 2 for x in series) / 4)
    assert statistics(np.array(series)) == pytest.approx((mean, spread, -0.2, 3.0), rel=1e-12)


def test_empty_interval_has_no_stats() -> None:
    assert StepMetrics().reduce() == {}


def test_diverging_run(poise: Any, small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--set", "optimizer.d.lr=1e30", "--set", "log.rows=1", "--steps", 50]
    result = poise("train", "ring", "--out", out, *small, *words)
    result.assert_error(5, "not_finite at step", "is not finite", "after 3 roll-backs", "lower both learning rates")
    assert strictly((out / "run.json").read_text())["state"] == "failed"
    last = rows(out)[-1]["stats"]
    assert "nan" in {last["d/adversarial"]["mean"], last["g/adversarial"]["mean"]}
    assert not list((out / "saves").glob("*")), "a state with NaN in it was saved"
