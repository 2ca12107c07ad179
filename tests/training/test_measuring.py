"""Measuring as a run goes: its lines, the best weights, and that nothing of the training hears of it."""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import STEPS, digits, ring, stopped, traces

from poise.data.source import Loaded
from poise.errors import RecipeError, SaveError
from poise.measure import classifier
from poise.recipe.model import Recipe
from poise.recipe.read import decode
from poise.training import save
from poise.training.begin import train
from poise.training.folder import RunFolder
from poise.training.measuring import Gauge
from poise.training.run import Run
from poise.training.watcher import Nobody

EVERY = 3
KEYS = {"step", "measures", "floor", "n", "features"}
CADENCE = [3, 6, 9, 12, 15, 18, 20]


def measured(recipe: Recipe, **how: Any) -> Recipe:
    """The recipe, measured every three steps by the distance between Gaussians, at a high rate."""
    told = {"every": EVERY, "measures": ["fid", "modes"], "n": 100, **how}
    optimizer = {"g": {"kind": "adam", "lr": 2e-2}, "d": {"kind": "adam", "lr": 1e-2}}
    return decode({**recipe.canonical(), "optimizer": optimizer, "measure": told})


def unmeasured(recipe: Recipe) -> Recipe:
    return decode({key: value for key, value in recipe.canonical().items() if key != "measure"})


def pictures(**how: Any) -> Recipe:
    """Pictures of 8 x 8 through convolutions and batch norm."""
    small = {**digits().canonical(), "data": {"kind": "digits", "size": 8}}
    return measured(decode(small), **{"measures": ["fid"], "n": 20, "features": "pixels", **how})


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "measures.jsonl").read_text().splitlines()]


def info(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def best_of(out: Path, name: str = "fid") -> tuple[int, float]:
    """The step and the value that the lines say are the best: the first of the least."""
    return min(((line["step"], line["measures"][name]) for line in lines(out)), key=lambda one: one[1])


def kept(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "best").iterdir()) if (out / "best").is_dir() else []


def best_tensors(out: Path) -> bytes:
    (name,) = kept(out)
    return (out / "best" / name / save.TENSORS).read_bytes()


