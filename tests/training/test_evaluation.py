"""Periodic evaluation: the lines of `measures.jsonl`, the best checkpoint, and that training is not affected."""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from poise.data.source import DataSplits
from poise.errors import CheckpointError, Diverged, RecipeError, Stopped
from poise.measure import classifier
from poise.measure.catalogue import select_measures
from poise.measure.config import MeasureConfig
from poise.measure.evaluator import ENOUGH_TO_RANK
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.evaluate import measure_run
from poise.runs.folder import RunFolder
from poise.runs.run import Run
from poise.training.evaluation import PATIENCE, Best, PeriodicEvaluator, settings_of
from poise.training.listener import NullListener, StartInfo
from poise.training.run_info import closing_messages
from poise.training.train import train
from poise.utils.files import append_line, write_text
from poise.watch.base import Alarm
from runs.small_runs import STEPS, digits, ring, stopped, traces

EVERY = 3
KEYS = {"step", "measures", "floor", "n", "features"}
CADENCE = [3, 6, 9, 12, 15, 18, 20]


def measured(recipe: Recipe, **how: Any) -> Recipe:
    """The recipe with FID every three steps and a high learning rate."""
    result = {"every": EVERY, "measures": ["fid", "modes"], "n": 100, **how}
    optimizer = {"g": {"kind": "adam", "lr": 5e-2}, "d": {"kind": "adam", "lr": 1e-2}}
    return decode({**recipe.canonical(), "seed": 3, "optimizer": optimizer, "measure": result})


def broad(steps: int, *measures: str, **how: Any) -> Recipe:
    """A ring with broad modes, of which even an untrained G covers some."""
    recipe = measured(ring(steps), measures=list(measures), **how)
    return decode({**recipe.canonical(), "data": {"kind": "ring", "sigma": 0.5}})


def unmeasured(recipe: Recipe) -> Recipe:
    return decode({key: value for key, value in recipe.canonical().items() if key != "measure"})


def pictures(file: Path, **how: Any) -> Recipe:
    """Images of 8 x 8 pixels and two classes, for convolutional networks with batch norm."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = rng.integers(0, 128, (120, 8, 8, 1)) + 128 * labels[:, None, None, None]
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    data = {"kind": "npz", "path": str(file), "size": 8, "held_out": 0.25}
    small = {**digits().canonical(), "data": data}
    return measured(decode(small), **{"measures": ["fid"], "n": 20, "features": "pixels", **how})


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "measures.jsonl").read_text().splitlines()]


def info(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def best_of(out: Path, name: str = "fid") -> tuple[int, float]:
    """The step and the value of the first smallest value in the lines."""
    return min(((line["step"], line["measures"][name]) for line in lines(out)), key=lambda one: one[1])


def kept(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "best").iterdir()) if (out / "best").is_dir() else []


def best_tensors(out: Path) -> bytes:
    (name,) = kept(out)
    return (out / "best" / name / checkpoint.TENSORS).read_bytes()


class Listener(NullListener):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, sentence: str) -> None:
        self.messages.append(sentence)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An uninterrupted run, whose best step is neither the first nor the last, and its messages."""
    out, listener = tmp_path_factory.mktemp("runs") / "whole", Listener()
    train(measured(ring()), out, listener=listener)
    assert CADENCE[1] <= best_of(out)[0] < CADENCE[-2]
    return out, listener.messages


# ---- the lines -----------------------------------------------------------------------------------------


def test_lines_and_their_steps(whole: tuple[Path, list[str]]) -> None:
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


