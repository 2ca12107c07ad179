"""The commands that the page may give to the playground, with a strict schema: what is not named here is refused."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from poise.core.validation import explain
from poise.playground.options import DATA, OBJECTIVES, PENALTIES, RANGES, TRICKS

DENSITY_SIDE = 64
"""A drawn density has this many rows and columns."""


def _invalid(message: str) -> PydanticCustomError:
    return PydanticCustomError("playground", "{message}", {"message": message})


def _one_of(menu: Container[str]) -> AfterValidator:
    def check(kind: str) -> str:
        if kind not in menu:
            raise _invalid("is not one of the options")
        return kind

    return AfterValidator(check)


def _within(name: str) -> Any:
    return Field(ge=RANGES[name].min, le=RANGES[name].max)


class Command(BaseModel):
    """The arguments of a command; those of `pause` and `stop`, which have none."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)


class GameSpec(Command):
    """One game, as a learner chooses it. `penalty_weight` has no effect without a penalty."""

    data: Annotated[str, _one_of(DATA)]
    objective: Annotated[str, _one_of(OBJECTIVES)]
    penalty: Annotated[str, _one_of(PENALTIES)] | None
    penalty_weight: float = _within("penalty_weight")
    tricks: list[Annotated[str, _one_of(TRICKS)]] = Field(max_length=len(TRICKS))
    lr_g: float = _within("lr_g")
    lr_d: float = _within("lr_d")
    d_moves: int = _within("d_moves")
    width: int = _within("width")
    latent_dim: int = _within("latent_dim")
    batch: int = _within("batch")

    @model_validator(mode="after")
    def _no_trick_twice(self) -> Self:
        if len(set(self.tricks)) < len(self.tricks):
            raise _invalid("has a trick twice")
        return self

    @model_validator(mode="after")
    def _weight_fits_the_penalty(self) -> Self:
        weight = None if self.penalty is None else PENALTIES[self.penalty].weight
        if weight is not None and not weight.range.min <= self.penalty_weight <= weight.range.max:
            bounds = f"{weight.range.min:g} to {weight.range.max:g}"
            raise _invalid(f"has a penalty_weight that is not within {bounds}, the bounds of its penalty")
        return self


class Start(Command):
    """Start one game, or two side by side, from one seed.

    Attributes:
        density: the drawn density, base64 of 64 x 64 bytes, the first row at the top; needed if a game's data is
            `density`.
        speed: the largest number of steps per second.
    """

    games: list[GameSpec] = Field(min_length=1, max_length=2)
    seed: int = _within("seed")
    density: str | None = Field(default=None, max_length=8192)
    speed: float = Field(default=RANGES["speed"].default, ge=RANGES["speed"].min, le=RANGES["speed"].max)

    @model_validator(mode="after")
    def _density_fits(self) -> Self:
        if self.density is not None:
            self.drawn()
        elif any(game.data == "density" for game in self.games):
            raise _invalid("has data that is to be drawn, and no drawing")
        return self

    def drawn(self) -> bytes:
        """The drawn density: 64 x 64 bytes, row by row from the top; not all of them are 0."""
        try:
            drawn = base64.b64decode(self.density or "", validate=True)
        except (binascii.Error, ValueError):
            drawn = b""
        if len(drawn) != DENSITY_SIDE**2:
            raise _invalid(f"has a drawing that is not base64 of {DENSITY_SIDE} x {DENSITY_SIDE} bytes")
        if not any(drawn):
            raise _invalid("has an empty drawing")
        return drawn


class Paced(Command):
    """A command after which a game is played at another speed, if one is given.

    Attributes:
        speed: the largest number of steps per second.
    """

    speed: float | None = Field(default=None, ge=RANGES["speed"].min, le=RANGES["speed"].max)


class Resume(Paced):
    """Continue; also changes the speed of a game that is not paused."""


class Reset(Paced):
    """Begin again with the same choices and the same seed."""


class Step(Command):
    """Pause, and make a single move of one player, or one step of both."""

    player: Literal["d", "g", "both"]


COMMANDS: dict[str, type[Command]] = {
    "start": Start,
    "pause": Command,
    "resume": Resume,
    "step": Step,
    "reset": Reset,
    "stop": Command,
}
"""The schema of each command's arguments, by its name."""


def parse_arguments(name: str, arguments: bytes) -> Command:
    """The arguments of a command, from JSON.

    Args:
        name: the command, one of `COMMANDS`.
        arguments: a JSON object.

    Raises:
        RecipeError: they do not follow the schema; names the first field that does not.
    """
    try:
        return COMMANDS[name].model_validate_json(arguments)
    except ValidationError as error:
        raise explain(error, where=name) from None