class Listener(Nobody):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, sentence: str) -> None:
        self.heard.append(sentence)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that was never disturbed, whose best is neither its first nor its last; and what it said."""
    out, listener = tmp_path_factory.mktemp("runs") / "whole", Listener()
    train(measured(ring()), out, watcher=listener)
    assert CADENCE[1] <= best_of(out)[0] < CADENCE[-2]
    return out, listener.heard


# ---- the lines -----------------------------------------------------------------------------------------


def test_each_line_has_its_keys_at_the_cadence_and_at_the_end(whole: tuple[Path, list[str]]) -> None:
    found = lines(whole[0])
    assert [line["step"] for line in found] == CADENCE
    for line in found:
        assert set(line) == KEYS
        assert list(line["measures"]) == list(line["floor"]) == ["fid", "modes"]
        assert (line["n"], line["features"]) == (100, "points")
        assert line["floor"] == found[0]["floor"]
        assert all(math.isfinite(value) for value in line["measures"].values())
    assert len({line["measures"]["fid"] for line in found}) == len(found)  # new weights, another figure
    assert found[0]["floor"]["modes"] == 8
    assert 0 <= found[0]["floor"]["fid"] < 0.1


def test_an_end_on_the_cadence_is_measured_once(tmp_path: Path) -> None:
    train(measured(ring(6)), tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run")] == [3, 6]


def test_a_line_can_be_had_again_from_the_save(whole: tuple[Path, list[str]]) -> None:
    """The latents are the same ones each time: who measures the last weights again gets the last line again."""
    out, _ = whole
    run = Run(out)
    device = torch.device("cpu")
    gauge = Gauge(run.recipe, run.recipe.data.load(), RunFolder(out.parent), 0, device, lambda _: None)
    result = gauge.take(run.game.shown(), STEPS)
    again = lines(out.parent)
    (out.parent / "measures.jsonl").unlink()
    assert again == [lines(out)[-1]]
    assert result.told["fid"].figure.value == lines(out)[-1]["measures"]["fid"]


def test_a_run_without_measure_leaves_nothing(tmp_path: Path) -> None:
    train(unmeasured(measured(ring(3))), tmp_path / "run")
    assert not (tmp_path / "run" / "measures.jsonl").exists()
    assert not (tmp_path / "run" / "best").exists()
    assert "best" not in info(tmp_path / "run")
    with pytest.raises(SaveError, match=r"no valid save.*\[measure\] in its recipe"):
        Run(tmp_path / "run", best=True).sample(2)


# ---- nothing of it is heard in training -----------------------------------------------------------------


def test_training_is_the_same_to_the_byte_measured_or_not(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    train(unmeasured(measured(ring())), tmp_path / "run")
    alone, seen = traces(tmp_path / "run"), traces(whole[0])
    assert [row["stats"] for row in alone["rows"]] == [row["stats"] for row in seen["rows"]]
    assert alone["tensors"] == seen["tensors"]
    assert alone["sheets"] == seen["sheets"]


def test_so_it_is_with_a_classifier_trained_in_its_midst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SEEN", (640, 640))
    recipe, listener = pictures(every=5, features="classifier"), Listener()
    train(recipe, tmp_path / "seen", watcher=listener)
    assert [line["step"] for line in lines(tmp_path / "seen")] == [5, 10, 15, 20]
    assert lines(tmp_path / "seen")[0]["features"].startswith("classifier ")
    assert len([said for said in listener.heard if said.startswith("training a small classifier")]) == 1
    train(unmeasured(recipe), tmp_path / "alone")
    alone, seen = traces(tmp_path / "alone"), traces(tmp_path / "seen")
    assert alone["tensors"] == seen["tensors"]
    assert alone["rows"] == seen["rows"]
    assert alone["sheets"] == seen["sheets"]


# ---- the best --------------------------------------------------------------------------------------------


def test_the_best_is_one_whole_save_of_the_step_that_the_lines_say(whole: tuple[Path, list[str]]) -> None:
    out, _ = whole
    step, value = best_of(out)
    assert kept(out) == [f"step-{step:08d}"]
    assert save.read(out / "best" / kept(out)[0]).step == step
    last = lines(out)[-1]["measures"]["fid"]
    assert info(out)["best"] == {"measure": "fid", "step": step, "value": value, "last": last}


def test_the_best_is_what_a_run_of_that_length_ends_with(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    step, _ = best_of(whole[0])
    stopped(measured(ring()), tmp_path / "run", step)
    newest, _ = save.newest(tmp_path / "run" / "saves")
    assert newest is not None
    there = (newest.path / save.TENSORS).read_bytes()
    assert best_tensors(whole[0]) == there


def test_the_best_samples_are_others_than_the_newest(whole: tuple[Path, list[str]]) -> None:
    newest, best = Run(whole[0]), Run(whole[0], best=True)
    assert (newest.save.step, best.save.step) == (STEPS, best_of(whole[0])[0])
    assert not torch.equal(newest.sample(20), best.sample(20))
    assert torch.equal(best.sample(20), Run(whole[0], best=True).sample(20))
    assert newest.measures == best.measures == lines(whole[0])


def test_more_is_better_where_it_is(tmp_path: Path) -> None:
    train(measured(ring(9), measures=["coverage"]), tmp_path / "run")
    found = {line["step"]: line["measures"]["coverage"] for line in lines(tmp_path / "run")}
    assert len(set(found.values())) > 1
    step = info(tmp_path / "run")["best"]["step"]
    assert found[step] == max(found.values())
    assert kept(tmp_path / "run") == [f"step-{step:08d}"]


def test_of_equal_figures_the_first_is_the_best(tmp_path: Path) -> None:
    """And a best that was never beaten is called so."""
    recipe = decode({**measured(ring(9), measures=["modes"]).canonical(), "data": {"kind": "ring", "sigma": 1e-9}})
    listener = Listener()
    train(recipe, tmp_path / "run", watcher=listener)
    assert [line["measures"]["modes"] for line in lines(tmp_path / "run")] == [0, 0, 0]
    assert kept(tmp_path / "run") == ["step-00000003"]
    assert listener.heard[-1] == "modes: 0, and never better"


def test_what_is_said(whole: tuple[Path, list[str]]) -> None:
    out, heard = whole
    (step, value), last = best_of(out), lines(out)[-1]["measures"]["fid"]
    told = {line["step"]: sentence for line, sentence in zip(lines(out), heard[:-1], strict=True)}
    floor = lines(out)[0]["floor"]["fid"]
    assert told[step].startswith(f"step {step}: fid {value:.4g} (floor {floor:.4g}), modes ")
    assert told[step].endswith("; the best so far")
    assert not told[STEPS].endswith("; the best so far")
    more = f"{last / value - 1:+.0%}"
    assert more.startswith("+")
    assert heard[-1] == f"fid: best {value:.4g} at step {step}, kept in {out / 'best'}; last {last:.4g} ({more})"


def _gauge(out: Path, name: str, *values: float) -> Gauge:
    """A gauge that remembers these figures of a measure."""
    out.mkdir()
    folder = RunFolder(out)
    for k, value in enumerate(values):
        folder.append(folder.measures, {"step": k, "measures": {name: value}})
    recipe = measured(ring(), measures=[name])
    return Gauge(recipe, Loaded(recipe.data.load().train), folder, 99, torch.device("cpu"), lambda _: None)


def test_the_summary_of_a_best_below_nought(tmp_path: Path) -> None:
    """An unbiased figure may be: a percentage of it would say nothing."""
    told = _gauge(tmp_path / "run", "kid", 0.5, -0.001, 0.002).summary()
    assert told == f"kid: best -0.001 at step 1, kept in {tmp_path / 'run' / 'best'}; last 0.002"


def test_nothing_measured_nothing_said(tmp_path: Path) -> None:
    gauge = _gauge(tmp_path / "run", "fid")
    assert (gauge.summary(), gauge.facts(), gauge.is_best(0)) == ("", None, False)


# ---- resumed ---------------------------------------------------------------------------------------------


def same_end(out: Path, other: Path) -> None:
    assert (out / "measures.jsonl").read_text() == (other / "measures.jsonl").read_text()
    assert traces(out) == traces(other)
    assert kept(out) == kept(other)
    assert best_tensors(out) == best_tensors(other)
    assert info(out)["best"] == info(other)["best"]


@pytest.mark.parametrize("late", [-2, 0, 1, 4], ids=["before-the-best", "at-the-best", "just-after", "long-after"])
def test_resumed_equals_undisturbed(whole: tuple[Path, list[str]], tmp_path: Path, late: int) -> None:
    recipe = measured(ring())
    stopped(recipe, tmp_path / "run", best_of(whole[0])[0] + late)
    train(recipe, tmp_path / "run", resume=True)
    same_end(tmp_path / "run", whole[0])


@pytest.mark.parametrize("left", [1, 2], ids=["from-the-last-save", "from-the-one-before"])
def test_killed_after_the_best_equals_undisturbed(whole: tuple[Path, list[str]], tmp_path: Path, left: int) -> None:
    """What was measured and kept after the save that is resumed from is let go and comes again."""
    out, recipe = tmp_path / "run", measured(ring())
    step = best_of(whole[0])[0]
    stopped(recipe, out, step + 1)
    places = sorted((out / "saves").iterdir())
    assert len(places) >= 2
    shutil.rmtree(places[-1])
    if left == 2:
        with (out / "measures.jsonl").open("a") as file:
            file.write('{"step": 9999, "measu')
    train(recipe, out, resume=True)
    same_end(out, whole[0])


def test_pictures_resume_exactly(tmp_path: Path) -> None:
    train(pictures(), tmp_path / "a")
    assert [line["step"] for line in lines(tmp_path / "a")] == CADENCE
    assert lines(tmp_path / "a")[0]["features"] == "pixels"
    stopped(pictures(), tmp_path / "b", 13)
    train(pictures(), tmp_path / "b", resume=True)
    same_end(tmp_path / "b", tmp_path / "a")


def test_resuming_may_begin_end_or_change_the_measuring(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(unmeasured(measured(ring())), out, 7)
    train(measured(ring()), out, resume=True)
    assert lines(out) == [line for line in lines(whole[0]) if line["step"] > 7]
    stopped(unmeasured(measured(ring(30))), out, 22, resume=True)
    assert [line["step"] for line in lines(out)][-1] == STEPS


def test_by_another_measure_the_best_starts_anew(tmp_path: Path) -> None:
    """What `run.json` calls the best and what lies in `best/` are of one step, whatever was changed on the way."""
    out = tmp_path / "run"
    train(measured(ring(9), measures=["fid", "diversity", "coverage"]), out)
    train(measured(ring(12), measures=["coverage", "fid"], every=100), out, resume=True)
    assert kept(out) == [f"step-{info(out)['best']['step']:08d}"]


# ---- a disk that refuses -----------------------------------------------------------------------------------


def _refusing(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    write = save.write

    def full(saves: Path, *rest: Any) -> Path:
        if saves.name == place:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(saves, *rest)

    monkeypatch.setattr(save, "write", full)


def test_a_disk_that_refuses_the_best_does_not_stop_the_run(
    whole: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refusing(monkeypatch, "best")
    listener = Listener()
    train(measured(ring()), tmp_path / "run", watcher=listener)
    step, _ = best_of(whole[0])
    said = [sentence for sentence in listener.heard if "could not keep the best weights" in sentence]
    assert f"could not keep the best weights, of step {step}: [Errno 28] No space left on device" in said
    assert info(tmp_path / "run")["state"] == "done"
    assert traces(tmp_path / "run") == traces(whole[0])
    assert lines(tmp_path / "run") == lines(whole[0])
    assert kept(tmp_path / "run") == []


def test_a_damaged_best_is_refused_by_name(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole[0], tmp_path / "run"))
    tensors = out / "best" / kept(out)[0] / save.TENSORS
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 4
    tensors.write_bytes(data)
    with pytest.raises(SaveError, match=f"best.*no valid save.*{kept(out)[0]}"):
        Run(out, best=True).sample(2)
    assert torch.equal(Run(out).sample(4), Run(whole[0]).sample(4))


def test_the_unmeasurable_is_said_and_is_no_best(tmp_path: Path) -> None:
    """Points have no classifier: the run goes on, and says what there is none of and why."""
    listener = Listener()
    train(measured(ring(3), measures=["class_balance", "fid"]), tmp_path / "run", watcher=listener)
    (line,) = lines(tmp_path / "run")
    assert list(line["measures"]) == ["fid"]
    assert "no class_balance: these features come without a classifier" in listener.heard[-1]
    assert kept(tmp_path / "run") == []
    assert "best" not in info(tmp_path / "run")


def test_features_that_the_data_cannot_have(tmp_path: Path) -> None:
    recipe = measured(decode({**digits(3).canonical(), "data": {"kind": "digits", "size": 8}}))
    poor = decode({**recipe.canonical(), "data": {"kind": "npz", "path": str(tmp_path / "p.npz"), "size": 8}})
    import numpy as np

    np.savez(tmp_path / "p.npz", images=np.random.default_rng(0).integers(0, 256, (70, 8, 8, 1), np.uint8))
    how = {**poor.canonical(), "measure": {"features": "classifier", "every": 3, "n": 10}}
    with pytest.raises(RecipeError, match=r"a classifier needs labels.*take --features pixels"):
        train(decode(how), tmp_path / "run")
