"""Run folders inside data folders: generated images are not training data."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.data.folder import FolderConfig
from poise.data.zip_archive import ZipConfig
from poise.errors import DataError

SMALL = ["--steps", 2, "--set", "data.size=8", "--set", "batch=4", "--set", "measure=none"]
SMALL += ["--set", "network.g.width=4", "--set", "network.d.width=4"]


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of images, with run folders beside the classes and inside one of them."""
    rng = np.random.default_rng(0)
    for folder in ("pics/a", "pics/b", "pics/runs/one/samples", "pics/b/two/samples"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    for run in ("pics/runs/one", "pics/b/two"):
        for name in ("run.json", "recipe.toml"):
            (tmp_path / run / name).write_text("")
    return tmp_path / "pics"


def test_run_folders_are_skipped_with_a_note(image_folder: Path) -> None:
    archive = Path(shutil.make_archive(str(image_folder), "zip", image_folder))
    for config in (FolderConfig(path=str(image_folder), size=8), ZipConfig(path=str(archive), size=8)):
        loaded = config.load()
        total = len(loaded.train) + len(loaded.held_out)
        assert total == 12
        assert loaded.train.classes == ("a", "b")
        assert any("skipped 2 run folders" in note for note in loaded.notes)


def test_a_run_folder_is_not_an_image_folder(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"folder of a run.*poise sample"):
        FolderConfig(path=str(image_folder / "runs/one"), size=8).load()
    with zipfile.ZipFile(image_folder.parent / "names.zip", "w") as archive:
        archive.writestr("run.json", "")
    with pytest.raises(DataError, match="no images"):
        ZipConfig(path=str(image_folder.parent / "names.zip"), size=8).load()


@pytest.mark.parametrize("out", [None, "runs/mine", "../pics/mine", "a/mine"])
def test_a_run_inside_its_own_data_is_refused(
    out: str | None, image_folder: Path, poise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image_folder)
    before = sorted(image_folder.rglob("*"))
    result = poise("train", "--data", ".", *SMALL, *([] if out is None else ["--out", out]))
    result.assert_error(2, "--out", "can't be inside the folder of its training images", "outside")
    assert sorted(image_folder.rglob("*")) == before


def test_a_run_beside_its_data_trains(image_folder: Path, poise: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image_folder)
    result = poise("train", "--data", ".", "--out", "../pics-run", *SMALL)
    assert result.code == 0, result.err
    assert "skipped 2 run folders" in result.err
