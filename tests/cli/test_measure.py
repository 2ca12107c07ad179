"""`poise measure` and `poise compare`: results, files and errors."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise.errors import DataError
from poise.measure import classifier
from poise.measure.catalogue import MEASURES
from poise.measure.evaluator import Evaluator
from poise.runs.evaluate import MeasuredSamples
from poise.runs.run import Run
from poise.utils.images import to_float

Arrays = dict[str, np.ndarray]
THIN = ["--set", "batch=16", "--set", 'latent={kind="gaussian", dim=4}', "--set", "log.sheet=4", "--set", "log.rows=2"]
NETS = ["--set", 'network.g={kind="mlp", width=8}', "--set", 'network.d={kind="mlp", width=8}']
FEW = "compared with only 40 real samples: small differences may be chance"
HALVED = "copying: computed from 20 samples; the other held-out images are used for its floor"
SLOW = {name for name, measure in MEASURES.items() if measure.slow}


@pytest.fixture(scope="module", autouse=True)
def _quick_classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A classifier for pictures that can't be mixed up: twenty steps will do, and are kept out of others' way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(classifier, "SAMPLES_SEEN", (1280, 1280))
        yield


def shades(n: int = 200, side: int = 8) -> Arrays:
    """Grey pictures, dark ones and bright ones in turn."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).integers(0, 100, (n, side, side, 1))
    return {"images": (noise + 128 * labels[:, None, None, None]).astype(np.uint8), "labels": labels}


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "shades.npz"
    np.savez(path, **shades())
    return path


def trained(poise: Any, npz: Path, out: Path, *words: object) -> Path:
    data = ["--data", npz, "--set", "data.size=8", "--set", "data.held_out=0.2"]
    result = poise("train", "gan", "--out", out, "--steps", 6, *data, *THIN, *NETS, *words)
    assert result.code == 0, result.err
    return out


@pytest.fixture(scope="module")
def run(poise: Any, npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps, measured every two; the averaged weights lag behind the live ones."""
    how = 'measure={every=2, measures=["fid", "coverage"], n=40, features="pixels"}'
    slow = 'tricks=[{kind="averaged_weights", half_life=50.0, ramp_up=0.0}]'
    fast = ["--set", "optimizer.g.lr=5e-2", "--set", how, "--set", slow]
    return trained(poise, npz, tmp_path_factory.mktemp("runs") / "run", *fast)


@pytest.fixture(scope="module")
def conditional(poise: Any, npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose G and D are told the class."""
    out = tmp_path_factory.mktemp("runs") / "conditional"
    result = ["--set", 'conditioning={g={kind="concat"}, d={kind="channels"}}']
    return trained(poise, npz, out, *result)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def measured(poise: Any, *words: object) -> dict[str, Any]:
    """What `--json` prints: JSON and nothing else on stdout, and nothing on stderr."""
    result = poise(*words, "--json")
    assert result.code == 0, result.err
    assert result.err == ""
    return json.loads(result.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def values(poise: Any, *words: object) -> dict[str, float]:
    return {name: one["value"] for name, one in measured(poise, *words)["measures"].items()}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "measures.jsonl").read_text().splitlines()]


# ---- measure --------------------------------------------------------------------------------------------


def test_table_with_floors(poise: Any, run: Path) -> None:
    before = contents(run)
    result = poise("measure", run)
    assert (result.code, result.err) == (0, f"{FEW}\n{HALVED}\n")
    assert result.out.startswith("40 generated and 40 real samples, features: classifier ")
    found = {line.split()[0]: line.split()[1:] for line in result.out.splitlines()[3:] if line.strip()}
    assert set(found) == {
        *("fid", "kid", "precision", "recall", "density", "coverage", "ndb", "vendi", "diversity", "class_diversity"),
        *("inception_score", "class_confidence", "class_balance", "copying", "authenticity", "high_frequencies"),
    }
    as_json = measured(poise, "measure", run)["measures"]
    for name, words in found.items():
        one = as_json[name]
        error = ["±", f"{one['stderr']:.2g}"] if "stderr" in one else []
        spread = [] if one["floor_std"] is None else ["±", f"{one['floor_std']:.2g}"]
        figures = [f"{one['value']:.4g}", *error, f"{one['floor']:.4g}", *spread]
        assert words[: len(figures)] == figures
        direction = {"less": "lower is better", "more": "higher is better", "floor": "best near that of real data"}
        assert " ".join(words[len(figures) :]) == direction[MEASURES[name].better]
    assert contents(run) == before


