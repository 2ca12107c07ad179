"""The table `[measure]` of a recipe: periodic evaluation, and the measure that selects the best weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, field_validator

from poise.core.config import Config, did_you_mean, reject_value
from poise.measure.catalogue import MEASURES


class MeasureConfig(Config):
    """Evaluate the run every `every` steps; the first of the measures selects the best weights.

    Each evaluation uses the same n latents, and held-out real samples where there are any. If G translates both ways,
    `domain` says whose images are measured, those of a or b, b by default.
    """

    every: int = Field(default=500, ge=1)
    measures: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)] = ("fid",)
    features: Literal["auto", "pixels", "classifier", "rotations"] = "auto"
    n: int = Field(default=1000, ge=10, le=100_000)
    domain: Literal["a", "b"] | None = None

    @field_validator("measures")
    @classmethod
    def _known(cls, measures: tuple[str, ...]) -> tuple[str, ...]:
        for name in measures:
            if name not in MEASURES:
                reject_value("no such measure", found=f"'{name}'", cure=did_you_mean(name, list(MEASURES)))
        if MEASURES[measures[0]].better == "floor":
            reject_value(
                "the first measure selects the best weights, but for this one neither less nor more is better",
                found=f"'{measures[0]}'",
            )
        return measures
