"""Compares the results of a ladder with what is expected of these models."""

from __future__ import annotations

from typing import NamedTuple

from poise.ladder.read import Rung
from poise.utils.printing import count_noun


class LadderFinding(NamedTuple):
    """The comparison of one expectation with the results.

    Attributes:
        expected: what is expected, as a clause.
        found: the results that it concerns.
        confirmed: whether they agree with the expectation.
    """

    expected: str
    found: str
    confirmed: bool


MODEL_NAMES = {"autoencoder": "the autoencoder", "vae": "the VAE", "gan": "the GAN", "vae-gan": "the VAE-GAN"}


def compare_rungs(rungs: list[Rung]) -> list[LadderFinding]:
    """All findings for which the rungs have the necessary results."""
    by_name = {rung.name: rung for rung in rungs}
    rules = (_reconstruction, _prior_samples, _fitted_samples, _blur, _quality, _hybrid)
    return [finding for rule in rules if (finding := rule(by_name))]


def _reconstruction(rungs: dict[str, Rung]) -> LadderFinding | None:
    error = _value(rungs, "autoencoder", "reconstruction")
    pca_error = _value(rungs, "autoencoder", "pca_reconstruction")
    if error is None or pca_error is None:
        return None
    dim = rungs["autoencoder"].recipe["latent"]["dim"]
    comparison = "lower" if error < pca_error else "not lower"
    found = (
        f"{error:.4f} versus {pca_error:.4f} on held-out images, both with {count_noun(dim, 'dimension')}: {comparison}"
    )
    return LadderFinding("the autoencoder has a lower reconstruction error than PCA", found, error < pca_error)


def _prior_samples(rungs: dict[str, Rung]) -> LadderFinding | None:
    return _lower(rungs, "fid", "vae", "autoencoder", "the VAE's samples are better than the autoencoder's")


def _fitted_samples(rungs: dict[str, Rung]) -> LadderFinding | None:
    autoencoder, vae = rungs.get("autoencoder"), _value(rungs, "vae", "fid")
    fitted = None if autoencoder is None else autoencoder.value("fid", "fitted")
    if fitted is None or vae is None:
        return None
    found = f"FID {fitted:.4g} with codes from a Gaussian fitted to the codes of training images, {vae:.4g} for the VAE"
    expected = "the VAE's samples are better even if the autoencoder's codes come from a fitted distribution"
    return LadderFinding(expected, found, fitted > vae)


def _blur(rungs: dict[str, Rung]) -> LadderFinding | None:
    gan, vae = (_value(rungs, name, "high_frequencies") for name in ("gan", "vae"))
    if gan is None or vae is None:
        return None
    found = f"Relative to real images, the power at high frequencies is {gan:.0%} for the GAN and {vae:.0%} for the VAE"
    expected = "the GAN's samples are closer to the sharpness of real images than the VAE's"
    return LadderFinding(expected, found, abs(gan - 1) < abs(vae - 1))


def _quality(rungs: dict[str, Rung]) -> LadderFinding | None:
    finding = _lower(rungs, "fid", "gan", "vae", "the GAN's samples are better than the VAE's in FID and coverage")
    gan, vae = (_value(rungs, name, "coverage") for name in ("gan", "vae"))
    if finding is None or gan is None or vae is None:
        return finding
    found = f"{finding.found}; coverage {gan:.3f} and {vae:.3f}"
    return LadderFinding(finding.expected, found, finding.confirmed and gan > vae)


def _hybrid(rungs: dict[str, Rung]) -> LadderFinding | None:
    return _lower(
        rungs, "fid", "vae-gan", "vae", "the VAE-GAN, which can reconstruct images too, has better samples than the VAE"
    )


def _lower(rungs: dict[str, Rung], measure: str, better: str, worse: str, expected: str) -> LadderFinding | None:
    """The finding that a measure is lower for the rung `better` than for `worse`."""
    low, high = (_value(rungs, name, measure) for name in (better, worse))
    if low is None or high is None:
        return None
    found = f"{measure.upper()} {low:.4g} for {MODEL_NAMES[better]}, {high:.4g} for {MODEL_NAMES[worse]}"
    return LadderFinding(expected, found, low < high)


def _value(rungs: dict[str, Rung], name: str, measure: str) -> float | None:
    return rungs[name].value(measure) if name in rungs else None
