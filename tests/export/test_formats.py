"""Every generator in every format, run by the engine of the format. The slow tests have all graphs of all recipes."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.untrained import thin, untrained
from poise.errors import OutOfMemory, RecipeError
from poise.export import formats
from poise.export.exporter import export_generator
from poise.export.formats import FORMATS, missing_packages, require_packages
from poise.export.network import GeneratorInputs
from poise.recipe.model import Recipe
from poise.recipe.shipped import recipe_names
from poise.runs.run import Run

CLASS_NORM: dict[str, Any] = {"conditioning": {"g": {"kind": "class_norm"}, "d": {"kind": "projection"}}}
NORMS = ("spectral_batch", "instance", "layer", "group", "virtual", "none")


def with_options(name: str, **options: Any) -> Recipe:
    network = thin(name).canonical()["network"]
    return thin(name, network=network | {"g": network["g"] | options})


QUICK: dict[str, Recipe] = {  # small images: the time of an export is that of its layers
    "dcgan": thin("dcgan"),
    "cgan with class_norm": thin("cgan", **CLASS_NORM),
    "hinge-sngan with spectral norm": with_options("hinge-sngan", width=4, norm="spectral_batch", attention=8),
    "biggan": thin("biggan", data={"kind": "digits", "size": 16}),
    "stylegan2 with labels": thin(
        "stylegan2",
        data={"kind": "digits", "size": 8},
        conditioning={"g": {"kind": "concat"}, "d": {"kind": "projection"}},
    ),
}
SLOW = {name: thin(name) for name in recipe_names()} | {
    f"dcgan with norm {norm}": with_options("dcgan", norm=norm) for norm in NORMS
}
GRAPHS = {name: recipe for name, recipe in SLOW.items() if recipe.network.direction is None}
"""Recipes that start from noise; `test_translators.py` has the others."""


def run_of(recipe: Recipe, folder: Path) -> Run:
    run = untrained(recipe, folder)
    spread = run.sample(4).std()
    assert spread > 0.02, "the samples are all alike, so that a wrong export would not be noticed"
    return run


@pytest.mark.parametrize("name", QUICK | SLOW)
def test_safetensors_of_every_recipe(name: str, tmp_path: Path) -> None:
    run = run_of((QUICK | SLOW)[name], tmp_path)
    export = export_generator(run, "safetensors")
    assert export.comparison.passed
    assert export.comparison.scale > 0.1
    random = {trick.tag() for trick in run.recipe.tricks} & {"standing_dropout", "layer_noise"}
    assert len(export.notes) == bool(random)


QUICK_FORMS = {
    "dcgan": "pt2",
    "cgan with class_norm": "pt2",
    "hinge-sngan with spectral norm": "pt2",
    "biggan": "onnx",
    "stylegan2 with labels": "pt2",
}
"""Each of these in one format; in the other one in the slow tests."""


@pytest.mark.parametrize(
    ("name", "recipe", "form"),
    [
        pytest.param(name, recipe, form, marks=[] if quick else pytest.mark.slow, id=f"{name}{ending}-{form}")
        for recipes, ending in ((QUICK, ""), (GRAPHS, " (slow)"))
        for name, recipe in recipes.items()
        for form in ("onnx", "pt2")
        for quick in [recipes is QUICK and QUICK_FORMS[name] == form]
    ],
)
def test_graphs(name: str, recipe: Recipe, form: str, tmp_path: Path) -> None:
    """Exact inputs, a batch of any size, the metadata, and no larger difference than rounding.

    The samples of a run whose G draws noise can't be repeated with given noise, so that only the difference that the
    export itself has found is looked at; `test_network.py` compares what such graphs generate.
    """
    if missing_packages(form):
        pytest.skip("the extra 'export' is not installed")
    run = run_of(recipe, tmp_path)
    export = export_generator(run, form)
    print(f"{form} {name}: {export.comparison.difference:.2g} of {export.comparison.scale:.2g}")
    assert export.comparison.difference <= 2e-5 * export.comparison.scale
    labels = ("labels",) if recipe.labels.g is not None else ()
    truncation = ("truncation",) if name.startswith("stylegan2") else ()  # BigGAN truncates latents, not styles
    noise = ("noise",) if "layer_noise" in {trick.tag() for trick in recipe.tricks} else ()
    assert export.inputs == ("latents", *labels, *truncation, *noise)
    if not noise:
        check = check_onnx if form == "onnx" else check_pt2
        check(run, export.data, export.inputs)


STRENGTHS = (1.0, 0.3)
"""The truncations that are compared; networks that can't truncate ignore them."""


def truncated_samples(run: Run, inputs: Collection[str], strength: float) -> torch.Tensor:
    """What the run generates, 9 samples, with this truncation if it is an input."""
    return run.sample(9, truncation=strength if "truncation" in inputs else 1.0)


