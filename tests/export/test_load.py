"""`poise.load_generator`: equal samples without the run, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

import poise
from export.untrained import thin, untrained
from poise.errors import CheckpointError, RecipeError
from poise.export.description import Description, portable
from poise.export.exporter import export_generator
from poise.export.formats import FORMATS
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.training.train import train
from poise.user_code import loading


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bytes]:
    """A conditional run with spectral norm, and its file."""
    run = untrained(thin("sagan"), tmp_path_factory.mktemp("sagan"))
    return run, export_generator(run, "safetensors", license="cc0-1.0").data


def test_it_generates_the_samples_of_the_run(exported: tuple[Any, bytes], tmp_path: Path) -> None:
    run, data = exported
    (tmp_path / "g.safetensors").write_bytes(data)
    generator = poise.load_generator(tmp_path / "g.safetensors")
    assert not generator.training
    assert not any(weight.requires_grad for weight in generator.parameters())
    assert torch.equal(generator.latents(40, seed=3), run.latents(40, seed=3))
    labels = torch.tensor([9, 0, 4])
    samples = generator(generator.latents(3, seed=5), labels)
    torch.testing.assert_close(samples, run.sample(3, seed=5, labels=labels), rtol=1e-5, atol=1e-5)
    assert not torch.equal(samples, generator(generator.latents(3, seed=5), labels.flip(0)))
    description = generator.description
    assert (description.step, description.weights, description.license) == (7, "averaged", "cc0-1.0")
    assert description.classes == run.classes
    assert description == Description.of(run, license="cc0-1.0")


def test_inputs_that_the_network_does_not_use_are_refused(exported: tuple[Any, bytes], tmp_path: Path) -> None:
    _, data = exported
    (tmp_path / "g.safetensors").write_bytes(data)
    labelled = poise.load_generator(tmp_path / "g.safetensors")
    assert len(labelled.latents(0)) == 0
    with pytest.raises(RecipeError, match="needs labels; give int64 labels, B, from 0 to 9"):
        labelled(labelled.latents(2))
    with pytest.raises(RecipeError, match="labels: must be from 0 to 9, found 10"):
        labelled(labelled.latents(2), torch.tensor([3, 10]))
    plain = untrained(thin("dcgan"), tmp_path / "dcgan")
    (tmp_path / "p.safetensors").write_bytes(export_generator(plain, "safetensors").data)
    generator = poise.load_generator(tmp_path / "p.safetensors")
    with pytest.raises(RecipeError, match="takes no labels"):
        generator(generator.latents(2), torch.tensor([0, 1]))
    with pytest.raises(RecipeError, match="no layer of this generator truncates; draw truncated latents instead"):
        generator(generator.latents(2), truncation=0.5)
    with pytest.raises(RecipeError, match="must be above 0 and at most 1"):
        generator(generator.latents(2), truncation=0.0)


def test_the_file_is_readable_without_poise(exported: tuple[Any, bytes], tmp_path: Path) -> None:
    run, data = exported
    (tmp_path / "g.safetensors").write_bytes(data)
    with safetensors.safe_open(tmp_path / "g.safetensors", "pt") as file:
        metadata, names = file.metadata(), list(file.keys())
    assert metadata["format"] == "pt"
    assert json.loads(metadata["range"]) == [-1, 1]
    assert json.loads(metadata["latent"])["dim"] == run.recipe.latent.dim
    assert not [name for name in names if "parametrizations" in name or "original" in name]


def test_raw_weights_are_others(exported: tuple[Any, bytes]) -> None:
    run, data = exported
    raw = export_generator(run, "safetensors", raw=True)
    assert raw.description.weights == "live"
    averaged, live = (safetensors.torch.load(one) for one in (data, raw.data))
    assert averaged.keys() == live.keys()
    assert any(not torch.equal(averaged[name], live[name]) for name in averaged)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda tensors, said: ({**tensors, "extra": torch.zeros(1)}, said), "do not fit its recipe: extra"),
        (lambda tensors, said: (dict(list(tensors.items())[1:]), said), "do not fit its recipe"),
        (lambda tensors, said: ({n: t.double() for n, t in tensors.items()}, said), "do not fit its recipe"),
        (lambda tensors, said: (tensors, {}), "not a generator exported by poise"),
        (lambda tensors, said: (tensors, {**said, "shape": "x"}), "its metadata can't be read"),
        (lambda tensors, said: (tensors, {**said, "recipe": "steps = ["}), "its metadata can't be read"),
        (lambda tensors, said: (tensors, {n: t for n, t in said.items() if n != "step"}), "its metadata can't be read"),
    ],
)
def test_files_that_do_not_fit(spoil: Any, reason: str, exported: tuple[Any, bytes], tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    path.write_bytes(exported[1])
    with safetensors.safe_open(path, "pt") as file:
        said = file.metadata()
    tensors, said = spoil(safetensors.torch.load(exported[1]), said)
    path.write_bytes(safetensors.torch.save(tensors, said))
    with pytest.raises(CheckpointError, match=reason) as error:
        poise.load_generator(path)
    assert "g.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x00" * 30, b"not a file of tensors at all", None])
def test_files_that_are_no_tensors(content: bytes | None, exported: tuple[Any, bytes], tmp_path: Path) -> None:
    (tmp_path / "g.safetensors").write_bytes(exported[1][:-10] if content is None else content)
    with pytest.raises(CheckpointError, match="not an intact safetensors file"):
        poise.load_generator(tmp_path / "g.safetensors")
    with pytest.raises(CheckpointError, match=r"missing\.safetensors: can't be read"):
        poise.load_generator(tmp_path / "missing.safetensors")
    for name, reader in (("g.onnx", "onnxruntime"), ("g.PT2", r"torch\.export\.load")):
        with pytest.raises(CheckpointError, match=f"only safetensors files are read; run it with {reader}"):
            poise.load_generator(tmp_path / name)


SKETCH = """
from math import prod
from torch import nn

