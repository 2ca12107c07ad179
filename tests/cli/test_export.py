"""`poise export` and `poise push`: files, messages, and what is refused before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import poise as library
from poise.export import formats, hub
from poise.runs.run import Run

DIGITS = (8, 1, 32, 32)


def test_safetensors_by_default(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    result = poise("export", digits_run, "--out", tmp_path / "g.safetensors")
    assert (result.code, result.out) == (0, "")
    assert "averaged weights of step 3, inputs: latents; with poise.load_generator" in result.last
    assert "the largest difference from PyTorch is" in result.last
    generator = library.load_generator(tmp_path / "g.safetensors")
    torch.testing.assert_close(generator(generator.latents(8)), Run(digits_run).sample(8), rtol=1e-5, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["g.safetensors"]


def test_without_out_it_goes_into_the_run(poise: Any, ring_copy: Path) -> None:
    assert poise("export", ring_copy, "--raw").code == 0
    generator = library.load_generator(ring_copy / "generator.safetensors")
    torch.testing.assert_close(generator(generator.latents(5)), Run(ring_copy).sample(5, raw=True))
    assert generator.description.weights == "live"


def test_onnx_by_the_name_of_the_file(poise: Any, digits_run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    result = poise("export", digits_run, "--out", tmp_path / "g.onnx")
    assert (result.code, result.out) == (0, "")
    assert "with onnxruntime, the largest difference" in result.last
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    run = Run(digits_run)
    [images] = session.run(["images"], {"latents": run.latents(8).numpy()})
    assert images.shape == DIGITS
    np.testing.assert_allclose(images, run.sample(8).numpy(), rtol=1e-4, atol=1e-5)


def test_push_into_a_folder(poise: Any, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an ONNX file if its packages are there; pushed again, the folder is replaced."""
    monkeypatch.chdir(tmp_path)
    result = poise("push", digits_run, "./model", "--license", "mit")
    assert (result.code, result.out) == (0, "")
    has_onnx = not formats.missing_packages("onnx")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"README.md", "generator.safetensors", "recipe.toml", "samples.png"} | (
        {"generator.onnx"} if has_onnx else set()
    )
    assert "licence" not in result.err
    assert ("generator.onnx: the largest difference" in result.err) is has_onnx
    assert library.load_generator(tmp_path / "model" / "generator.safetensors")(torch.zeros(2, 100)).shape[0] == 2
    assert poise("check", tmp_path / "model" / "recipe.toml").code == 0
    again = poise("push", digits_run, "model", "--no-onnx")
    assert again.code == 0
    assert "the card names no licence" in again.err
    assert not (tmp_path / "model" / "generator.onnx").exists()


def test_push_uploads(poise: Any, ring_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[dict[str, Any]] = []

    class Api:
        def create_repo(self, **words: Any) -> None:
            calls.append(words)

        def upload_folder(self, **words: Any) -> None:
            calls.append(words | {"files": sorted(path.name for path in Path(words["folder_path"]).iterdir())})

    monkeypatch.setattr(hub, "import_module", lambda name: type("Library", (), {"HfApi": Api}))
    result = poise("push", ring_run, "owner/ring", "--no-onnx", "--private")
    assert result.code == 0, result.err
    assert "https://huggingface.co/owner/ring: README.md" in result.err
    assert calls[0] == {"repo_id": "owner/ring", "private": True, "exist_ok": True}
    assert calls[1]["files"] == ["README.md", "generator.safetensors", "recipe.toml", "samples.png"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["export", "--out", "g.bin"], ["--out", "must end in .safetensors", "'g.bin'"]),
        (["export", "--format", "onnx", "--out", "g.pt2"], ["--out", "must end in .onnx"]),
        (["export", "--format", "jpeg"], ["--format", "'safetensors', 'onnx', 'pt2'"]),
        (["export", "--out", "no/g.onnx"], ["--out", "its folder does not exist"]),
        (["export", "--license", "my own words"], ["--license", "not an identifier", "cc-by-nc-4.0"]),
        (["push", "a/b/c"], ["REPO_OR_DIR", "not the name of a repository"]),
        (["push", "full"], ["REPO_OR_DIR", "did not write", "new or an empty folder"]),
        (["push", "full/model"], ["REPO_OR_DIR", "./full/model for the folder"]),
        (["push", "."], ["REPO_OR_DIR", "the folder that the command runs in"]),
    ],
)
def test_invalid_arguments(
    poise: Any, ring_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    poise(words[0], ring_run, *words[1:]).assert_error(2, *parts)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "thesis.tex"]


def test_missing_packages(poise: Any, ring_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    poise("export", ring_run, "--out", "g.onnx").assert_error(2, "--format", "no onnx", "pip install 'poise[export]'")
    poise("push", ring_run, "./m", "--onnx").assert_error(2, "pip install 'poise[export]'")

    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(hub, "import_module", refuse)
    poise("push", ring_run, "owner/ring").assert_error(
        2, "huggingface_hub is not installed", "pip install 'poise[hub]'"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["export"], ["push", "./model"]])
def test_no_run(poise: Any, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    poise(words[0], "nowhere", *words[1:]).assert_error(4, "nowhere", "not a run folder")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    (tmp_path / "g.safetensors").symlink_to("/dev/full")
    poise("export", ring_run, "--out", tmp_path / "g.safetensors").assert_error(6, "No space left on device")


def test_an_unknown_ending_is_refused_with_all_that_are_known(poise: Any, ring_run: Path, tmp_path: Path) -> None:
    poise("export", ring_run, "--out", tmp_path / "a.foo").assert_error(2, "must end in .safetensors, .onnx or .pt2")
    words = ("export", ring_run, "--format", "pt2", "--out", tmp_path / "a.onnx")
    poise(*words).assert_error(2, "must end in .pt2")
