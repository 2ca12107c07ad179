"""The measures that the runs of a study can have, by the recipe and the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from poise.errors import DataError, RecipeError
from poise.measure.catalogue import MEASURES
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value
from poise.study.measurable import check_measures
from poise.study.prepare import Options, prepare, timing_file
from poise.training.train import train
from study.test_expand import RING, plan_of, tip


def recipe(name: str, measure: str, *changes: str) -> Recipe:
    table = load_table(name)
    for change in changes:
        set_value(table, change)
    measures = dict.fromkeys(("fid", measure))  # the first one needs a direction
    return decode(table | {"measure": {"measures": list(measures), "every": 1}})


def refusal(of: Recipe) -> str:
    try:
        check_measures(of, of.data.load())
    except RecipeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "measure", "reason"),
    [
        ("ring", "modes", ""),
        ("ring", "fid", ""),
        ("ring", "class_balance", "the feature extractor does not classify"),
        ("ring", "gan_train", "the classes of the samples are not known"),
        ("ring", "d_probe", "it is computed after training, by poise measure"),
        ("dcgan", "class_balance", ""),
        ("dcgan", "modes", "this data has no modes to count"),
        ("ring", "duality_gap", "it is computed after training, by poise measure"),
        ("dcgan", "duality_gap", "the duality gap is computed only for runs on 2-D data"),
        ("dcgan", "reconstruction", "there is no encoder"),
        ("dcgan", "gan_train", "the classes of the samples are not known"),
        ("cgan", "gan_train", ""),
        ("cgan", "gan_test", ""),
        ("dcgan", "l1", "the samples are not translations of images whose true translation is known"),
        ("pix2pix", "ssim", ""),
        ("pix2pix", "class_agreement", ""),
        ("pix2pix", "gan_test", "the samples were translated"),
        ("pix2pix", "cycle_error", "the samples are not of a generator that translates both ways"),
        ("cyclegan", "cycle_error", ""),
        ("cyclegan", "class_agreement", ""),
        ("cyclegan", "psnr", "the samples are not translations of images whose true translation is known"),
        ("autoencoder", "reconstruction", ""),
        ("autoencoder", "elbo", "only a variational autoencoder has a likelihood"),
        ("vae", "elbo", ""),
        ("stacked-digits-small", "modes", ""),
        ("stacked-digits-small", "high_quality", "this data has no modes in the plane"),
    ],
)
def test_refused_by_name_and_reason(name: str, measure: str, reason: str) -> None:
    found = refusal(recipe(name, measure))
    assert found.startswith(f"measures: can't be measured: {reason}") if reason else not found
    assert not reason or f"found '{measure}'" in found


def test_data_without_modes() -> None:
    assert "no modes to count" in refusal(recipe("ring", "modes", 'data={kind="swiss_roll"}'))


def test_what_is_not_refused_is_measured(tmp_path: Path) -> None:
    """The measures of a real run are those that are not refused."""
    names = sorted(MEASURES, key=lambda name: name != "fid")
    of = recipe("ring", "modes", "steps=2", "tricks=[]")
    whole = of.model_copy(update={"measure": of.measure.model_copy(update={"measures": tuple(names), "n": 300})})  # type: ignore[union-attr]
    train(whole, tmp_path)
    measured = json.loads((tmp_path / "measures.jsonl").read_text().splitlines()[-1])["measures"]
    allowed = {name for name in names if not refusal(recipe("ring", name))}
    of_samples = {"reverse_kl", "high_frequencies"}  # the samples decide: infinite without any mode; needs images
    assert allowed - measured.keys() <= of_samples
    assert measured.keys() <= allowed


def prepared(tmp_path: Path, *tips: dict[str, Any], **keys: Any) -> None:
    plan = plan_of(*tips, **keys)
    prepare(plan, tmp_path / "plan.toml", timing_file(plan, tmp_path / "timing.json", Options()), Options())


def test_a_study_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"ring, arm 'base': measures: can't be measured: .*'class_balance'"):
        prepared(tmp_path, tip(), base={"ring": RING | {"measures": ["modes", "class_balance"]}})
    with pytest.raises(RecipeError, match=r"ring, arm 'roll': measures: can't be measured: this data has no modes"):
        prepared(tmp_path, tip("roll", 'data={kind="swiss_roll"}'))


def test_missing_data_names_the_arm(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"plan.toml: ring, arm 'photos': data.path: no such file or folder"):
        prepared(tmp_path, tip("photos", 'data={kind="folder", path="/no/such"}'))


def test_a_plan_that_compares_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing to compare; ring: 'same' is the same recipe as 'base'"):
        prepared(tmp_path, tip("same", "tricks=[]"))
