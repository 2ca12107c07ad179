"""What a large run would take on 1, 8 and 64 GPUs, from counted operations and a model of the communication.

    python benchmarks/scale.py count     # counts the operations of a step of large recipes; minutes
    python benchmarks/scale.py check     # the model on one and two ranks of this machine's cores; minutes
    python benchmarks/scale.py table     # the tables of docs/scale.md, from scale.json

`count` and `check` write what they find to scale.json, and all of them write the tables of docs/scale.md, unless
`--quick` is given, which runs everything for a moment.

The model. A step of a batch of B images on n ranks takes

    T(n) = max(F B / (n s P), k h) + sum over moves of a(4 W, n),    a(S, n) = 2 (n - 1) l + 2 (n - 1) / n S / b

F floating point operations per image, on a device that can do P per second and reaches a share s of that; k operations
of a step, each of which keeps the host busy for h seconds; W weights of the player that moves, whose gradients are sent
as float32 in one all-reduce a(S, n) of S bytes, with the latency l and the bandwidth b of a link (a ring all-reduce:
Patarasuk & Yuan 2009, doi 10.1016/j.jpdc.2008.09.002).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import distributed as dist

from _measuring import FlopCounter, OperationCounter, replace_block, timed
from poise.core import double_backward
from poise.core.process_ranks import connected_ranks
from poise.core.ranks import ALONE, Ranks
from poise.core.types import Side
from poise.data.source import DataSplits, ImageDataset
from poise.engine.compute import ComputeSettings
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value
from poise.training.state import TrainState
from ranks import free_port

RESULTS = Path(__file__).with_name("scale.json")
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
CPU = torch.device("cpu")


class Link(NamedTuple):
    """What connects the ranks: the latency of a message in seconds, and the bandwidth in bytes per second."""

    latency: float
    bandwidth: float


class Run(NamedTuple):
    """A run whose cost is estimated: a recipe with changes, its images in all, and what was published about it."""

    title: str
    recipe: str
    side: int
    batch: int
    images: int
    changes: tuple[str, ...]


def sizes_of_networks(width: int, widest: int) -> tuple[str, ...]:
    """The changes that give both networks these widths, at full size and at most."""
    return tuple(f"network.{side}.{name}={n}" for side in "gd" for name, n in (("width", width), ("widest", widest)))


PUBLISHED_BLOCKS = tuple(f"network.{side}.{name}=2" for side in "gd" for name in ("blocks", "expansion"))
"""The changes that give both R3GANs the blocks of the paper."""

RUNS = {
    "stylegan2-256": Run(
        "FFHQ-256, StyleGAN2 as StyleGAN2-ADA's `auto` has it",
        "stylegan2",
        256,
        64,
        25_000_000,
        (*sizes_of_networks(64, 512), "network.g.style_dim=512", "latent.dim=512"),
    ),
    "r3gan-256": Run(
        "FFHQ-256, R3GAN with the authors' widths",
        "r3gan",
        256,
        256,
        150_000_000,
        (*sizes_of_networks(96, 768), *PUBLISHED_BLOCKS),
    ),
    "r3gan-64": Run(
        "ImageNet-64, R3GAN with the authors' widths",
        "r3gan",
        64,
        4096,
        1_000_000_000,
        (*sizes_of_networks(1536, 1536), *PUBLISHED_BLOCKS, "network.g.group=32", "network.d.group=32"),
    ),
    "r3gan-32": Run(
        "Stacked MNIST, R3GAN with the authors' widths for 32 pixels",
        "r3gan",
        32,
        512,
        10_000_000,
        (*sizes_of_networks(768, 768), *PUBLISHED_BLOCKS),
    ),
}
"""FFHQ-256: Karras et al. 2020 (arXiv:2006.06676) show 25 million images. Of R3GAN (Huang et al. 2024,
arXiv:2501.05441) widths, groups and batches are those of the authors' code, whose networks also read the label where
there is one. The paper's table 9 has 10 million images for Stacked MNIST and, as its issue 18 quotes it, 1,000 million
for ImageNet; 150 million for FFHQ are an assumption."""


ESTIMATED = ("stylegan2-256", "r3gan-256", "r3gan-64")
"""The runs whose cost is estimated; the other one is only compared with what its authors measured."""


class Published(NamedTuple):
    """How long others have trained one of these networks: `images` in `seconds` on `ranks` devices."""

    run: str
    source: str
    ranks: int
    device: str
    peak: float
    images: int
    seconds: float


V100, L40 = ("V100", 125e12), ("L40", 181e12)
PUBLISHED = (
    Published("stylegan2-256", "StyleGAN2-ADA's README, 21.6 to 24.2 s per 1,000 images", 1, *V100, 1_000, 22.9),
    Published("stylegan2-256", "the same, 5.6 to 5.9 s", 4, *V100, 1_000, 5.75),
    Published("stylegan2-256", "the same, 4.4 to 5.5 s", 8, *V100, 1_000, 4.95),
    Published("r3gan-32", "R3GAN's table 9, Stacked MNIST: 7 h", 8, *L40, 10_000_000, 7 * 3600),
    Published("r3gan-32", "R3GAN's issue 19, CIFAR-10: 4 days", 8, *L40, 250_000_000, 4 * 86400),
)
"""What has been published about these networks, and half-precision operations per second from NVIDIA's data sheets.