@pytest.mark.parametrize("held_out", [0, 0.2])
def test_measures_against_training_images_are_said_to_be(
    poise: Any, npz: Path, tmp_path: Path, held_out: float
) -> None:
    known = "nothing is held out: the measures compare with training images"
    words = ["--set", f"data.held_out={held_out}", "--set", 'measure={measures=["fid"], n=20, features="pixels"}']
    out = trained(poise, npz, tmp_path / "run", *words)
    start = poise("check", out / "recipe.toml")
    result = poise("measure", out, "--measures", "fid", "--features", "pixels", "--n", 20)
    resumed = poise("train", "--resume", "--out", out, "--steps", 7)
    for one in (start, result, resumed):
        assert one.code == 0, one.err
        assert (known in one.out + one.err) == (held_out == 0)


def test_json_of_a_run(poise: Any, run: Path) -> None:
    found = measured(poise, "measure", run)
    assert list(found) == ["n", "features", "measures", "skipped", "notes"]
    assert (found["n"], found["notes"]) == (40, [FEW, HALVED])
    assert {name: one["n"] for name, one in found["measures"].items() if "n" in one} == {"copying": 20}
    assert set(found["measures"]) | set(found["skipped"]) == set(MEASURES) - SLOW
    rebuilding = {"reconstruction", "pca_reconstruction", "elbo", "elbo_reconstruction", "elbo_kl"}
    translating = {"l1", "psnr", "ssim", "cycle_error", "class_agreement"}
    assert set(found["skipped"]) == {
        "gan_test",
        "modes",
        "high_quality",
        "reverse_kl",
        "mode_std_error",
        *rebuilding,
        *translating,
    }
    assert all(found["skipped"].values())
    assert measured(poise, "measure", run) == found


def test_best_and_newest_agree_with_logged_measures(poise: Any, run: Path) -> None:
    best = json.loads((run / "run.json").read_text())["best"]
    words = ["measure", run, "--measures", "fid", "--features", "pixels", "--n", 40]
    by_step = {line["step"]: line["measures"]["fid"] for line in lines(run)}
    assert len(by_step) == 3
    assert best["value"] == by_step[best["step"]] == min(by_step.values())
    assert values(poise, *words, "--best") == {"fid": best["value"]}
    assert values(poise, *words) == {"fid": by_step[6]}


def test_best_without_a_best_checkpoint(poise: Any, run: Path, tmp_path: Path) -> None:
    without = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("best")))
    poise("measure", without, "--best").assert_error(4, "best", "no valid checkpoint", "leave out --best")


def test_best_differs_from_newest(poise: Any, run: Path, tmp_path: Path) -> None:
    spoilt = Path(shutil.copytree(run, tmp_path / "run"))
    (save,) = (spoilt / "best").iterdir()
    shutil.rmtree(save)
    shutil.copytree(next((run / "saves").glob("step-*6")), spoilt / "best" / "step-00000006")
    one = ["--measures", "fid", "--features", "pixels"]
    assert values(poise, "measure", spoilt, "--best", *one) == values(poise, "measure", spoilt, *one)


def test_results_depend_on_latents_and_weights(poise: Any, run: Path) -> None:
    plain = ["measure", run, "--measures", "fid", "--features", "pixels"]
    found = [values(poise, *plain, *more)["fid"] for more in ([], ["--seed", 1], ["--raw"], ["--n", 20])]
    assert len(set(found)) == 4
    assert values(poise, *plain, "--seed", 0)["fid"] == found[0]
    assert measured(poise, *plain, "--n", 20)["n"] == 20


def test_points(poise: Any, ring_run: Path) -> None:
    found = measured(poise, "measure", ring_run, "--n", 200, "--measures", "all")
    assert (found["n"], found["features"]) == (200, "points")
    assert {"modes", "high_quality", "reverse_kl", "fid", "duality_gap"} - set(found["skipped"]) <= set(
        found["measures"]
    )
    assert found["measures"]["modes"]["floor"] == 8
    assert found["measures"]["duality_gap"]["floor"] is None
    assert "gan_train" in found["skipped"]
    assert "duality_gap" not in measured(poise, "measure", ring_run, "--n", 50)["measures"]


