"""One rung, measured and drawn: what the report shows of it, put into `RUN/ladder/` beside what it was made from.

figures.json          measures of samples and of rebuilt pictures, the spectrum, how codes lie
samples.png           latents from the prior
fitted.png            latents from the Gaussian that fits the codes of training pictures (where there are codes)
rebuilt.png           held-out pictures above what is made of their codes
lerp.png, slerp.png   walks by line and by great circle: between real pictures' codes, or between latents
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.data.source import DataSplits, SizedSource
from poise.latents import lerp, slerp
from poise.measure.catalogue import EvaluationResult, select_measures
from poise.measure.spectrum import radial_power, spectrum
from poise.runs.encode import encode_training_samples, make_reconstructor
from poise.runs.evaluate import measure_run
from poise.runs.generate import generate
from poise.runs.run import Run
from poise.utils.files import make_folder, write_json
from poise.utils.image_grid import sample_grid, write_png
from poise.utils.images import to_float
from poise.utils.progress import Progress, no_progress
from poise.utils.system import disk_errors

SAMPLES = "fid", "kid", "precision", "recall", "density", "coverage", "class_balance", "high_frequencies"
REBUILT = "reconstruction", "pca_reconstruction", "elbo", "elbo_reconstruction", "elbo_kl"
COLUMNS, WALKS, STEPS = 12, 6, 10
CODES = 5_000
"""Training pictures whose codes are looked at."""

RIDGE, TINY = 1e-6, 1e-12
"""Added to the codes' variances, a share of their mean and at least so much: a direction that no code uses has a square
root too."""


def evaluate_rung(run: Run, *, data_root: Path | None = None, progress: Progress = no_progress) -> None:
    """Measure and draw, unless that has been done for this save.

    Raises:
        DataError: the data is not there, or has changed.
    """
    place = run.path / "ladder"
    figures = place / "figures.json"
    if _looked_at(figures) == run.checkpoint.step:
        return
    loaded = run.load(data_root)
    progress(f"looking at {run.recipe.name}", 0.0)
    result, bench = measure_run(run, select_measures([*SAMPLES, *REBUILT]), data_root=data_root, progress=progress)
    with disk_errors(place):
        make_folder(place)
    sheets = {"samples": run.sample(COLUMNS * COLUMNS // 2)}
    told: dict[str, Any] = {
        "step": run.checkpoint.step,
        "measures": _told(result),
        "n": result.n,
        "features": result.features,
    }
    told["spectrum"] = {"real": spectrum(bench.real).tolist(), "samples": radial_power(run.sample(bench.n)).tolist()}
    if run.recipe.network.e is not None and isinstance(loaded.train, SizedSource):
        told["codes"], fitted = _codes(run, loaded.train)
        made = _maker(run, raw=True)
        sheets["fitted"] = made(fitted(COLUMNS * COLUMNS // 2))
        again = bench.measure(lambda n: made(fitted(n)), select_measures(SAMPLES))
        told["fitted"], told["spectrum"]["fitted"] = _told(again), radial_power(made(fitted(bench.n))).tolist()
    sheets |= _rebuilt(run, loaded) | _walks(run, loaded)
    for name, samples in sheets.items():
        columns = STEPS if name in ("lerp", "slerp") else COLUMNS
        write_png(sample_grid(samples, None, columns, alpha=run.alpha), place / f"{name}.png")
    write_json(figures, told)


def _looked_at(figures: Path) -> int | None:
    """The step that was looked at last, as far as that can be read."""
    try:
        return json.loads(figures.read_text("utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _told(result: EvaluationResult) -> dict[str, Any]:
    return result.as_json()["measures"]


def _maker(run: Run, *, raw: bool) -> Callable[[Tensor], Tensor]:
    """What G makes of latents: the live one, which the encoder belongs to, or the one that samples come from."""
    net, streams = run.generator(raw=raw), RandomStreams(0)
    return lambda latents: generate(net, latents, streams=streams)


def _codes(run: Run, train: SizedSource) -> tuple[dict[str, Any], Callable[[int], Tensor]]:
    """How the codes of training pictures lie, and what draws from the Gaussian that fits them."""
    codes = encode_training_samples(run, train, train.evenly_spaced(CODES)).latents.double()
    mean, covariance = codes.mean(0), torch.cov(codes.T)
    root = torch.linalg.cholesky(
        covariance + (RIDGE * covariance.diagonal().mean()).clamp_min(TINY) * torch.eye(len(mean), dtype=torch.float64)
    )
    spread = covariance.diagonal().sqrt()
    told = {
        "mean_length": float(mean.norm()),
        "std": [float(spread.min()), float(spread.median()), float(spread.max())],
        "length": float(codes.norm(dim=1).median()),
        "prior_length": float(run.latents(len(codes)).norm(dim=1).median()),
    }

    def draw_codes(n: int) -> Tensor:
        z = torch.randn(n, len(mean), generator=RandomStreams(0)("ladder/fitted"), dtype=torch.float64)
        return run.recipe.latent.project((mean + z @ root.T).float())

    return told, draw_codes


def _rebuilt(run: Run, loaded: DataSplits) -> dict[str, Tensor]:
    """Held-out pictures, and below each row of them what is made of their codes."""
    able = make_reconstructor(run.recipe, run.game, RandomStreams(0))
    source = loaded.held_out if isinstance(loaded.held_out, SizedSource) else loaded.train
    if able is None or not isinstance(source, SizedSource):
        return {}
    real = to_float(source.gather(source.evenly_spaced(2 * COLUMNS)).images)
    rows = zip(real.split(COLUMNS), able.reconstruct(real).split(COLUMNS), strict=True)
    return {"rebuilt": torch.cat([pile for row in rows for pile in row])}


def _walks(run: Run, loaded: DataSplits) -> dict[str, Tensor]:
    """The same ends by both paths: the codes of training pictures where there are codes, else latents."""
    if run.recipe.network.e is not None and isinstance(loaded.train, SizedSource):
        places = loaded.train.evenly_spaced(2 * WALKS + 1)[1:]
        mixed = places[
            torch.randperm(2 * WALKS, generator=RandomStreams(0)("ladder")) % len(places)
        ]  # neighbours may be of one class
        ends, made = encode_training_samples(run, loaded.train, mixed).latents, _maker(run, raw=True)
    else:
        ends, made = run.latents(2 * WALKS, 1), _maker(run, raw=False)
    start, end = ends.chunk(2)
    held = run.recipe.latent.project
    walked: dict[str, Tensor] = {}
    for name, walk in (("lerp", lerp), ("slerp", slerp)):
        frames = [made(held(walk(start, end, share))) for share in torch.linspace(0, 1, STEPS)]
        walked[name] = torch.stack(frames, 1).flatten(0, 1)
    return walked
