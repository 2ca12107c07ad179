"""The reconstruction error, evidence lower bound and speed of autoencoders. Each command prints a table.

    python benchmarks/reconstruction.py pca                      an autoencoder and PCA, by dimension
    python benchmarks/reconstruction.py elbo --data-root DIR     a VAE's evidence lower bound on the complete MNIST
    python benchmarks/reconstruction.py speed                    a VAE and a hand-written training loop

`pca` trains an autoencoder on the 4,000 training digits for each dimension and measures it and PCA on the 1,000
held-out digits. `elbo` trains fully connected networks on MNIST's 60,000 training images, which are stochastically
binarised anew each time (Salakhutdinov & Murray 2008), and measures the bound on the 10,000 test images, binarised in
the same way. `speed` runs the same networks in both loops, alternately, and prints the median ratio over rounds.
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
"""The options of `--quick`."""


def make_recipe(objective: dict[str, Any], dim: int, batch: int) -> dict[str, Any]:
    """An encoder and a decoder on the embedded digits; defined here, as shipped recipes may change."""
    network = {"kind": "dcgan", "width": 32}
    return {
        "batch": batch,
        "data": {"kind": "digits", "size": 32},
        "latent": {"kind": "gaussian", "dim": dim},
        "network": {"g": network, "e": network},
        "objective": objective,
        "optimizer": {"g": {"kind": "adam", "lr": 1e-3, "betas": [0.9, 0.999]}},
        "tempo": {"kind": "alone"},
    }


PUBLISHED = """\
published, in nats (lower is better):
  89.9         Rezende & Mohamed 2015, arXiv:1505.05770: -ELBO, diagonal covariance, 40 latents
  86.55        van den Berg et al. 2018, arXiv:1803.05649: -ELBO, gated convolutions, 64 latents
  86.76        Burda et al. 2016, arXiv:1509.00519: -log p from 5,000 samples, 50 latents, 2 x 200 units
"""


def compare_with_pca(dims: list[int], steps: int, seed: int, batch: int) -> None:
    """Print the held-out errors of an autoencoder and of PCA for each dimension."""
    print(f"mean squared error per pixel on held-out digits, {steps:,} steps of {batch}, seed {seed}\n")
    print(f"{'dimension':>9}  {'autoencoder':>11}  {'PCA':>7}  {'ratio':>5}  {'seconds':>7}")
    for dim in dims:
        recipe = make_recipe({"kind": "reconstruction", "distance": "l2"}, dim, batch) | {"steps": steps, "seed": seed}
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run = train(decode(recipe), Path(folder) / "run", progress=False)
            seconds = time.perf_counter() - start
            measures = select_measures("reconstruction,pca_reconstruction")
            results = measure_run(run, measures, features="pixels")[0].results
        error, pca = (results[name].value.value for name in ("reconstruction", "pca_reconstruction"))
        print(f"{dim:>9}  {error:>11.5f}  {pca:>7.5f}  {error / pca:>5.2f}  {seconds:>7.0f}", flush=True)


def print_elbo(data_root: Path, steps: int, seed: int, *, quick: bool) -> None:
    """Print the bound and its terms on MNIST's test set; if `quick`, on a hundred of the embedded digits."""
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
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = train(decode(recipe), Path(folder) / "run", data_root=data_root, progress=False)
        seconds = time.perf_counter() - start
        measures = select_measures("elbo,elbo_reconstruction,elbo_kl")
        n = 100 if quick else 10_000
        results = measure_run(run, measures, n=n, features="pixels", data_root=data_root)[0].results
    print(f"binarised MNIST, 40 latents, 2 x 500 units, {steps:,} steps of 128, seed {seed}, {seconds:,.0f} s")
    for name in ("elbo", "elbo_reconstruction", "elbo_kl"):
        value = results[name].value
        print(f"{name:>20}  {value.value:8.2f} +- {value.stderr:.2f} nats, test set, one sample of z for each image")
    print(f"\n{PUBLISHED}")


def speed(rounds: int, steps: int, batch: int) -> None:
    """Print the time of a step in both loops, and the median ratio over rounds."""
    recipe = decode(
        make_recipe({"kind": "elbo", "likelihood": "gaussian", "sigma": 0.7}, 32, batch) | {"steps": 1_000_000}
    )
    data, compute = recipe.data.load(), ComputeSettings(torch.device("cpu"), "fp32")
    state = TrainState(recipe, compute, data)
    by_hand = hand_written(TrainState(recipe, compute, data), 0.7, batch)

    def poise() -> None:
        for _ in range(steps):
            state.step()
        state.step_metrics.reduce()

    loops: dict[str, Callable[[], None]] = {
        "poise": poise,
        "hand-written": lambda: [next(by_hand) for _ in range(steps)],
    }
    for loop in loops.values():
        loop()
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds):
        for name in (list(loops), list(loops)[::-1])[turn % 2]:
            start = time.perf_counter()
            loops[name]()
            times[name].append((time.perf_counter() - start) / steps)
    ratios = [a / b for a, b in zip(times["poise"], times["hand-written"], strict=True)]
    print(f"a VAE, batch {batch}, {rounds} rounds of {steps} steps, alternately")
    for name, seconds in times.items():
        print(f"{name:>14}  {1000 * median(seconds):7.2f} ms/step")
    print(f"{'ratio':>14}  {median(ratios):7.3f} ({min(ratios):.2f} to {max(ratios):.2f})")


def hand_written(state: TrainState, sigma: float, batch: int) -> Iterator[None]:
    """A minimal training loop of a VAE with the networks of `state`; each `next` takes one step."""
    decoder, encoder = state.game.g.net, state.game.g.encoder
    assert encoder is not None
    images = state.source.images  # type: ignore[attr-defined]
    weights = [*decoder.parameters(), *encoder.parameters()]
    optimizer = torch.optim.Adam(weights, 1e-3, betas=(0.9, 0.999), fused=True)
    pixels, generator = torch.from_numpy(images), torch.Generator().manual_seed(0)
    while True:
        for indices in torch.randperm(len(pixels), generator=generator).split(batch)[:-1]:
            real = pixels[indices].float().div_(127.5).sub_(1).permute(0, 3, 1, 2)
            mean, log_var = encoder.net(real).chunk(2, 1)  # type: ignore[operator]
            noise = torch.randn(mean.shape, generator=generator)
            reconstruction = decoder(mean + (0.5 * log_var).exp() * noise)
            error = (reconstruction - real).square().sum() / (2 * sigma**2)
            kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
            optimizer.zero_grad(set_to_none=True)
            ((error + kl) / len(real)).backward()
            optimizer.step()
            yield


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["pca", "elbo", "speed"])
    parser.add_argument("--dims", type=int, nargs="+", default=list(DIMS))
    parser.add_argument("--steps", type=int, help="default: 6,000 for pca, 60,000 for elbo, 20 per round for speed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--batch", type=int, default=64, help="the batch size of pca and speed")
    parser.add_argument("--quick", action="store_true", help="three small steps; not a measurement")
    args = parser.parse_args()
    if args.quick:
        args = parser.parse_args([args.command, *QUICK, "--quick"])
    print(f"{torch.get_num_threads()} threads")
    if args.command == "speed":
        speed(2 if args.quick else 11, args.steps or 20, args.batch)
    elif args.command == "pca":
        compare_with_pca(args.dims, args.steps or 6_000, args.seed, args.batch)
    else:
        print_elbo(args.data_root, args.steps or 60_000, args.seed, quick=args.quick)


if __name__ == "__main__":
    main()
