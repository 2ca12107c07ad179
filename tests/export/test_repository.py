"""Model repositories: contents, card, the folder, and the upload through an object that stands in for the library."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import poise
from export.untrained import thin, untrained
from poise.errors import DiskError, RecipeError
from poise.export import repository as repositories
from poise.export.formats import FORMATS, missing_packages
from poise.export.hub import check_repository_name, upload_repository
from poise.export.repository import Repository, build_repository, check_folder, local_folder, write_repository
from poise.recipe.decode import decode
from poise.recipe.toml import parse_toml
from poise.tricks import layers

ABOUT = "a *test* <script>alert(1)</script> --- ``` ](http://x)"
CLASSES = [*"012345678", "a | b <i>"]
MEASURED = [
    {"step": 3, "measures": {"fid": 9.0}, "floor": {"fid": 0.1}, "n": 20, "features": "pixels"},
    {"step": 7, "measures": {"fid": 2.5, "kid": "nan"}, "floor": {"fid": 0.25}, "n": 20, "features": "pixels"},
    {"step": 9, "measures": {"fid": 1.0}, "floor": {}, "n": 20, "features": "pixels"},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("secret-folder") / "run"
    run = untrained(thin("cgan", about=ABOUT), folder)
    run.info["data"]["classes"] = CLASSES
    (folder / "measures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in MEASURED))
    return run


@pytest.fixture(scope="module")
def built(run: Any) -> Repository:
    return build_repository(run, ["safetensors"], license="cc-by-4.0")


def test_contents(run: Any, built: Repository, tmp_path: Path) -> None:
    assert sorted(built.contents) == ["README.md", "generator.safetensors", "recipe.toml", "samples.png"]
    assert built.notes == []
    recipe = decode(parse_toml(built.contents["recipe.toml"].decode(), "recipe.toml"))
    assert recipe == run.recipe
    write_repository(built, tmp_path / "model")
    with Image.open(tmp_path / "model" / "samples.png") as sheet:
        sheet.load()
        assert sheet.width >= 640
    generator = poise.load_generator(tmp_path / "model" / "generator.safetensors")
    assert generator.description.license == "cc-by-4.0"
    assert all(b"secret-folder" not in content for content in built.contents.values())


def test_the_card_is_valid_and_says_what_was_measured(built: Repository) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(built.contents["README.md"].decode())
    data = card.data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["library_name"] == "poise"
    assert data["pipeline_tag"] == "unconditional-image-generation"
    assert data["tags"] == ["gan", "poise", "cgan"]
    assert "Measured at step 7 with 20 samples" in card.text
    assert re.search(r"^\| fid \| 2\.5 \| 0\.25 \|$", card.text, re.M)
    assert re.search(r"^\| kid \| nan \|  \|$", card.text, re.M)
    assert "fingerprint of the data" in card.text


STYLED = """
import torch
from torch import nn

class Truncating(nn.Module):
    takes_truncation = True
    truncation = 1.0

    def __init__(self, dim):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, w):
        if isinstance(self.truncation, torch.Tensor) or self.truncation != 1:
            return self.mean.lerp(w, self.truncation)
        return w

class Styled(nn.Sequential):
    def __init__(self, latent, shape):
        super().__init__(nn.Linear(latent, 8), Truncating(8), nn.Linear(8, shape[0]))
"""


@pytest.mark.parametrize("name", ["cgan", "ring"])
def test_the_instructions_of_the_card_work(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With labels, and with code of the user and a truncation."""
    if missing_packages("onnx"):
        pytest.skip("the extra 'export' is not installed")
    (tmp_path / "styled.py").write_text(STYLED)
    styled = {"kind": "python", "file": str(tmp_path / "styled.py"), "name": "Styled"}
    network = thin(name).canonical()["network"] | ({"g": styled} if name == "ring" else {})
    tricks = [] if name == "ring" else thin(name).canonical()["tricks"]  # G has no activations for `layer_noise`
    run = untrained(thin(name, network=network, tricks=tricks), tmp_path / "run")
    write_repository(build_repository(run, ["safetensors", "onnx"]), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert ("truncation" in card, "styled.py" in card) == (name == "ring", name == "ring")
    blocks = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path / "model")
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block, names)
        assert names["samples"].shape == (16, *run.shape)


