"""Runs among the pictures: a run never lies in its own data folder, and what runs drew is no data."""

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
def pictures(tmp_path: Path) -> Path:
    """Two classes of pictures, and a run folder with drawn ones, in a folder beside them and one level down."""
    rng = np.random.default_rng(0)
    for place in ("pics/a", "pics/b", "pics/runs/one/samples", "pics/b/two/samples"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{number}.png")
    for run in ("pics/runs/one", "pics/b/two"):
        for name in ("run.json", "recipe.toml"):
            (tmp_path / run / name).write_text("")
    return tmp_path / "pics"


def test_a_scan_passes_over_run_folders_and_says_so(pictures: Path) -> None:
    archive = Path(shutil.make_archive(str(pictures), "zip", pictures))
    for entry in (FolderConfig(path=str(pictures), size=8), ZipConfig(path=str(archive), size=8)):
        loaded = entry.load()
        total = len(loaded.train) + len(loaded.held_out)
        assert total == 12
        assert loaded.train.classes == ("a", "b")
        assert any("skipped 2 run folders" in note for note in loaded.notes)


def test_a_run_folder_is_no_folder_of_pictures(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"folder of a run.*poise sample"):
        FolderConfig(path=str(pictures / "runs/one"), size=8).load()
    with zipfile.ZipFile(pictures.parent / "names.zip", "w") as archive:
        archive.writestr("run.json", "")
    with pytest.raises(DataError, match="no images"):
        ZipConfig(path=str(pictures.parent / "names.zip"), size=8).load()


@pytest.mark.parametrize("out", [None, "runs/mine", "../pics/mine", "a/mine"])
def test_a_run_inside_its_own_data_is_refused(
    out: str | None, pictures: Path, poise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    before = sorted(pictures.rglob("*"))
    said = poise("train", "--data", ".", *SMALL, *([] if out is None else ["--out", out]))
    said.complains(2, "--out", "can't lie in the folder of its own pictures", "outside")
    assert sorted(pictures.rglob("*")) == before


def test_a_run_beside_its_data_trains(pictures: Path, poise: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    said = poise("train", "--data", ".", "--out", "../pics-run", *SMALL)
    assert said.code == 0, said.err
    assert "skipped 2 run folders" in said.err