def test_the_last_step_is_measured_once(tmp_path: Path) -> None:
    train(measured(ring(6)), tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run")] == [3, 6]


def test_a_line_can_be_reproduced_from_the_checkpoint(whole: tuple[Path, list[str]]) -> None:
    """The latents are always those of seed 0."""
    out, _ = whole
    for best, step in ((False, STEPS), (True, best_of(out)[0])):
        result, _ = measure_run(Run(out, best=best), select_measures("fid,modes"), n=100)
        (line,) = (line for line in lines(out) if line["step"] == step)
        assert {name: one.value.value for name, one in result.results.items()} == line["measures"]
        assert {name: one.floor.value for name, one in result.results.items() if one.floor} == line["floor"]


def test_a_run_without_a_measure_table_has_no_files(tmp_path: Path) -> None:
    train(unmeasured(measured(ring(3))), tmp_path / "run")
    assert not (tmp_path / "run" / "measures.jsonl").exists()
    assert not (tmp_path / "run" / "best").exists()
    assert "best" not in info(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"no valid checkpoint.*\[measure\] in its recipe"):
        Run(tmp_path / "run", best=True).sample(2)


@pytest.mark.parametrize(
    ("steps", "every", "at", "due"), [(20, 6, 4, 6), (20, 30, 4, 20), (20, 3, 7, 9)], ids=["first", "last", "second"]
)
def test_without_a_best_checkpoint_the_next_measurement_is_named(
    steps: int, every: int, at: int, due: int, tmp_path: Path
) -> None:
    """A run that has not been measured yet, or by a measure that can't be computed."""
    stopped(measured(ring(steps), measures=["class_balance"], every=every), tmp_path / "run", at)
    with pytest.raises(CheckpointError, match=rf"is due at step {due}: leave out --best until then$"):
        Run(tmp_path / "run", best=True).sample(2)


# ---- training is not affected -----------------------------------------------------------------


def test_evaluation_does_not_change_training(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    train(unmeasured(measured(ring())), tmp_path / "run")
    assert traces(tmp_path / "run") == {**traces(whole[0]), "recipe": (tmp_path / "run" / "recipe.toml").read_text()}


def test_evaluating_the_live_weights_does_not_change_training(tmp_path: Path) -> None:
    """Without averaged weights the trained G itself is measured, and its batch norm must stay in training mode."""
    recipe = decode({**measured(ring(8)).canonical(), "tricks": []})
    for name, one in (("seen", recipe), ("alone", unmeasured(recipe))):
        train(one, tmp_path / name)
    assert traces(tmp_path / "seen")["tensors"] == traces(tmp_path / "alone")["tensors"]
    assert traces(tmp_path / "seen")["rows"] == traces(tmp_path / "alone")["rows"]


def test_training_a_classifier_does_not_change_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (2560, 2560))  # it tells twice how far it is
    recipe, listener = pictures(tmp_path / "p.npz", every=5, features="classifier"), Listener()
    train(recipe, tmp_path / "seen", listener=listener)
    assert [line["step"] for line in lines(tmp_path / "seen")] == [5, 10, 15, 20]
    assert lines(tmp_path / "seen")[0]["features"].startswith("classifier ")
    assert len([output for output in listener.messages if output.startswith("training a small classifier")]) == 1
    train(unmeasured(recipe), tmp_path / "alone")
    alone, seen = traces(tmp_path / "alone"), traces(tmp_path / "seen")
    assert alone["tensors"] == seen["tensors"]
    assert alone["rows"] == seen["rows"]
    assert alone["sheets"] == seen["sheets"]


# ---- the best --------------------------------------------------------------------------------------------


def test_the_best_checkpoint_is_of_the_best_step(whole: tuple[Path, list[str]]) -> None:
    out, _ = whole
    step, value = best_of(out)
    assert kept(out) == [f"step-{step:08d}"]
    assert checkpoint.read(out / "best" / kept(out)[0]).step == step
    last = lines(out)[-1]["measures"]["fid"]
    assert info(out)["best"] == {"measure": "fid", "step": step, "value": value, "last": last}


def test_the_best_checkpoint_equals_the_end_of_a_shorter_run(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    step, _ = best_of(whole[0])
    stopped(measured(ring()), tmp_path / "run", step)
    newest, _ = checkpoint_folder.newest_valid(tmp_path / "run" / "saves")
    assert newest is not None
    there = (newest.path / checkpoint.TENSORS).read_bytes()
    assert best_tensors(whole[0]) == there


def test_the_best_samples_differ_from_the_newest(whole: tuple[Path, list[str]]) -> None:
    newest, best = Run(whole[0]), Run(whole[0], best=True)
    assert (newest.checkpoint.step, best.checkpoint.step) == (STEPS, best_of(whole[0])[0])
    assert not torch.equal(newest.sample(20), best.sample(20))
    assert torch.equal(best.sample(20), Run(whole[0], best=True).sample(20))
    assert newest.measures == best.measures == lines(whole[0])


def test_measures_for_which_more_is_better(tmp_path: Path) -> None:
    train(broad(18, "coverage"), tmp_path / "run")
    found = {line["step"]: line["measures"]["coverage"] for line in lines(tmp_path / "run")}
    assert found[3] < max(found.values()) > found[18]
    step = info(tmp_path / "run")["best"]["step"]
    assert found[step] == max(found.values())
    assert kept(tmp_path / "run") == [f"step-{step:08d}"]


def test_of_equal_values_the_first_is_the_best(tmp_path: Path) -> None:
    """A later equal value is not the best."""
    recipe = decode({**measured(ring(9), measures=["modes"]).canonical(), "data": {"kind": "ring", "sigma": 1e-9}})
    listener = Listener()
    train(recipe, tmp_path / "run", listener=listener)
    assert [line["measures"]["modes"] for line in lines(tmp_path / "run")] == [0, 0, 0]
    assert kept(tmp_path / "run") == ["step-00000003"]
    kept_in = tmp_path / "run" / "best"
    assert f"modes: best 0 at step 3, kept in {kept_in}; last 0" in listener.messages


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ([128.8], "fid 128.8 at step 500, which is both the best and the last"),
        ([200.0, 128.8], "fid 128.8 at step 1,000, which is both the best and the last"),
        ([128.8, 128.8], "fid: best 128.8 at step 500; last 128.8 (+0%)"),
        ([100.0, 150.0], "fid: best 100 at step 500; last 150 (+50%)"),
        ([200.0, 100.0, 150.0, 101.0], "fid: best 100 at step 1,000; last 101 (+1%)"),
        (
            [200.0, 100.0, 150.0, 101.0, 110.0],
            "fid: best 100 at step 1,000; last 110 (+10%); none of the last 3 measurements was better",
        ),
        ([100.0, 150.0, 101.0, 110.0, 99.0, 99.0], "fid: best 99 at step 2,500; last 99 (+0%)"),
        ([], ""),
    ],
)
def test_summary_of_best_and_last(figures: list[float], message: str, tmp_path: Path) -> None:
    recipe = measured(ring(1000), measures=["fid"])
    evaluator = PeriodicEvaluator(recipe, recipe.data.load(), RunFolder(tmp_path), 0, torch.device("cpu"), print)
    for i, figure in enumerate(figures, 1):
        evaluator._update_best({"step": 500 * i, "measures": {"fid": figure}, "n": ENOUGH_TO_RANK})
    assert evaluator.summary() == message