def test_nothing_in_the_card_acts(built: Repository) -> None:
    """Text from the recipe and the data is neither HTML nor a link, and ends no block."""
    card = built.contents["README.md"].decode()
    front, _, text = card.removeprefix("---\n").partition("\n---\n")
    assert "about" not in front
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.M | re.S)
    assert "<script>" not in outside
    assert "&lt;script>" in outside
    assert "](http" not in outside
    assert r"a \| b &lt;i>" in outside
    for fence in re.findall(r"^`{3,}(?=\w*$)", text, re.M):
        assert len(fence) in (3, 4)
    assert len(re.findall(r"^````", text, re.M)) == 2  # the recipe contains three backticks


def test_a_card_without_licence_and_measures(tmp_path: Path) -> None:
    built = build_repository(untrained(thin("ring"), tmp_path), ["safetensors"])
    card = built.contents["README.md"].decode()
    assert 'license: "unknown"' in card
    assert "The licence has not been stated" in card
    assert "## Measures" not in card
    assert "pipeline_tag" not in card
    assert "points of the plane" in card


def test_a_format_that_is_optional_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.StochasticLayer, "take_noise_as_input", lambda self: None)
    run = untrained(thin("ring", tricks=[{"kind": "layer_noise"}]), tmp_path)
    built = build_repository(run, ["safetensors", "pt2"], optional=["pt2"])
    assert "generator.pt2" not in built.contents
    assert any(note.startswith("no generator.pt2: this generator draws random numbers") for note in built.notes)
    assert "draws random numbers itself" in built.contents["README.md"].decode()
    with pytest.raises(RecipeError, match="draws random numbers"):
        build_repository(run, ["safetensors", "pt2"])


def test_the_card_says_how_to_draw_the_noise_of_a_graph(tmp_path: Path) -> None:
    """The example of the card, with the session that it opens."""
    if missing_packages("onnx"):
        pytest.skip("the extra 'export' is not installed")
    run = untrained(thin("ring", tricks=[{"kind": "layer_noise"}]), tmp_path)
    built = build_repository(run, ["safetensors", "onnx"])
    (tmp_path / "generator.onnx").write_bytes(built.contents["generator.onnx"])
    card = built.contents["README.md"].decode()
    assert "- `noise` is float32, B x " in card
    assert "**generator.safetensors: this generator draws random numbers itself" in card
    assert "**generator.onnx: this generator needs random numbers" in card
    [example] = re.findall(r"```python\n(import numpy.*?)```", card, re.S)
    names: dict[str, Any] = {}
    exec(example.replace('"generator.onnx"', repr(str(tmp_path / "generator.onnx"))), names)
    assert names["inputs"].keys() == {"latents", "noise"}
    assert names["samples"].shape == (16, 2)


