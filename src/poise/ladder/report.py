"""The report of a ladder, as a self-contained HTML file and as Markdown, made from the run folders without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from poise.ladder.findings import compare_rungs
from poise.ladder.read import Rung, read_rungs
from poise.report.document import ReportImage, ReportSection
from poise.report.render import write_document
from poise.utils.files import write_bytes
from poise.utils.plotting import as_png, new_figure
from poise.utils.printing import count_noun

MEASURES = {
    "fid": "FID",
    "coverage": "coverage",
    "precision": "precision",
    "recall": "recall",
    "class_balance": "class balance",
    "high_frequencies": "high frequencies",
    "reconstruction": "reconstruction error",
    "pca_reconstruction": "reconstruction error of PCA",
    "elbo": "ELBO, nats",
    "elbo_reconstruction": "ELBO, reconstruction term",
    "elbo_kl": "ELBO, KL divergence",
}
MAX_NORM_RATIO = 1.25
"""The ratio of the norms of codes and latents, or its inverse, above which the report remarks on it."""

COLOURS = {"autoencoder": "#8a6d3b", "vae": "#2b6cb0", "gan": "#d9622b", "vae-gan": "#2f855a"}


def write_report(out: Path, names: list[str]) -> Path:
    """Write `report.html` and `report.md` into the ladder's folder.

    Args:
        out: the folder.
        names: the rungs to report.

    Returns:
        The path of `report.html`.

    Raises:
        CheckpointError: a model is missing or has not been evaluated.
        DiskError: a file can't be written.
    """
    rungs = read_rungs(out, names)
    _plot_spectra(rungs, out / "spectrum.png")
    return write_document(list(_sections(rungs, out)), out)


def _sections(rungs: list[Rung], out: Path) -> Iterator[ReportSection]:
    first = rungs[0]
    recipe, data = first.recipe, first.info["data"]
    num_images = recipe["steps"] * recipe["batch"]
    yield ReportSection(
        "Ladder of generative models",
        [
            f"Data: {data['kind']}, {count_noun(data['count'], 'image')} of {'x'.join(map(str, data['shape']))}. "
            f"Decoder of all models: '{recipe['network']['g']['kind']}' with "
            f"{count_noun(first.info['parameters']['g'], 'parameter')}, the same initial weights and "
            f"{count_noun(recipe['latent']['dim'], 'latent dimension')}. Budget of each model: "
            f"{count_noun(recipe['steps'], 'step')} with batch size {recipe['batch']} "
            f"({count_noun(num_images, 'image')}). Seed {recipe['seed']}.",
            "With a single seed, the report shows differences but not their significance.",
        ],
    )
    yield ReportSection(
        "Expectations and results",
        [
            f"{'Confirmed' if one.confirmed else 'NOT confirmed'}: {one.expected}. {one.found}."
            for one in compare_rungs(rungs)
        ],
    )
    yield ReportSection(
        "Measures",
        [
            f"From {first.results['n']:,} samples and as many held-out images (features: "
            f"{first.results['features']}). The column of real data is for real images against other real images. The "
            "reconstruction error is the mean squared error per pixel and channel, for values in [-1, 1].",
        ],
        table=list(_measure_table(rungs)),
    )
    yield ReportSection(
        "Samples", _sample_paragraphs(rungs), images=_images(rungs, "samples", "latents from the prior")
    )
    fitted = _images(rungs, "fitted", "latents from a Gaussian fitted to the codes")
    if fitted:
        yield ReportSection("Samples from fitted codes", _fitted_paragraphs(rungs), images=fitted)
    yield ReportSection(
        "Reconstructions",
        ["Rows of held-out images alternate with rows of their reconstructions. A GAN has no encoder."],
        images=_images(rungs, "rebuilt", "real images above their reconstructions"),
    )
    for path, method in (("lerp", "Linear interpolation"), ("slerp", "Spherical interpolation")):
        yield ReportSection(
            method,
            ["Each row interpolates between the codes of two training images, or, for the GAN, between two latents."],
            images=_images(rungs, path, method.lower()),
        )
    yield ReportSection(
        "Blur",
        [
            "The squared error is minimised by the mean of all images that are compatible with a code, and the mean of "
            "edges at slightly different positions is a blurred edge. Blur is a loss of power at high frequencies: a "
            "ratio below 1 means blur, above 1 noise. A discriminator recognises blurred edges as fake.",
        ],
        images=[
            ReportImage(out / "spectrum.png", "power spectrum of samples divided by that of real images", "smooth")
        ],
    )
    yield ReportSection("Training cost and reproduction", table=list(_cost_table(rungs)))


def _measure_table(rungs: list[Rung]) -> Iterator[list[str]]:
    columns = [(rung, "measures", rung.name) for rung in rungs]
    columns[1:1] = [(rung, "fitted", f"{rung.name}, fitted codes") for rung in rungs[:1] if "fitted" in rung.results]
    floors = {name: result["floor"] for name, result in rungs[0].results["measures"].items()}
    yield ["", *(title for _, _, title in columns), "real data"]
    for name, title in MEASURES.items():
        values = [rung.value(name, group) for rung, group, _ in columns]
        if any(value is not None for value in values):
            yield [title, *map(_format, values), _format(floors.get(name))]


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _sample_paragraphs(rungs: list[Rung]) -> list[str]:
    codes = rungs[0].results.get("codes")
    if codes is None:
        return []
    differ = max(codes["length"], codes["prior_length"]) > MAX_NORM_RATIO * min(codes["length"], codes["prior_length"])
    remark = ", so the decoder is evaluated far from its training points" if differ else ""
    return [
        "The autoencoder's objective does not tie the distribution of its codes to the prior. The median norm is "
        f"{codes['length']:.3g} for codes of training images and {codes['prior_length']:.3g} for latents{remark}. The "
        "KL divergence in the VAE's objective keeps the codes close to the prior."
    ]


def _fitted_paragraphs(rungs: list[Rung]) -> list[str]:
    codes = rungs[0].results.get("codes")
    if codes is None:
        return []
    low, median, high = codes["std"]
    return [
        f"The autoencoder's codes have standard deviations of {low:.3g} to {high:.3g} (median {median:.3g}). A "
        "Gaussian with their mean and covariance yields codes in the region where the decoder was trained. But the "
        "codes are not Gaussian: between the classes there are regions without any codes."
    ]


def _images(rungs: list[Rung], name: str, caption: str) -> list[ReportImage]:
    return [ReportImage(path, f"{rung.name}: {caption}") for rung in rungs if (path := rung.image(name)) is not None]


def _cost_table(rungs: list[Rung]) -> Iterator[list[str]]:
    yield ["", "seconds", "parameters", "alarms", "recipe hash", "checkpoint"]
    for rung in rungs:
        sizes = ", ".join(f"{name} {count:,}" for name, count in rung.info["parameters"].items())
        alarms = ", ".join(sorted({alarm["detector"] for alarm in rung.alarms})) or "none"
        recipe_hash, step = rung.info["recipe"], rung.results["step"]
        yield [rung.name, f"{rung.info['seconds']:,.0f}", sizes, alarms, recipe_hash, f"step {step:,}"]


def _plot_spectra(rungs: list[Rung], path: Path) -> None:
    figure = new_figure(8, 3.6, dpi=120, layout="constrained")
    axes = figure.subplots()
    for rung in rungs:
        real = rung.results["spectrum"]["real"]
        for name, style in (("samples", "-"), ("fitted", ":")):
            curve = rung.results["spectrum"].get(name)
            if curve is None or (name == "fitted" and rung is not rungs[0]):
                continue
            ratio = [max(fake, 1e-12) / max(true, 1e-12) for fake, true in zip(curve, real, strict=True)]
            label = rung.name if name == "samples" else f"{rung.name}, fitted codes"
            axes.plot(range(1, len(ratio)), ratio[1:], style, color=COLOURS.get(rung.name), label=label, linewidth=1.6)
    axes.axhline(1, color="black", linestyle="--", linewidth=0.8, label="real images")
    axes.set_yscale("log")
    axes.set(xlabel="frequency (cycles per image)", ylabel="power relative to real images")
    axes.legend(frameon=False, fontsize=8)
    write_bytes(path, as_png(figure))
