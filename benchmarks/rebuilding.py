"""Whether what rebuilds pictures rebuilds them as it should: two commands, each prints a table.

    python benchmarks/rebuilding.py pca                      an autoencoder against principal components, by dimension
    python benchmarks/rebuilding.py elbo --data-root DIR     a VAE's evidence lower bound on the complete MNIST

`pca` trains the recipe `autoencoder` on the 4,000 digits once for each dimension and measures both on the 1,000 that
are held out. `elbo` trains fully connected players on MNIST's 60,000 training pictures, black or white by chance and
anew each time (Salakhutdinov & Murray 2008), and measures the bound on the 10,000 of the test set, likewise binarised.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from poise import train
from poise.measure.catalogue import chosen
from poise.recipe.read import decode
from poise.recipe.shipped import table
from poise.training.measuring import measure_run

DIMS = (2, 4, 8, 16, 32, 64)

PUBLISHED = """\
published, in nats (less is better):
  89.9         Rezende & Mohamed 2015, arXiv:1505.05770, table 3: -ELBO, diagonal covariance, 40 latents
  86.55        van den Berg et al. 2018, arXiv:1803.05649, table 1: -ELBO, gated convolutions, 64 latents
  86.76        Burda et al. 2016, arXiv:1509.00519, table 1: -log p from 5,000 draws, 50 latents, 2 x 200 units
"""


def against_pca(dims: list[int], steps: int, seed: int) -> None:
    """Print held-out errors of both for each dimension."""
    print(f"mean squared error per number on held-out digits, {steps:,} steps of 64, seed {seed}\n")
    print(f"{'dimension':>9}  {'autoencoder':>11}  {'PCA':>7}  {'ratio':>5}  {'seconds':>7}")
    for dim in dims:
        recipe = table("autoencoder") | {"steps": steps, "seed": seed, "latent": {"kind": "gaussian", "dim": dim}}
        del recipe["measure"]
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            run = train(decode(recipe), Path(place) / "run")
            seconds = time.perf_counter() - began
            told = measure_run(run, chosen("reconstruction,pca_reconstruction"))[0].told
        ours, plane = (told[name].figure.value for name in ("reconstruction", "pca_reconstruction"))
        print(f"{dim:>9}  {ours:>11.5f}  {plane:>7.5f}  {ours / plane:>5.2f}  {seconds:>7.0f}", flush=True)


def bound(data_root: Path, steps: int, seed: int) -> None:
    """Print the bound and its parts on MNIST's test set."""
    mlp = {"kind": "mlp", "width": 500, "depth": 2}
    recipe: dict[str, Any] = {
        "name": "vae-mnist",
        "steps": steps,
        "seed": seed,
        "batch": 128,
        "data": {"kind": "torchvision", "dataset": "MNIST", "size": 28},
        "latent": {"kind": "gaussian", "dim": 40},
        "network": {"g": mlp, "e": mlp},
        "objective": {"kind": "elbo", "likelihood": "bernoulli"},
        "optimizer": {
            "g": {"kind": "adam", "lr": {"kind": "linear", "start": 1e-3, "end": 1e-4}, "betas": [0.9, 0.999]}
        },
        "tempo": {"kind": "alone"},
        "log": {"rows": 500, "samples": 10_000, "saves": 10_000},
    }
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        run = train(decode(recipe), Path(place) / "run", data_root=data_root)
        seconds = time.perf_counter() - began
        wanted = chosen("elbo,elbo_reconstruction,elbo_kl")
        told = measure_run(run, wanted, n=10_000, features="pixels", data_root=data_root)[0].told
    print(f"binarised MNIST, 40 latents, 2 x 500 units, {steps:,} steps of 128, seed {seed}, {seconds:,.0f} s")
    for name in ("elbo", "elbo_reconstruction", "elbo_kl"):
        figure = told[name].figure
        print(f"{name:>20}  {figure.value:8.2f} +- {figure.stderr:.2f} nats on the test set, one draw for each picture")
    print(f"\n{PUBLISHED}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["pca", "elbo"])
    parser.add_argument("--dims", type=int, nargs="+", default=list(DIMS))
    parser.add_argument("--steps", type=int, help="default: 6,000 and 60,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    if given.what == "pca":
        against_pca(given.dims, given.steps or 6_000, given.seed)
    else:
        bound(given.data_root, given.steps or 60_000, given.seed)


if __name__ == "__main__":
    main()
