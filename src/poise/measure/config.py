"""`[measure]` in a recipe: what is measured as a run goes, and by what its best weights are chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, field_validator

from poise.core.config import Config, did_you_mean, reject_value
from poise.measure.catalogue import MEASURES


class MeasureConfig(Config):
    """A few cheap measures every so often, in steps; the first of them chooses the weights that are kept as the best.

    The same n latents each time, against real pictures that are not trained on where there are any.
    """

    every: int = Field(default=500, ge=1)
    measures: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)] = ("fid",)
    features: Literal["auto", "pixels", "classifier"] = "auto"
    n: int = Field(default=1000, ge=10, le=100_000)

    @field_validator("measures")
    @classmethod
    def _known(cls, measures: tuple[str, ...]) -> tuple[str, ...]:
        for name in measures:
            if name not in MEASURES:
                reject_value("no such measure", found=f"'{name}'", cure=did_you_mean(name, list(MEASURES)))
        if MEASURES[measures[0]].better == "floor":
            reject_value(
                "the first chooses the best weights, and of this one neither less nor more is better",
                found=f"'{measures[0]}'",
            )
        return measures