def test_with_few_real_samples_no_run_is_said_to_improve_no_longer(tmp_path: Path) -> None:
    recipe = measured(ring(1000), measures=["fid"])
    for n in (ENOUGH_TO_RANK - 1, ENOUGH_TO_RANK):
        evaluator = PeriodicEvaluator(recipe, recipe.data.load(), RunFolder(tmp_path), 0, torch.device("cpu"), print)
        for step in range(1, PATIENCE + 2):
            evaluator._update_best({"step": step, "measures": {"fid": float(step)}, "n": n})
        assert evaluator.num_since_best == PATIENCE
        assert evaluator.is_stalled == (n == ENOUGH_TO_RANK)


def test_messages(whole: tuple[Path, list[str]]) -> None:
    out, messages = whole
    (step, value), last = best_of(out), lines(out)[-1]["measures"]["fid"]
    result = {line["step"]: sentence for line, sentence in zip(lines(out), messages[:-4], strict=True)}
    floor = lines(out)[0]["floor"]["fid"]
    assert result[step].startswith(f"step {step}: fid {value:.4g} (real data {floor:.4g}), modes ")
    assert result[step].endswith("; the best so far")
    assert not result[STEPS].endswith("; the best so far")
    more = f"{last / value - 1:+.0%}"
    assert more.startswith("+")
    summary = f"fid: best {value:.4g} at step {step}, kept in {out / 'best'}; last {last:.4g} ({more})"
    since = CADENCE[CADENCE.index(step) + 1 :]
    summary += f"; none of the last {len(since)} measurements was better" if len(since) >= PATIENCE else ""
    assert messages[-4:] == [
        summary,
        f"samples: {out / 'samples' / f'step-{STEPS:08d}.png'}",
        f"to generate more samples: poise sample {out} --best",
        "done",
    ]
    stalled = {late for late in since if f"; fid has not improved since step {step} ({value:.4g})" in result[late]}
    assert stalled == set(since[PATIENCE - 1 :])


