"""One run of a study: interrupted at any place, it ends with the same result, and is not trained twice."""

from __future__ import annotations

import errno
import json
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tiny_studies import write_plan

from poise.errors import DataError, DiskError, OutOfMemory, Stopped
from poise.recipe.decode import decode
from poise.runs.checkpoint import TENSORS
from poise.runs.folder import RunFolder
from poise.study import job as module
from poise.study.expand import expand
from poise.study.job import Job, run_job
from poise.study.plan import read_plan
from poise.training.listener import NullListener
from poise.training.train import train
from poise.utils.locks import file_lock


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe of eight steps with a checkpoint every two."""
    folder = tmp_path_factory.mktemp("plan")
    recipes = expand(read_plan(write_plan(folder / "plan.toml", seeds=1, images=2048)), folder).recipes
    return next(iter(recipes.values())).canonical()


@pytest.fixture(scope="module")
def whole(table: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The undisturbed result."""
    return without_times(run_job(Job(table, tmp_path_factory.mktemp("whole") / decode(table).hash)))


@pytest.fixture
def job(table: dict[str, Any], tmp_path: Path) -> Job:
    return Job(table, tmp_path / decode(table).hash)


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    versions = {key: value for key, value in result["versions"].items() if key != "date"}
    return {key: value for key, value in result.items() if key != "cpu_seconds"} | {"versions": versions}


def untrainable(*_: object, **__: object) -> NoReturn:
    raise AssertionError("it is trained again")


