"""Whether what rebuilds pictures rebuilds them as it should, and how fast: three commands, each prints a table.

    python benchmarks/rebuilding.py pca                      an autoencoder against principal components, by dimension
    python benchmarks/rebuilding.py elbo --data-root DIR     a VAE's evidence lower bound on the complete MNIST
    python benchmarks/rebuilding.py speed                    a VAE beside a loop written by hand

`pca` trains an autoencoder on the 4,000 digits once for each dimension and measures both on the 1,000 that
are held out. `elbo` trains fully connected players on MNIST's 60,000 training pictures, black or white by chance and
anew each time (Salakhutdinov & Murray 2008), and measures the bound on the 10,000 of the test set, likewise binarised.
`speed` takes the same networks in both loops, in turn; the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from poise import train
from poise.engine.compute import ComputeSettings
from poise.measure.catalogue import select_measures
from poise.recipe.decode import decode
from poise.runs.evaluate import measure_run
from poise.training.state import TrainState

DIMS = (2, 4, 8, 16, 32, 64)
QUICK = ("--dims", "2", "--steps", "3", "--batch", "8")
"""What `--quick` stands for."""


def alone(objective: dict[str, Any], dim: int, batch: int) -> dict[str, Any]:
    """A decoder and an encoder on the embedded digits, written down here: a shipped recipe may change."""
    player = {"kind": "dcgan", "width": 32}
    return {
        "batch": batch,
        "data": {"kind": "digits", "size": 32},
        "latent": {"kind": "gaussian", "dim": dim},
        "network": {"g": player, "e": player},
        "objective": objective,
        "optimizer": {"g": {"kind": "adam", "lr": 1e-3, "betas": [0.9, 0.999]}},
        "tempo": {"kind": "alone"},
    }


PUBLISHED = """\
published, in nats (less is better):
  89.9         Rezende & Mohamed 2015, arXiv:1505.05770: -ELBO, diagonal covariance, 40 latents
  86.55        van den Berg et al. 2018, arXiv:1803.05649: -ELBO, gated convolutions, 64 latents
  86.76        Burda et al. 2016, arXiv:1509.00519: -log p from 5,000 draws, 50 latents, 2 x 200 units