def test_a_best_checkpoint_that_could_not_be_written_is_not_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.write

    def refusing(saves: Path, *args: Any) -> Path:
        if saves.name == "best":
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(saves, *args)

    monkeypatch.setattr(checkpoint, "write", refusing)
    listener = Listener()
    train(measured(ring()), tmp_path / "run", listener=listener)
    *_, summary, _, more, end = listener.messages
    assert summary.startswith("fid: best ")
    assert "kept" not in summary
    assert (more, end) == (f"to generate more samples: poise sample {tmp_path / 'run'}", "done")


def test_a_roll_back_and_a_resumed_run_count_the_measurements_since_the_best(tmp_path: Path) -> None:
    recipe, folder = measured(ring(1000), measures=["fid"]), RunFolder(tmp_path)
    for i, value in enumerate([100.0, 110.0, 120.0, 90.0, 130.0], 1):
        line = {"measures": {"fid": value}, "floor": {"fid": 0.5}, "n": 100, "features": "points"}
        append_line(folder.measures, {"step": i} | line)
    (folder.best / "step-00000001").mkdir(parents=True)
    write_text(folder.recipe, recipe.to_toml())
    checked: list[str] = []
    evaluator = PeriodicEvaluator(recipe, recipe.data.load(), folder, 5, torch.device("cpu"), checked.append)
    assert evaluator.num_since_best == 1
    evaluator.roll_back(3)
    assert evaluator.num_since_best == 2


def _evaluator(out: Path, name: str) -> PeriodicEvaluator:
    recipe = measured(ring(), measures=[name])
    return PeriodicEvaluator(
        recipe, DataSplits(recipe.data.load().train), RunFolder(out), 0, torch.device("cpu"), lambda _: None
    )


@pytest.mark.parametrize(
    ("best", "last", "gap"), [(0.5, 0.75, " (+50%)"), (2.0, 30.0, " (+1400%)"), (0.0, 0.2, ""), (-0.001, 0.002, "")]
)
def test_the_summary(tmp_path: Path, best: float, last: float, gap: str) -> None:
    """An unbiased value may be 0 or negative, so that a percentage would be meaningless."""
    evaluator = _evaluator(tmp_path, "kid")
    evaluator.best, evaluator.last = Best(1000, best), last
    assert evaluator.summary() == f"kid: best {best:.4g} at step 1,000; last {last:.4g}{gap}"


def test_few_samples_recommend_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of values that can't be told apart is chance; the closing messages name it, and do not send to it."""
    evaluator, handler = _evaluator(tmp_path, "fid"), SimpleNamespace(summary=lambda: "done")
    evaluator.best, evaluator.last = Best(14, 1428.0), 1956.0
    monkeypatch.setattr(PeriodicEvaluator, "best_is_kept", True)
    for n in (ENOUGH_TO_RANK - 1, ENOUGH_TO_RANK):
        evaluator.n = n
        summary, _, more, _ = closing_messages(RunFolder(tmp_path / "run"), 114, handler, evaluator)  # type: ignore[arg-type]
        assert more.endswith(" --best") == (n == ENOUGH_TO_RANK)
        assert summary.endswith("99 samples can't rank checkpoints: compare the sample grids") != more.endswith(
            "--best"
        )


def test_no_summary_without_results(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path, "fid")
    assert (evaluator.summary(), evaluator.best_info(), evaluator.is_best(0)) == ("", None, False)


# ---- resumed ---------------------------------------------------------------------------------------------


def same_end(out: Path, other: Path) -> None:
    assert (out / "measures.jsonl").read_text() == (other / "measures.jsonl").read_text()
    assert traces(out) == traces(other)
    assert kept(out) == kept(other)
    assert best_tensors(out) == best_tensors(other)
    assert info(out)["best"] == info(other)["best"]


@pytest.mark.parametrize("late", [-2, 0, 1, 4], ids=["before-the-best", "at-the-best", "just-after", "long-after"])
def test_resuming_is_exact(whole: tuple[Path, list[str]], tmp_path: Path, late: int) -> None:
    recipe = measured(ring())
    stopped(recipe, tmp_path / "run", best_of(whole[0])[0] + late)
    train(recipe, tmp_path / "run", resume=True)
    same_end(tmp_path / "run", whole[0])