class StopAt(NullListener):
    """Stops the run as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int) -> None:
        if step == self.step:
            raise KeyboardInterrupt


def interrupt(job: Job, step: int) -> None:
    """Leave the run as a worker does that is stopped or killed after this step."""
    with pytest.raises((Stopped, KeyboardInterrupt)):
        train(decode(job.table), job.folder, listener=StopAt(step), precision="fp32")
    assert not (job.folder / "result.json").exists()


def test_a_run_ends_with_a_result_and_without_checkpoints(job: Job, whole: dict[str, Any]) -> None:
    result = run_job(job)
    assert result["state"] == "done"
    assert (result["step"], result["images"]) == (8, 2048)
    assert set(result["values"]) == {"modes", "high_quality"} == set(result["curves"])
    assert [step for step, _ in result["curves"]["modes"]] == [4, 8]
    assert result["cpu_seconds"] > 0
    assert json.loads((job.folder / "result.json").read_text()) == json.loads(json.dumps(result))
    assert not any((job.folder / name).exists() for name in ("saves", "best", "tensorboard"))
    assert without_times(result) == whole


def test_checkpoints_are_kept_on_request(job: Job) -> None:
    run_job(job._replace(keep_checkpoints=True))
    assert list((job.folder / "saves").glob("step-*"))


def test_the_result_has_the_changes_of_the_recipe_that_are_in_force(job: Job) -> None:
    run_job(job)
    folder = RunFolder(job.folder)
    info = folder.read_info()
    first, other = ({"step": step, "detector": "collapse", "set": ["optimizer.d.lr=5e-5"]} for step in (2, 4))
    changes = [first, other | {"set": ["tempo.d=1", "batch=8"]}, first | {"detector": "d_at_zero", "set": []}]
    folder.info.write_text(json.dumps(info | {"changes": changes}))
    result = module.summarise(decode(job.table), folder, "done")
    assert result.changes == ["tempo.d=1 and batch=8 (collapse, step 4)"]


def test_killed_after_the_result(job: Job, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run_job(job._replace(keep_checkpoints=True))
    monkeypatch.setattr(module, "train", untrainable)
    assert without_times(run_job(job)) == whole
    assert not (job.folder / "saves").exists()


def test_killed_between_the_end_and_the_result(
    job: Job, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job._replace(keep_checkpoints=True))
    (job.folder / "result.json").unlink()
    monkeypatch.setattr(module, "train", untrainable)
    assert without_times(run_job(job)) == whole


@pytest.mark.parametrize("step", [1, 2, 5, 7])
def test_interrupted(job: Job, whole: dict[str, Any], step: int) -> None:
    interrupt(job, step)
    assert without_times(run_job(job)) == whole


def test_no_valid_checkpoint(job: Job, whole: dict[str, Any]) -> None:
    interrupt(job, 7)
    for path in job.folder.glob(f"saves/step-*/{TENSORS}"):
        path.write_bytes(b"damaged")
    assert without_times(run_job(job)) == whole


def test_a_start_without_a_checkpoint_and_a_damaged_result(job: Job, whole: dict[str, Any]) -> None:
    job.folder.mkdir()
    for name in ("run.lock", "recipe.toml", "result.json", "unexpected.txt"):
        (job.folder / name).write_text("{")
    assert without_times(run_job(job)) == whole


def test_a_run_that_diverges_is_a_result(job: Job) -> None:
    table = job.table | {"optimizer": {side: {"kind": "sgd", "lr": 1e30} for side in "gd"}}
    bad = job._replace(table=table, folder=job.folder.with_name(decode(table).hash))
    result = run_job(bad._replace(keep_checkpoints=True))
    assert result["state"] == "diverged"
    assert result["values"] == {}
    assert result["reason"]
    assert "\n" not in result["reason"]
    assert result["step"] < 8
    (bad.folder / "result.json").unlink()
    assert without_times(run_job(bad)) == without_times(result)


def test_too_little_memory_for_the_networks(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_run(*_: object, **__: object) -> NoReturn:
        raise OutOfMemory("the device has too little memory")

    monkeypatch.setattr(module, "train", train_run)
    result = run_job(job)
    assert (result["state"], result["step"], result["values"]) == ("out of memory", 0, {})
    monkeypatch.setattr(module, "train", untrainable)
    assert run_job(job) == result


def test_an_error_of_user_code_is_tried_again(job: Job, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange(Exception):  # can't be sent to another process
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one}\n{two}")

    def train_run(*_: object, **__: object) -> NoReturn:
        raise Strange(1, 2)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", train_run)
        result = run_job(job)
    assert (result["state"], result["run"]) == ("crashed", job.folder.name)
    assert result["reason"].startswith("Strange: 1")
    assert "\n" not in result["reason"]
    assert "in train_run" in (job.folder / "crash.txt").read_text()
    assert without_times(run_job(job)) == whole


@pytest.mark.parametrize("error", [DiskError("could not save", where="saves"), OSError(errno.ENOSPC, "no space left")])
def test_a_full_disk_is_not_a_result(job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def train_run(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(module, "train", train_run)
    with pytest.raises(DiskError, match=r"could not save|no space left"):
        run_job(job)
    assert not (job.folder / "result.json").exists()


def test_it_waits_for_the_process_of_a_killed_study(job: Job, whole: dict[str, Any]) -> None:
    interrupt(job, 3)
    locked = threading.Event()

    def hold() -> None:
        with file_lock(job.folder / "run.lock", "test"):
            locked.set()
            time.sleep(0.5)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait()
    assert without_times(run_job(job)) == whole
    holder.join()


def test_it_does_not_wait_forever(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(job, 3)
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.1)
    with file_lock(job.folder / "run.lock", "test"):
        result = run_job(job)
    assert result["state"] == "crashed"
    assert "another run is writing to this folder, found process" in result["reason"]


def test_values_that_are_not_finite_are_left_out() -> None:
    assert module._rounded({"a": "nan", "b": "inf", "c": 1.23456789, "d": 1e200}) == {"c": 1.234568}


@pytest.mark.parametrize("end", ["the run was interrupted", "its result was not recorded"])
def test_a_run_that_began_with_another_version_of_its_code_begins_again(
    end: str, job: Job, whole: dict[str, Any]
) -> None:
    """As if the user had edited a file between the interruption and the resume."""
    if end == "the run was interrupted":
        interrupt(job, 5)
    else:
        run_job(job)
    for name in {"run.json", "result.json"} & {path.name for path in job.folder.iterdir()}:
        content = json.loads((job.folder / name).read_text())
        content.get("versions", {})["code"] = "mine.py 0123"
        content["code"] = {"mine.py": "0123"}
        if name == "result.json":
            del content["code"]
        (job.folder / name).write_text(json.dumps(content))
    origin = {"data": whole["versions"]["data"], "code": "mine.py 4567"}
    trained: list[bool] = []
    train = module.train

    def train_run(*given: Any, **options: Any) -> Any:
        trained.append(options["resume"])
        return train(*given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train", train_run)
        assert without_times(run_job(job._replace(origin=origin))) == whole
    assert trained == [False]


def test_a_result_from_other_data_is_refused_and_leaves_nothing(job: Job, whole: dict[str, Any]) -> None:
    data = whole["versions"]["data"]
    with pytest.raises(DataError, match=rf"with another content of the data .*, found {data} instead of 0123; copy"):
        run_job(job._replace(origin={"data": "0123"}))
    assert [entry.name for entry in job.folder.iterdir()] == ["run.lock"]
    assert without_times(run_job(job._replace(origin={"data": data}))) == whole
