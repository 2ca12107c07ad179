"""The folder of data sets given by name: a run knows where it was, for `--resume` and the commands that read runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import poise
from poise.cli import main
from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits
from poise.data.stacked_digits import StackedConfig
from poise.data.torchvision_data import VisionConfig
from poise.errors import DataError
from poise.export.description import Description
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.reload import DATA_ROOT
from poise.training.train import train
from poise.web.run_page import INFO
from runs.small_runs import digits


def mnist(steps: int) -> Recipe:
    """A recipe for MNIST, of which `roots` makes a set that is there."""
    return decode({**digits(steps).canonical(), "data": {"kind": "torchvision", "dataset": "MNIST", "size": 16}})


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path | None]:
    """Where data was looked for since the last look; the built-in digits are found there."""
    looked: list[Path | None] = []

    def load(config: VisionConfig, root: Path | None = None) -> DataSplits:
        looked.append(root)
        return DigitsConfig(size=config.size).load()

    monkeypatch.setattr(VisionConfig, "load", load)
    monkeypatch.chdir(tmp_path)
    return looked


def test_a_run_remembers_the_folder_of_its_data_set(
    roots: list[Path | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sets").mkdir()
    train(mnist(1), "run", data_root=Path("sets"))
    assert json.loads(Path("run/run.json").read_text())["data_root"] == str(tmp_path / "sets")
    assert roots.pop() == Path("sets")
    train(mnist(2), "run", resume=True)
    assert roots.pop() == tmp_path / "sets"
    opened = poise.Run("run")
    opened.load()
    assert roots.pop() == tmp_path / "sets"
    opened.load(tmp_path)
    opened.read_data_from(None, tmp_path)
    opened.load()
    assert [roots.pop(), roots.pop()] == [tmp_path, tmp_path]
    with pytest.raises(SystemExit):
        main(["train", "--init-from", "run", "--steps", "1", "--out", "tuned"])
    assert roots.pop() == tmp_path / "sets"
    poise.train(out="twice", init_from="run", steps=1, progress=False)
    assert roots.pop() == tmp_path / "sets"
    (tmp_path / "sets").rename(tmp_path / "elsewhere")
    message = rf"run: the folder of the run's data set is not there, found {tmp_path}/sets; .* with --data-root"
    with pytest.raises(DataError, match=message):
        train(mnist(3), "run", resume=True)
    with pytest.raises(DataError, match=message):
        poise.Run("run").load()
    train(mnist(3), "run", resume=True, data_root=Path("elsewhere"))
    assert json.loads(Path("run/run.json").read_text())["data_root"] == str(tmp_path / "elsewhere")


def test_a_run_without_the_option_looks_in_the_default_folder(roots: list[Path | None]) -> None:
    train(mnist(1), "run")
    train(mnist(2), "run", resume=True)
    assert roots == [None, None]
    assert "data_root" not in json.loads(Path("run/run.json").read_text())


def test_data_that_is_not_looked_for_by_name_needs_no_folder(tmp_path: Path) -> None:
    train(digits(1), tmp_path / "run", data_root=tmp_path / "sets")
    train(digits(2), tmp_path / "run", resume=True)
    poise.Run(tmp_path / "run").load()
    assert not StackedConfig().uses_root
    assert StackedConfig(digits="MNIST").uses_root


def test_the_folder_is_nothing_of_others(roots: list[Path | None], tmp_path: Path) -> None:
    """Neither exports nor the live page name a folder of this machine."""
    train(mnist(1), "run", data_root=tmp_path)
    assert str(tmp_path) not in str(Description.of(poise.Run("run")).as_text())
    assert DATA_ROOT not in INFO
