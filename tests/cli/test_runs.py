"""`poise runs`, and `poise compare` of two runs."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from poise.recipe.toml import to_toml
from poise.runs.compare_runs import compare_runs, field_differences, measure_histories

KEYS = {
    "name",
    "path",
    "state",
    "changed",
    "recipe",
    "step",
    "steps",
    "data",
    "shape",
    "parts",
    "best",
    "alarms",
    "reason",
}


@pytest.fixture
def runs(ring_run: Path, digits_run: Path, tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    shutil.copytree(ring_run, root / "ring")
    shutil.copytree(digits_run, root / "study" / "runs" / "abc")
    shutil.copytree(ring_run, root / "a" / "b" / "c" / "too-deep")
    (root / "notes").mkdir()
    return root


def listed(poise: Any, root: Path) -> dict[str, dict[str, Any]]:
    result = poise("runs", root, "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert all(set(run) == KEYS for run in found)
    return {run["name"]: run for run in found}


def test_runs_up_to_three_levels_below(poise: Any, runs: Path) -> None:
    found = listed(poise, runs)
    assert set(found) == {"ring", "study/runs/abc"}
    ring, digits = found["ring"], found["study/runs/abc"]
    assert (ring["state"], ring["step"], ring["steps"], ring["data"]) == ("done", 8, 8, "ring")
    best = json.loads((runs / "ring" / "run.json").read_text())["best"]
    assert ring["best"] == {"measure": best["measure"], "value": best["value"], "step": best["step"]}
    assert (digits["recipe"], digits["shape"], digits["best"]) == ("dcgan", [1, 32, 32], None)
    result = poise("runs", runs)
    assert result.code == 0
    assert "8 of 8" in result.out
    assert "study/runs/abc" in result.out
    assert list(listed(poise, runs / "ring")) == ["ring"]


def change(run: Path, **entries: Any) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | entries))


def test_a_run_is_listed_once_however_many_links_lead_to_it(poise: Any, runs: Path) -> None:
    def names() -> list[str]:
        return sorted(run["name"] for run in json.loads(poise("runs", runs, "--json").out))

    before = names()
    (runs / "a-latest").symlink_to(runs / "ring")
    (runs / "above").symlink_to(runs)
    (runs / "study" / "again").symlink_to(runs / "study")
    assert names() == before
    (runs / "elsewhere").symlink_to(shutil.copytree(runs / "ring", runs.parent / "other"))
    assert names() == sorted([*before, "elsewhere"])


def test_running_and_interrupted(poise: Any, runs: Path) -> None:
    run = runs / "ring"
    change(run, state="running", step=6)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (run / "run.lock").write_text(f"process {gone.pid} on elsewhere")
    found = listed(poise, runs)["ring"]
    assert (found["state"], found["step"]) == ("interrupted", 6)
    with (run / "run.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = listed(poise, runs)["ring"]
        assert (found["state"], found["step"]) == ("running", 8)  # of its last row
    (run / "run.lock").unlink()
    assert listed(poise, runs)["ring"]["state"] == "interrupted"


def test_fid_comes_before_other_measures(poise: Any, runs: Path) -> None:
    line = {"floor": {}, "n": 100, "features": "pixels"}
    lines = [{"step": 2, "measures": {"fid": 1.0}, **line, "n": 50}, {"step": 4, "measures": {"fid": 3.0}, **line}]
    lines.append({"step": 6, "measures": {"fid": 5.0, "coverage": 1.0}, **line})
    (runs / "ring" / "measures.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    alarm = {"step": 3, "detector": "collapse", "message": "", "advice": "", "tip": ""}
    alarms = [alarm | {"level": level} for level in ("note", "warning", "failure")]
    (runs / "ring" / "alarms.jsonl").write_text("".join(json.dumps(one) + "\n" for one in alarms))
    found = listed(poise, runs)["ring"]
    assert found["best"] == {"measure": "fid", "value": 3.0, "step": 4}
    assert found["alarms"] == 2


@pytest.mark.parametrize("value", ["nan", "inf", "much", None])
def test_a_best_value_that_is_no_number(poise: Any, runs: Path, value: object) -> None:
    change(runs / "ring", best={"measure": "coverage", "value": value, "step": 2})
    assert listed(poise, runs)["ring"]["best"] is None


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("run.json", "{", "damaged"),
        ("run.json", "[]", "damaged"),
        ("run.json", None, "no run.json"),
        ("measures.jsonl", "x\n", "line 1 is damaged"),
        ("alarms.jsonl", "{}\n", "line 1 is damaged"),
    ],
)
def test_damaged_runs_are_listed_with_the_reason(
    poise: Any, runs: Path, file: str, text: str | None, reason: str
) -> None:
    path = runs / "ring" / file
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text)
    found = listed(poise, runs)["ring"]
    assert found["state"] == "damaged"
    assert reason in found["reason"]
    assert "damaged" in poise("runs", runs).out


def test_no_runs(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = poise("runs")
    assert (result.code, result.out) == (0, "")
    assert "no runs in runs" in result.last
    assert poise("runs", "--json").out == "[]\n"
    (tmp_path / "file").touch()
    poise("runs", "file").assert_error(2, "not a folder")
    poise("runs", "nowhere").assert_error(2, "no such folder")


def test_runs_imports_no_torch(runs: Path) -> None:
    code = f"""
