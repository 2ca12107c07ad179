"""Frozen critics of a run: where they come from, what a run keeps of them, and that a changed one is noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import poise
from contracts import critic_of_tests
from contracts.tiny import recipe
from poise.data.source import DataSplits, ImageDataset
from poise.errors import CheckpointError, DataError, RecipeError
from poise.measure import classifier
from poise.measure.classifier import SmallClassifier
from poise.measure.classifier_file import StoredClassifier, read_classifier, write_classifier
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.checkpoint_folder import valid_checkpoints
from poise.runs.run import Run
from poise.training.critics import make_critics
from poise.training.listener import NullListener, StartInfo
from poise.training.train import train

CPU = torch.device("cpu")
DIGITS = tuple("0123456789")
KINDS = ("frozen_critic", "frozen_critic_2")
KEEP: dict[str, Any] = {"kind": "frozen_critic", "network": {"kind": "trained", "labels": "digit"}}
LABEL: dict[str, Any] = {"kind": "frozen_critic", "goal": "label"}


def own(file: object = critic_of_tests.__file__) -> dict[str, Any]:
    """A critic from a Python file."""
    return {"kind": "frozen_critic", "network": {"kind": "python", "file": str(file), "name": "CriticOfTests"}}


def changing_thickness(*critics: dict[str, Any], steps: int = 3, **changes: Any) -> Recipe:
    """A G that translates digits of 8 x 8 pixels and is given the thickness."""
    table: dict[str, Any] = {
        "name": "tiny",
        "steps": steps,
        "batch": 4,
        "data": {"kind": "digits", "size": 8, "labels": "thickness"},
        "latent": {"kind": "source"},
        "network": {
            "direction": "same",
            "g": {"kind": "translator", "width": 2, "blocks": 1, "downsamplings": 1, "norm": "batch"},
            "d": {"kind": "dcgan", "width": 2},
        },
        "conditioning": {"g": {"kind": "channels", "dim": 2}, "d": {"kind": "projection"}},
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": {"kind": "adam", "lr": 1e-3}, "d": {"kind": "adam", "lr": 1e-3}},
        "tempo": {"kind": "ratio"},
        "tricks": list(critics),
        "log": {"rows": 1, "samples": 100, "saves": 3, "sheet": 12, "to": []},
    }
    return decode(table | changes)


class Notes(NullListener):
    """Keeps what is said before the first step."""

    def on_start(self, info: StartInfo) -> None:
        self.lines = info.lines


def random_classifier(seed: int, side: int = 8, classes: tuple[str, ...] = DIGITS) -> StoredClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StoredClassifier(SmallClassifier((1, side, side), len(classes)).eval(), (1, side, side), classes, 0.5)


@pytest.fixture(scope="module", autouse=True)
def _fair_classifiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """They must have seen enough to be right about new digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(classifier, "SAMPLES_SEEN", (6_400, 6_400))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps with two critics that are trained on its data."""
    path = tmp_path_factory.mktemp("critics") / "run"
    train(changing_thickness(KEEP, LABEL), path)
    return path


@pytest.fixture
def first(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return shutil.copytree(trained, tmp_path / "run")


def test_a_run_trains_its_critics_keeps_them_and_resumes_with_them(first: Path, tmp_path: Path) -> None:
    digit, thickness = (read_classifier(first / "critics" / f"{n}.safetensors") for n in KINDS)
    assert (digit.classes, digit.shape) == (DIGITS, (1, 8, 8))
    assert thickness.classes == ("thin", "medium", "thick")
    assert min(digit.accuracy, thickness.accuracy) > 0.4
    rows = [json.loads(line)["stats"] for line in (first / "rows.jsonl").read_text().splitlines()]
    assert {"g/frozen_critic", "g/frozen_critic_met", "g/frozen_critic_2", "g/frozen_critic_2_met"} <= rows[0].keys()
    digests = json.loads((first / "run.json").read_text())["critics"]
    (saved,) = valid_checkpoints(first / "saves", [])
    assert saved.manifest["critics"] == digests
    assert len(set(digests.values())) == 2
    assert not any("critic" in name for name in saved.tensors)

    whole, notes = train(changing_thickness(KEEP, LABEL, steps=6), tmp_path / "whole"), Notes()
    resumed = train(changing_thickness(KEEP, LABEL, steps=6), first, resume=True, listener=notes)
    assert any(f"the run's copy {first / 'critics' / 'frozen_critic.safetensors'} of 0, 1," in n for n in notes.lines)
    for name, tensor in whole.checkpoint.tensors.items():
        assert torch.equal(resumed.checkpoint.tensors[name], tensor), name


def test_a_run_whose_critic_has_changed_does_not_resume(first: Path, poise: Any) -> None:
    copy = first / "critics" / "frozen_critic.safetensors"
    original, weights = copy.read_bytes(), read_classifier(copy).net.state_dict()
    write_classifier(copy, random_classifier(3))
    poise("train", "--resume", "--out", first, "--steps", 6).assert_error(
        4, "a frozen critic does not have the weights that this run was trained with", "frozen_critic: ", "restore"
    )
    copy.write_bytes(original[:500])
    poise("train", "--resume", "--out", first, "--steps", 6).assert_error(4, "a frozen critic can't be read", str(copy))
    shutil.rmtree(first / "critics")
    again = train(changing_thickness(KEEP, LABEL, steps=4), first, resume=True)
    assert again.checkpoint.step == 4, "without a copy it is trained again, here to the same weights"
    assert all(map(torch.equal, read_classifier(copy).net.state_dict().values(), weights.values()))


def test_a_run_is_opened_without_its_critics(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(first / "critics")
    monkeypatch.setattr("poise.training.critics.make_critics", None)
    assert Run(first).sample(3, label=1).shape == (3, 1, 8, 8)


def test_classifiers_from_files(tmp_path: Path) -> None:
    path = tmp_path / "digits.safetensors"
    write_classifier(path, random_classifier(1))
    from_file = {"kind": "frozen_critic", "network": {"kind": "file", "path": str(path)}}
    run = train(changing_thickness(from_file), tmp_path / "run")
    write_classifier(path, random_classifier(2))
    train(changing_thickness(from_file, steps=4), run.path, resume=True)
    with pytest.raises(RecipeError, match="its classes must be those of the data, thin, medium, thick") as caught:
        train(changing_thickness(from_file | {"goal": "label"}), tmp_path / "other")
    assert caught.value.where == "tricks.0.network"
    write_classifier(path, random_classifier(2, side=16))
    with pytest.raises(RecipeError, match="the classifier must read images of 1x8x8"):
        train(changing_thickness(from_file), tmp_path / "other")
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        train(changing_thickness(from_file), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_critics_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    shutil.copy(critic_of_tests.__file__, file)
    config = changing_thickness(own(file), own(file) | {"goal": "label"})
    with pytest.raises(RecipeError, match="this would execute a Python file"):
        train(config, tmp_path / "run")
    run = train(config, tmp_path / "run", trust_code=True)
    assert not (run.path / "critics").exists()
    file.unlink()
    opened = Run(run.path, trust_code=True)
    assert opened.sample(2).shape == (2, 1, 8, 8)
    assert [str(trick.network.file) for trick in opened.recipe.tricks] == [str(run.path / "code" / "mine.py")] * 2  # type: ignore[attr-defined]
    file.write_text(Path(critic_of_tests.__file__).read_text().replace("manual_seed(3)", "manual_seed(4)"))
    file = file.rename(tmp_path / "other.py")
    with pytest.raises(RecipeError, match="must keep its recipe"):
        train(
            changing_thickness(own(file), own(file) | {"goal": "label"}, steps=4),
            run.path,
            resume=True,
            trust_code=True,
        )


OTHER = """
import torch
class Weights(torch.nn.Module):
    def __init__(self, shape, path):
        super().__init__()
        self.register_buffer("weight", torch.load(path, weights_only=True))
    def forward(self, images):
        return images.flatten(1) @ self.weight
