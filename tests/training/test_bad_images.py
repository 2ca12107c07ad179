"""Bad images are listed with their reasons, and the run uses the others."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SMALL = ["--set", "network.g.width=4", "--set", "network.d.width=4", "--set", "batch=4", "--steps", "2"]


def pictures(folder: Path, good: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(good):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")


def test_bad_images_are_listed(poise: Callable, tmp_path: Path) -> None:
    pictures(tmp_path / "in", 16)
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    (tmp_path / "in" / 'a "b", c.jpg').write_text("not a picture")
    whole = (tmp_path / "in" / "03.png").read_bytes()
    (tmp_path / "in" / "cut \U0001f600.png").write_bytes(whole[: len(whole) // 2])
    result = poise("train", "--data", tmp_path / "in", "--out", tmp_path / "out", *SMALL)
    assert result.code == 0, result.err
    assert "bad image: empty.png: an empty file" in result.err
    with (tmp_path / "out" / "bad_images.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["name", "reason"]
    assert len(rows) == 3
    assert {name for name, _ in rows} >= {"empty.png", "cut \U0001f600.png"}
    assert all(reason for _, reason in rows)


@pytest.mark.parametrize("number", [2, 12])
def test_the_check_lists_them_with_their_reasons(poise: Callable, tmp_path: Path, number: int) -> None:
    pictures(tmp_path / "in", 16)
    for i in range(number):
        (tmp_path / "in" / f"cut-{i:02}.png").write_bytes(b"")
    (tmp_path / "in" / "lost").symlink_to(tmp_path)
    found = json.loads(poise("check", "--data", tmp_path / "in", "--json", *SMALL).out)
    names = [*(f"cut-{i:02}.png" for i in range(number)), "lost"]
    assert [file["name"] for file in found["bad_files"]] == names
    assert found["bad_files"][-1] == {"name": "lost", "reason": "a link out of the folder (data.follow_links)"}
    lines = poise("check", "--data", tmp_path / "in", *SMALL).out.splitlines()
    listed = [line for line in lines if line.startswith(("bad image: ", "skipped folder: ", "and "))]
    expected = [f"bad image: {file['name']}: {file['reason']}" for file in found["bad_files"][:-1]]
    expected.append("skipped folder: lost: a link out of the folder (data.follow_links)")
    assert listed == (expected if number < 10 else [*expected[:10], "and 3 more; --json lists all of them"])


def test_an_error_of_the_data_is_a_refusal_in_json(poise: Callable, tmp_path: Path) -> None:
    pictures(tmp_path / "in", 1)
    for words in (["--data", tmp_path / "in"], ["dcgan", "--data", tmp_path / "none"]):
        result = poise("check", *words, "--json", *SMALL)
        assert result.code == 3
        found = json.loads(result.out)
        (refusal,) = found["refusals"]
        assert refusal["message"].split(",")[0] in result.last
        assert found["bad_files"] == []


@pytest.mark.parametrize("link", [False, True])
def test_the_check_lists_them_when_they_are_too_many(poise: Callable, tmp_path: Path, *, link: bool) -> None:
    (tmp_path / "in").mkdir()
    for i in range(5):
        path = tmp_path / "in" / f"bad-{i}"
        path.symlink_to(tmp_path) if link else path.with_suffix(".png").write_bytes(b"")
    words = ["check", "dcgan", "--data", tmp_path / "in", *SMALL]
    found = json.loads(poise(*words, "--json").out)["bad_files"]
    assert [file["name"] for file in found] == [f"bad-{i}" + ".png" * (not link) for i in range(5)]
    result = poise(*words)
    assert result.code == 3
    kind = "skipped folder" if link else "bad image"
    assert result.out.splitlines() == [f"{kind}: {file['name']}: {file['reason']}" for file in found]


def test_too_many_bad_images_are_refused_before_anything_is_written(poise: Callable, tmp_path: Path) -> None:
    pictures(tmp_path / "in", 4)
    for number in range(5):
        (tmp_path / "in" / f"bad{number}.png").write_text("no")
    result = poise("train", "--data", tmp_path / "in", "--out", tmp_path / "out", *SMALL)
    assert result.code == 3
    assert "5 of 9 image files" in result.last
    assert "bad0.png (not an image)" in result.last
    assert not (tmp_path / "out").exists()