The networks of the last two have the same widths; that for CIFAR-10 also reads labels and augments its images."""

DEVICES = {"A100": 312e12, "H100": 989e12}
"""Dense bfloat16 operations per second, from NVIDIA's data sheets."""

SHARES = (0.08, 0.3)
"""Assumed shares of the peak that a step reaches, a low and a high one."""

LINKS = {1: Link(0.0, float("inf")), 8: Link(15e-6, 200e9), 64: Link(30e-6, 25e9)}
"""Assumed links by the number of GPUs: NVLink within a machine; 200 Gbit/s per GPU between machines."""

HOST_SECONDS = 8e-6
"""Assumed time of the host per operation that it sends to a GPU."""

ROUNDS = 7
"""How often the model is compared with what two ranks take."""

SAMPLES = 4
"""The batch that operations are counted with; those per image do not depend on it."""


def all_reduce_seconds(size: float, ranks: int, link: Link) -> float:
    """a(S, n) of the module: the time to average `size` bytes over `ranks` in a ring."""
    if ranks == 1:
        return 0.0
    return 2 * (ranks - 1) * link.latency + 2 * (ranks - 1) / ranks * size / link.bandwidth


def step_seconds(compute: float, host: float, sizes: Sequence[float], ranks: int, link: Link) -> float:
    """T(n) of the module, from the time of the computation on one rank's part, that of the host, and the gradients."""
    return max(compute, host) + sum(all_reduce_seconds(size, ranks, link) for size in sizes)


def large_recipe(run: Run, batch: int) -> Recipe:
    """The recipe of a run, on colour images."""
    table = load_table(run.recipe)
    table.pop("measure", None)
    table["data"] = {"kind": "folder", "path": "noise", "size": run.side}
    for change in (*run.changes, f"batch={batch}"):
        set_value(table, change)
    return decode(table)


def noise(count: int, side: int, channels: int = 3) -> DataSplits:
    """Images of colour noise."""
    return DataSplits(ImageDataset(np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)))


def count_operations(run: Run) -> dict[str, Any]:
    """Operations and weights of a step, averaged over 16 steps, which is the longest interval of a lazy penalty."""
    double_backward.FASTER = ()  # as on a GPU, which needs no products in the place of its kernels
    state = TrainState(large_recipe(run, SAMPLES), ComputeSettings(CPU, "fp32"), noise(2 * SAMPLES, run.side))
    terms = [trick for trick in state.game.tricks.values() if hasattr(trick, "every")]
    known: dict[tuple[bool, ...], tuple[float, int]] = {}
    flops, operations = 0.0, 0
    for step in range(16):
        due = tuple(step % trick.every == 0 for trick in terms)
        if due not in known:
            state.steps_done = step
            with FlopCounter() as counter, OperationCounter() as counted:
                state.step()
            known[due] = (counter.get_total_flops() / SAMPLES, counted.count)
        flops, operations = flops + known[due][0] / 16, operations + known[due][1]
    weights = {str(side): sum(w.numel() for w in player.weights) for side, player in state.game.players.items()}
    return {"flops_per_image": flops, "operations": round(operations / 16), "weights": weights}