"""


def test_code_of_the_user_that_loads_other_weights(tmp_path: Path) -> None:
    file, weights = tmp_path / "weights.py", tmp_path / "weights.pt"
    file.write_text(OTHER)
    torch.save(torch.eye(64, 4), weights)
    network = {"kind": "python", "file": str(file), "name": "Weights", "options": {"path": str(weights)}}
    critic = {"kind": "frozen_critic", "network": network}
    train(changing_thickness(critic), tmp_path / "run", trust_code=True)
    torch.save(2 * torch.eye(64, 4), weights)
    with pytest.raises(CheckpointError, match="does not have the weights that this run was trained with"):
        train(changing_thickness(critic, steps=4), tmp_path / "run", resume=True, trust_code=True)
    torch.save(torch.eye(64, 1), weights)
    with pytest.raises(RecipeError, match="this network does not classify"):
        train(changing_thickness(critic), tmp_path / "new", trust_code=True)
    torch.save(torch.eye(63, 4), weights)
    with pytest.raises(RecipeError, match="'Weights' fails on an input of shape 5x1x8x8"):
        train(changing_thickness(critic), tmp_path / "new", trust_code=True)


def splits(labels: np.ndarray | None, classes: tuple[str, ...] = ("a", "b"), parts: tuple[int, ...] = ()) -> DataSplits:
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, sum(parts) or 1), dtype=np.uint8)
    return DataSplits(ImageDataset(images, labels, classes if labels is not None else (), parts))


def critics_on(data: DataSplits, **settings: Any) -> None:
    critic = {"kind": "frozen_critic", **settings}
    make_critics(recipe("translated", critic), data, CPU)


def test_data_on_which_no_classifier_can_be_trained() -> None:
    with pytest.raises(RecipeError, match="a classifier requires labelled images of one domain, twenty per class"):
        critics_on(splits(None))
    with pytest.raises(RecipeError, match="a classifier requires labelled images of one domain"):
        critics_on(splits(np.arange(80) % 2, parts=(1, 1)))
    with pytest.raises(RecipeError, match="the classifier has not learned the classes of this data"):
        critics_on(splits(np.arange(80) % 2))


def test_labels_that_the_data_does_not_have() -> None:
    with pytest.raises(RecipeError, match="must be 'digit' or 'thickness'") as caught:
        critics_on(splits(np.arange(80) % 2), network={"kind": "trained", "labels": "colour"})
    assert (caught.value.where, caught.value.found) == ("tricks.0.network.labels", "'colour'")
    config = recipe("points", {"kind": "frozen_critic", "network": {"kind": "trained", "labels": "digit"}})
    with pytest.raises(RecipeError, match="data of kind 'ring' has labels of one kind"):
        make_critics(config, splits(np.arange(80) % 2), CPU)


def test_a_critic_of_weight_zero_is_not_made() -> None:
    assert make_critics(recipe("translated", KEEP | {"weight": 0.0}), splits(None), CPU).networks == {}


def test_training_a_classifier_for_a_file(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    table = {"kind": "digits", "size": 8, "labels": "thickness"}
    classifier = poise.train_classifier(table, path)
    assert classifier.accuracy > 0.5
    assert read_classifier(path).classes == ("thin", "medium", "thick")
    with pytest.raises(RecipeError, match=r"must end in \.safetensors"):
        poise.train_classifier(table, tmp_path / "it.pt")
    with pytest.raises(RecipeError, match=r"data\.siez: unknown key 'siez'; did you mean 'size'"):
        poise.train_classifier(table | {"siez": 8}, path)
    with pytest.raises(RecipeError, match="a classifier requires labelled images"):
        poise.train_classifier("ring", path)
