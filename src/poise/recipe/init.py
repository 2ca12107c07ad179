"""The table `[init]` of a recipe: the run whose weights the players start from, for fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, Strict

from poise.core.config import Config


class InitConfig(Config):
    """The players start from the weights of another run. It acts before step 0 only.

    `from` (in Python `run`) is the path of the run folder, and `weights` its checkpoint: the newest one, or the one
    with the best measured value. `players` are those that start from it; G includes its encoder. `sha256` is the
    checksum of these weights (`training.initial_weights.checksum`). It may be left out, and a run adds it to its
    `recipe.toml`: the recipe is refused if the weights have another one.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    run: str = Field(alias="from", min_length=1)
    weights: Literal["newest", "best"] = "newest"
    players: Annotated[tuple[Literal["g", "d"], ...], Strict(False), Field(min_length=1)] = ("g", "d")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
