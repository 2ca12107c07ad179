"""Exports of a G that starts from images: which images go in and come out, in each format, and what a card says."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import poise
from export.untrained import untrained
from poise.data.domains import DomainsConfig
from poise.errors import RecipeError
from poise.export.card import card_facts, model_card
from poise.export.description import Description
from poise.export.exporter import export_generator
from poise.export.formats import FORMATS, missing_packages
from poise.export.network import GeneratorInputs
from poise.export.repository import build_repository, write_repository
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.recipe.toml import parse_toml, to_toml
from poise.runs.run import Run
from poise.training.train import train
from two_domains import SIDE, trained, translating, use_data


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run in each direction of translation, one with dropout and one with labels."""
    found = {}
    unet = {"kind": "unet", "width": 4, "norm": "batch"}
    by_label = {"conditioning": {"g": {"kind": "channels", "dim": 4}}}
    by_label["network"] = translating("a_to_b").canonical()["network"] | {"g": unet}
    runs: list[tuple[str, str, str, list[dict[str, Any]], dict[str, Any]]] = [
        ("a_to_b", "a_to_b", "pairs", [], {}),
        ("both_ways", "both_ways", "domains", [], {}),
        ("same", "same", "same", [], {}),
        ("a_to_b, random", "a_to_b", "pairs", [{"kind": "standing_dropout"}], {}),
        ("a_to_b, labels", "a_to_b", "labelled pairs", [], by_label),
    ]
    for name, direction, kind, tricks, changes in runs:
        with pytest.MonkeyPatch.context() as patch:
            use_data(patch, kind)
            out = tmp_path_factory.mktemp("runs") / direction
            found[name] = trained(out, direction, *tricks, **changes).path
    return found


def images(channels: int) -> torch.Tensor:
    return torch.rand(5, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("name", "direction", "channels"),
    [("a_to_b", None, (1, 3)), ("both_ways", None, (1, 3)), ("both_ways", "b_to_a", (3, 1)), ("same", None, (1, 1))],
)
def test_the_file_translates_as_the_run_does(
    folders: dict[str, Path], tmp_path: Path, name: str, direction: Any, channels: tuple[int, int]
) -> None:
    """No data is needed; the description says what goes in and comes out."""
    run = Run(folders[name])
    done = export_generator(run, "safetensors", direction=direction)
    assert done.inputs == ("source",)
    (tmp_path / "g.safetensors").write_bytes(done.data)
    generator = poise.load_generator(tmp_path / "g.safetensors")
    expected = run.translate(images(channels[0]), direction=direction)
    torch.testing.assert_close(generator(images(channels[0])), expected, atol=1e-5, rtol=1e-4)
    about = generator.description.as_text()
    assert about["direction"] == (direction or ("same" if name == "same" else "a_to_b"))
    assert json.loads(about["source_shape"]) == [channels[0], SIDE, SIDE]
    assert json.loads(about["shape"]) == [channels[1], SIDE, SIDE]
    with pytest.raises(RecipeError, match="starts from samples of the data"):
        generator.latents(3)


@pytest.mark.parametrize("direction", ["sideways", "B_to_A", "b2a", "both_ways", "same", ""])
@pytest.mark.parametrize("name", ["a_to_b", "both_ways", "same"])
def test_an_unknown_direction_is_refused(folders: dict[str, Path], name: str, direction: Any) -> None:
    run = Run(folders[name])
    uses = (
        lambda: run.translate(images(1), direction=direction),
        lambda: export_generator(run, "safetensors", direction=direction),
        lambda: build_repository(run, ["safetensors"], direction=direction),
    )
    for use in uses:
        with pytest.raises(RecipeError, match=f"direction: there is no such direction, found '{direction}'; a_to_b or"):
            use()


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.slow), "pt2"])
def test_graphs_have_named_inputs_and_any_batch(folders: dict[str, Path], form: str) -> None:
    if missing_packages(form):
        pytest.skip("the extra 'export' is not installed")
    run = Run(folders["both_ways"])
    done = export_generator(run, form, direction="b_to_a")
    assert done.inputs == ("source",)
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(done.data, providers=["CPUExecutionProvider"])
        assert [one.name for one in session.get_inputs()] == ["source"]
        [found] = session.run(None, {"source": images(3).numpy()})
    else:
        found = torch.export.load(io.BytesIO(done.data)).module()(images(3)).detach().numpy()
    expected = run.translate(images(3), direction="b_to_a").numpy()
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("measured", ["", "a", "b"])
@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
def test_a_card_has_the_measures_of_its_own_direction(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: str, direction: Any
) -> None:
    """Measured is the domain b, unless the recipe names the other one."""
    use_data(monkeypatch, "domains")
    folder = Path(shutil.copytree(folders["both_ways"], tmp_path / "run"))
    table = parse_toml((folder / "recipe.toml").read_text(), "recipe.toml")
    table["measure"] = {"measures": ["fid"]} | ({"domain": measured} if measured else {})
    (folder / "recipe.toml").write_text(to_toml(table))
    line = {"step": 1, "measures": {"fid": 2.5}, "floor": {"fid": 1.25}, "n": 10, "features": "pixels"}
    (folder / "measures.jsonl").write_text(json.dumps(line) + "\n")
    built = build_repository(Run(folder), ["safetensors"], direction=direction)
    card, own = built.contents["README.md"].decode(), (measured or "b") == direction[-1]
    assert ("| fid | 2.5 | 1.25 |" in card) == own
    assert any("measured its other direction" in note for note in built.notes) != own