class Sketcher(nn.Module):
    def __init__(self, latent, shape, width=8):
        super().__init__()
        self.first, self.second = nn.Linear(latent, width), nn.Linear(width, prod(shape))
        self.second.bias = self.first.bias if width == prod(shape) else self.second.bias

    def forward(self, z):
        return self.second(self.first(z).tanh())
"""


@pytest.mark.parametrize("width", [8, 2], ids=["plain", "tied bias"])
def test_code_of_the_user_runs_with_permission_only(width: int, tmp_path: Path) -> None:
    (tmp_path / "sketch.py").write_text(SKETCH)
    g = {"kind": "python", "file": str(tmp_path / "sketch.py"), "name": "Sketcher", "options": {"width": width}}
    recipe = decode(load_table("ring") | {"network": load_table("ring")["network"] | {"g": g}, "tricks": []})
    run = untrained(recipe, tmp_path / "run")
    out = tmp_path / "out"
    out.mkdir()
    (out / "g.safetensors").write_bytes(export_generator(run, "safetensors").data)
    (out / "sketch.py").write_text(SKETCH)
    with pytest.raises(RecipeError, match="--trust-code"):
        poise.load_generator(out / "g.safetensors")
    generator = poise.load_generator(out / "g.safetensors", trust_code=True)
    torch.testing.assert_close(generator(run.latents(4)), run.sample(4))
    (out / "sketch.py").write_text(SKETCH + "# changed\n")
    for found in ("another version of it", "none"):
        with pytest.raises(
            CheckpointError, match=rf"^sketch\.py is needed beside .*g\.safetensors, found {found}; put"
        ):
            poise.load_generator(out / "g.safetensors", trust_code=True)
        (out / "sketch.py").unlink(missing_ok=True)


OTHERS = """
import torch
from torch import nn
from poise.core.hooks import InputTransform, NetworkTransform
from poise.core.types import Side
from poise.objectives.base import Objective

class Critic(nn.Linear):
    def __init__(self, shape):
        super().__init__(2, 1)

class Linear(Objective):
    def d_losses(self, real, fake, targets):
        return -real, fake
    def g_losses(self, fake, real):
        return (-fake,)

class Same(InputTransform):
    def transform_input(self, images, origin, context):
        return images