@pytest.mark.parametrize("left", [1, 2], ids=["from-the-last-save", "from-the-one-before"])
def test_resuming_after_a_kill_is_exact(whole: tuple[Path, list[str]], tmp_path: Path, left: int) -> None:
    """Results and checkpoints after the restored checkpoint are deleted and computed again."""
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


def test_the_best_checkpoint_of_lost_steps_is_deleted(tmp_path: Path) -> None:
    """A run that is resumed from before its best step and measured at other steps has another best."""
    out = tmp_path / "run"
    stopped(measured(ring()), out, 10)
    shutil.rmtree(out / "saves" / "step-00000010")
    assert kept(out) == ["step-00000009"]
    train(measured(ring(), every=7), out, resume=True)
    assert [line["step"] for line in lines(out)] == [3, 6, 7, 14, 20]
    assert kept(out) == [f"step-{best_of(out)[0]:08d}"]


def test_resuming_with_images_is_exact(tmp_path: Path) -> None:
    recipe = pictures(tmp_path / "p.npz")
    train(recipe, tmp_path / "a")
    assert [line["step"] for line in lines(tmp_path / "a")] == CADENCE
    assert {(line["features"], line["n"]) for line in lines(tmp_path / "a")} == {("pixels", 20)}
    stopped(recipe, tmp_path / "b", 13)
    train(recipe, tmp_path / "b", resume=True)
    same_end(tmp_path / "b", tmp_path / "a")


