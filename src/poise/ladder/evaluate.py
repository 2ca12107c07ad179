"""The evaluation of one rung. Its results are written to `RUN/ladder/`, from where the report reads them.

figures.json          the measures of samples and reconstructions, the spectra, statistics of the latent codes
samples.png           samples from latents of the prior
fitted.png            samples from a Gaussian fitted to the codes of training images (only with an encoder)
rebuilt.png           rows of held-out images, each above the row of their reconstructions
lerp.png, slerp.png   interpolations between the codes of training images, or between latents if there is no encoder
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
from poise.interpolation import lerp, slerp
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

SAMPLE_MEASURES = (
    "fid",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "class_balance",
    "high_frequencies",
)
RECONSTRUCTION_MEASURES = "reconstruction", "pca_reconstruction", "elbo", "elbo_reconstruction", "elbo_kl"
COLUMNS, NUM_INTERPOLATIONS, STEPS = 12, 6, 10
NUM_CODES = 5_000
"""The number of training images that are encoded."""

RIDGE, MIN_RIDGE = 1e-6, 1e-12
"""Added to the variances of the codes, relative to their mean and at least `MIN_RIDGE`, so that the covariance has a
Cholesky factor even if a dimension of the code is unused."""


def evaluate_rung(run: Run, *, data_root: Path | None = None, progress: Progress = no_progress) -> None:
    """Measure a run and draw its image grids, unless this has been done for its checkpoint.

    Args:
        run: the run.
        data_root: the folder that contains the data sets given by name.
        progress: gets the progress.

    Raises:
        DataError: the data is missing or has changed.
    """
    folder = run.path / "ladder"
    results_file = folder / "figures.json"
    if _evaluated_step(results_file) == run.checkpoint.step:
        return
    data = run.load(data_root)
    progress(f"evaluating {run.recipe.name}", 0.0)
    measures = select_measures([*SAMPLE_MEASURES, *RECONSTRUCTION_MEASURES])
    result, evaluator = measure_run(run, measures, data_root=data_root, progress=progress)
    with disk_errors(folder):
        make_folder(folder)
    grids = {"samples": run.sample(COLUMNS * COLUMNS // 2)}
    results: dict[str, Any] = {
        "step": run.checkpoint.step,
        "measures": _to_json(result),
        "n": result.n,
        "features": result.features,
    }
    results["spectrum"] = {
        "real": spectrum(evaluator.real).tolist(),
        "samples": radial_power(run.sample(evaluator.n)).tolist(),
    }
    if run.recipe.network.e is not None and isinstance(data.train, SizedSource):
        results["codes"], draw_codes = _fit_codes(run, data.train)
        decode = _make_decoder(run, raw=True)
        grids["fitted"] = decode(draw_codes(COLUMNS * COLUMNS // 2))
        fitted = evaluator.measure(lambda n: decode(draw_codes(n)), select_measures(SAMPLE_MEASURES))
        results["fitted"] = _to_json(fitted)
        results["spectrum"]["fitted"] = radial_power(decode(draw_codes(evaluator.n))).tolist()
    grids |= _reconstructions(run, data) | _interpolations(run, data)
    for name, samples in grids.items():
        columns = STEPS if name in ("lerp", "slerp") else COLUMNS
        write_png(sample_grid(samples, None, columns, alpha=run.alpha), folder / f"{name}.png")
    write_json(results_file, results)


def _evaluated_step(results_file: Path) -> int | None:
    """The step of the last evaluation; None if there is none, or it can't be read."""
    try:
        return json.loads(results_file.read_text("utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _to_json(result: EvaluationResult) -> dict[str, Any]:
    return result.as_json()["measures"]


def _make_decoder(run: Run, *, raw: bool) -> Callable[[Tensor], Tensor]:
    """G as a function of latents, with the non-averaged weights, to which the encoder belongs, if `raw`."""
    net, streams = run.generator(raw=raw), RandomStreams(0)
    return lambda latents: generate(net, latents, streams=streams)


def _fit_codes(run: Run, train: SizedSource) -> tuple[dict[str, Any], Callable[[int], Tensor]]:
    """Statistics of the codes of training images, and a function that samples from a Gaussian fitted to them."""
    codes = encode_training_samples(run, train, train.evenly_spaced(NUM_CODES)).latents.double()
    mean, covariance = codes.mean(0), torch.cov(codes.T)
    ridge = (RIDGE * covariance.diagonal().mean()).clamp_min(MIN_RIDGE)
    factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(mean), dtype=torch.float64))
    std = covariance.diagonal().sqrt()
    statistics = {
        "mean_length": float(mean.norm()),
        "std": [float(std.min()), float(std.median()), float(std.max())],
        "length": float(codes.norm(dim=1).median()),
        "prior_length": float(run.latents(len(codes)).norm(dim=1).median()),
    }

    def draw_codes(n: int) -> Tensor:
        z = torch.randn(n, len(mean), generator=RandomStreams(0)("ladder/fitted"), dtype=torch.float64)
        return run.recipe.latent.project((mean + z @ factor.T).float())

    return statistics, draw_codes


def _reconstructions(run: Run, data: DataSplits) -> dict[str, Tensor]:
    """Rows of held-out images, each followed by the row of their reconstructions; empty if the run has no encoder."""
    reconstructor = make_reconstructor(run.recipe, run.game, RandomStreams(0))
    source = data.held_out if isinstance(data.held_out, SizedSource) else data.train
    if reconstructor is None or not isinstance(source, SizedSource):
        return {}
    real = to_float(source.gather(source.evenly_spaced(2 * COLUMNS)).images)
    rows = zip(real.split(COLUMNS), reconstructor.reconstruct(real).split(COLUMNS), strict=True)
    return {"rebuilt": torch.cat([row for pair in rows for row in pair])}


def _interpolations(run: Run, data: DataSplits) -> dict[str, Tensor]:
    """Linear and spherical interpolations with the same ends: codes of training images, or else latents."""
    if run.recipe.network.e is not None and isinstance(data.train, SizedSource):
        indices = data.train.evenly_spaced(2 * NUM_INTERPOLATIONS + 1)[1:]
        order = torch.randperm(2 * NUM_INTERPOLATIONS, generator=RandomStreams(0)("ladder"))
        shuffled = indices[order % len(indices)]  # adjacent images may be of one class
        ends, decode = encode_training_samples(run, data.train, shuffled).latents, _make_decoder(run, raw=True)
    else:
        ends, decode = run.latents(2 * NUM_INTERPOLATIONS, 1), _make_decoder(run, raw=False)
    start, end = ends.chunk(2)
    project = run.recipe.latent.project
    grids: dict[str, Tensor] = {}
    for name, interpolate in (("lerp", lerp), ("slerp", slerp)):
        frames = [decode(project(interpolate(start, end, share))) for share in torch.linspace(0, 1, STEPS)]
        grids[name] = torch.stack(frames, 1).flatten(0, 1)
    return grids