class Halved(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
    def forward(self, z):
        return self.net(z) / 2

class Half(NetworkTransform):
    def transform_network(self, side, net):
        return Halved(net)

class HalfOfD(Half):
    sides = frozenset({Side.D})
"""


def with_code(tmp_path: Path, **slots: str) -> Recipe:
    """A recipe with custom components, each in a file of its own with the name of its place."""
    table = load_table("ring")
    own = dict[str, Any]()
    for slot, name in slots.items():
        file = tmp_path / f"{slot}.py"
        file.write_text(SKETCH if name == "Sketcher" else OTHERS)
        own[slot] = {"kind": "python", "file": str(file), "name": name}
    network = {side: own.get(side, {"kind": "mlp", "width": 8}) for side in "gd"}
    changed = {"objective": own["objective"]} if "objective" in own else {}
    return decode(table | {"network": network, "tricks": [own["trick"]] if "trick" in own else []} | changed)


NEEDED: dict[str, tuple[dict[str, str], set[str]]] = {
    "everything": ({"g": "Sketcher", "d": "Critic", "objective": "Linear", "trick": "Same"}, {"g.py"}),
    "without g": ({"d": "Critic", "objective": "Linear", "trick": "Same"}, set()),
    "a trick that changes g": ({"g": "Sketcher", "objective": "Linear", "trick": "Half"}, {"g.py", "trick.py"}),
    "a trick that changes d": ({"trick": "HalfOfD"}, set()),
}


@pytest.mark.parametrize("case", NEEDED)
def test_only_the_code_of_the_generator_is_needed(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from the run and the files that it was trained with, in a process that has not run them."""
    slots, needed = NEEDED[case]
    run, out = untrained(with_code(tmp_path, **slots), tmp_path / "run"), tmp_path / "out"
    done = export_generator(run, "safetensors")
    assert done.code.keys() == done.description.code.keys() == needed
    for form in ("onnx", "pt2"):
        assert not FORMATS[form].needs_code
    out.mkdir()
    for name, content in {"g.safetensors": done.data, **done.code}.items():
        (out / name).write_bytes(content)
    expected = run.sample(4)
    for slot in slots:
        (tmp_path / f"{slot}.py").unlink()
    monkeypatch.setattr(loading, "_trusted", set())
    monkeypatch.setattr(loading, "_executed", {})
    if needed:
        with pytest.raises(RecipeError, match="--trust-code"):
            poise.load_generator(out / "g.safetensors")
    generator = poise.load_generator(out / "g.safetensors", trust_code=bool(needed))
    torch.testing.assert_close(generator(run.latents(4)), expected)


def test_the_command_writes_the_code_beside_the_file(tmp_path: Path, poise: Any) -> None:
    """It says so, and does not replace another file of this name."""
    run = train(
        with_code(tmp_path, g="Sketcher", objective="Linear").model_copy(update={"steps": 1, "measure": None}),
        tmp_path / "run",
        trust_code=True,
    )
    out = tmp_path / "out"
    out.mkdir()
    for _ in range(2):
        result = poise("export", run.path, "--out", out / "g.safetensors", "--trust-code")
        assert result.code == 0, result.err
        assert f"note: the generator needs {out / 'g.py'}, which must lie beside g.safetensors" in result.err
        assert sorted(path.name for path in out.iterdir()) == ["g.py", "g.safetensors"]
        assert (out / "g.py").read_text() == SKETCH
    (out / "g.py").write_text("mine = 1")
    (out / "g.safetensors").unlink()
    result = poise("export", run.path, "--out", out / "g.safetensors", "--trust-code")
    result.assert_error(2, "--out", f"found another g.py in '{out}'", "export into another folder")
    assert [path.name for path in out.iterdir()] == ["g.py"]


def test_a_portable_recipe_names_no_folder_of_this_computer() -> None:
    table = load_table("dcgan") | {"data": {"kind": "folder", "path": "/home/somebody/pets", "size": 32}}
    table["about"] = "/not/a/path but a text"
    recipe = portable(decode(table))
    assert recipe.data.path == "pets"  # type: ignore[attr-defined]
    assert recipe.about == "/not/a/path but a text"
    assert portable(recipe) == recipe
    relative = decode(table | {"data": {"kind": "folder", "path": "private/sets/pets", "size": 32}})
    assert portable(relative).data.path == "pets"  # type: ignore[attr-defined]
    assert portable(decode(load_table("dcgan"))) == decode(load_table("dcgan"))


def test_a_portable_recipe_names_no_folder_of_two_domains_and_of_no_initial_run() -> None:
    data = {"kind": "domains", "a": "clients/secret/horses", "b": "../private/zebras", "size": 32}
    for place in ("clients/secret/run", "s3://name:password@bucket/secret/run"):
        recipe = portable(decode(load_table("dcgan") | {"data": data, "init": {"from": place}}))
        assert recipe.init is not None
        assert (recipe.data.paths, recipe.init.run) == (("horses", "zebras"), "run")
        assert "secret" not in recipe.to_toml()
    alike = {"a": "/clients/secret/horses/images", "b": "../secret/zebras/images"}
    assert portable(decode(load_table("dcgan") | {"data": data | alike})).data.paths == (
        "horses/images",
        "zebras/images",
    )
    within = {"a": "/images", "b": "C:\\x\\images"}
    assert portable(decode(load_table("dcgan") | {"data": data | within})).data.paths == ("images", "x/images")
    same = {"a": "/secret/images", "b": "/secret/images"}
    assert portable(decode(load_table("dcgan") | {"data": data | same})).data.paths == ("images", "images")
    vectors = {"kind": "vectors", "a": "sets/secret/en.vec", "b": "sets/secret/fr.vec"}
    assert portable(decode(load_table("align") | {"data": vectors})).data.paths == ("en.vec", "fr.vec")


LATENTS: dict[str, dict[str, Any]] = {
    "gaussian": {"kind": "gaussian", "dim": 4},
    "truncated": {"kind": "truncated", "dim": 4, "threshold": 1.5},
    "codes": {"kind": "codes", "dim": 9, "categories": [2, 3], "continuous": 1},
    "sphere": {"kind": "sphere", "dim": 4},
    "uniform": {"kind": "uniform", "dim": 4},
}


@pytest.mark.parametrize("kind", LATENTS)
def test_latents_are_told_and_truncated_as_those_of_the_run(kind: str, tmp_path: Path) -> None:
    run = untrained(decode(load_table("ring") | {"latent": LATENTS[kind], "tricks": []}), tmp_path / "run")
    (tmp_path / "g.safetensors").write_bytes(export_generator(run, "safetensors").data)
    generator = poise.load_generator(tmp_path / "g.safetensors")
    told = json.loads(generator.description.as_text()["latent"])
    assert told["distribution"] == run.recipe.latent.in_words
    assert torch.equal(generator.latents(5, 3), run.latents(5, 3))
    if kind in ("sphere", "uniform"):
        with pytest.raises(RecipeError, match=f"latents of kind '{kind}' can't be truncated"):
            generator.latents(5, 3, truncation=0.5)
        with pytest.raises(RecipeError, match="no layer of this generator truncates; leave it out: they "):
            generator(generator.latents(5), truncation=0.5)
        return
    truncated = generator(generator.latents(5, 3, truncation=0.5))
    torch.testing.assert_close(truncated, run.sample(5, 3, truncation=0.5))
    assert not torch.equal(truncated, generator(generator.latents(5, 3)))
    cure = r"draw truncated latents instead: generator\.latents\(n, seed, truncation=F\)"
    with pytest.raises(RecipeError, match=f"no layer of this generator truncates; {cure}"):
        generator(generator.latents(5), truncation=0.5)
    with pytest.raises(RecipeError, match="must be above 0 and at most 1"):
        generator.latents(5, truncation=0.0)


@pytest.mark.parametrize("latents", [torch.zeros(2, 5), torch.zeros(4), torch.zeros(2, 4, dtype=torch.int64)])
def test_latents_that_do_not_fit_are_refused(latents: torch.Tensor, tmp_path: Path) -> None:
    run = untrained(decode(load_table("ring") | {"latent": LATENTS["gaussian"], "tricks": []}), tmp_path / "run")
    (tmp_path / "g.safetensors").write_bytes(export_generator(run, "safetensors").data)
    with pytest.raises(RecipeError, match=r"latents: latents must be B x 4, found .*; draw them with "):
        poise.load_generator(tmp_path / "g.safetensors")(latents)


def test_vectors_that_can_not_be_mapped_are_refused(tmp_path: Path) -> None:
    run = untrained(decode(load_table("align") | {"data": {"kind": "clouds", "count": 30, "dim": 5}}), tmp_path / "run")
    (tmp_path / "g.safetensors").write_bytes(export_generator(run, "safetensors").data)
    generator = poise.load_generator(tmp_path / "g.safetensors")
    assert generator(torch.zeros(3, 5)).shape == (3, 5)
    for vectors in (torch.zeros(3, 4), torch.zeros(5), torch.zeros(3, 1, 5)):
        with pytest.raises(
            RecipeError, match=r"source: vectors of this shape can't be translated, .*; use B x 5, like"
        ):
            generator(vectors)
    with pytest.raises(RecipeError, match="source: vectors must be floating-point numbers, found int64"):
        generator(torch.zeros(3, 5, dtype=torch.int64))


def test_styles_are_truncated_and_not_latents(tmp_path: Path) -> None:
    run = untrained(thin("stylegan2"), tmp_path / "run")
    (tmp_path / "g.safetensors").write_bytes(export_generator(run, "safetensors").data)
    generator = poise.load_generator(tmp_path / "g.safetensors")
    with pytest.raises(RecipeError, match="the layers of this generator truncate, not its latents"):
        generator.latents(2, truncation=0.5)
    assert generator(generator.latents(2, 3), truncation=torch.tensor(0.5)).shape == (2, *run.shape)