@pytest.mark.parametrize(
    ("name", "network", "multiple", "least"),
    [
        ("a_to_b, labels", None, 16, 16),
        ("same", None, 4, 4),
        ("residual", {"g": {"kind": "translator", "width": 4, "blocks": 1}}, 4, 8),
        ("refiner", {"g": {"kind": "refiner", "width": 4, "blocks": 1}}, 1, 2),
    ],
)
@pytest.mark.parametrize("form", ["safetensors", "pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_images_of_other_sizes_are_translated_as_the_run_does(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    name: str,
    network: dict[str, Any] | None,
    multiple: int,
    least: int,
) -> None:
    """Smaller and larger ones, not square, although the graph was traced with images of the data's size."""
    if missing_packages(form):
        pytest.skip("the extra 'export' is not installed")
    if network is None:
        run = Run(folders[name])
    else:
        use_data(monkeypatch, "same")
        table = translating("same").canonical()["network"] | network
        run = trained(tmp_path / "run", "same", network=table, steps=1)
    done = export_generator(run, form)
    assert (done.description.size_multiple, done.description.least_size) == (multiple, least)
    assert Description.from_text(done.description.as_text(), "") == done.description
    labels = run.recipe.labels.g is not None
    translate = FORMATS[form].open(done.data, tmp_path)
    for height, width in ((least, least), (SIDE, SIDE), (SIDE + multiple, least), (2 * multiple + least, 3 * SIDE)):
        source = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(height)) * 2 - 1
        found = translate(GeneratorInputs(source, torch.ones(2, dtype=torch.long) if labels else None, first="source"))
        expected = run.translate(source, label=1 if labels else None)
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_network_of_one_image_size_keeps_it_and_says_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference of virtual batch norm has the size of the data."""
    use_data(monkeypatch, "same")
    table = translating("same").canonical()["network"]
    run = trained(tmp_path, "same", network=table | {"g": table["g"] | {"norm": "virtual"}}, steps=1)
    description = export_generator(run, "safetensors").description
    assert (description.size_multiple, description.least_size, description.sizes) == (0, 0, "")


def test_a_map_of_vectors_is_exported_too(tmp_path: Path) -> None:
    table = load_table("align") | {"steps": 1, "batch": 8, "data": {"kind": "clouds", "count": 60, "dim": 4}}
    run = train(decode(table), tmp_path / "run")
    done = export_generator(run, "pt2")
    assert (done.inputs, done.description.source_shape, done.description.sizes) == (("source",), (4,), "")
    source = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    found = FORMATS["pt2"].open(done.data, tmp_path)(GeneratorInputs(source, first="source"))
    (weights,) = run.generator().parameters()
    torch.testing.assert_close(found, source @ weights.detach().T)


def test_a_card_says_what_the_exported_network_is(folders: dict[str, Path], tmp_path: Path) -> None:
    """A direction of two has its own number of parameters, and unpaired images are not counted as one set."""
    run = Run(folders["both_ways"])
    for direction in ("a_to_b", "b_to_a"):
        network = run.generator().networks[direction]  # type: ignore[index]
        description = Description.of(run, translator=run.translator(direction))  # type: ignore[arg-type]
        rows = dict(card_facts(run, description, [], {}, ()).training)
        assert rows["parameters of the generator"] == f"{sum(p.numel() for p in network.parameters()):,}"
    assert "48 pairs of images of 1+3x16x16" in _data_row(Run(folders["a_to_b"]))
    assert "48 images of 1x16x16" in _data_row(Run(folders["same"]))
    run.__dict__["recipe"] = run.recipe.model_copy(update={"data": DomainsConfig(a="a", b="b")})
    run.info["data"]["count"] = 11
    assert _data_row(run).endswith("up to 11 unpaired images of each domain, 1+3x16x16 (C x H x W)")


def _data_row(run: Run) -> str:
    """What a card says of the data."""
    description = Description.of(run, translator=run.translator())
    return dict(card_facts(run, description, [], {}, ()).training)["data"]


def test_a_card_speaks_of_vectors_where_vectors_are_mapped(tmp_path: Path) -> None:
    recipe = decode(load_table("align") | {"data": {"kind": "clouds", "count": 30, "dim": 5}})
    run = untrained(recipe, tmp_path / "run")
    description = export_generator(run, "safetensors").description
    card = model_card(description, card_facts(run, description, [], {"generator.onnx": ""}, ("source",)))
    assert "translates vectors of a domain a to vectors of a domain b" in card
    assert "clouds: vectors of 5+5 numbers" in card
    assert card.count("# replace this by vectors\n") == 2
    assert "- The source is float32, B x 5: vectors like those of the data.\n" in card
    assert "- Vectors are float32, B x 5." in card
    assert not re.search("image|point", card.partition("## Training")[0].partition("## Use")[2])


def test_a_g_that_takes_labels(folders: dict[str, Path], tmp_path: Path) -> None:
    run = Run(folders["a_to_b, labels"])
    done = export_generator(run, "safetensors")
    assert done.inputs == ("source", "labels")
    (tmp_path / "g.safetensors").write_bytes(done.data)
    found = poise.load_generator(tmp_path / "g.safetensors")(images(1), torch.full((5,), 2))
    torch.testing.assert_close(found, run.translate(images(1), label=2), atol=1e-5, rtol=1e-4)


def test_random_layers_and_wrong_directions_are_refused(folders: dict[str, Path]) -> None:
    run = Run(folders["a_to_b, random"])
    with pytest.raises(RecipeError, match="draws random numbers itself"):
        export_generator(run, "pt2")
    assert export_generator(run, "pt2", no_noise=True).comparison.passed
    with pytest.raises(RecipeError, match="from a to b only"):
        export_generator(run, "safetensors", direction="b_to_a")


BAD_SOURCES: dict[str, tuple[torch.Tensor, str]] = {
    "another size": (
        torch.zeros(1, 1, 18, 20),
        "found 1 x 1 x 18 x 20; use B x 1 x 16 x 16, like the data; height and",
    ),
    "below the least size": (torch.zeros(1, 1, 2, 2), "any multiples of 4 from 4 pixels on"),
    "other channels": (torch.zeros(1, 3, SIDE, SIDE), "found 1 x 3 x 16 x 16; use B x 1 x 16 x 16"),
    "one image": (torch.zeros(1, SIDE, SIDE), "found 1 x 16 x 16; use B x 1 x 16 x 16"),
    "a row": (torch.zeros(5), "found 5; use B x 1 x 16 x 16"),
    "a scalar": (torch.tensor(0.5), "found a scalar; use B x 1 x 16 x 16"),
    "bytes": (
        torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8),
        r"images must be numbers in \[-1, 1\], found uint8; conv",
    ),
}


@pytest.mark.parametrize(("source", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_what_can_not_be_translated_is_refused_by_the_run_and_by_its_file(
    folders: dict[str, Path], tmp_path: Path, source: torch.Tensor, message: str
) -> None:
    run = Run(folders["a_to_b"])
    (tmp_path / "g.safetensors").write_bytes(export_generator(run, "safetensors").data)
    for translate in (run.translate, poise.load_generator(tmp_path / "g.safetensors")):
        with pytest.raises(RecipeError, match=f"^(images|source): .*{message}"):
            translate(source)
        assert translate(torch.zeros(2, 1, 8, 20)).shape == (2, 3, 8, 20)


def test_labels_of_a_loaded_translator_are_checked(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "g.safetensors").write_bytes(export_generator(Run(folders["a_to_b, labels"]), "safetensors").data)
    generator = poise.load_generator(tmp_path / "g.safetensors")
    source = images(1)[:2]
    assert torch.equal(generator(source.double(), [0, 3]), generator(source, torch.tensor([0, 3])))
    for labels, message in (
        ([0, 1, 2], "must be 2 integers, found int64, 3"),
        ([0, 4], "must be from 0 to 3, found 4"),
    ):
        with pytest.raises(RecipeError, match=f"labels: {message}"):
            generator(source, labels)
    with pytest.raises(RecipeError, match="needs labels"):
        generator(source)


def test_the_command_says_which_direction(poise: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "g.safetensors"
    result = poise("export", folders["both_ways"], "--out", out, "--direction", "b_to_a")
    assert result.code == 0, result.err
    assert "from b to a" in result.err
    assert "inputs: source; height and width may be any multiples of 4 from 4 pixels on; with" in result.err
    assert "over batches of 1 and 5 and two other image sizes" in result.err


def test_the_instructions_of_the_card_work(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_data(monkeypatch, "domains")
    formats = ["safetensors", *([] if missing_packages("onnx") else ["onnx"])]
    write_repository(build_repository(Run(folders["both_ways"]), formats), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "translates images of a domain a to images of a domain b" in card
    assert '"image-to-image"' in card
    assert "in [-1, 1]; height and width may be any multiples of 4 from 4 pixels on." in card
    monkeypatch.chdir(tmp_path / "model")
    blocks = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    assert len(blocks) == len(formats)
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block, names)
        assert names["samples"].shape == (16, 3, SIDE, SIDE)
