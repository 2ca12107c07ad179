"""Everything that poise does on a GPU, checked and measured on one card; writes `gpu-report.json` and `gpu-report.md`.

    python benchmarks/gpu.py --out gpu-report      # --quick tries the rig on the CPU, without a card

recipes   Each shipped recipe takes three steps in fp32 and in bf16. Its numbers are finite; the peak memory is noted.
waiting   The same steps while every operation that waits for the card raises an error
          (`torch.cuda.set_sync_debug_mode`). A tempo that reads losses has to wait, and is left out.
resume    A run that is stopped and resumed ends with the same bits as an uninterrupted one, with deterministic
          algorithms and without TF32.
moving    A run of the CPU is continued on the card, and then on the CPU again.
speed     Images per second and peak memory on noise, by model, resolution and precision; the floating point operations
          of a step (counted by PyTorch) as a share of what the largest of some matrix products reaches in the same
          process. DCGAN-64 is compared with the hand-written loop of `throughput.py`, by turns.
feed      The time of a step with loading its samples, of loading alone, and of three ways to bring a batch of bytes to
          the device: from ordinary memory, from pinned memory as in poise, and by indexing data that is there.

A check that fails is reported, does not end the others, and gives the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic matrix products; read once by CUDA

import numpy as np
import torch

from _measuring import FlopCounter, peak_flops
from _training_loops import HandWritten, Samplers, dcgan
from poise.core.types import MoveContext, Side
from poise.data.source import DataSplits, ImageDataset
from poise.engine.compute import ComputeSettings, Precision
from poise.errors import Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table, recipe_names
from poise.recipe.toml import Table
from poise.runs import checkpoint, checkpoint_folder
from poise.training.listener import NullListener
from poise.training.state import TrainState
from poise.training.train import train
from poise.utils.images import send, to_float
from throughput import QUICK, Size, image_recipe

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
RESOLUTIONS = (32, 64, 128, 256)
MODELS = ("dcgan", "r3gan", "stylegan2")
PRODUCTS = (2048, 4096, 8192)
"""The sides of the square matrices whose product gives the peak."""

Result = dict[str, Any]


class Rig:
    """The device, and how thorough the checks are."""

    def __init__(self, device: torch.device, *, quick: bool) -> None:
        self.device, self.quick, self.cuda = device, quick, device.type == "cuda"

    def wait(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def forget_memory(self) -> None:
        """Start to measure the peak memory anew."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> float | None:
        """The most memory of the card since then, in MiB."""
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1) if self.cuda else None

    def seconds(self, function: Callable[[], object], repeats: int) -> float:
        """The median time of a function on the device, after two calls that do not count."""
        times = []
        for _ in range(repeats + 2):
            self.wait()
            start = time.perf_counter()
            function()
            self.wait()
            times.append(time.perf_counter() - start)
        return median(times[2:])

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        """Make every operation that waits for the card an error; without a card nothing waits."""
        if self.cuda:
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if self.cuda:
                torch.cuda.set_sync_debug_mode("default")


def shipped(name: str, *, quick: bool) -> Table:
    """The table of a recipe, without measures; narrow and with a small batch if `quick`."""
    table = load_table(name)
    table.pop("measure", None)
    if quick:
        table["batch"] = 8
        for network in table["network"].values():
            if isinstance(network, dict) and "width" in network:
                network["width"] = 4
    return table


def check_recipes(rig: Rig) -> Result:
    """See the module."""
    results: Result = {}
    for name in ["dcgan", "ring"] if rig.quick else recipe_names():
        recipe = decode(shipped(name, quick=rig.quick))
        data = recipe.data.load()
        for precision in PRECISIONS:
            rig.forget_memory()
            state = TrainState(recipe, ComputeSettings(rig.device, precision), data)
            for _ in range(3):
                state.step()
            if not state.step_metrics.all_finite():
                raise AssertionError(f"{name} in {precision}: a value is not finite")
            results[f"{name} {precision}"] = {"peak MiB": rig.peak_memory()}
    return results


def check_waiting(rig: Rig) -> Result:
    """See the module."""
    passed = []
    for name in ["dcgan", "ring"] if rig.quick else recipe_names():
        recipe = decode(shipped(name, quick=rig.quick))
        if recipe.tempo.tag() == "thresholds":
            continue
        state = TrainState(recipe, ComputeSettings(rig.device, "fp32"), recipe.data.load())
        state.step()  # kernels are chosen, and optimisers allocate their state
        with rig.no_waiting():
            for _ in range(5 if rig.quick else 70):  # in 70 steps the pending metrics are reduced once
                state.step()
        passed.append(name)
    return {"passed": passed}


