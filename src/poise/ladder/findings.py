"""What the figures of a ladder show, said as they came out: each sentence holds, whichever way the figures lie."""

from __future__ import annotations

from typing import NamedTuple

from poise.ladder.read import Rung
from poise.utils.printing import count_noun


class LadderFinding(NamedTuple):
    """One thing that a ladder is climbed to see.

    Attributes:
        expected: what the lectures say.
        found: what the figures say.
        held: whether that is what was expected.
    """

    expected: str
    found: str
    confirmed: bool


MODEL_NAMES = {"autoencoder": "the autoencoder", "vae": "the VAE", "gan": "the GAN", "vae-gan": "the VAE-GAN"}


def compare_rungs(rungs: list[Rung]) -> list[LadderFinding]:
    """All that the rungs that are there let one see."""
    by_name = {rung.name: rung for rung in rungs}
    return [
        told for rule in (_linear, _random_codes, _fitted_codes, _blur, _quality, _hybrid) if (told := rule(by_name))
    ]


def _linear(rungs: dict[str, Rung]) -> LadderFinding | None:
    ours, plane = (_value(rungs, "autoencoder", name) for name in ("reconstruction", "pca_reconstruction"))
    if ours is None or plane is None:
        return None
    dim = rungs["autoencoder"].recipe["latent"]["dim"]
    better = "less" if ours < plane else "not less"
    found = f"{ours:.4f} against {plane:.4f} on held-out pictures, with {count_noun(dim, 'number')} each: {better}"
    return LadderFinding("the autoencoder rebuilds with less error than principal components do", found, ours < plane)


def _random_codes(rungs: dict[str, Rung]) -> LadderFinding | None:
    return _less(rungs, "fid", "vae", "autoencoder", "the VAE's samples are better than those of an autoencoder")


def _fitted_codes(rungs: dict[str, Rung]) -> LadderFinding | None:
    fitted, vae = rungs.get("autoencoder"), _value(rungs, "vae", "fid")
    ours = None if fitted is None else fitted.value("fid", "fitted")
    if ours is None or vae is None:
        return None
    found = (
        f"FID {ours:.4g} with codes drawn from a Gaussian fitted to the training pictures' codes, the VAE's {vae:.4g}"
    )
    return LadderFinding(
        "the VAE's samples are better even if the autoencoder's codes are drawn from where its pictures lie",
        found,
        ours > vae,
    )


def _blur(rungs: dict[str, Rung]) -> LadderFinding | None:
    gan, vae = (_value(rungs, name, "high_frequencies") for name in ("gan", "vae"))
    if gan is None or vae is None:
        return None
    found = f"Of real pictures' power in the high frequencies the GAN's samples have {gan:.0%}, the VAE's {vae:.0%}"
    return LadderFinding(
        "the GAN's samples are nearer to real pictures in sharpness than the VAE's", found, abs(gan - 1) < abs(vae - 1)
    )


def _quality(rungs: dict[str, Rung]) -> LadderFinding | None:
    told = _less(rungs, "fid", "gan", "vae", "the GAN's samples are better than the VAE's, by FID and by coverage")
    more = [_value(rungs, name, "coverage") for name in ("gan", "vae")]
    if told is None or more[0] is None or more[1] is None:
        return told
    found = f"{told.found}; coverage {more[0]:.3f} and {more[1]:.3f}"
    return LadderFinding(told.expected, found, told.confirmed and more[0] > more[1])


def _hybrid(rungs: dict[str, Rung]) -> LadderFinding | None:
    return _less(rungs, "fid", "vae-gan", "vae", "the hybrid, which rebuilds too, has better samples than the VAE")


def _less(rungs: dict[str, Rung], measure: str, better: str, worse: str, expected: str) -> LadderFinding | None:
    one, other = (_value(rungs, name, measure) for name in (better, worse))
    if one is None or other is None:
        return None
    found = f"{measure.upper()} {one:.4g} for {MODEL_NAMES[better]}, {other:.4g} for {MODEL_NAMES[worse]}"
    return LadderFinding(expected, found, one < other)


def _value(rungs: dict[str, Rung], name: str, measure: str) -> float | None:
    return rungs[name].value(measure) if name in rungs else None
