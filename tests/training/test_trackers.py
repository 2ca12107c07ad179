"""Experiment trackers: what a run logs to them, and that training never depends on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_recipe
from poise.runs.folder import RunFolder
from poise.training.listener import NullListener
from poise.training.recorder import Recorder
from poise.training.trackers import base, choose
from poise.training.trackers.base import TrackedRun, Tracker, known_id, remember_id
from poise.training.train import train


def recipe(to: str, steps: int = 4) -> Recipe:
    changes = {
        "steps": steps,
        "batch": 8,
        "log": {"rows": 2, "samples": 2, "saves": 2, "sheet": 4, "to": [to]},
        "measure": {"every": 4, "measures": ["modes"], "n": 50},
    }
    return decode(load_recipe("ring") | changes)


def rows(path: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (path / "rows.jsonl").read_text().splitlines()]
    return {line["step"]: {name: stat["mean"] for name, stat in line["stats"].items()} for line in lines}


class Messages(NullListener):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)


class FakeTracker(Tracker):
    """Notes its calls; the methods named in `failing` raise an error."""

    title: ClassVar[str] = "Fake tracker"

    def __init__(self, failing: frozenset[str] = frozenset()) -> None:
        self.failing, self.calls = failing, list[tuple[Any, ...]]()

    def _called(self, *call: Any) -> None:
        if call[0] in self.failing:
            raise RuntimeError(f"no {call[0]}")
        self.calls.append(call)

    def open(self, run: TrackedRun, since: int) -> None:
        self._called("open", run.path.name, since)

    def add_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        self._called("scalars", step, dict(numbers))

    def add_image(self, step: int, name: str, png: bytes, shape: tuple[int, ...]) -> None:
        self._called("image", step, name, shape)

    def close(self, state: str) -> None:
        self._called("close", state)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTracker:
    tracker = FakeTracker()
    monkeypatch.setitem(choose.TRACKERS, "wandb", lambda: tracker)
    monkeypatch.setattr("poise.training.train.check_trackers", lambda names: None)
    return tracker


def test_rows_measures_and_grids_are_logged(fake: FakeTracker, tmp_path: Path) -> None:
    train(recipe("wandb"), tmp_path / "run")
    logged = [call for call in fake.calls if call[0] == "scalars"]
    expected = rows(tmp_path / "run")
    assert {step: numbers for _, step, numbers in logged if "measure/modes" not in numbers} == expected
    (measures,) = (numbers for _, _, numbers in logged if "measure/modes" in numbers)
    assert {"measure/modes", "floor/modes"} <= set(measures)
    assert [call[1] for call in fake.calls if call[0] == "image"] == [0, 2, 4]
    assert fake.calls[0] == ("open", "run", 0)
    assert fake.calls[-1] == ("close", "done")


def test_a_resumed_run_opens_the_tracker_at_its_step(fake: FakeTracker, tmp_path: Path) -> None:
    train(recipe("wandb"), tmp_path / "run")
    fake.calls.clear()
    train(recipe("wandb", 6), tmp_path / "run", resume=True)
    assert fake.calls[0] == ("open", "run", 4)


@pytest.mark.parametrize("failing", ["open", "scalars", "image", "close"])
def test_a_tracker_that_fails_is_reported_once_and_training_continues(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, messages = FakeTracker(frozenset({failing})), Messages()
    monkeypatch.setitem(choose.TRACKERS, "wandb", lambda: tracker)
    monkeypatch.setattr("poise.training.train.check_trackers", lambda names: None)
    assert train(recipe("wandb"), tmp_path / "run", listener=messages).info["state"] == "done"
    assert [text for text in messages.messages if "training continues" in text] == [
        f"Fake tracker can't be written, training continues without them: no {failing}"
    ]


def test_a_roll_back_opens_the_tracker_again(tmp_path: Path) -> None:
    tracker = FakeTracker()
    recorder = Recorder(RunFolder(tmp_path / "run"), 0, lambda text: None, [tracker], {})
    recorder.roll_back(7)
    assert tracker.calls == [("open", "run", 7)]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_missing_library_is_refused_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "find_spec", lambda package: None)
    with pytest.raises(RecipeError, match=rf"log\.to.*poise\[{name}\]"):
        train(recipe(name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("to", ["neptune", ["wandb", "wandb"]])
def test_wrong_trackers_are_refused(to: Any) -> None:
    with pytest.raises(RecipeError, match=r"log\.to"):
        decode(load_recipe("ring") | {"log": {"to": to if isinstance(to, list) else [to]}})


def test_a_run_without_trackers_has_only_its_own_files(tmp_path: Path) -> None:
    table = recipe("tensorboard").canonical()
    table["log"]["to"] = []
    run = train(decode(table), tmp_path / "run")
    assert not (run.path / "tensorboard").exists()
    assert len(rows(run.path)) == 2


def test_ids_of_several_trackers_are_kept_together(tmp_path: Path) -> None:
    assert not known_id(tmp_path, "wandb")
    remember_id(tmp_path, "wandb", "a")
    remember_id(tmp_path, "mlflow", "b")
    assert (known_id(tmp_path, "wandb"), known_id(tmp_path, "mlflow")) == ("a", "b")
    (tmp_path / "trackers.json").write_text("[")
    assert not known_id(tmp_path, "wandb")
    remember_id(tmp_path, "wandb", "c")
    assert known_id(tmp_path, "wandb") == "c"


def requires(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def wandb_records(path: Path) -> list[bytes]:
    """The records of an offline file: seven bytes of header, then LevelDB's log format.

    A log is a sequence of blocks of 32 KiB. A block has chunks of four bytes of checksum, two of length, one of kind
    (1 for a whole record, 2 to 4 for its first, middle and last part) and their data; less than seven bytes at its end
    are padding.
    """
    data, at, records = path.read_bytes(), 7, [b""]
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        records[-1] += data[at + 7 : at + 7 + length]
        records += [b""] if kind in (1, 4) else []
        at += 7 + length
    return [record for record in records if record]


@requires("wandb")
@pytest.mark.filterwarnings("default")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its offline file contains what was logged, and a resumed run has the same id."""
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    path = tmp_path / "run"
    train(recipe("wandb"), path)
    train(recipe("wandb", 6), path, resume=True)
    logged: dict[int, dict[str, float]] = {}
    ids = set()
    files = sorted(path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for file in files:
        for data in wandb_records(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            ids |= {record.run.run_id} if record.run.run_id else set()
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            if "step" in items:
                logged.setdefault(items["step"], {}).update(items)
    assert len(ids) == 1
    for step, numbers in rows(path).items():
        assert {name: logged[step][name] for name in numbers} == pytest.approx(numbers)
    assert "measure/modes" in logged[4]
    assert len(list(path.glob("wandb/*/files/media/images/*.png"))) >= 4


@requires("mlflow")
@pytest.mark.filterwarnings("default")
def test_mlflow_with_a_local_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client reads what was logged, and a resumed run is the same run."""
    import mlflow

    monkeypatch.chdir(tmp_path)  # for the images, which MLflow writes to the folder mlruns
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    path = tmp_path / "run"
    train(recipe("mlflow"), path)
    train(recipe("mlflow", 6), path, resume=True)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("poise")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.g.kind"] == "adam"
    for name in next(iter(rows(path).values())):
        history = {metric.step: metric.value for metric in client.get_metric_history(found.info.run_id, name)}
        expected = {step: numbers[name] for step, numbers in rows(path).items() if name in numbers}
        assert history == pytest.approx(expected)
    images = [file.path for file in client.list_artifacts(found.info.run_id, "images")]
    assert len([name for name in images if name.endswith(".png")]) >= 4


@requires("trackio")
@pytest.mark.filterwarnings("default")
def test_trackio_with_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database has what was logged, and a resumed run has the same name."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    path = tmp_path / "run"
    train(recipe("trackio"), path)
    train(recipe("trackio", 6), path, resume=True)
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("poise")
    assert name.startswith("run-")
    logged: dict[int, dict[str, Any]] = {}
    for line in SQLiteStorage.get_logs("poise", name):
        logged.setdefault(line["step"], {}).update(line)
    for step, numbers in rows(path).items():
        assert {key: logged[step][key] for key in numbers} == pytest.approx(numbers)
    assert np.isfinite(logged[4]["measure/modes"])