"""


def against_pca(dims: list[int], steps: int, seed: int, batch: int) -> None:
    """Print held-out errors of both for each dimension."""
    print(f"mean squared error per number on held-out digits, {steps:,} steps of {batch}, seed {seed}\n")
    print(f"{'dimension':>9}  {'autoencoder':>11}  {'PCA':>7}  {'ratio':>5}  {'seconds':>7}")
    for dim in dims:
        recipe = alone({"kind": "reconstruction", "distance": "l2"}, dim, batch) | {"steps": steps, "seed": seed}
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            run = train(decode(recipe), Path(place) / "run", progress=False)
            seconds = time.perf_counter() - began
            told = measure_run(run, select_measures("reconstruction,pca_reconstruction"), features="pixels")[0].results
        ours, plane = (told[name].value.value for name in ("reconstruction", "pca_reconstruction"))
        print(f"{dim:>9}  {ours:>11.5f}  {plane:>7.5f}  {ours / plane:>5.2f}  {seconds:>7.0f}", flush=True)


def bound(data_root: Path, steps: int, seed: int, *, quick: bool) -> None:
    """Print the bound and its parts on MNIST's test set; if `quick`, on a hundred of the embedded digits."""
    mlp = {"kind": "mlp", "width": 500, "depth": 2}
    recipe: dict[str, Any] = {
        "name": "vae-mnist",
        "steps": steps,
        "seed": seed,
        "batch": 128,
        "data": {"kind": "digits", "size": 28} if quick else {"kind": "torchvision", "dataset": "MNIST", "size": 28},
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
        run = train(decode(recipe), Path(place) / "run", data_root=data_root, progress=False)
        seconds = time.perf_counter() - began
        wanted = select_measures("elbo,elbo_reconstruction,elbo_kl")
        told = measure_run(run, wanted, n=100 if quick else 10_000, features="pixels", data_root=data_root)[0].results
    print(f"binarised MNIST, 40 latents, 2 x 500 units, {steps:,} steps of 128, seed {seed}, {seconds:,.0f} s")
    for name in ("elbo", "elbo_reconstruction", "elbo_kl"):
        figure = told[name].value
        print(f"{name:>20}  {figure.value:8.2f} +- {figure.stderr:.2f} nats on the test set, one draw for each picture")
    print(f"\n{PUBLISHED}")


def speed(rounds: int, steps: int, batch: int) -> None:
    """Print how long a step takes in either loop, and the median of the rounds' ratios."""
    recipe = decode(alone({"kind": "elbo", "likelihood": "gaussian", "sigma": 0.7}, 32, batch) | {"steps": 1_000_000})
    loaded = recipe.data.load()
    ours = TrainState(recipe, ComputeSettings(torch.device("cpu"), "fp32"), loaded)
    theirs = TrainState(recipe, ComputeSettings(torch.device("cpu"), "fp32"), loaded)
    by_hand = hand_written(theirs, 0.7, batch)

    def poise() -> None:
        for _ in range(steps):
            ours.step()
        ours.step_metrics.reduce()

    loops: dict[str, Callable[[], None]] = {
        "poise": poise,
        "hand-written": lambda: [next(by_hand) for _ in range(steps)],
    }
    for loop in loops.values():
        loop()
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds):
        for name in (list(loops), list(loops)[::-1])[turn % 2]:
            began = time.perf_counter()
            loops[name]()
            times[name].append((time.perf_counter() - began) / steps)
    ratios = [a / b for a, b in zip(times["poise"], times["hand-written"], strict=True)]
    print(f"a VAE, batch {batch}, {rounds} rounds of {steps} steps in turn")
    for name, each in times.items():
        print(f"{name:>14}  {1000 * median(each):7.2f} ms a step")
    print(f"{'ratio':>14}  {median(ratios):7.3f} ({min(ratios):.2f} to {max(ratios):.2f})")


def hand_written(there: TrainState, sigma: float, batch: int) -> Iterator[None]:
    """The same VAE on the same networks, without anything around it; one step each time it is asked."""
    decoder, encoder = there.game.g.net, there.game.g.encoder
    assert encoder is not None
    pictures = there.source.images  # type: ignore[attr-defined]
    weights = [*decoder.parameters(), *encoder.parameters()]
    optimizer = torch.optim.Adam(weights, 1e-3, betas=(0.9, 0.999), fused=True)
    pool, generator = torch.from_numpy(pictures), torch.Generator().manual_seed(0)
    while True:
        for places in torch.randperm(len(pool), generator=generator).split(batch)[:-1]:
            real = pool[places].float().div_(127.5).sub_(1).permute(0, 3, 1, 2)
            mean, log_var = encoder.net(real).chunk(2, 1)  # type: ignore[operator]
            noise = torch.randn(mean.shape, generator=generator)
            rebuilt = decoder(mean + (0.5 * log_var).exp() * noise)
            missed = (rebuilt - real).square().sum() / (2 * sigma**2)
            apart = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
            optimizer.zero_grad(set_to_none=True)
            ((missed + apart) / len(real)).backward()
            optimizer.step()
            yield


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["pca", "elbo", "speed"])
    parser.add_argument("--dims", type=int, nargs="+", default=list(DIMS))
    parser.add_argument("--steps", type=int, help="default: 6,000, 60,000, and 20 in a round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--batch", type=int, default=64, help="of pca and speed")
    parser.add_argument("--quick", action="store_true", help="three small steps: not a measurement")
    given = parser.parse_args()
    if given.quick:
        given = parser.parse_args([given.what, *QUICK, "--quick"])
    print(f"{torch.get_num_threads()} threads")
    if given.what == "speed":
        speed(2 if given.quick else 11, given.steps or 20, given.batch)
    elif given.what == "pca":
        against_pca(given.dims, given.steps or 6_000, given.seed, given.batch)
    else:
        bound(given.data_root, given.steps or 60_000, given.seed, quick=given.quick)


if __name__ == "__main__":
    main()