import sys
from poise.cli import main
try:
    main(["runs", {str(runs)!r}])
except SystemExit as left:
    assert not left.code
assert not {{"torch", "numpy", "PIL"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# ---- compare RUN RUN ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"data": "digits"}, "ring and digits"),
        ({"settings": {"radius": 2.0}}, "data.radius is 1.0 and 2.0"),
        ({}, "the same recipe, but the samples of 'ring' have changed"),
    ],
    ids=["another kind", "another setting", "other samples"],
)
def test_the_difference_between_data_is_named(
    ring_run: Path, tmp_path: Path, changes: dict[str, Any], note: str
) -> None:
    other = shutil.copytree(ring_run, tmp_path / "other")
    info = json.loads((other / "run.json").read_text())
    info["data"] |= {"fingerprint": "another", "kind": changes.get("data", "ring")}
    (other / "run.json").write_text(json.dumps(info))
    recipe = tomllib.loads((other / "recipe.toml").read_text())
    recipe["data"] = {"kind": changes.get("data", "ring")} | changes.get("settings", {})
    (other / "recipe.toml").write_text(to_toml(recipe))
    assert compare_runs(ring_run, other).notes[0] == f"the runs were trained on different data: {note}"


def test_two_runs(poise: Any, ring_run: Path, digits_run: Path, tmp_path: Path) -> None:
    result = poise("compare", ring_run, digits_run, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    fields = {one["field"]: (one["a"], one["b"]) for one in found["recipe"]}
    assert fields["steps"] == (8, 3)
    assert fields["tricks.r1"][1] is None
    assert found["a"]["images"] == 8 * 16
    assert found["a"]["measures"]["coverage"]["floor"] is not None
    assert found["notes"] == ["the runs were trained on different data: ring and digits"]
    result = poise("compare", ring_run, digits_run)
    assert result.code == 0
    assert "different data" in result.last
    assert "8 of 8" in result.out
    assert "coverage" in result.out


def test_a_run_and_itself(poise: Any, ring_run: Path) -> None:
    result = poise("compare", ring_run, ring_run)
    assert (result.code, result.err) == (0, "")
    assert "the recipes are equal" in result.out


def test_options_compare_the_samples_of_two_runs(poise: Any, digits_run: Path) -> None:
    words = ("--measures", "fid", "--features", "pixels", "--n", 10, "--json")
    found = json.loads(poise("compare", digits_run, digits_run, *words).out)
    assert set(found["measures"]) == {"fid"}


def test_field_differences() -> None:
    a = {"steps": 1, "objective": {"kind": "hinge"}, "tricks": {"r1": {"kind": "r1", "gamma": 1.0}}}
    b = {"steps": 1, "objective": {"kind": "wasserstein", "x": 1}, "tricks": {"r1": {"kind": "r1", "gamma": 2.0}}}
    assert field_differences(a, b) == [
        ("objective", a["objective"], b["objective"]),
        ("tricks.r1.gamma", 1.0, 2.0),
    ]


def test_measure_histories() -> None:
    line = {"floor": {"fid": 0.5, "coverage": "nan"}, "features": "pixels", "n": 10}
    values = [{"fid": 3.0, "coverage": 0.9, "vendi": 1.0}, {"fid": "nan", "coverage": 0.5}, {"fid": 4.0}]
    found = measure_histories([{"step": step, "measures": one, **line} for step, one in enumerate(values)])
    assert found["fid"] == (4.0, 2, 0.5, 3.0, 0)
    assert found["coverage"] == (0.5, 1, None, 0.9, 0)
    assert found["vendi"] == (1.0, 0, None, None, None)