def check_onnx(run: Run, data: bytes, inputs: Collection[str]) -> None:
    import onnx
    import onnxruntime

    onnx.checker.check_model(data, full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    shapes = {one.name: (one.type, one.shape) for one in session.get_inputs()}
    assert shapes.pop("latents") == ("tensor(float)", ["batch", run.recipe.latent.dim])
    rest = {"labels": ("tensor(int64)", ["batch"]), "truncation": ("tensor(float)", [])}
    assert shapes == {name: shape for name, shape in rest.items() if name in inputs}
    [output] = session.get_outputs()
    assert (output.name, output.type) == ("images" if len(run.shape) == 3 else "points", "tensor(float)")
    assert output.shape == ["batch", *run.shape]
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["recipe"] == run.recipe.to_toml()
    assert json.loads(metadata["shape"]) == list(run.shape)
    arrays = {"latents": run.latents(9).numpy()}
    if "labels" in inputs:
        arrays["labels"] = run.labels(9, seed=0).numpy()  # type: ignore[union-attr]
    for strength in STRENGTHS:
        if "truncation" in inputs:
            arrays["truncation"] = np.array(strength, np.float32)
        samples = torch.from_numpy(session.run(None, arrays)[0])
        torch.testing.assert_close(samples, truncated_samples(run, inputs, strength), rtol=1e-4, atol=1e-4)


def check_pt2(run: Run, data: bytes, inputs: Collection[str]) -> None:
    extra = {"recipe": ""}
    module = torch.export.load(io.BytesIO(data), extra_files=extra).module()
    assert extra["recipe"] == run.recipe.to_toml()
    labels = run.labels(9, seed=0)
    positional = (run.latents(9),) if labels is None else (run.latents(9), labels)
    for strength in STRENGTHS:
        keywords = {"truncation": torch.tensor(strength)} if "truncation" in inputs else {}
        samples = module(*positional, **keywords)
        torch.testing.assert_close(samples, truncated_samples(run, inputs, strength), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=[] if f == "safetensors" else pytest.mark.slow) for f in FORMATS]
)
def test_noise_of_stylegan2_is_replaced_by_its_mean(form: str, tmp_path: Path) -> None:
    """Random noise is an input of graphs; `no_noise` leaves it out, as does a strength that has stayed 0."""
    if missing_packages(form):
        pytest.skip("the extra 'export' is not installed")
    run = run_of(with_options("stylegan2", noise="random"), tmp_path)
    if form != "safetensors":
        noisy = export_generator(run, form)
        height, width = run.shape[1:]
        maps = [(height >> k) * (width >> k) for k in range(int(math.log2(height)) - 1)]  # down to 4 x 4
        assert noisy.inputs == ("latents", "truncation", "noise")
        assert noisy.description.noise_dim == 2 * sum(maps) - maps[-1]
        assert noisy.comparison.difference <= 2e-5 * noisy.comparison.scale
    export = export_generator(run, form, no_noise=True)
    assert export.description.random_layers == "replaced by their means"
    silent = FORMATS[form].open(export.data, tmp_path)
    strengths = [weight for name, weight in run.generator().named_parameters() if name.endswith("noise_strength")]
    assert len(strengths) > 2
    inputs = GeneratorInputs(run.latents(9), truncation=torch.tensor(1.0))
    assert not torch.allclose(silent(inputs), run.sample(9), atol=0.01)
    for strength in strengths:
        strength.data.zero_()
    torch.testing.assert_close(silent(inputs), run.sample(9), rtol=1e-4, atol=1e-4)
    again = export_generator(run, form)
    assert (again.description.random_layers, again.notes) == ("none", [])


def test_a_wrong_export_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that differs by a thousandth part of itself is not noticed; one that is lost is."""
    run = run_of(QUICK["dcgan"], tmp_path)
    encode = formats.encode_generator

    def spoilt(net: torch.nn.Module, description: Any) -> bytes:
        with torch.no_grad():
            net.layers[-2].weight[:, :, 0, 0] = 0  # type: ignore[union-attr,index,operator]
        return encode(net, description)

    monkeypatch.setattr(formats, "encode_generator", spoilt)
    with pytest.raises(RecipeError, match=r"differs from PyTorch.*a difference of 0\.\d+ \(limit") as error:
        export_generator(run, "safetensors")
    assert error.value.exit_code == 2


def test_an_error_of_the_exporter_is_one_line(tmp_path: Path) -> None:
    run = run_of(thin("ring", tricks=[]), tmp_path)
    net = run.generator()

    class Deciding(torch.nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return net(latents) if float(latents.sum()) > 0 else -net(latents)

    run.generator = lambda *, raw=False: Deciding()  # type: ignore[method-assign,assignment]
    with pytest.raises(RecipeError, match="can't be exported as pt2") as error:
        export_generator(run, "pt2")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrapped", [False, True])
def test_too_little_memory_is_told_apart_from_what_can_not_be_exported(wrapped: bool) -> None:
    memory = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
    error = ValueError("the exporter has failed") if wrapped else memory
    error.__cause__ = memory if wrapped else None
    message = "--format: out of memory, found onnx; use --format safetensors"
    with pytest.raises(OutOfMemory, match=message), formats.export_errors("onnx"):
        raise error


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(
        RecipeError, match=r"no onnx, onnxscript, onnxruntime; install them: pip install 'poise\[export\]'"
    ):
        require_packages("onnx")
    require_packages("pt2")
    assert [missing_packages(name) for name in FORMATS] == [[], ["onnx", "onnxscript", "onnxruntime"], []]