def test_the_measure_table_may_change_when_a_run_is_resumed(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(unmeasured(measured(ring())), out, 7)
    train(measured(ring()), out, resume=True)
    assert lines(out) == [line for line in lines(whole[0]) if line["step"] > 7]
    stopped(unmeasured(measured(ring(30))), out, 22, resume=True)
    assert [line["step"] for line in lines(out)][-1] == STEPS


@pytest.mark.parametrize(
    ("measures", "how"), [(("density", "fid"), {}), (("fid",), {"n": 50})], ids=["another-measure", "another-n"]
)
def test_other_settings_discard_the_best(tmp_path: Path, measures: tuple[str, ...], how: Any) -> None:
    """`run.json` and `best/` agree on the step, and the best is among comparable values."""
    out = tmp_path / "run"
    train(broad(9, "fid", "density"), out)
    found = lines(out)
    assert best_of(out)[0] == 6
    assert max(found, key=lambda line: line["measures"]["density"])["step"] == 3
    train(broad(11, *measures, **how), out, resume=True)
    assert info(out)["best"]["step"] == 11
    assert kept(out) == ["step-00000011"]


def test_values_of_the_two_domains_are_not_comparable() -> None:
    """A translation in both directions alone has two; see below for the other settings."""
    assert settings_of(MeasureConfig(domain="a")) != settings_of(MeasureConfig(domain="b"))


def recorded(folder: RunFolder, recipe: Recipe, first: int) -> PeriodicEvaluator:
    """The evaluator of a run that is resumed at step `first` with this recipe, which is then that of the folder."""
    evaluator = PeriodicEvaluator(recipe, recipe.data.load(), folder, first, torch.device("cpu"), print)
    write_text(folder.recipe, recipe.to_toml())
    return evaluator


@pytest.mark.parametrize("in_manifest", [True, False], ids=["now", "earlier-version"])
@pytest.mark.parametrize(
    ("how", "fields"),
    [
        ({"n": 50}, "measure.n"),
        ({"features": "pixels"}, "measure.features"),
        ({"measures": ["modes", "fid"]}, "measure.measures"),
        ({"measures": ["modes"], "n": 50}, "measure.measures and measure.n"),
        ({"every": 5}, ""),
        ({"measures": ["fid"]}, ""),
    ],
)
def test_the_former_best_is_named_when_settings_have_changed(
    tmp_path: Path, how: dict[str, Any], fields: str, in_manifest: bool
) -> None:
    """Its value counts no more, in no later process either, until a checkpoint with the new settings replaces it."""
    folder, before = RunFolder(tmp_path), measured(ring())
    settings = recorded(folder, before, 0).settings
    facts = {"measure": settings} if in_manifest else {}
    for step, value in ((3, 0.5), (6, 0.1), (9, 0.4)):
        values = {"fid": value, "modes": 8.0}
        append_line(folder.measures, {"step": step, "measures": values, "floor": {}, "n": 100})
    checkpoint.write(folder.best, 6, {"weight": torch.zeros(1)}, {"seconds": 0.0}, facts)
    for _ in range(2 if in_manifest else 1):
        evaluator = recorded(folder, measured(ring(), **how), 9)
        if not fields:
            assert (evaluator.best, evaluator.notes) == (Best(6, 0.1), [])
            continue
        assert (evaluator.best, evaluator.last) == (None, None)
        (note,) = evaluator.notes
        assert note.startswith(f"{fields} changed: earlier values are not comparable; the former best, of step 6, ")
        evaluator.roll_back(8)
        assert evaluator.best is None
    assert recorded(folder, before, 9).best == (Best(6, 0.1) if in_manifest or not fields else None)


def test_the_former_best_stays_until_there_is_a_new_one(tmp_path: Path) -> None:
    """Stopped before its first measurement with the new settings, a run still has its best weights."""
    out, listener = tmp_path / "run", StartListener()
    stopped(broad(20, "fid", every=6), out, 8)
    former = best_tensors(out)
    stopped(broad(20, "fid", every=6, n=50), out, 10, resume=True)
    assert kept(out) == ["step-00000006"]
    assert best_tensors(out) == former
    assert "best" not in info(out)
    train(broad(12, "fid", every=6, n=50), out, resume=True, listener=listener)
    assert sum("measure.n changed" in line for line in listener.lines) == 1
    assert kept(out) == ["step-00000012"]
    assert info(out)["best"]["step"] == 12


class StartListener(NullListener):
    def on_start(self, start: StartInfo) -> None:
        self.lines = start.lines


def test_the_best_of_new_settings_stays_when_the_run_is_resumed_again(tmp_path: Path) -> None:
    """The lines with the old settings are still there; their values are not comparable."""
    folder, recipe = RunFolder(tmp_path), measured(ring(), n=120)
    write_text(folder.recipe, recipe.to_toml())
    for step, value, n in ((3, 0.5, 100), (6, 0.1, 100), (9, 0.4, 120), (12, 0.3, 120), (15, 0.35, 120)):
        append_line(folder.measures, {"step": step, "measures": {"fid": value}, "floor": {}, "n": n})
    checkpoint.write(folder.best, 12, {"weight": torch.zeros(1)}, {"seconds": 0.0}, {})
    evaluator = PeriodicEvaluator(recipe, recipe.data.load(), folder, 15, torch.device("cpu"), lambda _: None)
    assert (evaluator.best, evaluator.last, evaluator.num_since_best) == (Best(12, 0.3), 0.35, 1)


@pytest.mark.parametrize("policy", ["stop", "roll_back"])
def test_an_alarm_of_an_evaluation_that_is_repeated_is_obeyed(tmp_path: Path, policy: str) -> None:
    """A signal had interrupted the evaluation, which is made up for when the run is resumed."""
    changed = {"policy": {"past_its_best": policy}, "threshold": {"past_its_best": 1.0}}
    rates = {"g": {"kind": "adam", "lr": 5e-2}, "d": {"kind": "adam", "lr": 1e-2}}
    table = measured(ring(20)).canonical() | {"seed": 3, "optimizer": rates, "monitor": changed}
    recipe, alarms = decode(table), []

    class AlarmSteps(NullListener):
        def on_alarm(self, alarm: Alarm) -> None:
            alarms.append((alarm.detector, alarm.step))

    class StoppedIn(AlarmSteps):
        def on_progress(self, what: str, share: float) -> None:
            if what.startswith(f"measuring at step {at}"):
                raise Stopped("a test")

    with pytest.raises(Diverged, match="past_its_best"):  # at once, or after three roll-backs
        train(recipe, tmp_path / "whole", listener=AlarmSteps())
    at = next(step for detector, step in alarms if detector == "past_its_best")
    expected, out = list(alarms), tmp_path / "interrupted"
    alarms.clear()
    with pytest.raises(Stopped):
        train(recipe, out, listener=StoppedIn())
    with pytest.raises(Diverged, match="past_its_best"):
        train(recipe, out, resume=True, listener=AlarmSteps())
    assert alarms == expected
    assert ((out / "alarms.jsonl").read_text()) == (tmp_path / "whole" / "alarms.jsonl").read_text()
    assert info(out)["state"] == info(tmp_path / "whole")["state"]


def test_sample_grids_of_discarded_steps_are_deleted(tmp_path: Path) -> None:
    """They would be taken for the newest ones; other files stay."""

    def grids(steps: int) -> Recipe:
        return decode(ring(steps).canonical() | {"log": {"rows": 2, "samples": 4, "saves": 6, "sheet": 4}})

    folder = tmp_path / "run"
    stopped(grids(20), folder, 6)
    for name in ("step-00000008.png", "step-00000016.png", "mine.png", "step-by-step.png"):
        (folder / "samples" / name).write_bytes(b"png")
    train(grids(7), folder, resume=True)
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        *("mine.png", "step-00000000.png", "step-00000004.png", "step-00000007.png", "step-by-step.png")
    ]