class StopAfter(NullListener):
    """Stops a run after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, step: int) -> None:
        """See `ProgressListener`."""
        if step == self.steps:
            raise Stopped("the rig stops the run")


def short_recipe(steps: int, *, quick: bool) -> Recipe:
    """The default recipe, for a few steps."""
    log = {"to": [], "rows": 1, "saves": 1_000, "samples": 1_000, "sheet": 4}
    return decode(shipped("dcgan", quick=quick) | {"steps": steps, "log": log})


def tensors(folder: Path) -> bytes:
    """The tensors of the newest checkpoint."""
    saved = checkpoint_folder.newest_valid(folder / "saves")[0]
    assert saved is not None
    return (saved.path / checkpoint.TENSORS).read_bytes()


def check_resume(rig: Rig) -> Result:
    """See the module."""
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    steps, stopped_after = (4, 2) if rig.quick else (20, 9)
    recipe, device = short_recipe(steps, quick=rig.quick), str(rig.device)
    try:
        with TemporaryDirectory() as folder:
            whole, halves = Path(folder) / "whole", Path(folder) / "halves"
            train(recipe, whole, device=device, precision="fp32")
            try:
                train(recipe, halves, device=device, precision="fp32", listener=StopAfter(stopped_after))
            except Stopped:
                train(recipe, halves, resume=True, device=device, precision="fp32")
            if tensors(whole) != tensors(halves):
                raise AssertionError("the resumed run has other bits than the uninterrupted one")
    finally:
        torch.use_deterministic_algorithms(False)
    return {"steps": steps, "stopped after": stopped_after}


def check_moving(rig: Rig) -> Result:
    """See the module."""
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        for steps, device in ((2, "cpu"), (4, str(rig.device)), (6, "cpu")):
            recipe = short_recipe(steps, quick=rig.quick)
            train(recipe, run, resume=steps > 2, device=device, precision="fp32")
    return {"devices": ["cpu", str(rig.device), "cpu"]}


def model_state(name: str, side: int, precision: Precision, rig: Rig) -> TrainState:
    """The state of a recipe on colour noise."""
    table = shipped(name, quick=rig.quick) | {"data": {"kind": "folder", "path": "noise", "size": side}}
    recipe = decode(table)
    count = 2 * recipe.batch
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return TrainState(recipe, ComputeSettings(rig.device, precision), DataSplits(ImageDataset(noise)))


def check_speed(rig: Rig) -> Result:
    """See the module."""
    results: Result = {}
    for precision in PRECISIONS:
        dtype, sides = (torch.float32 if precision == "fp32" else torch.bfloat16), (256,) if rig.quick else PRODUCTS
        peak = peak_flops(dtype, sides, lambda product: rig.seconds(product, 5), rig.device)
        results[f"peak {precision}"] = {"TFLOP/s": round(peak / 1e12, 3)}
        for name in MODELS:
            for side in RESOLUTIONS[:1] if rig.quick else RESOLUTIONS:
                rig.forget_memory()
                state = model_state(name, side, precision, rig)
                with FlopCounter() as counter:
                    state.step()
                seconds = rig.seconds(state.step, 2 if rig.quick else 20)
                share = counter.get_total_flops() / seconds / peak
                results[f"{name} {side} {precision}"] = {
                    "images/s": round(state.recipe.batch / seconds, 1),
                    "share of peak": round(share, 3),
                    "peak MiB": rig.peak_memory(),
                }
    return results | compare_with_hand_written(rig)


def compare_with_hand_written(rig: Rig) -> Result:
    """DCGAN-64 beside the hand-written loop, by turns."""
    size = QUICK if rig.quick else Size()
    recipe, noise = image_recipe(size), np.random.default_rng(0).integers(0, 256, (size.images, 64, 64, 3), np.uint8)
    images, starts = torch.from_numpy(noise).to(rig.device), iter(range(10**9))
    nets = dcgan(size.width, fast=True)
    nets = type(nets)(*(net.to(rig.device) for net in nets))
    rows = torch.arange(size.batch, device=rig.device)
    samplers = Samplers(
        lambda: to_float(images[(rows + next(starts)) % size.images]),
        lambda: torch.randn(size.batch, recipe.latent.dim, device=rig.device),
    )
    hand = HandWritten(nets, samplers, recipe)
    state = TrainState(recipe, ComputeSettings(rig.device, "fp32"), DataSplits(ImageDataset(noise)))
    ratios = []
    for _ in range(2 if rig.quick else 9):
        by_hand = rig.seconds(lambda: hand.run(1), 1 if rig.quick else 10)
        ratios.append(rig.seconds(state.step, 1 if rig.quick else 10) / by_hand)
    return {"dcgan 64 fp32, step time / hand-written": {"median": round(median(ratios), 3), "range": spread(ratios)}}


def spread(values: list[float]) -> list[float]:
    """The smallest and the largest value."""
    return [round(min(values), 3), round(max(values), 3)]


def check_feed(rig: Rig) -> Result:
    """See the module."""
    state = model_state("dcgan", 32 if rig.quick else 64, "fp32", rig)
    recipe, steps = state.recipe, iter(range(10**9))

    def load() -> None:
        state.batches.load(MoveContext(next(steps), recipe.steps, recipe.batch, state.streams, Side.D))

    repeats = 2 if rig.quick else 50
    source = state.source
    assert isinstance(source, ImageDataset)
    images = torch.from_numpy(source.images)
    resident, rows = images.to(rig.device), torch.randperm(len(images))[: recipe.batch]
    ways: dict[str, Callable[[], object]] = {
        "step with loading": state.step,
        "loading": load,
        "ordinary memory": lambda: images[rows].to(rig.device, non_blocking=True),
        "pinned memory": lambda: send(images[rows], rig.device),
        "on the device already": lambda: resident[send(rows, rig.device)],
    }
    return {"ms": {name: round(1e3 * rig.seconds(way, repeats), 3) for name, way in ways.items()}}


CHECKS: dict[str, Callable[[Rig], Result]] = {
    "recipes": check_recipes,
    "waiting": check_waiting,
    "resume": check_resume,
    "moving": check_moving,
    "speed": check_speed,
    "feed": check_feed,
}


def environment(rig: Rig) -> Result:
    """The card and the libraries."""
    card = torch.cuda.get_device_properties(rig.device) if rig.cuda else None
    return {
        "card": card.name if card else "none",
        "memory MiB": card.total_memory // 2**20 if card else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if rig.cuda else None,
        "python": platform.python_version(),
        "TF32 of convolutions": torch.backends.cudnn.allow_tf32,
        "TF32 of matrix products": torch.backends.cuda.matmul.allow_tf32,
    }


def markdown(report: Result) -> str:
    """The report as a page."""
    lines = ["# GPU report", "", *(f"- {name}: {value}" for name, value in report["environment"].items())]
    for name, check in report["checks"].items():
        lines += ["", f"## {name}: {'passed' if check['passed'] else 'FAILED'} in {check['seconds']} s", ""]
        lines += [check["error"]] if not check["passed"] else []
        lines += [f"- {what}: {json.dumps(found)}" for what, found in check.get("results", {}).items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the checks and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--checks", default=",".join(CHECKS), help="separated by commas")
    parser.add_argument("--out", type=Path, help="the report, without suffix; by default it is only printed")
    parser.add_argument("--quick", action="store_true", help="few and narrow models on the CPU, which measures nothing")
    options = parser.parse_args()
    rig = Rig(torch.device("cpu" if options.quick else options.device), quick=options.quick)
    if rig.cuda and not torch.cuda.is_available():
        parser.error("no CUDA device is available; --device cpu tries the rig without one")
    report: Result = {"environment": environment(rig), "checks": {}}
    for name in options.checks.split(","):
        start, check = time.perf_counter(), report["checks"].setdefault(name, {})
        try:
            check |= {"results": CHECKS[name](rig), "passed": True}
        except Exception as error:
            traceback.print_exc()
            check |= {"error": f"{type(error).__name__}: {error}", "passed": False}
        check["seconds"] = round(time.perf_counter() - start, 1)
    page = markdown(report)
    print(page)
    if options.out is not None:
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        options.out.with_suffix(".md").write_text(page, "utf-8")
    if not all(check["passed"] for check in report["checks"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