# ---- where it goes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "folder"),
    [
        ("./model", "model"),
        ("../model", "../model"),
        ("model/", "model"),
        ("here", "here"),
        ("here/below", None),
        (".", "."),
        ("name", None),
        ("owner/name", None),
        ("hf://here/below", None),
    ],
)
def test_folder_or_repository(target: str, folder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    if target == "here/below":
        with pytest.raises(RecipeError, match=r"\./here/below for the folder or hf://here/below"):
            local_folder(target)
        return
    assert local_folder(target) == (None if folder is None else Path(folder))
    assert local_folder(str(tmp_path / "deep" / "model")) == tmp_path / "deep" / "model"


@pytest.mark.parametrize("name", ["a b", "a/b/c", "-a", "owner/", "ow\u00f1er/name", "a" * 200, ""])
def test_names_that_are_no_repository(name: str) -> None:
    with pytest.raises(RecipeError, match="not the name of a repository"):
        check_repository_name(name)
    check_repository_name("hf://owner/name-2.0")


def test_an_own_folder_is_replaced_and_a_foreign_one_refused(built: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_repository(built, folder)
    fewer = built._replace(contents={"README.md": built.contents["README.md"]})
    write_repository(fewer, folder)
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    for name in (".git", "photo.png"):
        (folder / name).mkdir()
        with pytest.raises(RecipeError, match="files that poise push did not write"):
            write_repository(built, folder)
        (folder / name).rmdir()
    (folder / "mine.py").touch()
    check_folder(folder)  # may be code that an earlier push has written, until it is known which files there are
    with pytest.raises(RecipeError, match="files that poise push did not write"):
        write_repository(built, folder)
    write_repository(fewer._replace(contents=fewer.contents | {"mine.py": b""}), folder)
    (folder / "README.md").write_text("# My notes\n")
    with pytest.raises(RecipeError, match="files that poise push did not write"):
        check_folder(folder)
    assert (folder / "README.md").read_text() == "# My notes\n"
    with pytest.raises(RecipeError, match="is a file"):
        check_folder(folder / "README.md")
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty")


def test_an_edited_card_is_not_replaced(built: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_repository(built, folder)
    card = folder / "README.md"
    written = card.read_text()
    for edited in (written + "Trained on my own photos.\n", written.replace("poise", "Poise", 1) + " ", written[:-40]):
        card.write_text(edited)
        with pytest.raises(RecipeError, match=r"its README\.md is not as poise push wrote it|did not write"):
            write_repository(built, folder)
        assert card.read_text() == edited
    card.write_text(written)
    write_repository(built, folder)


def test_the_current_folder_is_refused(built: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    for folder in (Path(), tmp_path):
        with pytest.raises(RecipeError, match="the folder that the command runs in"):
            write_repository(built, folder)


def test_a_folder_that_can_not_be_written_is_left_as_it_was(
    built: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository(built, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("poise.utils.files.system.write", full)
    with pytest.raises(DiskError, match="No space left"):
        write_repository(built, tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class FakeApi:
    """Records what would be uploaded."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.created, self.uploaded = error, dict[str, Any](), dict[str, bytes]()

    def create_repo(self, *, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
        self.created = {"repo_id": repo_id, "private": private, "exist_ok": exist_ok}
        return SimpleNamespace(repo_id=f"me/{repo_id}" if "/" not in repo_id else repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str, delete_patterns: list[str]) -> None:
        print("\rUploading: 10 %", file=sys.stderr)
        if self.error is not None:
            raise self.error
        self.uploaded = {f"{repo_id}/{path.name}": path.read_bytes() for path in Path(folder_path).iterdir()}
        self.folder, self.deleted = Path(folder_path), delete_patterns


@pytest.mark.parametrize("target", ["model", "hf://me/model"])
def test_upload(target: str, built: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi()
    assert upload_repository(built.contents, target, api, private=True) == "https://huggingface.co/me/model"
    assert capsys.readouterr().err == "", "bars are drawn on terminals only"
    assert api.created == {"repo_id": target.removeprefix("hf://"), "private": True, "exist_ok": True}
    assert api.uploaded == {f"me/model/{name}": content for name, content in built.contents.items()}
    assert not api.folder.exists()
    assert api.deleted == ["generator.*"]
    upload_repository(built.contents, target, api)
    assert api.created["private"] is None


def test_a_failed_upload_is_one_line(built: Repository) -> None:
    api = FakeApi(ConnectionError("401 Client Error\nmore\nlines"))
    with pytest.raises(DiskError, match=r"hf://me/model: the upload failed: 401 Client Error; log in") as error:
        upload_repository(built.contents, "me/model", api)
    assert error.value.exit_code == 6


def test_the_library_has_the_functions_that_are_used() -> None:
    import inspect

    api = pytest.importorskip("huggingface_hub").HfApi
    for name in ("create_repo", "upload_folder"):
        used = inspect.signature(getattr(FakeApi, name)).parameters.keys() - {"self"}
        assert used <= inspect.signature(getattr(api, name)).parameters.keys()


def test_every_file_is_described() -> None:
    assert {f"generator.{name}" for name in FORMATS} <= repositories.FILES.keys()