def test_a_best_that_was_not_kept_leaves_the_one_before(tmp_path: Path) -> None:
    """A full disk: the checkpoint of step 9 could not be written, and that of step 6 is still in `best/`."""
    folder, recipe = RunFolder(tmp_path), measured(ring())
    write_text(folder.recipe, recipe.to_toml())
    for step, value in ((3, 0.5), (6, 0.3), (9, 0.2), (12, 0.4)):
        append_line(folder.measures, {"step": step, "measures": {"fid": value}, "floor": {}, "n": 100})
    checkpoint.write(folder.best, 6, {"weight": torch.zeros(1)}, {"seconds": 0.0}, {})
    evaluator = PeriodicEvaluator(recipe, recipe.data.load(), folder, 12, torch.device("cpu"), lambda _: None)
    assert (evaluator.best, evaluator.last, evaluator.num_since_best) == (Best(6, 0.3), 0.4, 2)
    evaluator.roll_back(9)
    assert (evaluator.best, evaluator.last, evaluator.num_since_best) == (Best(6, 0.3), 0.2, 1)


def test_results_after_the_checkpoint_are_ignored(tmp_path: Path) -> None:
    folder, recipe = RunFolder(tmp_path), measured(ring())
    write_text(folder.recipe, recipe.to_toml())
    for step, value in ((3, 0.5), (6, 0.4), (9, 0.1)):
        append_line(folder.measures, {"step": step, "measures": {"fid": value}, "floor": {}, "n": 100})
    checkpoint.write(folder.best, 6, {"weight": torch.zeros(1)}, {"seconds": 0.0}, {})
    evaluator = PeriodicEvaluator(recipe, recipe.data.load(), folder, 6, torch.device("cpu"), lambda _: None)
    assert (evaluator.best, evaluator.last) == (Best(6, 0.4), 0.4)


# ---- disk errors -----------------------------------------------------------------------------------


def _refusing(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    write = checkpoint.write

    def full(saves: Path, *rest: Any) -> Path:
        if saves.name == place:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(saves, *rest)

    monkeypatch.setattr(checkpoint, "write", full)


def test_a_disk_error_at_the_best_checkpoint_does_not_stop_the_run(
    whole: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refusing(monkeypatch, "best")
    listener = Listener()
    train(measured(ring()), tmp_path / "run", listener=listener)
    step, _ = best_of(whole[0])
    refused = f"{tmp_path / 'run' / 'best'}: can't be written: No space left on device"
    output = [sentence for sentence in listener.messages if "could not keep the best weights" in sentence]
    assert f"could not keep the best weights, those of step {step}: {refused}" in output
    assert info(tmp_path / "run")["state"] == "done"
    assert traces(tmp_path / "run") == traces(whole[0])
    assert lines(tmp_path / "run") == lines(whole[0])
    assert kept(tmp_path / "run") == []


def test_a_damaged_best_checkpoint_is_an_error(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole[0], tmp_path / "run"))
    tensors = out / "best" / kept(out)[0] / checkpoint.TENSORS
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 4
    tensors.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"best.*no valid checkpoint.*{kept(out)[0]}"):
        Run(out, best=True).sample(2)
    assert torch.equal(Run(out).sample(4), Run(whole[0]).sample(4))


