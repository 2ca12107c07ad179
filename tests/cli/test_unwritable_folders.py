"""A folder that can't be written to is refused before any work is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from poise.errors import DiskError
from poise.utils.system import refuse_unwritable_folder


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nobody may write to, as far as `os.access` says; it allows everything to root."""
    folder = tmp_path / "closed"
    folder.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and real(path, mode))
    return folder


def test_the_first_folder_that_exists_decides(closed: Path, tmp_path: Path) -> None:
    refuse_unwritable_folder(tmp_path / "new" / "deep", "--out")
    for path in (closed, closed / "new" / "deep"):
        with pytest.raises(DiskError, match=rf"--out: no files can be created in this folder, found '{closed}'"):
            refuse_unwritable_folder(path, "--out")


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "RUN", "--out", "CLOSED/a.png"),
        ("sample", "RUN", "--npz", "CLOSED/a.npz"),
        ("interpolate", "RUN", "--out", "CLOSED/a.gif"),
        ("export", "RUN", "--out", "CLOSED/a.safetensors"),
        ("project", "RUN", "a.png", "--out", "CLOSED/a.png"),
        ("push", "RUN", "CLOSED/model"),
    ],
    ids=" ".join,
)
def test_commands_refuse_it_first(poise: Any, ring_copy: Path, closed: Path, words: tuple[str, ...]) -> None:
    """Before the run is opened: this one has no checkpoint, of which nothing is said."""
    (ring_copy / "saves").rename(ring_copy.parent / "elsewhere")
    paths = {"RUN": str(ring_copy)}
    result = poise(*(paths.get(word, word.replace("CLOSED", str(closed))) for word in words))
    result.assert_error(6, "no files can be created in this folder", str(closed))