def test_the_duality_gap_of_packs(poise: Any, tmp_path: Path) -> None:
    """Three samples to a pack, which does not divide the number of points in a batch."""
    words = ("--set", 'tricks=[{kind="packing", samples=3}]', "--set", "batch=33", "--steps", 2)
    assert poise("train", "ring", *words, "--out", tmp_path / "run").code == 0
    assert (
        "duality_gap"
        in measured(poise, "measure", tmp_path / "run", "--n", 50, "--measures", "duality_gap")["measures"]
    )


def test_conditional_run_measures_its_classes(poise: Any, conditional: Path) -> None:
    found = measured(poise, "measure", conditional, "--measures", "gan_test,gan_train,class_balance,d_probe")
    assert set(found["measures"]) == {"gan_test", "gan_train", "class_balance"}
    assert 0 <= found["measures"]["gan_test"]["value"] <= 1
    assert found["measures"]["gan_test"]["floor"] > 0.9
    assert found["measures"]["gan_train"]["floor"] > 0.9
    assert found["skipped"] == {"d_probe": "there is no discriminator whose features could be extracted"}


def test_classes_are_sampled_in_proportion(poise: Any, conditional: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that does as it is told scores 1; one that does the contrary, 0."""
    pool = {label: to_float(torch.from_numpy(shades()["images"][label::2])) for label in (0, 1)}
    for turned, score in ((0, 1.0), (1, 0.0)):

        def obey(net: Any, z: torch.Tensor, labels: torch.Tensor, turned: int = turned, **_: Any) -> torch.Tensor:
            assert (labels.bincount() - len(z) / 2).abs().max() <= 1
            return torch.stack([pool[(int(label) + turned) % 2][k] for k, label in enumerate(labels)])

        monkeypatch.setattr("poise.runs.evaluate.generate", obey)
        assert values(poise, "measure", conditional, "--measures", "gan_test") == {"gan_test": score}


def test_features_of_d(poise: Any, run: Path, conditional: Path) -> None:
    found = measured(poise, "measure", run, "--features", "d", "--measures", "fid,d_probe,class_balance")
    assert found["features"].startswith("features of D")
    assert set(found["measures"]) == {"fid", "d_probe"}
    assert list(found["skipped"]) == ["class_balance"]
    poise("measure", conditional, "--features", "d").assert_error(2, "--features", "this D needs class labels")


def test_custom_features(poise: Any, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("from torch import nn\n\nclass Flat(nn.Flatten):\n    pass\n")
    words = ["measure", run, "--measures", "fid", "--features", f"{file}:Flat"]
    poise(*words).assert_error(2, "own.py", "would execute a Python file", "--trust-code")
    assert measured(poise, *words, "--trust-code")["features"] == "Flat of own.py"


def grid(path: Path, side: int = 8, columns: int = 12) -> np.ndarray:
    """The pictures on a grey sheet, rows x columns x side x side."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        sheet = np.asarray(image)
    step = (sheet.shape[1] - 2) // columns
    rows = (sheet.shape[0] - 2) // step
    tiles = sheet[2:, 2:].reshape(rows, step, columns, step).transpose(0, 2, 1, 3)[:, :, :-2, :-2]
    every = (step - 2) // side
    return tiles[:, :, ::every, ::every]


def test_neighbours_grid(poise: Any, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "beside.png"
    result = poise("measure", run, "--measures", "fid", "--neighbours", path, "--json")
    assert result.code == 0
    assert list(json.loads(result.out)["measures"]) == ["fid"]
    assert result.err == f"{path}: samples, each beside its three nearest training images\n"
    tiles = grid(path).reshape(24, 4, 8, 8)
    samples = ((Run(run).sample(24) + 1) * 127.5).round().to(torch.uint8).numpy()[:, 0]
    assert (tiles[:, 0] == samples).all()
    pool = {one.tobytes() for one in shades()["images"]}
    assert all(one.tobytes() in pool for one in tiles[:, 1:].reshape(-1, 8, 8))


def test_copies_are_next_to_their_originals(
    poise: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Run(run).recipe.data.load().train
    copied = train.preview(24)
    monkeypatch.setattr("poise.runs.run.Run.sample", lambda self, n, seed, raw, domain: copied[:n])
    words = ["--measures", "fid", "--features", "pixels"]
    assert poise("measure", run, *words, "--neighbours", tmp_path / "beside.png").code == 0
    tiles = grid(tmp_path / "beside.png").reshape(24, 4, 8, 8)
    assert (tiles[:, 0] == tiles[:, 1]).all()
    assert (tiles[:, 1] != tiles[:, 2]).any((1, 2)).all()
    assert len({one.tobytes() for one in tiles[:, 0]}) == 24


@pytest.fixture
def moved(run: Path, npz: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the run, on data of its own that can be spoilt."""
    data, out = tmp_path / "p.npz", Path(shutil.copytree(run, tmp_path / "copy"))
    shutil.copy(npz, data)
    recipe = out / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(npz), str(data)))
    return out, data


def test_data_that_changed(poise: Any, moved: tuple[Path, Path]) -> None:
    out, data = moved
    words = ["measure", out, "--measures", "fid", "--features", "pixels"]
    assert poise(*words).code == 0
    other = shades()
    other["images"][3, 3, 3, 0] ^= 1
    np.savez(data, **other)
    poise(*words).assert_error(3, str(out), "not what this run was trained on")


def test_data_that_earlier_versions_divided_otherwise(poise: Any, moved: tuple[Path, Path]) -> None:
    out, data = moved
    recipe = out / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("mirror = false", "mirror = true"))
    other = shades()
    other["images"][3, 3, 3, 0] ^= 1
    np.savez(data, **other)
    words = ["measure", out, "--measures", "fid", "--features", "pixels"]
    poise(*words).assert_error(3, "; if it has images and their flips (data.mirror), the version of poise that started")


def test_data_that_is_gone(poise: Any, moved: tuple[Path, Path]) -> None:
    out, data = moved
    data.unlink()
    result = poise("measure", out)
    result.assert_error(3, "p.npz", "give its new path with --data")
    assert "relative" not in result.err


def test_relative_data_in_another_folder(
    poise: Any, moved: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message tells where relative paths start, as the file has not moved."""
    out, data = moved
    recipe = out / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(data), data.name))
    monkeypatch.chdir(tmp_path)
    words = ["measure", out, "--measures", "fid", "--features", "pixels"]
    assert poise(*words).code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    poise(*words).assert_error(3, "p.npz", f"relative paths start at {elsewhere}: run the command where", "--data")


@pytest.mark.parametrize("options", [[], ["--json"], ["--neighbours", "x.png"], ["--best"]], ids=str)
@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_no_run(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    poise("measure", name, *options).assert_error(4, name, "not a run folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--measures", "fdi"], ["--measures", "no such measure", "'fdi'", "did you mean 'fid'?"]),
        (["--measures", "fid,"], ["--measures", "no such measure", "''"]),
        (["--measures", ""], ["--measures", "no such measure"]),
        (["--features", "pixel"], ["--features", "no such features", "'pixel'", "auto, pixels, classifier"]),
        (["--features", ""], ["--features", "no such features"]),
        (["--n", "9"], ["--n", "10"]),
        (["--seed", "-1"], ["--seed", "0"]),
        (["--neighbours", "x.jpg"], ["--neighbours", "must end in .png", "x.png"]),
        (["--neighbours", "no/x.png"], ["--neighbours", "its folder does not exist"]),
    ],
    ids=str,
)
def test_refused(
    poise: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    poise("measure", run, *options).assert_error(2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_missing_features_file(poise: Any, run: Path) -> None:
    poise("measure", run, "--features", "resnet18=no.pth").assert_error(3, "--features", "no such file", "no.pth")


def test_points_have_no_neighbours(poise: Any, ring_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is said before anything is measured."""
    monkeypatch.setattr("poise.runs.evaluate.Evaluator", None)
    result = poise("measure", ring_run, "--n", 50, "--measures", "fid", "--neighbours", tmp_path / "x.png")
    result.assert_error(2, "--neighbours", "no fixed set of images", "leave it out")
    assert list(tmp_path.iterdir()) == []


def test_results_are_printed_before_neighbours_are_searched(
    poise: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(evaluator: Evaluator, samples: torch.Tensor) -> None:
        raise DataError("is damaged", where="image 7")

    monkeypatch.setattr(Evaluator, "nearest_training_grid", fail)
    words = ("--measures", "fid", "--features", "pixels", "--json")
    result = poise("measure", run, *words, "--neighbours", tmp_path / "x.png")
    assert (result.code, list(json.loads(result.out)["measures"])) == (3, ["fid"])


def test_skipped_measures_are_explained_if_named(poise: Any, run: Path) -> None:
    result = poise("measure", run, "--measures", "fid,modes", "--features", "pixels")
    assert result.code == 0
    reason = "no modes: this data has no modes to count, or these features cannot identify them"
    assert result.err.splitlines() == [FEW, reason]
    assert "modes" not in result.out
    assert poise("measure", run, "--features", "pixels").err == f"{FEW}\n{HALVED}\n"


@pytest.mark.parametrize("measures", [[], ["--measures", "fid,precision"]])
def test_samples_that_are_not_finite_are_told_of(
    poise: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measures: list[str]
) -> None:
    """As bytes they would be black images."""

    def diverged(_: object, net: object, n: int) -> torch.Tensor:
        samples = torch.zeros(n, 1, 8, 8)
        samples[:3] = torch.nan
        return samples

    monkeypatch.setattr(MeasuredSamples, "samples", diverged)
    result = poise("measure", run, *measures, "--features", "pixels")
    lines = [line for line in result.err.splitlines() if line.startswith("no ")]
    assert result.code == 0
    assert all(line.endswith(": 3 of 40 samples are not finite") for line in lines)
    assert "no fid" in lines[0]
    assert "precision" in lines[-1]
    assert len(lines) == (2 if measures else 1)
    monkeypatch.setattr(Run, "sample", lambda self, n, *_, **__: diverged(self, None, n))
    np.savez(tmp_path / "real.npz", **shades())
    compared = poise("compare", run, tmp_path / "real.npz", "--features", "pixels")
    assert compared.code == 3
    assert f"{run}: 3 of " in compared.err
    assert compared.err.endswith(" samples are not finite\n")


# ---- compare ----------------------------------------------------------------------------------------------


def colours(n: int, side: int, seed: int) -> np.ndarray:
    """Colour pictures without classes, smooth enough to be resized."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 2, 2, 3), np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR)) for one in coarse]
    )


def folder(path: Path, images: np.ndarray) -> Path:
    path.mkdir()
    for k, image in enumerate(images):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(path / f"{k:04}.png")
    return path


def archive(path: Path, images: np.ndarray, **more: np.ndarray) -> Path:
    np.savez(path, images=images, **more)
    return path


@pytest.fixture(scope="module")
def image_sets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """FAKE of 12 x 12 and REAL of 16 x 16 pixels, as folders, zip and npz."""
    top = tmp_path_factory.mktemp("piles")
    fake, real = colours(90, 12, 1), colours(100, 16, 2)
    folder(top / "fake", fake)
    folder(top / "real", real)
    archive(top / "fake.npz", fake)
    archive(top / "real.npz", real)
    with zipfile.ZipFile(top / "fake.zip", "w") as packed:
        for file in sorted((top / "fake").iterdir()):
            packed.write(file, file.name)
    return lambda name: top / name


def test_two_folders_of_different_sizes(poise: Any, image_sets: Callable[[str], Path]) -> None:
    found = measured(poise, "compare", image_sets("fake"), image_sets("real"))
    assert (found["n"], found["features"]) == (50, "pixels")
    assert set(found["measures"]) == {
        *("fid", "kid", "precision", "recall", "density", "coverage", "ndb", "vendi", "diversity", "high_frequencies")
    }
    assert set(found["measures"]) | set(found["skipped"]) == set(MEASURES) - SLOW
    assert found["notes"] == [
        "compared with only 50 real samples: small differences may be chance",
        "FAKE was resized from 12 to 16 pixels (Lanczos, antialiased), which affects the results",
    ]
    result = poise("compare", image_sets("fake"), image_sets("real"))
    assert result.err.splitlines() == found["notes"]
    assert f"{found['measures']['fid']['value']:.4g}" in result.out


@pytest.mark.parametrize(("fake", "real"), [("fake.npz", "real.npz"), ("fake", "real.npz"), ("fake.zip", "real")])
def test_png_and_npz_give_the_same_results(poise: Any, image_sets: Callable[[str], Path], fake: str, real: str) -> None:
    expected = measured(poise, "compare", image_sets("fake"), image_sets("real"))
    found = measured(poise, "compare", image_sets(fake), image_sets(real))
    assert found["skipped"] == expected["skipped"]
    assert list(found["measures"]) == list(expected["measures"])
    for name, one in expected["measures"].items():
        assert found["measures"][name] == pytest.approx(one, abs=1e-6)


def test_images_against_themselves(poise: Any, image_sets: Callable[[str], Path]) -> None:
    found = measured(
        poise, "compare", image_sets("real.npz"), image_sets("real"), "--measures", "fid,precision,recall,coverage"
    )
    assert found["n"] == 50
    assert found["measures"]["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["measures"]["fid"]["floor"] > 0.1
    for name in ("precision", "recall", "coverage"):
        assert found["measures"][name]["value"] == 1
    assert "resized" not in " ".join(found.get("notes", []))


@pytest.mark.parametrize(
    ("asked", "n", "floor"), [(None, 50, True), (20, 20, True), (50, 50, True), (51, 51, False), (200, 90, False)]
)
def test_floor_uses_as_many_samples_as_the_value(
    poise: Any, image_sets: Callable[[str], Path], asked: int | None, n: int, floor: bool
) -> None:
    more = [] if asked is None else ["--n", asked]
    found = measured(poise, "compare", image_sets("fake.npz"), image_sets("real"), "--measures", "fid,coverage", *more)
    assert found["n"] == n
    for one in found["measures"].values():
        assert (one["floor"] is not None) == floor
        assert (one.get("floor_std") is not None) == floor
    reason = f"most measures have no floor: 100 real images are too few for two parts of {n}"
    assert (reason in found["notes"]) == (not floor)
    if not floor:
        result = poise("compare", image_sets("fake.npz"), image_sets("real"), "--measures", "fid", *more)
        assert reason in result.err.splitlines()


@pytest.mark.parametrize("real", ["folder", "npz"])
def test_real_images_do_not_beat_their_floor(poise: Any, tmp_path: Path, real: str) -> None:
    """Two halves of the same pictures, however few: the figure lies within the floor's spread."""
    images = np.concatenate([colours(100, 8, seed) // (1 + seed) for seed in range(4)])  # sorted by kind
    order = np.random.default_rng(0).permutation(400)
    fake = archive(tmp_path / "fake.npz", images[order[:200]])
    rest = images[np.sort(order[200:])]
    against = folder(tmp_path / "real", rest) if real == "folder" else archive(tmp_path / "real.npz", rest)
    one = measured(poise, "compare", fake, against, "--measures", "fid")["measures"]["fid"]
    assert one["floor"] - 4 * one["floor_std"] < one["value"] < one["floor"] + 4 * one["floor_std"]


def test_grey_against_colour(poise: Any, tmp_path: Path) -> None:
    """Grey pictures are colour pictures with three equal channels, and colour ones against grey are made grey."""
    grey, colour = colours(80, 8, 3)[..., :1], colours(80, 8, 4)
    as_colour = archive(tmp_path / "as-colour.npz", grey.repeat(3, 3))
    folder(tmp_path / "grey", grey)
    archive(tmp_path / "colour.npz", colour)
    plain, by_colour = (
        values(poise, "compare", fake, tmp_path / "colour.npz", "--measures", "fid,vendi,coverage")
        for fake in (tmp_path / "grey", as_colour)
    )
    assert plain == pytest.approx(by_colour, abs=1e-6)
    back = measured(poise, "compare", as_colour, archive(tmp_path / "grey.npz", grey), "--measures", "fid,coverage")
    assert back["measures"]["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert back["measures"]["coverage"]["value"] == 1
    assert plain["fid"] > 5


def test_one_measure(poise: Any, image_sets: Callable[[str], Path]) -> None:
    found = measured(poise, "compare", image_sets("fake.npz"), image_sets("real.npz"), "--measures", "vendi")
    assert list(found["measures"]) == ["vendi"]
    assert set(found["measures"]["vendi"]) == {"value", "floor", "floor_std"}
    assert found["skipped"] == {}


def test_size_and_n_options(poise: Any, image_sets: Callable[[str], Path]) -> None:
    words = ["compare", image_sets("fake.npz"), image_sets("real.npz"), "--measures", "fid"]
    assert measured(poise, *words, "--n", 20)["n"] == 20
    [note] = measured(poise, *words, "--n", 20, "--size", 12)["notes"]
    assert note.startswith("REAL was resized from 16 to 12 pixels")
    assert values(poise, *words, "--size", 12) != values(poise, *words)
    own = measured(poise, *words, "--size", 6)["notes"]
    assert own[-2].startswith("FAKE was resized from 12 to 6 pixels")
    assert own[-1].startswith("REAL was resized from 16 to 6 pixels")


def test_resizing_is_noted(poise: Any, tmp_path: Path) -> None:
    """Larger ones are compared at 256: neither pile of 300 x 300 is what it was."""
    large = archive(tmp_path / "large.npz", colours(12, 300, 5)[..., :1])
    words = ["compare", large, large, "--measures", "vendi"]
    assert any("300" in note and "256" in note for note in measured(poise, *words)["notes"])
    assert not any("300" in note for note in measured(poise, *words, "--size", 300).get("notes", []))


def test_fewer_images_than_requested_are_noted(poise: Any, image_sets: Callable[[str], Path]) -> None:
    found = measured(poise, "compare", image_sets("fake.npz"), image_sets("real.npz"), "--measures", "fid", "--n", 1000)
    assert found["n"] == 90
    assert any("1,000" in note for note in found["notes"])


def test_labelled_images_against_a_data_set(poise: Any, npz: Path, tmp_path: Path) -> None:
    found = measured(poise, "compare", npz, npz)
    assert found["features"].startswith("classifier ")
    assert found["measures"]["gan_test"]["value"] > 0.9
    assert found["measures"]["class_balance"]["value"] > 0.85
    digits = measured(poise, "compare", npz, "digits", "--measures", "fid,copying", "--features", "pixels", "--n", 30)
    assert set(digits["measures"]) == {"fid", "copying"}
    assert digits["n"] == 30


def test_points_cannot_be_compared(poise: Any, npz: Path) -> None:
    poise("compare", npz, "ring").assert_error(3, "REAL", "only images can be compared")
    poise("compare", "ring", npz).assert_error(3, "FAKE", "only images can be compared")


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["fake", "real", "--measures", "fdi"], 2, ["--measures", "'fdi'", "did you mean 'fid'?"]),
        (["fake", "real", "--features", "inceptoin"], 2, ["--features", "no such features", "'inceptoin'"]),
        (["fake", "real", "--features", "d"], 2, ["--features", "there is no discriminator"]),
        (["fake", "real", "--features", "classifier"], 2, ["--features", "requires labels", "--features pixels"]),
        (["fake", "real", "--features", "rasnet18=fake.npz"], 2, ["no such torchvision network", "resnet18"]),
        (["fake", "real", "--features", "resnet18=fake.npz"], 3, ["fake.npz", "cannot be read as weights of resnet18"]),
        (["fake", "real", "--features", "inception=fake.npz"], 3, ["fake.npz", "cannot be read as Inception weights"]),
        (["nowhere/at/all", "real"], 3, ["FAKE", "nowhere/at/all", "give a folder, a .zip or a .npz"]),
        (["fake", "nowhere"], 3, ["REAL", "'nowhere'"]),
        (["fake", "reel.npz"], 3, ["REAL", "'reel.npz'"]),
        (["empty", "real"], 3, ["no images"]),
        (["fake", "broken.npz"], 3, ["not an npz archive"]),
        (["fake", "alone.npz"], 3, ["a single array, not an npz archive"]),
        (["alone.npz", "real"], 3, ["a single array, not an npz archive"]),
        (["fake"], 2, ["real"]),
        (["fake", "real", "--n", "1"], 2, ["--n", "2"]),
        (["fake", "real", "--size", "0"], 2, ["--size", "1"]),
    ],
    ids=str,
)
def test_compare_refused(
    poise: Any,
    image_sets: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    parts: list[str],
) -> None:
    for name in ("fake", "real", "fake.npz"):
        (tmp_path / name).symlink_to(image_sets(name))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_text("words")
    with (tmp_path / "alone.npz").open("wb") as file:
        np.save(file, np.zeros((9, 8, 8), np.uint8))
    monkeypatch.chdir(tmp_path)
    poise("compare", *words).assert_error(code, *parts)


@pytest.mark.parametrize("command", ["measure", "compare"])
def test_help(poise: Any, command: str) -> None:
    result = poise(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert "--measures" in result.out


# ---- runs in the place of pictures ---------------------------------------------------------------------------


def test_run_is_compared_by_its_samples_not_its_grids(
    poise: Any, run: Path, conditional: Path, npz: Path, tmp_path: Path
) -> None:
    for made, more in ((run, "the averaged weights"), (conditional, "classes in the proportions")):
        before = contents(made)
        words = ["--measures", "fid,coverage", "--features", "pixels"]
        found = measured(poise, "compare", made, npz, *words)
        assert found["n"] == 100
        (note,) = found["notes"]
        assert note.startswith("FAKE is a run: 100 samples of seed 0")
        assert more in note
        assert "step 6" in note
        assert poise("sample", made, "--n", 100, "--npz", tmp_path / "s.npz").code == 0
        assert measured(poise, "compare", tmp_path / "s.npz", npz, *words)["measures"] == found["measures"]
        assert contents(made) == before
        assert note in poise("compare", made, npz, *words).err.splitlines()


def test_run_as_real(poise: Any, run: Path, npz: Path) -> None:
    words = ["--measures", "fid", "--features", "pixels", "--n", 40]
    found = measured(poise, "compare", npz, run, *words)
    assert found["notes"][-1].startswith("REAL is a run: 160 samples")
    assert found["measures"]["fid"]["floor"] is not None
    both = measured(poise, "compare", run, run, *words)
    assert [note.split()[0] for note in both["notes"]] == ["FAKE", "REAL"]
    assert re.findall(r"of seed (\d) by", " ".join(both["notes"])) == ["0", "1"]


def test_a_run_of_other_channels_is_converted_with_a_note(poise: Any, run: Path, npz: Path, tmp_path: Path) -> None:
    with np.load(npz) as arrays:
        images = arrays["images"]
    grey = images.shape[3] == 1
    other = np.repeat(images, 3, 3) if grey else images[..., :1]
    np.savez(tmp_path / "other.npz", images=other)
    words = ["--measures", "fid", "--features", "pixels", "--n", 20]
    expected = "grey images get three equal channels" if grey else "colour images are converted to grey"
    assert f"FAKE: {expected}" in measured(poise, "compare", run, tmp_path / "other.npz", *words)["notes"]


def test_run_against_a_named_data_set_uses_the_size_of_the_run(poise: Any, digits_run: Path) -> None:
    found = measured(poise, "compare", digits_run, "digits", "--n", 20, "--measures", "fid", "--features", "pixels")
    assert found["n"] == 20
    assert not any("resized" in note for note in found["notes"])


def test_run_that_cannot_be_sampled(poise: Any, run: Path, ring_run: Path, npz: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    shutil.rmtree(bare / "saves")
    for words in ((bare, npz), (npz, bare)):
        poise("compare", *words).assert_error(4, "saves", "no valid checkpoint")
    lost = Path(shutil.copytree(run, tmp_path / "lost"))
    (lost / "run.json").unlink()
    poise("compare", lost, npz).assert_error(4, "run.json")
    poise("compare", ring_run, npz).assert_error(3, "FAKE", "only images can be compared", "ring")
    two_runs = poise("compare", ring_run, ring_run, "--measures", "modes")
    two_runs.assert_error(3, "only images can be compared", "two run folders alone, without options")
    poise("compare", run / "samples", npz).assert_error(3, "FAKE", "samples is part of a run", str(run))
    poise("compare", npz, run / "samples").assert_error(3, "REAL", "samples is part of a run")