def test_a_skipped_measure_is_reported_and_selects_nothing(tmp_path: Path) -> None:
    """There is no classifier for points: the run continues and reports the reason."""
    listener = Listener()
    train(measured(ring(3), measures=["class_balance", "fid"]), tmp_path / "run", listener=listener)
    (line,) = lines(tmp_path / "run")
    assert list(line["measures"]) == ["fid"]
    (message,) = [sentence for sentence in listener.messages if sentence.startswith("step 3: ")]
    assert "no class_balance: the feature extractor does not classify" in message
    assert "without class_balance, the first of measure.measures, no best weights are kept" in message
    assert kept(tmp_path / "run") == []
    assert "best" not in info(tmp_path / "run")
    with pytest.raises(CheckpointError, match="none of its measurements has led to one: leave out --best"):
        Run(tmp_path / "run", best=True).sample(2)


@pytest.mark.parametrize("points", [True, False])
def test_what_needs_the_finished_game_is_measured_after_training(tmp_path: Path, points: bool) -> None:
    """If it can be at all: images have no duality gap, and points no labels to probe D's features for."""
    recipe, listener = ring(3) if points else pictures(tmp_path / "p.npz", features="pixels"), Listener()
    if not points:
        images, labels = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 1), np.uint8), np.arange(120) % 2
        np.savez(tmp_path / "p.npz", images=images, labels=labels)
    how = {} if points else {"features": "pixels"}
    wanted = measured(unmeasured(recipe), measures=["fid", "duality_gap", "d_probe"], **how)
    train(wanted, tmp_path / "run", listener=listener)
    message = next(sentence for sentence in listener.messages if sentence.startswith("step ") and "fid" in sentence)
    after = "it is computed after training, by poise measure"
    gap = after if points else "the duality gap is computed only for runs on 2-D data"
    assert f"no duality_gap: {gap}" in message
    assert f"no d_probe: {'the data has no labels' if points else after}" in message


def test_a_generator_that_has_diverged_ends_the_run_by_the_monitor_not_by_its_measures(tmp_path: Path) -> None:
    """The weights stay finite, but their products overflow."""
    table = {**measured(ring(9), measures=["fid", "kid"]).canonical(), "log": {"rows": 9}, "monitor": {"roll_backs": 0}}
    table["network"]["g"]["norm"], table["optimizer"]["g"]["lr"] = "none", 1e20
    listener = Listener()
    with pytest.raises(Diverged, match="not finite"):
        train(decode(table), tmp_path / "run", listener=listener)
    at_3, at_6 = (message for message in listener.messages if message.startswith("step "))
    assert at_3 == (
        "step 3: no fid: 100 of 100 samples are not finite, no kid: 100 of 100 samples are not finite; "
        "without fid, the first of measure.measures, no best weights are kept"
    )
    assert at_6 == "step 6: fid and kid could not be computed again"


def test_features_that_do_not_fit_the_data(tmp_path: Path) -> None:
    """This is refused before the first step."""
    recipe = pictures(tmp_path / "p.npz", features="classifier")
    np.savez(tmp_path / "p.npz", images=np.random.default_rng(0).integers(0, 256, (120, 8, 8, 1), np.uint8))
    with pytest.raises(RecipeError, match=r"a classifier requires labels.*use --features pixels"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluation_during_and_after_training_use_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With labels that can't be learned, both use pixels, and this is reported once."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (1280, 1280))
    rng, output = np.random.default_rng(0), list[str]()
    recipe = pictures(tmp_path / "p.npz", features="auto", n=20)
    np.savez(tmp_path / "p.npz", images=rng.integers(0, 256, (200, 8, 8, 1), np.uint8), labels=rng.integers(0, 4, 200))

    class Listener(NullListener):
        def on_message(self, sentence: str) -> None:
            output.append(sentence)

    run = train(recipe, tmp_path / "a", listener=Listener())
    assert {line["features"] for line in lines(tmp_path / "a")} == {"pixels"}
    assert sum("because a classifier has an accuracy of" in sentence for sentence in output) == 1
    result, _ = measure_run(run, select_measures("fid"))
    assert result.features == "pixels"
    assert any("because a classifier has an accuracy of" in note for note in result.notes)