def estimate(run: Run, counted: Mapping[str, Any], peak: float, share: float, ranks: int) -> float:
    """The seconds of a whole run on some GPUs."""
    compute = counted["flops_per_image"] * run.batch / ranks / (share * peak)
    sizes = [4 * weights for weights in counted["weights"].values()]
    step = step_seconds(compute, counted["operations"] * HOST_SECONDS, sizes, ranks, LINKS[ranks])
    return step * run.images / run.batch


def small_state(name: str, batch_divisor: int, ranks: Ranks) -> TrainState:
    """The state of a shipped recipe, with its own data and a part of its batch."""
    table = load_table(name)
    table["batch"] //= batch_divisor
    recipe = decode(table)
    return TrainState(recipe, ComputeSettings(CPU, "fp32"), recipe.data.load(), ranks=ranks)


def worker(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a process measures: all-reduces of several sizes, or the steps of a recipe alone or on several ranks."""
    torch.set_num_threads(1)
    if job["kind"] == "links":
        with connected_ranks("cpu"):
            found = {}
            for size in job["sizes"]:
                values = torch.zeros(size)
                timed(lambda values=values: dist.all_reduce(values), 3)
                found[4 * size] = median(timed(lambda values=values: dist.all_reduce(values), job["repeats"]))
            return {"seconds": found}
    if job["kind"] == "ranks":
        with connected_ranks("cpu") as (ranks, _):
            state = small_state(job["recipe"], 1, ranks)
            timed(state.step, 3)
            return {"step": median(timed(state.step, job["repeats"]))}
    state = small_state(job["recipe"], job["divisor"], ALONE)
    timed(state.step, 3)
    weights = [sum(w.numel() for w in state.game.players[side].weights) for side in Side]
    return {"step": median(timed(state.step, job["repeats"])), "weights": weights}


def work(job: Mapping[str, Any], environment: Mapping[str, str], results: Connection) -> None:
    """In a process of its own: send the results of `worker`."""
    os.environ.update(environment)
    results.send(worker(job))


def play(job: Mapping[str, Any], processes: int, *, connected: bool) -> dict[str, Any]:
    """The result of the first of some processes that do the same job at the same time."""
    context, port, started = get_context("fork"), free_port(), []
    for rank in range(processes):
        launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        environment = {name: str(value) for name, value in launched.items()} if connected else {}
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(job, environment | {"MASTER_ADDR": "127.0.0.1"}, sending))
        process.start()
        sending.close()
        started.append((process, receiving))
    results = [receiving.recv() for _, receiving in started]  # an error if a process ends without any
    for process, _ in started:
        process.join()
    return results[0]


def fit_link(seconds: Mapping[str, float], ranks: int) -> Link:
    """The link whose model is nearest to measured all-reduces, by least squares of relative errors."""
    sizes, times = (np.array([float(x) for x in column]) for column in (list(seconds), list(seconds.values())))
    columns = np.stack((np.full_like(sizes, 2 * (ranks - 1)), 2 * (ranks - 1) / ranks * sizes), 1) / times[:, None]
    latency, inverse = np.linalg.lstsq(columns, np.ones_like(times), rcond=None)[0]
    return Link(float(latency), float(1 / inverse))


def check_model(recipe: str, repeats: int, rounds: int, link: Link) -> dict[str, list[float]]:
    """See `check_once`; one value per round."""
    found = [check_once(recipe, repeats, link) for _ in range(rounds)]
    return {name: [one[name] for one in found] for name in found[0]}


def check_once(recipe: str, repeats: int, link: Link) -> dict[str, float]:
    """The predicted and the measured time of a step on two ranks, and what the prediction is made of, in seconds."""
    alone = {"kind": "alone", "recipe": recipe, "divisor": 2, "repeats": repeats}
    whole = play({**alone, "divisor": 1}, 1, connected=False)
    half, both = play(alone, 1, connected=False), play(alone, 2, connected=False)
    measured = play({"kind": "ranks", "recipe": recipe, "repeats": repeats}, 2, connected=True)
    sizes = [4.0 * weights for weights in half["weights"]]
    predicted = step_seconds(both["step"], 0.0, sizes, 2, link)
    return {
        "one rank": whole["step"],
        "half the batch": half["step"],
        "half the batch, twice at the same time": both["step"],
        "all-reduces": predicted - both["step"],
        "predicted": predicted,
        "measured": measured["step"],
    }


def run_table(counted: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of runs as markdown."""
    lines = [
        "| run | images | GFLOP per image | weights of G, D | operations per step | GPU | 1 GPU | 8 GPUs | 64 GPUs |"
    ]
    lines.append("|" + "---|" * 9)
    for name in ESTIMATED:
        run, found = RUNS[name], counted[name]
        weights = ", ".join(f"{found['weights'][side] / 1e6:.0f} M" for side in ("g", "d"))
        for device, peak in DEVICES.items():
            cells = []
            for ranks in LINKS:
                slow, fast = (estimate(run, found, peak, share, ranks) / 86400 for share in SHARES)
                cells.append(f"{fast:.1f} to {slow:.1f} days" if slow - fast > 0.05 else f"{fast:.1f} days")
            first = (
                f"| {run.title}, batch {run.batch} | {run.images / 1e6:.0f} M | {found['flops_per_image'] / 1e9:.0f}"
            )
            lines.append(f"{first} | {weights} | {found['operations']:,} | {device} | {' | '.join(cells)} |")
    return "\n".join(lines)


def implied_share(published: Published, counted: Mapping[str, Any]) -> float:
    """The share s of the peak that a published time means, for the operations that poise counts."""
    rate = published.images / published.seconds / published.ranks
    return rate * counted["flops_per_image"] / published.peak


def published_table(counted: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of what others measured, as markdown."""
    lines = ["| network | measured | GPUs | images/s and GPU | share of the peak |", "|" + "---|" * 5]
    for found in PUBLISHED:
        rate = found.images / found.seconds / found.ranks
        cells = f"{found.ranks} x {found.device} | {rate:,.0f} | {implied_share(found, counted[found.run]):.0%}"
        lines.append(f"| {found.run} | {found.source} | {cells} |")
    return "\n".join(lines)


def check_table(checked: Mapping[str, Mapping[str, Sequence[float]]], link: Link) -> str:
    """The table of the check as markdown: medians over the rounds, and the range of the ratios."""
    names = list(next(iter(checked.values())))
    lines = [f"| recipe | {' | '.join(names)} | measured / predicted |", "|" + "---|" * (len(names) + 2)]
    for recipe, found in checked.items():
        cells = " | ".join(f"{1000 * median(found[name]):.1f} ms" for name in names)
        ratios = [a / b for a, b in zip(found["measured"], found["predicted"], strict=True)]
        lines.append(f"| `{recipe}` | {cells} | {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] |")
    fitted = f"gloo on this machine: latency {1e6 * link.latency:.0f} µs, bandwidth {link.bandwidth / 1e9:.2f} GB/s"
    return "\n".join([*lines, "", f"The link, fitted to all-reduces of 4 bytes to 32 MB: {fitted}."])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("count", "check", "table"))
    parser.add_argument("--quick", action="store_true", help="everything for a moment, which measures nothing")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if options.what == "count":
        runs = {"quick": RUNS["stylegan2-256"]._replace(side=16)} if options.quick else RUNS
        results["count"] = {name: count_operations(run) for name, run in runs.items()}
        print(json.dumps(results["count"]))
    if options.what == "check":
        sizes, repeats = ([1, 1000], 2) if options.quick else ([1, 10**3, 10**4, 10**5, 10**6, 8 * 10**6], 30)
        found = play({"kind": "links", "sizes": sizes, "repeats": repeats}, 2, connected=True)["seconds"]
        link = fit_link(found, 2)
        recipes = {"ring": 2} if options.quick else {"dcgan": 30, "ring": 400}
        rounds = 1 if options.quick else ROUNDS
        checked = {recipe: check_model(recipe, count, rounds, link) for recipe, count in recipes.items()}
        results["check"] = {"all-reduce": found, "link": link._asdict(), "steps": checked}
        print(check_table(checked, link))
    if not options.quick:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        page = PAGE.read_text("utf-8")
        if "count" in results:
            page = replace_block(page, "runs", run_table(results["count"]))
            page = replace_block(page, "published", published_table(results["count"]))
        if "check" in results:
            page = replace_block(
                page, "check", check_table(results["check"]["steps"], Link(**results["check"]["link"]))
            )
        PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
