"""Every shipped recipe at its true size: decodes, is no longer than a page, trains, resumes to the bit, samples."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import torch

from poise.recipe.fit import fit
from poise.recipe.model import Recipe
from poise.recipe.read import decode
from poise.recipe.shipped import names, table
from poise.recipe.text import parse
from poise.training import save
from poise.training.begin import train
from poise.training.run import Run

PROMISED = {
    *("gan", "dcgan", "minimax-dcgan", "lsgan", "wgan", "wgan-gp", "dragan", "hinge-sngan", "sagan"),
    *("ebgan", "began", "cgan", "acgan", "projection-gan", "r3gan", "ring", "grid"),
    *("autoencoder", "latent-optimisation", "vae", "vae-gan", "kl-gan"),
}
PAGE = 80

every = pytest.mark.parametrize("name", names())


def short(name: str, steps: int) -> Recipe:
    """The recipe as it is, but for the size of a batch, the length of the run, and how many samples are measured."""
    measure = table(name)["measure"] | {"n": 20}
    log = {"rows": 1, "samples": 2, "saves": 2, "keep": 2, "sheet": 4}
    return decode(table(name) | {"steps": steps, "batch": 4, "log": log, "measure": measure})


def test_all_promised_names_are_there() -> None:
    assert set(names()) >= PROMISED


@every
def test_is_a_page_that_says_what_it_is(name: str) -> None:
    text = (files("poise.recipes") / f"{name}.toml").read_text("utf-8")
    assert len(text.splitlines()) <= PAGE
    recipe = decode(table(name), name)
    assert recipe.name == name
    assert recipe.about
    assert decode(parse(recipe.to_toml(), name)) == recipe


@every
def test_fits_and_every_warning_is_meant(name: str) -> None:
    recipe = decode(table(name))
    loaded = recipe.data.load()
    findings = fit(recipe, loaded.train.shape, len(loaded.train.classes))
    assert findings.refusals == []
    text = (files("poise.recipes") / f"{name}.toml").read_text("utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert not findings.warnings or any("the check" in comment for comment in comments)


@every
def test_trains_resumes_to_the_bit_and_samples(name: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = train(short(name, 4), tmp_path / "whole", device="cpu", precision="fp32")
        train(short(name, 2), tmp_path / "half", device="cpu", precision="fp32")
        half = train(short(name, 4), tmp_path / "half", resume=True, device="cpu", precision="fp32")
    finally:
        torch.set_num_threads(threads)
    (one, _), (other, _) = (save.newest(run.folder.saves) for run in (whole, half))
    assert one is not None
    assert other is not None
    dials = 'over = "progress"' in short(name, 4).to_toml()  # these go by the length of a run, which was another
    if not dials:
        assert one.tensors.keys() == other.tensors.keys()
        assert [n for n in one.tensors if not torch.equal(one.tensors[n], other.tensors[n])] == []
    samples = Run(tmp_path / "half").sample(5, seed=1)
    assert samples.shape == (5, *whole.shape)
    assert torch.isfinite(samples).all()
    assert not torch.equal(samples[0], samples[1])
